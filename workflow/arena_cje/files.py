"""Reads and writes JSON, JSONL and CSV files. A file is written completely or not at all.

The content goes to a temporary file in the same folder, which is synced to disk and then renamed. Writing NaN or infinity as
JSON is an error: a missing value is None.
"""

from __future__ import annotations

import math
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import polars as pl

Row = dict[str, Any]
RowWithPlace = tuple[str, Row]  # place of a row ("FILE:LINE"), and the row


def read_rows_with_places(path: str | Path) -> list[RowWithPlace]:
    """The rows of a JSONL file with their places, without blank lines.

    Raises a `UserError` where the file is missing, has another format or has a malformed line.
    """
    path = Path(path)
    try:
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    _check_is_jsonl(path, content)
    lines = content.split(b"\n")
    return [(f"{path}:{k}", _parsed(f"{path}:{k}", line)) for k, line in enumerate(lines, start=1) if line.strip()]


def _check_is_jsonl(path: Path, content: bytes) -> None:
    """Raise a `UserError` for a file whose first bytes are those of another format."""
    first = content.lstrip()[:1]
    if content.startswith(b"\x1f\x8b"):
        raise UserError(f"{path}: is compressed; expected JSONL, decompress it first (gunzip)")
    if first == b"[":
        raise UserError(
            f"{path}: is one JSON array; expected one JSON object a line, convert it (jq -c '.[]' {path.name})"
        )
    if first and first != b"{":
        start = content.splitlines()[0][:40].decode(errors="replace")
        raise UserError(f"{path}: is not JSONL, it begins with {start!r}; expected one JSON object a line")


def _parsed(where: str, line: bytes) -> Row:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        hint = "; NaN and Infinity are not JSON, write null" if b"NaN" in line or b"Infinity" in line else ""
        raise UserError(f"{where}: not valid JSON ({error}){hint}") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected one JSON object a line, got {type(row).__name__}")
    return row


def read_jsonl(path: str | Path) -> list[Row]:
    """The rows of a JSONL file; raises a `UserError` where it is missing or malformed."""
    return [row for _, row in read_rows_with_places(path)]


def write_jsonl(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as JSONL; raises a `UserError` for NaN and infinity, which JSON lacks."""
    lines = []
    for k, row in enumerate(rows):
        name = _non_finite(row)
        if name is not None:
            raise UserError(f"{path} (row {k}): {name} is not a finite number; write None where the value is missing")
        lines.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    write_bytes(path, b"".join(lines))


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; raises a `UserError` where it is missing or malformed."""
    try:
        return orjson.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except orjson.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def json_text(value: Any) -> str:
    """Indented JSON with sorted keys, so that equal values have equal texts; raises a `UserError` for NaN and infinity."""
    name = _non_finite(value)
    if name is not None:
        raise UserError(f"{name} is not a finite number, which JSON lacks; write None where the value is missing")
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE).decode()


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented JSON with sorted keys."""
    write_bytes(path, json_text(value).encode())


def contains(path: str | Path, text: bytes) -> bool:
    """Whether a file contains some bytes; it is read as far as the first of them."""
    with Path(path).open("rb") as handle:
        if not os.fstat(handle.fileno()).st_size:
            return False
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text) >= 0


def write_csv(path: str | Path, frame: pl.DataFrame) -> None:
    """Write a frame as CSV; missing values are empty."""
    replace(path, frame.write_csv)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file, completely or not at all."""
    replace(path, lambda handle: handle.write(content))


def _non_finite(value: Any, name: str = "") -> str | None:
    """Dotted name of the first NaN or infinity in a value, which orjson would write as null; None where there is none."""
    if isinstance(value, float):
        return None if math.isfinite(value) else name
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    names = (_non_finite(part, f"{name}.{key}" if name else str(key)) for key, part in parts)
    return next((part_name for part_name in names if part_name is not None), None)


def replace(path: str | Path, write: Callable[[Any], Any]) -> None:
    """Replace a file by what `write` writes to a temporary file beside it, after a sync to disk.

    write: takes the open binary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # tempfile.mkstemp would make the file readable for its owner only.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
