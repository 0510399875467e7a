"""Reads and writes text, JSON, JSONL and CSV files. A file is written completely or not at all.

Every text of a user is read by `text_bytes` or `read_text`: UTF-8, or UTF-16 or UTF-32 with a byte order mark, which is no
part of the text. The content of a written file goes to a temporary file in the same folder, which is synced to disk and then
renamed. Writing NaN or infinity as JSON is an error: a missing value is None. In JSON that is read, -Infinity is a number
where a log probability is meant: that of an event of probability zero.
"""

from __future__ import annotations

import codecs
import fcntl
import json
import math
import mmap
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from arena_cje.errors import UserError, display_form, file_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from io import BufferedReader

    import polars as pl

NAME_IN_TEMPORARY = 40  # characters; a name has at most 255 bytes, and that of the temporary file is longer

PLAIN = frozenset((str, int, bool, type(None)))  # types of JSON's values that are no numbers with decimals

Row = dict[str, Any]
RowWithPlace = tuple[str, Row]  # place of a row ("FILE:LINE"), and the row


# Links to paths of a user that cannot stand among the inputs of rules; the workflow makes them.
LINKS = Path(".arena-cje") / "links"


def user_path(path: str | os.PathLike[str]) -> Path:
    """The path as the user gave it, where it is the workflow's link to it."""
    path = Path(path)
    return Path(os.readlink(path)) if path.parent.parent == LINKS and path.is_symlink() else path


def looked_in(path: str | os.PathLike[str]) -> str:
    """For the sentence about a path that is not there: the folder that a relative one was looked for in."""
    return "" if Path(path).is_absolute() else f" in {Path.cwd()}"


# UTF-32 first: its mark for little-endian text begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | Path) -> str:
    """The text of a user's file, its lines ended by a line feed; raises a `UserError` where it is none."""
    return text_bytes(path).decode().replace("\r\n", "\n").replace("\r", "\n")


def text_bytes(path: str | Path) -> bytes:
    """The text of a user's file in UTF-8, without a byte order mark.

    Raises a `UserError` where the file cannot be read, or has bytes that are no text.
    """
    path = user_path(path)
    return as_utf8(path, _content(path))


def as_utf8(path: str | Path, content: bytes) -> bytes:
    """The text of a file's bytes in UTF-8, without a byte order mark; path: for errors, which are those of `text_bytes`."""
    for mark, encoding in MARKS:
        if content.startswith(mark):
            # The decoders of UTF-16 and UTF-32 take the mark off themselves, as it gives the order of the bytes.
            start = len(mark) if encoding == "utf-8" else 0
            return _decoded(path, content[start:], encoding, start).encode()
    return _decoded(path, content, "utf-8", 0).encode()


def _content(path: str | Path) -> bytes:
    """The bytes of a file; raises a `UserError` where it cannot be read."""
    with file_errors(path):
        return Path(path).read_bytes()


def _decoded(path: str | Path, content: bytes, encoding: str, start: int) -> str:
    """The text of some bytes, the first of which is byte `start` of the file."""
    if encoding == "utf-8" and b"\0" in content:
        raise UserError(
            f"{path}: contains a NUL character at position {start + content.index(0)}, so it is not text, or UTF-16 without "
            "a byte order mark; save the file as UTF-8"
        )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: is not valid {encoding.upper()} text: byte {content[error.start]:#04x} at position "
            f"{start + error.start}; save the file as UTF-8"
        ) from None


def read_rows_with_places(path: str | Path) -> list[RowWithPlace]:
    """The rows of a JSONL file with their places, without blank lines.

    Raises a `UserError` where the file is missing, has another format or has a malformed line.
    """
    return list(iterate_rows(path))


def iterate_rows(path: str | Path) -> Iterator[RowWithPlace]:
    """The same, one by one; a file in UTF-8 is read line by line, so that it may be larger than the memory."""
    path = user_path(path)
    with file_errors(path), path.open("rb") as handle:
        first = True
        for k, line in enumerate(_lines(path, handle), start=1):
            if not line.strip():
                continue
            if first:
                _check_is_jsonl(path, line)
                first = False
            where = f"{path}:{k}"
            yield where, _parsed(path, where, line)


def _lines(path: Path, handle: BufferedReader) -> Iterable[bytes]:
    """The lines of an open JSONL file, without byte order marks; raises a `UserError` for a file of another format."""
    start = handle.peek(4)[:4]
    if start.startswith(b"\x1f\x8b"):
        raise UserError(f"{path}: is compressed; expected JSONL, decompress it first (gunzip)")
    if start.startswith(b"PAR1"):
        raise UserError(f"{path}: is a Parquet file; expected JSONL, convert it (polars.read_parquet, write_ndjson)")
    if any(start.startswith(mark) for mark, encoding in MARKS if encoding != "utf-8"):
        return as_utf8(path, handle.read()).split(b"\n")
    # Files that were put together have a mark where the second begins.
    return (line.removeprefix(codecs.BOM_UTF8) for line in handle)


def _check_is_text(path: Path, line: bytes) -> None:
    """Raise a `UserError` with the place in the file where a line is no text."""
    try:
        is_text = b"\0" not in line and bool(line.decode())
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        as_utf8(path, _content(path))


def _check_is_jsonl(path: Path, line: bytes) -> None:
    """Raise a `UserError` for a file whose first line begins as that of another format."""
    first = line.lstrip()[:1]
    if first == b"{":
        return
    _check_is_text(path, line)
    if first == b"[":
        raise UserError(
            f"{path}: is one JSON array; expected one JSON object per line, convert it (jq -c '.[]' {path.name})"
        )
    start = line.splitlines()[0][:40].decode(errors="replace")
    raise UserError(
        f"{path}: is not JSONL (it begins with {start!r}); expected one JSON object per line (`arena-cje convert` makes "
        "it from CSV files and from files of other tools)"
    )


def _parsed(path: Path, where: str, line: bytes) -> Row:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        _check_is_text(path, line)
        row = _parsed_with_infinity(where, line)
        if row is None:
            hint = "; NaN and Infinity are not JSON, write null" if b"NaN" in line or b"Infinity" in line else ""
            raise UserError(f"{where}: not valid JSON ({error}){hint}") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected one JSON object per line, got {type(row).__name__}")
    return row


def _parsed_with_infinity(where: str, line: bytes) -> Any:
    """The value of a line that is JSON but for -Infinity as a log probability, also as -1e999; None for any other line.

    Raises a `UserError` for an infinity in another place.
    """
    try:
        value = json.loads(line, parse_constant=_minus_infinity)
        orjson.dumps(value)  # refuses what Python's reader lets through and no file could hold again
    except (ValueError, TypeError, RecursionError):
        return None
    name = next((name for name, number in _non_finite_parts(value) if number > 0 or not is_log_probability(name)), None)
    if name is not None:
        raise UserError(
            f"{where}: {name} is infinite; only the log probability of an impossible response may be -Infinity; write null "
            "for a missing value"
        )
    return value


def _minus_infinity(name: str) -> float:
    """The number that JSON lacks, where its name is that of minus infinity."""
    if name != "-Infinity":
        raise ValueError(name)
    return -math.inf


def is_log_probability(name: str) -> bool:
    """Whether a field has log probabilities, by its dotted name."""
    return "logp" in name.lower().replace("_", "")


def read_jsonl(path: str | Path) -> list[Row]:
    """The rows of a JSONL file; raises a `UserError` where it is missing or malformed."""
    return [row for _, row in read_rows_with_places(path)]


def write_jsonl(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as JSONL, one by one; raises a `UserError` for NaN and infinity, which JSON lacks."""
    replace(path, lambda handle: handle.writelines(_json_lines(path, rows)))


def _json_lines(path: str | Path, rows: Iterable[Row]) -> Iterator[bytes]:
    for k, row in enumerate(rows):
        name = None if _plainly_finite(row.values()) else _non_finite(row)
        if name is not None:
            raise UserError(f"{path} (row {k}): {name} is not a finite number; write None where the value is missing")
        yield _json(row, orjson.OPT_APPEND_NEWLINE)


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; raises a `UserError` where it is missing or malformed."""
    try:
        return orjson.loads(text_bytes(path))
    except orjson.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def json_text(value: Any) -> str:
    """Indented JSON with sorted keys, so that equal values have equal texts; raises a `UserError` for NaN and infinity."""
    name = _non_finite(value)
    if name is not None:
        raise UserError(f"{name} is not a finite number, which JSON lacks; write None where the value is missing")
    return _json(value, orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE).decode()


def _json(value: Any, option: int) -> bytes:
    try:
        return orjson.dumps(value, option=option)
    except orjson.JSONEncodeError as error:
        raise UserError(f"{display_form(value)} cannot be written as JSON: {error}") from None


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented JSON with sorted keys."""
    write_bytes(path, json_text(value).encode())


# A spreadsheet runs a cell that begins so as a formula, even after spaces; the full-width signs are those of East Asian
# keyboards. An apostrophe before it makes it text.
FORMULA = re.compile(r"'*(\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def inert_cell(cell: str) -> str:
    """The text of a cell as a spreadsheet shows it and never runs it: with an apostrophe before what would be a formula."""
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def text_of_cell(cell: str) -> str:
    """The text that `inert_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and inert_cell(cell[1:]) == cell else cell


def contains(path: str | Path, text: bytes) -> bool:
    """Whether a file contains some bytes; it is read as far as the first of them."""
    with Path(path).open("rb") as handle:
        if not os.fstat(handle.fileno()).st_size:
            return False
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text) >= 0


def write_csv(path: str | Path, frame: pl.DataFrame) -> None:
    """Write a frame as CSV, whose cells are inert in a spreadsheet; missing values are empty."""
    replace(path, _of_cells(frame, inert_cell).write_csv)


def read_csv(path: str | Path) -> pl.DataFrame:
    """The frame of a file that `write_csv` wrote; types are those that its cells look like."""
    import polars as pl

    return _of_cells(pl.read_csv(text_bytes(path), infer_schema_length=None), text_of_cell)


def _of_cells(frame: pl.DataFrame, change: Callable[[str], str]) -> pl.DataFrame:
    """The frame with its names and texts changed by a function."""
    import polars as pl

    texts = pl.col(pl.String).map_elements(change, return_dtype=pl.String)
    return frame.with_columns(texts).rename(change)


def try_lock(file: int | BinaryIO, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file, or change its lock, without waiting for other processes; whether this succeeded."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file, completely or not at all."""
    replace(path, lambda handle: handle.write(content))


def _plainly_finite(values: Iterable[Any]) -> bool:
    """Whether some values, of plain types all, have no NaN and no infinity: what nearly all rows are, in little time."""
    for value in values:
        kind = type(value)
        if kind is float:
            if not math.isfinite(value):
                return False
        elif kind is dict or kind is list:
            if not _plainly_finite(value.values() if kind is dict else value):
                return False
        elif kind not in PLAIN:
            return False
    return True


def _non_finite(value: Any) -> str | None:
    """Dotted name of the first NaN or infinity in a value, which orjson would write as null; None where there is none."""
    return next((name for name, _ in _non_finite_parts(value)), None)


def _non_finite_parts(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Dotted name and value of every NaN or infinity in a value."""
    if isinstance(value, float) and not math.isfinite(value):
        yield name, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in parts:
        yield from _non_finite_parts(part, f"{name}.{key}" if name else str(key))


def replace(path: str | Path, write: Callable[[Any], Any]) -> None:
    """Replace a file by what `write` writes to a temporary file beside it, after a sync to disk.

    write: takes the open binary file.
    """
    path = Path(path)
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # tempfile.mkstemp would make the file readable for its owner only.
        temporary = path.with_name(f".{path.name[:NAME_IN_TEMPORARY]}.{os.getpid()}")
        try:
            with temporary.open("wb") as handle:
                write(handle)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):  # the first error is the one to report
                temporary.unlink(missing_ok=True)
            raise
