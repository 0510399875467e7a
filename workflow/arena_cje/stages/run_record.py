"""The record of a run: which jobs it has and how many items each has to do, written when the run starts and when it ends.

`.arena-cje/run.json` is all that `stages.status` needs beside the files that jobs write themselves: it has the outputs that
were made before this run and those to be made in it.
"""

from __future__ import annotations

import os
import re
import socket
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje import files
from arena_cje.data.coverage import has_label
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arena_cje.config.records import Config

RECORD = Path(".arena-cje/run.json")
CLOCK_TOLERANCE = 1.0  # seconds between the clocks of this machine and of the file system, at most
NO_RECORD = "is not the record of a run; remove it, and the next run writes it again"
# The outputs of jobs that generate, score or grade, whose items are counted.
OUTPUT = re.compile(
    r"results/(?P<stage>responses|logprobs|judge|judges/[^/]+|oracle)/(?P<name>[^/]+)/(?:coverage_(?P<coverage>[^/]+)/)?"
    r"(?P<shard>\d{4,})\.(?:jsonl|parquet)"
)
STAGE_NAMES = {"responses": "generate", "logprobs": "score"}


@dataclass(frozen=True)
class PlannedJob:
    """A job of a run. stage is None for jobs that join, analyse and show: they have outputs and no items."""

    outputs: tuple[str, ...]
    needed: bool  # in this run; otherwise its outputs are up to date
    stage: str | None = None
    name: str | None = None  # of the policy, or of the scoring context
    shard: str | None = None
    items: int = 0
    log: str | None = None
    benchmark: str | None = None
    journal: str | None = None
    journal_bytes: int = 0  # size of the journal when the run starts: what comes after it is of this run


@dataclass(frozen=True)
class RunRecord:
    """A run. started, ended: in seconds since the epoch; succeeded: None while it has not ended; interrupted: by the user."""

    started: float
    process: int
    host: str
    jobs: tuple[PlannedJob, ...]
    ended: float | None = None
    succeeded: bool | None = None
    interrupted: bool = False


def planned_job(config: Config, outputs: Sequence[str], logs: Sequence[str], *, needed: bool) -> PlannedJob:
    """A job by its outputs, with the number of its items where it generates, scores or grades.

    logs: its log and, where it has one, its benchmark file.
    """
    match = OUTPUT.fullmatch(outputs[0])
    stage = STAGE_NAMES.get(match["stage"], match["stage"]) if match else ""
    names = config.contexts if stage == "score" else config.policies
    # A job of an outer workflow may have an output of the same form.
    if match is None or len(logs) != 2 or match["name"] not in names or not _exists(config, stage):
        return PlannedJob(tuple(outputs), needed, log=next(iter(logs), None))
    items = _n_items(config, stage, match["name"], int(match["shard"]), match["coverage"])
    journal = _journal(config, stage, match["name"], match["shard"])
    size = journal.stat().st_size if journal.exists() else 0
    return PlannedJob(tuple(outputs), needed, stage, match["name"], match["shard"], items, *logs, str(journal), size)


def _exists(config: Config, stage: str) -> bool:
    return stage in ("generate", "score") or stage in config.graders


def _journal(config: Config, stage: str, name: str, shard: str) -> Path:
    """The journal of a job, which has items, or replies where the model is behind an API."""
    blocks = {"generate": config.policies, "score": config.contexts}.get(stage)
    block = blocks[name] if blocks else config.graders[stage]
    return Path("results/journal", *(["calls"] if block.hosted else []), stage, name, f"{shard}.jsonl")


def _n_items(config: Config, stage: str, name: str, shard: int, coverage: str | None) -> int:
    """Responses that a job generates, scores or grades; a job of an oracle those that the next lower coverage lacks."""
    n_prompts = min(config.shard_size, config.n_prompts - shard * config.shard_size)
    draws = config.draws(name) if stage != "score" else 1
    if coverage is None:
        return n_prompts * draws
    first = shard * config.shard_size
    lower = float(config.lower_coverage(name, coverage) or 0)
    return sum(
        has_label(prompt, float(coverage), draw=draw, draws=draws)
        and not has_label(prompt, lower, draw=draw, draws=draws)
        for prompt in range(first, first + n_prompts)
        for draw in range(draws)
    )


def write_start(jobs: Iterable[PlannedJob], path: Path = RECORD) -> None:
    """Record that a run starts in this process."""
    record = RunRecord(time.time(), os.getpid(), socket.gethostname(), tuple(jobs))
    files.write_json(path, asdict(record))


def write_end(*, succeeded: bool, interrupted: bool = False, path: Path = RECORD) -> None:
    """Record that the run of this process has ended."""
    record = _read_values(path)
    if record.get("process") == os.getpid():
        files.write_json(path, record | {"ended": time.time(), "succeeded": succeeded, "interrupted": interrupted})


def read(path: Path) -> RunRecord:
    """The record of the last run; raises a `UserError` where there is none."""
    values = _read_values(path)
    if not values:
        raise UserError(
            f"{path.parent.parent}: no run has been started in this folder ({path} does not exist); name the folder in which "
            "snakemake runs the experiment"
        )
    try:
        jobs = (_known_fields(PlannedJob, job | {"outputs": tuple(job["outputs"])}) for job in values["jobs"])
        return RunRecord(**_known_fields(RunRecord, values) | {"jobs": tuple(PlannedJob(**job) for job in jobs)})
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: {NO_RECORD}") from None


def _known_fields(record: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a record's fields; another version may have written further ones."""
    names = {field.name for field in fields(record)}
    return {name: value for name, value in values.items() if name in names}


def _read_values(path: Path) -> dict[str, Any]:
    """The content of the record; empty where there is none. Raises a `UserError` for another content than an object."""
    values = files.read_json(path) if path.exists() else {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: {NO_RECORD}")
    return values
