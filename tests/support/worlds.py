"""Small data sets with known properties, shared by the tests of estimation."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.simulate import Target, World, draw

if TYPE_CHECKING:
    from arena_cje.estimation.records import Draws, Logged

HEALTHY = World(targets={"better": Target(0.4, 0.3), "clone": Target(), "worse": Target(-0.4, 0.3)})
UNHELPFUL = World(targets={"unhelpful": Target(-4.0, 4.0)})


def fully_labelled(world: World) -> World:
    return replace(world, coverage=1.0)


def take(logged: Logged, rows: np.ndarray) -> Logged:
    """The logged rows at these positions, in this order."""
    return _rows(logged, rows)


def take_draws(draws: dict[str, Draws], rows: np.ndarray) -> dict[str, Draws]:
    return {policy: _rows(policy_draws, rows) for policy, policy_draws in draws.items()}


def _rows(record, rows: np.ndarray):
    """Every array of a record has a row for each logged response."""
    values = {part.name: getattr(record, part.name) for part in fields(record)}
    return replace(record, **{name: value[rows] for name, value in values.items() if isinstance(value, np.ndarray)})


def healthy(n: int = 400, seed: int = 0, **changes) -> tuple[Logged, dict[str, Draws], dict[str, float]]:
    return draw(replace(HEALTHY, **changes), n, seed)
