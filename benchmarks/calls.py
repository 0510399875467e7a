"""Calls of an API against the time that its limit leaves, and against the provider's client by itself.

A server on loopback answers after 50 ms, eight requests at a time. The ideal is that all eight are always in flight:

    ideal = calls * latency / limit

in one job, and in two jobs that share the limit. Each call goes all the way: lock files, spendings, a journal on disk.

Two more servers answer some requests with status 429: one grants a number of requests a second, one rejects a tenth of them
whatever their rate. The rate of replies is held against what the server grants: that number, or what remains of the rate of one
job without 429s.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from arena_cje.calls.apis import openai
from arena_cje.calls.endpoint import Endpoint
from arena_cje.calls.ledger import Ledger
from arena_cje.calls.request import Request
from arena_cje.calls.runner import CallJob, journaled_ask
from arena_cje.journal import Journal
from benchmarks._result import Result
from benchmarks._timing import Rates, Sides, Turn, by_round, measure, progress, side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = Path(__file__).parents[1] / "tests/support/fault_server.py"
CALLS, LIMIT, LATENCY = 2000, 8, 0.05  # seconds
IDEAL = LIMIT / LATENCY  # calls a second
FEW = 400  # calls whose processor time is held against the client's alone
GRANTED = 60.0  # requests a second of the server that limits them
REJECTED = 0.1  # share of the requests that the other server rejects


def run() -> Iterator[Result]:
    """Time over the ideal in one job and in two, and processor time beside the bare client's."""
    with _server() as url, tempfile.TemporaryDirectory() as folder:
        progress(f"calls: {CALLS} at {LATENCY * 1000:.0f} ms, {LIMIT} at a time ...")
        turns = [Turn("one job", "all", 1), Turn("two jobs", "half", 2)]
        rates = side_by_side(functools.partial(_jobs, url, Path(folder)), turns).wall
        where = f"{CALLS} calls of {LATENCY * 1000:.0f} ms, {LIMIT} at a time"
        yield _over_ideal("time / ideal, one job", rates["one job"], where)
        yield _over_ideal("time / ideal, two jobs", rates["two jobs"], f"{where} in both together")
        progress("calls: processor time ...")
        with _jobs(url, Path(folder)) as sides:
            cpu = measure({"ours": sides["few"], "bare client": functools.partial(_bare, url)})
        yield _processor_time(cpu)
    yield _of_granted("rate / granted, a limit of the rate", GRANTED, f"{GRANTED:g} a second", "--rate", GRANTED)
    share = (1 - REJECTED) * statistics.median(rates["one job"])
    yield _of_granted("rate / granted, 429s at random", share, f"{REJECTED:.0%} are rejected", "--rejected", REJECTED)


def _over_ideal(name: str, rates: list[float], where: str) -> Result:
    over = [IDEAL / rate for rate in rates]
    detail = f"{where}; ideal {CALLS / IDEAL:.1f} s, by round {', '.join(f'{one:.2f}' for one in over)}"
    return Result(name, statistics.median(over), "<= 1.3", detail)


def _of_granted(name: str, granted: float, which: str, *options: object) -> Result:
    """Replies a second of one job, over those that a server with these options grants."""
    progress(f"calls: {CALLS} of a server that answers 429 ({which}) ...")
    with _server(*options) as url, tempfile.TemporaryDirectory() as folder, _jobs(url, Path(folder)) as sides:
        began = time.perf_counter()
        rate = sides["all"]() / (time.perf_counter() - began)
    detail = f"{CALLS} calls, {LIMIT} at a time; {rate:.0f} replies a second of {granted:.0f} granted ({which})"
    return Result(name, rate / granted, ">= 0.7", detail)


def _processor_time(rates: Rates) -> Result:
    each = {name: 1000 / statistics.median(side) for name, side in rates.items()}  # ms
    detail = f"{FEW} calls; {each['ours']:.1f} ms a call with journal, limits and spendings, {each['bare client']:.1f} ms without"
    return Result(
        "processor time / the client's alone", statistics.median(by_round(rates, "bare client", "ours")), None, detail
    )


@contextlib.contextmanager
def _server(*options: object) -> Iterator[str]:
    """The address of a server in a process of its own, which ends with its input."""
    with subprocess.Popen(
        [sys.executable, str(SERVER), "--latency", str(LATENCY), *map(str, options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(10)


@contextlib.contextmanager
def _jobs(url: str, folder: Path) -> Iterator[Sides]:
    """Jobs of different sizes; each run of one sends requests that no run has sent before."""
    logging.getLogger("arena_cje").setLevel(logging.WARNING)
    endpoint = Endpoint(
        provider="local",
        api="openai",
        base_url=url,
        api_key_env=None,
        max_concurrency=LIMIT,
        requests_per_minute=None,
        timeout=60.0,
        max_attempts=8,
        completions=False,
        echo_max_tokens=1,
        json_reply="text",
    )
    runs = itertools.count()

    def make_calls(n: int) -> int:
        name = f"{os.getpid()}-{next(runs)}"
        ledger = Ledger(folder / "spending.jsonl", lambda *_: 1e-6, budget_usd=1.0)
        with Journal(folder / name / "0000.jsonl") as journal:
            journaled_ask(CallJob(endpoint, "judge", "base", ledger, folder=folder), journal)(_requests(name, n))
        return n

    make_calls(LIMIT)  # imports happen in this first run
    yield {
        "all": functools.partial(make_calls, CALLS),
        "half": functools.partial(make_calls, CALLS // 2),
        "few": functools.partial(make_calls, FEW),
    }


def _requests(name: str, n: int) -> list[Request]:
    return [
        Request(
            "chat",
            {
                "model": "m",
                "messages": [{"role": "user", "content": f"{name}: How helpful is answer {i}?"}],
                "max_tokens": 5,
                "temperature": 0,
            },
        )
        for i in range(n)
    ]


def _bare(url: str) -> int:
    """The provider's client alone, with as many requests in flight."""

    async def all_of_them() -> None:
        async with openai.client(url, None, 60.0) as client:
            room = asyncio.Semaphore(LIMIT)

            async def one(request: Request) -> None:
                async with room:
                    await client.chat.completions.create(**request.body)

            await asyncio.gather(*map(one, _requests("bare", FEW)))

    asyncio.run(all_of_them())
    return FEW
