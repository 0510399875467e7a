"""Sends many requests at once. Each is repeated until it has a reply or has used up its attempts.

`run` is a generator: it yields each reply as soon as it arrives, and its caller writes the reply to the journal before it takes
the next one. A second thread (`_Sender`) runs the event loop that sends the requests. One attempt of one request has these steps:

    1. wait for a slot: no more than `max_concurrency` requests are in flight          `limits.JobSlots`
    2. claim the request: where another job already has its reply, use that one        `claims.Claims`
    3. wait for a turn: no more than `requests_per_minute` requests start a minute     `limits.RateLimit`
    4. check the budget, send the request, record its cost                             `client.Client`, `ledger.Ledger`
    5. put the reply into the queue from which `run` reads

After a transient failure the steps are repeated. The wait before the next attempt is

    wait_k = max(Retry-After, min(2^(k-1), 60) + U(0, 1))   seconds after attempt k

After status 429 all jobs pause, and this job halves the number of its requests in flight. A request that has used up its
attempts is left for the next run, and the others continue. A permanent failure or a spent budget stops the sending; requests
in flight are still waited for, because they are paid for.
"""

from __future__ import annotations

import asyncio
import queue
import resource
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.calls.claims import Claims
from arena_cje.calls.client import Client, estimate_usage
from arena_cje.calls.errors import TransientError, UnreadableReply
from arena_cje.calls.limits import JobSlots, RateLimit
from arena_cje.calls.request import Ask, Reply, Request, Usage
from arena_cje.calls.totals import CallTotals, RetryLog
from arena_cje.errors import UserError
from arena_cje.journal import FinishedItem, Journal, complete

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.calls.ledger import Ledger

FOLDER = Path("results/journal")
TASKS_PER_SLOT = 16  # requests that may wait for a slot or for another attempt, for each request that may be in flight
MAX_FAILURES_IN_A_ROW = 20  # requests that use up their attempts with no reply in between: the server cannot be reached


@dataclass(frozen=True)
class Backoff:
    """Waits before another attempt, in seconds: the first one, and the longest."""

    first: float = 1.0
    longest: float = 60.0


@dataclass(frozen=True)
class CallJob:
    """The calls of one job: which endpoint it calls, for which stage and policy, and where costs and limits are recorded."""

    endpoint: Endpoint
    stage: str
    policy: str | None
    ledger: Ledger
    folder: Path = FOLDER
    backoff: Backoff = Backoff()
    totals: CallTotals = field(default_factory=CallTotals)


def journaled_ask(job: CallJob, journal: Journal) -> Ask:
    """The function with which a job asks for replies: those in the journal are read there, the others are requested."""

    def ask(requests: Sequence[Request]) -> list[Reply]:
        keys = [request.key(job.endpoint) for request in requests]
        earlier_tally = journal.tally
        # A job that starts afresh uses no reply of another job, so it makes no claims.
        claims_path = None if journal.fresh else journal.path
        records = complete(
            journal,
            dict(zip(keys, requests, strict=True)),
            lambda missing: run(missing, job, claims_path),
            unit="calls",
        )
        if journal.tally is not earlier_tally:
            job.totals.add_tally(journal.tally)
        return [Reply.from_record(records[key]) for key in keys]

    return ask


def run(requests: Mapping[str, Request], job: CallJob, journal_path: Path | None = None) -> Iterator[FinishedItem]:
    """Send requests and yield their replies as they arrive.

    requests: by journal key. journal_path: the file to which the caller writes each reply before it takes the next one; with
    it, jobs that need the same reply at the same time send one request. Raises a `UserError` where the sending was stopped
    or where requests are left without a reply.
    """
    for model in sorted({str(request.body.get("model")) for request in requests.values()}):
        job.ledger.check_price(job.endpoint, model)
    sender = _Sender(requests, job, journal_path)
    thread = threading.Thread(target=sender.run_thread, name=f"calls to {job.endpoint.provider}", daemon=True)
    thread.start()
    try:
        while (item := sender.results.get()) is not None:
            yield item
            sender.release_claim(item.key)
    finally:
        sender.cancel()
        thread.join()
        sender.close_claims()
    job.totals.write_log()
    sender.raise_failure()


class _Sender:
    """Sends the requests of one `run` from an event loop in a thread of its own.

    The two threads share the queue `results`, which ends with None, and the claims, which the caller's thread releases. All
    other state is used in the event loop's thread, and in the caller's only before that thread starts and after its end.
    """

    def __init__(self, requests: Mapping[str, Request], job: CallJob, journal_path: Path | None):
        folder = job.folder / "pools" / job.endpoint.pool
        self.results: queue.SimpleQueue[FinishedItem | None] = queue.SimpleQueue()
        self._requests = requests
        self._job = job
        self._slots = JobSlots(folder, job.endpoint.max_concurrency)
        self._rate_limit = RateLimit(folder, job.endpoint.requests_per_minute)
        self._claims = None if journal_path is None else Claims(folder, journal_path)
        self._retry_log = RetryLog()
        self._tasks: set[asyncio.Task[None]] = set()  # one for each request that is being worked on
        self._in_flight: set[asyncio.Task[None]] = set()  # those whose request was sent and has no reply yet
        # Requests that have used up their attempts, and the server's last error message, by kind of failure.
        self._failures: Counter[str] = Counter()
        self._messages: dict[str, str] = {}
        self._failures_in_a_row = 0
        self._stop_reason: BaseException | None = None
        self._start_lock = threading.Lock()  # guards the next three, which `cancel` uses from the caller's thread
        self._is_cancelled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main_task: asyncio.Task[None] | None = None

    # Called from the caller's thread

    def release_claim(self, key: str) -> None:
        """The reply is in the journal, where other jobs may read it."""
        if self._claims is not None:
            self._claims.release(key, in_journal=True)

    def close_claims(self) -> None:
        """Release the claims of requests without a reply."""
        if self._claims is not None:
            self._claims.close()

    def cancel(self) -> None:
        """Stop at once, requests in flight included: the caller reads no more replies."""
        with self._start_lock:
            self._is_cancelled = True
            if self._loop is not None and not self._loop.is_closed() and self._main_task is not None:
                self._loop.call_soon_threadsafe(self._main_task.cancel)

    def raise_failure(self) -> None:
        """Raise the error that stopped the sending, or a `UserError` where requests are left without a reply."""
        if self._stop_reason is not None:
            raise self._stop_reason
        if self._failures:
            endpoint, n_requests = self._job.endpoint, len(self._requests)
            is_unreachable = self._failures["connection lost"] == n_requests
            advice = "check that the server is running and that `base_url` is right, and " if is_unreachable else ""
            raise UserError(
                f"provider {endpoint.provider!r}: {self._failures.total()} of {n_requests} requests have no reply after "
                f"{endpoint.max_attempts} attempts each ({self._failure_counts()}); {advice}run the same command again, which "
                "sends only these"
            )

    # Called from the event loop's thread, in the order of a run: from the thread to the tasks, an attempt, a call

    def run_thread(self) -> None:
        """Run the event loop to its end, and end the queue of results."""
        try:
            _raise_open_file_limit(self._slots.limit)
            asyncio.run(self._main())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # `raise_failure` raises it in the caller's thread
            self._stop_reason = self._stop_reason or error
        finally:
            self.results.put(None)

    async def _main(self) -> None:
        with self._start_lock:
            if self._is_cancelled:
                return
            self._loop, self._main_task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            async with Client(self._job.endpoint) as client:
                await self._send_all(client)
        finally:
            with self._start_lock:
                self._main_task = None

    async def _send_all(self, client: Client) -> None:
        """Work on all requests, one task for each, and no more tasks at a time than `TASKS_PER_SLOT` for each slot."""
        from tenacity import AsyncRetrying, stop_after_attempt

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._job.endpoint.max_attempts),
            retry=lambda state: self._stop_reason is None and isinstance(state.outcome.exception(), TransientError),
            wait=self._wait_before_retry,
            before_sleep=self._count_retry,
            reraise=True,
        )
        free_tasks = asyncio.Semaphore(TASKS_PER_SLOT * self._slots.limit)
        try:
            for key, request in self._requests.items():
                await free_tasks.acquire()
                if self._stop_reason is not None:
                    break
                task = asyncio.create_task(self._complete_request(client, retrying, key, request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                task.add_done_callback(lambda _: free_tasks.release())
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _complete_request(self, client: Client, retrying: Any, key: str, request: Request) -> None:
        """Repeat the attempts of one request until it has a reply; record its failure where it gets none."""
        try:
            item = await retrying(self._attempt, client, key, request)
        except TransientError as error:
            self._give_up(error)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._stop(error)
        else:
            self._failures_in_a_row = 0
            self.results.put(item)

    async def _attempt(self, client: Client, key: str, request: Request) -> FinishedItem:
        """One attempt: wait for a slot, claim the request, and call the server unless another job has the reply."""
        async with self._slots.slot():
            if self._claims is not None and (record := await self._claims.acquire(key)) is not None:
                return FinishedItem(key, record)
            try:
                reply, usage = await self._call(client, request)
            except BaseException:
                if self._claims is not None:
                    self._claims.release(key, in_journal=False)
                raise
        self._slots.count_success()
        return FinishedItem(key, reply.record(), usage.prompt_tokens, usage.completion_tokens)

    async def _call(self, client: Client, request: Request) -> tuple[Reply, Usage]:
        """Wait for a turn, send the request once, and record its cost. Returns the reply and the tokens it is billed for."""
        await self._rate_limit.wait_turn()
        self._job.ledger.check_budget()
        n_reductions, task = self._slots.n_reductions, asyncio.current_task()
        self._in_flight.add(task)
        self._job.totals.calls += 1
        try:
            reply = await client.send(request)
            usage = reply.usage or estimate_usage(request, len(reply.text.encode()))
            self._record_cost(request, usage, estimated=reply.usage is None)
        except TransientError as error:
            if error.rate_limited:
                self._slots.reduce_concurrency(n_reductions)
            if isinstance(error, UnreadableReply):
                self._record_cost(request, estimate_usage(request, error.length), estimated=True)
            raise
        finally:
            self._in_flight.discard(task)
        return reply, usage

    def _record_cost(self, request: Request, usage: Usage, *, estimated: bool) -> None:
        job, model = self._job, str(request.body.get("model"))
        usd = job.ledger.record(
            job.endpoint, model, stage=job.stage, policy=job.policy, usage=usage, estimated=estimated
        )
        job.totals.add_cost(usd)

    # After a failed attempt

    def _wait_before_retry(self, state: Any) -> float:
        """Seconds until the next attempt of a request. After a 429 or a Retry-After header, all jobs pause as well."""
        from tenacity import wait_exponential_jitter

        error, backoff = state.outcome.exception(), self._job.backoff
        wait = wait_exponential_jitter(multiplier=backoff.first, max=backoff.longest, jitter=backoff.first)(state)
        if error.retry_after is not None:
            wait = max(wait, error.retry_after)
        if error.rate_limited or error.retry_after is not None:
            self._rate_limit.pause(wait if error.retry_after is None else error.retry_after)
        return wait

    def _count_retry(self, state: Any) -> None:
        kind = state.outcome.exception().kind
        self._job.totals.retries[kind] += 1
        self._retry_log.count(kind, state.next_action.sleep)

    def _give_up(self, error: TransientError) -> None:
        """Leave a request that has used up its attempts; stop the sending where the server cannot be reached."""
        self._failures[error.kind] += 1
        self._messages[error.kind] = error.message
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW + self._slots.limit and self._stop_reason is None:
            self._stop(
                UserError(
                    f"provider {self._job.endpoint.provider!r} cannot be reached: the last {self._failures_in_a_row} requests "
                    f"failed {self._job.endpoint.max_attempts} times each ({self._failure_counts()}); check that the server is "
                    "running and that `base_url` is right, and run the same command again (finished items are kept)"
                )
            )

    def _stop(self, reason: BaseException) -> None:
        """Send no more requests. Those in flight are paid for, so their tasks continue."""
        if self._stop_reason is None:
            self._stop_reason = reason
            for task in self._tasks - self._in_flight - {asyncio.current_task()}:
                task.cancel()

    def _failure_counts(self) -> str:
        """`3 timeout; 2 server error (500), for example: Overloaded.`"""
        return "; ".join(
            f"{count} {kind}{f', for example: {message}' if (message := self._messages.get(kind)) else ''}"
            for kind, count in self._failures.most_common()
        )


def _raise_open_file_limit(n_requests: int) -> None:
    """Let the process open a connection, a slot and a claim for each request in flight, as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 3 * n_requests + 256
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
