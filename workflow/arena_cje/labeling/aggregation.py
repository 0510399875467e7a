"""One label for each item out of its votes.

    mean:     label_i = mean_j v_ij
    two-way:  v_ij = label_i + bias_j + error_ij,   sum_j m_j bias_j = 0,   m_j the votes of rater j

The two-way model takes the raters' biases out where different raters vote on different items; it is used where an F test
shows that biases are there and all raters are connected by items they share. Labels are then relative to the panel's mean vote.
Either way the raters' noise stays in the labels, and so in every interval that is made from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from arena_cje.labeling.agreement import Ratings

SIGNIFICANCE = 0.01  # of the test for biases


@dataclass(frozen=True)
class Labels:
    """Labels of items, and the model that made them."""

    value: np.ndarray  # (n,) in [0, 1], in the order of the ratings' items
    model: str
    p_value: float | None = None  # of the test that raters have no bias; None where it cannot be made
    bias: np.ndarray | None = None  # (raters,) against the panel's mean vote; None where raters share too few items
    panel_error: float | None = None
    n_clipped: int = 0  # labels that left [0, 1] when biases were taken out


@dataclass(frozen=True)
class TwoWay:
    """The two-way model by least squares.

    panel_error: standard error of the panel's level as one of many possible panels, from the spread of the biases. Another
    panel of the same kind would be off by about as much in all labels alike, which is in no interval from this panel's labels.
    """

    label: np.ndarray  # (n,)
    bias: np.ndarray  # (raters,)
    p_value: float | None
    panel_error: float | None


def aggregate(of: Ratings, method: Literal["mean", "two_way", "auto"] = "auto") -> Labels:
    """A label for each item; `auto`: two-way where biases are visible, else the mean."""
    fit = two_way(of)
    if fit is None:
        return Labels(of.mean, "mean")
    about = {"p_value": fit.p_value, "bias": fit.bias, "panel_error": fit.panel_error}
    is_visible = fit.p_value is not None and fit.p_value < SIGNIFICANCE
    if method == "mean" or (method == "auto" and not is_visible):
        return Labels(of.mean, "mean", **about)
    inside = np.clip(fit.label, 0.0, 1.0)
    return Labels(inside, "two_way", **about, n_clipped=int((np.abs(inside - fit.label) > 1e-9).sum()))


def two_way(of: Ratings) -> TwoWay | None:
    """The two-way model; None where some raters share no items with the others."""
    n, k, m = len(of.items), len(of.raters), len(of.value)
    if k < 2:
        return None
    # Items are taken out by their means, so that only the raters' equations remain.
    share = np.zeros((n, k))  # of an item's votes, by rater
    np.add.at(share, (of.item, of.rater), 1.0)
    share /= of.n_votes[:, None]
    centred, residual = np.eye(k)[of.rater] - share[of.item], of.value - of.mean[of.item]
    bias, _, rank, _ = np.linalg.lstsq(centred, residual, rcond=1e-9)
    if rank < k - 1:
        return None
    bias = bias - bias[of.rater].mean()
    rest, freedom = float(((residual - centred @ bias) ** 2).sum()), m - n - rank
    p_value = _f_test(float((residual**2).sum()) - rest, rest, rank, freedom)
    votes = np.bincount(of.rater, minlength=k) / m
    panel_error = None
    if freedom > 0:
        error = np.linalg.pinv(centred.T @ centred) * rest / freedom  # (k, k) covariance of the biases
        spread = max(float(bias.var(ddof=1)) - (np.trace(error) - error.sum() / k) / (k - 1), 0.0)
        panel_error = float(np.sqrt(spread * (votes**2).sum()))
    return TwoWay(of.mean - share @ bias, bias, p_value, panel_error)


def _f_test(gain: float, rest: float, rank: int, freedom: int) -> float | None:
    from scipy.stats import f

    if freedom < 1:
        return None
    if rest <= 1e-12 * max(gain, 1e-300):
        return 0.0 if gain > 1e-12 else 1.0
    return float(f.sf(gain / rank / (rest / freedom), rank, freedom))
