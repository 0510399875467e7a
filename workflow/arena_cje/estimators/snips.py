"""Self-normalised inverse propensity scoring (SNIPS).

    V = sum(W R) / sum(W),   influence_i = W_i (R_i - V) / mean(W),   W_i proportional to exp(log ratio_i)

Needs overlap: a few rows carry the estimate when the policies differ. Biased by O(1/n), bounded by the rewards,
unchanged when all log ratios move by a constant. The influence function uses held-out rewards and is centred on their
weighted mean.

Swaminathan & Joachims (2015), "The self-normalized estimator for counterfactual learning", NeurIPS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena_cje.estimation.weighted import weighted_mean

if TYPE_CHECKING:
    from arena_cje.estimation.records import Options, Point, Sample

NEEDS = ("log_ratio",)


def estimate(sample: Sample, options: Options) -> Point:
    return weighted_mean(sample.raw, sample)
