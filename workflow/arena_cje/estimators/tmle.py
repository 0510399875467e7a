"""Targeted maximum likelihood estimation (TMLE).

    logit q*(z) = logit q(z) + e h(z),   e solves sum_i h_i (R_i - q*_i) = 0,   h(z) = E[w | z]
    V = mean_i g*_i + mean_i w_i (R_i - q*_i)

q is an outcome model, monotone in the held-out calibrated score z, and h is the mean weight at a score; both are
cross-fitted over folds of prompts. Logged responses and fresh draws have the same fluctuation e.

van der Laan & Rubin (2006), "Targeted maximum likelihood learning", International Journal of Biostatistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit

from arena_cje.estimation.outcome import outcome
from arena_cje.estimation.robust import chosen_weight, robust

if TYPE_CHECKING:
    from arena_cje.estimation.records import Options, Point, Sample

NEEDS = ("log_ratio", "fresh_score")

EDGE = 1e-7  # predictions are clipped to [EDGE, 1 - EDGE], so that logits are finite
STEPS, LARGEST, SMALL = 50, 5.0, 1e-8  # Newton's method: most steps, largest step, tolerance of the score


def estimate(sample: Sample, options: Options) -> Point:
    """The doubly robust value with a targeted outcome model."""
    weight = chosen_weight(sample, options)
    at_logged, at_fresh = outcome(sample)
    if (at_logged == sample.reward).all():  # no residual, so e = 0
        return robust(sample, weight, at_logged, at_fresh, label_term=options.label_term)
    clever, clever_fresh = mean_weight(sample, weight)
    step = fluctuation(sample.reward, at_logged, clever)
    targeted = expit(_logit(at_logged) + step * clever)
    targeted_fresh = expit(_logit(at_fresh) + step * clever_fresh)
    return robust(sample, weight, targeted, targeted_fresh, label_term=options.label_term)


def mean_weight(sample: Sample, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """h: mean weight at the scores of logged responses (u,) and fresh draws (u, m), over the rows of the other folds.

    Linear between the scores of these rows.
    """
    at_logged, at_fresh = np.empty(weight.shape), np.empty(sample.fresh.shape)
    for k in range(int(sample.fold.max()) + 1):
        test = sample.fold == k
        train = test if test.all() else ~test
        level, code = np.unique(sample.index[train], return_inverse=True)
        mean = np.bincount(code, weights=weight[train]) / np.bincount(code)
        at_logged[test] = np.interp(sample.index[test], level, mean)
        at_fresh[test] = np.interp(sample.fresh_held_out[test], level, mean)
    return at_logged, at_fresh


def fluctuation(reward: np.ndarray, predicted: np.ndarray, clever: np.ndarray) -> float:
    """The e that solves sum h (R - expit(logit q + e h)) = 0, by Newton's method.

    reward, predicted, clever: R, q and h of the rows, (u,) each.
    """
    start, step = _logit(predicted), 0.0
    for _ in range(STEPS):
        fitted = expit(start + step * clever)
        score = float((clever * (reward - fitted)).sum())
        information = float((clever**2 * fitted * (1 - fitted)).sum())
        if information <= 0 or abs(score) <= SMALL * np.sqrt(information):
            break
        step += float(np.clip(score / information, -LARGEST, LARGEST))
    return step


def _logit(share: np.ndarray) -> np.ndarray:
    return logit(np.clip(share, EDGE, 1 - EDGE))
