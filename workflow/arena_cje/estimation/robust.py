"""The doubly robust value: mean prediction at the fresh draws plus weighted residual of the logged responses.

    V = mean_i g_i + mean_i w_i (R_i - q_i) [ + mean_i (L_i / p) W_i (Y_i - R_i) ]

q_i is the prediction of an outcome model at the logged response, g_i the mean of its predictions at the target's draws of
that prompt; the model is fitted without the fold of the prompt. Influence functions use held-out rewards. Below full
coverage R and q are both calibrated scores, so the residual has only the difference of outcome model and calibrator.

The label term compares labels with held-out rewards under raw weights; p = m/n is the known share of labelled rows. Labels
that were bought with known probabilities pi_i have 1 / (pi_i mean(L / pi)) in place of 1 / p. With the term V is consistent
where the weights are right, even if the calibrator does not transport to the target. With a label on every row the residual
under raw weights is the label term itself. Labels of the target's own draws are not used beside a label term: both correct
the same bias, and together they would correct it twice.

Jiang & Li (2016), "Doubly robust off-policy value evaluation for reinforcement learning", ICML; Kallus & Mao (2025),
"On the role of surrogates in the efficient estimation of treatment effects with limited outcome data", JRSS B.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.fresh import corrected_mean, fresh_mean
from arena_cje.estimation.records import Options, Point, Sample

if TYPE_CHECKING:
    from types import ModuleType


def has_label_term(module: ModuleType, options: Options) -> bool:
    """Whether the estimator, with these options, has the term (L_i / p) W_i (Y_i - R_i)."""
    return getattr(module, "LABEL_TERM", False) or (
        options.label_term and set(module.NEEDS) == {"log_ratio", "fresh_score"}
    )


def has_weighted_labels(label: np.ndarray, *, label_term: bool, raw_residual: bool) -> bool:
    """Whether oracle labels enter the estimate with raw weights: through the label term, or through the residual.

    label: (u,), NaN without one. raw_residual: whether the residual has raw weights; it counts where every row is labelled.
    """
    labelled = ~np.isnan(label)
    return bool(labelled.any() and (label_term or (raw_residual and labelled.all())))


def chosen_weight(sample: Sample, options: Options) -> np.ndarray:
    """The mean-one weights (u,) of the residual: raw or stabilised, by `options.weights`.

    With a label on every row and a label term, the residual is the label term, which has raw weights.
    """
    residual_is_term = options.label_term and not np.isnan(sample.label).any()
    return sample.raw if options.weights == "raw" or residual_is_term else sample.stabilised[0]


def robust(
    sample: Sample, weight: np.ndarray, at_logged: np.ndarray, at_fresh: np.ndarray, *, label_term: bool
) -> Point:
    """The doubly robust value and its influence function.

    weight: mean-one weights (u,); at_logged, at_fresh: predictions at logged responses (u,) and fresh draws (u, m).
    """
    weighted_labels = has_weighted_labels(sample.label, label_term=label_term, raw_residual=weight is sample.raw)
    if weighted_labels:
        value, influence = fresh_mean(at_fresh, at_fresh, np.full_like(at_fresh, np.nan), sample.cluster)
    else:
        value, influence = corrected_mean(sample, at_fresh, at_fresh)
    value += float(np.mean(weight * (sample.reward - at_logged)))
    residual = weight * (sample.held_out - at_logged)
    influence = influence + residual - residual.mean()
    if label_term:
        term = label_residual(sample.label, sample.held_out, sample.raw, sample.label_weight)
        value += float(term.mean())
        influence = influence + term - term.mean()
    return Point(value, influence, weight)


def label_residual(
    label: np.ndarray, held_out: np.ndarray, weight: np.ndarray, label_weight: np.ndarray | None = None
) -> np.ndarray:
    """The label term (L / p) W (Y - R) of each row, (u,), with held-out R; zero where a row has no label.

    label_weight: weights of the labels (u,) by their probabilities, zero without a label; None where these are equal.
    """
    labelled = ~np.isnan(label)
    if not labelled.any():
        return np.zeros(len(labelled))
    residual = np.where(labelled, weight * (label - held_out), 0.0)
    return residual / labelled.mean() if label_weight is None else residual * label_weight / label_weight.mean()
