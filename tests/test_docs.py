"""The site of docs/: its pages and links are there, it loads nothing from elsewhere, and the commands of its pages run."""

from __future__ import annotations

import importlib.util
import json
import os
import posixpath
import re
import shlex
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import nbformat
import pytest
import yaml

import notebooks
from arena_cje.diagnostics.measures import LIFTS
from arena_cje.estimation.decision import STATUSES
from arena_cje.estimation.records import LEVELS
from arena_cje.results.text import COLUMNS
from workflow_run import ROOT

if TYPE_CHECKING:
    from pathlib import Path

spec = importlib.util.spec_from_file_location("site_pages", ROOT / "envs" / "site_pages.py")
site_pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site_pages)

SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
OWN = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
SOURCES = [*OWN, *site_pages.PAGES]
RUN = ("docs/tutorial.md", "docs/data.md", "docs/foreign_formats.md")


def text(source: str) -> str:
    return (ROOT / source).read_text(encoding="utf-8")


def prose(source: str) -> str:
    """The text of a page without its blocks of code."""
    return site_pages.FENCED.sub("", text(source))


def links(source: str) -> list[str]:
    """The links of a page to files, not to addresses."""
    return [address for *_, address in site_pages.LINK.findall(prose(source)) if "://" not in address]


def anchors(source: str) -> set[str]:
    """The anchors of a page's headings, as links name them."""
    titles = re.findall(r"^#+ +(.+)$", prose(source), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def nav(entries: list) -> list[str]:
    """The pages of the navigation in their order."""
    values = (entry if isinstance(entry, str) else next(iter(entry.values())) for entry in entries)
    return [page for value in values for page in (nav(value) if isinstance(value, list) else [value])]


def test_the_navigation_has_every_page_once():
    assert sorted(nav(SITE["nav"])) == sorted(site_pages.page_of(source) for source in SOURCES)


@pytest.mark.parametrize("source", SOURCES)
def test_every_link_leads_to_a_file_and_a_heading(source):
    wrong = []
    for link in links(source):
        target, anchor = site_pages.target_of(link, source), link.partition("#")[2]
        is_there = (ROOT / target).exists() and (not anchor or anchor in anchors(target))
        wrong += [] if is_there else [link]
    assert wrong == []


@pytest.mark.parametrize("source", SOURCES)
def test_links_of_the_site_stay_on_the_site(source):
    page = site_pages.page_of(source)
    pages = {site_pages.page_of(other) for other in SOURCES}
    rewritten = site_pages.FENCED.sub("", site_pages.with_links_of_the_site(text(source), source))
    for *_, address in site_pages.LINK.findall(rewritten):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), address.partition("#")[0]))
        if "://" not in address and address[0] != "#":
            assert target in pages or (ROOT / "docs" / target).is_file(), address


def test_links_lead_to_pages_of_the_site_or_become_text():
    rewrite = site_pages.with_links_of_the_site
    assert rewrite("[keys](../config/README.md#labels)", "docs/faq.md") == "[keys](configuration.md#labels)"
    assert rewrite("[data](../data.md)", "docs/experiments/README.md") == "[data](../data.md)"
    assert rewrite("[data](docs/data.md#prompts)", "README.md") == "[data](data.md#prompts)"
    assert rewrite("[judges](../resources/judges/README.md)", "config/README.md") == "[judges](rubrics.md)"
    assert rewrite("[the rules](../workflow/Snakefile)", "docs/faq.md") == "the rules"
    assert rewrite("[it](https://example.org/a)", "docs/faq.md") == "[it](https://example.org/a)"
    assert rewrite("```\n[x](../y.md)\n```", "docs/faq.md") == "```\n[x](../y.md)\n```"


def test_the_site_loads_nothing_from_elsewhere():
    assert SITE["theme"]["font"] is False  # otherwise fonts are loaded from a service
    assert SITE["plugins"] == ["search"]
    assert not {"extra_javascript", "repo_url"} & SITE.keys()
    for sheet in SITE["extra_css"]:
        assert not re.search(r"@import|url\(", text(f"docs/{sheet}"))
    for source in SOURCES:
        assert not re.search(r"!\[[^\]]*\]\(https?:|<(script|img|link|iframe)\b", prose(source)), source


def test_what_the_site_needs_is_pinned():
    extra = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]["docs"]
    pins = {line.partition("==")[0] for line in text("constraints.txt").splitlines()}
    assert {re.match(r"[\w-]+", requirement)[0] for requirement in extra} <= pins


def test_each_reason_of_a_verdict_and_each_decision_says_what_to_do():
    rows = {
        code: line.split(" | ")
        for line in text("docs/verdicts.md").splitlines()
        for code in re.findall(r"`(\w+)`", line.split(" | ")[0])
    }
    reason_codes = set()
    for path in (ROOT / "workflow" / "arena_cje" / "diagnostics").glob("*.py"):
        reason_codes |= set(re.findall(r'Reason\(\s*"(\w+)"', path.read_text()))
    assert len(reason_codes) > 20
    for code in {*LIFTS, *reason_codes, *STATUSES}:
        assert len(rows[code]) == 3 and len(rows[code][2].strip(" |")) > 3, code


def test_the_glossary_has_what_the_table_on_the_terminal_has():
    page = text("docs/glossary.md").lower()
    decisions = [status.replace("_", " ") for status in STATUSES if not status.startswith("better")]
    for name in (*(name for name, _ in COLUMNS), *LEVELS, *decisions):
        assert re.search(rf"\b{re.escape(name.lower())}\b", page), name


def test_the_page_on_performance_names_every_benchmark():
    groups = {path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")}
    (line,) = re.findall(r"one of: (.+)", text("docs/performance.md"))
    assert set(line.split(", ")) == groups


def test_every_trap_that_tests_cite_has_one_row_with_tests_that_exist():
    files = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    cited = {trap for content in files.values() for trap in re.findall(r"\btrap (T\d+)", content, re.IGNORECASE)}
    rows = re.findall(r'^\| <a id="(t\d+)"></a>(T\d+) \|.* \| (.+) \|$', text("docs/traps.md"), re.MULTILINE)
    assert sorted(trap for _, trap, _ in rows) == sorted(cited)
    for anchor, trap, tests in rows:
        assert anchor == trap.lower()
        named = re.findall(r"`([^`:]+)::(\w+)`", tests)
        assert named, trap
        for path, name in named:
            assert f"def {name}(" in files[path], (trap, path, name)


def commands(source: str) -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", text(source), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def follow(source: str, folder: Path) -> dict[str, str]:
    """Writes the files of a page and runs its commands in their order; the output of each command."""
    for name, content in re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', text(source), re.MULTILINE | re.DOTALL):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    outputs = {}
    for line in commands(source):
        program, *arguments = shlex.split(line)
        module = {"python": [], "arena-cje": ["-m", "arena_cje"]}[program]
        process = subprocess.run(
            [sys.executable, *module, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")},
            timeout=60,
        )
        assert process.returncode == 0, (line, process.stdout, process.stderr)
        outputs[line] = process.stdout
    return outputs


@pytest.fixture(scope="module")
def page_runs(tmp_path_factory):
    """The folder and the outputs of each page after its commands."""
    folders = {source: tmp_path_factory.mktemp("page") for source in RUN}
    return {source: (folder, follow(source, folder)) for source, folder in folders.items()}


@pytest.mark.parametrize("source", RUN)
def test_the_commands_of_a_page_run_and_print_what_it_shows(source, page_runs):
    _, outputs = page_runs[source]
    assert outputs
    output_lines = {" ".join(line.split()) for output in outputs.values() for line in output.splitlines()}
    blocks = re.findall(r"^```text\n(.*?)^```", text(source), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line != "..."]
    assert [line for line in lines if " ".join(line.split()) not in output_lines] == []


def test_the_notebook_is_valid_and_its_cells_give_its_outputs():
    """Pictures are not compared: their bytes depend on the fonts of a machine."""
    notebook = json.loads(text("docs/example.ipynb"))
    nbformat.validate(notebook)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    pictures = 0
    for cell, new_outputs in zip(code, notebooks.outputs(notebook), strict=True):
        for output in (*cell["outputs"], *new_outputs):
            pictures += bool(output.get("data", {}).pop("image/png", ""))
        assert cell["outputs"] == new_outputs, "write them anew: python tests/support/notebooks.py docs/example.ipynb"
    assert pictures == 4  # two figures, stored and drawn


def test_the_tutorial_ends_in_two_decisions(page_runs):
    folder, outputs = page_runs["docs/tutorial.md"]
    assert "not yet known" in outputs["python first.py"].splitlines()[0]
    assert "careful is better" in outputs["python second.py"] and "chatty is worse" in outputs["python second.py"]
    ship = [sys.executable, "-m", "arena_cje", "decide", "direct.json", "--ship", "chatty"]
    process = subprocess.run(
        ship, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")}, capture_output=True
    )
    assert process.returncode == 1
