"""Support: do oracle labels lie where the target policy's judge scores lie?

    w_b = p_b / m_b,   unsupported = sum of p_b where m_b = 0
    share = (1 - unsupported) (sum_j w_j)^2 / (m sum_j w_j^2),   effective labels = m share

p_b is the target's share of scores in cell b, m_b the number of labels there, j runs over the m labels. A label
is weighted by the share of the target's scores that it represents: when 3 of 250 labels represent three quarters of the
target, few are effective, even though no score lies outside the labelled range. This is Kish's effective sample size of
the labels. Where they were bought with known probabilities, m_b is the effective number of the labels of a cell.

It measures support alone. Whether the same score has the same mean label needs labels of the target's own responses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.calibration import Calibrator, rewards
from arena_cje.estimation.label_floor import Cells

if TYPE_CHECKING:
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.estimation.records import Labelled

AFFINITY_BINS = 20
EDGE = 0.05  # of the calibrator's range: rewards this near its ends are saturated


@dataclass(frozen=True)
class Support:
    """The labels at scores where one target has responses."""

    unsupported: float  # share of the target's scores in cells without a label
    share: float  # of the labels that is effective
    effective_labels: float


@dataclass(frozen=True)
class BoundaryCard:
    """The share of the target outside the labelled scores, where the calibrator is constant."""

    status: str  # ok, caution, refuse, or inconclusive without scores
    out_of_range: float  # share of scores outside the labelled range
    saturation: float  # share of rewards near the ends of the calibrator's range
    partial_id_width: float  # how far the value could move if labels beyond the range were 0 or 1


def effective_labels(
    label_score: np.ndarray,
    target_score: np.ndarray,
    target_weight: np.ndarray,
    label_weight: np.ndarray | None = None,
) -> Support:
    """Support of a target with scores and weights (t,) by labels at scores (m,); NaN scores are left out.

    label_weight: weights of the labels (m,) by their probabilities, None where these are equal.
    """
    scored = ~np.isnan(target_score) & ~np.isnan(target_weight)
    target_score, target_weight = target_score[scored], target_weight[scored]
    labels = len(label_score)
    if not labels or not target_weight.sum() > 0:
        return Support(float("nan"), float("nan"), float("nan"))
    cells = Cells.of(np.concatenate([label_score, target_score]))
    count = cells.effective_numbers(label_score, np.ones(labels), label_weight)  # (b,)
    mass = cells.mass(target_score, target_weight) / target_weight.sum()  # (b,)
    unsupported = min(1.0, float(mass[count == 0].sum()))
    supported_mass = mass[count > 0]
    squares = np.sum(supported_mass**2 / count[count > 0])  # sum over labels of w_j^2
    share = float((1 - unsupported) * supported_mass.sum() ** 2 / (labels * squares)) if squares > 0 else 0.0
    return Support(unsupported, share, labels * share)


def affinity(logged_score: np.ndarray, target_score: np.ndarray, target_weight: np.ndarray) -> float:
    """Bhattacharyya affinity sum_b sqrt(p_b q_b) of logged scores (n,) and a target's (t,) over cells of their range.

    Its square bounds the effective sample share of any weights that are a function of the score.
    """
    scored = ~np.isnan(target_score) & ~np.isnan(target_weight)
    score, weight = target_score[scored], target_weight[scored]
    if not weight.sum() > 0:
        return float("nan")
    edges = np.linspace(min(score.min(), logged_score.min()), max(score.max(), logged_score.max()), AFFINITY_BINS + 1)
    p = np.bincount(np.searchsorted(edges[1:-1], logged_score, side="right"), minlength=AFFINITY_BINS)
    q = np.bincount(np.searchsorted(edges[1:-1], score, side="right"), weights=weight, minlength=AFFINITY_BINS)
    return float(np.sqrt(p / p.sum() * q / q.sum()).sum())


def boundary_card(
    calibrator: Calibrator,
    labels: Labelled,
    target_score: np.ndarray,
    target_weight: np.ndarray,
    thresholds: Thresholds,
) -> BoundaryCard:
    """Position of a target's scores (t,) relative to the labelled ones; rewards at the mean of the labelled covariates."""
    scored = ~np.isnan(target_score) & ~np.isnan(target_weight)
    score, weight = target_score[scored], target_weight[scored]
    if not weight.sum() > 0 or not len(labels.oracle_label):
        return BoundaryCard("inconclusive", float("nan"), float("nan"), float("nan"))
    label_score = labels.judged.score
    mass = weight / weight.sum()
    low, high = float(mass[score < label_score.min()].sum()), float(mass[score > label_score.max()].sum())
    fitted = rewards(calibrator, labels.judged)
    f_min, f_max = fitted.min(), fitted.max()
    typical = labels.judged.covariates.mean(axis=0)  # (c,)
    edge, reward = EDGE * (f_max - f_min), calibrator(score, np.broadcast_to(typical, (len(score), len(typical))))
    saturation = float(mass[(reward <= f_min + edge) | (reward >= f_max - edge)].sum())
    if low + high >= thresholds.out_of_range_refuse:
        status = "refuse"
    else:
        status = "caution" if saturation >= thresholds.saturation_caution else "ok"
    return BoundaryCard(status, low + high, saturation, float(low * f_min + high * (1 - f_max)))
