"""Simulated worlds of an ablation: those of `arena_cje.simulate`, and two that are like chats of an arena.

Numbers that both follow, from a thousand responses to Chatbot Arena prompts with 480 labels by a strong model: judge scores
with 13 values, mean label .75 and standard deviation .23, correlation of judge and oracle .4, an unhelpful policy with three
quarters of its scores at .2 and below. `parallel_universe_prompt` and `premium` are better by little, `unhelpful` is worse
than its scores. The responses of all three are so unlike those of the base that almost no weight is left, and what makes
them better or worse is in no base response: weights depend on their style alone.

    arena          the judge has 13 scores, and calibration transports exactly, but to `unhelpful`
    arena_length   the judge gives any score, has a distribution, and prefers a style that is a covariate; styles differ by
                   less, so that base responses have all of them
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from arena_cje import simulate
from arena_cje.simulate import ARENA_LEVELS, Target, World

if TYPE_CHECKING:
    from collections.abc import Mapping

COVARIATE = "style"  # the one covariate of simulated worlds

ARENA_TARGETS = {
    "clone": Target(),
    "parallel_universe_prompt": Target(style=2.4, unseen=0.20),
    "premium": Target(style=-2.3, unseen=0.11),
    "unhelpful": Target(style=2.6, unseen=-4.2, drop=1.0),
}
STYLES = {"parallel_universe_prompt": 0.8, "premium": -0.8, "unhelpful": 0.8}
LENGTH_TARGETS = {
    policy: replace(target, style=STYLES.get(policy, target.style)) for policy, target in ARENA_TARGETS.items()
}
LABELS = {"intercept": 0.93, "slope": 0.5, "noise": 0.75}

WORLDS: Mapping[str, World] = simulate.WORLDS | {
    "arena": World(ARENA_TARGETS, levels=ARENA_LEVELS, **LABELS),
    "arena_length": World(
        LENGTH_TARGETS, judge_intercept=1.2, judge_slope=0.6, judge_style=0.06, judge_spread=0.2, **LABELS
    ),
}
