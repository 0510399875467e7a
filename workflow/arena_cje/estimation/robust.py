"""What the doubly robust estimators share: fresh draws plus a weighted residual of the logged responses.

    V = mean_i g_i + mean_i w_i (R_i - q_i) [ + mean_i (L_i / p) W_i (Y_i - R_i) ]

q_i is an outcome model at the logged response, g_i the same model's mean over the target's draws of that prompt; neither
saw the prompt. Influence functions use held-out rewards, so that below full coverage, where R and q are both
calibrated scores, only what an outcome model adds to the calibrator is in the residual.

The label term, with the known share p = m/n of labelled rows, compares labels with held-out rewards under raw weights.
It makes the value right when the calibrator does not hold for the target but the weights do. With a label on every row
the residual under raw weights is that term. Where there is such a term, labels of the target's own draws are not used:
both mend the same fault, and together they would mend it twice.

Jiang & Li (2016), "Doubly robust off-policy value evaluation for reinforcement learning", ICML; Kallus & Mao (2025),
"On the role of surrogates in the efficient estimation of treatment effects with limited outcome data", JRSS B.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.fresh import fresh_mean
from arena_cje.estimation.records import Options, Point, Sample

if TYPE_CHECKING:
    from types import ModuleType


def has_label_term(module: ModuleType, options: Options) -> bool:
    """Does this estimator compare labels with rewards under the weights?"""
    return getattr(module, "LABEL_TERM", False) or (
        options.label_term and set(module.NEEDS) == {"log_ratio", "fresh_score"}
    )


def mends_by_weights(label: np.ndarray, *, label_term: bool, raw: bool) -> bool:
    """Is there a term of labels (u,) under raw weights: a label term, or at full coverage a residual with such weights?"""
    labelled = ~np.isnan(label)
    return bool(labelled.any() and (label_term or (raw and labelled.all())))


def chosen_weight(sample: Sample, options: Options) -> np.ndarray:
    """The weights (u,) that the options ask for, mean one.

    With a label on every row the residual is itself what the label term would add, and like it has raw weights.
    """
    residual_is_term = options.label_term and not np.isnan(sample.label).any()
    return sample.raw if options.weights == "raw" or residual_is_term else sample.stabilised[0]


def robust(
    sample: Sample, weight: np.ndarray, at_logged: np.ndarray, at_fresh: np.ndarray, *, label_term: bool
) -> Point:
    """Value from weights (u,) and an outcome model's predictions at logged responses (u,) and fresh draws (u, m)."""
    mended = mends_by_weights(sample.label, label_term=label_term, raw=weight is sample.raw)
    own_label = np.full_like(sample.fresh_label, np.nan) if mended else sample.fresh_label
    value, influence = fresh_mean(at_fresh, at_fresh, own_label, sample.cluster)
    value += float(np.mean(weight * (sample.reward - at_logged)))
    residual = weight * (sample.held_out - at_logged)
    influence = influence + residual - residual.mean()
    if label_term:
        missed = label_residual(sample.label, sample.held_out, sample.raw)
        value += float(missed.mean())
        influence = influence + missed - missed.mean()
    return Point(value, influence, weight)


def label_residual(label: np.ndarray, held_out: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(L / p) W (Y - R) by row (u,), R held out; zero where there is no label, and at full coverage, where R is Y."""
    labelled = ~np.isnan(label)
    if not labelled.any():
        return np.zeros(len(labelled))
    return np.where(labelled, weight * (label - held_out), 0.0) / labelled.mean()
