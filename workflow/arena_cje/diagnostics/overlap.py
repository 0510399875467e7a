"""Overlap of base and target policy, from importance weights.

    ESS / n = (sum w)^2 / (n sum w^2),   alpha = k / sum_{j <= k} log(w_(j) / w_(k+1)),   affinity = E[sqrt(W)]

The raw weights show how much the two policies overlap. Stabilised weights have the effective sample size their
variance cap gives them, so both are described and the verdict uses the raw ones.

Target typicality coverage (TTC) is the share of base responses that are typical of the target, by surprisal per token:

    T = {i: -log pi'(A_i|X_i) / tokens_i <= q},   q the 0.9 quantile under W,   TTC = share of the logged rows in T
    se >= sd_T alpha / sqrt(TTC n) sqrt(1 + chi2),   alpha = share of W in T,   chi2 = variance of mean-one W within T

The second line bounds every estimator by weights from below; `bound` is its factor alpha / sqrt(TTC) sqrt(1 + chi2).

Kish (1965), "Survey Sampling"; Hill (1975), "A simple general approach to inference about the tail of a distribution",
Annals of Statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.inference import clustered_variance

if TYPE_CHECKING:
    from arena_cje.estimation.records import Weights

SAME = 1e-9  # a mean weight this near to 1 counts as 1, since log probabilities are sums of rounded numbers
TYPICAL = 0.9  # share of the target's responses, lowest surprisal per token first, that counts as typical
NEAR_ZERO = 1e-10  # a mean-one weight below this carries no information about the target


@dataclass(frozen=True)
class WeightDiagnostics:
    """Statistics of the mean-one weights of one policy."""

    n: int  # rows that have a weight
    ess_share: float
    tail_index: float  # below 2 the weights' variance is infinite, below 1 their mean; NaN when it cannot be computed
    max_weight: float
    top5_mass: float  # share of the total in the largest 5 % of weights
    cv: float
    near_zero_share: float
    hellinger_affinity: float  # 1 for equal policies
    n_zero: int
    n_above_100: int
    n_below_0_01: int
    n_above_1000: int
    n_below_0_001: int


@dataclass(frozen=True)
class Overlap:
    """Weights before and after stabilisation, and the mean of the raw ones before normalisation."""

    raw: WeightDiagnostics
    stabilised: WeightDiagnostics
    mean_weight: float  # mean of exp(log ratio): 1 in expectation when the base policy covers the support of the target
    mean_weight_se: float
    mean_weight_z: float  # distance of that mean from 1 in standard errors, by prompt
    ttc: float = float("nan")  # NaN where surprisals per token are unknown
    bound: float = float("nan")


def diagnose(
    weights: Weights, log_ratio: np.ndarray, cluster: np.ndarray, token_logprob: np.ndarray | None = None
) -> Overlap:
    """Overlap of one policy from its weights, log ratios, prompt codes and log probabilities per token, all (n,).

    NaN marks rows that were left out.
    """
    scored = ~np.isnan(log_ratio)
    mean, se, z = mean_raw_weight(log_ratio[scored], cluster[scored])
    typical = (float("nan"),) * 2 if token_logprob is None else typicality(-token_logprob, weights.raw)
    return Overlap(describe(weights.raw), describe(weights.stabilised), mean, se, z, *typical)


def describe(weight: np.ndarray) -> WeightDiagnostics:
    """Statistics of mean-one weights (n,); NaN marks rows without one."""
    weight = weight[~np.isnan(weight)]
    if not weight.any():  # without rows, or with zeros alone, whose shares are 0/0
        nan, zero = float("nan"), len(weight)
        return WeightDiagnostics(zero, nan, nan, nan, nan, nan, nan, nan, zero, 0, zero, 0, zero)
    return WeightDiagnostics(
        n=len(weight),
        ess_share=ess_share(weight),
        tail_index=tail_index(weight),
        max_weight=float(weight.max()),
        top5_mass=_top_mass(weight, 0.05),
        cv=float(weight.std() / weight.mean()),
        near_zero_share=float(np.mean(weight < NEAR_ZERO)),
        hellinger_affinity=min(1.0, float(np.mean(np.sqrt(weight)))),
        n_zero=int(np.sum(weight == 0)),
        n_above_100=int(np.sum(weight > 100)),
        n_below_0_01=int(np.sum(weight < 0.01)),
        n_above_1000=int(np.sum(weight > 1000)),
        n_below_0_001=int(np.sum(weight < 0.001)),
    )


def typicality(surprisal: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """TTC and the factor of the bound from surprisals per token and mean-one weights, both (n,), NaN where unknown."""
    present = ~np.isnan(surprisal) & ~np.isnan(weight)
    surprisal, weight = surprisal[present], weight[present]
    if not weight.sum() > 0:
        return float("nan"), float("nan")
    order = np.argsort(surprisal, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    edge = surprisal[order][np.searchsorted(share, TYPICAL - SAME)]
    inside = surprisal <= edge
    ttc, alpha, within = float(inside.mean()), float(weight[inside].sum() / weight.sum()), weight[inside]
    chi2 = within.var() / within.mean() ** 2
    return ttc, float(alpha / np.sqrt(ttc) * np.sqrt(1 + chi2))


def ess_share(weight: np.ndarray) -> float:
    """Effective sample size over n (n,): 1 for equal weights, 1/n when one row has them all."""
    share = weight.sum() ** 2 / (len(weight) * np.sum(weight**2))
    return min(1.0, float(share))  # rounding may put equal weights a hair above


def tail_index(weight: np.ndarray) -> float:
    """Hill's estimate from the k largest weights; infinite when they are equal, NaN when too few are above zero."""
    k = int(min(max(10, 0.05 * len(weight)), 0.1 * len(weight)))
    if k < 1:
        return float("nan")
    largest = np.sort(weight)[::-1][: k + 1]
    if largest[-1] <= 0:
        return float("nan")
    excess = np.sum(np.log(largest[:-1] / largest[-1]))
    return float(k / excess) if excess > 0 else float("inf")


def mean_raw_weight(log_ratio: np.ndarray, cluster: np.ndarray) -> tuple[float, float, float]:
    """Mean of exp(log ratio) over rows (n,), its standard error by prompt, and its distance from 1 in standard errors."""
    if not len(cluster) or cluster.min() == cluster.max():
        return float("nan"), float("nan"), float("nan")
    # Work on weights divided by exp(shift): their squares overflow from 355 nats on.
    shift = max(float(log_ratio.max()), 0.0)
    scaled = np.exp(log_ratio - shift)
    mean, unit_weight = scaled.mean(), np.exp(-shift)
    se = np.sqrt(clustered_variance(scaled - mean, cluster, len(scaled)))
    gap = mean - unit_weight
    z = 0.0 if abs(gap) <= SAME * unit_weight else float(gap / se) if se > 0 else float(np.sign(gap) * np.inf)
    scale = np.exp(min(shift, 709.0))
    return float(mean * scale), float(se * scale), z


def _top_mass(weight: np.ndarray, share: float) -> float:
    """Share of the total weight (n,) in the largest `share` of the rows."""
    count = int(np.ceil(share * len(weight)))
    return float(np.sort(weight)[::-1][:count].sum() / weight.sum())
