"""The journal: finished items of a stage, in a file that Snakemake does not know.

Snakemake removes the outputs of a job before every run and after a failed one. So each finished item is appended to a file
that is no declared output, as one JSON line that is synced to disk: a killed job loses at most what it works on. The
key of an item is the hash of all that determines its result, so a journal never returns a stale result and can be kept for
ever. A job writes to the file of its shard and also reads those of the other shards of its stage and policy, so that a new
shard size finds the finished items. The stages `generate`, `score`, `judge` and `oracle` all use `complete`.
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

from arena_cje.errors import file_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)


class FinishedItem(NamedTuple):
    """A finished item: its record, and the tokens that the model read and generated (or scored) for it."""

    key: str
    record: Mapping[str, Any]
    prompt_tokens: int = 0
    response_tokens: int = 0


@dataclass
class Tally:
    """Items that a job has finished itself, with their tokens; time is measured from the creation of the tally."""

    items: int = 0
    prompt_tokens: int = 0
    response_tokens: int = 0
    seconds: float = 0.0  # wall time until the last item
    cpu_seconds: float = 0.0  # processor time of all threads until the last item
    _began: float = field(default_factory=time.monotonic, init=False, repr=False)
    _cpu_began: float = field(default_factory=time.process_time, init=False, repr=False)

    def count(self, item: FinishedItem) -> None:
        """Add one finished item."""
        self.items += 1
        self.prompt_tokens += item.prompt_tokens
        self.response_tokens += item.response_tokens
        self.seconds = time.monotonic() - self._began
        self.cpu_seconds = time.process_time() - self._cpu_began

    @property
    def tokens(self) -> int:
        """Number of tokens of prompts and responses."""
        return self.prompt_tokens + self.response_tokens

    def progress(self, n_items: int, unit: str) -> str:
        """Progress of a job of `n_items` for the log: items, items and tokens a second, and seconds left at this speed."""
        seconds = max(self.seconds, 1e-9)
        tokens = f"{_readable(self.tokens / seconds)} tokens a second, " if self.tokens else ""
        seconds_left = _readable((n_items - self.items) * seconds / self.items)
        return (
            f"{self.items}/{n_items} {unit}, {_readable(self.items / seconds)} a second, {tokens}{seconds_left} s left"
        )

    def total(self, unit: str) -> str:
        """Items, tokens and seconds for the log."""
        tokens = f": {_readable(self.prompt_tokens)} prompt and {_readable(self.response_tokens)} response tokens"
        return f"{_readable(self.items)} {unit}{tokens if self.tokens else ''} in {_readable(self.seconds)} s"


def _readable(value: float) -> str:
    """A number for the log: two digits below 10, an integer above, thousands separated by spaces."""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}".replace(",", " ")


class Journal:
    """A file to which finished items are appended: `with Journal(path) as journal: ...`.

    A second process that opens the file waits until the first one closes it, so that no item is paid for twice. `tally` counts
    what this job finishes itself.

    fresh: ignore the items of earlier runs (the file is copied to another name, not deleted).
    """

    def __init__(self, path: Path, *, fresh: bool = False):
        self.path = path
        self.fresh = fresh
        self.records: dict[str, dict[str, Any]] = {}
        self.tally = Tally()
        self._siblings_read = fresh

    def __enter__(self) -> Journal:
        with file_errors(self.path):
            self._open()
        return self

    def _open(self) -> None:
        """Open the file and wait for its lock, and read what it has."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that uses %s", self.path)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        if self.fresh and self.path.stat().st_size:
            self._move_records()
        self.records = dict(read(self.path))
        if not _ends_with_newline(self.path):
            self._file.write(b"\n")

    def __exit__(self, *_: object) -> None:
        with file_errors(self.path):  # closing a file tries again what could not be written
            self._file.close()

    def _move_records(self) -> None:
        copy = self.path.with_name(f"{self.path.name}.before-{time.time_ns()}")
        copy.write_bytes(self.path.read_bytes())
        self._file.truncate(0)

    def find(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Records of the finished items among the keys; other shards' files are read where this one lacks some."""
        keys = list(keys)
        if not self._siblings_read and any(key not in self.records for key in keys):
            for sibling in sorted(self.path.parent.glob("*.jsonl")):
                if sibling != self.path:
                    for key, record in read(sibling, in_use=True):
                        self.records.setdefault(key, record)
            self._siblings_read = True
        return {key: self.records[key] for key in keys if key in self.records}

    def append(self, items: Iterable[FinishedItem]) -> None:
        """Append the records of finished items; they are on disk when this returns, after one sync for all of them."""
        records = {item.key: dict(item.record) for item in items}
        with file_errors(self.path):
            self._file.write(b"".join(_line(key, record) for key, record in records.items()))
            self._file.flush()
            os.fsync(self._file.fileno())
        self.records |= records


def _line(key: str, record: Mapping[str, Any]) -> bytes:
    body = orjson.dumps({"key": key, "record": record})
    return b"%08x " % zlib.crc32(body) + body + b"\n"


def read(path: Path, *, in_use: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys and records of a journal file. Lines that a kill or a full disk has damaged are skipped, with a warning.

    in_use: another job may be writing the last line, which is then no damage.
    """
    n_damaged = 0
    with open(path, "rb") as file:
        for line in file:
            if in_use and not line.endswith(b"\n"):
                break
            checksum, _, body = line.rstrip(b"\n").partition(b" ")
            if not checksum:
                continue
            if checksum != b"%08x" % zlib.crc32(body):
                n_damaged += 1
                continue
            entry = orjson.loads(body)
            yield entry["key"], entry["record"]
    if n_damaged:
        log.warning("%s: %d damaged line(s) skipped; their items are made again", path, n_damaged)


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def complete(
    journal: Journal,
    items: Mapping[str, Any],
    work: Callable[[dict[str, Any]], Iterable[FinishedItem | list[FinishedItem]]],
    *,
    unit: str = "items",
    every: float = 10.0,
) -> dict[str, dict[str, Any]]:
    """Records of all items by key: those of the journal, and those that `work` makes, appended as they finish.

    items: by key. work: takes the missing items by key and yields them as finished items in any order, one by one or in
    lists; a list is in the journal before the next one is taken. every: seconds between progress lines in the log.
    """
    records = journal.find(items)
    missing = {key: item for key, item in items.items() if key not in records}
    log.info("%d %s: %d in the journal, %d to do", len(items), unit, len(records), len(missing))
    if not missing:
        return records
    tally = journal.tally = Tally()
    last_report = 0.0  # seconds
    for finished in work(missing):
        batch = finished if isinstance(finished, list) else [finished]
        journal.append(batch)
        for item in batch:
            records[item.key] = dict(item.record)
            tally.count(item)
        if tally.seconds - last_report >= every or tally.items == len(missing):
            log.info("%s", tally.progress(len(missing), unit))
            last_report = tally.seconds
    log.info("%s", tally.total(unit))
    return records
