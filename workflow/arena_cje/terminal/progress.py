"""The progress of a run on its terminal: a row for each stage, and one for the whole with the time left.

On a terminal the rows are drawn again in their place. In a file or pipe there is a line when a stage begins and one when it
ends, and from time to time one for the whole. The run goes on whatever happens here.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arena_cje.stages.status import duration, number, rate, read_status, stage_order

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from arena_cje.stages.run_record import PlannedJob
    from arena_cje.stages.status import JobState, Status
    from arena_cje.terminal.screen import Screen

POLL = 1.0  # seconds
MOST_LOAD = 0.05  # of a core, for reading the files of a run with many jobs
OTHERS, ALL = (
    "other jobs",
    "jobs",
)  # those that join, analyse and show: beside jobs with items, and where there are no others


@dataclass(frozen=True)
class StageProgress:
    """How far a stage is."""

    name: str
    items: int
    items_done: int
    begun: bool
    ended: bool
    failed_jobs: int
    items_per_second: float  # between the first and the last sign of this run's jobs of the stage

    def text(self, width: int = 0) -> str:
        """A row; width: of the column of names."""
        numbers = f"{number(self.items_done)}/{number(self.items)}"
        parts = [f"{self.name:<{width}}  {numbers:>11}" if width else f"{self.name}: {numbers} done"]
        parts += [f"{rate(self.items_per_second)} a second"] if self.items_per_second else []
        parts += [f"{self.failed_jobs} failed"] if self.failed_jobs else []
        return ", ".join(parts)


def stages(status: Status) -> list[StageProgress]:
    """The stages that have something to do in a run, in their order, and its other jobs."""
    by_stage: dict[str, list[JobState]] = {}
    for state in sorted(status.jobs, key=lambda state: stage_order(state.job.stage)):
        by_stage.setdefault(state.job.stage, []).append(state)
    entries = [_stage(name, states, [state.job.items for state in states]) for name, states in by_stage.items()]
    others = OTHERS if entries else ALL
    entries.append(_stage(others, status.other_jobs, [1] * len(status.other_jobs)))
    needed = {state.job.stage or others for state in (*status.jobs, *status.other_jobs) if state.job.needed}
    return [stage for stage in entries if stage.name in needed]


def _stage(name: str, states: Iterable[JobState], items: list[int]) -> StageProgress:
    states = list(states)
    n_done = [n if state.state == "done" else state.items_done for state, n in zip(states, items, strict=True)]
    fresh = [state for state in states if state.fresh_items and state.seconds]
    seconds = max((s.written for s in fresh), default=0.0) - min((s.written - s.seconds for s in fresh), default=0.0)
    return StageProgress(
        name,
        sum(items),
        sum(n_done),
        begun=any(state.job.needed and state.state != "waiting" for state in states),
        ended=all(state.state == "done" for state in states),
        failed_jobs=sum(state.state == "failed" for state in states),
        items_per_second=sum(state.fresh_items for state in fresh) / seconds if seconds > 0 else 0.0,
    )


def rows(status: Status) -> list[str]:
    """A row for each stage, and the last one for the whole."""
    entries = stages(status)
    width = max(map(len, [*(stage.name for stage in entries), "all"]))
    return [*(stage.text(width) for stage in entries), f"{'all':<{width}}  {_whole(status, with_others=False)}"]


def _whole(status: Status, *, with_others: bool = True) -> str:
    """The progress of all stages, and of a run that has ended how long it took."""
    took = f"; took {duration(status.elapsed)}" if status.record.ended is not None else ""
    return f"{status.progress(with_others=with_others)}{took}"


class Progress:
    """Shows the progress of the run in a folder until it ends, in a thread of this process: it ends with it.

    every: seconds between the lines for the whole in a file or pipe; None for a progress that is never started.
    """

    def __init__(self, folder: Path, screen: Screen, every: float | None, *, redraw: bool):
        self._folder, self._screen, self._every, self._redraw = folder, screen, every, redraw
        self._finished: dict[PlannedJob, JobState] = {}
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        """Show how far the run is, now and from time to time."""
        self._thread.start()

    def end(self) -> None:
        """Show it a last time, where it was shown."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def _follow(self) -> None:
        try:
            last_line, wait = time.monotonic(), 0.0
            while not self._stop.wait(wait):
                began = time.monotonic()
                status = self._show()
                if not self._redraw and began - last_line >= (self._every or 0):
                    last_line = began
                    self._screen.write([f"{duration(status.elapsed)}: {status.progress()}"])
                wait = max(POLL, (time.monotonic() - began) / MOST_LOAD)
            status = self._show()
            if self._redraw:
                self._screen.keep_rows()
            elif status.state != "interrupted":  # what stays of such a run, the last lines count
                self._screen.write([f"all: {_whole(status)}"])
        except Exception as error:  # files that another program changes, a terminal that is gone: the run goes on
            reason = " ".join(f"{type(error).__name__} {error}".split())
            with contextlib.suppress(Exception):
                self._screen.write([f"NOTE the progress is not shown any more ({reason}); `arena-cje status` shows it"])

    def _show(self) -> Status:
        status = read_status(self._folder, with_rows=False, finished=self._finished)
        if self._redraw:
            self._screen.draw(rows(status))
            return status
        lines = []
        for stage in stages(status):
            if stage.begun and not stage.ended and stage.name not in self._begun:
                self._begun.add(stage.name)
                lines.append(f"{stage.name}: begins with {number(stage.items_done)}/{number(stage.items)} done")
            if stage.ended and stage.name not in self._ended:
                self._ended.add(stage.name)
                lines.append(stage.text())
        if lines:
            self._screen.write(lines)
        return status
