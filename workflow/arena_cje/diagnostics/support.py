"""Support: do oracle labels lie where the target policy's judge scores lie?

    w_b = p_b / m_b,   unsupported = sum of p_b where m_b = 0
    share = (1 - unsupported) (sum_j w_j)^2 / (m sum_j w_j^2),   effective labels = m share

p_b is the target's share of scores in cell b, m_b the number of labels there, j runs over the m labels. A label
counts by how much of the target it must speak for: when 3 of 250 labels carry three quarters of the target, few are
effective, even though no score lies outside the labelled range. Kish's effective sample size, applied to labels.

It speaks of support alone. Whether labels mean the same at the same score needs labels of the target's own responses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.calibration import Calibrator, rewards

if TYPE_CHECKING:
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.estimation.records import Labelled

MAX_DISTINCT = 20  # up to this many distinct scores are their own cells
BINS = 10  # equal cells of the observed range otherwise
AFFINITY_BINS = 20
EDGE = 0.05  # of the calibrator's range: rewards this near its ends are saturated


@dataclass(frozen=True)
class Support:
    """How many labels speak for one target."""

    unsupported: float  # share of the target's scores in cells without a label
    share: float  # of the labels that is effective
    effective_labels: float


@dataclass(frozen=True)
class BoundaryCard:
    """How much of the target lies where the calibrator can only hold its last value."""

    status: str  # ok, caution, refuse, or inconclusive without scores
    out_of_range: float  # share of scores outside the labelled range
    saturation: float  # share of rewards near the ends of the calibrator's range
    partial_id_width: float  # how far the value could move if labels beyond the range were 0 or 1


def effective_labels(label_score: np.ndarray, target_score: np.ndarray, target_weight: np.ndarray) -> Support:
    """Support of a target with scores and weights (t,) by labels at scores (m,); NaN scores are left out."""
    kept = ~np.isnan(target_score) & ~np.isnan(target_weight)
    target_score, target_weight = target_score[kept], target_weight[kept]
    labels = len(label_score)
    if not labels or not target_weight.sum() > 0:
        return Support(float("nan"), float("nan"), float("nan"))
    cell = _cells(np.concatenate([label_score, target_score]))
    count = np.bincount(cell[:labels], minlength=cell.max() + 1)  # (b,)
    mass = np.bincount(cell[labels:], weights=target_weight, minlength=len(count)) / target_weight.sum()  # (b,)
    unsupported = min(1.0, float(mass[count == 0].sum()))
    spoken_for = mass[count > 0]
    squares = np.sum(spoken_for**2 / count[count > 0])  # sum over labels of w_j^2
    share = float((1 - unsupported) * spoken_for.sum() ** 2 / (labels * squares)) if squares > 0 else 0.0
    return Support(unsupported, share, labels * share)


def affinity(logged_score: np.ndarray, target_score: np.ndarray, target_weight: np.ndarray) -> float:
    """Bhattacharyya affinity sum_b sqrt(p_b q_b) of logged scores (n,) and a target's (t,) over cells of their range.

    Its square bounds the effective sample share of any weights that are a function of the score.
    """
    kept = ~np.isnan(target_score) & ~np.isnan(target_weight)
    score, weight = target_score[kept], target_weight[kept]
    if not weight.sum() > 0:
        return float("nan")
    edges = np.linspace(min(score.min(), logged_score.min()), max(score.max(), logged_score.max()), AFFINITY_BINS + 1)
    p = np.bincount(np.searchsorted(edges[1:-1], logged_score, side="right"), minlength=AFFINITY_BINS)
    q = np.bincount(np.searchsorted(edges[1:-1], score, side="right"), weights=weight, minlength=AFFINITY_BINS)
    return float(np.sqrt(p / p.sum() * q / q.sum()).sum())


def once_a_prompt(score: np.ndarray) -> np.ndarray:
    """Weights (n, m) of draws with scores (n, m): those of a prompt sum to one, missing draws weigh nothing."""
    drawn = ~np.isnan(score)
    return drawn / np.maximum(drawn.sum(axis=1, keepdims=True), 1)


def _cells(score: np.ndarray) -> np.ndarray:
    """Cell of every score: the distinct scores if few, else equal bins of their range."""
    distinct = np.unique(score)
    if len(distinct) <= MAX_DISTINCT:
        return np.searchsorted(distinct, score)
    inner_edges = np.linspace(distinct[0], distinct[-1], BINS + 1)[1:-1]
    return np.searchsorted(inner_edges, score, side="right")


def boundary_card(
    calibrator: Calibrator,
    known: Labelled,
    target_score: np.ndarray,
    target_weight: np.ndarray,
    thresholds: Thresholds,
) -> BoundaryCard:
    """Where a target's scores (t,) lie against the labelled ones; rewards at the labelled covariates' mean."""
    kept = ~np.isnan(target_score) & ~np.isnan(target_weight)
    score, weight = target_score[kept], target_weight[kept]
    if not weight.sum() > 0 or not len(known.oracle_label):
        return BoundaryCard("inconclusive", float("nan"), float("nan"), float("nan"))
    label_score = known.judged.score
    mass = weight / weight.sum()
    low, high = float(mass[score < label_score.min()].sum()), float(mass[score > label_score.max()].sum())
    fitted = rewards(calibrator, known.judged)
    f_min, f_max = fitted.min(), fitted.max()
    typical = known.judged.covariates.mean(axis=0)  # (c,)
    edge, reward = EDGE * (f_max - f_min), calibrator(score, np.broadcast_to(typical, (len(score), len(typical))))
    saturation = float(mass[(reward <= f_min + edge) | (reward >= f_max - edge)].sum())
    if low + high >= thresholds.out_of_range_refuse:
        status = "refuse"
    else:
        status = "caution" if saturation >= thresholds.saturation_caution else "ok"
    return BoundaryCard(status, low + high, saturation, float(low * f_min + high * (1 - f_max)))
