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

from dataclasses import dataclass
from functools import cached_property

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
    cells = Cells.of(weight, index, reward, fold)
    fitted, centre = candidates(cells)
    share = mixture(cells, fitted, centre)  # (2,)
    mixed = np.tensordot(share, fitted, 1).ravel()[cells.cell]  # (n,)
    kept = ~cells.fitted[fold]
    mixed[kept] = np.maximum(weight[kept], FLOOR)
    mixed /= mixed.mean()
    return np.stack([capped_variance(mixed, cap), mixed])


@dataclass(frozen=True, eq=False)
class Cells:
    """Rows summed by level of the index and by fold: nothing else tells their fitted weights apart."""

    level: np.ndarray  # (b,) distinct values of the index, rising
    cell: np.ndarray  # (n,) int, level times number of folds plus fold
    count: np.ndarray  # (b, folds) rows
    weight: np.ndarray  # (b, folds) sum of the raw weights
    reward: np.ndarray  # (b, folds) sum of the rewards less their raw-weighted mean
    square: np.ndarray  # (b, folds) sum of the squares of the same

    @classmethod
    def of(cls, weight: np.ndarray, index: np.ndarray, reward: np.ndarray, fold: np.ndarray) -> Cells:
        level, code = _levels(index)
        folds = int(fold.max()) + 1
        cell, size = code * folds + fold, len(level) * folds
        total = weight.sum()
        # Sums, not dot products, of long arrays: BLAS would wake all its threads for them.
        centred = reward - ((weight * reward).sum() / total if total > 0 else reward.mean())
        sums = (
            np.bincount(cell, weights=values, minlength=size).reshape(-1, folds)
            for values in (None, weight, centred, centred**2)
        )
        return cls(level, cell, *sums)

    @cached_property
    def fitted(self) -> np.ndarray:
        """Folds (folds,) bool whose weights are fitted; too small ones, or with too little beside them, keep theirs."""
        own = self.count.sum(axis=0)
        return (own >= MIN_HELD_OUT) & (own.sum() - own >= MIN_TRAIN)


def candidates(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Rising and falling fits of the weights in every cell that did not see the cell's fold, mean one in every fold and
    1 where there is no row, (2, b, folds); and the weighted mean reward of the rows that they did see, (2, folds)."""
    fitted, centre = np.ones((2, *cells.count.shape)), np.zeros((2, cells.count.shape[1]))
    beside = [part.sum(axis=1) for part in (cells.count, cells.weight, cells.reward)]
    for k in np.flatnonzero(cells.fitted):
        rows, total, earned = (
            part - own[:, k] for part, own in zip(beside, (cells.count, cells.weight, cells.reward), strict=True)
        )  # (b,) each, of the other folds
        seen, own = np.flatnonzero(rows), np.flatnonzero(cells.count[:, k])
        rows, mean, at = rows[seen], total[seen] / rows[seen], cells.level[seen]
        for c, increasing in enumerate((True, False)):
            fit = np.maximum(pooled(mean, rows, increasing=increasing), FLOOR)
            predicted, held = np.interp(cells.level[own], at, fit), cells.count[own, k]
            fitted[c, own, k] = predicted * (held.sum() / (held @ predicted))
            centre[c, k] = fit @ earned[seen] / (fit @ rows)
    return fitted, centre


def mixture(cells: Cells, fitted: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Shares (2,) of the rising and the falling fit: least squared error of the held-out weighted mean.

    The variance is that of the influence columns, the bias is measured against the raw-weighted mean. Variance alone
    would choose the flatter fit whenever the policies differ, that is the base policy's value. Neither part moves
    when a constant is added to the rewards.
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
    """Distinct values (b,) in rising order, and which of them each row has (n,); equal index, equal level."""
    if len(index) <= MANY_ROWS:
        level, code = np.unique(index, return_inverse=True)
        return level, code.reshape(-1)
    step = np.rint(index * RESOLUTION).astype(int)
    step -= step.min()
    present = np.bincount(step) > 0
    code = (np.cumsum(present) - 1)[step]
    return np.bincount(code, weights=index) / np.bincount(code), code
