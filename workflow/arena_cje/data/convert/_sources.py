"""Foreign files as rows: JSON, JSONL, CSV, Parquet, each also gzipped, and zip archives of JSON files.

A JSON object is one row, a JSON array has its elements as rows.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje.errors import UserError, display_form
from arena_cje.files import as_utf8, looked_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arena_cje.files import Row, RowWithPlace

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".eval", ".gz")
ZIP = b"PK\x03\x04"  # the beginning of a zip archive, also of one that is cut off
ZSTANDARD = 93  # number of the compression in zip archives
# What reading an archive raises where bytes of it are wrong; a RuntimeError where a flag says that it is encrypted.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Document:
    """A file and its rows."""

    path: Path
    policy: str | None  # name that the user gave to the policy of the file
    rows: list[RowWithPlace] = field(repr=False)
    table: list[list[str]] | None = field(default=None, repr=False)  # cells of a CSV file, its header first

    @property
    def first(self) -> Row:
        """The first row; empty where there is none."""
        return self.rows[0][1] if self.rows else {}

    def name(self, native: Any) -> str:
        """The name of the file's policy: the user's, or else that in the file; raises a `UserError` where there is none."""
        if self.policy is not None:
            return self.policy
        if native is None or native == "":
            raise UserError(f"{self.path}: the policy of the responses is not named in it; name it as NAME={self.path}")
        return str(native)


def documents(files: list[str | Path], recognises: Callable[[Document], bool]) -> tuple[list[Document], list[Path]]:
    """The documents of files and folders, and the files of the folders that are not of the format.

    files: each a path, or NAME=PATH, which names the policy of the file.
    """
    matching, others = [], []
    for file in files:
        name, path = split_name(file)
        for member in members(path):
            document = load(member, name)
            if path.is_dir() and not recognises(document):
                others.append(member)
            else:
                matching.append(document)
    return matching, others


def split_name(file: str | Path) -> tuple[str | None, Path]:
    """The policy that the user named and the path, of a path or NAME=PATH."""
    name, separator, rest = str(file).partition("=")
    if not separator or Path(file).exists():
        return None, Path(file)
    return name, Path(rest)


def members(path: Path) -> list[Path]:
    """The file itself, or the data files below a folder; raises a `UserError` where there are none."""
    if not path.exists():
        raise UserError(f"{path}: no such file{looked_in(path)}")
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix in SUFFIXES)
    if not files:
        raise UserError(f"{path}: no data file in this folder; expected files that end in {', '.join(SUFFIXES)}")
    return files


def load(path: Path, policy: str | None = None) -> Document:
    """The rows of a file; raises a `UserError` for a file that cannot be read, with its row."""
    content = _content(path)
    if content.startswith(ZIP) or zipfile.is_zipfile(io.BytesIO(content)):
        return Document(path, policy, _zip_rows(path, content))
    if content.startswith(b"PAR1"):
        return Document(path, policy, _parquet_rows(path, content))
    text = as_utf8(path, content).decode()
    if not text.strip():
        raise UserError(f"{path}: is empty")
    if text.lstrip()[:1] in ("{", "["):
        return Document(path, policy, _json_rows(path, text))
    table = _cells(path, text)
    names = table[0]
    rows = [(f"{path} (row {k})", dict(zip(names, cells, strict=True))) for k, cells in enumerate(table[1:], start=1)]
    return Document(path, policy, rows, table)


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: its compression is damaged or cut off ({error}); copy the file again") from None


def _json_rows(path: Path, text: str) -> list[RowWithPlace]:
    lines = [(k, line) for k, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) > 1 and _is_object(lines[0][1]):
        return [(f"{path}:{k}", _object(f"{path}:{k}", line)) for k, line in lines]
    value = _parsed(str(path), text)
    if isinstance(value, dict):
        return [(f"{path}:1" if len(lines) == 1 else str(path), value)]
    for k, row in enumerate(value, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path} (row {k}): is {display_form(row)}, expected a JSON object")
    return [(f"{path} (row {k})", row) for k, row in enumerate(value, start=1)]


def _is_object(line: str) -> bool:
    try:
        return isinstance(_loads(line), dict)
    except ValueError:
        return False


def _object(where: str, line: str) -> Row:
    value = _parsed(where, line)
    if not isinstance(value, dict):
        raise UserError(f"{where}: is {display_form(line)}, expected a JSON object")
    return value


def _parsed(where: str, text: str) -> Any:
    try:
        return _loads(text)
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON ({error}); is the file complete?") from None


def _loads(text: str) -> Any:
    """JSON, where other tools may have written NaN, which orjson refuses; raises a `ValueError` for anything else."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _cells(path: Path, text: str) -> list[list[str]]:
    """Cells of a CSV or TSV file; raises a `UserError` for a row with another number of cells than the header."""
    first = text.split("\n", 1)[0]
    delimiter = "\t" if first.count("\t") > first.count(",") else ","
    limit = csv.field_size_limit(len(text) + 1)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
    except csv.Error as error:
        raise UserError(f"{path}: not a readable CSV file ({error}); is the file complete?") from None
    finally:
        csv.field_size_limit(limit)
    for k, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise UserError(
                f"{path} (row {k}): has {len(row)} cells where the header has {len(rows[0])}; "
                "put text with commas or newlines in double quotes"
            )
    return rows


def _parquet_rows(path: Path, content: bytes) -> list[RowWithPlace]:
    import polars as pl

    try:
        frame = pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}); is the file complete?") from None
    return [(f"{path} (row {k})", row) for k, row in enumerate(frame.iter_rows(named=True), start=1)]


def _zip_rows(path: Path, content: bytes) -> list[RowWithPlace]:
    """One row a JSON file of the archive, with the name of that file as `__name__`."""
    return [(f"{path}: {name}", value | {"__name__": name}) for name, value in _zip_objects(path, content)]


def _archive(path: Path, content: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(content))
    except ZIP_ERRORS as error:
        raise UserError(f"{path}: the archive is damaged or cut off ({error}); copy the file again") from None


def _zip_objects(path: Path, content: bytes) -> Iterator[tuple[str, Row]]:
    with _archive(path, content) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".json"):
                continue
            if member.compress_type == ZSTANDARD:
                raise UserError(
                    f"{path}: is compressed by Zstandard, which this Python cannot read; "
                    f"convert it first (inspect log convert {path.name} --to json --output-dir json)"
                )
            where = f"{path}: {member.filename}"
            try:
                text = archive.read(member)
            except ZIP_ERRORS as error:
                raise UserError(f"{where} is damaged ({error}); copy the file again") from None
            value = _parsed(where, as_utf8(where, text).decode())
            if isinstance(value, dict):
                yield member.filename, value
