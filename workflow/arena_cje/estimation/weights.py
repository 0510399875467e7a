"""Importance weights: normalised, clipped, stabilised.

    W_i = exp(d_i) / mean(exp(d)),   d = log pi'(A|X) - log pi_0(A|X)

`hajek` has mean one by construction and is exact when the target is the base policy. `simcal` replaces W by monotone
fits of W on an ordering index z (the held-out calibrated score), one rising and one falling, mixed for the least
squared error of the weighted mean reward, with the variance of the result capped:

    w = 1 + s (sum_k a_k w_k(z) - 1),   s = min(1, sqrt(cap / Var)),   cap = min(var_cap, 1/ess_floor - 1)

All of it is fitted on the complement of the row's outer fold. As ESS/n = 1/(1 + Var w), the cap fixes the effective
sample size of the result: after `simcal` it is a choice, not evidence of overlap. Judge overlap by the raw weights.

Hajek (1971); van der Laan, Lin, Carone & Luedtke (2025), "Stabilized inverse probability weighting via isotonic
calibration", CLeaR; the two directions and the cap are those of the public package cje-eval, which mixes for variance
alone.
"""

from __future__ import annotations

import numpy as np

from arena_cje.estimation.calibration import Monotone, isotonic
from arena_cje.estimation.records import Point, Rewards

FLOOR = 1e-9  # keeps fitted weights positive, so that every fold can be normalised
MIN_TRAIN, MIN_HELD_OUT = 10, 2  # rows an outer fold needs before its raw weights are replaced


def hajek(log_ratio: np.ndarray) -> np.ndarray:
    """Mean-one weights of log ratios (n,) in nats; -inf weighs 0, NaN throughout when every row is -inf."""
    largest = log_ratio.max()
    if largest == -np.inf:
        return np.full(len(log_ratio), np.nan)
    # Subtract the maximum first: log ratios of long replies reach hundreds of nats and exp() would overflow.
    weight = np.exp(log_ratio - largest)
    return weight / weight.mean()


def clipped(weight: np.ndarray, clip: float) -> np.ndarray:
    """Mean-one weights cut at `clip`, mean one again: the greatest weight may exceed `clip` after rescaling."""
    cut = np.minimum(weight, clip)
    return cut / cut.mean()


def weighted_mean(weight: np.ndarray, rewards: Rewards) -> Point:
    """Mean of the rewards under mean-one weights (u,), and its influence function on held-out rewards."""
    value = float(np.mean(weight * rewards.value))
    centre = np.mean(weight * rewards.held_out)
    return Point(value, weight * (rewards.held_out - centre), weight)


def smallest_on_simplex(quadratic: np.ndarray) -> np.ndarray:
    """Shares a (c,), non-negative and summing to one, that make a' Q a least, for Q (c, c) positive semi-definite."""
    count = len(quadratic)
    # The ridge is relative to the trace, so that the unit of the reward does not move the shares.
    ridged = quadratic + 1e-8 * np.trace(quadratic) / count * np.eye(count)
    active = np.arange(count)
    while len(active):
        try:
            direction = np.linalg.solve(ridged[np.ix_(active, active)], np.ones(len(active)))
        except np.linalg.LinAlgError:
            break
        if direction.min() >= 0:
            share = np.zeros(count)
            share[active] = direction / direction.sum()
            return share
        active = np.delete(active, direction.argmin())
    return np.full(count, 1 / count)


def capped_variance(weight: np.ndarray, cap: float) -> np.ndarray:
    """Mean-one weights drawn towards one until their variance is at most `cap`."""
    return 1 + shrinkage(weight, cap) * (weight - 1)


def shrinkage(weight: np.ndarray, cap: float) -> float:
    """Factor on weight - 1 that brings the variance of mean-one weights down to `cap`."""
    variance = weight.var()
    return min(1.0, float(np.sqrt(cap / variance))) if variance > 0 else 1.0


def simcal(
    weight: np.ndarray,
    index: np.ndarray,
    reward: np.ndarray,
    inner_fold: np.ndarray,
    outer_fold: np.ndarray,
    *,
    cap: float,
) -> np.ndarray:
    """Stabilised mean-one weights, variance at most `cap`: (2, n), as they are and as they were without the cap.

    Monotone in `index` within every outer fold, which is fitted by the others.
    """
    order = np.argsort(index, kind="stable")  # sorted once, so that every fit below sorts what is sorted
    raw, z, r, inner, outer = (array[order] for array in (weight, index, reward, inner_fold, outer_fold))
    fitted = np.tile(np.maximum(raw, FLOOR), (2, 1))  # (2, n)
    for fold in np.unique(outer):
        held = outer == fold
        train = ~held
        if train.sum() < MIN_TRAIN or held.sum() < MIN_HELD_OUT:
            continue
        projected = _project(raw[train], z[train], r[train], inner[train], cap, z[held])
        fitted[:, held] = projected / projected.mean(axis=1, keepdims=True)
    stabilised = np.empty(fitted.shape)
    stabilised[:, order] = fitted / fitted.mean(axis=1, keepdims=True)
    return np.stack([capped_variance(stabilised[0], cap), capped_variance(stabilised[1], np.inf)])


def _project(
    weight: np.ndarray, index: np.ndarray, reward: np.ndarray, fold: np.ndarray, cap: float, at: np.ndarray
) -> np.ndarray:
    """Fit candidates, mixture and cap on training rows; weights at the points `at` (h,), capped and not, (2, h)."""
    share = mixture(weight, index, reward, fold)  # (2,)
    candidates = _candidates(weight, index)
    trained = sum(a * candidate(index) for a, candidate in zip(share, candidates, strict=True))
    predicted = sum(a * candidate(at) for a, candidate in zip(share, candidates, strict=True))
    factor = np.array([[shrinkage(trained, cap)], [1.0]])
    return np.maximum(1 + factor * (predicted - 1), FLOOR)


def mixture(weight: np.ndarray, index: np.ndarray, reward: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Shares (2,) of the rising and the falling fit: least squared error of the held-out weighted mean.

    The variance is that of the influence columns, the bias is measured against the raw-weighted mean. Variance alone
    would choose the flatter fit whenever the policies differ, that is the base policy's value. Neither part moves
    when a constant is added to the rewards.
    """
    if not weight.any():
        return np.array([0.5, 0.5])
    fitted, centre = _held_out_candidates(weight, index, reward, fold)  # (n, 2), (n, 2)
    raw_value = weight @ reward / weight.sum()
    bias = np.mean(fitted * (reward - raw_value)[:, None], axis=0)  # (2,)
    influence = fitted * (reward[:, None] - centre)  # (n, 2)
    return smallest_on_simplex(np.cov(influence, rowvar=False) / len(weight) + np.outer(bias, bias))


def _held_out_candidates(
    weight: np.ndarray, index: np.ndarray, reward: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Candidate weights of rows their fit did not see, and the weighted mean reward of the rows it did, both (n, 2)."""
    fitted, centre = np.empty((len(weight), 2)), np.empty((len(weight), 2))
    for k in np.unique(fold):
        held = fold == k
        train = held if held.all() else ~held
        for c, candidate in enumerate(_candidates(weight[train], index[train])):
            trained = candidate(index[train])
            fitted[held, c] = candidate(index[held])
            centre[held, c] = trained @ reward[train] / trained.sum()
    return fitted, centre


def _candidates(weight: np.ndarray, index: np.ndarray) -> tuple[Monotone, Monotone]:
    """Non-decreasing and non-increasing fits of the weights, mean one over the rows they were fitted to."""
    return _positive(isotonic(index, weight), index), _positive(isotonic(index, weight, increasing=False), index)


def _positive(fitted: Monotone, index: np.ndarray) -> Monotone:
    floored = Monotone(fitted.knots, np.maximum(fitted.values, FLOOR))
    return Monotone(floored.knots, floored.values / floored(index).mean())
