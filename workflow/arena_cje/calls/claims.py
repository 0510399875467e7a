"""Claims: of several jobs that need the same reply at the same time, one sends the request.

A job claims a request by locking the file that the first digits of its key name. It holds the lock until the reply is in its
journal, and then writes the path of that journal into the file. A job that waited for the lock reads the reply there. The
kernel releases the locks of a process that dies.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

from arena_cje import journal
from arena_cje.files import try_lock

KEY_DIGITS = 3  # 4096 files, so that two different requests seldom share one and wait for each other
POLL_SECONDS = (0.005, 0.05)  # pause between two attempts to lock a file: the first one, and the longest


class Claims:
    """The claims of one job. journal_path: the journal file that receives the job's replies."""

    def __init__(self, folder: Path, journal_path: Path):
        self._folder = folder / "claims"
        self._journal_path = journal_path
        self._files: dict[str, int] = {}  # file descriptors of the claims that are held, by key
        self._folder.mkdir(parents=True, exist_ok=True)

    async def acquire(self, key: str) -> dict[str, Any] | None:
        """Claim a request, after any job that holds it now. The record of its reply where another job has it; else None."""
        file = os.open(self._folder / key[:KEY_DIGITS], os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            pause, longest = POLL_SECONDS
            while not try_lock(file):
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, longest)
            record = self._record_of_other_job(file, key)
        except BaseException:
            os.close(file)
            raise
        self._files[key] = file
        return record

    def release(self, key: str, *, in_journal: bool) -> None:
        """End a claim. in_journal: whether the job's journal now has the reply, for others to read."""
        if (file := self._files.pop(key, None)) is not None:
            if in_journal:
                os.write(file, f"{key} {self._journal_path}\n".encode())
            os.close(file)

    def close(self) -> None:
        """End all claims that are still held."""
        for key in list(self._files):
            self.release(key, in_journal=False)

    def _record_of_other_job(self, file: int, key: str) -> dict[str, Any] | None:
        """The record of a request in the journal of another job; None where no other job has its reply."""
        for line in os.pread(file, os.fstat(file).st_size, 0).decode().splitlines():
            line_key, _, path = line.partition(" ")
            is_other = line_key == key and Path(path) != self._journal_path and Path(path).exists()
            if is_other and (record := journal.record_in(Path(path), key)) is not None:
                return record
        return None
