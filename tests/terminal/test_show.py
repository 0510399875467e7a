"""Files and folders of results as text."""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest

import arena_cje
from arena_cje.__main__ import main
from arena_cje.errors import UserError
from arena_cje.files import write_csv, write_json
from arena_cje.report import comparisons
from arena_cje.results import decision_file, recommendation
from arena_cje.results.result import write
from arena_cje.stages import run_record
from arena_cje.terminal import show
from small_results import write_data


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The folder of a run with two estimators at one coverage, a decision, comparisons, a figure and a dashboard."""
    folder = tmp_path_factory.mktemp("run")
    write_data(folder)
    coverage = folder / "results" / "coverage_0.5"
    (coverage / "plots").mkdir(parents=True)
    analyses = []
    for name in ("direct", "snips"):
        analyses.append(arena_cje.analyze(folder / "logged.jsonl", folder / "draws", name))
        write(analyses[-1], *(coverage / f"{name}.{kind}" for kind in ("json", "csv", "influence.parquet")))
    ordered = recommendation.recommended_first(analyses)
    write_json(coverage / "decision.json", decision_file.document(ordered, "0.5"))
    write_json(coverage / "comparisons.json", comparisons.document(ordered, "0.5"))
    (coverage / "plots" / "policy_estimates.png").touch()
    (coverage / "diagnostics_dashboard.html").touch()
    (folder / "results" / "archive.zip").touch()
    outputs = [("results/coverage_0.5/direct.json",), ("results/coverage_0.5/tmle.json",), ("results/judge/a.jsonl",)]
    jobs = [run_record.PlannedJob(output, True) for output in outputs]
    run_record.write_start(jobs, folder / run_record.RECORD)
    return folder


def test_a_folder_of_results_is_listed_with_the_files_that_are_missing(results, monkeypatch):
    monkeypatch.chdir(results)
    text = show.text(results)
    assert text == show.text(results / "results")
    headline = json.loads((results / "results/coverage_0.5/decision.json").read_text())["decision"]["headline"]
    assert f"the recommended: {headline} (" in text
    assert "  estimators: direct, snips (" in text
    assert "  figures: policy_estimates.png (" in text
    assert f"  pages: {results}/results/coverage_0.5/diagnostics_dashboard.html" in text
    assert f"  archive of all: {results}/results/archive.zip" in text
    assert "  not made: decision.html, data_report.html, plots/weight_distributions.png, " in text
    assert "(targets of snakemake, such as results/coverage_0.5/decision.html)" in text
    assert "missing of what the last run was to make: results/coverage_0.5/tmle.json; the same command makes it" in text


def test_a_coverage_without_a_decision_file_shows_that_of_the_recommended_result(results, tmp_path):
    folder = tmp_path / "coverage_0.5"
    folder.mkdir()
    for name in ("direct", "snips"):
        for kind in ("json", "influence.parquet"):
            (folder / f"{name}.{kind}").write_bytes((results / f"results/coverage_0.5/{name}.{kind}").read_bytes())
    decision = json.loads((results / "results/coverage_0.5/decision.json").read_text())
    name, headline = decision["recommended"]["estimator"], decision["decision"]["headline"]
    os.utime(folder / f"{name}.json", (1, 1))  # the older one
    assert f"  decision by {name}, the recommended: {headline} ({folder / name}.json)" in show.text(folder)


def test_a_folder_without_results_is_refused_with_the_files_that_are_expected(tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match=r"no results in it; looked for .*/coverage_\*/ESTIMATOR.json, decision.json, "):
        show.text(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["show", "results"]) == 1
    assert capsys.readouterr().err.startswith("ERROR: results: no results in it")
    jobs = [run_record.PlannedJob(("results/coverage_0.5/direct.json",), True)]
    run_record.write_start(jobs)
    (tmp_path / "results").mkdir()
    with pytest.raises(UserError, match="`arena-cje status` shows the progress of its run"):
        show.text(tmp_path)


def test_files_of_every_kind_are_shown(results, tmp_path, capsys):
    coverage = results / "results" / "coverage_0.5"
    decision = json.loads((coverage / "decision.json").read_text())["decision"]
    table = show.text(coverage / "comparisons.json")
    assert table.startswith(f"{decision['headline']}\n")
    row = next(line for line in table.splitlines() if line.split()[:2] == ["near", "base"])
    content = json.loads((coverage / "comparisons.json").read_text())
    pairs = content["estimators"][content["recommended"]["estimator"]]["comparisons"]
    difference = next(one["difference"] for one in pairs if (one["first"], one["second"]) == ("near", "base"))
    assert f"{difference:.4g}" in row.split()
    assert show.text(coverage / "decision.json").startswith(decision["headline"][:90])
    assert "direct: 400 logged responses" in show.text(coverage / "direct.json")
    first, *rows = show.text(coverage / "direct.csv").splitlines()
    assert first.split()[:2] == ["policy", "estimate"] and len(rows) == 5
    assert show.text(coverage / "direct.influence.parquet").endswith("... 380 more rows")
    assert show.text(results / "logged.jsonl").endswith("... 380 more rows")
    assert show.text(coverage / "plots" / "policy_estimates.png").startswith("open it in a browser or viewer: /")
    write_json(tmp_path / "summary.json", {"coverage": "0.5", "labels": {"base": 3, "lost": None}, "notes": []})
    assert show.text(tmp_path / "summary.json").splitlines() == [
        "coverage: 0.5",
        "labels.base: 3",
        "labels.lost: none",
        "notes: []",
    ]
    pilot = [str(results / "logged.jsonl"), "--fresh-draws", str(results / "draws")]
    nothing_to_plan = main(["plan", *pilot, "--difference", "0.1", "--json", str(tmp_path / "plan.json")])
    assert nothing_to_plan == 1  # no labels of the targets: the file has the reason
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] in show.text(tmp_path / "plan.json").splitlines()


def test_cells_are_short_and_missing_values_empty(tmp_path):
    frame = pl.DataFrame({"name": ["x" * 100, "a\nb"], "value": [1 / 3, None]})
    write_csv(tmp_path / "a.csv", frame)
    assert [line.split() for line in show.text(tmp_path / "a.csv").splitlines()] == [
        ["name", "value"],
        [f"{'x' * 37}...", "0.3333"],
        ["a", "b"],
    ]


@pytest.mark.parametrize(
    "content",
    [
        '{"pilot": 3, "goal": 1}',
        '{"recommended": {}, "estimators": {}}',
        '{"recommended": {}, "decision": {}}',
        '{"plan": {}, "looks": [], "stop": null}',
        '{"schema_version": 1}',
        "3",
        "{}",
        "{",
    ],
)
def test_a_file_that_cannot_be_shown_is_refused_with_one_sentence(tmp_path, content, capsys):
    (tmp_path / "odd.json").write_text(content)
    assert main(["show", str(tmp_path / "odd.json")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ERROR: ") and error.count("\n") == 1


def test_without_a_path_the_newest_estimates_are_shown(results, monkeypatch, capsys):
    monkeypatch.chdir(results)
    assert main(["show"]) == 0
    output = capsys.readouterr().out
    assert "snips: 400 logged responses" in output and output.endswith("What else is there: arena-cje show results\n")


def test_a_run_ends_with_its_pages_its_figures_and_the_command_that_lists_all_results(results, tmp_path, monkeypatch):
    monkeypatch.chdir(results)
    assert [*show.closing(["0.5", "0.9"], Path())] == [
        "pages: results/coverage_0.5/diagnostics_dashboard.html",
        "figures: results/coverage_0.5/plots/",
        "all results: arena-cje show results",
    ]
    page, figures, everything = show.closing(["0.5"], Path("my run"))
    assert page == "pages: my run/results/coverage_0.5/diagnostics_dashboard.html"
    assert (figures, everything) == (
        "figures: my run/results/coverage_0.5/plots/",
        "all results: arena-cje show 'my run'",
    )
    monkeypatch.chdir(tmp_path)
    assert [*show.closing(["0.5"], Path())] == []


def test_columns_are_explained_once_for_consecutive_tables_with_the_same_columns(results, monkeypatch, capsys):
    monkeypatch.chdir(results / "results" / "coverage_0.5")
    assert main(["show", "direct.json", "direct.json", "decision.json"]) == 0
    first, second, _ = capsys.readouterr().out.split(".json\n")[1:]
    assert "Estimate: " not in first and second.count("Estimate: mean oracle label") == 1
    assert len(first.split("\n\n")) == len(second.split("\n\n")) - 1
    assert main(["show", "direct.json", "snips.json"]) == 0  # weights have a column of their own
    assert capsys.readouterr().out.count("Estimate: mean oracle label") == 2
    assert main(["show", "direct.json", "nowhere.json"]) == 1
    printed = capsys.readouterr()
    assert "Estimate: mean oracle label" in printed.out and printed.err.startswith("ERROR: nowhere.json: ")
