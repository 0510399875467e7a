"""Levels and differences by two public packages from labels of several policies, in an environment of their own.

    cje-eval    0.9, `direct` with its tuned weight of the correction, differences by its own paired comparison
    ppi_py      the mean by PPI++ for each policy alone, from the judge's scores; differences of independent estimates

This file runs on both sides: the benchmark imports it to start the packages; as a script it estimates from the draws in a
file.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

METHODS = ("cje-eval", "ppi_py")
REQUIREMENTS = ("cje-eval==0.9.3", "ppi-python==0.2.3")
VARIABLE = "LABEL_PEERS_PYTHON"
HOME = Path("results/bench/.label-peers")
NORMAL_95 = 1.959963984540054

Claims = dict[str, tuple[float, float, float, float]]  # claim -> value, standard error, interval


def save(path: Path, policies: list[str], score: np.ndarray, label: np.ndarray) -> None:
    """Draws for `answer`: scores and labels (draws, policies, prompts), NaN where there is no label; the base first."""
    np.savez(path, policies=np.array(policies), score=score, label=label)


def answer(path: Path) -> list[dict[str, Claims]]:
    """The claims of each package on each draw."""
    with np.load(path) as file:
        policies, score, label = file["policies"].tolist(), file["score"], file["label"]
    return [
        {"cje-eval": _cje_eval(policies, *one), "ppi_py": _ppi(policies, *one)}
        for one in zip(score, label, strict=True)
    ]


def _cje_eval(policies: list[str], score: np.ndarray, label: np.ndarray) -> Claims:
    import cje

    draws = {
        policy: [
            {
                "prompt_id": str(i),
                "judge_score": float(score[p, i]),
                "oracle_label": None if math.isnan(label[p, i]) else float(label[p, i]),
            }
            for i in range(score.shape[1])
        ]
        for p, policy in enumerate(policies)
    }
    result = cje.analyze_dataset(
        fresh_draws_data=draws, estimator="direct", estimator_config={"correction_weight": "tuned"}
    )
    low, high = result.confidence_interval()
    columns = zip(result.metadata["target_policies"], result.estimates, result.standard_errors, low, high, strict=True)
    claims = {policy: tuple(map(float, numbers)) for policy, *numbers in columns}
    for policy in policies[1:]:
        pair = result.compare_policies(policy, policies[0])
        claims[f"{policy} - {policies[0]}"] = tuple(
            float(pair[key]) for key in ("difference", "se_difference", "ci_lower", "ci_upper")
        )
    return claims


def _ppi(policies: list[str], score: np.ndarray, label: np.ndarray) -> Claims:
    from ppi_py import ppi_mean_ci, ppi_mean_pointestimate

    claims = {}
    for policy, f, y in zip(policies, score, label, strict=True):
        has_label = ~np.isnan(y)
        sample = y[has_label], f[has_label], f[~has_label]
        low, high = (float(np.squeeze(bound)) for bound in ppi_mean_ci(*sample, alpha=0.05))
        value = float(np.squeeze(ppi_mean_pointestimate(*sample)))
        claims[policy] = value, (high - low) / (2 * NORMAL_95), low, high
    base = claims[policies[0]]
    for policy in policies[1:]:
        value, se = claims[policy][0] - base[0], math.hypot(claims[policy][1], base[1])
        claims[f"{policy} - {policies[0]}"] = value, se, value - NORMAL_95 * se, value + NORMAL_95 * se
    return claims


def _main(path: str) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    answers: list[dict[str, Any]] = answer(Path(path))
    print(json.dumps(answers))


if __name__ == "__main__":
    _main(*sys.argv[1:])
