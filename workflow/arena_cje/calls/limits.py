"""Limits of an endpoint that hold for all processes on a machine: requests in flight at a time, and requests a minute.

Concurrency (`JobSlots`). The folder of the endpoint has one lock file for each request that may be in flight: slot-0, slot-1, ...
A process that has locked k of them may have k requests in flight. The kernel releases the locks of a process that dies.

Rate (`RateLimit`). The generic cell rate algorithm (GCRA): a request is sent at

    t = max(now, next),   next <- t + 60 / requests_per_minute   (seconds)

where `next` is a number in a small file that is read and written under a lock. The same file has the end of a pause, which
a job writes after a server's answer 429 and which all jobs observe.

File locks work on one machine. Where jobs run on several machines, each machine has these limits for itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import random
import time
from collections import deque
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from arena_cje.calls.errors import MAX_WAIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

SUCCESSES_TO_GROW = 20  # replies after which a job with reduced concurrency may have one more request in flight
LONG_WAIT = 10.0  # seconds; a longer wait is logged with its reason
POLL_SECONDS = (0.01, 0.1)  # pause between two attempts to lock a slot: the first one, and the longest


@contextmanager
def locked_file(path: Path, flags: int) -> Iterator[int]:
    """Descriptor of a file that is open and locked inside the `with` block; other processes wait for the lock."""
    file = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


class RateLimit:
    """Times at which requests may be sent: `await rate_limit.wait_turn()` returns when it is the caller's turn."""

    def __init__(self, folder: Path, requests_per_minute: float | None):
        self._path = folder / "pace.json"
        self._interval = 60.0 / requests_per_minute if requests_per_minute else 0.0  # seconds; 0 is no limit
        self._logged_pause = 0.0  # end of the last pause that was logged
        folder.mkdir(parents=True, exist_ok=True)

    async def wait_turn(self) -> None:
        """Wait for the end of any pause and for the caller's turn."""
        has_turn = not self._interval
        while True:
            wait, has_turn = self._next_step(has_turn)
            if wait <= 0:
                return
            await asyncio.sleep(wait)

    def _next_step(self, has_turn: bool) -> tuple[float, bool]:
        """Seconds to wait before the next look at the file, and whether the caller's turn comes after them.

        has_turn: whether the caller has taken its turn at an earlier look and has waited for it.
        """
        with locked_file(self._path, os.O_RDWR) as file:
            state = _read_state(file)
            now = time.time()
            pause = state["paused_until"] - now
            if 0 < pause <= 2 * MAX_WAIT:
                self._log_pause(state["paused_until"], pause)
                # A turn that was taken before the pause is given up: else all these requests would be sent at its end.
                return pause + random.uniform(0, min(0.1 * pause, 1.0)), not self._interval
            if has_turn:
                return 0.0, True
            # A later time was written before the system clock was set back.
            turn = max(now, state["next"] if state["next"] < now + MAX_WAIT else 0.0)
            _write_state(file, state | {"next": turn + self._interval})
            return turn - now, True

    def _log_pause(self, end: float, pause: float) -> None:
        """Log a long pause once."""
        if pause > LONG_WAIT and end != self._logged_pause:
            self._logged_pause = end
            log.info("waiting %.0f s: the provider asked for a pause of all requests", pause)

    def pause(self, seconds: float) -> None:
        """Make all jobs wait this long; a pause that ends later stays as it is."""
        with locked_file(self._path, os.O_RDWR) as file:
            state = _read_state(file)
            end = time.time() + seconds
            if end > state["paused_until"]:
                _write_state(file, state | {"paused_until": end})


def _read_state(file: int) -> dict[str, float]:
    """Next turn and end of the pause (seconds since the epoch); zeros where the file is new or damaged."""
    try:
        state = json.loads(os.pread(file, 1000, 0))
        return {"next": float(state["next"]), "paused_until": float(state["paused_until"])}
    except (ValueError, KeyError, TypeError):
        return {"next": 0.0, "paused_until": 0.0}


def _write_state(file: int, state: dict[str, float]) -> None:
    content = json.dumps(state).encode()
    os.pwrite(file, content, 0)
    os.ftruncate(file, len(content))


class JobSlots:
    """The slots of an endpoint that one job holds: inside `async with job_slots.slot()` the job has one request in flight.

    A slot that a request no longer needs goes to the next waiting request of the same job. Where none waits, its lock is
    released, so that another job takes over the slots of a job that runs out of work.
    """

    def __init__(self, folder: Path, limit: int):
        self.limit = limit  # slots of the endpoint
        self.max_held = limit  # slots that this job may hold: fewer after a 429
        self.n_reductions = 0  # how often `max_held` was reduced
        self._folder = folder
        self._n_held = 0
        self._n_successes = 0  # replies since `max_held` changed
        self._waiting: deque[asyncio.Future[int]] = deque()  # each receives the file descriptor of a locked slot
        self._poller: asyncio.Task[None] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot, and hold it inside the `async with` block."""
        file = await self._acquire()
        try:
            yield
        finally:
            self._release(file)

    def reduce_concurrency(self, n_reductions: int) -> None:
        """Halve the number of slots after a 429, once for all requests that were in flight together.

        n_reductions: the attribute of this name at the time when the rejected request was sent.
        """
        if n_reductions == self.n_reductions:
            self.n_reductions += 1
            self._n_successes = 0
            self.max_held = max(1, min(self.max_held, self._n_held) // 2)

    def count_success(self) -> None:
        """Count a reply; after 20 of them a job with reduced concurrency may hold one more slot."""
        self._n_successes += 1
        if self._n_successes >= SUCCESSES_TO_GROW and self.max_held < self.limit:
            self._n_successes = 0
            self.max_held += 1

    async def _acquire(self) -> int:
        """File descriptor of a locked slot. Requests get slots in the order in which they asked for them."""
        if not self._waiting and (file := self._try_lock_slot()) is not None:
            return file
        place: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        try:
            return await place
        except asyncio.CancelledError:
            # The slot may have been passed on to this request before the request was cancelled.
            if place.done() and not place.cancelled():
                self._release(place.result())
            raise

    def _try_lock_slot(self) -> int | None:
        """Lock any free slot; None where other jobs have all, or where this job holds as many as it may."""
        if self._n_held >= self.max_held:
            return None
        start = random.randrange(self.limit)
        for k in range(self.limit):
            path = self._folder / f"slot-{(start + k) % self.limit}"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            self._n_held += 1
            return file
        return None

    def _release(self, file: int) -> None:
        """Pass a slot on to a waiting request of this job; unlock it where none waits, or where the job holds too many."""
        if self._n_held > self.max_held or not self._pass_on(file):
            self._unlock(file)

    def _unlock(self, file: int) -> None:
        os.close(file)
        self._n_held -= 1

    def _pass_on(self, file: int) -> bool:
        """Give a slot to the request that has waited longest; False where none waits."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(file)
                return True
        return False

    async def _poll(self) -> None:
        """Try to lock slots as long as requests wait for one."""
        pause, longest = POLL_SECONDS
        waiting_since: float | None = time.monotonic()  # None once the wait was logged or a slot was locked
        while self._waiting:
            try:
                file = self._try_lock_slot()
            except OSError as error:
                self._fail_waiting(error)
                break
            if file is not None:
                if not self._pass_on(file):
                    self._unlock(file)
                pause, waiting_since = POLL_SECONDS[0], None
                continue
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, longest)
            if waiting_since is not None and not self._n_held and time.monotonic() - waiting_since > LONG_WAIT:
                log.info("waiting for one of %d slots (max_concurrency): other jobs hold all of them", self.limit)
                waiting_since = None
        self._poller = None

    def _fail_waiting(self, error: OSError) -> None:
        """Raise an error in all waiting requests: the lock files cannot be opened."""
        while self._waiting:
            if not (place := self._waiting.popleft()).done():
                place.set_exception(error)
