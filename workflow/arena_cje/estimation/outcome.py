"""Outcome models: monotone in the held-out calibrated score, fitted by the other folds of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.isotonic import isotonic

if TYPE_CHECKING:
    from arena_cje.estimation.records import Sample


def outcome(sample: Sample, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Predicted rewards of logged responses (u,) and fresh draws (u, m), by fits with weights (u,)."""
    if sample.reward is sample.index:  # without a fold of the oracle slice: the score itself is the reward
        return sample.index, sample.fresh_held_out
    at_logged, at_fresh = np.empty(sample.reward.shape), np.empty(sample.fresh.shape)
    for k in range(int(sample.fold.max()) + 1):
        held = sample.fold == k
        train = held if held.all() else ~held
        fitted = isotonic(sample.index[train], sample.reward[train], None if weight is None else weight[train])
        at_logged[held], at_fresh[held] = fitted(sample.index[held]), fitted(sample.fresh_held_out[held])
    return at_logged, at_fresh
