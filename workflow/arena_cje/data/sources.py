"""The rows of a source of data: a file, a folder with the parts of one data set, a frame, or a list of rows.

A frame has every field in every row: where a file's row lacks a field, a frame has null. A field that is found at the top
level of some rows and under `metadata` of others is therefore read as from a file: a null beside its value counts as absent,
unless some row has a value in both places. In a pandas frame NaN is the missing value, and a column of whole numbers with
missing values has decimals.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any

from arena_cje.errors import UserError
from arena_cje.files import Row, RowWithPlace, iterate_rows, user_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import polars as pl

    # Also a pandas frame, and any table of the Arrow C interface (pyarrow, DuckDB).
    Source = str | Path | pl.DataFrame | pl.LazyFrame | Iterable[Mapping[str, Any]]

SOURCES = "the path of a JSONL file, a folder with its parts, a data frame (polars, pandas, Arrow) or a list of dicts"


def placed_rows(source: Source, what: str = "the data") -> Iterable[RowWithPlace]:
    """The rows of a source with their places; those of files are read one by one.

    what: name of the data in errors. Raises a `UserError` for a source that is none.
    """
    if isinstance(source, str | os.PathLike):
        return chain.from_iterable(map(iterate_rows, parts(source)))
    rows = _rows_of_frame(source, what)
    if rows is None:
        rows = _listed_rows(source, what)
    return [(f"row {k}", row) for k, row in enumerate(rows)]


def source_name(source: Source) -> str:
    """The name of a source in errors."""
    if isinstance(source, str | os.PathLike):
        return str(user_path(source))
    return "the rows" if isinstance(source, list | tuple) else "the data frame"


def parts(path: str | os.PathLike[str]) -> list[Path]:
    """The files of a path: itself, or the parts of one data set in a folder, in the order of their numbers.

    Raises a `UserError` for a folder without JSONL files, or with several whose names differ by more than their numbers.
    """
    path = user_path(path)
    try:
        if not path.is_dir():
            return [path]
        files = sorted(file for file in path.glob("*.jsonl") if file.is_file() and not file.name.startswith("."))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not files:
        raise UserError(f"{path}: is a folder without JSONL files; name a JSONL file in the CJE format")
    if len({re.sub("[0-9]+", "#", file.name) for file in files}) > 1:
        raise UserError(
            f"{path}: is a folder of several data sets ({', '.join(file.name for file in files[:3])}"
            f"{', ...' if len(files) > 3 else ''}); name one of its files (only parts that differ by a number are read "
            "together)"
        )
    return sorted(files, key=lambda file: [int(number) for number in re.findall("[0-9]+", file.name)])


def _rows_of_frame(source: Any, what: str) -> list[Row] | None:
    """The rows of a data frame; None for what is none."""
    import polars as pl

    pandas = sys.modules.get("pandas")  # there is no pandas frame before pandas is imported
    if pandas is not None and isinstance(source, pandas.DataFrame):
        return _without_absent(_pandas_rows(source))
    try:
        if isinstance(source, pl.LazyFrame):
            source = source.collect()
        elif hasattr(source, "__arrow_c_stream__"):
            source = pl.DataFrame(source)
    except Exception as error:  # a plan, or an Arrow stream of anything, may have any fault
        raise UserError(f"{what} cannot be read as a table by polars ({' '.join(str(error).split()):.200})") from None
    if not isinstance(source, pl.DataFrame):
        return None
    # Databases write numbers with a fixed number of digits, which Python would not take for numbers.
    return _without_absent(source.with_columns(pl.selectors.decimal().cast(pl.Float64)).to_dicts())


def _pandas_rows(frame: Any) -> list[Row]:
    names = list(frame.columns)
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"the data frame has more than one column {repeated!r}; rename or drop one of them")
    columns = {name: _pandas_values(frame[name]) for name in names}
    return [
        _plain_row(dict(zip(columns, values, strict=True)), k)
        for k, values in enumerate(zip(*columns.values(), strict=True))
    ]


def _pandas_values(series: Any) -> list[Any]:
    """The values of a column, None where pandas has a missing value."""
    missing = series.isna().tolist()
    values = [None if absent else value for absent, value in zip(missing, series.tolist(), strict=True)]
    numbers = [value for value in values if value is not None]
    if any(missing) and all(isinstance(value, float) and value.is_integer() for value in numbers):
        return [None if value is None else int(value) for value in values]
    return values


def _listed_rows(source: Any, what: str) -> list[Row]:
    """The rows of a list, or of anything else that gives dicts one by one."""
    if isinstance(source, Mapping | bytes | bytearray) or not isinstance(source, Iterable):
        raise UserError(f"{what} are {_kind(source)}, expected {SOURCES}")
    rows = []
    for k, row in enumerate(source):
        if not isinstance(row, Mapping):
            raise UserError(f"row {k} of {what} ({_kind(source)}) is {_kind(row)}, expected {SOURCES}")
        rows.append(_plain_row(row, k))
    return rows


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def _plain_row(row: Mapping[Any, Any], k: int) -> Row:
    """The row with plain values, as from JSON; raises a `UserError` for a field whose name is no text."""
    for name in row:
        if not isinstance(name, str):
            raise UserError(f"row {k}: has the field {name!r}, expected field names that are text")
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """The value with decimals, and numpy's scalars and arrays, as numbers and lists."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Decimal):
        return float(value)
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return _plain(value.tolist())
    return value


def _without_absent(rows: Sequence[Row]) -> list[Row]:
    """The rows of a frame without nulls beside a value of the same field, where these stand for absent fields."""
    in_metadata = {name for row in rows for name in _metadata(row)}
    names = [name for name in (rows[0] if rows else ()) if name in in_metadata and _complement(rows, name)]
    return [_without_nulls(row, names) for row in rows] if names else list(rows)


def _complement(rows: Sequence[Row], name: str) -> bool:
    """Whether some rows have a field's value at the top level, some perhaps under metadata, and none in both places."""
    at_top = [row.get(name) is not None for row in rows]
    below = [_metadata(row).get(name) is not None for row in rows]
    return any(at_top) and not any(map(all, zip(at_top, below, strict=True)))


def _without_nulls(row: Row, names: Sequence[str]) -> Row:
    metadata = _metadata(row)
    absent = {name for name in names if row[name] is None and metadata.get(name) is not None}
    null_below = {name for name in names if name in metadata and metadata[name] is None}
    if not absent and not null_below:
        return row
    row = {name: value for name, value in row.items() if name not in absent}
    row["metadata"] = {name: value for name, value in metadata.items() if name not in null_below}
    return row


def _metadata(row: Row) -> Mapping[str, Any]:
    """The metadata of a row that is not checked yet; empty where they are no mapping."""
    metadata = row.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}
