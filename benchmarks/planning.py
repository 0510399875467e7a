"""Plans from noisy pilots: do the studies that are planned reach the width they were planned for, and what do they detect?

Each of 200 times a pilot is drawn in a world whose truth is known, a study is planned from it, drawn anew and analysed:

    width     the cheapest study whose intervals of differences are at most so wide
    power     the cheapest that detects the true difference of the better target
    budget    the most precise for a budget

A study reaches its width where no interval is more than a tenth wider. PLANNING_WORLD names a world that runs alone,
PLANNING_PLANS another number of plans. The table is results/bench/planning.csv.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.estimation.contrasts import p_value
from arena_cje.estimation.records import Options
from arena_cje.evaluation.evaluate import evaluate
from arena_cje.planning.pilots import pilot_of_data
from arena_cje.planning.sample_size import Costs
from arena_cje.planning.study import Goal, Size, best_for_budget, cheapest, cost, precision
from arena_cje.simulate import draw, truth
from benchmarks._result import Result, save_table
from benchmarks._timing import cores, progress
from benchmarks.labels import WORLDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arena_cje.estimation.records import Draws, Estimate, Logged
    from arena_cje.planning.study import Pilot
    from arena_cje.simulate import World

PATH = Path("results/bench/planning.csv")
PILOTS = ((300, 50), (500, 100))  # prompts and labelled ones
CHUNK = 10  # plans that a process takes at a time
PLANS = int(os.environ.get("PLANNING_PLANS", "200"))
COSTS = Costs(0.01, 0.10)  # dollars of a prompt and of a label
SHARPER = 0.6  # widths that are planned for, in those of the pilot's size: some three times its labels
BUDGET = 100.0
STUDY_SEED = 10**6  # seeds of studies are those of pilots and this

Row = dict[str, Any]


def run() -> Iterator[Result]:
    """Plan in all worlds, write the table, and hold it against the goals."""
    rows = []
    name = os.environ.get("PLANNING_WORLD")
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as pool:
        for world in [name] if name else ("chat", "few scores", "pass or fail"):
            for prompts, labels in PILOTS:
                width = typical_width(WORLDS[world], prompts, labels) * SHARPER
                chunks = [range(start, min(start + CHUNK, PLANS)) for start in range(0, PLANS, CHUNK)]
                plan = partial(studies, world, prompts, labels, width)
                parts = [one for part in pool.map(plan, chunks) for one in part]
                rows += summarise(world, prompts, labels, width, parts)
                progress(f"{world}, pilots of {prompts} prompts, {labels} of them labelled")
                print(_table(rows[-3:]), flush=True)
    save_table(rows, PATH)
    yield from promises(rows)


def typical_width(world: World, prompts: int, labels: int) -> float:
    """Half-width of the widest difference, the mean over some data sets of this size."""
    return float(np.mean([_widest(_differences(world, prompts, labels, seed)) for seed in range(900, 908)]))


def studies(world: str, prompts: int, labels: int, width: float, seeds: Sequence[int]) -> list[Row]:
    """Plans by pilots of these seeds, and the studies that were planned, a row each."""
    return [row for seed in seeds for row in _plans(WORLDS[world], prompts, labels, width, seed)]


def _plans(world: World, prompts: int, labels: int, width: float, seed: int) -> Iterator[Row]:
    values = truth(world)
    difference = abs(values["better"] - values["base"])
    pilot = pilot_of_data(*_data(world, prompts, labels, seed), None, Options(seed=seed))
    for kind, size in (
        ("width", cheapest(pilot, COSTS, Goal(half_width=width))),
        ("power", cheapest(pilot, COSTS, Goal(difference=difference))),
        ("budget", best_for_budget(pilot, COSTS, BUDGET)),
    ):
        assert size is not None
        planned = width if kind == "width" else float(precision(pilot, size.n, size.m).half_width.max())
        yield {"kind": kind} | _study(world, pilot, size, planned, seed)


def _study(world: World, pilot: Pilot, size: Size, planned: float, seed: int) -> Row:
    """A planned study: its width in that planned, its cost, and whether it detects that the better target is better."""
    differences = _differences(world, size.n, size.m, STUDY_SEED + seed)
    return {
        "n": size.n,
        "m": size.m,
        "cost": cost(pilot, COSTS, size),
        "relative_width": _widest(differences) / planned,
        "detected": p_value(differences["better"]) * len(differences) <= pilot.alpha,
    }


def _data(world: World, prompts: int, labels: int, seed: int) -> tuple[Logged, dict[str, Draws]]:
    world = replace(world, coverage=labels / prompts, target_labels=labels / prompts, paired=True)
    logged, draws, _ = draw(world, prompts, seed)
    return replace(logged, covariates=None), {p: replace(d, covariates=None) for p, d in draws.items()}


def _differences(world: World, prompts: int, labels: int, seed: int) -> dict[str, Estimate]:
    """Differences to the base by target."""
    evaluation = evaluate("direct", *_data(world, prompts, labels, seed), Options(seed=seed))
    return {policy: one - evaluation.base for policy, one in evaluation.estimates.items()}


def _widest(differences: Mapping[str, Estimate]) -> float:
    """Half-width of the widest interval."""
    ends = [one.interval() for one in differences.values()]
    return max((high - low) / 2 for low, high in ends)


def summarise(world: str, prompts: int, labels: int, width: float, studies: Sequence[Row]) -> list[Row]:
    """One row for each kind of plan."""
    rows = []
    for kind in ("width", "power", "budget"):
        own = [one for one in studies if one["kind"] == kind]
        relative = [one["relative_width"] for one in own]
        rows.append(
            {
                "world": world,
                "prompts": prompts,
                "labels": labels,
                "kind": kind,
                "width": width if kind == "width" else None,
                "plans": len(own),
                "reached": float(np.mean(np.array(relative) <= 1.1)),
                "median_width": float(np.median(relative)),
                "detected": float(np.mean([one["detected"] for one in own])),
                "over_budget": sum(one["cost"] > BUDGET * (1 + 1e-9) for one in own) if kind == "budget" else None,
                "median_n": float(np.median([one["n"] for one in own])),
                "median_m": float(np.median([one["m"] for one in own])),
                "median_cost": float(np.median([one["cost"] for one in own])),
            }
        )
    return rows


def promises(rows: Sequence[Row]) -> Iterator[Result]:
    """The goals of plans."""
    worst = min(rows, key=lambda row: row["reached"])
    yield Result("planned studies that reach their width, worst", worst["reached"], ">= 0.9", _place(worst))
    worst = min((row for row in rows if row["kind"] == "power"), key=lambda row: row["detected"])
    yield Result("planned studies that detect their difference, worst", worst["detected"], ">= 0.8", _place(worst))
    over = sum(row["over_budget"] or 0 for row in rows)
    yield Result("planned studies over their budget", over, "<= 0", f"of {sum(r['plans'] for r in rows) // 3}")
    wide = min((row for row in rows if row["kind"] == "width"), key=lambda row: row["median_width"])
    yield Result("median width in that planned, least", wide["median_width"], None, _place(wide))


def _place(row: Row) -> str:
    return f"{row['world']}, pilot of {row['prompts']} prompts and {row['labels']} labelled, {row['kind']}"


def _table(rows: Sequence[Row]) -> str:
    """Rows, one a line."""
    lines = []
    for row in rows:
        over = "" if row["over_budget"] is None else f", {row['over_budget']} over budget"
        place = f"{row['world']:13} {row['prompts']:>4}/{row['labels']:<4} {row['kind']:7}"
        precise = (
            f"reached {row['reached']:.3f}  median width {row['median_width']:.2f}  detected {row['detected']:.3f}"
        )
        size = f"n {row['median_n']:.0f} m {row['median_m']:.0f} ${row['median_cost']:.0f}{over}"
        lines.append(f"{place} {precise}  {size}")
    return "\n".join(lines)
