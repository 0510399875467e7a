"""Planned looks in worlds whose truth is known: false statements over all looks, labels bought, and widths.

Each replicate is one study, whose labels grow from look to look on the same prompts for base and targets. The looks are
those of the workflow: `direct` at each coverage, then `results.looks`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.records import ROUNDING, Options
from arena_cje.evaluation.evaluate import evaluate
from arena_cje.provenance import code_hash
from arena_cje.results import looks
from arena_cje.simulate import Target, World, draw
from benchmarks._simulation import REPLICATES, Row, finished, in_chunks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

ALPHA = 0.05
COVERAGES = ("0.1", "0.2", "0.4", "0.7", "1.0")


@dataclass(frozen=True)
class LookCell:
    """A world, a number of prompts and a plan of looks."""

    name: str
    world: World
    plan: looks.Plan
    n: int = 400


# Oracles are strict or generous with a prompt, so that labels of one prompt go together.
EQUAL = World({"same": Target()}, strictness=0.5, paired=True)
SEVERAL = World({"same": Target(), "better": Target(0.15), "worse": Target(-0.4)}, strictness=0.5, paired=True)
NARROW = looks.Plan(coverages=COVERAGES, until="width", width=0.07)

CELLS = (
    *(
        LookCell(f"{spending}, {name}", world, looks.Plan(coverages=COVERAGES, spending=spending, margin=0.04))
        for spending in ("obrien_fleming", "pocock")
        for name, world in (("an equal target", EQUAL), ("three targets", SEVERAL))
    ),
    LookCell("until width", EQUAL, NARROW),
)


def observe(cell: LookCell, seed: int) -> tuple[list[looks.Look], dict[str, float]]:
    """All looks of a study, and the true differences."""
    observed = []
    for coverage in cell.plan.coverages:
        world = replace(cell.world, coverage=float(coverage), target_labels=float(coverage))
        logged, draws, values = draw(world, cell.n, seed)
        evaluation = evaluate("direct", logged, draws, Options(seed=seed))
        labels = int(logged.labelled.sum())
        differences = {policy: one - evaluation.base for policy, one in evaluation.estimates.items()}
        observed.append(looks.Look(coverage, labels, labels * (1 + len(draws)), None, differences))
    return observed, {policy: values[policy] - values["base"] for policy in draws}


def replicate(cell: LookCell, seed: int) -> Row:
    """One study: what its looks would show if they went on to the end, and what they show until they stop."""
    observed, truth = observe(cell, seed)
    level = ALPHA / len(truth)
    plain = [{p: {"interval": d.interval(level)} for p, d in look.differences.items()} for look in observed]
    by_target = looks.readings(cell.plan, observed, ALPHA)
    repeated = [{p: asdict(of_looks[k]) for p, of_looks in by_target.items()} for k in range(len(observed))]
    stopped = looks.document(cell.plan, observed, alpha=ALPHA)
    last = stopped["looks"][-1]["targets"]
    return {
        "miss_at_some_look": any(_misses(readings, truth) for readings in repeated),
        "miss_at_some_plain_look": any(_misses(readings, truth) for readings in plain),
        "miss_at_the_end": _misses(last, truth),
        "false_status": any(_is_false(reading["status"], truth[p], cell.plan) for p, reading in last.items()),
        "decided": all(reading["status"] not in looks.OPEN for reading in last.values()),
        "labels": stopped["looks"][-1]["labels"],
        "last_width": _width(repeated[-1]),
        "fixed_width": _width(plain[-1]),
    }


def replicates(cell: LookCell, seeds: range) -> list[Row]:
    """Rows of several studies."""
    return [replicate(cell, seed) for seed in seeds]


def summarise(cell: LookCell, rows: Sequence[Row]) -> list[Row]:
    """One row: the share of studies for each thing that is true or false, the mean for each number."""
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return [{"cell": cell.name, "n": cell.n, "replicates": len(rows)} | means]


def run_cell(cell: LookCell, pool: Executor, folder: Path, *, n: int = REPLICATES) -> Row:
    """The row of a cell: read again where it was finished before with this code, else computed."""
    path = folder / f"looks_{cell.name.replace(', ', '_').replace(' ', '-')}.json"
    code = code_hash("arena_cje.results.looks", "arena_cje.evaluation.evaluate", "arena_cje.simulate")
    return finished(path, n, lambda: summarise(cell, in_chunks(partial(replicates, cell), pool, n)), code)[0]


def _misses(readings: Mapping[str, Row], truth: Mapping[str, float]) -> bool:
    intervals = {policy: reading["interval"] for policy, reading in readings.items() if reading["interval"]}
    return any(not low - ROUNDING <= truth[policy] <= high + ROUNDING for policy, (low, high) in intervals.items())


def _is_false(status: str, truth: float, plan: looks.Plan) -> bool:
    """Is a status wrong about a true difference?"""
    return {
        "better_by_margin": truth < plan.margin - ROUNDING,
        "better": truth <= 0,
        "worse": truth >= 0,
        "equivalent": abs(truth) > plan.margin + ROUNDING,
    }.get(status, False)


def _width(readings: Mapping[str, Row]) -> float:
    """Mean width of the intervals."""
    return float(np.mean([high - low for low, high in (reading["interval"] for reading in readings.values())]))
