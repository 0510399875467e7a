"""Inverse propensity scoring (IPS).

    V = mean(W R),   influence_i = W_i R_i - V,   W_i = exp(log ratio_i)

Unbiased where the base policy can say all that the target says, and neither normalised nor clipped: the weights need
not average to one, a constant on the log ratios moves the value, and a few rows can carry it beyond the scale of the
rewards.

Horvitz & Thompson (1952), "A generalization of sampling without replacement from a finite universe", JASA.
"""

from __future__ import annotations

import numpy as np

from arena_cje.estimation.records import Options, Point, Sample

NEEDS = ("log_ratio",)
NORMALISED = False

LARGEST = 600.0  # nats; exp() overflows from 709 on, and sums of a few such weights before


def estimate(sample: Sample, options: Options) -> Point:
    weight = np.exp(np.minimum(sample.log_ratio, LARGEST))  # (u,)
    earned = weight * sample.held_out
    return Point(float(np.mean(weight * sample.reward)), earned - earned.mean(), weight)
