"""A user's own data: from a logged data set to results without a model, from any working directory."""

from __future__ import annotations

import json
import os
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

import arena_cje
import foreign_files
from arena_cje import estimators
from arena_cje.data import convert, schemas
from own_data import write_world
from workflow_run import Run

if TYPE_CHECKING:
    from pathlib import Path

ARENA = os.environ.get("ARENA_SAMPLE_DIR")


def test_the_target_estimates_makes_the_results_of_all_estimators(tmp_path):
    write_world(tmp_path)
    run = Run(tmp_path, {"logged_data": "mine.jsonl", "fresh_draws": "draws", "coverages": ["0.1", "0.2"]})
    output = run.snakemake("estimates")
    assert "calibrated-ips: 300 logged responses" in output
    file_names = {path.name for path in run.path("coverage_0.1").glob("*.json")}
    assert file_names == {f"{name}.json" for name in (*estimators.NAMES, "summary")}
    assert not run.path("coverage_0.1/validation.csv").exists()
    assert output.count("all results: arena-cje show results") == 1
    second_output = run.snakemake("estimates")
    assert "Nothing to be done" in second_output and second_output.endswith("all results: arena-cje show results\n")


def test_the_workflow_writes_what_the_library_returns(tmp_path):
    write_world(tmp_path)
    run = Run(tmp_path, {"logged_data": "mine.jsonl", "fresh_draws": "draws"})
    run.snakemake("results/coverage_0.1/direct.json")
    workflow_result = arena_cje.load(run.path("coverage_0.1/direct.json"))
    library_result = arena_cje.analyze(
        tmp_path / "mine.jsonl", tmp_path / "draws", estimator="direct", oracle_coverage=0.1, seed=42
    )
    assert workflow_result.policies == library_result.policies
    np.testing.assert_array_equal(workflow_result.estimates, library_result.estimates)
    np.testing.assert_array_equal(workflow_result.confidence_intervals, library_result.confidence_intervals)
    np.testing.assert_array_equal(workflow_result.influence, library_result.influence)
    page = "results/coverage_0.05/decision.html"  # at a coverage that is not configured
    assert "decision_page 0.05" in run.jobs(page)
    error_output = run.snakemake("-n", f"{tmp_path.name}/{page}", ok=False)
    assert error_output.strip().splitlines()[-1].endswith(f"from the folder of the run (--directory), here {page}")


def test_without_fresh_draws_only_estimators_by_weights_run(tmp_path):
    write_world(tmp_path)
    run = Run(tmp_path, {"logged_data": "mine.jsonl", "coverages": ["0.2"]})
    run.snakemake("estimates")
    assert {path.name for path in run.path("coverage_0.2").glob("*ips.json")} == {
        "calibrated-ips.json",
        "ips.json",
        "raw-ips.json",
        "snips.json",
    }
    assert not run.path("coverage_0.2/direct.json").exists()


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_labels_in_draws_in_probes_and_in_calibration_data_reach_the_data_set(tmp_path):
    write_world(tmp_path)
    draws = schemas.read_jsonl(next((tmp_path / "draws").glob("better*.jsonl")))
    for row in draws[:30]:
        row["oracle_label"] = 0.25
    write_lines(tmp_path / "draws" / "better_responses.jsonl", draws)
    write_lines(tmp_path / "probes" / "better.jsonl", [row | {"oracle_label": 0.75} for row in draws[30:40]])
    more = [{"prompt_id": f"new{k}", "judge_score": 0.5, "oracle_label": 1.0} for k in range(5)]
    logged = [row for row in schemas.read_jsonl(tmp_path / "mine.jsonl") if row["oracle_label"] is not None]
    write_lines(tmp_path / "more.jsonl", [*more, *logged])
    own = {"logged_data": "mine.jsonl", "fresh_draws": "draws"}
    run = Run(tmp_path, own | {"probes": "probes", "calibration_data": "more.jsonl"})
    run.snakemake("results/coverage_0.1/cje_dataset.jsonl")
    assert len(schemas.read_jsonl(run.path("coverage_0.1/calibration_data.jsonl"))) == 5
    summary = schemas.read_json(run.path("coverage_0.1/summary.json"))
    assert summary["calibration_data"]["dropped"] == {"labelled in the logged data": len(logged)}
    assert summary["fresh_draws"]["better"] == {
        "n_responses": 300,
        "n_labels_found": 30,
        "n_probes": 10,
        "n_labels": 40,
    }
    assert labels_of(run, "better") == [0.25] * 30 + [0.75] * 10
    run.config["oracle"] = {"target_labels": 0.0}
    run.snakemake("results/coverage_0.1/cje_dataset.jsonl")
    assert labels_of(run, "better") == [0.75] * 10
    run.config = own
    run.snakemake("results/coverage_0.1/cje_dataset.jsonl")
    assert labels_of(run, "better") == [0.25] * 30


def labels_of(run: Run, policy: str) -> list[float]:
    """Labels of a policy's draws in the data set, in their order."""
    rows = schemas.read_jsonl(run.path(f"coverage_0.1/fresh_draws/{policy}.jsonl"))
    return [row["oracle_label"] for row in rows if row.get("oracle_label") is not None]


def test_the_data_set_keeps_the_scales_of_own_data_and_the_analysis_converts_them(tmp_path):
    write_world(tmp_path)
    unit = schemas.read_jsonl(tmp_path / "mine.jsonl")
    rows = [
        row
        | {
            "judge_score": 100 * row["judge_score"],
            "judge_b": 1 + 4 * row["judge_score"],
            "oracle_label": None if row["oracle_label"] is None else 10 * row["oracle_label"],
        }
        for row in unit
    ]
    write_lines(tmp_path / "mine.jsonl", rows)
    variants = {"other": {"estimator": "snips", "judge": "b", "judge_scale": [1, 5]}}
    analysis = {"judge_scale": [0, 100], "label_scale": [0, 10]}
    config = {"logged_data": "mine.jsonl", "analysis": analysis, "variants": variants, "estimators": ["snips", "other"]}
    run = Run(tmp_path, config)
    run.snakemake("estimates")
    dataset_rows = schemas.read_jsonl(run.path("coverage_0.1/cje_dataset.jsonl"))
    assert [row["judge_score"] for row in dataset_rows] == [row["judge_score"] for row in rows]
    summary = schemas.read_json(run.path("coverage_0.1/summary.json"))
    assert {name: summary[name] for name in analysis} == analysis
    library_result = arena_cje.analyze(unit, estimator="snips", oracle_coverage=0.1)
    for name in config["estimators"]:
        result = arena_cje.load(run.path(f"coverage_0.1/{name}.json"))
        np.testing.assert_allclose(result.confidence_intervals, library_result.confidence_intervals, atol=1e-9)


def test_a_variant_is_its_estimator_with_other_options(tmp_path):
    write_world(tmp_path)
    variants = {"hajek": {"estimator": "snips", "n_folds": 3, "alpha": 0.2}}
    run = Run(tmp_path, {"logged_data": "mine.jsonl", "variants": variants, "estimators": ["snips", "hajek"]})
    run.snakemake("estimates")
    plain, other = (arena_cje.load(run.path(f"coverage_0.1/{name}.json")) for name in ("snips", "hajek"))
    library_result = arena_cje.analyze(
        tmp_path / "mine.jsonl", estimator="snips", oracle_coverage=0.1, n_folds=3, alpha=0.2
    )
    np.testing.assert_array_equal(other.confidence_intervals, library_result.confidence_intervals)
    assert not np.array_equal(other.confidence_intervals, plain.confidence_intervals)


@pytest.mark.skipif(ARENA is None, reason="needs ARENA_SAMPLE_DIR, the folder of the Arena sample")
def test_the_arena_sample_is_analysed_from_another_directory(tmp_path):
    run = Run(tmp_path, {})
    own = [f"logged_data={ARENA}/logged.jsonl", f"fresh_draws={ARENA}/fresh_draws"]
    targets = [f"results/coverage_{c}/calibrated-ips.json" for c in ("0.05", "0.4")]
    output = run.snakemake("--config", *own, "--", *targets)
    few, many = (json.loads(run.path(f"coverage_{c}/calibrated-ips.json").read_text()) for c in ("0.05", "0.4"))
    assert (few["metadata"]["n_oracle"], many["metadata"]["n_oracle"]) == (50, 400)
    assert few["estimates"] != many["estimates"]
    assert few["metadata"]["target_policies"] == ["clone", "parallel_universe_prompt", "unhelpful"]
    assert "unhelpful" in few["refused"]
    assert "unhelpful" in many["refused"]
    assert many["estimates"][2] is None
    assert "1000 logged responses" in output
    everything = run.snakemake("--config", *own, "--", "results/coverage_0.6/direct.json")
    assert "480 oracle labels" in everything  # fewer than coverage 0.6 allows: all are used


def test_a_run_converts_the_files_of_another_tool(tmp_path):
    """A folder of archives of one log each; the expected values are computed by hand."""
    (tmp_path / "logs").mkdir()
    _, choices = foreign_files.inspect_eval(tmp_path / "logs")
    run = Run(tmp_path, {"logged_data": {"format": "inspect-ai", "file": "logs", **choices}, "coverages": ["1.0"]})
    run.snakemake("results/coverage_1.0/direct.json")
    result = arena_cje.load(run.path("coverage_1.0/direct.json"))
    assert result.document["base_policy"]["estimate"] == pytest.approx(0.25)
    np.testing.assert_allclose(result.estimates, [0.5])
    assert run.path("converted/conversion.json").exists()
    run.snakemake("results/archive.zip")
    with zipfile.ZipFile(run.path("archive.zip")) as archive:
        name = next(name for name in archive.namelist() if name.endswith("configuration.yaml"))
        logged_data = yaml.safe_load(archive.read(name))["logged_data"]
    assert (logged_data["format"], logged_data["file"], logged_data["base"]) == ("inspect-ai", ["logs"], "base-1")
    assert "Nothing to be done" in run.snakemake("results/coverage_1.0/direct.json")


def test_the_configuration_of_a_conversion_is_checked_before_any_job(tmp_path):
    (file,), choices = foreign_files.promptfoo(tmp_path)
    for block, sentence in (
        ({"format": "promptfo", "file": file}, "`logged_data.format` is 'promptfo' (did you mean 'promptfoo'?)"),
        ({"format": "promptfoo", "file": file, "bass": "x"}, "unknown key `logged_data.bass` (did you mean 'base'?)"),
        ({"format": "promptfoo", "file": "none.json"}, "none.json: no such file in"),
        ({"format": "promptfoo", "file": file, "oracle": "human"}, "--base NAME (`base` in the configuration)"),
        ({"format": "promptfoo", "file": file, **choices, "judge": "scor"}, "judge 'scor' is not among the scorers"),
    ):
        assert sentence in Run(tmp_path, {"logged_data": block}).snakemake("-n", ok=False)
    run = Run(
        tmp_path, {"logged_data": {"format": "promptfoo", "file": file, **choices}, "decision": {"against": "gpt"}}
    )
    assert "`decision.against` is 'gpt', which is not a policy of the data" in run.snakemake("-n", ok=False)


def test_the_data_report_counts_rows_and_labels_before_any_estimate(tmp_path):
    write_world(tmp_path)
    run = Run(tmp_path, {"logged_data": "mine.jsonl", "fresh_draws": "draws", "coverages": ["0.2"]})
    run.snakemake("results/coverage_0.2/data_report.html")
    data_account = json.loads(run.path("coverage_0.2/summary.json").read_text())["data"]
    assert data_account["policies"]["base"]["rows"] == 300
    assert data_account["policies"]["base"]["oracle_label"]["n"] == 60
    page = run.path("coverage_0.2/data_report.html").read_text()
    assert "Data at coverage 0.2" in page
    assert not list(run.path("coverage_0.2").glob("*ips.json"))


def test_estimators_by_weights_are_left_out_for_data_without_log_probabilities(tmp_path):
    (file,), choices = foreign_files.table_csv(tmp_path)
    convert.write(convert.convert("table", [file], convert.Choices(**choices)), tmp_path / "data")
    own = {"logged_data": "data/logged.jsonl", "fresh_draws": "data/fresh_draws", "coverages": ["1.0"]}
    run = Run(tmp_path, own)
    assert "NOTE left out because the data have no log probabilities: calibrated-ips, " in run.snakemake("estimates")
    assert {path.name for path in run.path("coverage_1.0").glob("*.csv")} == {"direct.csv"}
    run = Run(tmp_path, own | {"estimators": ["snips"]})
    assert "none of `estimators` can run on data/logged.jsonl" in run.snakemake("estimates", "-n", ok=False)
