"""Inverse propensity scoring with normalised, clipped weights.

    V = sum(W R) / sum(W),   W = min(W_hajek, clip),   influence_i = W_i (R_i - V) / mean(W)

Clipping trades a bias towards the base policy's value for less variance; with an infinite clip this is SNIPS. Weights
are not calibrated, so their effective sample size says how much overlap there is.

Ionides (2008), "Truncated importance sampling", Journal of Computational and Graphical Statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena_cje.estimation.weighted import weighted_mean
from arena_cje.estimation.weights import clipped

if TYPE_CHECKING:
    from arena_cje.estimation.records import Options, Point, Sample

NEEDS = ("log_ratio",)


def estimate(sample: Sample, options: Options) -> Point:
    return weighted_mean(clipped(sample.raw, options.clip), sample)
