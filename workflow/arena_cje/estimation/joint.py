"""One estimate of all policies whose responses to the same prompts have labels, for levels and differences alike.

    V_j = mean_{L_j} Y_j + sum_k A_jk (mean_N F_k - mean_{L_j} F_k)
    A_j = (C_FF + r I)^-1 (c_j + r a_j e_j),   a_j = clip(c_jj / C_FF,jj, 0, 1),   r = 10 / m_j tr(C_FF)

Y_j is the label of a response of policy j and F_k the calibrated score of the response of policy k to the same prompt, both
means over the draws of a prompt; L_j are the prompts with a label of policy j, m_j in number, among all prompts N. C_FF and
c_j are the covariances over L_j of the scores, and of the scores with Y_j. Where all policies have labels on the same
prompts, the rows of A = C_YF C_FF^-1 give every contrast of the values the least variance at once, so that the difference
of two values is the best estimate of the difference. Estimated from few prompts A is noisy: it is shrunk towards one
weight for each policy on its own score, and below `MIN_TUNED` labelled prompts it is one on the own score and is not fitted.
Fewer labels than that cannot show whether another weight is better; with labels alone, errors of a target with 15 labels
beside 250 of the base were 1.4 times as large in simulation.
Weights only matter for the variance: to first order V_j has no bias whatever they are, if the labelled prompts are a
random share.

Labels that were bought with known probabilities have these inverted as weights, in means and covariances over L_j; m_j is
then their effective number.

Where policy k has labels on many more prompts than policy j, the residuals of its labels, Y_k - A_k F - V_k, which average
zero over L_k, are regressors of Y_j beside the scores: if the prompts L_j got generous labels for k, they did so for j.

The scores are cross-fitted, so that an error of the calibrator does not move V_j to first order, whichever labels it was
fitted to. The labels' part of the variance is a jackknife over groups of prompts, which leaves out all labels of a prompt,
those of all policies, and fits the weights again; the part of the prompts is influence_i = sum_k A_jk (F_ik - mean F_k).
Residuals Y - A F of fitted weights have no covariance with F, so that the two add up. Where every response has a label, V_j is
the mean label.

Angelopoulos, Duchi & Zrnic (2023), "PPI++"; Boyeau et al. (2024), "AutoEval done right", for several values; Miller (2024),
"Adding error bars to evals", for pairs of answers to one question; Chen & Chen (2000), "A unified approach to regression
analysis under double-sampling designs", JRSS B, for the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_TUNED = 20  # labelled prompts from which weights are fitted
LENT = 1.5  # times the labelled prompts of a policy, from which another policy's labels are worth a weight
SHRINKAGE = 10.0  # of the weights: r is this share of the scores' total variance, divided by the labelled prompts


@dataclass(frozen=True)
class Column:
    """Calibrated scores and labels of one policy's responses, by row: means over the draws of the row's prompt."""

    score: np.ndarray  # (n,) of all responses, NaN where there is none
    labelled_score: np.ndarray  # (n,) of the responses with a label, NaN where there is none
    label: np.ndarray  # (n,) NaN where there is none
    share: np.ndarray  # (n,) of the row's responses that have a label
    weight: np.ndarray | None = None  # (n,) of the row's labels by their probabilities; None: all are equal

    @property
    def mass(self) -> np.ndarray:
        """What each row counts for among the labelled rows, (n,)."""
        return self.share if self.weight is None else self.share * self.weight


@dataclass(frozen=True)
class JointValue:
    """The value of one policy."""

    value: float
    influence: np.ndarray  # (n,) centred, on the scale of the mean over the rows with a score; zero elsewhere
    residual: np.ndarray  # (n,) label minus weighted scores and its mean, NaN where there is no label
    weights: np.ndarray  # (q + r,) of the scores of all policies, and of the residuals of its r lenders


def labelled_share(column: Column) -> np.ndarray:
    """Shares (n,) of the labelled rows in the mean label, summing to one; zero without a label."""
    return column.mass / column.mass.sum()


def is_complete(column: Column) -> bool:
    """Whether every response with a score has a label."""
    return bool((column.share[~np.isnan(column.score)] >= 1).all())


def values_without(columns: Sequence[Column], prompts: Sequence[int], group: np.ndarray, groups: int) -> np.ndarray:
    """The values of q policies without the labels of each group of prompts, (K, q); group: (n,) in 0 .. K-1.

    Where every response of a policy has a label nothing is left out: its influence has all that is uncertain.
    """
    lenders = [lenders_of(j, columns, prompts) for j in range(len(columns))]
    values = np.empty((groups, len(columns)))
    for k in range(groups):
        rest = [c if is_complete(c) else replace(c, share=np.where(group == k, 0.0, c.share)) for c in columns]
        values[k] = [one.value for one in _values(rest, prompts, lenders)]
    return values


def joint_values(columns: Sequence[Column], prompts: Sequence[int]) -> list[JointValue]:
    """The values of q policies from their columns; prompts: number of labelled prompts of each.

    A policy whose responses are all labelled has the mean label.
    """
    return _values(columns, prompts, [lenders_of(j, columns, prompts) for j in range(len(columns))])


def lenders_of(j: int, columns: Sequence[Column], prompts: Sequence[int]) -> list[int]:
    """The policies with labels on many more prompts than policy j, and on enough of those that j has labels on."""
    labelled = columns[j].share > 0
    return [
        k
        for k, other in enumerate(columns)
        if prompts[k] >= LENT * prompts[j] and np.count_nonzero(labelled & (other.share > 0)) >= MIN_TUNED
    ]


def _values(columns: Sequence[Column], prompts: Sequence[int], lenders: Sequence[Sequence[int]]) -> list[JointValue]:
    centred = np.column_stack([_centred(column.score, np.nanmean(column.score)) for column in columns])  # (n, q)
    values: dict[int, JointValue] = {}
    for j in sorted(range(len(columns)), key=lambda k: -prompts[k]):  # lenders have more labels, and come first
        lent = [np.nan_to_num(values[k].residual) for k in lenders[j]]
        # Terms over all prompts have sampling variance; terms over labelled prompts have jackknife variance.
        everywhere = [np.nan_to_num(values[k].influence) * is_complete(columns[k]) for k in lenders[j]]
        known = np.column_stack([centred, *everywhere])
        values[j] = _value(j, columns[j], np.column_stack([centred, *lent]), known, prompts[j])
    return [values[j] for j in range(len(columns))]


def _value(j: int, column: Column, regressors: np.ndarray, known: np.ndarray, prompts: int) -> JointValue:
    """The value of policy j from regressors (n, q + r) of mean zero; known: the part of them that all prompts have."""
    labelled, scored = column.share > 0, ~np.isnan(column.score)
    label, share = column.label[labelled], column.mass[labelled]
    mean_label = float(share @ label / share.sum())
    if is_complete(column):
        influence = np.where(scored, column.label - column.label[scored].mean(), 0.0)
        return JointValue(mean_label, influence, np.where(scored, influence, np.nan), np.zeros(regressors.shape[1]))
    score = regressors[labelled]  # (l, q + r)
    score[:, j] = _centred(column.labelled_score[labelled], np.nanmean(column.score))
    weights = np.eye(score.shape[1])[j]
    if prompts >= MIN_TUNED:
        weights = score_weights(score, label, share, j, prompts)
    value = mean_label - float(share @ score @ weights / share.sum())
    influence = np.where(scored, known @ weights, 0.0)
    influence[scored] -= influence[scored].mean()
    residual = np.full(len(labelled), np.nan)
    residual[labelled] = label - score @ weights - value
    return JointValue(value, influence, residual, weights)


def score_weights(score: np.ndarray, label: np.ndarray, share: np.ndarray, own: int, prompts: int) -> np.ndarray:
    """The weights A_j (q,), from scores (l, q), labels (l,) and shares (l,) of the labelled rows; own: the column j."""
    spread = score - share @ score / share.sum()
    covariance = spread.T @ (share[:, None] * spread)  # (q, q), times the sum of the shares, as the next one
    with_label = spread.T @ (share * (label - share @ label / share.sum()))  # (q,)
    ridge = SHRINKAGE / prompts * float(np.trace(covariance))
    if not ridge > 0:
        return np.zeros(len(with_label))
    alone = np.clip(with_label[own] / covariance[own, own], 0.0, 1.0) if covariance[own, own] > 0 else 0.0
    with_label[own] += ridge * alone
    return np.linalg.solve(covariance + ridge * np.eye(len(with_label)), with_label)


def _centred(score: np.ndarray, mean: float) -> np.ndarray:
    """Scores minus their mean, zero where there is none."""
    return np.where(np.isnan(score), 0.0, score - mean)
