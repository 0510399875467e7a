"""Sends many requests at once. Each is repeated until it has a reply or has used up its attempts.

`run` is a generator: it yields the replies that have arrived, and its caller writes them to the journal before it takes the next
ones. A second thread (`_Sender`) runs the event loop that sends the requests. One attempt of one request has these steps:

    1. wait for a slot: no more than `max_concurrency` requests are in flight          `limits.JobSlots`
    2. claim the request: where another job already has its reply, use that one        `claims.Claims`
    3. wait for a turn: no faster than the user and the server allow                   `limits.RateLimit`
    4. check the budget, send the request, record its cost                             `client.Client`, `ledger.Ledger`
    5. put the reply into the queue from which `run` reads, and wait until it is in the journal

Only then is the slot free for another request, so a kill costs no more replies than there may be requests in flight.

After a transient failure the steps are repeated. The wait before the next attempt is

    wait_k = max(Retry-After, min(2^(k-1), 60) + U(0, 1))   seconds after attempt k

and at most 2 + U(0, 1) seconds after status 429 while the server answers other requests; where it answers none, all requests
pause (`pace`), up to as often as there are attempts. A request that has used up its
attempts is left for the next run, and the others continue. A permanent failure, a spent budget or an interrupt (Ctrl-C, SIGTERM)
stops the sending; requests in flight are still waited for, because they are paid for. A second interrupt ends the run at once.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import resource
import signal
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.calls.claims import Claims
from arena_cje.calls.client import Client, estimate_usage
from arena_cje.calls.errors import TransientError, UnreadableReply
from arena_cje.calls.limits import JobSlots, RateLimit, endpoint_folder
from arena_cje.calls.request import Ask, Reply, Request, Usage
from arena_cje.calls.totals import CallTotals, RetryLog
from arena_cje.errors import UserError
from arena_cje.journal import FinishedItem, Journal, complete

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.calls.ledger import Ledger

log = logging.getLogger(__name__)

FOLDER = Path("results/journal")
TASKS_PER_SLOT = 16  # requests that may wait for a slot or for another attempt, for each request that may be in flight
MAX_FAILURES_IN_A_ROW = 20  # requests that use up their attempts with no reply in between: the server cannot be reached
GRANTING_WAIT = 2.0  # times the first wait: the longest one after a 429 of a server that answers other requests
DRAIN_SECONDS = 60.0  # longest wait for the requests in flight after an interrupt


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


def run(
    requests: Mapping[str, Request], job: CallJob, journal_path: Path | None = None
) -> Iterator[list[FinishedItem]]:
    """Send requests and yield their replies as they arrive, all that have arrived at a time.

    requests: by journal key. journal_path: the file to which the caller writes the replies before it takes the next ones; with
    it, jobs that need the same reply at the same time send one request. Raises a `UserError` where the sending was stopped
    or where requests are left without a reply, and `KeyboardInterrupt` after an interrupt.
    """
    for model in sorted({str(request.body.get("model")) for request in requests.values()}):
        job.ledger.check_price(job.endpoint, model)
    sender = _Sender(requests, job, journal_path)
    thread = threading.Thread(target=sender.run_thread, name=f"calls to {job.endpoint.provider}", daemon=True)
    with _drain_on_interrupt(sender):
        thread.start()
        try:
            while items := sender.arrived():
                job.ledger.sync()
                yield items
                sender.release(items)
        finally:
            sender.cancel()
            thread.join()
            sender.close()
    job.totals.write_log()
    sender.raise_failure()


@contextmanager
def _drain_on_interrupt(sender: _Sender) -> Iterator[None]:
    """Inside the `with` block the first SIGINT, SIGTERM or SIGHUP ends the sending; a second one has its usual effect.

    Only the main thread can receive signals. A signal that the process ignores stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A handler that is None was not set from Python and cannot be restored.
    earlier = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }

    def drain(number: int, _: Any) -> None:
        signal.signal(number, earlier[number])
        sender.interrupt()

    for number in earlier:
        signal.signal(number, drain)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


class _Sender:
    """Sends the requests of one `run` from an event loop in a thread of its own.

    The two threads share the queue of replies, which ends with None, and the claims, which the caller's thread releases. All
    other state is used in the event loop's thread, and in the caller's only before that thread starts and after its end.
    """

    def __init__(self, requests: Mapping[str, Request], job: CallJob, journal_path: Path | None):
        folder = endpoint_folder(job.endpoint)
        self._requests = requests
        self._job = job
        self._queue: queue.SimpleQueue[FinishedItem | None] = queue.SimpleQueue()
        self._has_ended = False  # whether the end of the queue was read
        self._slots = JobSlots(folder, job.endpoint.max_concurrency)
        self._rate_limit = RateLimit(folder, job.endpoint.requests_per_minute)
        self._claims = None if journal_path is None else Claims(job.folder, journal_path)
        self._retry_log = RetryLog()
        self._tasks: set[asyncio.Task[None]] = set()  # one for each request that is being worked on
        self._in_flight: set[asyncio.Task[None]] = (
            set()
        )  # those whose request was sent and has no reply in the journal yet
        self._released: dict[str, asyncio.Future[None]] = {}  # replies in the queue, by key; done once in the journal
        # Requests that have used up their attempts, and the server's last error message, by kind of failure.
        self._failures: Counter[str] = Counter()
        self._messages: dict[str, str] = {}
        self._failures_in_a_row = 0
        self._stop_reason: BaseException | None = None
        self._is_interrupted = False
        self._loop_runs = threading.Event()  # or it has ended before it began
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main_task: asyncio.Task[None] | None = None

    # Called from the caller's thread

    def arrived(self) -> list[FinishedItem]:
        """All replies that have arrived, after a wait for the first one; an empty list after the last ones."""
        if self._has_ended:
            return []
        items = [self._queue.get()]
        while not self._queue.empty():
            items.append(self._queue.get())
        self._has_ended = items[-1] is None
        return [item for item in items if item is not None]

    def release(self, items: Sequence[FinishedItem]) -> None:
        """The replies are in the journal, where other jobs may read them: free their claims and slots."""
        keys = [item.key for item in items]
        if self._claims is not None:
            for key in keys:
                self._claims.release(key, in_journal=True)
        self._call_in_loop(self._release_slots, keys)

    def interrupt(self) -> None:
        """Send no more requests, and wait for those in flight as long as `DRAIN_SECONDS`; called by a signal handler."""
        self._is_interrupted = True  # for an event loop that does not run yet
        self._call_in_loop(self._drain)

    def cancel(self) -> None:
        """Stop at once, requests in flight included: the caller reads no more replies."""
        self._loop_runs.wait()
        self._call_in_loop(self._cancel)

    def _call_in_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        """Release the claims of requests without a reply."""
        self._slots.close()
        if self._claims is not None:
            self._claims.close()

    def raise_failure(self) -> None:
        """Raise the error that stopped the sending, or a `UserError` where requests are left without a reply."""
        if self._stop_reason is not None:
            raise self._stop_reason
        if self._failures:
            endpoint, n_requests = self._job.endpoint, len(self._requests)
            is_unreachable = self._failures["connection lost"] == n_requests
            advice = "check that the server is running and that `base_url` is right, and " if is_unreachable else ""
            raise UserError(
                f"provider {endpoint.provider!r}: {self._failures.total()} of {n_requests} requests got no reply after "
                f"{endpoint.max_attempts} attempts each ({self._failure_counts()}); {advice}run the same command again, which "
                "sends only these"
            )

    # Called from the event loop's thread, in the order of a run: from the thread to the tasks, an attempt, a call

    def run_thread(self) -> None:
        """Run the event loop to its end, and end the queue of replies."""
        try:
            _raise_open_file_limit(self._slots.limit)
            asyncio.run(self._main())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # `raise_failure` raises it in the caller's thread
            self._stop_reason = self._stop_reason or error
        finally:
            self._loop_runs.set()
            self._queue.put(None)

    async def _main(self) -> None:
        self._loop, self._main_task = asyncio.get_running_loop(), asyncio.current_task()
        self._loop_runs.set()
        if self._is_interrupted:
            self._drain()
        async with Client(self._job.endpoint) as client:
            await self._send_all(client)

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
            await retrying(self._attempt, client, key, request)
        except TransientError as error:
            self._give_up(error)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._stop(error)
        else:
            self._failures_in_a_row = 0

    async def _attempt(self, client: Client, key: str, request: Request) -> None:
        """One attempt: wait for a slot, claim the request, call the server unless another job has the reply, hand it over."""
        async with self._slots.slot():
            if self._claims is not None and (record := await self._claims.acquire(key)) is not None:
                await self._hand_over(FinishedItem(key, record))
                return
            task = asyncio.current_task()
            try:
                sent_at = await self._rate_limit.wait_turn()
                self._job.ledger.check_budget()
                self._in_flight.add(task)
                reply, usage = await self._call(client, request, sent_at)
                await self._hand_over(FinishedItem(key, reply.record(), usage.prompt_tokens, usage.completion_tokens))
            except BaseException:
                if self._claims is not None:
                    self._claims.release(key, in_journal=False)
                raise
            finally:
                self._in_flight.discard(task)

    async def _call(self, client: Client, request: Request, sent_at: float) -> tuple[Reply, Usage]:
        """Send the request once, and record its cost. Returns the reply and the tokens it is billed for."""
        self._job.totals.calls += 1
        try:
            reply = await client.send(request)
        except TransientError as error:
            if error.rate_limited or error.retry_after is not None:
                backoff = self._job.backoff
                self._rate_limit.count_rejection(sent_at, error.retry_after, (backoff.first, backoff.longest))
                if self._rate_limit.n_pauses >= self._job.endpoint.max_attempts:
                    self._stop(self._rejection_error(error))
            if isinstance(error, UnreadableReply):
                self._record_cost(request, estimate_usage(request, error.length), estimated=True)
            raise
        self._rate_limit.count_reply()
        usage = reply.usage or estimate_usage(request, len(reply.text.encode()))
        self._record_cost(request, usage, estimated=reply.usage is None)
        return reply, usage

    async def _hand_over(self, item: FinishedItem) -> None:
        """Put a reply into the queue, and wait until it is in the journal."""
        self._released[item.key] = asyncio.get_running_loop().create_future()
        self._queue.put(item)
        await self._released[item.key]

    def _release_slots(self, keys: Sequence[str]) -> None:
        for key in keys:
            if not (released := self._released.pop(key)).done():
                released.set_result(None)

    def _record_cost(self, request: Request, usage: Usage, *, estimated: bool) -> None:
        job, model = self._job, str(request.body.get("model"))
        usd = job.ledger.record(
            job.endpoint, model, stage=job.stage, policy=job.policy, usage=usage, estimated=estimated
        )
        job.totals.add_cost(usd)

    # After a failed attempt

    def _wait_before_retry(self, state: Any) -> float:
        """Seconds until the next attempt of a request."""
        from tenacity import wait_exponential, wait_random

        error, backoff = state.outcome.exception(), self._job.backoff
        longest = backoff.longest
        if error.rate_limited and not self._rate_limit.n_pauses:
            longest = min(longest, GRANTING_WAIT * backoff.first)
        wait = (wait_exponential(multiplier=backoff.first, max=longest) + wait_random(0, backoff.first))(state)
        return wait if error.retry_after is None else max(wait, error.retry_after)

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

    def _rejection_error(self, error: TransientError) -> UserError:
        return UserError(
            f"provider {self._job.endpoint.provider!r} answers no request: after {self._rate_limit.n_pauses} pauses of all "
            f"requests, the last reply was {error}; run the same command again later (finished items are kept)"
        )

    def _stop(self, reason: BaseException) -> None:
        """Send no more requests. Those in flight are paid for, so their tasks continue."""
        if self._stop_reason is None:
            self._stop_reason = reason
            for task in self._tasks - self._in_flight - {asyncio.current_task()}:
                task.cancel()

    def _drain(self) -> None:
        """Stop the sending after an interrupt, and limit the wait for the requests in flight."""
        if isinstance(self._stop_reason, KeyboardInterrupt):
            return
        log.warning(
            "interrupted: waiting for %d replies, at most %.0f s; interrupt again to end at once (these replies are then lost)",
            len(self._in_flight),
            DRAIN_SECONDS,
        )
        self._stop(KeyboardInterrupt())
        asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._cancel)

    def _cancel(self) -> None:
        if self._main_task is not None:
            self._main_task.cancel()

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
