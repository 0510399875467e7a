"""A data set as the population of an ablation: its labels are the truth, and cautions about its weights refuse estimators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from arena_cje import simulate
from arena_cje.ablation import recorded
from arena_cje.ablation.grid import Block, Switches, settings
from arena_cje.ablation.run import run_block
from arena_cje.data.schemas import GRADES
from arena_cje.diagnostics.thresholds import Thresholds

if TYPE_CHECKING:
    from pathlib import Path

N = 80
LOGGED, DRAWS, _ = simulate.draw(simulate.World({"clone": simulate.Target()}, coverage=1.0, target_labels=0.5), N, 6)


def logged_rows() -> list[dict]:
    return [
        {
            "prompt_id": str(LOGGED.prompt_id[i]),
            "prompt": f"prompt {i}",
            "response": "word " * (1 + i % 7),
            "base_policy_logprob": -20.0,
            "target_policy_logprobs": {"clone": -20.0 + float(LOGGED.log_ratio[i, 0])},
            "judge_score": float(LOGGED.judge_score[i]),
            "oracle_label": float(LOGGED.oracle_label[i]),
        }
        for i in range(N)
    ]


def draw_rows() -> list[dict]:
    labels = DRAWS["clone"].oracle_label[:, 0]
    return [
        {
            "prompt_id": str(LOGGED.prompt_id[i]),
            "response": "word " * (1 + i % 5),
            "judge_score": float(DRAWS["clone"].judge_score[i, 0]),
            "oracle_label": None if np.isnan(labels[i]) else float(labels[i]),
        }
        for i in range(N)
    ]


def test_the_mean_labels_of_the_data_are_the_true_values():
    population = recorded.load(logged_rows(), {"clone": draw_rows()}, covariates=("response_length",))
    assert population.truth["base"][0] == pytest.approx(LOGGED.oracle_label.mean())
    half = np.nanmean(DRAWS["clone"].oracle_label)
    assert abs(population.truth["clone"][0] - half) < 3 * population.truth["clone"][1]
    assert population.covariates == ("response_length",)
    assert population.sample(30, 0).logged.covariates.shape == (30, 1)


def test_a_reason_against_the_weights_refuses_only_estimators_that_use_them():
    cautions = {"clone": [("no_log_probabilities", "they are not of its distribution", "refuse")]}
    population = recorded.load(logged_rows(), {"clone": draw_rows()}, cautions=cautions)
    chosen = settings({name: (name, {}) for name in ("direct", "snips")}, Switches())
    rows = run_block(population, Block(N, 0, 1), [0.5], chosen, Thresholds()).filter(pl.col("policy") == "clone")
    assert dict(rows.select("setting", "level").iter_rows())["snips"] == "refuse"
    assert dict(rows.select("setting", "refused_for").iter_rows()) == {"direct": "", "snips": "no_log_probabilities"}


def test_the_true_values_of_a_run_are_the_means_of_its_oracle_grades(tmp_path: Path):
    def write(path: Path, scores: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        empty = dict.fromkeys(("reason", "reply", "distribution", "choice_mass", "model", "system_fingerprint"))
        rows = [
            {"prompt_id": f"q{i}", "draw_idx": 0, "score": float(score), "item": "x"} | empty
            for i, score in enumerate(scores)
        ]
        GRADES.write(path, rows)
        return path

    judge = [write(tmp_path / "judge" / f"{p}.jsonl", LOGGED.judge_score) for p in ("base", "clone")]
    labels = {"base": LOGGED.oracle_label, "clone": 1 - LOGGED.oracle_label}
    oracle = [write(tmp_path / "oracle" / p / "coverage_1.0.jsonl", values) for p, values in labels.items()]
    truths = recorded.graded_truths(judge, oracle)
    assert {policy: value for policy, (value, _) in truths.items()} == pytest.approx(
        {policy: values.mean() for policy, values in labels.items()}
    )
    population = recorded.load(logged_rows(), {"clone": draw_rows()}, truths=truths)
    assert population.truth == truths
