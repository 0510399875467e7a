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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)


class FinishedItem(NamedTuple):
    """A finished item: the record to keep, and the tokens that were read and drawn (or scored) for it."""

    key: str
    record: Mapping[str, Any]
    prompt_tokens: int = 0
    response_tokens: int = 0


@dataclass
class Tally:
    """What a job has done itself, without what its journal had; the clock runs from when the tally is made."""

    items: int = 0
    prompt_tokens: int = 0
    response_tokens: int = 0
    seconds: float = 0.0  # wall time up to the last item
    cpu_seconds: float = 0.0  # the same in processor time, all threads together
    _began: float = field(default_factory=time.monotonic, init=False, repr=False)
    _cpu_began: float = field(default_factory=time.process_time, init=False, repr=False)

    def count(self, done: FinishedItem) -> None:
        """Add one finished item."""
        self.items += 1
        self.prompt_tokens += done.prompt_tokens
        self.response_tokens += done.response_tokens
        self.seconds = time.monotonic() - self._began
        self.cpu_seconds = time.process_time() - self._cpu_began

    @property
    def tokens(self) -> int:
        """Tokens of prompts and responses."""
        return self.prompt_tokens + self.response_tokens

    def progress(self, n_items: int, unit: str) -> str:
        """How far a job of `n_items` is, how fast, and how long the rest will take at that pace."""
        seconds = max(self.seconds, 1e-9)
        tokens = f"{_figure(self.tokens / seconds)} tokens a second, " if self.tokens else ""
        left = _figure((n_items - self.items) * seconds / self.items)
        return f"{self.items}/{n_items} {unit}, {_figure(self.items / seconds)} a second, {tokens}{left} s left"

    def total(self, unit: str) -> str:
        """All that was done."""
        tokens = f": {_figure(self.prompt_tokens)} prompt and {_figure(self.response_tokens)} response tokens"
        return f"{_figure(self.items)} {unit}{tokens if self.tokens else ''} in {_figure(self.seconds)} s"


def _figure(value: float) -> str:
    """A number for a log: two digits below ten, whole above, thousands apart."""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}".replace(",", " ")


class Journal:
    """Append-only store of finished items: `with Journal(path) as journal: ...`.

    A second process that opens the same file waits for the first: two jobs never pay for one item twice. `tally` is what
    this job did itself.

    fresh: ignore what earlier runs left (the file is moved aside, not deleted).
    """

    def __init__(self, path: Path, *, fresh: bool = False):
        self.path = path
        self.fresh = fresh
        self.records: dict[str, dict[str, Any]] = {}
        self.tally = Tally()
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
    work: Callable[[dict[str, Any]], Iterable[FinishedItem]],
    *,
    unit: str = "items",
    every: float = 10.0,
) -> dict[str, dict[str, Any]]:
    """Records of all items by key: those in the journal as they are, the rest through `work`, appended as they finish.

    items: what to do, by key. work: takes the missing items by key and yields them done, in any order. every: seconds
    between progress lines in the log.
    """
    records = journal.find(items)
    missing = {key: item for key, item in items.items() if key not in records}
    log.info("%d %s: %d in the journal, %d to do", len(items), unit, len(records), len(missing))
    if not missing:
        return records
    tally = journal.tally = Tally()
    reported = 0.0
    for done in work(missing):
        journal.append(done.key, done.record)
        records[done.key] = dict(done.record)
        tally.count(done)
        if tally.seconds - reported >= every or tally.items == len(missing):
            log.info("%s", tally.progress(len(missing), unit))
            reported = tally.seconds
    log.info("%s", tally.total(unit))
    return records
