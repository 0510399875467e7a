"""The cells of a block: every setting on every sample, one row a cell and policy.

Settings with the same options and the same view of the judge are estimated together, so that folds, calibrators and weights
are computed once for all of their estimators; a sample is drawn once for all coverages.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from arena_cje import estimators
from arena_cje.ablation.populations import as_read, masked
from arena_cje.diagnostics.evidence import gather
from arena_cje.diagnostics.verdict import judge
from arena_cje.estimation.records import Options, Verdict
from arena_cje.evaluation.evaluate import evaluate_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arena_cje.ablation.grid import Block, Setting
    from arena_cje.ablation.populations import Population
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.estimation.records import Draws, Logged, Reason
    from arena_cje.results.validation import Truth

Row = dict[str, Any]

COLUMNS = {
    "n": pl.Int64,
    "coverage": pl.Float64,
    "seed": pl.Int64,
    "setting": pl.String,
    "policy": pl.String,
    "is_base": pl.Boolean,
    "n_labels": pl.Int64,  # labelled rows of the base policy
    "estimate": pl.Float64,  # null where there is none; also of refused policies
    "se": pl.Float64,
    "ci_lower": pl.Float64,
    "ci_upper": pl.Float64,
    "level": pl.String,  # of the verdict
    "refused_for": pl.String,  # codes of its reasons to refuse
    "truth": pl.Float64,
    "truth_se": pl.Float64,
    "seconds": pl.Float64,  # of processor time for the cell; shared work is divided among the settings that share it
}


def run_block(
    population: Population,
    block: Block,
    coverages: Sequence[float],
    settings: Sequence[Setting],
    thresholds: Thresholds,
    *,
    alpha: float = 0.05,
    target_labels: float = 0.0,
) -> pl.DataFrame:
    """All cells of a block."""
    groups = together(settings)
    rows = [
        {"n": block.n, "coverage": coverage, "seed": seed, **row}
        for seed in block.seeds
        for sample in [population.sample(block.n, seed)]
        for coverage in coverages
        for data in [masked(sample, coverage, target_labels)]
        for group in groups
        for row in _cells(
            group,
            *as_read(*data, group[0], population.covariates),
            sample.truth,
            population.weight_reasons,
            seed,
            thresholds,
            alpha,
        )
    ]
    return pl.DataFrame(rows, schema=COLUMNS).with_columns(pl.col(pl.Float64).fill_nan(None))


def together(settings: Sequence[Setting]) -> list[list[Setting]]:
    """The settings in groups with equal options and the same view of the judge."""
    groups: dict[tuple[Options, str], list[Setting]] = {}
    for setting in settings:
        groups.setdefault((Options(**setting.options), setting.judge), []).append(setting)
    return list(groups.values())


def _cells(
    settings: Sequence[Setting],
    logged: Logged,
    draws: Mapping[str, Draws],
    truths: Mapping[str, Truth],
    weight_reasons: Mapping[str, Sequence[Reason]],
    seed: int,
    thresholds: Thresholds,
    alpha: float,
) -> Iterator[Row]:
    """The rows of settings that are estimated together."""
    start = time.process_time()
    options = Options(**dict(settings[0].options) | {"seed": seed})
    evaluations = evaluate_all([setting.estimator for setting in settings], logged, draws, options)
    shared, n_labels = (time.process_time() - start) / len(settings), int(logged.labelled.sum())
    for setting in settings:
        start = time.process_time()
        evaluation = evaluations[setting.estimator]
        verdicts = judge(evaluation, logged, gather(evaluation, logged, draws, thresholds), thresholds)
        estimates = {logged.base_policy: evaluation.base} | evaluation.estimates
        intervals = {policy: estimate.interval(alpha) for policy, estimate in estimates.items()}
        seconds = shared + time.process_time() - start
        for policy, estimate in estimates.items():
            (low, high), verdict = intervals[policy], verdicts[policy]
            if estimators.needs_weights(setting.estimator):
                verdict = Verdict((*verdict.reasons, *weight_reasons.get(policy, ())))
            value, value_se = truths.get(policy, (np.nan, np.nan))
            yield {
                "setting": setting.name,
                "policy": policy,
                "is_base": policy == logged.base_policy,
                "n_labels": n_labels,
                "estimate": estimate.value,
                "se": estimate.se,
                "ci_lower": low,
                "ci_upper": high,
                "level": verdict.level,
                "refused_for": " ".join(r.code for r in verdict.reasons if r.level == "refuse"),
                "truth": value,
                "truth_se": value_se,
                "seconds": seconds,
            }
