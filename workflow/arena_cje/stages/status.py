"""The status of a run from its files alone: what is done, what is left, what failed and why, how fast it goes.

    seconds left = sum over stages of   items left * seconds an item   / jobs at a time
    jobs at a time = seconds of all jobs / seconds since the start

Seconds an item are those of this run's jobs of the same stage; the jobs that join, analyse and show are a stage of one item a
job, which is left out while none of them has been done. A job whose output is there is done; of one that runs, or was
killed, its log has the number of its items, and its journal has the finished ones.
"""

from __future__ import annotations

import re
import socket
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from arena_cje.data.schemas import UNSCORED
from arena_cje.files import read_jsonl
from arena_cje.stages import run_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arena_cje.stages.run_record import PlannedJob, RunRecord

LOG_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) ")
LOG_TO_DO = re.compile(r"INFO (\d+) \w+: (\d+) in the journal, \d+ to do$")
LOG_ERROR = re.compile(r"ERROR (.*)")
N_REASONS = 3  # reasons shown for each stage and policy
HOURS, MINUTES, FEW = 3600, 60, 10  # seconds


@dataclass(frozen=True)
class JobState:
    """How far a job is. fresh_items: those that this run did itself, in `seconds`; error: why the job failed."""

    job: PlannedJob
    state: str  # done, started, failed or waiting
    items_done: int = 0
    fresh_items: int = 0
    seconds: float = 0.0
    written: float = 0.0  # when this run last wrote its output or log, in seconds since the epoch; 0 where it has not
    error: str | None = None


@dataclass
class Line:
    """The items and jobs of one stage and policy, or of all."""

    stage: str
    name: str
    items: int = 0
    items_done: int = 0
    jobs: int = 0
    jobs_done: int = 0
    jobs_failed: int = 0
    without_result: Counter[str] = field(default_factory=Counter)  # rows of finished jobs, by reason
    errors: Counter[str] = field(default_factory=Counter)  # of failed jobs

    @property
    def share(self) -> float:
        """The share of the items that are done."""
        return self.items_done / self.items if self.items else 1.0

    def add(self, state: JobState) -> None:
        """Add a job."""
        self.items += state.job.items
        self.items_done += state.items_done
        self.jobs += 1
        self.jobs_done += state.state == "done"
        self.jobs_failed += state.state == "failed"
        if state.error:
            self.errors[state.error] += 1


@dataclass(frozen=True)
class Status:
    """The status of a run. jobs: those with items; other_jobs: joins, analyses and figures."""

    record: RunRecord
    jobs: tuple[JobState, ...]
    other_jobs: tuple[JobState, ...]
    now: float

    @property
    def state(self) -> str:
        """`finished`, `failed`, `interrupted`, `running`, `killed`, or `unknown` where the run is on another machine."""
        if self.record.ended is not None and self.record.interrupted:
            return "interrupted"
        if self.record.ended is not None:
            return "finished" if self.record.succeeded else "failed"
        if self.record.host != socket.gethostname():
            return "unknown"
        return "running" if _is_alive(self.record.process, self.record.started) else "killed"

    @cached_property
    def lines(self) -> list[Line]:
        """A line for each stage and policy, in the order of the stages."""
        lines: dict[tuple[str, str], Line] = {}
        for state in self.jobs:
            key = (state.job.stage, state.job.name)
            lines.setdefault(key, Line(*key)).add(state)
        return sorted(lines.values(), key=lambda line: stage_order(line.stage))

    @cached_property
    def total(self) -> Line:
        """All stages and policies in one line."""
        total = Line("all", "")
        for state in self.jobs:
            total.add(state)
        return total

    @property
    def elapsed(self) -> float:
        """Seconds from the start to now, or to the last sign of work of a run that is over."""
        if self.state in ("running", "unknown"):
            return max(self.now - self.record.started, 1e-9)
        last = max((state.written for state in self.jobs), default=0.0)
        return max(max(last, self.record.ended or 0.0) - self.record.started, 1e-9)

    @property
    def items_per_second(self) -> float:
        """Items that this run did itself, per second since its start."""
        return sum(state.fresh_items for state in self.jobs) / self.elapsed

    @property
    def seconds_left(self) -> tuple[float, bool] | None:
        """Seconds until all jobs are done, and whether stages without a finished item make it a lower bound.

        None where no job of this run has finished an item yet, or any where there are no items.
        """
        seconds, items, left = defaultdict(float), Counter(), Counter()
        for state in self.jobs:
            left[state.job.stage] += state.job.items - state.items_done
            if state.fresh_items:
                seconds[state.job.stage] += state.seconds
                items[state.job.stage] += state.fresh_items
        others = [state.seconds for state in self.other_jobs if state.state == "done" and state.seconds]
        if not items and (left.total() or not others):
            return None
        seconds_of_work = sum(n * seconds[stage] / items[stage] for stage, n in left.items() if items[stage])
        if others:
            seconds_of_work += sum(state.state != "done" for state in self.other_jobs) * sum(others) / len(others)
        at_a_time = max((sum(state.seconds for state in self.jobs) + sum(others)) / self.elapsed, 1.0)
        return seconds_of_work / at_a_time, any(n and not items[stage] for stage, n in left.items())

    def progress(self, *, with_others: bool = True) -> str:
        """Overall progress in one line; with_others: also of the jobs without items."""
        total, n_failed = self.total, sum(state.state == "failed" for state in (*self.jobs, *self.other_jobs))
        *items, others = self.completion()
        parts = [*items, f"{others} done"] if with_others or not items else items
        if total.items_done < total.items and self.items_per_second:
            parts += [f"{rate(self.items_per_second)} a second"]
        if any(state.state != "done" for state in (*self.jobs, *self.other_jobs)):
            parts += [_time_left(self.seconds_left)] if self.state in ("running", "unknown") else []
        parts += [f"{n_failed} job{'s' * (n_failed > 1)} failed"] if n_failed else []
        return ", ".join(parts)

    def completion(self) -> list[str]:
        """How many items are done, where there are any, and how many other jobs."""
        total, n_others = self.total, sum(state.state == "done" for state in self.other_jobs)
        items = f"{number(total.items_done)} of {number(total.items)} items ({total.share:.0%})"
        others = f"{number(n_others)} of {number(len(self.other_jobs))} {'other ' if total.items else ''}jobs"
        return [items, others] if total.items else [others]


def read_status(folder: Path, *, with_rows: bool = True, finished: dict[PlannedJob, JobState] | None = None) -> Status:
    """The status of the last run in a folder; raises a `UserError` where there was none.

    with_rows: also count the rows without a result in the finished outputs. finished: jobs that an earlier call of the
    same run has found done, whose files are not read again; those that are done now are added.
    """
    record = run_record.read(folder / run_record.RECORD)
    finished = {} if finished is None else finished
    states = [finished.get(job) or _job_state(job, folder, record) for job in record.jobs]
    finished.update({state.job: state for state in states if state.state == "done"})
    counted = tuple(state for state in states if state.job.stage is not None)
    others = tuple(state for state in states if state.job.stage is None)
    status = Status(record, counted, others, time.time())
    if with_rows:
        lines = {(line.stage, line.name): line for line in status.lines}
        for state in counted:
            if state.state == "done":
                line = lines[state.job.stage, state.job.name]
                line.without_result.update(_without_result(state.job.stage, folder / state.job.outputs[0]))
    return status


def _job_state(job: PlannedJob, folder: Path, record: RunRecord) -> JobState:
    outputs = [_modified(folder / output) for output in job.outputs]
    log = _modified(folder / job.log) if job.log else None
    began = record.started - run_record.CLOCK_TOLERANCE if job.needed else 0.0
    if all(output is not None and output >= began for output in outputs):
        written = max(*outputs, log or 0.0) if job.needed else 0.0
        if job.needed and job.benchmark:
            fresh_items, seconds = _benchmark(folder / job.benchmark)
        else:
            fresh_items = 0
            began_writing = _read_log(folder / job.log).began if job.needed and log else 0.0
            seconds = max(written - began_writing, 0.0) if began_writing else 0.0
        return JobState(job, "done", job.items, fresh_items, seconds, written)
    if not log or not job.needed or log < began:
        return JobState(job, "waiting")
    text = _read_log(folder / job.log)
    if record.ended is not None and text.error is None and not record.interrupted:
        text = replace(text, error=f"it ended without a reason in {job.log} (killed?)")
    state = "failed" if text.error else "started"
    if job.journal is None:
        return JobState(job, state, written=log, error=text.error)
    fresh_entries = _n_appended(folder / job.journal, job.journal_bytes)
    # A job has more entries than items where an item takes several calls or is scored for several samplings.
    items_an_entry = job.items / text.n_entries if text.n_entries else 0.0
    n_done, n_fresh = (
        min(round(n * items_an_entry), job.items) for n in (text.n_journal + fresh_entries, fresh_entries)
    )
    written = max(log, _modified(folder / job.journal) or 0.0)
    seconds = written - text.began if text.n_entries else 0.0
    return JobState(job, state, n_done, n_fresh, seconds, written, text.error)


def _modified(path: Path) -> float | None:
    """When a file was last written, in seconds since the epoch; None where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _benchmark(path: Path) -> tuple[int, float]:
    """Items that a finished job did itself, and its seconds; zeros where its benchmark file is missing or damaged."""
    try:
        header, values = path.read_text(encoding="utf-8").splitlines()[:2]
        row = dict(zip(header.split("\t"), values.split("\t"), strict=False))
        return int(row.get("items", 0)), float(row.get("s", 0.0))
    except (OSError, ValueError):
        return 0, 0.0


@dataclass(frozen=True)
class LogText:
    """The content of a job's log: when the job began, its last error, and of its journal's entries how many it needs and had."""

    began: float = 0.0  # seconds since the epoch
    n_entries: int = 0
    n_journal: int = 0
    error: str | None = None


def _read_log(path: Path) -> LogText:
    text = LogText()
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # removed in this moment, as its job begins
        return text
    for line in lines:
        if (stamp := LOG_TIME.match(line)) and not text.began:
            text = replace(text, began=datetime.fromisoformat(stamp[1]).timestamp() + int(stamp[2]) / 1000)
        if match := LOG_TO_DO.search(line):
            text = replace(text, n_entries=int(match[1]), n_journal=int(match[2]))
        if stamp and (match := LOG_ERROR.search(line)):
            text = replace(text, error=match[1])
    return text


def _n_appended(path: Path, start: int) -> int:
    """Number of lines after the first `start` bytes of a journal; of all where it was begun anew."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(start if start <= size else 0)
            return sum(1 for line in file if line.strip() and line.endswith(b"\n"))
    except OSError:
        return 0


def _without_result(stage: str, path: Path) -> Iterator[str]:
    """Why rows of a finished output have no result, one reason a row."""
    if stage == "score":
        import polars as pl

        scores = pl.read_parquet(path, columns=["prompt_id", "status"])
        yield from scores.filter(pl.col("status").is_in(UNSCORED)).unique()["status"]
        return
    for row in read_jsonl(path):
        if stage == "generate":
            if row["status"] != "ok":
                yield row["status"]
        elif row["score"] is None:
            yield row["reason"]


def _is_alive(process: int, started: float) -> bool:
    """Whether a process runs that began before a run, so that it is not another one of the same number."""
    import psutil

    try:
        candidate = psutil.Process(process)
        return candidate.create_time() <= started and candidate.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def stage_order(stage: str) -> int:
    """The place of a stage."""
    order = ("generate", "score", "judge", "judges", "oracle")
    return order.index(stage.split("/")[0])


# Text


def table(status: Status) -> str:
    """The status as text for the terminal."""
    record = status.record
    when = datetime.fromtimestamp(record.started).strftime("%Y-%m-%d %H:%M:%S")
    lines = [f"run of {when}: {STATES[status.state].format(process=record.process, host=record.host)}", ""]
    if status.jobs:
        rows = [("stage", "policy", "done", "left", "no result", "failed jobs")]
        rows += [_cells(line) for line in (*status.lines, status.total)]
        lines += [*_aligned(rows), ""]
    lines.append(status.progress())
    other_jobs = Line("other", "jobs")
    for state in status.other_jobs:
        other_jobs.add(state)
    reasons = [reason for line in (*status.lines, other_jobs) for reason in _reasons(line)]
    if reasons:
        lines += ["", "reasons, the most frequent first:", *(f"  {reason}" for reason in reasons)]
    return "\n".join(lines)


STATES = {
    "finished": "finished",
    "failed": "ended with failed jobs; the same command goes on",
    "interrupted": "interrupted before its end; the same command goes on",
    "running": "running as process {process}",
    "killed": "killed before its end; the same command goes on",
    "unknown": "started on {host} as process {process}; whether it runs is known there",
}


def _cells(line: Line) -> tuple[str, ...]:
    missing = number(line.without_result.total()) if line.name else ""
    return (
        line.stage,
        line.name,
        number(line.items_done),
        number(line.items - line.items_done),
        missing,
        number(line.jobs_failed),
    )


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """The cells in columns, names to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if k < 2 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _reasons(line: Line) -> Iterator[str]:
    """The most frequent reasons of a line, in sentences."""
    what = f"{line.stage} {line.name}"
    for reason, count in line.without_result.most_common(N_REASONS):
        yield f"{what}: {number(count)} without a result: {reason}"
    for error, count in line.errors.most_common(N_REASONS):
        yield f"{what}: {count} job{'s' * (count > 1)} failed: {error}"


def number(value: int) -> str:
    """Thousands separated by spaces."""
    return f"{value:,}".replace(",", " ")


def rate(value: float) -> str:
    """Two digits of a small rate, whole numbers of a large one."""
    return f"{value:.2g}" if value < 10 else number(round(value))


def _time_left(estimate: tuple[float, bool] | None) -> str:
    """`4 min left`; `at least` where some stage has done nothing yet."""
    if estimate is None or (estimate[1] and estimate[0] < FEW):
        return "time left not known yet"
    seconds, is_lower_bound = estimate
    return f"{'at least ' * is_lower_bound}{duration(seconds) if seconds >= FEW else 'a few seconds'} left"


def duration(seconds: float) -> str:
    """`4 min`."""
    if round(seconds / MINUTES) * MINUTES >= HOURS:
        return f"{seconds / HOURS:.1f} h"
    return f"{seconds / MINUTES:.0f} min" if round(seconds) >= MINUTES else f"{seconds:.0f} s"
