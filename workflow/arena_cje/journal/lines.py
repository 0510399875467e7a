"""The lines of a journal: a checksum, and one JSON object with the key and the record of an item.

1c291ca3 {"key":"...","record":{...}}
"""

from __future__ import annotations

import logging
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

KEY = b'{"key":"'  # begins the object of every line


class Place(NamedTuple):
    """Where a line is in its file, in bytes; size: without the line feed."""

    start: int
    size: int


def encode(key: str, record: Mapping[str, Any]) -> bytes:
    """The line of an item, with its line feed."""
    body = orjson.dumps({"key": key, "record": record})
    return b"%08x " % zlib.crc32(body) + body + b"\n"


def decode(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """Key and record of a line; None where it is damaged."""
    body = _body(line)
    if body is None:
        return None
    entry = orjson.loads(body)
    return entry["key"], entry["record"]


def _body(line: bytes) -> bytes | None:
    checksum, _, body = line.partition(b" ")
    return body if checksum == b"%08x" % zlib.crc32(body) else None


def scan(path: Path, start: int = 0, *, in_use: bool = False) -> Iterator[tuple[str, Place]]:
    """Keys and places of the lines of a file from one of them on. Damaged lines are skipped, with a warning.

    in_use: another job may be writing the last line, which is then no damage.
    """
    n_damaged = 0
    for line, place in _lines(path, start):
        if in_use and not line.endswith(b"\n"):
            break
        body = _body(line.rstrip(b"\n"))
        if body is not None:
            yield _key(body), place
        elif line != b"\n":
            n_damaged += 1
    if n_damaged:
        log.warning("%s: %d damaged line(s) skipped; their items are made again", path, n_damaged)


def _lines(path: Path, start: int) -> Iterator[tuple[bytes, Place]]:
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            yield line, Place(start, len(line) - line.endswith(b"\n"))
            start += len(line)


def _key(body: bytes) -> str:
    """The key of a line; the record, which may be long, is not read."""
    if body.startswith(KEY):
        key, _, _ = body[len(KEY) :].partition(b'"')
        if b"\\" not in key:
            return key.decode()
    return orjson.loads(body)["key"]


def sound(path: Path, *, in_use: bool = False) -> tuple[list[Place], int]:
    """Places of the lines of a file that are not damaged, and the number of those that are; in_use: as in `scan`."""
    places, n_damaged = [], 0
    for line, place in _lines(path, 0):
        if in_use and not line.endswith(b"\n"):
            break
        if _body(line.rstrip(b"\n")) is not None:
            places.append(place)
        else:
            n_damaged += line != b"\n"
    return places, n_damaged
