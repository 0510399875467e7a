"""Two-stage calibration: labels on score and covariates together, monotone in an index of them.

    g(S, X) = sum_c sum_b a_cb B_b(column c)        a by ridge, its penalty by leave-one-out
    u       = (#{g_j < g} + #{g_j = g} / 2) / l     mid-rank of g among the l labelled rows
    f       = isotonic fit of Y on u

B are the cubic B-splines of evenly spaced knots over the range of a column in the labelled rows; values outside are held
at its ends. Between the labelled rows' indices u is linear. The last step makes sum w f = sum w Y over the labelled rows,
whatever the index, and holds f within the range of their labels. A weight is the number of labels for which a row counts: a
weight of two is the row given twice, and weights of one label at several scores sum to one.

scikit-learn's RidgeCV fits a. The B-splines, those of its SplineTransformer, are taken from scipy, in the fit and for g:
through the transformer a fit to some hundred labels takes a third longer, and a bootstrap makes thousands. RidgeCV.predict
is a matrix product, which rounds differently for batches of different sizes, where a row must have one rank in all of them.

f need not rise with the score: `falls` measures by how much it does not. `choose` takes the map that sees the score
alone unless this one is better, held out, by more than a standard error.

Eilers & Marx (1996), "Flexible smoothing with B-splines and penalties", Statistical Science, for the basis; Rifkin &
Lippert (2007), "Notes on regularized least squares", MIT, for the leave-one-out of RidgeCV; the chain is that of the
public package cje-eval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.errors import UserError
from arena_cje.estimation.isotonic import Monotone, isotonic

if TYPE_CHECKING:
    from scipy.interpolate import BSpline

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
                f"the calibrator was fitted with {len(self.low) - 1} covariates, got {len(columns) - 1}; use the same covariates"
            )
        parts = zip(columns, self.low, self.high, self.coefficient, strict=True)
        # Added one by one, in this order: a matrix product rounds differently for batches of different sizes.
        total = sum(_splines(coefficient)(_place(x, low, high)) for x, low, high, coefficient in parts)
        return np.round(total, DECIMALS)


@dataclass(frozen=True)
class TwoStage:
    """The chain of index, rank and monotone map."""

    index: Index
    midrank: Monotone  # from index to rank in (0, 1)
    reward: Monotone  # from rank to reward
    fallback: bool = False  # too few labels: the index is the score, covariates only show where a value is missing

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
        knots = min(MAX_KNOTS, labels // LABELS_PER_KNOT)
        coefficient = _ridge(_place(columns, low, high), label, weight, knots)
    index = Index(low, high, coefficient)
    ordered = index(columns[:, 0], columns[:, 1:])
    midrank = _midranks(ordered, weight)
    return TwoStage(index, midrank, isotonic(midrank(ordered), label, weight), fallback)


def choose(
    score: np.ndarray,
    covariates: np.ndarray,
    label: np.ndarray,
    fold: np.ndarray,
    weight: np.ndarray | None = None,
) -> tuple[str, dict[str, float]]:
    """`two_stage` where its held-out error over the folds (l,) is lower by more than a standard error, or `monotone`.

    The standard error is that of the monotone map's root mean squared error, by the delta method.
    """
    residual = np.empty((2, len(label)))  # monotone, two-stage
    for k in np.unique(fold):
        test = fold == k
        train = test if test.all() else ~test
        train_weight = None if weight is None else weight[train]
        monotone = isotonic(score[train], label[train], train_weight)
        two_stage = fit(score[train], covariates[train], label[train], train_weight)
        residual[0, test] = label[test] - monotone(score[test])
        residual[1, test] = label[test] - two_stage(score[test], covariates[test])
    squared = residual**2 if weight is None else residual**2 * weight / weight.mean()
    rmse = np.sqrt(squared.mean(axis=1))
    se = float(squared[0].std(ddof=1) / np.sqrt(len(label)) / (2 * rmse[0])) if rmse[0] > 0 else 0.0
    choice = "two_stage" if rmse[1] < rmse[0] - se else "monotone"
    return choice, {"rmse_monotone": float(rmse[0]), "rmse_two_stage": float(rmse[1]), "se": se}


def falls(calibrator: TwoStage, score: np.ndarray, covariates: np.ndarray) -> float:
    """Largest drop of the reward from one of the scores (l,) to a higher one, at the medians of covariates (l, c)."""
    complete = ~(np.isnan(score) | np.isnan(covariates).any(axis=-1))
    if not complete.any():
        return 0.0
    rising = np.unique(score[complete])
    middle = np.median(covariates[complete], axis=0)  # (c,)
    reward = calibrator(rising, np.broadcast_to(middle, (len(rising), len(middle))))
    return float(np.round(np.max(np.maximum.accumulate(reward) - reward), DECIMALS))


def _place(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Values as shares of the way from low to high, held at these ends; 0 in a column that is constant."""
    return (np.clip(values, low, high) - low) / np.where(high > low, high - low, 1.0)


def _splines(coefficient: np.ndarray) -> BSpline:
    """Sum of the k + 2 cubic B-splines of k evenly spaced knots from 0 to 1, with coefficients (k + 2, ...)."""
    from scipy.interpolate import BSpline  # slow to import, and a monotone map does without it

    cells = len(coefficient) - 3
    return BSpline(np.arange(-3, cells + 4) / cells, coefficient, 3)


def _ridge(place: np.ndarray, label: np.ndarray, weight: np.ndarray, knots: int) -> np.ndarray:
    """Coefficients (c, k + 2) of the B-splines at places (l, c), with the best penalty by leave-one-out."""
    from sklearn.linear_model import RidgeCV  # takes a second to import, which a monotone map need not wait for

    # RidgeCV leaves out whole rows, so each is cut into whole labels and what is left of its weight.
    whole, rest = np.divmod(weight, 1)
    rows = np.concatenate([np.repeat(np.arange(len(weight)), whole.astype(int)), np.flatnonzero(rest)])
    mass = np.concatenate([np.ones(int(whole.sum())), rest[rest > 0]])
    basis = _splines(np.eye(knots + 2))(place[rows]).reshape(len(rows), -1)  # (rows, c (k + 2))
    ridge = RidgeCV(PENALTIES, gcv_mode="svd")  # half the time of the default where labels are many
    ridge.fit(basis, label[rows], mass)
    return ridge.coef_.reshape(-1, knots + 2)


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
                f"two-stage calibration needs finite {name} on all {len(label)} labelled rows, but {missing} are missing or "
                "infinite; add them, or leave these rows out"
            )
