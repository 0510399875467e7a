"""How many requests at a time and how many a minute, over all processes on a machine that ask one endpoint.

Slots are lock files: who holds the lock of `slot-k` may have one request in flight, and the kernel frees the lock of a
process that dies, however it dies. The pace is kept by the generic cell rate algorithm (GCRA): a request goes out at

    t = max(now, next),   next <- t + 60 / requests_per_minute

where `next` stands in a small file under a lock. A common pause, after an answer that we ask too fast, stands there too.
Locks reach over one machine; where jobs run on several, each machine has the limits for itself.
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

from arena_cje.calls.errors import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

SUCCESSES = 20  # after so many answers in a row a job that was slowed down may have one more request at a time
LONG = 10.0  # seconds; who waits longer says why
POLL = (0.01, 0.1)  # seconds between looks for a free slot: first, and at most


@contextmanager
def locked(path: Path, flags: int) -> Iterator[int]:
    """A file, open, under a lock that others wait for."""
    file = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


class Pace:
    """When the next request may go out: `await pace.turn()`."""

    def __init__(self, folder: Path, requests_per_minute: float | None):
        self._path = folder / "pace.json"
        self._interval = 60.0 / requests_per_minute if requests_per_minute else 0.0  # seconds
        self._told = 0.0  # the pause that was told last, by its end
        folder.mkdir(parents=True, exist_ok=True)

    async def turn(self) -> None:
        """Wait until no pause holds and it is this request's time."""
        reserved = not self._interval
        while True:
            wait, reserved = self._look(reserved)
            if wait <= 0:
                return
            await asyncio.sleep(wait)

    def _look(self, reserved: bool) -> tuple[float, bool]:
        """Seconds to wait before looking again, and whether a time is reserved (then it has come after them)."""
        with locked(self._path, os.O_RDWR) as file:
            state = _state(file)
            now = time.time()
            if 0 < (pause := state["paused_until"] - now) <= 2 * PATIENCE:
                self._tell(state["paused_until"], pause)
                # A time that was reserved before the pause is void, else all would go out together after it.
                return pause + random.uniform(0, min(0.1 * pause, 1.0)), not self._interval
            if reserved:
                return 0.0, True
            # What lies further ahead was written by a clock that has been set back since.
            at = max(now, state["next"] if state["next"] < now + PATIENCE else 0.0)
            _write(file, state | {"next": at + self._interval})
            return at - now, True

    def _tell(self, until: float, pause: float) -> None:
        """Say once of a pause that it holds, where it is long."""
        if pause > LONG and until != self._told:
            self._told = until
            log.info("waiting %.0f s, as the provider asks of all", pause)

    def pause(self, seconds: float) -> None:
        """Let everybody wait; a longer pause that holds already stays."""
        with locked(self._path, os.O_RDWR) as file:
            state = _state(file)
            until = time.time() + seconds
            if until > state["paused_until"]:
                _write(file, state | {"paused_until": until})


def _state(file: int) -> dict[str, float]:
    """What stands in the file; nothing where it is new or was cut off."""
    try:
        state = json.loads(os.pread(file, 1000, 0))
        return {"next": float(state["next"]), "paused_until": float(state["paused_until"])}
    except (ValueError, KeyError, TypeError):
        return {"next": 0.0, "paused_until": 0.0}


def _write(file: int, state: dict[str, float]) -> None:
    content = json.dumps(state).encode()
    os.pwrite(file, content, 0)
    os.ftruncate(file, len(content))


class Crew:
    """A job's share of an endpoint's slots: `async with crew.slot(): ...` has one request in flight.

    A slot goes from one request of the job to the next while some wait, and back to all jobs when none does, so that the
    next job takes over slots as this one runs out of work.
    """

    def __init__(self, folder: Path, limit: int):
        self.limit = limit
        self.allowed = limit  # of this job; fewer after an answer that we ask too fast
        self.slowed = 0  # times
        self._folder = folder
        self._held = 0
        self._successes = 0
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._recruiter: asyncio.Task[None] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """One request's slot, waited for."""
        file = await self._acquire()
        try:
            yield
        finally:
            self._release(file)

    def slower(self, slowed: int) -> None:
        """Halve what is in flight, once for all requests that were sent at the same speed; `slowed` as it was then."""
        if slowed == self.slowed:
            self.slowed += 1
            self._successes = 0
            self.allowed = max(1, min(self.allowed, self._held) // 2)

    def succeeded(self) -> None:
        """Count an answer; after enough of them one more at a time."""
        self._successes += 1
        if self._successes >= SUCCESSES and self.allowed < self.limit:
            self._successes = 0
            self.allowed += 1

    async def _acquire(self) -> int:
        if not self._waiting and (file := self._take()) is not None:
            return file
        place: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        if self._recruiter is None:
            self._recruiter = asyncio.create_task(self._recruit())
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._release(place.result())
            raise

    def _take(self) -> int | None:
        """Lock any slot that is free and that this job may have."""
        if self._held >= self.allowed:
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
            self._held += 1
            return file
        return None

    def _release(self, file: int) -> None:
        if self._held > self.allowed or not self._hand(file):
            os.close(file)
            self._held -= 1

    def _hand(self, file: int) -> bool:
        """Give a slot to who has waited longest; False where nobody waits."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(file)
                return True
        return False

    async def _recruit(self) -> None:
        """Look for free slots while some wait."""
        pause, most = POLL
        waiting_since: float | None = time.monotonic()
        while self._waiting:
            try:
                file = self._take()
            except OSError as error:
                while self._waiting:
                    if not (place := self._waiting.popleft()).done():
                        place.set_exception(error)
                break
            if file is not None:
                if not self._hand(file):
                    os.close(file)
                    self._held -= 1
                pause, waiting_since = POLL[0], None
                continue
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, most)
            if waiting_since is not None and not self._held and time.monotonic() - waiting_since > LONG:
                log.info("waiting for one of %d slots (max_concurrency), which other jobs have", self.limit)
                waiting_since = None
        self._recruiter = None
