"""Agreement of judge and oracle: do the labels show that scores predict labels?

    r = Spearman's correlation of scores and labels over m labelled prompts
    shown where r > min(r_0, r_1),   r_0 = tanh(z_a / sqrt(m - 3)),
    r_1 = tanh(artanh(rho r_max) - z_b sqrt((1 + (rho r_max)^2 / 2) / (m - 3)))

A judge without any correlation exceeds r_0 with probability a, a useful one, of correlation rho, stays below r_1 with probability
b. r_max is the correlation that the same scores and labels would have in the best order: it is below 1 where labels are
tied, and small where hardly a label differs. From some 120 labels on r_0 is the lower one and both errors have their levels;
with fewer labels it is r_1, and a judge without any correlation passes more often. Where all labels are alike they show nothing
about the judge, for it or against it.

With covariates the calibrated rewards, each from a calibrator that was fitted without the label, take the place of scores.

Bonett & Wright (2000), "Sample size requirements for estimating Pearson, Kendall and Spearman correlations", Psychometrika.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.estimation.calibration import Calibration


@dataclass(frozen=True)
class Agreement:
    """What a slice of m labelled prompts shows about the judge."""

    correlation: float  # Spearman's r; NaN where scores or labels are all alike
    needed: (
        float  # correlation above which agreement is shown; -1 where all labels are alike, NaN with under four prompts
    )
    n_prompts: int
    labels_alike: bool

    @property
    def is_sufficient(self) -> bool:
        """Whether the agreement is high enough for a value that rests on the judge; so are labels that are all alike."""
        return self.labels_alike or bool(self.correlation > self.needed)


def agreement(fitted: Calibration, thresholds: Thresholds) -> Agreement:
    """Agreement over the oracle slice of a calibration."""
    label, predictor = fitted.label, fitted.score
    if not len(label):
        return Agreement(float("nan"), float("nan"), 0, labels_alike=False)
    if fitted.mode == "two_stage" and not fitted.full.fallback:
        predictor = fitted.held_out(fitted.slice.judged, fitted.slice_fold)
    prompts = len(np.unique(fitted.slice.question))
    if np.ptp(label) == 0 and np.ptp(fitted.score) > 0:
        return Agreement(float("nan"), -1.0, prompts, labels_alike=True)
    best = rank_correlation(np.sort(predictor), np.sort(label))
    return Agreement(rank_correlation(predictor, label), needed(prompts, best, thresholds), prompts, labels_alike=False)


def needed(prompts: int, best: float, thresholds: Thresholds) -> float:
    """min(r_0, r_1) for m labelled prompts and r_max; NaN below four prompts, or where r_max is."""
    from scipy.special import ndtri

    if prompts < 4:
        return float("nan")
    t, useful = thresholds, thresholds.judge_useful * best
    useless_bound = -ndtri(t.judge_useless_level) / np.sqrt(prompts - 3)
    useful_bound = np.arctanh(useful) + ndtri(t.judge_useful_level) * np.sqrt((1 + useful**2 / 2) / (prompts - 3))
    return float(np.tanh(min(useless_bound, useful_bound)))


def rank_correlation(score: np.ndarray, label: np.ndarray) -> float:
    """Spearman's correlation, NaN when either side is constant."""
    if np.ptp(score) == 0 or np.ptp(label) == 0:
        return float("nan")
    return float(np.corrcoef(_ranks(score), _ranks(label))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks (m,) from 1; equal values have the mean of their ranks."""
    _, code, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[code.reshape(-1)]
