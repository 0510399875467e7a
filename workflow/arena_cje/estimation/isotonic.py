"""Monotone least squares.

    f = argmin sum_j w_j (y_j - f(x_j))^2   over non-decreasing (or non-increasing) f

Equal x are pooled, then adjacent violators. f is linear between the fitted points and constant beyond them. The value of
every block is its weighted mean, so sum w f(x) = sum w y.

Where x_j is not known but its distribution p_j over points is, `mixture` fits what is expected of the label,

    f = argmin sum_j w_j (y_j - sum_s p_j(s) f(s))^2   over non-decreasing f, linear between KNOTS points or fewer

for which a fit of y_j at every point by its mass would be no least squares: it smooths f by p once more.

Barlow et al. (1972), "Statistical Inference under Order Restrictions"; Lawson & Hanson (1974), "Solving Least Squares
Problems", for the fit of non-negative steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arena_cje.estimation.short_repr import short_repr

KNOTS = 32  # of a mixture's fit: the deconvolution has no finer detail, and a fit takes milliseconds


@dataclass(frozen=True)
class Monotone:
    """A piecewise linear monotone map, constant beyond its knots."""

    knots: np.ndarray  # (b,) increasing
    values: np.ndarray  # (b,) monotone

    __repr__ = short_repr

    def __call__(self, at: np.ndarray, covariates: np.ndarray | None = None) -> np.ndarray:
        """Values at points of any shape; NaN stays NaN. Covariates are ignored: the two-stage calibrator takes them."""
        return np.interp(at, self.knots, self.values)


def isotonic(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None, *, increasing: bool = True) -> Monotone:
    """Weighted fit of y (j,) on x (j,); points of weight zero are left out, equal x are one point."""
    if weight is not None and not weight.all():
        x, y, weight = x[weight > 0], y[weight > 0], weight[weight > 0]
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    starts = np.flatnonzero(np.concatenate(([True], x[1:] > x[:-1])))  # (b,) first position of each distinct x
    if weight is None:
        total = np.diff(np.append(starts, len(x))).astype(float)
        mean = np.add.reduceat(y, starts) / total
    else:
        total = np.add.reduceat(weight[order], starts)
        mean = np.add.reduceat(weight[order] * y, starts) / total
    return Monotone(x[starts], pooled(mean, total, increasing=increasing))


def pooled(mean: np.ndarray, weight: np.ndarray, *, increasing: bool = True) -> np.ndarray:
    """Monotone fit (b,) of the means (b,) with weights (b,) at points in increasing order."""
    from scipy.optimize import isotonic_regression  # slow to import, and only fits need it

    return isotonic_regression(mean, weights=weight, increasing=increasing).x


def mixture(points: np.ndarray, mass: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Monotone:
    """Increasing fit of y (j,) in [0, 1] on distributions: masses (j, r), of sum one, at points (j, r).

    The mean of y - sum_s p(s) f(s) is zero, unless f has to be held within [0, 1].
    """
    if (mass.max(axis=1) == 1).all():  # every x is known
        return isotonic(np.take_along_axis(points, mass.argmax(axis=1)[:, None], axis=1)[:, 0], y, weight)
    weight = np.ones(len(y)) if weight is None else weight
    knots = _knots(points, mass * weight[:, None])
    # Row j, column k of `reached`: the mass of j's distribution that lies above knot k, shared out linearly between knots.
    place = np.interp(points, knots, np.arange(len(knots)))
    reached = np.stack([(mass * np.clip(place - k, 0, 1)).sum(axis=1) for k in range(len(knots) - 1)], axis=1)
    total = weight.sum()
    middle, mean = weight @ reached / total, float(weight @ y / total)
    step = _non_negative((reached - middle) * np.sqrt(weight)[:, None], (y - mean) * np.sqrt(weight))
    values = mean - middle @ step + np.concatenate(([0.0], np.cumsum(step)))
    return Monotone(knots, np.clip(values, 0, 1))


def _knots(points: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """The distinct points with mass, or where they are many, KNOTS of them that share the mass evenly."""
    distinct, place = np.unique(points[mass > 0], return_inverse=True)
    if len(distinct) <= KNOTS:
        return distinct
    below = np.cumsum(np.bincount(place, weights=mass[mass > 0]))
    at = np.searchsorted(below, np.linspace(0, below[-1], KNOTS)[1:-1])
    return distinct[np.unique(np.concatenate(([0], at, [len(distinct) - 1])))]


def _non_negative(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Coefficients (k,) >= 0 that bring design (j, k) times them nearest to the target (j,)."""
    from scipy.optimize import nnls  # slow to import

    if not design.shape[1]:
        return np.empty(0)
    rotation, small = np.linalg.qr(design)
    return nnls(small, rotation.T @ target)[0]
