"""Importance weights: normalised, clipped, stabilised.

    W_i = exp(d_i) / mean(exp(d)),   d = log pi'(A|X) - log pi_0(A|X)

`hajek` has mean one by construction and is exact when the target is the base policy. `simcal` replaces W by monotone
fits of W on an ordering index z (the held-out calibrated score), one rising and one falling, each made by the other
folds of prompts, mixed for the least squared error of the weighted mean reward, with the variance of the result capped:

    w = 1 + s (sum_k a_k w_k(z) - 1),   s = min(1, sqrt(cap / Var)),   cap = min(var_cap, 1/ess_floor - 1)

As ESS/n = 1/(1 + Var w), the cap fixes the effective sample size of the result: after `simcal` it is a choice, not
evidence of overlap. Judge overlap by the raw weights.

Hajek (1971); van der Laan, Lin, Carone & Luedtke (2025), "Stabilized inverse probability weighting via isotonic
calibration", CLeaR; the two directions and the cap are those of the public package cje-eval, which mixes for variance
alone, with folds inside folds.
"""

from __future__ import annotations

import numpy as np

from arena_cje.estimation.isotonic import pooled

FLOOR = 1e-9  # keeps fitted weights positive, so that every fold can be normalised
MIN_TRAIN, MIN_HELD_OUT = 10, 2  # rows a fold needs before its raw weights are replaced
MANY_ROWS, RESOLUTION = 20_000, 10_000  # above so many rows the index counts in steps of 1/10 000


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
    """Mean-one weights drawn towards one until their variance is at most `cap`; as they are where it is."""
    variance = weight.var()
    return weight if variance <= cap else 1 + np.sqrt(cap / variance) * (weight - 1)


def simcal(weight: np.ndarray, index: np.ndarray, reward: np.ndarray, fold: np.ndarray, *, cap: float) -> np.ndarray:
    """Stabilised mean-one weights: (2, n), variance at most `cap`, and as they were without the cap.

    Monotone in `index` within every fold, whose fits are made by the other folds.
    """
    fitted, centre = candidates(weight, index, reward, fold)  # (2, n), (2, n)
    share = mixture(weight, fitted, reward, centre)  # (2,)
    mixed = share @ fitted  # (n,)
    mixed /= mixed.mean()
    return np.stack([capped_variance(mixed, cap), mixed])


def candidates(
    weight: np.ndarray, index: np.ndarray, reward: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rising and falling fits of the weights that did not see the row's fold, mean one in every fold, and the weighted
    mean reward of the rows that they did see; both (2, n)."""
    level, code = _levels(index)  # (b,), (n,)
    folds = int(fold.max()) + 1
    cell, shape = code * folds + fold, (len(level), folds)
    count, total, earned = (
        np.bincount(cell, weights=values, minlength=level.size * folds).reshape(shape)
        for values in (None, weight, reward)
    )  # (b, folds) each: rows, their weight, their reward
    fitted = np.tile(np.maximum(weight, FLOOR), (2, 1))  # (2, n)
    centre = np.broadcast_to(np.mean(weight * reward), fitted.shape).copy()
    for k in range(folds):
        held = fold == k
        own = count[:, k]
        train = count.sum(axis=1) - own  # (b,) rows
        if train.sum() < MIN_TRAIN or own.sum() < MIN_HELD_OUT:
            continue
        seen = train > 0
        rows, mean = train[seen], (total.sum(axis=1) - total[:, k])[seen] / train[seen]
        gained = (earned.sum(axis=1) - earned[:, k])[seen]
        for c, increasing in enumerate((True, False)):
            fit = np.maximum(pooled(mean, rows, increasing=increasing), FLOOR)
            predicted = np.interp(level, level[seen], fit)  # (b,)
            fitted[c, held] = predicted[code[held]] * (own.sum() / (own @ predicted))
            centre[c, held] = fit @ gained / (fit @ rows)
    return fitted / fitted.mean(axis=1, keepdims=True), centre


def mixture(weight: np.ndarray, fitted: np.ndarray, reward: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Shares (2,) of the rising and the falling fit: least squared error of the held-out weighted mean.

    The variance is that of the influence columns, the bias is measured against the raw-weighted mean. Variance alone
    would choose the flatter fit whenever the policies differ, that is the base policy's value. Neither part moves
    when a constant is added to the rewards.
    """
    if not weight.any():
        return np.array([0.5, 0.5])
    bias = np.mean(fitted * (reward - weight @ reward / weight.sum()), axis=1)  # (2,)
    influence = fitted * (reward - centre)  # (2, n)
    return smallest_on_simplex(np.cov(influence) / len(weight) + np.outer(bias, bias))


def _levels(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values (b,) in rising order, and which of them each row has (n,); equal index, equal level."""
    if len(index) <= MANY_ROWS:
        level, code = np.unique(index, return_inverse=True)
        return level, code.reshape(-1)
    step = np.rint(index * RESOLUTION).astype(int)
    step -= step.min()
    present = np.bincount(step) > 0
    code = (np.cumsum(present) - 1)[step]
    return np.bincount(code, weights=index) / np.bincount(code), code
