"""Importance weights: normalised, clipped, stabilised.

    W_i = exp(d_i) / mean(exp(d)),   d = log pi'(A|X) - log pi_0(A|X)

`hajek` gives W: mean one, and exactly 1 when the target is the base policy. `simcal` replaces W by monotone fits of W on
an index z (the held-out calibrated score), one increasing and one decreasing, cross-fitted over folds of prompts. It
mixes the two with the shares a_k that minimise the squared error of the weighted mean reward, and bounds the variance:

    w = 1 + s (sum_k a_k w_k(z) - 1),   s = min(1, sqrt(cap / Var)),   cap = min(var_cap, 1/ess_floor - 1)

As ESS/n = 1/(1 + Var w), the cap bounds the effective sample size from below: after `simcal` it is a choice, not evidence
of overlap. Overlap is measured by the raw weights.

Hajek (1971); van der Laan, Lin, Carone & Luedtke (2025), "Stabilized inverse probability weighting via isotonic
calibration", CLeaR; the two directions and the cap are those of the public package cje-eval, which minimises the variance
alone, with nested folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from arena_cje.estimation.isotonic import pooled

FLOOR = 1e-9  # lower bound of fitted weights: every fold must have a positive sum
MIN_TRAIN, MIN_HELD_OUT = 10, 2  # rows outside and inside a fold, below which its raw weights are used
MANY_ROWS, RESOLUTION = 20_000, 10_000  # above so many rows the index is rounded to steps of 1/10 000


def hajek(log_ratio: np.ndarray) -> np.ndarray:
    """Mean-one weights (n,) of log ratios (n,) in nats; -inf has weight 0; all NaN when every row is -inf."""
    largest = log_ratio.max()
    if largest == -np.inf:
        return np.full(len(log_ratio), np.nan)
    # Subtract the maximum first: log ratios of long replies reach hundreds of nats and exp() would overflow.
    weight = np.exp(log_ratio - largest)
    return weight / weight.mean()


def clipped(weight: np.ndarray, clip: float) -> np.ndarray:
    """Mean-one weights (n,) clipped at `clip`, then rescaled to mean one: the largest may exceed `clip`."""
    bounded = np.minimum(weight, clip)
    return bounded / bounded.mean()


def smallest_on_simplex(quadratic: np.ndarray) -> np.ndarray:
    """Shares a (c,), non-negative and summing to one, that minimise a' Q a for Q (c, c) positive semi-definite."""
    count = len(quadratic)
    # The ridge is relative to the trace, so that the shares do not depend on the unit of the reward.
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
    """Mean-one weights (n,), shrunk towards one where their variance exceeds `cap`, so that it equals `cap`."""
    variance = weight.var()
    return weight if variance <= cap else 1 + np.sqrt(cap / variance) * (weight - 1)


def simcal(weight: np.ndarray, index: np.ndarray, reward: np.ndarray, fold: np.ndarray, *, cap: float) -> np.ndarray:
    """Stabilised mean-one weights (2, n): with variance at most `cap`, and without that bound.

    weight, index, reward, fold: raw weights, index, rewards and folds of the rows, (n,) each. Each of the two fits is
    monotone in `index` within a fold.
    """
    cells = Cells.of(weight, index, reward, fold)
    fitted, centre = candidates(cells)
    share = mixture(cells, fitted, centre)  # (2,)
    mixed = np.tensordot(share, fitted, 1).ravel()[cells.cell]  # (n,)
    unfitted = ~cells.fitted[fold]
    mixed[unfitted] = np.maximum(weight[unfitted], FLOOR)
    mixed /= mixed.mean()
    return np.stack([capped_variance(mixed, cap), mixed])


@dataclass(frozen=True, eq=False)
class Cells:
    """Sums over the rows of each pair of index level and fold; rows of one cell have the same fitted weight."""

    level: np.ndarray  # (b,) distinct values of the index, increasing
    cell: np.ndarray  # (n,) int, level times number of folds plus fold
    count: np.ndarray  # (b, folds) number of rows
    weight: np.ndarray  # (b, folds) sum of raw weights
    reward: np.ndarray  # (b, folds) sum of centred rewards: rewards minus their raw-weighted mean
    square: np.ndarray  # (b, folds) sum of squares of centred rewards

    @classmethod
    def of(cls, weight: np.ndarray, index: np.ndarray, reward: np.ndarray, fold: np.ndarray) -> Cells:
        """From the raw weights, index, rewards and folds of the rows, (n,) each."""
        level, code = _levels(index)
        folds = int(fold.max()) + 1
        cell, size = code * folds + fold, len(level) * folds
        total = weight.sum()
        # Sums instead of dot products: for long arrays BLAS would start all its threads.
        centred = reward - ((weight * reward).sum() / total if total > 0 else reward.mean())
        sums = (
            np.bincount(cell, weights=values, minlength=size).reshape(-1, folds)
            for values in (None, weight, centred, centred**2)
        )
        return cls(level, cell, *sums)

    @cached_property
    def fitted(self) -> np.ndarray:
        """Folds (folds,) bool with enough rows, inside and outside, for fitted weights; the others have raw weights."""
        rows = self.count.sum(axis=0)
        return (rows >= MIN_HELD_OUT) & (rows.sum() - rows >= MIN_TRAIN)


def candidates(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """The increasing and the decreasing fit of the weights, cross-fitted, and the mean reward under each.

    Returns the weights of the cells (2, b, folds), fitted without the cell's fold, mean one in every fold and 1 in cells
    without a row; and the weighted mean of the centred rewards over the rows of the fit, (2, folds).
    """
    fitted, centre = np.ones((2, *cells.count.shape)), np.zeros((2, cells.count.shape[1]))
    parts = (cells.count, cells.weight, cells.reward)
    totals = [part.sum(axis=1) for part in parts]  # (b,) each, over all folds
    for k in np.flatnonzero(cells.fitted):
        rows, weight, reward = (total - part[:, k] for total, part in zip(totals, parts, strict=True))  # other folds
        # Levels with a row outside the fold, and inside it.
        train, test = np.flatnonzero(rows), np.flatnonzero(cells.count[:, k])
        rows, mean, at = rows[train], weight[train] / rows[train], cells.level[train]
        test_rows = cells.count[test, k]
        for c, increasing in enumerate((True, False)):
            fit = np.maximum(pooled(mean, rows, increasing=increasing), FLOOR)
            predicted = np.interp(cells.level[test], at, fit)
            fitted[c, test, k] = predicted * (test_rows.sum() / (test_rows @ predicted))
            centre[c, k] = fit @ reward[train] / (fit @ rows)
    return fitted, centre


def mixture(cells: Cells, fitted: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Shares (2,) of the increasing and the decreasing fit that minimise the squared error of the weighted mean reward.

    The variance is that of the influence columns, the bias is the difference to the raw-weighted mean. The variance alone
    would choose the flatter fit, and with it the base policy's value, whenever the policies differ. A constant added to
    the rewards changes neither.
    """
    if not cells.weight.any() or not cells.fitted.any():
        return np.array([0.5, 0.5])
    rows = cells.count[:, cells.fitted].sum()
    fitted, centre = fitted[..., cells.fitted], centre[:, cells.fitted]
    count, reward, square = (part[:, cells.fitted] for part in (cells.count, cells.reward, cells.square))
    bias = np.sum(fitted * reward, axis=(1, 2)) / rows  # (2,)
    # Influence columns w (r - centre), (2, rows), summed by cell.
    total = np.sum(fitted * (reward - centre[:, None] * count), axis=(1, 2))  # (2,)
    product = [
        [
            np.sum(fitted[c] * fitted[d] * (square - (centre[c] + centre[d]) * reward + centre[c] * centre[d] * count))
            for d in (0, 1)
        ]
        for c in (0, 1)
    ]
    variance = (np.array(product) - np.outer(total, total) / rows) / (rows - 1)
    return smallest_on_simplex(variance / rows + np.outer(bias, bias))


def _levels(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values of the index (b,), increasing, and the position of each row's value among them (n,)."""
    if len(index) <= MANY_ROWS:
        level, code = np.unique(index, return_inverse=True)
        return level, code.reshape(-1)
    step = np.rint(index * RESOLUTION).astype(int)
    step -= step.min()
    present = np.bincount(step) > 0
    code = (np.cumsum(present) - 1)[step]
    return np.bincount(code, weights=index) / np.bincount(code), code
