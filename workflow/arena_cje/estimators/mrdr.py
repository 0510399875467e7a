"""More robust doubly robust estimation (MRDR).

    q = argmin sum_i w_i (R_i - q(z_i))^2 over non-decreasing q,   V = mean_i g_i + mean_i w_i (R_i - q_i)

Each target has its own outcome model, monotone in the held-out calibrated score z, cross-fitted over folds of prompts and
weighted by the target's weights. The weights are w in place of the w^2 of the source, since squared weights follow single
rows.

Farajtabar, Chow & Ghavamzadeh (2018), "More robust doubly robust off-policy evaluation", ICML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.outcome import outcome
from arena_cje.estimation.robust import chosen_weight, robust

if TYPE_CHECKING:
    from arena_cje.estimation.records import Options, Point, Sample

NEEDS = ("log_ratio", "fresh_score")

FLOOR = 1e-8  # lower bound of the weights of the fit


def estimate(sample: Sample, options: Options) -> Point:
    """The doubly robust value with an outcome model that is fitted under the target's weights."""
    weight = chosen_weight(sample, options)
    at_logged, at_fresh = outcome(sample, np.maximum(weight, FLOOR))
    return robust(sample, weight, at_logged, at_fresh, label_term=options.label_term)
