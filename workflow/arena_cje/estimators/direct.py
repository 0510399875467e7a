"""The direct method: mean calibrated score of fresh draws.

    V = mean_i g_i + c,   g_i = mean_j f(S'_ij),   influence_i = g_i - mean g + the influence of c

c is the correction by labels of the target's own draws (`arena_cje.estimation.fresh`), by default in one estimate with the
labels of all other policies (`arena_cje.estimation.joint`). Needs no log probabilities and no
overlap, but a calibrator that transports to the target: its responses have the same mean label at the same judge score,
and labels exist at its scores. With labels on ten or more prompts of the target's own draws, c corrects a calibrator that
does not transport. The variance of g_i includes the noise of the draws.

Dudik, Langford & Li (2011), "Doubly robust policy evaluation and learning", ICML.
"""

from __future__ import annotations

from arena_cje.estimation.fresh import corrected_mean
from arena_cje.estimation.records import Options, Point, Sample

NEEDS = ("fresh_score",)


def estimate(sample: Sample, options: Options) -> Point:
    """The mean calibrated score of the fresh draws, corrected by their own labels."""
    return Point(*corrected_mean(sample, sample.fresh, sample.fresh_held_out))
