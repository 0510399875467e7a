"""Data brought along: from a logged data set to results without a model, from any working directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import arena_cje
from arena_cje import simulate
from workflow_run import Run

ARENA = os.environ.get("ARENA_SAMPLE_DIR")


def write_world(folder: Path, n: int = 300) -> float:
    """A simulated world in the CJE format; the truth of its one target."""
    logged, draws, truth = simulate.draw(simulate.World(), n, seed=3)
    rows = []
    for i in range(n):
        rows.append(
            {
                "prompt_id": str(logged.prompt_id[i]),
                "prompt": f"prompt {i}",
                "response": f"response {i}",
                "base_policy_logprob": -50.0,
                "target_policy_logprobs": {
                    policy: -50.0 + logged.log_ratio[i, k] for k, policy in enumerate(logged.policies)
                },
                "judge_score": float(logged.judge_score[i]),
                "oracle_label": None if np.isnan(logged.oracle_label[i]) else float(logged.oracle_label[i]),
            }
        )
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "draws").mkdir()
    for policy, drawn in draws.items():
        lines = [
            json.dumps({"prompt_id": str(logged.prompt_id[i]), "judge_score": float(score), "draw_idx": j})
            for i, scores in enumerate(drawn.judge_score)
            for j, score in enumerate(scores)
        ]
        (folder / "draws" / f"{policy}_responses.jsonl").write_text("\n".join(lines))
    return truth


def test_the_default_target_makes_every_estimate(tmp_path):
    write_world(tmp_path)
    run = Run(tmp_path, {"logged_data": "mine.jsonl", "fresh_draws": "draws", "coverages": ["0.1", "0.2"]})
    said = run.snakemake()
    assert "calibrated-ips: 300 logged responses" in said
    made = {path.name for path in run.path("coverage_0.1").glob("*.json")}
    assert made == {"calibrated-ips.json", "raw-ips.json", "snips.json", "direct.json", "summary.json"}
    assert not run.path("coverage_0.1/validation.csv").exists()
    assert "Nothing to be done" in run.snakemake()


def test_the_workflow_writes_what_the_library_returns(tmp_path):
    write_world(tmp_path)
    run = Run(tmp_path, {"logged_data": "mine.jsonl", "fresh_draws": "draws"})
    run.snakemake("results/coverage_0.1/direct.json")
    made = arena_cje.load(run.path("coverage_0.1/direct.json"))
    called = arena_cje.analyze(
        tmp_path / "mine.jsonl", tmp_path / "draws", estimator="direct", oracle_coverage=0.1, seed=42
    )
    assert made.policies == called.policies
    np.testing.assert_array_equal(made.estimates, called.estimates)
    np.testing.assert_array_equal(made.confidence_intervals, called.confidence_intervals)
    np.testing.assert_array_equal(made.influence, called.influence)


def test_policies_may_stand_alone_without_draws(tmp_path):
    write_world(tmp_path)
    run = Run(tmp_path, {"logged_data": "mine.jsonl", "coverages": ["0.2"]})
    run.snakemake()
    assert {path.name for path in run.path("coverage_0.2").glob("*ips.json")} == {
        "calibrated-ips.json",
        "raw-ips.json",
        "snips.json",
    }
    assert not run.path("coverage_0.2/direct.json").exists()


@pytest.mark.skipif(ARENA is None, reason="needs ARENA_SAMPLE_DIR, the folder of the Arena sample")
def test_the_arena_sample_from_another_directory(tmp_path):
    run = Run(tmp_path, {})
    own = [f"logged_data={ARENA}/logged.jsonl", f"fresh_draws={ARENA}/fresh_draws"]
    targets = [f"results/coverage_{c}/calibrated-ips.json" for c in ("0.05", "0.4")]
    said = run.snakemake("--config", *own, "--", *targets)
    few, many = (json.loads(run.path(f"coverage_{c}/calibrated-ips.json").read_text()) for c in ("0.05", "0.4"))
    assert (few["metadata"]["n_oracle"], many["metadata"]["n_oracle"]) == (50, 400)
    assert few["estimates"] != many["estimates"]
    assert few["metadata"]["target_policies"] == ["clone", "parallel_universe_prompt", "unhelpful"]
    assert "unhelpful" in few["refused"]
    assert "unhelpful" in many["refused"]
    assert many["estimates"][2] is None
    assert "1000 logged responses" in said
    everything = run.snakemake("--config", *own, "--", "results/coverage_0.6/direct.json")
    assert "480 oracle labels" in everything  # fewer than asked for: all are used
