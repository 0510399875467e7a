"""Sides of a comparison, timed in turn; the one place that measures time.

A round runs every side once, and a ratio is the median, over the rounds, of the ratio within the round. What slows a
machine down for a while (a neighbour in the caches, a lower clock) then falls on both sides of a ratio, and what falls
on one side alone spoils one round, which the median leaves out. A run of one process counts its processor time, which
leaves out the time that others had its core, and is one thread's; processes side by side may count wall time.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from multiprocessing.synchronize import Barrier

Side = Callable[[], int]  # does its work once and returns the number of tokens
Sides = Mapping[str, Side]
Rates = dict[str, list[float]]  # side -> tokens a second, by round

ROUNDS = 3
PATIENCE = 300  # seconds a process waits for the others, before it takes them for dead

_barrier: Barrier | None = None  # set in every process of a `side_by_side`


def progress(text: str) -> None:
    """Print a line on standard error about how far the benchmark is."""
    print(f"  {text}", file=sys.stderr, flush=True)


def measure(sides: Sides, *, rounds: int = ROUNDS) -> Rates:
    """Tokens per second of processor time."""
    rates: Rates = {name: [] for name in sides}
    for round_number in range(1, rounds + 1):
        for name, side in sides.items():
            timing = _timed(side)
            rates[name].append(timing.n_tokens / timing.processor)
            progress(f"round {round_number} of {rounds}: {name}, {rates[name][-1]:.0f} tokens/s")
    return rates


def counted(work: Callable[[], object], n_tokens: int) -> Side:
    """A side that does `work`, which is on so many tokens."""

    def side() -> int:
        work()
        return n_tokens

    return side


def by_round(rates: Rates, side: str, other: str) -> list[float]:
    """How many times as fast `side` was as `other`."""
    return [a / b for a, b in zip(rates[side], rates[other], strict=True)]


def ratio(rates: Rates, side: str, other: str) -> float:
    """How many times as fast `side` is as `other`."""
    return statistics.median(by_round(rates, side, other))


@dataclass(frozen=True)
class Turn:
    """What processes do at once: `side`, in the first `n_processes` of them."""

    name: str
    side: str
    n_processes: int


class Clocks(NamedTuple):
    """Tokens per second of all processes of a turn together, by two clocks.

    By the one on the wall a turn lasts until its slowest process has ended; of processor time it counts the most that one of
    them took, which leaves out what others had of the cores, and holds what the processes took from each other's caches.
    """

    wall: Rates
    processor: Rates


def side_by_side(
    prepare: Callable[[], AbstractContextManager[Sides]], turns: Sequence[Turn], *, rounds: int = ROUNDS
) -> Clocks:
    """The speed of processes side by side, which are ready before they start, and start at once.

    `prepare` opens the sides in each process.
    """
    n_processes = max(turn.n_processes for turn in turns)
    spawn = multiprocessing.get_context("spawn")  # a fork would share the parent's model and its locks
    barrier = spawn.Barrier(n_processes)
    with ProcessPoolExecutor(n_processes, spawn, _join, (barrier,)) as pool:
        jobs = [pool.submit(_take_part, i, prepare, turns, rounds) for i in range(n_processes)]
        failed = [error for job in jobs if (error := job.exception()) is not None]
    if failed:  # the one that failed first, not those that then waited for it in vain
        raise min(failed, key=lambda error: isinstance(error, threading.BrokenBarrierError))
    timings = [job.result() for job in jobs]  # one a process: {turn: [Timing, by round]}
    return Clocks(*(_rates(timings, turns, clock) for clock in ("wall", "processor")))


class Timing(NamedTuple):
    """What a process did in a turn, and in how many seconds."""

    n_tokens: int
    wall: float
    processor: float


def _rates(timings: Sequence[Mapping[str, Sequence[Timing]]], turns: Sequence[Turn], clock: str) -> Rates:
    rates: Rates = {}
    for turn in turns:
        rounds = zip(*(timing[turn.name] for timing in timings[: turn.n_processes]), strict=True)
        rates[turn.name] = [
            sum(one.n_tokens for one in each) / max(getattr(one, clock) for one in each) for each in rounds
        ]
    return rates


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _timed(side: Side) -> Timing:
    wall, processor = time.perf_counter(), time.process_time()
    n_tokens = side()
    return Timing(n_tokens, time.perf_counter() - wall, time.process_time() - processor)


def _join(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _take_part(
    index: int,
    prepare: Callable[[], AbstractContextManager[Sides]],
    turns: Sequence[Turn],
    rounds: int,
) -> dict[str, list[Timing]]:
    assert _barrier is not None
    timings: dict[str, list[Timing]] = {turn.name: [] for turn in turns}
    try:
        with prepare() as sides:
            for round_number in range(1, rounds + 1):
                for turn in turns:
                    _barrier.wait(PATIENCE)
                    if index < turn.n_processes:
                        timings[turn.name].append(_timed(sides[turn.side]))
                    if index == 0:
                        progress(f"round {round_number} of {rounds}: {turn.name}")
    except BaseException:
        _barrier.abort()  # so that the others do not wait for this one
        raise
    return timings
