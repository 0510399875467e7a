"""CSV files that people open in a spreadsheet: no cell is run as a formula, and each text comes back as it was."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.errors import UserError
from arena_cje.files import Row, RowWithPlace, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A spreadsheet runs a cell with such a beginning; an apostrophe before it makes it text. Full-width signs count too.
FORMULA = re.compile(r"'*(\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def inert(cell: str) -> str:
    """The text of a cell that a spreadsheet shows and never runs."""
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def as_written(cell: str) -> str:
    """The text that `inert` made a cell of."""
    return cell[1:] if cell.startswith("'") and inert(cell[1:]) == cell else cell


def csv_bytes(rows: Iterable[Row], columns: Sequence[str], *, byte_order_mark: bool = False) -> bytes:
    """Rows as CSV with inert cells; byte_order_mark: for Excel, which otherwise takes UTF-8 for another encoding."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([inert(_text(row.get(name))) for name in columns] for row in rows)
    return (BYTE_ORDER_MARK if byte_order_mark else b"") + text.getvalue().encode("utf-8", "replace")


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def read_csv(path: str | Path) -> list[RowWithPlace]:
    """The rows of a CSV file as texts, each with its place; the header is row 1, as in a spreadsheet.

    Commas, semicolons and tabs separate cells, whichever the header has most of.
    """
    try:
        text = Path(path).read_bytes().removeprefix(BYTE_ORDER_MARK).decode()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is no UTF-8 text (byte {error.start}); save it as CSV in UTF-8 (in Excel: `CSV UTF-8`)"
        ) from None
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
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
            (f"{path} (row {number})", {name: as_written(cell) for name, cell in zip(names, cells, strict=True)})
        )
    return rows


def write_private(path: str | Path, content: bytes) -> None:
    """Write a file that its owner alone may read."""

    def write(handle: Any) -> None:
        os.fchmod(handle.fileno(), 0o600)
        handle.write(content)

    replace(path, write)
