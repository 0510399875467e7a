"""Self-normalised inverse propensity scoring (SNIPS).

    V = sum(W R) / sum(W),   influence_i = W_i (R_i - V) / mean(W),   W_i proportional to exp(log ratio_i)

Needs overlap: when the policies differ, a few rows have most of the weight. The bias is O(1/n), V lies within the range of
the rewards, and a constant added to all log ratios does not change it. The influence function uses held-out rewards and
is centred on their weighted mean.

Swaminathan & Joachims (2015), "The self-normalized estimator for counterfactual learning", NeurIPS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena_cje.estimation.weighted import weighted_mean

if TYPE_CHECKING:
    from arena_cje.estimation.records import Options, Point, Sample

NEEDS = ("log_ratio",)


def estimate(sample: Sample, options: Options) -> Point:
    """The mean reward under normalised weights."""
    return weighted_mean(sample.raw, sample)
