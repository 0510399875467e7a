"""`snakemake --report`: one page with the tables of a run, what they are, and how the run went."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from arena_cje.config.exhibits import EXHIBITS
from small_results import write_data
from workflow_run import ROOT, Run

TABLES = (
    "results/coverage_0.5/comparisons.csv",
    "results/export/coverage_0.5/leaderboard.csv",
    "results/export/results.csv",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a small run on your own data."""
    run = Run(
        write_data(tmp_path_factory.mktemp("run"), n=200),
        {"logged_data": "logged.jsonl", "fresh_draws": "draws", "coverages": ["0.5"], "estimators": ["snips"]},
    )
    targets = (*TABLES, "results/coverage_0.5/decision.html")
    run.snakemake(*targets)
    run.snakemake(*targets, "--report", "report.html")
    return (run.directory / "report.html").read_text(encoding="utf-8")


def script_value(page, name):
    """The JSON object that the page's script assigns to a name."""
    return json.JSONDecoder().raw_decode(page, page.index(f"{name} = {{") + len(name) + 3)[0]


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_in_the_report_in_its_category(page, table):
    assert script_value(page, "results")[table]["mime_type"] == "text/csv"
    place = "coverage 0.5" if "0.5" in table else "all coverages"
    assert table in script_value(page, "categories")["Tables"][place]


def test_the_front_page_begins_with_the_result(page):
    start = page.index("workflow_desc = ")
    front = json.JSONDecoder().raw_decode(page, start + len("workflow_desc = "))[0]
    assert "Result at coverage 0.5" in front[: front.index("What was estimated")]
    assert "<td>refused</td>" in front and "Compared with base" in front
    assert ":file:" not in front


def test_captions_have_no_unfilled_placeholders(page):
    assert "Differences of all pairs of policies at coverage 0.5" in page
    assert "Ranks at coverage 0.5" in page
    assert "your own data" in page
    assert not re.search(r"\{\{ ?snakemake\.", page)


def test_captions_explain_refused_policies(page):
    assert "has no published number" in page
    assert "Refused policies stand last, without rank and number" in page


def test_every_caption_is_used():
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    captions = {Path(name).name for name in re.findall(r"report/\w+\.rst", rules)}
    assert captions | {exhibit.caption for exhibit in EXHIBITS if exhibit.label} == {
        caption.name for caption in (ROOT / "workflow/report").glob("*.rst")
    }
