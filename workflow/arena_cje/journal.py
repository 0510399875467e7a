"""The journal: finished items of a stage, kept outside Snakemake's sight.

Snakemake removes a job's declared outputs before every run and after a failed one, so finished items are appended to an
undeclared file beside them: one JSON line an item, fsynced, so that a killed job loses at most the item in work. An item is
found by its key, the hash of everything that determines its result, so a journal never serves a stale result and can be kept
for ever. A job writes to the file of its shard alone and reads the others of its stage and policy too, so that another shard
size finds what was done. `generate`, `score`, `judge` and `oracle` all go through `complete`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

log = logging.getLogger(__name__)


class Journal:
    """Append-only store of finished items: `with Journal(path) as journal: ...`.

    A second process that opens the same file waits for the first: two jobs never pay for one item twice.

    fresh: ignore what earlier runs left (the file is moved aside, not deleted).
    """

    def __init__(self, path: Path, *, fresh: bool = False):
        self.path = path
        self.fresh = fresh
        self.records: dict[str, dict[str, Any]] = {}
        self._siblings_read = fresh

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that works on %s", self.path)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        if self.fresh and self.path.stat().st_size:
            self._set_aside()
        self.records = dict(read(self.path))
        if not _ends_with_newline(self.path):
            self._file.write(b"\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _set_aside(self) -> None:
        kept = self.path.with_name(f"{self.path.name}.before-{time.time_ns()}")
        kept.write_bytes(self.path.read_bytes())
        self._file.truncate(0)

    def find(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Records of those keys that are finished, from this file first and from its siblings where some are missing."""
        wanted = list(keys)
        if not self._siblings_read and any(key not in self.records for key in wanted):
            for sibling in sorted(self.path.parent.glob("*.jsonl")):
                if sibling != self.path:
                    for key, record in read(sibling, in_use=True):
                        self.records.setdefault(key, record)
            self._siblings_read = True
        return {key: self.records[key] for key in wanted if key in self.records}

    def append(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep one finished item; it is on disk when this returns."""
        body = orjson.dumps({"key": key, "record": record})
        self._file.write(b"%08x " % zlib.crc32(body) + body + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records[key] = dict(record)


def read(path: Path, *, in_use: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys and records of a journal file; lines that a kill or a full disk damaged are skipped and counted in the log.

    in_use: another job may be writing its last line just now, which is no damage.
    """
    damaged = 0
    with open(path, "rb") as file:
        for line in file:
            if in_use and not line.endswith(b"\n"):
                break
            checksum, _, body = line.rstrip(b"\n").partition(b" ")
            if not checksum:
                continue
            if checksum != b"%08x" % zlib.crc32(body):
                damaged += 1
                continue
            entry = orjson.loads(body)
            yield entry["key"], entry["record"]
    if damaged:
        log.warning("%s: %d damaged line(s) skipped, their items are done again", path, damaged)


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def complete(
    journal: Journal,
    items: Mapping[str, Any],
    work: Callable[[dict[str, Any]], Iterable[tuple[str, Mapping[str, Any]]]],
    *,
    unit: str = "items",
    every: float = 10.0,
) -> dict[str, dict[str, Any]]:
    """Records of all items by key: those in the journal as they are, the rest through `work`, appended as they finish.

    items: what to do, by key. work: takes the missing items by key and yields (key, record) in any order. every: seconds
    between progress lines in the log.
    """
    done = journal.find(items)
    missing = {key: item for key, item in items.items() if key not in done}
    log.info("%d %s: %d in the journal, %d to do", len(items), unit, len(done), len(missing))
    started = reported = time.monotonic()
    for count, (key, record) in enumerate(work(missing) if missing else (), start=1):
        journal.append(key, record)
        done[key] = dict(record)
        now = time.monotonic()
        if now - reported >= every or count == len(missing):
            rate = count / max(now - started, 1e-9)
            left = (len(missing) - count) / rate
            log.info("%d/%d %s, %.2f a second, %.0f s left", count, len(missing), unit, rate, left)
            reported = now
    return done
