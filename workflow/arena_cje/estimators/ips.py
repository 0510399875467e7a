"""Inverse propensity scoring (IPS).

    V = mean(W R),   influence_i = W_i R_i - V,   W_i = exp(log ratio_i)

Unbiased where the base policy has positive probability for every response of the target. The weights are neither
normalised nor clipped: their mean need not be one, a constant added to the log ratios changes the value, and a few heavy
rows can move it out of the range of the rewards.

Horvitz & Thompson (1952), "A generalization of sampling without replacement from a finite universe", JASA.
"""

from __future__ import annotations

import numpy as np

from arena_cje.estimation.records import Options, Point, Sample

NEEDS = ("log_ratio",)
NORMALISED = False

LARGEST = 150.0  # nats; exp() overflows at 709, and degrees of freedom take the fourth power of weights


def estimate(sample: Sample, options: Options) -> Point:
    """The mean of the weighted rewards."""
    weight = np.exp(np.minimum(sample.log_ratio, LARGEST))  # (u,)
    weighted = weight * sample.held_out
    return Point(float(np.mean(weight * sample.reward)), weighted - weighted.mean(), weight)
