"""More robust doubly robust estimation (MRDR).

    q = argmin sum_i w_i (R_i - q(z_i))^2 over non-decreasing q,   V = mean_i g_i + mean_i w_i (R_i - q_i)

A monotone outcome model of its own for each target, fitted where the target's weight lies, on the held-out calibrated
score z and by the other folds of prompts. Weights w for w^2: squared ones follow single rows.

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

FLOOR = 1e-8  # of the weights a fit is made with


def estimate(sample: Sample, options: Options) -> Point:
    weight = chosen_weight(sample, options)
    at_logged, at_fresh = outcome(sample, np.maximum(weight, FLOOR))
    return robust(sample, weight, at_logged, at_fresh, label_term=options.label_term)
