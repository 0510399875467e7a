"""Many requests at once, each asked until it has a reply or has been tried often enough.

A generator for those who write down what is finished: `for done in run(...)`. Behind it an event loop in a thread of its
own sends the requests under the endpoint's limits and the budget. What passes is waited for,

    wait_k = max(Retry-After, min(2^(k-1), 60) + U(0, 1))   seconds after attempt k

with more room between requests after each answer that we ask too fast. A request that has used up its attempts is left
for the next run while the others go on; a failure that cannot pass, or a spent budget, stops the sending, and what is in
flight is waited for, since it is paid.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import resource
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.calls import client as calls_client
from arena_cje.calls.claims import Claims
from arena_cje.calls.client import Client
from arena_cje.calls.errors import TransientError, UnreadableReply
from arena_cje.calls.limits import Crew, Pace
from arena_cje.calls.request import Ask, Reply, Request, Usage
from arena_cje.errors import UserError
from arena_cje.journal import Done, Journal, Tally, complete

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.calls.ledger import Ledger

log = logging.getLogger(__name__)

FOLDER = Path("results/journal")
EVERY = 10.0  # seconds between lines about retries
AHEAD = 16  # requests that wait for another attempt or a slot, for each that may be in flight
HOPELESS = 20  # requests that use up their attempts with no answer in between: nobody is there


@dataclass(frozen=True)
class Backoff:
    """How long to wait before another attempt, in seconds."""

    first: float = 1.0
    longest: float = 60.0


@dataclass
class CallTotals:
    """What a job's calls came to. `usd` is None as soon as one has no known price."""

    calls: int = 0  # requests sent, all attempts
    retries: Counter[str] = field(default_factory=Counter)  # attempts that were followed by another, by what failed
    usd: float | None = 0.0
    tally: Tally = field(default_factory=Tally)  # requests that have got a reply

    def finished(self, tally: Tally) -> None:
        """Add what one asking came to."""
        for name in ("items", "prompt_tokens", "response_tokens", "seconds", "cpu_seconds"):
            setattr(self.tally, name, getattr(self.tally, name) + getattr(tally, name))

    def pay(self, usd: float | None) -> None:
        """Add what a call cost."""
        self.usd = None if usd is None or self.usd is None else self.usd + usd


@dataclass(frozen=True)
class CallJob:
    """Who asks whom, for which stage and policy, and where it is written down."""

    endpoint: Endpoint
    stage: str
    policy: str | None
    ledger: Ledger
    folder: Path = FOLDER
    backoff: Backoff = Backoff()
    totals: CallTotals = field(default_factory=CallTotals)


def journaled_ask(work: CallJob, journal: Journal) -> Ask:
    """A function that asks for all of some requests, through the journal."""

    def ask(requests: Sequence[Request]) -> list[Reply]:
        keys = [request.key(work.endpoint) for request in requests]
        before = journal.tally
        shared = None if journal.fresh else journal.path  # who starts over takes nothing from others
        finished = complete(
            journal, dict(zip(keys, requests, strict=True)), lambda missing: run(missing, work, shared), unit="calls"
        )
        if journal.tally is not before:
            work.totals.finished(journal.tally)
        return [Reply.of(finished[key]) for key in keys]

    return ask


def run(requests: Mapping[str, Request], work: CallJob, journal: Path | None = None) -> Iterator[Done]:
    """Replies by key as they arrive; in the end a `UserError` where some are left for the next run.

    journal: the file where the caller keeps each reply before asking for the next one; then no other job asks for the same
    at the same time.
    """
    for model in sorted({str(request.body.get("model")) for request in requests.values()}):
        work.ledger.check_price(work.endpoint, model)
    running = _Run(requests, work, journal)
    thread = threading.Thread(target=running.main, name=f"calls to {work.endpoint.provider}", daemon=True)
    thread.start()
    try:
        while (done := running.results.get()) is not None:
            yield done
            running.kept(done.key)
    finally:
        running.cancel()
        thread.join()
        if running.claims is not None:
            running.claims.close()
    running.conclude()


class _Run:
    """One run of requests: state that lives in the event loop's thread, but for the queue of results."""

    def __init__(self, requests: Mapping[str, Request], work: CallJob, journal: Path | None):
        self.results: queue.SimpleQueue[Done | None] = queue.SimpleQueue()
        self.requests = requests
        self.work = work
        folder = work.folder / "pools" / work.endpoint.pool
        self.crew = Crew(folder, work.endpoint.max_concurrency)
        self.pace = Pace(folder, work.endpoint.requests_per_minute)
        self.claims = None if journal is None else Claims(folder, journal)
        self.left: Counter[str] = Counter()  # requests out of attempts, by what happened last
        self.words: dict[str, str] = {}  # what servers said, by kind
        self.in_a_row = 0  # of them, with no answer in between
        self.stopped: BaseException | None = None
        self.sending: set[asyncio.Task[None]] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.told = _Told()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._cancelled = False
        self._ready = threading.Lock()

    # In the caller's thread

    def cancel(self) -> None:
        """End it at once, where nobody waits for the results any more."""
        with self._ready:
            self._cancelled = True
            if self._loop is not None and not self._loop.is_closed() and self._main is not None:
                self._loop.call_soon_threadsafe(self._main.cancel)

    def kept(self, key: str) -> None:
        """The reply is in the journal: others may look it up."""
        if self.claims is not None:
            self.claims.give_back(key, finished=True)

    def conclude(self) -> None:
        """Say what the calls came to, and raise where not all have a reply."""
        self.told.total(self.work.totals)
        if self.stopped is not None:
            raise self.stopped
        if self.left:
            nobody = self.left["connection lost"] == len(self.requests)
            see = "see that it runs and that `base_url` is right, and " if nobody else ""
            raise UserError(
                f"provider {self.work.endpoint.provider!r}: {self.left.total()} of {len(self.requests)} calls have no answer "
                f"after {self.work.endpoint.max_attempts} attempts each ({self._reasons()}); {see}start the same command "
                "again, it asks for these alone"
            )

    def _reasons(self) -> str:
        return "; ".join(
            f"{count} {kind}{f', such as: {said}' if (said := self.words.get(kind)) else ''}"
            for kind, count in self.left.most_common()
        )

    # In the event loop's thread

    def main(self) -> None:
        """The thread: its own event loop, and at the end the mark that nothing follows."""
        try:
            _allow_files(self.crew.limit)
            asyncio.run(self._all())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # raised again where the results are read
            self.stopped = self.stopped or error
        finally:
            self.results.put(None)

    async def _all(self) -> None:
        with self._ready:
            if self._cancelled:
                return
            self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        try:
            async with Client(self.work.endpoint) as client:
                await self._each(client)
        finally:
            with self._ready:
                self._main = None

    async def _each(self, client: Client) -> None:
        """One task a request, not too many ahead of those in flight."""
        from tenacity import AsyncRetrying, stop_after_attempt

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.work.endpoint.max_attempts),
            retry=lambda state: self.stopped is None and isinstance(state.outcome.exception(), TransientError),
            wait=self._wait,
            before_sleep=self._again,
            reraise=True,
        )
        room = asyncio.Semaphore(AHEAD * self.crew.limit)
        try:
            for key, request in self.requests.items():
                await room.acquire()
                if self.stopped is not None:
                    break
                task = asyncio.create_task(self._one(client, retrying, key, request))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
                task.add_done_callback(lambda _: room.release())
            while self.tasks:
                await asyncio.wait(self.tasks)
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _one(self, client: Client, retrying: Any, key: str, request: Request) -> None:
        """A request until it has a reply; what goes wrong for good is noted."""
        try:
            done = await retrying(self._attempt, client, key, request)
        except TransientError as error:
            self._leave(error)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._stop(error)
        else:
            self.in_a_row = 0
            self.results.put(done)

    async def _attempt(self, client: Client, key: str, request: Request) -> Done:
        """Send it once, when there is a slot and it is its time, unless another job has just got the reply."""
        async with self.crew.slot():
            if self.claims is not None and (record := await self.claims.take(key)) is not None:
                return Done(key, record)
            try:
                reply, billed = await self._send(client, request)
            except BaseException:
                if self.claims is not None:
                    self.claims.give_back(key, finished=False)
                raise
        self.crew.succeeded()
        return Done(key, reply.record(), billed.prompt_tokens, billed.completion_tokens)

    async def _send(self, client: Client, request: Request) -> tuple[Reply, Usage]:
        """Send it in its time, and write down what it cost."""
        await self.pace.turn()
        self.work.ledger.check()
        slowed, task = self.crew.slowed, asyncio.current_task()
        self.sending.add(task)
        self.work.totals.calls += 1
        try:
            reply = await client.send(request)
            billed = self._paid(request, reply)
        except TransientError as error:
            if error.limited:
                self.crew.slower(slowed)
            if isinstance(error, UnreadableReply):
                self._record(request, calls_client.estimated(request, error.length), estimated=True)
            raise
        finally:
            self.sending.discard(task)
        return reply, billed

    def _paid(self, request: Request, reply: Reply) -> Usage:
        """Write down what a reply cost."""
        written = reply.usage or calls_client.estimated(request, len(reply.text.encode()))
        self._record(request, written, estimated=reply.usage is None)
        return written

    def _record(self, request: Request, usage: Usage, *, estimated: bool) -> None:
        work = self.work
        model = str(request.body.get("model"))
        work.totals.pay(
            work.ledger.record(
                work.endpoint, model, stage=work.stage, policy=work.policy, usage=usage, estimated=estimated
            )
        )

    def _wait(self, state: Any) -> float:
        """Seconds until a request is tried again; where the server asks for a pause, all who ask it pause."""
        from tenacity import wait_exponential_jitter

        error = state.outcome.exception()
        backoff = self.work.backoff
        wait = wait_exponential_jitter(multiplier=backoff.first, max=backoff.longest, jitter=backoff.first)(state)
        if error.retry_after is not None:
            wait = max(wait, error.retry_after)
        if error.limited or error.retry_after is not None:
            self.pace.pause(wait if error.retry_after is None else error.retry_after)
        return wait

    def _again(self, state: Any) -> None:
        kind = state.outcome.exception().kind
        self.work.totals.retries[kind] += 1
        self.told.retry(kind, state.next_action.sleep)

    def _leave(self, error: TransientError) -> None:
        """A request that has used up its attempts stays for the next run; nobody there at all ends this one."""
        self.left[error.kind] += 1
        self.words[error.kind] = error.words
        self.in_a_row += 1
        if self.in_a_row >= HOPELESS + self.crew.limit and self.stopped is None:
            self._stop(
                UserError(
                    f"provider {self.work.endpoint.provider!r} does not answer: the last {self.in_a_row} calls failed "
                    f"{self.work.endpoint.max_attempts} times each ({self._reasons()}); see that it runs and that `base_url` "
                    "is right, and start the same command again (what is finished is kept)"
                )
            )

    def _stop(self, error: BaseException) -> None:
        """Send nothing more; what is in flight ends by itself."""
        if self.stopped is None:
            self.stopped = error
            for task in self.tasks - self.sending - {asyncio.current_task()}:
                task.cancel()


def _allow_files(limit: int) -> None:
    """Let the process have a connection and a lock file open for each request in flight, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * limit + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class _Told:
    """Lines about retries in the log: the first at once, then one every ten seconds at most."""

    def __init__(self) -> None:
        self._new: Counter[str] = Counter()
        self._last = float("-inf")

    def retry(self, kind: str, wait: float) -> None:
        """Count one attempt that failed."""
        self._new[kind] += 1
        if time.monotonic() - self._last >= EVERY:
            log.warning("%s; waiting %.0f s", _counts(self._new), wait)
            self._new.clear()
            self._last = time.monotonic()

    def total(self, totals: CallTotals) -> None:
        """What all calls came to."""
        if totals.calls:
            cost = "at a price that is unknown" if totals.usd is None else f"for {totals.usd:.4f} US$"
            log.info("%d calls %s; %s", totals.calls, cost, _counts(totals.retries))


def _counts(retries: Counter[str]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in retries.most_common())
    return f"{retries.total()} {'retry' if retries.total() == 1 else 'retries'}{f': {kinds}' if kinds else ''}"
