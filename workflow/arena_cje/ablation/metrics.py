"""What an ablation measures, as functions of arrays: c cells, p policies, NaN where there is no number.

    error            e = estimate - truth
    rmse             sqrt(mean e^2)
    debiased rmse    sqrt(max(0, mean e^2 - mean se(truth)^2)): the truth's own sampling error is taken off
    covered          low - d <= truth <= high + d', where the truth's error widens each side: half + d = hypot(half, z se(truth))
    interval score   width + 2/alpha times the distance of the truth to the interval (Gneiting & Raftery 2007)
    pairwise         share of the pairs whose order is right; a tie counts half. Only pairs with clearly different truths count
    Kendall's tau    (right - wrong) / pairs = 2 pairwise - 1
    top-1            is the policy with the highest number one of the best?
    regret           the best truth minus that of this policy

Gneiting & Raftery (2007), "Strictly proper scoring rules, prediction, and estimation", JASA.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

ROUNDING = 1e-9


def rmse(error: np.ndarray, truth_se: np.ndarray | float = 0.0) -> float:
    """Root mean square of errors (...), without the part that is the truth's; NaN without any number."""
    finite = ~np.isnan(error)
    if not finite.any():
        return float("nan")
    of_truth = np.broadcast_to(truth_se, error.shape)[finite]
    return float(np.sqrt(max(0.0, np.mean(error[finite] ** 2) - np.mean(of_truth**2))))


def missed_by(
    estimate: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    truth: np.ndarray,
    truth_se: np.ndarray | float = 0.0,
    alpha: float = 0.05,
) -> np.ndarray:
    """Distance (...) of the truth to the interval, 0 inside; the truth's own error widens both sides."""
    own = -ndtri(alpha / 2) * np.asarray(truth_se)
    low, high = estimate - np.hypot(estimate - low, own), estimate + np.hypot(high - estimate, own)
    distance = np.maximum(low - truth, truth - high)
    return np.where(distance > ROUNDING, distance, np.where(np.isnan(distance), np.nan, 0.0))


def interval_score(width: np.ndarray, distance: np.ndarray, alpha: float = 0.05) -> np.ndarray:
    """Interval scores (...); smaller is better, and the true quantiles have the smallest mean."""
    return width + 2 / alpha * distance


def geometric_mean(values: np.ndarray) -> float:
    """Geometric mean of positive values (...), NaN left out."""
    finite = values[~np.isnan(values)]
    return float(np.exp(np.mean(np.log(np.maximum(finite, ROUNDING))))) if len(finite) else float("nan")


def pairs(truth: np.ndarray, truth_se: np.ndarray, alpha: float = 0.05) -> np.ndarray:
    """Pairs (k, 2) of policies, the better one first, whose truths (p,) differ by more than their errors (p,)."""
    apart = _apart(truth, truth_se, alpha)
    return np.argwhere(apart & (truth[:, None] > truth[None, :]))


def _apart(truth: np.ndarray, truth_se: np.ndarray, alpha: float) -> np.ndarray:
    """Whether two truths differ by more than their errors, (p, p)."""
    error = -ndtri(alpha / 2) * np.hypot(truth_se[:, None], truth_se[None, :])
    return np.abs(truth[:, None] - truth[None, :]) > error + ROUNDING


def in_order(estimate: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Whether estimates (c, p) have each pair in its order, (c, k): 1, 0, .5 for a tie, NaN where one is missing."""
    difference = estimate[:, pairs[:, 0]] - estimate[:, pairs[:, 1]]
    return np.where(np.isnan(difference), np.nan, 0.5 + 0.5 * np.sign(difference))


def chosen(estimate: np.ndarray) -> np.ndarray:
    """The policy with the highest estimate of each cell (c, p), (c,) int; -1 where there is no estimate."""
    none = np.isnan(estimate).all(axis=1)
    return np.where(none, -1, np.argmax(np.where(np.isnan(estimate), -np.inf, estimate), axis=1))


def top_1(estimate: np.ndarray, truth: np.ndarray, truth_se: np.ndarray, alpha: float = 0.05) -> np.ndarray:
    """Whether the choice of each cell (c, p) is one of the best, (c,): 1 or 0, NaN where there is none.

    The best are those whose truth (p,) is not known to be lower than the highest.
    """
    best = int(np.nanargmax(truth))
    is_best = ~_apart(truth, truth_se, alpha)[best] & ~np.isnan(truth)
    choice = chosen(estimate)
    return np.where(choice < 0, np.nan, is_best[choice].astype(float))


def regret(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """By how much the truth of the choice of each cell (c, p) is below the best, (c,), NaN where there is no choice."""
    choice = chosen(estimate)
    return np.where(choice < 0, np.nan, np.nanmax(truth) - truth[choice])


def mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN, NaN where all are."""
    finite = values[~np.isnan(values)]
    return float(finite.mean()) if len(finite) else float("nan")
