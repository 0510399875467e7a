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


def each(rule: str, *parts: tuple[str, ...]) -> set[str]:
    """Jobs `rule a b ...` for every combination of the wildcards."""
    return {" ".join((rule, *values)) for values in product(*parts)}


def estimates(coverages: tuple[str, ...]) -> set[str]:
    """Jobs that estimate at some coverages: estimators that need the same files share one."""
    return each("estimate_without_draws", coverages) | each("estimate", coverages, ("direct",))


ESTIMATES = estimates(COVERAGES) | each("validate", COVERAGES)
ANALYSIS = each("assemble", COVERAGES) | ESTIMATES | {"estimates"}
JOINS = each("gather_responses_and_grades", POLICIES) | {"gather_logprobs"} | each("fresh_draws", COVERAGES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model) -> Run:
    """The whole small experiment, done, by a copy of the workflow that tests may edit."""
    folder = tmp_path_factory.mktemp("staleness")
    run = Run(folder / "run", copy.deepcopy(CONFIG), root=copy_workflow(folder / "workflow"))
    run.directory.mkdir()
    (run.directory / "tiny.gguf").symlink_to(tiny_model)
    write_prompts(run.directory / "prompts.jsonl", 40)
    (run.directory / "other.txt").write_text("Answer with other words.")
    run.snakemake("estimates")
    return run


@pytest.fixture
def changed(finished) -> Run:
    """The same folder with a configuration of its own."""
    return Run(finished.directory, copy.deepcopy(finished.config), root=finished.root)


@contextmanager
def edited(path: Path, before: str, after: str) -> Iterator[None]:
    text = path.read_text()
    assert re.search(before, text), f"{path} has no {before!r}"
    path.write_text(re.sub(before, after, text, count=1))
    try:
        yield
    finally:
        path.write_text(text)


@pytest.mark.parametrize("file", ["report/figures.py", "results/text.py", "results/notebook.py"])
def test_how_results_are_drawn_makes_no_estimate_stale(finished, file):
    with edited(finished.root / "workflow/arena_cje" / file, r"\Z", "\n# a remark\n"):
        assert finished.jobs("estimates") == set()


def test_the_code_of_verdicts_makes_estimates_stale_and_no_data_set(finished):
    with edited(finished.root / "workflow/arena_cje/diagnostics/verdict.py", r"\Z", "\n# a remark\n"):
        assert finished.jobs("estimates") == ESTIMATES | {"estimates"}


def test_the_code_that_writes_data_sets_makes_them_stale(finished):
    with edited(finished.root / "workflow/arena_cje/data/write.py", r"\Z", "\n# a remark\n"):
        assert finished.jobs("estimates") == each("fresh_draws", COVERAGES) | ANALYSIS


def test_a_second_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in finished.snakemake("estimates")
    assert finished.jobs("estimates") == set()


def test_every_policy_has_its_own_numbers(finished):
    """Policies are declared in an order that is not the alphabet's: what is joined is joined by name."""
    rows = [json.loads(line) for line in finished.path("coverage_0.5/cje_dataset.jsonl").read_text().splitlines()]
    assert list(rows[0]["target_policy_logprobs"]) == ["other", "cool", "clone"]
    for policy in TARGETS:
        scored = pl.read_parquet(finished.path(f"logprobs/{policy}.parquet"))
        own = dict(zip(scored["prompt_id"], scored["logprob"], strict=True))
        assert [row["target_policy_logprobs"][policy] for row in rows] == [own[row["prompt_id"]] for row in rows]
    assert all(row["target_policy_logprobs"]["clone"] == row["base_policy_logprob"] for row in rows)
    assert all(row["target_policy_logprobs"]["cool"] != row["base_policy_logprob"] for row in rows)
    result = arena_cje.load(finished.path("coverage_0.5/direct.json"))
    assert result.policies == ("other", "cool", "clone")
    truths = pl.read_csv(finished.path("coverage_0.5/validation.csv"))
    for policy in POLICIES:
        labels = schemas.GRADES.read(finished.path(f"oracle/{policy}/coverage_1.0.jsonl"))
        mean = sum(row["score"] for row in labels) / len(labels)
        assert truths.filter(pl.col("policy") == policy)["truth"].to_list() == pytest.approx([mean] * 3)


def test_touching_every_script_makes_nothing_stale(finished):
    for script in (finished.root / "workflow" / "scripts").glob("*.py"):
        script.touch()
    assert finished.jobs("estimates") == set()


@pytest.fixture
def forgotten(finished) -> Iterator[Path]:
    """The folder without Snakemake's memory; the place where that is."""
    memory, aside = finished.directory / ".snakemake", finished.directory / "aside"
    memory.rename(aside)
    yield aside
    shutil.rmtree(memory)
    aside.rename(memory)


def test_without_the_memory_of_snakemake_the_same_things_are_stale(changed, forgotten):
    assert changed.jobs("estimates") == set()
    shutil.rmtree(changed.directory / ".snakemake")
    changed.config["analysis"] = {"alpha": 0.1}
    output = changed.snakemake("-n", "estimates")
    assert "NOTE .snakemake/ has no record of " in output
    assert parse_jobs(output) == ESTIMATES | {"estimates"}
    for before in (forgotten / "metadata").rglob("*=*"):
        restored_path = changed.directory / ".snakemake" / before.relative_to(forgotten)
        whole, record = json.loads(before.read_text()), json.loads(restored_path.read_text())
        assert {name: record[name] for name in ("rule", "input", "params", "record_format_version")} == {
            name: whole[name] for name in ("rule", "input", "params", "record_format_version")
        }


def test_an_output_that_was_not_finished_is_no_output_without_the_memory_of_snakemake(finished, forgotten):
    seal = finished.path("seals/responses/base/0001.jsonl.json")
    before = seal.read_bytes()
    seal.write_bytes(json.dumps(json.loads(before) | {"sha256": None}).encode())
    try:
        assert "generate base 0001" in finished.jobs("estimates")
    finally:
        seal.write_bytes(before)


def test_keys_that_change_no_result_make_nothing_stale(changed):
    changed.config |= {"n_slots": 4, "model_slots": 1}
    changed.config["policies"]["cool"]["description"] = "a little colder"
    changed.config["models"]["smollm2"]["n_threads"] = 2
    assert changed.jobs("estimates") == set()


def test_the_order_of_keys_makes_nothing_stale(changed):
    policies = changed.config["policies"]
    changed.config["policies"] = {name: dict(reversed(policies[name].items())) for name in reversed(policies)}
    changed.config = dict(reversed(changed.config.items()))
    assert changed.jobs("estimates") == set()


def everything_of(shards: tuple[str, ...]) -> set[str]:
    """All jobs of some shards, and all that joins them to the others."""
    return (
        each("sample_prompts", shards)
        | each("generate", POLICIES, shards)
        | each("score", ("smollm2-helpful", "smollm2-other"), shards)
        | each("judge judge", POLICIES, shards)
        | each("oracle", ("base",), (*COVERAGES, "1.0"))
        | each("oracle", TARGETS, ("1.0",))
        | JOINS
        | ANALYSIS
    )


def test_more_prompts_make_their_shard_and_the_joins(changed):
    changed.config["n_prompts"] = 32
    assert changed.jobs("estimates") == everything_of(("0003",))


def test_another_coverage_buys_its_labels_and_analyses_them(changed):
    assert changed.jobs("results/coverage_0.3/snips.json") == {
        "oracle base 0.3",
        "assemble 0.3",
        "estimate 0.3 snips",
    }


def test_a_listed_coverage_adds_its_own_jobs_alone(changed):
    changed.config["coverages"] = [*COVERAGES, "0.75"]
    assert changed.jobs("estimates") == (
        {"oracle base 0.75", "assemble 0.75", "fresh_draws 0.75", "validate 0.75", "estimates"} | estimates(("0.75",))
    )


def test_a_comment_in_the_scorer_makes_nothing_stale(finished):
    with edited(finished.root / "workflow/arena_cje/llama/scorer.py", r"VERSION = \d+", r"\g<0>  # a remark"):
        assert finished.jobs("estimates") == set()


def test_the_version_of_the_scorer_makes_what_it_scored_stale(finished):
    with edited(finished.root / "workflow/arena_cje/llama/scorer.py", r"VERSION = \d+", r"\g<0>0"):
        assert finished.jobs("estimates") == (
            each("score", ("smollm2-helpful", "smollm2-other"), SHARDS)
            | each("judge judge", POLICIES, SHARDS)  # this judge reads likelihoods
            | JOINS
            | ANALYSIS
        )


def joins_of_a_new_policy(name: str) -> set[str]:
    """Jobs that any policy adds, whatever its context."""
    return (
        each("generate", (name,), SHARDS)
        | each("judge judge", (name,), SHARDS)
        | {f"oracle {name} 1.0", f"gather_responses_and_grades {name}", "gather_logprobs"}
        | each("fresh_draws", COVERAGES)
        | ANALYSIS
    )


def test_a_policy_in_a_new_context_adds_its_scores(changed):
    (changed.directory / "third.txt").write_text("A third way.")
    changed.config["policies"]["third"] = {"like": "base", "system_prompt": "third.txt"}
    assert changed.jobs("estimates") == joins_of_a_new_policy("third") | each("score", ("smollm2-third",), SHARDS)


def test_a_policy_with_the_sampling_of_the_base_adds_no_scores(changed):
    changed.config["policies"]["twin"] = {"like": "base"}
    assert changed.jobs("estimates") == joins_of_a_new_policy("twin")


def test_a_policy_that_shares_only_its_context_has_that_context_scored(changed):
    changed.config["policies"]["warm"] = {"like": "base", "temperature": 1.1}
    assert changed.jobs("estimates") == (
        joins_of_a_new_policy("warm")
        | each("score", ("smollm2-helpful",), SHARDS)
        | each("judge judge", ("base",), SHARDS)  # takes its grades from these scores
        | {"gather_responses_and_grades base"}
    )


def test_a_removed_policy_makes_only_the_joins_stale(changed):
    del changed.config["policies"]["other"]
    assert changed.jobs("estimates") == {"gather_logprobs"} | each("fresh_draws", COVERAGES) | ANALYSIS


def test_the_text_of_a_rubric_makes_its_grades_stale(finished):
    with edited(finished.root / "resources/judges/likelihood.yaml", "temperature: 1.0", "temperature: 0.9"):
        assert finished.jobs("estimates") == (
            each("judge judge", POLICIES, SHARDS)
            | each("gather_responses_and_grades", POLICIES)
            | each("fresh_draws", COVERAGES)
            | ANALYSIS
        )


def test_the_text_of_a_system_prompt_makes_its_policy_stale(finished):
    with edited(finished.directory / "other.txt", "other", "very other"):
        assert finished.jobs("estimates") == (
            each("generate", ("other",), SHARDS)
            | each("score", ("smollm2-other",), SHARDS)
            | each("judge judge", ("other",), SHARDS)
            | {"oracle other 1.0", "gather_responses_and_grades other", "gather_logprobs"}
            | each("fresh_draws", COVERAGES)
            | ANALYSIS
        )


@pytest.mark.parametrize(
    ("module", "jobs"),
    [("snips", each("estimate_without_draws", COVERAGES)), ("direct", each("estimate", COVERAGES, ("direct",)))],
)
def test_the_code_of_an_estimator_makes_its_estimates_stale_with_those_that_share_its_job(finished, module, jobs):
    with edited(finished.root / f"workflow/arena_cje/estimators/{module}.py", r"\Z", "\n# a remark\n"):
        assert finished.jobs("estimates") == jobs | each("validate", COVERAGES) | {"estimates"}


def test_estimates_that_were_made_together_are_as_good_for_who_asks_for_one(finished):
    """And the other way round: the output of either rule is not stale for the other."""
    assert finished.jobs("results/coverage_0.5/snips.json") == set()
    assert finished.jobs("results/coverage_0.25/direct.json", "results/coverage_0.25/calibrated-ips.csv") == set()
    content = finished.path("coverage_0.5/snips.json").read_bytes()
    for name in ("calibrated-ips", "snips"):
        finished.path(f"coverage_0.5/{name}.json").unlink()
        assert finished.jobs(f"results/coverage_0.5/{name}.json") == {f"estimate 0.5 {name}"}
        finished.snakemake(f"results/coverage_0.5/{name}.json")
    assert finished.path("coverage_0.5/snips.json").read_bytes() == content
    finished.snakemake("estimates")
    assert finished.jobs("estimates") == set()


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
def test_what_was_made_together_is_not_stale_for_who_asks_for_one_file(finished, target, rule):
    assert finished.jobs(f"results/{target}") == set()
    # The job that made the file is the one that makes it again, or the job's other outputs would be stale.
    assert rule in finished.jobs("--forceall", "--", f"results/{target}")


def test_a_threshold_makes_the_estimates_stale(changed):
    changed.config["verdict"] = {"labels_caution": 20}
    assert changed.jobs("estimates") == ESTIMATES | {"estimates"}


def test_a_variant_adds_its_estimates(changed):
    changed.config["variants"] = {"hajek": {"estimator": "snips", "n_folds": 4}}
    assert changed.jobs("estimates") == set()
    assert changed.jobs("results/coverage_0.5/hajek.json") == {"estimate 0.5 hajek"}
    changed.config["estimators"] = [*ESTIMATORS, "hajek"]
    assert changed.jobs("estimates") == each("estimate", COVERAGES, ("hajek",)) | each("validate", COVERAGES) | {
        "estimates"
    }


@pytest.mark.parametrize("name", ["ips", "dr-cpo"])
def test_a_new_estimator_leaves_the_estimates_of_the_others_as_they_are(changed, name):
    changed.config["estimators"] = [*ESTIMATORS, name]
    assert changed.jobs("estimates") == each("estimate", COVERAGES, (name,)) | each("validate", COVERAGES) | {
        "estimates"
    }


def test_labels_of_the_targets_are_bought(changed):
    changed.config["oracle"] = {"target_labels": 0.25}
    assert changed.jobs("estimates") == (each("oracle", TARGETS, ("0.25",)) | each("fresh_draws", COVERAGES) | ANALYSIS)


def test_labels_of_the_targets_stand_in_their_fresh_draws(finished, tmp_path):
    shutil.copytree(finished.directory, tmp_path / "run", symlinks=True)
    run = Run(tmp_path / "run", copy.deepcopy(finished.config), root=finished.root)
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


def test_the_seed_makes_everything_stale_but_the_model(changed):
    changed.config["seed"] = 2
    assert changed.jobs("estimates") == everything_of(SHARDS)


def test_one_estimate_asks_for_no_more_than_it_needs(changed):
    changed.directory = changed.directory / "elsewhere"
    changed.directory.mkdir()
    for name in ("tiny.gguf", "prompts.jsonl", "other.txt"):
        (changed.directory / name).symlink_to(changed.directory.parent / name)
    assert changed.jobs("results/coverage_0.25/calibrated-ips.json") == (
        {"register_model smollm2"}
        | each("sample_prompts", SHARDS)
        | each("generate", ("base",), SHARDS)
        | each("score", ("smollm2-helpful", "smollm2-other"), SHARDS)
        | each("judge judge", ("base",), SHARDS)
        | {"oracle base 0.25", "gather_responses_and_grades base", "gather_logprobs"}
        | {"assemble 0.25", "estimate 0.25 calibrated-ips"}
    )
