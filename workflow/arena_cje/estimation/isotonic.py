"""Monotone least squares.

    f = argmin sum_j w_j (y_j - f(x_j))^2   over non-decreasing (or non-increasing) f

Equal x are pooled, then adjacent violators. f is linear between the fitted points and constant beyond them. The value of
every block is its weighted mean, so sum w f(x) = sum w y.

Barlow et al. (1972), "Statistical Inference under Order Restrictions".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Monotone:
    """A piecewise linear monotone map, constant beyond its knots."""

    knots: np.ndarray  # (b,) increasing
    values: np.ndarray  # (b,) monotone

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
