"""The real embedded model: the claims of the default experiment hold on a quarter of its prompts."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
import yaml

import arena_cje
from arena_cje.data import schemas
from arena_cje.provenance import sha256
from benchmarks import engine
from benchmarks._memory import peak_of
from workflow_run import ROOT, Run

if TYPE_CHECKING:
    from pathlib import Path

MODEL = ROOT / "resources" / "models" / "SmolLM2-135M-Instruct.F16.gguf"


@pytest.fixture(scope="module")
def run(tmp_path_factory, default_model) -> Run:
    """100 prompts of the shipped experiment: base responses, all contexts scored, judged, labelled; and labels of unhelpful."""
    policies = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())["policies"]
    again = {"again": {"like": "base", "system_prompt": "helpful_again.txt"}}
    config = {"n_prompts": 100, "shard_size": 50, "policies": policies | again}
    run = Run(tmp_path_factory.mktemp("real"), config)
    (run.directory / "helpful_again.txt").write_text("You are a helpful assistant.")
    run.snakemake(
        "results/coverage_0.25/calibrated-ips.json",
        "results/oracle/base/coverage_1.0.jsonl",
        "results/oracle/unhelpful/coverage_1.0.jsonl",
    )
    return run


def scores(path: Path) -> np.ndarray:
    return np.array([row["score"] for row in schemas.GRADES.read(path)])


def test_the_model_that_ran_is_the_one_recorded(run):
    record = json.loads(run.path("models/smollm2.json").read_text())
    assert record["sha256"] == sha256(MODEL)
    responses = schemas.RESPONSES.read(run.path("responses/base.jsonl"))
    assert {row["model_sha256"] for row in responses} == {record["sha256"]}


def test_responses_are_sampled_and_differ(run):
    responses = schemas.RESPONSES.read(run.path("responses/base.jsonl"))
    assert len({row["response"] for row in responses}) > 90
    assert set(Counter(row["finish_reason"] for row in responses)) == {"stop", "length"}
    assert all(len(row["token_ids"]) == 32 for row in responses if row["finish_reason"] == "length")


def test_the_clone_has_the_log_probabilities_and_the_estimate_of_the_base(run):
    rows = [json.loads(line) for line in run.path("coverage_0.25/cje_dataset.jsonl").read_text().splitlines()]
    assert {row["target_policy_logprobs"]["clone"] - row["base_policy_logprob"] for row in rows} == {0.0}
    result = arena_cje.load(run.path("coverage_0.25/calibrated-ips.json"))
    base = result.summary(result.base_policy)
    assert result.summary("clone")["estimate"] == pytest.approx(base["estimate"], abs=1e-12)


def test_a_separate_scoring_pass_gives_the_same_bits(run):
    """`again` has the base's words in a file of its own, so it is scored by passes that share nothing with the base's."""
    shared, own = (pl.read_parquet(run.path(f"logprobs/{policy}.parquet")) for policy in ("base", "again"))
    assert shared.equals(own)


def test_every_policy_but_the_clone_has_other_log_probabilities_than_the_base(run):
    rows = [json.loads(line) for line in run.path("coverage_0.25/cje_dataset.jsonl").read_text().splitlines()]
    for policy in ("unhelpful", "parallel_universe_prompt", "concise", "cool"):
        assert all(row["target_policy_logprobs"][policy] != row["base_policy_logprob"] for row in rows)
    # The base's responses are improbable under a policy whose system prompt asks for unhelpful ones.
    gap = np.mean([row["base_policy_logprob"] - row["target_policy_logprobs"]["unhelpful"] for row in rows])
    assert gap > 1


def test_the_base_answers_some_prompts_correctly_and_unhelpful_clearly_fewer(run):
    base = scores(run.path("oracle/base/coverage_1.0.jsonl"))
    unhelpful = scores(run.path("oracle/unhelpful/coverage_1.0.jsonl"))
    assert 0.2 < base.mean() < 0.8
    difference = base - unhelpful
    assert difference.mean() - 1.96 * difference.std(ddof=1) / np.sqrt(len(difference)) > 0


def test_judge_scores_are_probabilities_and_correlate_with_oracle_labels(run):
    from scipy.stats import spearmanr

    judged = scores(run.path("judge/base.jsonl"))
    assert ((judged > 0) & (judged < 1)).all()
    assert spearmanr(judged, scores(run.path("oracle/base/coverage_1.0.jsonl"))).statistic > 0.2


@pytest.mark.parametrize("task", [engine.score_a_full_context, engine.generate_into_full_caches])
def test_a_full_context_takes_little_memory_beside_the_models_file(run, task):
    assert peak_of(task) - MODEL.stat().st_size < 700e6
