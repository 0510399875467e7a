"""Outcome models: monotone in the held-out calibrated score, cross-fitted over folds of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.isotonic import isotonic

if TYPE_CHECKING:
    from arena_cje.estimation.records import Sample


def outcome(sample: Sample, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Predicted rewards of logged responses (u,) and fresh draws (u, m), each by a fit without the row's fold.

    weight: weights (u,) of the fit; None is one for each row.
    """
    if sample.reward is sample.index:  # a jackknife sample: reward and score are the same, the fit is the identity
        return sample.index, sample.fresh_held_out
    at_logged, at_fresh = np.empty(sample.reward.shape), np.empty(sample.fresh.shape)
    for k in range(int(sample.fold.max()) + 1):
        test = sample.fold == k
        train = test if test.all() else ~test
        model = isotonic(sample.index[train], sample.reward[train], None if weight is None else weight[train])
        at_logged[test], at_fresh[test] = model(sample.index[test]), model(sample.fresh_held_out[test])
    return at_logged, at_fresh
