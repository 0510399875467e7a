"""The least standard error that oracle labels allow: a floor where labels hardly vary.

    floor = e (z h / (1 + z^2 h) + u / z),   h = sum_g a_g^2 / m_g / sum_g a_g,   z = 1.96

When all of m pass-or-fail labels are alike, their sample variance is zero, although up to 3 in m responses may have the
other label ("rule of three"); the score interval (Wilson 1927) for m of m ends at m / (m + z^2). With the floor as its
standard error, an estimate has the interval that this one would have at its effective number of labels, 1 / h. The floor
counts while fewer than four or so of the rarer label were seen; with more, the standard error is above it.

a_g is the share of the value that rests on group g of m_g exchangeable labels: the labels in a cell of judge scores, or a
single label where labels enter one by one. Shares of a value sum to one, those of a difference are subtracted, so that
what two policies have in common cancels, exactly for a policy that equals the base. The sums of h run over the positive
shares or over the negative ones, whichever give more. u is the share in cells without a label.
e, between 0 and 1, is the share of this that the sample variance may miss:

    e = d^2 min(1, (z^2 / sum r^2)^2),   r = Y - f^(-k)(S)

d is the share of labels at the ends of the scale, 0 or 1, or the share of the commonest label where that is larger: 1 for
pass-or-fail labels and where all are alike, near 0 for finely graded ones, whose sample variance shows what there is. The
sum of squared residuals counts how many labels were seen to differ from what was expected: beyond z^2 = 3.84 of them, the
sample variance can be relied on, and the floor falls quickly.

Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA; Hanley & Lippman-Hand (1983),
"If nothing goes wrong, is everything all right?", JAMA; Kish (1965), "Survey Sampling", for the effective number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.records import Floor

if TYPE_CHECKING:
    from collections.abc import Mapping

Z = 1.959964  # two-sided normal quantile of .95
MAX_DISTINCT = 20  # up to this many distinct scores are their own cells
BINS = 10  # equal cells of the observed range otherwise
NO_CELLS = np.empty(0)


@dataclass(frozen=True)
class LabelShares:
    """How much of a value rests on which labels; the shares sum to one."""

    cell: np.ndarray  # (b,) share of each cell of judge scores
    cell_labels: np.ndarray  # (b,) number of labels in each cell, the same for all policies
    # Shares of labels that enter one by one, by prompt: those of the logged rows, and of the policy's own draws. (G,) or empty.
    base_label: np.ndarray
    own_label: np.ndarray
    event: float  # e, the size of a rare label

    def floor(self) -> float:
        """The floor of the value."""
        return least_error(np.concatenate([self.base_label, self.own_label]), self.event, self.cell, self.cell_labels)

    def floor_of_difference(self, other: LabelShares) -> float:
        """The floor of the difference to the value of another policy, whose own draws are other responses."""
        one, two = self.base_label, other.base_label
        common = one - two if len(one) and len(two) else np.concatenate([one, two])
        single = np.concatenate([common, self.own_label, other.own_label])
        return least_error(single, max(self.event, other.event), self.cell - other.cell, self.cell_labels)


def least_error(
    single: np.ndarray, event: float, cell: np.ndarray = NO_CELLS, cell_labels: np.ndarray = NO_CELLS
) -> float:
    """The floor, from the shares of single labels (k,) and of cells (b,) with their numbers of labels."""
    labelled = cell_labels > 0
    share = np.concatenate([single, cell[labelled]])
    square = np.concatenate([single**2, cell[labelled] ** 2 / cell_labels[labelled]])
    h = max(square[side].sum() / np.abs(share[side]).sum() if side.any() else 0.0 for side in (share > 0, share < 0))
    unsupported = float(np.abs(cell[~labelled]).sum())
    return float(event * (Z * h / (1 + Z**2 * h) + unsupported / Z))


def floors(shares: Mapping[str, LabelShares]) -> dict[str, Floor]:
    """The floors of all policies and of their differences, by policy."""
    return {
        policy: Floor(
            policy,
            one.floor(),
            {name: one.floor_of_difference(other) for name, other in shares.items() if name != policy},
        )
        for policy, one in shares.items()
    }


def event_size(residual: np.ndarray, label: np.ndarray) -> float:
    """e, from the residuals (l,) of the labels (l,); 0 without a label."""
    if not len(label):
        return 0.0
    at_ends = np.mean((label <= 0) | (label >= 1))
    commonest = np.unique(label, return_counts=True)[1].max() / len(label)
    sum_squares = float(np.sum(residual**2))
    return float(max(at_ends, commonest) ** 2 * min(1.0, (Z**2 / sum_squares) ** 2 if sum_squares else 1.0))


@dataclass(frozen=True)
class Cells:
    """Cells of judge scores: the distinct scores if they are few, else equal parts of their range."""

    edges: np.ndarray  # (b - 1,) inner edges

    @classmethod
    def of(cls, score: np.ndarray) -> Cells:
        """The cells of scores (t,), NaN left out."""
        distinct = np.unique(score[~np.isnan(score)])
        if len(distinct) <= MAX_DISTINCT:
            return cls((distinct[1:] + distinct[:-1]) / 2)
        return cls(np.linspace(distinct[0], distinct[-1], BINS + 1)[1:-1])

    def mass(self, score: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Sum of the weights (...) of scores (...) in each cell, (b,); NaN scores and weights are left out."""
        valid = ~np.isnan(score) & ~np.isnan(weight)
        cell = np.searchsorted(self.edges, score[valid], side="right")
        return np.bincount(cell, weights=weight[valid], minlength=len(self.edges) + 1)

    def effective_numbers(
        self, score: np.ndarray, label: np.ndarray, label_weight: np.ndarray | None = None
    ) -> np.ndarray:
        """Kish's effective number of labels in each cell, (b,), of labels at scores (l,) that count for `label` (l,) each.

        label_weight: weights of the labels (l,) by their probabilities; None: all are equal, and numbers are sums.
        """
        if label_weight is None:
            return self.mass(score, label)
        square = self.mass(score, label * label_weight**2)
        return np.where(square > 0, self.mass(score, label * label_weight) ** 2 / np.where(square > 0, square, 1), 0.0)
