"""Two-stage calibration: labels on score and covariates together, monotone in an index of them.

    g(S, X) = sum_c sum_b a_cb B_b(column c)        a by ridge, its penalty by leave-one-out
    u       = (#{g_j < g} + #{g_j = g} / 2) / l     mid-rank of g among the l labelled rows
    f       = isotonic fit of Y on u

B are the cubic B-splines of evenly spaced knots over the range of a column in the labelled rows; values outside are held
at its ends. Between the labelled rows' indices u is linear. The last step makes sum w f = sum w Y over the labelled rows,
whatever the index, and holds f within the range of their labels. A weight says for how many labels a row counts: a
weight of two is the row given twice, and weights of one label at several scores sum to one.

f need not rise with the score: `falls` measures by how much it does not. `choose` takes the map that sees the score
alone unless this one is better, held out, by more than a standard error.

Eilers & Marx (1996), "Flexible smoothing with B-splines and penalties", Statistical Science, for the basis; Golub, Heath
& Wahba (1979), "Generalized cross-validation as a method for choosing a good ridge parameter", Technometrics, for
leave-one-out by leverages; the chain is that of the public package cje-eval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arena_cje.errors import UserError
from arena_cje.estimation.isotonic import Monotone, isotonic

MIN_LABELS = 20  # fewer do not bear an index of their own: it is the score
MAX_KNOTS, LABELS_PER_KNOT = 8, 4
PENALTIES = np.logspace(-3, 3, 13)
# Labels lie in [0, 1] and so, about, does the index: below this it holds nothing but the order in which it was summed,
# which must not decide a rank.
DECIMALS = 12


@dataclass(frozen=True)
class Index:
    """A sum of cubic splines, one a column; the same for a row alone or in a batch."""

    low: np.ndarray  # (1 + c,) range of the score, then of the covariates
    high: np.ndarray  # (1 + c,)
    coefficient: np.ndarray  # (1 + c, k + 2) of the B-splines of k knots

    def __call__(self, score: np.ndarray, covariates: np.ndarray) -> np.ndarray:
        """Index of scores (...) with covariates (..., c); NaN where either is."""
        columns = (score, *np.moveaxis(covariates, -1, 0))
        if len(columns) != len(self.low):
            raise ValueError(
                f"the calibrator was fitted with {len(self.low) - 1} covariates, got {len(columns) - 1}; give the same"
            )
        total = 0.0
        # Added one by one, in this order: a matrix product rounds differently for batches of different sizes.
        for column, low, high, coefficient in zip(columns, self.low, self.high, self.coefficient, strict=True):
            cell, parts = _splines(column, low, high, _cells(coefficient))
            for b, part in enumerate(parts):
                total = total + part * coefficient[cell + b]
        return np.round(total, DECIMALS)


@dataclass(frozen=True)
class TwoStage:
    """The chain of index, rank and monotone map."""

    index: Index
    midrank: Monotone  # from index to rank in (0, 1)
    reward: Monotone  # from rank to reward
    fallback: bool = False  # too few labels: the index is the score, covariates only say where a value is missing

    def __call__(self, score: np.ndarray, covariates: np.ndarray) -> np.ndarray:
        """Rewards of scores (...) with covariates (..., c); NaN where either is."""
        return self.reward(self.rank(score, covariates))

    def rank(self, score: np.ndarray, covariates: np.ndarray) -> np.ndarray:
        """Mid-ranks (...) of their indices among the labelled rows: what the monotone map orders rows by."""
        return self.midrank(self.index(score, covariates))


def fit(score: np.ndarray, covariates: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None) -> TwoStage:
    """Calibrator of labels (l,) on scores (l,) and covariates (l, c), each row counting for `weight` (l,) labels."""
    columns = np.column_stack((score, covariates))  # (l, 1 + c)
    weight = np.ones(len(label)) if weight is None else weight
    # Sorted by all there is, so that sums do not depend on the order of rows; ones without weight are no rows.
    order = np.lexsort((weight, label, *columns.T[::-1]))
    order = order[weight[order] != 0]
    columns, label, weight = columns[order], label[order], weight[order]
    _check(columns, label, weight)

    low, high = columns.min(axis=0), columns.max(axis=0)
    labels = round(weight.sum())
    fallback = labels < MIN_LABELS
    if fallback:
        coefficient = _score_alone(len(low))
    else:
        cells = min(MAX_KNOTS, labels // LABELS_PER_KNOT) - 1
        bases = [_basis(x, *ends, cells) for x, *ends in zip(columns.T, low, high, strict=True)]
        coefficient = ridge(np.hstack(bases), label, weight).reshape(len(low), -1)
    index = Index(low, high, coefficient)
    ordered = index(columns[:, 0], columns[:, 1:])
    midrank = _midranks(ordered, weight)
    return TwoStage(index, midrank, isotonic(midrank(ordered), label, weight), fallback)


def choose(
    score: np.ndarray, covariates: np.ndarray, label: np.ndarray, fold: np.ndarray
) -> tuple[str, dict[str, float]]:
    """`two_stage` where its held-out error over the folds (l,) is lower by more than a standard error, or `monotone`.

    The standard error is that of the monotone map's root mean squared error, by the delta method.
    """
    residual = np.empty((2, len(label)))  # monotone, two-stage
    for k in np.unique(fold):
        held = fold == k
        seen = held if held.all() else ~held
        monotone = isotonic(score[seen], label[seen])
        two_stage = fit(score[seen], covariates[seen], label[seen])
        residual[0, held] = label[held] - monotone(score[held])
        residual[1, held] = label[held] - two_stage(score[held], covariates[held])
    squared = residual**2
    rmse = np.sqrt(squared.mean(axis=1))
    se = float(squared[0].std(ddof=1) / np.sqrt(len(label)) / (2 * rmse[0])) if rmse[0] > 0 else 0.0
    choice = "two_stage" if rmse[1] < rmse[0] - se else "monotone"
    return choice, {"rmse_monotone": float(rmse[0]), "rmse_two_stage": float(rmse[1]), "se": se}


def falls(calibrator: TwoStage, score: np.ndarray, covariates: np.ndarray) -> float:
    """Largest drop of the reward from one of the scores (l,) to a higher one, at the medians of covariates (l, c)."""
    known = ~(np.isnan(score) | np.isnan(covariates).any(axis=-1))
    if not known.any():
        return 0.0
    rising = np.unique(score[known])
    middle = np.median(covariates[known], axis=0)  # (c,)
    reward = calibrator(rising, np.broadcast_to(middle, (len(rising), len(middle))))
    return float(np.round(np.max(np.maximum.accumulate(reward) - reward), DECIMALS))


def ridge(basis: np.ndarray, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Coefficients (p,) of labels on columns (l, p) beside a free constant, with the best penalty by leave-one-out.

    With A = X'WX + penalty over centred columns X and leverage h_j = 1/sum w + x_j' A^-1 x_j, the fit without mass v of
    row j is off by e_j / (1 - v h_j): v is one label, or all of a row that counts for less.
    """
    total = weight.sum()
    x = basis - weight @ basis / total
    y = label - weight @ label / total
    spread, axes = np.linalg.eigh((x.T * weight) @ x)  # (p,), (p, p)
    turned = x @ axes  # (l, p)
    shrunk = 1 / (spread[:, None] + PENALTIES)  # (p, a)
    answer = (turned.T @ (weight * y))[:, None] * shrunk  # (p, a)
    leverage = 1 / total + turned**2 @ shrunk  # (l, a)
    left_out = (y[:, None] - turned @ answer) / (1 - np.minimum(weight, 1)[:, None] * leverage)
    return axes @ answer[:, np.argmin(weight @ left_out**2)]


def _splines(x: np.ndarray, low: float, high: float, cells: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """First of the four cubic B-splines that are not zero at x (...), of evenly spaced knots, and their values."""
    # One product more than (high - low) / cells, which can underflow; a constant column stands at its low end.
    place = (np.clip(x, low, high) - low) / (high - low or 1.0) * cells
    cell = np.minimum(np.floor(np.where(np.isnan(place), 0, place)), cells - 1).astype(int)
    t = place - cell  # (...) in [0, 1]
    s = 1 - t
    return cell, (s * s * s / 6, (3 * t * t * (t - 2) + 4) / 6, (3 * s * s * (s - 2) + 4) / 6, t * t * t / 6)


def _cells(coefficient: np.ndarray) -> int:
    """Cells between knots, of a spline with these coefficients."""
    return len(coefficient) - 3


def _basis(x: np.ndarray, low: float, high: float, cells: int) -> np.ndarray:
    """All B-splines at x (l,): (l, cells + 3)."""
    basis = np.zeros((len(x), cells + 3))
    cell, parts = _splines(x, low, high, cells)
    for b, part in enumerate(parts):
        basis[np.arange(len(x)), cell + b] = part
    return basis


def _score_alone(columns: int) -> np.ndarray:
    """Coefficients of the index that is the score itself: evenly rising ones make a straight line of B-splines."""
    coefficient = np.zeros((columns, 4))
    coefficient[0] = np.arange(-1.0, 3.0)
    return coefficient


def _midranks(index: np.ndarray, weight: np.ndarray) -> Monotone:
    """Weighted share of indices (l,) below each, counting half of those that equal it."""
    knots, which = np.unique(index, return_inverse=True)
    mass = np.bincount(which, weight)
    return Monotone(knots, (np.cumsum(mass) - mass / 2) / mass.sum())


def _check(columns: np.ndarray, label: np.ndarray, weight: np.ndarray) -> None:
    if not len(label):
        raise UserError("two-stage calibration needs labelled rows, got none; raise the oracle coverage")
    if not (np.isfinite(weight).all() and weight.min() >= 0):
        raise ValueError(f"weights of labelled rows must be finite and not negative, got one of {weight.min()}")
    names = ("judge scores", *(f"covariate {c}" for c in range(1, columns.shape[1])), "oracle labels")
    for name, values in zip(names, (*columns.T, label), strict=True):
        missing = np.count_nonzero(~np.isfinite(values))
        if missing:
            raise UserError(
                f"two-stage calibration needs finite {name} on all {len(label)} labelled rows, got {missing} that are "
                "missing or infinite; fill them in, or leave these rows out"
            )
