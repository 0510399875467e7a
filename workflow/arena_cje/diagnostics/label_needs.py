"""How many more labels a check of the verdict needs, from the data at hand.

labels of base responses, for a target whose shares of judge scores are p_b

    effective labels = (1 - u) (sum of p_b)^2 / sum of p_b^2 / m_b,   share = effective labels / m

    in the notation of `support`. At random: the smallest number with which the limits hold in 95 % of the draws of so many
    base responses without a label. At scores: each further label goes to the cell of scores where it raises the effective
    labels most.

labels of the policy's own responses, with which its transport audit passes

    k = sigma^2 / (((margin - |delta|) / (z_(1 - alpha / 2 K) + z_power))^2 - v)

    sigma is the standard deviation of label minus calibrated score, v the calibrator's part of the variance of their mean
    delta, K the number of audited policies. The audit passes with this power if the calibration is off by delta.

Schuirmann (1987), as in `transport`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from arena_cje.diagnostics import transport
from arena_cje.estimation.fresh import MIN_OWN, labelled_prompts
from arena_cje.estimation.label_floor import MAX_DISTINCT, Cells

if TYPE_CHECKING:
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.estimation.records import Draws
    from arena_cje.evaluation.evaluate import Evaluation

MOST = 2000  # labels at scores that are looked for; labels of the policy's own are far cheaper than so many
ENOUGH, DRAWS = 0.95, 400  # share of so many draws of random labels in which the limits have to hold
POWER = 0.9  # of the audit


@dataclass(frozen=True)
class BaseLabels:
    """Further labels of base responses: their number, and the judge scores between which they lie."""

    count: int
    scores: tuple[float, float] | None = None  # None where they are drawn at random


@dataclass(frozen=True)
class Limits:
    """What a target's support has to reach."""

    share: float
    count: float

    def hold(self, mass: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Whether they hold for a target with shares of scores (b,) by so many labels in each cell, (..., b) -> (...)."""
        effective = _effective(mass, labels)
        return (effective >= self.count) & (effective >= self.share * labels.sum(axis=-1))


@dataclass(frozen=True)
class ScoreCells:
    """A target's scores, the labels, and the base responses that can be labelled, by cells of judge scores."""

    cells: Cells
    mass: np.ndarray  # (b,) share of the target's scores
    labels: np.ndarray  # (b,) int
    free: np.ndarray  # (u,) scores of base responses without a label, those that leave the cells as they are

    @classmethod
    def of(
        cls, label_score: np.ndarray, unlabelled_score: np.ndarray, target_score: np.ndarray, target_weight: np.ndarray
    ) -> ScoreCells | None:
        """From scores of labels (m,), of base responses without one (u,), and of the target with weights (t,).

        None where the target has no score.
        """
        scored = ~np.isnan(target_score) & ~np.isnan(target_weight)
        target_score, target_weight = target_score[scored], target_weight[scored]
        if not target_weight.sum() > 0:
            return None
        present = np.concatenate([label_score, target_score])
        cells, distinct = Cells.of(present), np.unique(present)
        if len(distinct) <= MAX_DISTINCT:
            free = unlabelled_score[np.isin(unlabelled_score, distinct)]
        else:
            free = unlabelled_score[(unlabelled_score >= distinct[0]) & (unlabelled_score <= distinct[-1])]
        mass = cells.mass(target_score, target_weight) / target_weight.sum()
        labels = cells.mass(label_score, np.ones(len(label_score)))
        return cls(cells, mass, labels.astype(int), free)

    @property
    def left(self) -> np.ndarray:
        """Base responses without a label in each cell, (b,) int."""
        return self.cells.mass(self.free, np.ones(len(self.free))).astype(int)

    def at_random(self, limits: Limits, *, seed: int = 0) -> BaseLabels | None:
        """The fewest random base labels with which the limits hold; None where all of them do not suffice."""
        left, rng = self.left, np.random.default_rng(seed)

        def suffice(count: int) -> bool:
            new_labels = rng.multivariate_hypergeometric(left, count, size=DRAWS)
            return bool(limits.hold(self.mass, self.labels + new_labels).mean() >= ENOUGH)

        low, high = 0, int(left.sum())
        if not limits.hold(self.mass, self.labels + left):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if suffice(middle) else (middle, high)
        return BaseLabels(high)

    def at_scores(self, limits: Limits) -> BaseLabels | None:
        """The fewest base labels with which the limits hold, where the target's scores lie; None where none suffice."""
        labels, left = self.labels.copy(), self.left
        unit = np.eye(len(self.mass), dtype=int)
        for count in range(min(len(self.free), MOST) + 1):
            if limits.hold(self.mass, labels):
                chosen = self.free[(labels > self.labels)[np.searchsorted(self.cells.edges, self.free, side="right")]]
                return BaseLabels(count, (float(chosen.min()), float(chosen.max()))) if count else None
            open_cells = (labels - self.labels < left) & (self.mass > 0)
            if not open_cells.any():
                return None
            gain = np.where(open_cells, _effective(self.mass, labels + unit), -np.inf)
            labels[gain.argmax()] += 1
        return None


def _effective(mass: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Effective labels of a target with these shares of scores (b,) by so many labels in each cell, (..., b) -> (...)."""
    part = np.where(labels > 0, mass, 0.0)
    supported = part.sum(axis=-1)
    squares = (part**2 / np.maximum(labels, 1)).sum(axis=-1)
    return np.divide(supported**3, squares, out=np.zeros_like(squares), where=squares > 0)


@dataclass(frozen=True)
class OwnLabels:
    """Labels of a policy's own responses: how many prompts have one, and what they show."""

    prompts: int
    spread: float  # sigma; that of the oracle slice where fewer than ten prompts have a label
    passing: int | None  # prompts with which the audit would pass; None where it fails, or nothing is known


def own_labels(evaluation: Evaluation, draws: Draws | None, thresholds: Thresholds, *, audited: int) -> OwnLabels:
    """Those of a policy with these fresh draws; audited: number of policies with labels of their own."""
    fitted, cluster = evaluation.calibration, evaluation.base.cluster
    of_slice = fitted.label - fitted.held_out(fitted.slice.judged, fitted.slice_fold)
    spread = float(of_slice.std()) if len(of_slice) else math.nan
    prompts = 0 if draws is None else labelled_prompts(draws.scored_label, cluster)
    if draws is None or prompts < MIN_OWN:
        return OwnLabels(prompts, spread, None)
    residual = transport.shift(fitted, draws, cluster)
    spread = math.sqrt(residual.sampling_variance * prompts)
    room = thresholds.transport_margin - abs(residual.value)
    z = -ndtri(thresholds.transport_alpha / 2 / max(audited, 1)) + ndtri(POWER)
    variance = (room / z) ** 2 - residual.oracle_variance
    least = thresholds.transport_prompts
    if not (room > 0 and 0 < variance < math.inf and math.isfinite(least)):
        return OwnLabels(prompts, spread, None)
    return OwnLabels(prompts, spread, math.ceil(max(spread**2 / variance, least)))
