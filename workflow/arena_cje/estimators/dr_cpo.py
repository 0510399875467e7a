"""Doubly robust estimation with the calibrator as outcome model (DR-CPO).

    V = mean_i g_i + mean_i w_i (R_i - q_i),   influence_i = g_i + w_i (R_i - q_i) - V

q_i and g_i are held-out calibrated scores of the logged response and of the fresh draws. At full coverage R is the label
itself, and V is right when either the calibrator or the weights are; calibrated weights are functions of the score, so
what labels depend on beside it is mended by raw ones alone (option `weights`). Below full coverage R - q is only what the
held-out folds missed, and V needs a calibrator that holds for the target, unless `label_term` is on or the target has
labels of its own.

Dudik, Langford & Li (2011), "Doubly robust policy evaluation and learning", ICML; the name is that of the public package
cje-eval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena_cje.estimation.robust import chosen_weight, robust

if TYPE_CHECKING:
    from arena_cje.estimation.records import Options, Point, Sample

NEEDS = ("log_ratio", "fresh_score")


def estimate(sample: Sample, options: Options) -> Point:
    weight = chosen_weight(sample, options)
    return robust(sample, weight, sample.index, sample.fresh_held_out, label_term=options.label_term)
