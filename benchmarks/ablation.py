"""Ablations against their limit: ten thousand cells of a thousand prompts in ten minutes on two cores.

Seconds are processor time, in this process, after imports. What jobs need to start is counted for as many jobs as these
cells are divided into by default.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from arena_cje import estimators
from arena_cje.ablation.grid import DISTRIBUTION, SCORE, Block, Switches, settings
from arena_cje.ablation.populations import Simulated
from arena_cje.ablation.run import run_block
from arena_cje.ablation.worlds import COVARIATE
from arena_cje.config.records.analysis import Ablation
from arena_cje.diagnostics.thresholds import Thresholds
from benchmarks._result import Result
from benchmarks._timing import progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arena_cje.ablation.grid import Setting

CELLS, N, LIMIT, CORES = 10_000, 1000, 600, 2
COVERAGES = (0.05, 0.1, 0.25, 0.5)
SEEDS = 5
JOB = "from arena_cje.ablation import plan, recorded, run\nfrom arena_cje.stages import jobs"

DEFAULT = settings({name: (name, {}) for name in Ablation().estimators}, Switches())
EVERY = settings({name: (name, {}) for name in estimators.NAMES}, Switches())
SWITCHED = settings(
    {name: (name, {}) for name in Ablation().estimators},
    Switches(("calibrated", "judge"), ("calibrated", "raw"), ((), (COVARIATE,)), (SCORE, DISTRIBUTION)),
)


def run() -> Iterator[Result]:
    """All benchmarks of ablations."""
    start = start_of_a_job()
    grids = {
        "the default estimators": ("arena", DEFAULT),
        "every estimator": ("arena", EVERY),
        "every switch of the default estimators": ("arena_length", SWITCHED),
    }
    for name, (world, chosen) in grids.items():
        progress(f"ablation: {name}, {len(chosen)} settings ...")
        seconds = seconds_of_a_cell(world, chosen)
        total = (CELLS * seconds + CELLS / Ablation().cells_per_job * start) / CORES
        detail = (
            f"{total:.0f} of {LIMIT} s for {CELLS} cells of n = {N} on {CORES} cores: {seconds:.3g} processor seconds a cell, "
            f"{start:.2g} s to start a job"
        )
        yield Result(f"{name}: share of the limit", total / LIMIT, "<= 1", detail)
    alone = sum(seconds_of_a_cell("arena", [one]) for one in EVERY) / len(EVERY)
    together = seconds_of_a_cell("arena", EVERY)
    yield Result(
        "shared work",
        together / alone,
        "<= 0.7",
        f"a cell among {len(EVERY)} settings / alone, {alone:.3g} processor seconds",
    )


def seconds_of_a_cell(world: str, chosen: Sequence[Setting], n: int = N, seeds: int = SEEDS) -> float:
    """Processor seconds of a cell of a block with these settings."""
    population = Simulated.named(world)
    run_block(
        population, Block(n, seeds, 1), COVERAGES[-1:], chosen, Thresholds()
    )  # imports, and caches of the machine
    before = time.process_time()
    run_block(population, Block(n, 0, seeds), COVERAGES, chosen, Thresholds())
    return (time.process_time() - before) / (seeds * len(COVERAGES) * len(chosen))


def start_of_a_job() -> float:
    """Processor seconds of a job before its first cell."""
    before = _of_children()
    subprocess.run([sys.executable, "-c", JOB], check=True)
    return _of_children() - before


def _of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
