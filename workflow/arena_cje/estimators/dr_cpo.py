"""Doubly robust estimation with the calibrator as outcome model (DR-CPO).

    V = mean_i g_i + mean_i w_i (R_i - q_i),   influence_i = g_i + w_i (R_i - q_i) - V

q_i is the held-out calibrated score of the logged response, g_i the mean of those of the fresh draws. At full coverage R
is the label, and V is consistent when either the calibrator transports or the weights are right; calibrated weights are
functions of the score, so only raw weights (option `weights`) correct for what labels depend on beside the score. Below
full coverage R - q is the small difference of full and held-out calibrator, and V needs a calibrator that transports to
the target, unless `label_term` is on or the target has labels of its own.

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
    """The doubly robust value with the calibrator as outcome model."""
    weight = chosen_weight(sample, options)
    return robust(sample, weight, sample.index, sample.fresh_held_out, label_term=options.label_term)
