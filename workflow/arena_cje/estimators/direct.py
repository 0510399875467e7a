"""The direct method: mean calibrated score of fresh draws.

    V = mean_i g_i + c,   g_i = mean_j f(S'_ij),   influence_i = g_i - mean g + what the correction c adds (`_fresh`)

Needs no log probabilities and no overlap, but a calibrator that holds for the target's responses: the same mean label
at the same judge score, and labels where its scores lie. Ten or more labelled prompts of the target's own mend a
calibrator that does not hold. The noise of the draws is in the spread of g_i already.

Dudik, Langford & Li (2011), "Doubly robust policy evaluation and learning", ICML.
"""

from __future__ import annotations

from arena_cje.estimation.fresh import fresh_mean
from arena_cje.estimation.records import Options, Point, Sample

NEEDS = ("fresh_score",)


def estimate(sample: Sample, options: Options) -> Point:
    return Point(*fresh_mean(sample.fresh, sample.fresh_held_out, sample.fresh_label, sample.cluster))
