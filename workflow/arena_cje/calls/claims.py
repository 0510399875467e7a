"""One request in flight of each kind, over all jobs that ask an endpoint: two who need the same reply ask once.

A job claims a request by the lock of a file that its key falls on, and keeps it until the reply is in its journal; the file
then says in which. Who waited for the lock finds the reply there. The kernel frees the lock of a process that dies.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
from pathlib import Path
from typing import Any

from arena_cje import journal

DIGITS = 3  # of a key, which name its file: 4096 of them, so that other requests are seldom waited for
POLL = (0.005, 0.05)  # seconds between looks at a lock that another job has: first, and at most


class Claims:
    """The claims of one job, whose replies go to the journal file `mine`."""

    def __init__(self, folder: Path, mine: Path):
        self._folder = folder / "claims"
        self._mine = mine
        self._held: dict[str, int] = {}
        self._folder.mkdir(parents=True, exist_ok=True)

    async def take(self, key: str) -> dict[str, Any] | None:
        """Claim a request, waiting for who has it now; the record of its reply where another job has got it meanwhile."""
        file = os.open(self._folder / key[:DIGITS], os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            pause, most = POLL
            while not _locked(file):
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, most)
            found = self._elsewhere(file, key)
        except BaseException:
            os.close(file)
            raise
        self._held[key] = file
        return found

    def give_back(self, key: str, *, finished: bool) -> None:
        """End a claim; a finished one says where its reply is kept."""
        if (file := self._held.pop(key, None)) is not None:
            if finished:
                os.write(file, f"{key} {self._mine}\n".encode())
            os.close(file)

    def close(self) -> None:
        """End all claims that are left."""
        for key in list(self._held):
            self.give_back(key, finished=False)

    def _elsewhere(self, file: int, key: str) -> dict[str, Any] | None:
        """The record in the journal of another job that has finished the request."""
        for line in os.pread(file, os.fstat(file).st_size, 0).decode().splitlines():
            name, _, where = line.partition(" ")
            if name == key and Path(where) != self._mine and Path(where).exists():
                records = dict(journal.read(Path(where), in_use=True))
                if key in records:
                    return records[key]
        return None


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
