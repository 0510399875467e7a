"""A small labelling study: responses of three policies, one of them partly a clone, and raters of known bias and noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arena_cje.labeling import tasks
from arena_cje.labeling.records import Answer, Scale, Vote

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET = b"a secret of this study, long enough"
SCALE = Scale(1, 5)
POLICIES = ("base", "clone", "other")
TERMS = tasks.Terms(votes=3, price=0.08, duplicates=0.1)


def answers(n: int = 200, policies: tuple[str, ...] = POLICIES) -> list[Answer]:
    """One response of each policy to each prompt; those of `clone` are the base's on every fourth prompt."""

    def response(i: int, policy: str) -> str:
        return (
            f"Answer {i * 7919 % 1000} by {'base' if policy == 'clone' and i % 4 == 0 else policy}".replace("base", "A")
            .replace("clone", "B")
            .replace("other", "C")
        )

    return [Answer(i, f"q{i}", f"Question {i}?", response(i, p), p) for i in range(n) for p in policies]


def make(name: str = "first", n: int = 200, policies: tuple[str, ...] = POLICIES, **changes) -> tasks.Batch:
    """A batch of a tenth of the prompts; `changes` replace arguments of `tasks.make`."""
    defaults = {
        "limit": tasks.Limit(coverage=0.1),
        "terms": TERMS,
        "n_prompts": n,
        "seed": 3,
        "secret": SECRET,
        "shares": dict.fromkeys(policies, 1.0),
    }
    return tasks.make(answers(n, policies), name=name, **defaults | changes)


def simulated_votes(
    batch: tasks.Batch, expected: Mapping[str, float], bias: Mapping[str, float], noise: float, seed: int = 0
) -> list[Vote]:
    """A vote of each rater on each task: expected label of the item, in [0, 1], with bias and noise, on the scale of 1 to 5."""
    rng = np.random.default_rng(seed)
    item_of_copy = {row.copy_id: row.item_id for row in batch.key}
    votes = []
    for task in batch.tasks:
        for rater, shift in bias.items():
            label = expected[item_of_copy.get(task.item_id, task.item_id)] + shift + rng.normal(0, noise)
            score = float(np.clip(np.rint(1 + 4 * label), 1, 5))
            votes.append(
                Vote(task.item_id, rater, score, "simulated", "", f"2026-01-01T00:00:{len(votes) % 60:02d}Z", 20.0)
            )
    return votes
