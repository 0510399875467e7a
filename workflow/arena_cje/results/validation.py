"""Validation: estimates compared with the true value of a policy, its mean label when every response has one.

    truth V = mean_i mean_j Y_ij,   se(V) = sd(mean_j (Y_ij - f^(-k)(S_ij))) / sqrt(n)
    covered  <=>  |estimate - V| <= t sqrt(se^2 + se(V)^2)

Estimate and truth have the same prompts and judge scores, so that the truth's own error is the noise of the labels given
the score. f^(-k) is an isotonic fit of Y on S without the prompt's fold, since residuals of the rows of a fit are too
small; with fewer than ten labels it is their mean. No truth enters an estimate.

Where only n of N prompts have a label, which ones these are is no error of an estimate over all N, and V is moved to them:

    V = mean_labelled mean_j Y_ij + mean_all mean_j f(S_ij) - mean_labelled mean_j f(S_ij)

f is f^(-k) for labelled prompts and the mean of these fits for others. With all labels the last two terms cancel.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bdtr, stdtrit

from arena_cje.errors import UserError, did_you_mean
from arena_cje.estimation.folds import affordable, deal
from arena_cje.estimation.isotonic import isotonic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from arena_cje.files import Row
    from arena_cje.results.record import ResultRecord

log = logging.getLogger(__name__)

Truth = tuple[float, float]  # value and standard error, in [0, 1]

FOLDS, SEED = 5, 0  # of the isotonic fits
MIN_LABELS = 10  # of an isotonic fit
RARE = 0.01  # probability below which low coverage is reported


def truth(labels: np.ndarray, scores: np.ndarray) -> Truth:
    """The true value of a policy and its standard error, from labels (n, m) and judge scores (n, m) of its responses.

    labels, scores: in [0, 1], NaN where one is missing; prompts without any label have a part by their scores alone. Without
    labels both results are NaN, with fewer than two prompts the standard error is.
    """
    labelled = ~np.isnan(labels)
    if not labelled.any():
        return float("nan"), float("nan")
    value = float(_prompt_means(labels).mean())
    predicted = _predictions(labels, scores)
    noise = _prompt_means(labels - predicted)  # prompts with a label and a score
    if len(noise) < 2:
        return value, float("nan")
    at_labels = _prompt_means(np.where(labelled, predicted, np.nan))
    moved = float(_prompt_means(predicted).mean() - at_labels.mean())
    return value + moved, float(noise.std(ddof=1) / np.sqrt(len(noise)))


def _predictions(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Labels as the scores predict them, (n, m), cross-fitted by prompt; NaN without a score, all 0 where labels are few."""
    complete = ~np.isnan(labels) & ~np.isnan(scores)
    if complete.sum() < MIN_LABELS:
        return np.zeros(labels.shape)
    score, label, prompt = scores[complete], labels[complete], np.nonzero(complete)[0]  # (l,) each
    folds = affordable(FOLDS, len(np.unique(prompt)))
    fold = deal(prompt, np.ones(len(prompt), bool), folds, SEED)
    fold_of_prompt = np.full(len(labels), -1)
    fold_of_prompt[prompt] = fold
    without, scored = [], ~np.isnan(scores)
    for k in range(folds):
        test = fold == k
        train = test if test.all() else ~test
        prediction = np.full(labels.shape, np.nan)
        prediction[scored] = isotonic(score[train], label[train])(scores[scored])
        without.append(prediction)
    own = np.stack(without)[np.maximum(fold_of_prompt, 0), np.arange(len(labels))]  # (n, m)
    return np.where((fold_of_prompt < 0)[:, None], np.mean(without, axis=0), own)


def truth_of(judge: Sequence[Row], oracle: Sequence[Row]) -> Truth:
    """`truth` from the rows of the judge's and the oracle's grades of one policy's responses."""
    rows = [*oracle, *judge]
    prompts = {name: i for i, name in enumerate(dict.fromkeys(row["prompt_id"] for row in rows))}
    width = 1 + max((row["draw_idx"] for row in rows), default=0)
    labels, scores = np.full((2, len(prompts), width), np.nan)  # (n, m) each
    for grades, values in ((oracle, labels), (judge, scores)):
        for row in grades:
            if row["score"] is not None:
                values[prompts[row["prompt_id"]], row["draw_idx"]] = row["score"]
    return truth(labels, scores)


def validate(results: Sequence[ResultRecord], truths: Mapping[str, Truth]) -> pl.DataFrame:
    """The table of validation.csv: one row for each estimator and policy, the base policy among them.

    truths: by policy. Raises a `UserError` for the truth of a policy that no result has.
    """
    import polars as pl

    policies = {policy for result in results for policy in result.all_policies}
    for policy in truths:
        if policy not in policies:
            raise UserError(
                f"true value for {policy!r}, which is not a policy of the results{did_you_mean(policy, policies)}"
            )
    rows = [
        _comparison(result, policy, truths.get(policy, (float("nan"), float("nan"))))
        for result in results
        for policy in result.all_policies
    ]
    return pl.DataFrame(rows, schema=_columns()).with_columns(pl.col(pl.Float64).fill_nan(None))


def table(results: Sequence[ResultRecord], truths: Mapping[str, Truth]) -> pl.DataFrame:
    """Content of validation.csv; the log names estimators with poor coverage."""
    frame = validate(results, truths)
    for sentence in poor_coverage(frame):
        log.warning(sentence)
    return frame


def poor_coverage(frame: pl.DataFrame, alpha: float = 0.05) -> list[str]:
    """Sentences about estimators with fewer published intervals that cover the truth than chance would allow."""
    import polars as pl

    groups = frame.filter(pl.col("covered").is_not_null()).group_by("estimator", maintain_order=True)
    sentences = (poor_coverage_of(name, rows["covered"].to_list(), alpha) for (name,), rows in groups)
    return [sentence for sentence in sentences if sentence is not None]


def poor_coverage_of(name: str, covered: Sequence[bool], alpha: float) -> str | None:
    """A sentence about an estimator where too few of its published intervals cover the truth; None where enough do.

    Too few: the probability of as few is below `RARE`, if every interval covers the truth with probability 1 - alpha.
    """
    if not covered or bdtr(sum(covered), len(covered), 1 - alpha) >= RARE:
        return None
    return (
        f"poor interval coverage: {sum(covered)} of {len(covered)} published intervals of {name} contain the true value. "
        "Policies share prompts and labels, so one unlucky sample can cause this, but check transport and overlap first"
    )


def _prompt_means(values: np.ndarray) -> np.ndarray:
    """Mean over the draws of each prompt that has any, (at most n,)."""
    present = ~np.isnan(values)
    count = present.sum(axis=1)
    total = np.where(present, values, 0.0).sum(axis=1)
    return total[count > 0] / count[count > 0]


def _columns() -> dict[str, type[pl.DataType]]:
    import polars as pl

    texts = dict.fromkeys(("estimator", "policy", "status"), pl.String)
    numbers = ("estimate", "refused_estimate", "ci_lower", "ci_upper", "truth", "truth_se", "absolute_error")
    return texts | dict.fromkeys(numbers, pl.Float64) | {"covered": pl.Boolean}


def _comparison(result: ResultRecord, policy: str, truth: Truth) -> Row:
    """The row of one estimator and policy; `covered` as in the module's first lines."""
    summary, (value, se) = result.summary(policy), truth
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
    bound = stdtrit(summary["df"], 1 - metadata["alpha"] / 2) * np.hypot(summary["se"], se)
    unknown = np.isnan(error) or np.isnan(bound)
    return row | {
        "estimate": summary["estimate"],
        "ci_lower": summary["ci_lower"],
        "ci_upper": summary["ci_upper"],
        "absolute_error": error,
        "covered": None if unknown else bool(error <= bound),
    }
