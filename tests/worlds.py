"""Small data sets with known properties, shared by the tests of estimation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from arena_cje.estimation.records import Draws, Logged
from arena_cje.simulate import Target, World, draw

HEALTHY = World(targets={"better": Target(0.4, 0.3), "clone": Target(), "worse": Target(-0.4, 0.3)})
UNHELPFUL = World(targets={"unhelpful": Target(-4.0, 4.0)})


def fully_labelled(world: World) -> World:
    return replace(world, coverage=1.0)


def take(logged: Logged, rows: np.ndarray) -> Logged:
    """The logged rows at these positions, in this order."""
    return replace(
        logged,
        prompt_id=logged.prompt_id[rows],
        log_ratio=logged.log_ratio[rows],
        judge_score=logged.judge_score[rows],
        oracle_label=logged.oracle_label[rows],
    )


def take_draws(draws: dict[str, Draws], rows: np.ndarray) -> dict[str, Draws]:
    return {p: Draws(p, d.judge_score[rows], d.oracle_label[rows]) for p, d in draws.items()}


def healthy(n: int = 400, seed: int = 0, **changes) -> tuple[Logged, dict[str, Draws], dict[str, float]]:
    return draw(replace(HEALTHY, **changes), n, seed)
