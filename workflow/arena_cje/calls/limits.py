"""Limits of an endpoint that hold for all processes of a user on a machine: requests in flight at a time, and their pace.

Concurrency (`JobSlots`). The folder of the endpoint has one lock file for each request that may be in flight: slot-0, slot-1, ...
A process that has locked k of them may have k requests in flight. The kernel releases the locks of a process that dies.

Pace (`RateLimit`). The state of `pace` is in a small file that is read and written under a lock, so that all jobs send at the
configured rate, at the rate that the server grants, and pause together.

The folder (`machine_folder`) is the user's own and lies outside the results, so that runs in different directories share it. File
locks work on one machine. Where jobs run on several machines, each machine has these limits for itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import random
import stat
import tempfile
import time
from collections import deque
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from arena_cje.calls import pace
from arena_cje.calls.errors import MAX_WAIT
from arena_cje.calls.pace import Pace
from arena_cje.errors import UserError
from arena_cje.files import try_lock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from arena_cje.calls.endpoint import Endpoint

log = logging.getLogger(__name__)

LONG_WAIT = 10.0  # seconds; a longer wait is logged with its reason
POLL_SECONDS = (0.01, 0.1)  # pause between two attempts to lock a slot: the first one, and the longest
TURN = 1.0  # seconds for which a job passes a slot on among its own requests while other jobs wait for one
YIELD = 2 * POLL_SECONDS[1]  # seconds for which it then leaves the slot to them


def machine_folder() -> Path:
    """The user's folder for what jobs on this machine share; raises a `UserError` where others can write to it.

    It is beside other temporary files. The folder of a login session (XDG_RUNTIME_DIR) would vanish under a job that outlives
    the session, and jobs that a scheduler starts have none.
    """
    folder = Path(tempfile.gettempdir()) / f"arena-cje-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be created ({error.strerror}); set TMPDIR to a folder that you can write to"
        ) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise UserError(
            f"{folder}: expected a folder that only its owner can open (mode 700), because jobs share the limits of "
            "providers in it; remove it or set TMPDIR to another folder"
        )
    return folder


def endpoint_folder(endpoint: Endpoint) -> Path:
    """The folder that all jobs share which call this address with this key."""
    folder = machine_folder() / endpoint.pool
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def locked_file(path: Path, flags: int) -> Iterator[int]:
    """Descriptor of a file that is open and locked inside the `with` block; other processes wait for the lock."""
    file = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def clock() -> float:
    """Seconds since the machine was started: the same for all processes, whatever happens to the time of day."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@cache
def boot() -> str:
    """Identity of the machine's start, since times of the clock mean nothing after another one; empty where it is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class RateLimit:
    """Times at which requests may be sent: `await rate_limit.wait_turn()` returns when it is the caller's turn."""

    def __init__(self, folder: Path, requests_per_minute: float | None):
        self._path = folder / "pace.json"
        self._interval = 60.0 / requests_per_minute if requests_per_minute else 0.0  # seconds; 0 is no limit
        self._queue = asyncio.Lock()  # one request of a job waits for its turn at a time, so that turns are taken late
        self._pace = Pace()  # as it was at the last look
        self._logged_pause = 0.0  # end of the last pause that was logged

    @property
    def n_pauses(self) -> int:
        """Pauses of all requests since the last reply; none where a 429 concerns one request."""
        return self._pace.n_pauses

    async def wait_turn(self) -> float:
        """Wait for the end of any pause and for the caller's turn. Returns the time at which the request is sent."""
        async with self._queue:
            has_turn = False
            while True:
                wait, has_turn = self._next_step(has_turn)
                if wait <= 0:
                    return clock()
                await asyncio.sleep(wait)

    def _next_step(self, has_turn: bool) -> tuple[float, bool]:
        """Seconds to wait before the next look at the file, and whether the caller's turn comes after them.

        has_turn: whether the caller has taken its turn at an earlier look and has waited for it.
        """
        with locked_file(self._path, os.O_RDWR) as file:
            self._pace = _read_pace(file)
            now = clock()
            if (pause := self._pace.paused_until - now) > 0:
                self._log_wait(self._pace.paused_until, pause, "the provider asked for a pause of all requests")
                # A turn that was taken before the pause is given up: else it would come at once at its end.
                return pause + random.uniform(0, min(0.1 * pause, 1.0)), False
            if has_turn:
                return 0.0, True
            turn, self._pace = pace.take_turn(self._pace, now, self._interval)
            _write_pace(file, self._pace)
        if self._interval:
            self._log_wait(turn, turn - now, "for the rate limit (requests_per_minute)")
        return turn - now, True

    def _log_wait(self, end: float, seconds: float, reason: str) -> None:
        """Log a long wait once."""
        if seconds > LONG_WAIT and end != self._logged_pause:
            self._logged_pause = end
            log.info("waiting %.0f s: %s", seconds, reason)

    def count_reply(self) -> None:
        """The server has answered a request."""
        if self._pace.is_moderated:
            with locked_file(self._path, os.O_RDWR) as file:
                self._pace = pace.after_reply(_read_pace(file))
                _write_pace(file, self._pace)

    def count_rejection(self, sent_at: float, retry_after: float | None, backoff: tuple[float, float]) -> None:
        """The server has asked to wait. sent_at: as `wait_turn` returned it; backoff: shortest and longest pause, seconds."""
        with locked_file(self._path, os.O_RDWR) as file:
            self._pace = pace.after_rejection(_read_pace(file), clock(), sent_at, retry_after, *backoff)
            _write_pace(file, self._pace)


def _read_pace(file: int) -> Pace:
    """The state in a file; the first one where the file is new, damaged, or of another start of the machine."""
    try:
        content = json.loads(os.pread(file, 1000, 0))
        if content["boot"] != boot():
            return Pace()
        state = Pace(**{field.name: content[field.name] for field in fields(Pace)})
        # Times that no job can have written: the machine was restarted, which `boot()` does not show everywhere.
        latest = clock() + 2 * MAX_WAIT
        return state if max(state.next, state.paused_until, state.pause_began, state.sent_at) < latest else Pace()
    except (ValueError, KeyError, TypeError):
        return Pace()


def _write_pace(file: int, state: Pace) -> None:
    content = json.dumps({"boot": boot(), **asdict(state)}).encode()
    os.pwrite(file, content, 0)
    os.ftruncate(file, len(content))


class JobSlots:
    """The slots of an endpoint that one job holds: inside `async with job_slots.slot()` the job has one request in flight.

    A slot that a request no longer needs goes to the next waiting request of the same job. Where none waits, or where another
    job has waited for a second, its lock is released for the other jobs.
    """

    def __init__(self, folder: Path, limit: int):
        self.limit = limit  # slots of the endpoint
        self._folder = folder
        self._locked_at: dict[int, float] = {}  # time of each slot's lock by its file descriptor, seconds
        self._yields_until = 0.0  # before this time other jobs may lock the slots that this one has released
        self._waiting: deque[asyncio.Future[int]] = deque()  # each receives the file descriptor of a locked slot
        self._poller: asyncio.Task[None] | None = None
        # Jobs with waiting requests hold a shared lock of this file.
        self._waiting_file = os.open(folder / "waiting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Close the file by which other jobs see that this one waits."""
        os.close(self._waiting_file)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot, and hold it inside the `async with` block."""
        file = await self._acquire()
        try:
            yield
        finally:
            self._release(file)

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
        """Lock any free slot; None where jobs hold all of them, or where it is the turn of other jobs."""
        if len(self._locked_at) >= self.limit or time.monotonic() < self._yields_until:
            return None
        start = random.randrange(self.limit)
        for k in range(self.limit):
            path = self._folder / f"slot-{(start + k) % self.limit}"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if try_lock(file, fcntl.LOCK_EX):
                self._locked_at[file] = time.monotonic()
                return file
            os.close(file)
        return None

    def _release(self, file: int) -> None:
        """Pass a slot on to a waiting request of this job; unlock it where none waits, or where it is the turn of others."""
        if self._is_turn_of_others(file):
            self._yields_until = time.monotonic() + YIELD
            self._unlock(file)
        elif not self._pass_on(file):
            self._unlock(file)

    def _is_turn_of_others(self, file: int) -> bool:
        """Whether this job has had a slot for a second and another job waits for one."""
        if time.monotonic() - self._locked_at[file] < TURN:
            return False
        self._locked_at[file] = time.monotonic()
        others_wait = not try_lock(self._waiting_file, fcntl.LOCK_EX)
        try_lock(self._waiting_file, fcntl.LOCK_SH if self._poller else fcntl.LOCK_UN)
        return others_wait

    def _unlock(self, file: int) -> None:
        os.close(file)
        del self._locked_at[file]

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
                try_lock(self._waiting_file, fcntl.LOCK_SH)
                file = self._try_lock_slot()
            except OSError as error:  # also of a file system without locks
                self._fail_waiting(error)
                break
            if file is not None:
                if not self._pass_on(file):
                    self._unlock(file)
                pause, waiting_since = POLL_SECONDS[0], None
                continue
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, longest)
            if waiting_since is not None and not self._locked_at and time.monotonic() - waiting_since > LONG_WAIT:
                log.info("waiting for one of %d slots (max_concurrency), which other jobs are using", self.limit)
                waiting_since = None
        self._poller = None
        with suppress(OSError):
            try_lock(self._waiting_file, fcntl.LOCK_UN)

    def _fail_waiting(self, error: OSError) -> None:
        """Raise an error in all waiting requests: the lock files cannot be opened."""
        while self._waiting:
            if not (place := self._waiting.popleft()).done():
                place.set_exception(error)
