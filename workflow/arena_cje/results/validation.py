"""Estimates beside the truth: what the oracle says of every response of a policy.

    truth V = mean_i mean_j Y_ij,   se(V) = sd(mean_j (Y_ij - f^(-k)(S_ij))) / sqrt(n)
    covered  <=>  |estimate - V| <= t sqrt(se^2 + se(V)^2)

Estimate and truth share their prompts and their judge scores, so that only the labels' noise given the score is the
truth's own. f^(-k) is an isotonic fit of Y on S over all these labels but those of the prompt's fold, since residuals
from a curve that was fitted to them are too small; fewer than ten labels are held against their mean. The truth never
enters an estimate.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from arena_cje.errors import UserError, nearest
from arena_cje.estimation.folds import affordable, deal
from arena_cje.estimation.isotonic import isotonic

if TYPE_CHECKING:
    import polars as pl

    from arena_cje.files import Row
    from arena_cje.results.record import ResultRecord

log = logging.getLogger(__name__)

Truth = tuple[float, float]  # value and standard error, in [0, 1]

FOLDS, SEED = 5, 0  # of prompts, for the noise of the labels alone
MIN_LABELS = 10  # fewer tell no curve from noise
RARE = 0.01


def truth(labels: np.ndarray, scores: np.ndarray) -> Truth:
    """Value of a policy and its standard error, from labels (n, m) and judge scores (n, m) of its responses.

    NaN where a draw, its label or its score is missing; prompts without any label do not count.
    """
    labelled = ~np.isnan(labels)
    if not labelled.any():
        return float("nan"), float("nan")
    value = float(_prompt_means(labels).mean())
    noise = _prompt_means(_residuals(labels, scores))  # prompts with a label and a score
    if len(noise) < 2:
        return value, float("nan")
    return value, float(noise.std(ddof=1) / np.sqrt(len(noise)))


def _residuals(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Labels less what scores of other prompts say of them, (n, m); the labels themselves where they are few."""
    both = ~np.isnan(labels) & ~np.isnan(scores)
    if both.sum() < MIN_LABELS:
        return labels
    score, label, prompt = scores[both], labels[both], np.nonzero(both)[0]  # (l,) each
    folds = affordable(FOLDS, len(np.unique(prompt)))
    fold = deal(prompt, np.ones(len(prompt), bool), folds, SEED)
    residual, predicted = np.full(labels.shape, np.nan), np.empty(len(label))
    for k in range(folds):
        held = fold == k
        rest = held if held.all() else ~held
        predicted[held] = isotonic(score[rest], label[rest])(score[held])
    residual[both] = label - predicted
    return residual


def truth_of(judge: Sequence[Row], oracle: Sequence[Row]) -> Truth:
    """`truth` from the judge's and the oracle's grades of one policy's responses."""
    prompts = {name: i for i, name in enumerate(dict.fromkeys(row["prompt_id"] for row in oracle))}
    width = 1 + max((row["draw_idx"] for row in oracle), default=0)
    labels, scores = np.full((2, len(prompts), width), np.nan)  # (n, m) each
    for grades, into in ((oracle, labels), (judge, scores)):
        for row in grades:
            if row["score"] is not None and row["prompt_id"] in prompts and row["draw_idx"] < width:
                into[prompts[row["prompt_id"]], row["draw_idx"]] = row["score"]
    return truth(labels, scores)


def validate(results: Sequence[ResultRecord], truths: Mapping[str, Truth]) -> pl.DataFrame:
    """One row an estimator and policy, the base policy's own value among them."""
    import polars as pl

    known = {policy for result in results for policy in result.all_policies}
    for policy in truths:
        if policy not in known:
            raise UserError(f"a truth of {policy!r}, which no result has{nearest(policy, known)}")
    rows = [
        _compared(result, policy, truths.get(policy, (float("nan"), float("nan"))))
        for result in results
        for policy in result.all_policies
    ]
    return pl.DataFrame(rows, schema=_columns()).with_columns(pl.col(pl.Float64).fill_nan(None))


def table(results: Sequence[ResultRecord], truths: Mapping[str, Truth]) -> pl.DataFrame:
    """Content of validation.csv; what should make a reader look twice goes to the log."""
    found = validate(results, truths)
    for sentence in poor_coverage(found):
        log.warning(sentence)
    return found


def poor_coverage(validated: pl.DataFrame, alpha: float = 0.05) -> list[str]:
    """Sentences about estimators whose published intervals miss the truth more often than chance allows (1 in 100)."""
    import polars as pl

    said = []
    for (name,), rows in validated.filter(pl.col("covered").is_not_null()).group_by("estimator", maintain_order=True):
        hit, of = int(rows["covered"].sum()), len(rows)
        if stats.binom.cdf(hit, of, 1 - alpha) < RARE:
            said.append(
                f"poor coverage: {hit} of {of} intervals that {name} publishes hold the truth; policies share prompts and "
                "labels, so one unlucky sample can do it, but look at transport and overlap first"
            )
    return said


def _prompt_means(values: np.ndarray) -> np.ndarray:
    """Mean over the draws of every prompt that has one, (<= n,)."""
    present = ~np.isnan(values)
    count = present.sum(axis=1)
    total = np.where(present, values, 0.0).sum(axis=1)
    return total[count > 0] / count[count > 0]


def _columns() -> dict[str, type[pl.DataType]]:
    import polars as pl

    texts = dict.fromkeys(("estimator", "policy", "status"), pl.String)
    numbers = ("estimate", "refused_estimate", "ci_lower", "ci_upper", "truth", "truth_se", "absolute_error")
    return texts | dict.fromkeys(numbers, pl.Float64) | {"covered": pl.Boolean}


def _compared(result: ResultRecord, policy: str, known: Truth) -> Row:
    summary, (value, se) = result.summary(policy), known
    metadata = result.document["metadata"]
    row = {
        "estimator": result.name,
        "policy": policy,
        "status": result.verdicts[policy].level,
        "truth": value,
        "truth_se": se,
    }
    if policy in result.refused:
        return row | {"refused_estimate": summary["estimate"]}
    error = abs(summary["estimate"] - value)
    reach = stats.t.ppf(1 - metadata["alpha"] / 2, summary["df"]) * np.hypot(summary["se"], se)
    unknown = np.isnan(error) or np.isnan(reach)
    return row | {
        "estimate": summary["estimate"],
        "ci_lower": summary["ci_lower"],
        "ci_upper": summary["ci_upper"],
        "absolute_error": error,
        "covered": None if unknown else bool(error <= reach),
    }
