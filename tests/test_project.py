"""Consistency of the project's files: pins agree, documents name files that exist, every script is used."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from workflow_run import ROOT, SNAKEMAKE

PINS = {
    match[1].lower().replace("_", "-"): match[2]
    for match in re.finditer(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.name)
def test_conda_environments_have_the_pins_of_constraints(path):
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    flat = [part for item in dependencies for part in (item["pip"] if isinstance(item, dict) else [item])]
    pins = dict(
        re.fullmatch(r"([\w-]+) ?==?([\w.]+)(?: --config-settings=\S+)?", item).groups() for item in flat if "=" in item
    )
    del pins["python"]
    assert pins == {name: PINS[name] for name in pins}


def test_every_dependency_is_pinned():
    text = (ROOT / "pyproject.toml").read_text()
    names = re.findall(r'^  "([\w-]+)>=', text, re.MULTILINE)
    assert names
    assert set(names) <= set(PINS)


def test_what_dependencies_depend_on_is_pinned():
    queue, visited = [("arena-cje", "test")], set()
    while queue:
        name, extra = queue.pop()
        if (name, extra) in visited:
            continue
        visited.add((name, extra))
        for requirement in map(Requirement, metadata.requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                queue += [(canonicalize_name(requirement.name), inner) for inner in ("", *requirement.extras)]
    assert {name for name, _ in visited} - {"arena-cje"} <= set(PINS)


def test_every_rule_logs_and_has_an_environment():
    process = subprocess.run([*SNAKEMAKE, "--lint", "json"], cwd=ROOT, capture_output=True, text=True)
    assert "No log directive" not in process.stdout
    assert "Specify a conda environment" not in process.stdout


def test_every_script_and_rule_file_is_used():
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    for script in (ROOT / "workflow" / "scripts").glob("*.py"):
        assert f"scripts/{script.name}" in rules
    included = (ROOT / "workflow" / "Snakefile").read_text() + rules
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        assert re.search(rf'include: f?"(?:.*/)?{path.name}"', included), path.name


def test_importing_the_library_is_cheap():
    code = "import sys, arena_cje; sys.exit(any(name in sys.modules for name in ('polars', 'scipy', 'llama_cpp')))"
    process = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "workflow")})
    assert process.returncode == 0


def test_reading_the_workflow_imports_no_engine():
    """The DAG is built on every start, and must not import libraries that only jobs need."""
    paths = (path for path in (ROOT / "workflow" / "rules").glob("*.smk") if path.name != "own_data.smk")
    rules = "".join(path.read_text() for path in paths)  # own_data.smk reads a user's own data
    imports = re.findall(r"^(?:from|import) arena_cje.*$", rules, re.MULTILINE)
    assert len(imports) > 5
    code = (
        "import sys\n" + "\n".join(imports) + "\n"
        "from arena_cje.config import checks, parse, records, scoring, targets\n"
        "from arena_cje.llama import generator, scorer\n"
        "from arena_cje.grading import hosted, local, reference\n"
        "sys.exit(any(name in sys.modules for name in ('llama_cpp', 'scipy', 'polars')))"
    )
    process = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "workflow")})
    assert process.returncode == 0


DOCUMENTS = ["README.md", "config/README.md"]
DOCUMENTS += [
    path.relative_to(ROOT).as_posix()
    for pattern in ("docs/**/*.md", "resources/*/README.md")
    for path in ROOT.glob(pattern)
]


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_files_that_documents_name_exist(document):
    text = (ROOT / document).read_text()
    names = set(re.findall(r"`((?:config|resources|workflow|tests|profiles|envs|benchmarks)/[\w./-]+\.\w+)`", text))
    folders = (ROOT, ROOT / "workflow" / "arena_cje")  # the page on the architecture names modules by their room
    missing = {name for name in names if not any((folder / name).exists() for folder in folders)}
    assert not missing


def test_the_readme_names_the_commands_of_the_makefile():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("run", "test", "bench", "lint"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_no_path_of_a_machine_is_in_the_project():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    own = Path(__file__).name
    for name in files:
        if name.endswith((".py", ".smk", ".md", ".yaml", ".toml", ".txt")) and not name.endswith(own):
            assert not re.search(r"(?<![\w./-])/(?:home|root|Users)/\w", (ROOT / name).read_text()), name
