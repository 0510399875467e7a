"""Inverse propensity scoring with normalised, clipped weights.

    V = sum(W R) / sum(W),   W = min(W_hajek, clip),   influence_i = W_i (R_i - V) / mean(W)

Clipping reduces the variance and moves V towards the base policy's value; with an infinite clip this is SNIPS. The weights
are not calibrated, so that their effective sample size measures overlap.

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
    """The mean reward under normalised weights, clipped at `options.clip`."""
    return weighted_mean(clipped(sample.raw, options.clip), sample)
