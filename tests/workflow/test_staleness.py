"""Only stale jobs run again: exact job lists of dry runs after every kind of change."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections import Counter
from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING

import polars as pl
import pytest

import arena_cje
from arena_cje.data import schemas
from arena_cje.data.coverage import has_label
from workflow_run import CONFIG, Run, copy_workflow, parse_jobs, write_prompts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHARDS = ("0000", "0001", "0002")
POLICIES = ("base", "clone", "cool", "other")
TARGETS = POLICIES[1:]
COVERAGES = ("0.25", "0.5")
ESTIMATORS = ("calibrated-ips", "direct", "snips")


def jobs_of(rule: str, *parts: tuple[str, ...]) -> set[str]:
    """Jobs `rule a b ...` for every combination of the wildcards."""
    return {" ".join((rule, *values)) for values in product(*parts)}


def estimate_jobs(coverages: tuple[str, ...]) -> set[str]:
    """Jobs that estimate at some coverages: estimators that need the same files share one."""
    return jobs_of("estimate_without_draws", coverages) | jobs_of("estimate", coverages, ("direct",))


ESTIMATES = estimate_jobs(COVERAGES) | jobs_of("validate", COVERAGES)
ANALYSIS = jobs_of("assemble", COVERAGES) | ESTIMATES | {"estimates"}
JOINS = jobs_of("gather_responses_and_grades", POLICIES) | {"gather_logprobs"} | jobs_of("fresh_draws", COVERAGES)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, tiny_model) -> Run:
    """The whole small experiment, run by a copy of the workflow that tests may edit."""
    folder = tmp_path_factory.mktemp("staleness")
    run = Run(folder / "run", copy.deepcopy(CONFIG), root=copy_workflow(folder / "workflow"))
    run.directory.mkdir()
    (run.directory / "tiny.gguf").symlink_to(tiny_model)
    write_prompts(run.directory / "prompts.jsonl", 40)
    (run.directory / "other.txt").write_text("Answer with other words.")
    run.snakemake("estimates")
    return run


@pytest.fixture
def changed_run(finished_run) -> Run:
    """The same folder with a configuration of its own."""
    return Run(finished_run.directory, copy.deepcopy(finished_run.config), root=finished_run.root)


@contextmanager
def edited_file(path: Path, before: str, after: str) -> Iterator[None]:
    text = path.read_text()
    assert re.search(before, text), f"{path} has no {before!r}"
    path.write_text(re.sub(before, after, text, count=1))
    try:
        yield
    finally:
        path.write_text(text)


@pytest.mark.parametrize("file", ["report/figures.py", "results/text.py", "results/notebook.py"])
def test_a_change_in_the_code_of_figures_and_texts_makes_no_estimate_stale(finished_run, file):
    with edited_file(finished_run.root / "workflow/arena_cje" / file, r"\Z", "\n# a remark\n"):
        assert finished_run.jobs("estimates") == set()


def test_a_change_in_the_code_of_verdicts_makes_estimates_stale_and_no_data_set(finished_run):
    with edited_file(finished_run.root / "workflow/arena_cje/diagnostics/verdict.py", r"\Z", "\n# a remark\n"):
        assert finished_run.jobs("estimates") == ESTIMATES | {"estimates"}


def test_a_change_in_the_code_that_writes_data_sets_makes_them_stale(finished_run):
    with edited_file(finished_run.root / "workflow/arena_cje/data/write.py", r"\Z", "\n# a remark\n"):
        assert finished_run.jobs("estimates") == jobs_of("fresh_draws", COVERAGES) | ANALYSIS


def test_a_second_run_has_nothing_to_do(finished_run):
    assert "Nothing to be done" in finished_run.snakemake("estimates")
    assert finished_run.jobs("estimates") == set()


def test_every_policy_has_its_own_numbers(finished_run):
    """The policies are not in alphabetical order, so that a join by position instead of by name would show."""
    rows = [json.loads(line) for line in finished_run.path("coverage_0.5/cje_dataset.jsonl").read_text().splitlines()]
    assert list(rows[0]["target_policy_logprobs"]) == ["other", "cool", "clone"]
    for policy in TARGETS:
        scored = pl.read_parquet(finished_run.path(f"logprobs/{policy}.parquet"))
        own = dict(zip(scored["prompt_id"], scored["logprob"], strict=True))
        assert [row["target_policy_logprobs"][policy] for row in rows] == [own[row["prompt_id"]] for row in rows]
    assert all(row["target_policy_logprobs"]["clone"] == row["base_policy_logprob"] for row in rows)
    assert all(row["target_policy_logprobs"]["cool"] != row["base_policy_logprob"] for row in rows)
    result = arena_cje.load(finished_run.path("coverage_0.5/direct.json"))
    assert result.policies == ("other", "cool", "clone")
    truths = pl.read_csv(finished_run.path("coverage_0.5/validation.csv"))
    for policy in POLICIES:
        labels = schemas.GRADES.read(finished_run.path(f"oracle/{policy}/coverage_1.0.jsonl"))
        mean = sum(row["score"] for row in labels) / len(labels)
        assert truths.filter(pl.col("policy") == policy)["truth"].to_list() == pytest.approx([mean] * 3)


def test_touching_every_script_makes_nothing_stale(finished_run):
    for script in (finished_run.root / "workflow" / "scripts").glob("*.py"):
        script.touch()
    assert finished_run.jobs("estimates") == set()


@pytest.fixture
def snakemake_folder_aside(finished_run) -> Iterator[Path]:
    """The run without the folder in which Snakemake keeps its records; the place to which that is moved."""
    snakemake_folder, aside = finished_run.directory / ".snakemake", finished_run.directory / "aside"
    snakemake_folder.rename(aside)
    yield aside
    shutil.rmtree(snakemake_folder)
    aside.rename(snakemake_folder)


def test_without_the_records_of_snakemake_the_same_jobs_are_stale(changed_run, snakemake_folder_aside):
    assert changed_run.jobs("estimates") == set()
    shutil.rmtree(changed_run.directory / ".snakemake")
    changed_run.config["analysis"] = {"alpha": 0.1}
    output = changed_run.snakemake("-n", "estimates")
    assert "NOTE .snakemake/ has no record of " in output
    assert parse_jobs(output) == ESTIMATES | {"estimates"}
    for before in (snakemake_folder_aside / "metadata").rglob("*=*"):
        restored_path = changed_run.directory / ".snakemake" / before.relative_to(snakemake_folder_aside)
        whole, record = json.loads(before.read_text()), json.loads(restored_path.read_text())
        assert {name: record[name] for name in ("rule", "input", "params", "record_format_version")} == {
            name: whole[name] for name in ("rule", "input", "params", "record_format_version")
        }


def test_without_the_records_of_snakemake_an_incomplete_output_is_stale(finished_run, snakemake_folder_aside):
    seal = finished_run.path("seals/responses/base/0001.jsonl.json")
    before = seal.read_bytes()
    seal.write_bytes(json.dumps(json.loads(before) | {"sha256": None}).encode())
    try:
        assert "generate base 0001" in finished_run.jobs("estimates")
    finally:
        seal.write_bytes(before)


def test_keys_that_change_no_result_make_nothing_stale(changed_run):
    changed_run.config |= {"n_slots": 4, "model_slots": 1}
    changed_run.config["policies"]["cool"]["description"] = "a little colder"
    changed_run.config["models"]["smollm2"]["n_threads"] = 2
    assert changed_run.jobs("estimates") == set()


def test_the_order_of_keys_makes_nothing_stale(changed_run):
    policies = changed_run.config["policies"]
    changed_run.config["policies"] = {name: dict(reversed(policies[name].items())) for name in reversed(policies)}
    changed_run.config = dict(reversed(changed_run.config.items()))
    assert changed_run.jobs("estimates") == set()


def jobs_of_shards(shards: tuple[str, ...]) -> set[str]:
    """All jobs of some shards, and all that joins them to the others."""
    return (
        jobs_of("sample_prompts", shards)
        | jobs_of("generate", POLICIES, shards)
        | jobs_of("score", ("smollm2-helpful", "smollm2-other"), shards)
        | jobs_of("judge judge", POLICIES, shards)
        | jobs_of("oracle", ("base",), (*COVERAGES, "1.0"))
        | jobs_of("oracle", TARGETS, ("1.0",))
        | JOINS
        | ANALYSIS
    )


def test_more_prompts_add_the_jobs_of_their_shard_and_of_the_joins(changed_run):
    changed_run.config["n_prompts"] = 32
    assert changed_run.jobs("estimates") == jobs_of_shards(("0003",))


def test_another_coverage_adds_only_its_own_label_and_analysis_jobs(changed_run):
    assert changed_run.jobs("results/coverage_0.3/snips.json") == {
        "oracle base 0.3",
        "assemble 0.3",
        "estimate 0.3 snips",
    }


def test_a_listed_coverage_adds_its_own_jobs_alone(changed_run):
    changed_run.config["coverages"] = [*COVERAGES, "0.75"]
    assert changed_run.jobs("estimates") == (
        {"oracle base 0.75", "assemble 0.75", "fresh_draws 0.75", "validate 0.75", "estimates"}
        | estimate_jobs(("0.75",))
    )


def test_a_comment_in_the_scorer_makes_nothing_stale(finished_run):
    with edited_file(finished_run.root / "workflow/arena_cje/llama/scorer.py", r"VERSION = \d+", r"\g<0>  # a remark"):
        assert finished_run.jobs("estimates") == set()


def test_a_new_version_of_the_scorer_makes_its_log_probabilities_stale(finished_run):
    with edited_file(finished_run.root / "workflow/arena_cje/llama/scorer.py", r"VERSION = \d+", r"\g<0>0"):
        assert finished_run.jobs("estimates") == (
            jobs_of("score", ("smollm2-helpful", "smollm2-other"), SHARDS)
            | jobs_of("judge judge", POLICIES, SHARDS)  # this judge reads likelihoods
            | JOINS
            | ANALYSIS
        )


def joins_of_a_new_policy(name: str) -> set[str]:
    """Jobs that any policy adds, whatever its context."""
    return (
        jobs_of("generate", (name,), SHARDS)
        | jobs_of("judge judge", (name,), SHARDS)
        | {f"oracle {name} 1.0", f"gather_responses_and_grades {name}", "gather_logprobs"}
        | jobs_of("fresh_draws", COVERAGES)
        | ANALYSIS
    )


def test_a_policy_in_a_new_context_adds_the_scoring_jobs_of_that_context(changed_run):
    (changed_run.directory / "third.txt").write_text("A third way.")
    changed_run.config["policies"]["third"] = {"like": "base", "system_prompt": "third.txt"}
    assert changed_run.jobs("estimates") == joins_of_a_new_policy("third") | jobs_of(
        "score", ("smollm2-third",), SHARDS
    )


def test_a_policy_with_the_sampling_of_the_base_adds_no_scoring_jobs(changed_run):
    changed_run.config["policies"]["twin"] = {"like": "base"}
    assert changed_run.jobs("estimates") == joins_of_a_new_policy("twin")


def test_a_policy_with_new_sampling_in_a_known_context_has_that_context_scored_again(changed_run):
    changed_run.config["policies"]["warm"] = {"like": "base", "temperature": 1.1}
    assert changed_run.jobs("estimates") == (
        joins_of_a_new_policy("warm")
        | jobs_of("score", ("smollm2-helpful",), SHARDS)
        | jobs_of("judge judge", ("base",), SHARDS)  # this judge computes its grades from these log probabilities
        | {"gather_responses_and_grades base"}
    )


def test_a_removed_policy_makes_only_the_joins_stale(changed_run):
    del changed_run.config["policies"]["other"]
    assert changed_run.jobs("estimates") == {"gather_logprobs"} | jobs_of("fresh_draws", COVERAGES) | ANALYSIS


def test_a_changed_rubric_makes_its_grades_stale(finished_run):
    with edited_file(finished_run.root / "resources/judges/likelihood.yaml", "temperature: 1.0", "temperature: 0.9"):
        assert finished_run.jobs("estimates") == (
            jobs_of("judge judge", POLICIES, SHARDS)
            | jobs_of("gather_responses_and_grades", POLICIES)
            | jobs_of("fresh_draws", COVERAGES)
            | ANALYSIS
        )


def test_a_changed_system_prompt_makes_the_jobs_of_its_policy_stale(finished_run):
    with edited_file(finished_run.directory / "other.txt", "other", "very other"):
        assert finished_run.jobs("estimates") == (
            jobs_of("generate", ("other",), SHARDS)
            | jobs_of("score", ("smollm2-other",), SHARDS)
            | jobs_of("judge judge", ("other",), SHARDS)
            | {"oracle other 1.0", "gather_responses_and_grades other", "gather_logprobs"}
            | jobs_of("fresh_draws", COVERAGES)
            | ANALYSIS
        )


@pytest.mark.parametrize(
    ("module", "jobs"),
    [("snips", jobs_of("estimate_without_draws", COVERAGES)), ("direct", jobs_of("estimate", COVERAGES, ("direct",)))],
)
def test_a_change_in_the_code_of_an_estimator_makes_all_estimates_of_its_job_stale(finished_run, module, jobs):
    with edited_file(finished_run.root / f"workflow/arena_cje/estimators/{module}.py", r"\Z", "\n# a remark\n"):
        assert finished_run.jobs("estimates") == jobs | jobs_of("validate", COVERAGES) | {"estimates"}


def test_estimates_that_were_made_together_are_not_stale_as_single_targets(finished_run):
    """Two rules can make them, and the output of either is not stale for the other."""
    assert finished_run.jobs("results/coverage_0.5/snips.json") == set()
    assert finished_run.jobs("results/coverage_0.25/direct.json", "results/coverage_0.25/calibrated-ips.csv") == set()
    content = finished_run.path("coverage_0.5/snips.json").read_bytes()
    for name in ("calibrated-ips", "snips"):
        finished_run.path(f"coverage_0.5/{name}.json").unlink()
        assert finished_run.jobs(f"results/coverage_0.5/{name}.json") == {f"estimate 0.5 {name}"}
        finished_run.snakemake(f"results/coverage_0.5/{name}.json")
    assert finished_run.path("coverage_0.5/snips.json").read_bytes() == content
    finished_run.snakemake("estimates")
    assert finished_run.jobs("estimates") == set()


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        ("responses/other.jsonl", "gather_responses_and_grades other"),
        ("judge/other.jsonl", "gather_responses_and_grades other"),
        ("logprobs/cool.parquet", "gather_logprobs"),
        ("coverage_0.5/fresh_draws/cool.jsonl", "fresh_draws 0.5"),
        ("oracle/base/coverage_0.25.jsonl", "oracle base 0.25"),
        ("coverage_0.5/validation.csv", "validate 0.5"),
    ],
)
def test_files_that_one_job_made_are_not_stale_as_single_targets(finished_run, target, rule):
    assert finished_run.jobs(f"results/{target}") == set()
    # The job that made the file is the one that makes it again, or the job's other outputs would be stale.
    assert rule in finished_run.jobs("--forceall", "--", f"results/{target}")


def test_a_threshold_makes_the_estimates_stale(changed_run):
    changed_run.config["verdict"] = {"labels_caution": 20}
    assert changed_run.jobs("estimates") == ESTIMATES | {"estimates"}


def test_a_variant_adds_its_estimates(changed_run):
    changed_run.config["variants"] = {"hajek": {"estimator": "snips", "n_folds": 4}}
    assert changed_run.jobs("estimates") == set()
    assert changed_run.jobs("results/coverage_0.5/hajek.json") == {"estimate 0.5 hajek"}
    changed_run.config["estimators"] = [*ESTIMATORS, "hajek"]
    assert changed_run.jobs("estimates") == jobs_of("estimate", COVERAGES, ("hajek",)) | jobs_of(
        "validate", COVERAGES
    ) | {"estimates"}


@pytest.mark.parametrize("name", ["ips", "dr-cpo"])
def test_a_new_estimator_makes_no_estimate_of_the_others_stale(changed_run, name):
    changed_run.config["estimators"] = [*ESTIMATORS, name]
    assert changed_run.jobs("estimates") == jobs_of("estimate", COVERAGES, (name,)) | jobs_of("validate", COVERAGES) | {
        "estimates"
    }


def test_labels_of_the_targets_add_their_oracle_jobs(changed_run):
    changed_run.config["oracle"] = {"target_labels": 0.25}
    assert changed_run.jobs("estimates") == (
        jobs_of("oracle", TARGETS, ("0.25",)) | jobs_of("fresh_draws", COVERAGES) | ANALYSIS
    )


def test_labels_that_the_targets_have_already_are_in_their_fresh_draws(finished_run, tmp_path):
    shutil.copytree(finished_run.directory, tmp_path / "run", symlinks=True)
    run = Run(tmp_path / "run", copy.deepcopy(finished_run.config), root=finished_run.root)
    run.config["oracle"] = {"target_labels": 0.25}
    bought = Counter(run.journal_keys("oracle"))
    run.snakemake("results/coverage_0.5/fresh_draws/other.jsonl", "results/oracle/other/coverage_1.0.jsonl")
    assert Counter(run.journal_keys("oracle")) == bought
    draws = schemas.read_jsonl(run.path("coverage_0.5/fresh_draws/other.jsonl"))
    truth = {row["prompt_id"]: row["score"] for row in schemas.read_jsonl(run.path("oracle/other/coverage_1.0.jsonl"))}
    labelled = [k for k, row in enumerate(draws) if row["oracle_label"] is not None]
    assert labelled == [k for k in range(len(draws)) if has_label(k, 0.25)]
    assert [draws[k]["oracle_label"] for k in labelled] == [truth[draws[k]["prompt_id"]] for k in labelled]
    assert 3 <= len(labelled) < len(draws)


def test_a_changed_seed_makes_everything_but_the_model_stale(changed_run):
    changed_run.config["seed"] = 2
    assert changed_run.jobs("estimates") == jobs_of_shards(SHARDS)


def test_one_estimate_runs_only_the_jobs_that_it_needs(changed_run):
    changed_run.directory = changed_run.directory / "elsewhere"
    changed_run.directory.mkdir()
    for name in ("tiny.gguf", "prompts.jsonl", "other.txt"):
        (changed_run.directory / name).symlink_to(changed_run.directory.parent / name)
    assert changed_run.jobs("results/coverage_0.25/calibrated-ips.json") == (
        {"register_model smollm2"}
        | jobs_of("sample_prompts", SHARDS)
        | jobs_of("generate", ("base",), SHARDS)
        | jobs_of("score", ("smollm2-helpful", "smollm2-other"), SHARDS)
        | jobs_of("judge judge", ("base",), SHARDS)
        | {"oracle base 0.25", "gather_responses_and_grades base", "gather_logprobs"}
        | {"assemble 0.25", "estimate 0.25 calibrated-ips"}
    )
