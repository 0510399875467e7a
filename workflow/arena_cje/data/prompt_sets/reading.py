"""Rows of a prompt set on this machine, one at a time: Parquet, JSONL, JSON, CSV and TSV files, folders of data sets.

JSONL and CSV may be compressed with gzip and may begin with a byte order mark. A folder is one that
`datasets.Dataset.save_to_disk` has written, or one that has Parquet files in it (a copy of a repository of the Hub). Errors
name the file and the row.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import sys
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje.errors import UserError

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from arena_cje.files import RowWithPlace

GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
EXPECTED = "expected Parquet, JSONL (one JSON object a line), JSON (one array of objects) or CSV with a header"
BATCH_ROWS = 1000  # rows of a columnar file in memory at a time


@dataclass(frozen=True)
class PromptSet:
    """An opened prompt set.

    rows: function of the names of the columns to read, which gives the rows with their places; rows of JSON come whole.
    as_text: whether values are texts, also those of lists and objects.
    """

    name: str
    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterable[RowWithPlace]]
    as_text: bool = False
    revision: str | None = None


def open_path(path: Path, split: str) -> PromptSet:
    """The prompt set of a file or a folder; raises a `UserError` where it cannot be read. split: of a folder with several."""
    if path.is_dir():
        return _folder(path, split)
    with path.open("rb") as file:
        start = file.read(4)
    if start == PARQUET or path.suffix == ".parquet":
        return _parquet_files(path, [path])
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix
    if suffix in DELIMITERS:
        return _csv(path, DELIMITERS[suffix])
    first = _first_character(path)
    if first == b"[":
        return _json_array(path)
    if first not in (b"{", b""):
        beginning = next(_lines(path))[1][:40].decode(errors="replace").strip()
        raise UserError(f"{path}: is not a prompt set, it begins with {beginning!r}; {EXPECTED}")
    return _jsonl(path)


def _open(path: Path) -> io.BufferedIOBase:
    """A file open for reading, decompressed where it is compressed with gzip."""
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP
    return gzip.open(path, "rb") if compressed else path.open("rb")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The numbered lines of a text file, without a byte order mark."""
    number = 0
    with _open(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{path}:{number + 1}: the compressed file is damaged or cut off ({error})") from None


def _first_character(path: Path) -> bytes:
    """The first byte of a text file that is no white space; empty where there is none."""
    return next((line.lstrip()[:1] for _, line in _lines(path) if line.strip()), b"")


# JSON


def _jsonl(path: Path) -> PromptSet:
    def rows(_: Sequence[str]) -> Iterator[RowWithPlace]:
        for number, line in _lines(path):
            if line.strip():
                yield f"{path}:{number}", _object(f"{path}:{number}", line)

    _, first = next(rows(()), ("", {}))
    return PromptSet(str(path), tuple(first), rows)


def _object(where: str, line: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        cut_off = "" if line.endswith(b"\n") else "; the last line is cut off"
        raise UserError(f"{where}: not valid JSON ({error}){cut_off}") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected one JSON object a line, got {type(row).__name__}")
    return row


def _json_array(path: Path) -> PromptSet:
    try:
        values = orjson.loads(b"".join(line for _, line in _lines(path)))
    except orjson.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    for k, value in enumerate(values):
        if not isinstance(value, dict):
            raise UserError(f"{path} (element {k}): expected an array of JSON objects, got {type(value).__name__}")
    placed = [(f"{path} (element {k})", value) for k, value in enumerate(values)]
    return PromptSet(str(path), tuple(values[0]) if values else (), lambda _: placed)


# CSV


def _csv(path: Path, delimiter: str) -> PromptSet:
    csv.field_size_limit(sys.maxsize)
    _, header = next(_records(path, delimiter), ("", []))
    if not any(header):
        raise UserError(f"{path}: has no header; {EXPECTED}")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError(f"{path}:1: the header has column {repeated[0]!r} more than once; rename one of them")

    def rows(_: Sequence[str]) -> Iterator[RowWithPlace]:
        records = _records(path, delimiter)
        next(records)
        for where, values in records:
            if len(values) != len(header):
                raise UserError(f"{where}: has {len(values)} fields, the header has {len(header)}")
            yield where, dict(zip(header, values, strict=True))

    return PromptSet(str(path), tuple(header), rows, as_text=True)


def _records(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """The records of a CSV file, each with the place where it begins; blank lines are none."""
    number = 0

    def texts() -> Iterator[str]:
        nonlocal number
        for number, line in _lines(path):
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                raise UserError(f"{path}:{number}: is not UTF-8 ({error.reason}); save the file as UTF-8") from None

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    begins = 1
    try:
        for values in reader:
            if values:
                yield f"{path}:{begins}", values
            begins = number + 1
    except csv.Error as error:
        raise UserError(f"{path}:{begins}: not valid CSV ({error}); the row is cut off or a quote is missing") from None


# Columnar files


def _parquet_files(name: Path, paths: Sequence[Path]) -> PromptSet:
    parquet = needed_module("pyarrow.parquet", name)
    columns: tuple[str, ...] = ()
    for path in paths:
        try:
            columns = tuple(parquet.read_schema(path).names)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a readable Parquet file, it may be cut off ({_line(error)})") from None

    def rows(names: Sequence[str]) -> Iterator[RowWithPlace]:
        for path in paths:
            with parquet.ParquetFile(path) as file:
                yield from rows_of_batches(str(path), file.iter_batches(BATCH_ROWS, columns=list(names)))

    return PromptSet(str(name), columns, rows)


def rows_of_batches(name: str, batches: Iterable[Any]) -> Iterator[RowWithPlace]:
    """The rows of Arrow batches or tables; raises a `UserError` where the next one cannot be read."""
    number = 0
    try:
        for batch in batches:
            for row in batch.to_pylist():
                yield f"{name} (row {number})", row
                number += 1
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: cannot be read from row {number} on, it may be damaged ({_line(error)})") from None


def _folder(path: Path, split: str) -> PromptSet:
    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return _saved(path, split)
    files = sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
    in_split = [file for file in files if file.name.startswith(f"{split}-")]
    if not files:
        raise UserError(
            f"{path}: a folder without a data set; expected one written by `save_to_disk`, or one with Parquet files"
        )
    return _parquet_files(path, in_split or files)


def _saved(path: Path, split: str) -> PromptSet:
    datasets = needed_module("datasets", path)
    try:
        saved = datasets.load_from_disk(str(path))
    except Exception as error:  # of any kind, where one of the folder's files is damaged
        raise UserError(f"{path}: not a readable data set of `save_to_disk` ({_line(error)})") from None
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise UserError(f"{path}: has no split {split!r}; set prompts.split to one of {', '.join(saved)}")
        saved = saved[split]
    return of_dataset(str(path), saved)


def of_dataset(name: str, dataset: Any, revision: str | None = None) -> PromptSet:
    """A data set of the package `datasets` as a prompt set."""

    def rows(names: Sequence[str]) -> Iterator[RowWithPlace]:
        batches = dataset.select_columns(list(names)).with_format("arrow").iter(BATCH_ROWS)
        return rows_of_batches(name, batches)

    return PromptSet(name, tuple(dataset.column_names), rows, revision=revision)


def needed_module(module: str, name: object) -> Any:
    """A module that only some prompt sets need; raises a `UserError` where it is not installed."""
    from importlib import import_module

    try:
        return import_module(module)
    except ModuleNotFoundError:
        package = module.split(".")[0]
        raise UserError(
            f"{name}: the Python that runs Snakemake ({sys.executable}) needs the package {package} to read it; "
            f"pip install {package}"
        ) from None


def _line(error: BaseException) -> str:
    """The first line of an error, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
