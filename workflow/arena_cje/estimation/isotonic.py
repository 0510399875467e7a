"""Monotone least squares.

    f = argmin sum_j w_j (y_j - f(x_j))^2   over non-decreasing (or non-increasing) f

Solved by pooling adjacent violators after equal x are pooled, then read off by linear interpolation between the fitted
points and held constant beyond them. Every block predicts its weighted mean, so sum w f(x) = sum w y.

Barlow et al. (1972), "Statistical Inference under Order Restrictions".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression


@dataclass(frozen=True)
class Monotone:
    """A piecewise linear monotone map, constant beyond its knots; the same for a row alone or in a batch."""

    knots: np.ndarray  # (b,) increasing
    values: np.ndarray  # (b,) monotone

    def __call__(self, at: np.ndarray, covariates: np.ndarray | None = None) -> np.ndarray:
        """Values at points of any shape; NaN stays NaN. Covariates are accepted, and make no difference."""
        return np.interp(at, self.knots, self.values)


def isotonic(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None, *, increasing: bool = True) -> Monotone:
    """Weighted fit of y (j,) on x (j,); points of weight zero do not count, equal x count as one point."""
    if weight is not None and not weight.all():
        x, y, weight = x[weight > 0], y[weight > 0], weight[weight > 0]
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    starts = np.flatnonzero(np.concatenate(([True], x[1:] > x[:-1])))  # (b,) where each distinct x begins
    if weight is None:
        total = np.diff(np.append(starts, len(x))).astype(float)
        mean = np.add.reduceat(y, starts) / total
    else:
        total = np.add.reduceat(weight[order], starts)
        mean = np.add.reduceat(weight[order] * y, starts) / total
    return Monotone(x[starts], pooled(mean, total, increasing=increasing))


def pooled(mean: np.ndarray, weight: np.ndarray, *, increasing: bool = True) -> np.ndarray:
    """Monotone fit (b,) of means (b,) at rising points, each with its weight."""
    return isotonic_regression(mean, weights=weight, increasing=increasing).x
