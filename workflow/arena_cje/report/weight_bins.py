"""Histograms of importance weights on a logarithmic axis, the same in PNG figures and on the dashboard.

A bin is centred at weight 1, so that equal policies have one bar. All policies have bins of the same width. Weights beyond the
ends of the axis, zeros among them, are in its first and last bin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

LOWEST, HIGHEST = -6, 6  # log10 of the weights at the ends; smaller ones carry no information
STEPS = (0.05, 0.1, 0.2, 0.25, 0.5, 1.0)  # widths of a bin, in decades
MOST_BINS = 60
EXTREME = (0.01, 100.0)  # weights at which figures have a line, as in the tables


class Bin(NamedTuple):
    """A bin with rows, its ends as log10 of the weight."""

    low: float
    high: float
    n: int


def weight_bins(log_weights: Sequence[np.ndarray]) -> list[list[Bin]]:
    """The bins of each policy with rows, from natural logarithms of its mean-one weights; NaN marks rows without one."""
    log10 = [np.clip(one[~np.isnan(one)] / np.log(10), LOWEST, HIGHEST) for one in log_weights]
    span = np.ptp(np.concatenate([*log10, [0.0]]))
    step = next((step for step in STEPS if span <= step * MOST_BINS), STEPS[-1])
    bins = []
    for values in log10:
        code, count = np.unique(np.rint(values / step).astype(int), return_counts=True)
        bins.append(
            [Bin((k - 0.5) * step, (k + 0.5) * step, n) for k, n in zip(code.tolist(), count.tolist(), strict=True)]
        )
    return bins
