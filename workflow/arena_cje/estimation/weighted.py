"""The weighted mean of rewards, with its influence function: the estimators by importance weights alone share it."""

from __future__ import annotations

import numpy as np

from arena_cje.estimation.records import Point, Sample


def weighted_mean(weight: np.ndarray, sample: Sample) -> Point:
    """Mean of the rewards under mean-one weights (u,); the influence function uses the held-out rewards."""
    value = float(np.mean(weight * sample.reward))
    centre = np.mean(weight * sample.held_out)
    return Point(value, weight * (sample.held_out - centre), weight)
