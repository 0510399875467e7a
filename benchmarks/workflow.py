"""Snakemake around the model: how many jobs, how much time goes by beside the model's work, what starts and plans cost.

    overhead = 1 - seconds of the jobs that run a model / (2 * wall time),   on two cores

The default experiment runs once from nothing, in a folder of its own, with the embedded model. Processor time is that of
Snakemake and of all processes that it starts; an empty workflow, of one rule whose file exists, is Snakemake alone.
"""

from __future__ import annotations

import csv
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from arena_cje.errors import UserError
from benchmarks._result import Result
from benchmarks._timing import ROUNDS, cores, progress

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SNAKEMAKE = [sys.executable, "-m", "snakemake"]
MODEL_STAGES = ("generate", "score", "judge")
CORES = 2
MANY = (10_000, 100_000)  # prompts of a plan
EMPTY = """
rule all:
    input:
        "done",


rule done:
    output:
        "done",
    shell:
        "touch {output}"
"""


class Cost(NamedTuple):
    """What a command took, in seconds, and what it printed."""

    wall: float
    cpu: float
    text: str


class Work(NamedTuple):
    """Seconds of the jobs that ran a model, by the wall and in processor time."""

    wall: float
    cpu: float
    n_jobs: int


def run() -> Iterator[Result]:
    """The default experiment from nothing, then again with nothing to do, then the plans of larger ones."""
    with tempfile.TemporaryDirectory() as name:
        folder, empty = Path(name, "default"), Path(name, "empty")
        n_jobs = count_jobs(snakemake(folder, "--dry-run").text)
        yield Result("jobs of the default experiment", n_jobs, "<= 120", "from nothing, the model file at hand")
        progress("workflow: the default experiment, which takes minutes ...")
        whole = snakemake(folder)
        yield from _overheads(whole, model_work(folder / "logs" / "benchmarks"))
        empty.mkdir()
        (empty / "Snakefile").write_text(EMPTY)
        _called([*SNAKEMAKE, "--cores", str(CORES)], empty)
        yield _nothing_to_do(folder, empty)
        for n_prompts in MANY:
            yield _plan(Path(name, str(n_prompts)), n_prompts)


def snakemake(folder: Path, *arguments: str) -> Cost:
    """This workflow in a folder, on two cores."""
    folder.mkdir(exist_ok=True)
    return _called([*SNAKEMAKE, "-s", str(ROOT / "Snakefile"), "--cores", str(CORES), "--no-hooks", *arguments], folder)


def _called(command: list[str], folder: Path) -> Cost:
    """The cost of a command; a `UserError` with its last line where it fails."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise UserError(f"{' '.join(command)} failed in {folder}: {(process.stderr.strip().splitlines() or ['?'])[-1]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, process.stdout + process.stderr)


def count_jobs(dry_run: str) -> int:
    """The number of jobs that a dry run announces."""
    return int(re.search(r"^total +(\d+)$", dry_run, re.MULTILINE)[1])


def model_work(benchmarks: Path) -> Work:
    """Sums over the benchmark files of the jobs that run a model."""
    rows = []
    for stage in MODEL_STAGES:
        for path in sorted((benchmarks / stage).rglob("*.tsv")):
            with path.open(encoding="utf-8", newline="") as file:
                rows += csv.DictReader(file, delimiter="\t")
    return Work(sum(float(row["s"]) for row in rows), sum(float(row["cpu_time"]) for row in rows), len(rows))


def _overheads(whole: Cost, work: Work) -> Iterator[Result]:
    enough = cores() >= CORES
    detail = f"{whole.wall:.0f} s on {CORES} cores, {work.n_jobs} jobs with a model together {work.wall:.0f} s"
    share = 1 - work.wall / (CORES * whole.wall) if enough else None
    yield Result("time beside the model's work / all", share, "<= 0.2", detail if enough else f"needs {CORES} cores")
    detail = f"{whole.cpu:.0f} CPU-s, of them {work.cpu:.0f} in jobs with a model; busy neighbours do not change this"
    yield Result("CPU time beside the model's work / all", 1 - work.cpu / whole.cpu, "<= 0.2", detail)


def _nothing_to_do(folder: Path, empty: Path) -> Result:
    """A run with nothing to do against an empty workflow, in turn."""
    pairs = []
    for k in range(ROUNDS):
        ours, theirs = snakemake(folder).cpu, _called([*SNAKEMAKE, "--cores", str(CORES)], empty).cpu
        progress(f"round {k + 1} of {ROUNDS}: nothing to do {ours:.1f} CPU-s, empty workflow {theirs:.1f} CPU-s")
        pairs.append((ours, theirs))
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    detail = f"{ours:.2f} CPU-s, an empty workflow {theirs:.2f} CPU-s"
    value = statistics.median(one / other for one, other in pairs)
    return Result("CPU time with nothing to do / of an empty workflow", value, "<= 2", detail)


def _plan(folder: Path, n_prompts: int) -> Result:
    """A dry run from nothing: the first, which reads the prompts, and the next."""
    folder.mkdir()
    shipped = [json.loads(line) for line in (ROOT / "resources/prompts/default.jsonl").read_text().splitlines()]
    rows = (
        {**shipped[k % len(shipped)], "prompt_id": f"q{k}", "prompt": f"{k}. {shipped[k % len(shipped)]['prompt']}"}
        for k in range(n_prompts)
    )  # equal prompts would be left out
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"n_prompts": n_prompts, "prompts": {"source": "prompts.jsonl"}}
    (folder / "own.yaml").write_text(yaml.safe_dump(own))
    first, again = (snakemake(folder, "--dry-run", "--quiet", "--configfile", "own.yaml") for _ in range(2))
    progress(f"plan of {n_prompts} prompts: {first.cpu:.1f} CPU-s, then {again.cpu:.1f} CPU-s")
    goal = "<= 10" if n_prompts == MANY[0] else None
    detail = f"dry run from nothing; {again.cpu:.1f} CPU-s once the prompts are known"
    return Result(f"CPU seconds to plan {n_prompts:,} prompts".replace(",", " "), first.cpu, goal, detail)
