"""The journal: finished items of a stage, in a file that Snakemake does not track.

Snakemake removes the outputs of a job before every run and after a failed one. So each finished item is appended to a file
that is no declared output, as one JSON line that is synced to disk: a killed job loses at most what it works on. The
key of an item is the hash of all that determines its result, so a journal never returns a stale result and can be kept for
ever. A job writes to the file of its shard and finds the items of the other shards of its stage and policy by their `index`, so
that a new shard size finds the finished items. The stages `generate`, `score`, `judge` and `oracle` all use `complete`.

Items that take less time than a sync share one: those of the last `SYNC_SECONDS` are lost with the power, none with the process.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from arena_cje.errors import file_errors
from arena_cje.files import try_lock, write_bytes
from arena_cje.journal import index, lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

SYNC_SECONDS = 0.05  # between two syncs of items that come one by one


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
        self.tally = Tally()
        self._places: dict[str, lines.Place] = {}  # of the items in this file
        self._elsewhere: index.Found = {}  # items that other shards have
        self._size = 0  # of the file, in bytes
        self._synced = 0  # bytes of it that are on disk for certain
        self._sync_time = 0.0

    def __enter__(self) -> Journal:
        with file_errors(self.path):
            self._open()
        return self

    def _open(self) -> None:
        """Open the file and wait for its lock, and see which items it has."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self._file = self.path.open("ab+")
            if not try_lock(self._file):
                log.info("waiting for another process that uses %s", self.path)
                fcntl.flock(self._file, fcntl.LOCK_EX)
            if self.path.exists() and os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
                break
            self._file.close()  # `doctor` has replaced or removed the file in the meantime
        if self.fresh and self.path.stat().st_size:
            self._move_records()
        self._places = dict(lines.scan(self.path))
        self._size = self._synced = self.path.stat().st_size
        if self._size == 0:
            sync_folder(self.path.parent)
        elif os.pread(self._file.fileno(), 1, self._size - 1) != b"\n":
            self._write(b"\n")

    def __exit__(self, *_: object) -> None:
        with file_errors(self.path):  # closing a file tries again what could not be written
            try:
                self._sync()
            finally:
                self._file.close()

    def _move_records(self) -> None:
        copy = self.path.with_name(f"{self.path.name}.before-{time.time_ns()}")
        write_bytes(copy, self.path.read_bytes())  # it is on disk before the original is empty
        self._file.truncate(0)
        index.remove(self.path.parent)

    def find(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Records of the finished items among the keys; other shards' files are asked for those that this one lacks."""
        keys = list(keys)
        missing = [key for key in keys if key not in self._places]
        if missing and not self.fresh:
            with file_errors(self.path.parent):
                self._elsewhere = index.find(self.path, missing)
        with file_errors(self.path):
            records = {key: self._record(key) for key in keys}
        return {key: record for key, record in records.items() if record is not None}

    def _record(self, key: str) -> dict[str, Any] | None:
        """The record of an item; None where no journal has it, or where its line has been damaged since it was found."""
        if key in self._places:
            return _read_record(self._file.fileno(), key, self._places[key])
        if key not in self._elsewhere:
            return None
        name, place = self._elsewhere[key]
        try:
            with self.path.with_name(name).open("rb") as file:
                return _read_record(file.fileno(), key, place)
        except FileNotFoundError:  # it was deleted after it was found
            return None

    def append(self, items: Iterable[FinishedItem], *, sync: bool = True) -> None:
        """Append the records of finished items. They are safe from a kill when this returns.

        sync: whether they are on disk, too; otherwise they are within `SYNC_SECONDS` of the next items, or at the end.
        """
        with file_errors(self.path):
            encoded = {item.key: lines.encode(item.key, item.record) for item in items}
            start = self._size
            self._write(b"".join(encoded.values()))
            for key, line in encoded.items():
                self._places[key] = lines.Place(start, len(line) - 1)
                start += len(line)
            if sync or time.monotonic() - self._sync_time >= SYNC_SECONDS:
                self._sync()

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._file.flush()
        self._size += len(content)

    def _sync(self) -> None:
        if self._synced < self._size:
            os.fsync(self._file.fileno())
            self._synced = self._size
            self._sync_time = time.monotonic()


def _read_record(file: int, key: str, place: lines.Place) -> dict[str, Any] | None:
    """The record in a line of an open file; None where the line is damaged or has another key."""
    line = lines.decode(os.pread(file, place.size, place.start))
    return line[1] if line and line[0] == key else None


def read(path: Path, *, in_use: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys and records of a journal file. Lines that a kill or a full disk has damaged are skipped, with a warning.

    in_use: another job may be writing the last line, which is then no damage.
    """
    with path.open("rb") as file:
        for key, place in lines.scan(path, in_use=in_use):
            record = _read_record(file.fileno(), key, place)
            if record is not None:
                yield key, record


def is_in_use(path: Path) -> bool:
    """Whether another process has a journal open."""
    with path.open("rb") as file:
        return not try_lock(file, fcntl.LOCK_SH)


def record_in(path: Path, key: str) -> dict[str, Any] | None:
    """The record of an item in a journal that another job may be writing; None where it has none.

    The key is looked for in the bytes of the file, from its end, so that no other line is read.
    """
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = len(content)
            while (at := content.rfind(key.encode(), 0, at)) >= 0:
                start, end = content.rfind(b"\n", 0, at) + 1, content.find(b"\n", at)
                line = lines.decode(content[start:end]) if end >= 0 else None
                if line and line[0] == key:
                    return line[1]
    return None


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that new file names survive a power loss."""
    with file_errors(folder):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


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
    lists; a list is on disk before the next one is taken. every: seconds between progress lines in the log.
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
        journal.append(batch, sync=isinstance(finished, list))
        for item in batch:
            records[item.key] = dict(item.record)
            tally.count(item)
        if tally.seconds - last_report >= every or tally.items == len(missing):
            log.info("%s", tally.progress(len(missing), unit))
            last_report = tally.seconds
    log.info("%s", tally.total(unit))
    return records
