"""CSV files that people open in a spreadsheet: no cell is run as a formula, and each text comes back as it was."""

from __future__ import annotations

import csv
import io
import os
from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Any

from arena_cje.errors import UserError
from arena_cje.files import Row, RowWithPlace, inert_cell, replace, text_bytes, text_of_cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


csv.field_size_limit(2**31 - 1)  # the default refuses responses above 131,072 characters


def csv_bytes(rows: Iterable[Row], columns: Sequence[str], *, byte_order_mark: bool = False) -> bytes:
    """Rows as CSV with inert cells; byte_order_mark: for Excel, which otherwise takes UTF-8 for another encoding."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([inert_cell(_text(row.get(name))) for name in columns] for row in rows)
    return (BOM_UTF8 if byte_order_mark else b"") + text.getvalue().encode("utf-8", "replace")


def _text(value: Any) -> str:
    # No text file has a NUL character; `tasks.plain` takes the two for the same.
    return "" if value is None else str(value).replace("\0", "\ufffd")


def read_csv(path: str | Path) -> list[RowWithPlace]:
    """The rows of a CSV file as texts, each with its place; the header is row 1, as in a spreadsheet.

    Commas, semicolons and tabs separate cells, whichever the header has most of.
    """
    text = text_bytes(path).decode()
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}); export it again") from None
    if not lines:
        raise UserError(f"{path}: is empty; expected CSV with a header")
    names, rows = [name.strip() for name in lines[0]], []
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise UserError(f"{path}: has the column {repeated[0]!r} more than once; keep one of them")
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            raise UserError(
                f"{path} (row {number}): has {len(cells)} cells, the header has {len(names)}; the file is damaged or cut short"
            )
        rows.append(
            (f"{path} (row {number})", {name: text_of_cell(cell) for name, cell in zip(names, cells, strict=True)})
        )
    return rows


def write_private(path: str | Path, content: bytes) -> None:
    """Write a file that its owner alone may read."""

    def write(handle: Any) -> None:
        os.fchmod(handle.fileno(), 0o600)
        handle.write(content)

    replace(path, write)
