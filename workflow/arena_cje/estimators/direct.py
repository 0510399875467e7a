"""The direct method: mean calibrated score of fresh draws.

    V = mean_i g_i,   g_i = mean_j f(S'_ij),   influence_i = g_i - V

Needs no log probabilities and no overlap, but a calibrator that holds for the target's responses: the same mean label
at the same judge score, and labels where its scores lie. The noise of the draws is in the spread of g_i already.

Dudik, Langford & Li (2011), "Doubly robust policy evaluation and learning", ICML.
"""

from __future__ import annotations

import numpy as np

from arena_cje.estimation.records import Options, Point, PolicyData, Rewards

NEEDS = ("fresh_score",)


def estimate(data: PolicyData, rewards: Rewards, options: Options) -> Point:
    value = float(np.nanmean(rewards.fresh, axis=1).mean())
    held_out = np.nanmean(rewards.fresh_held_out, axis=1)  # (u,)
    return Point(value, held_out - held_out.mean())
