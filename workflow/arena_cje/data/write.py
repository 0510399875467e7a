"""Write the files of a data set in the CJE format: logged rows, fresh draws, calibration data.

`reading` is the scale of scores and labels. A row that breaks the format is refused with a `UserError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena_cje.data.reading import Reading
from arena_cje.data.schemas import CALIBRATION, DRAWS, LOGGED
from arena_cje.data.support import with_marks

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from arena_cje.files import Row


def write_logged(path: str | Path, rows: Iterable[Row], reading: Reading = Reading()) -> None:
    """Write logged rows as CJE JSONL; a target log probability of -inf is written as `OUTSIDE_SUPPORT`."""
    reading.bounded(LOGGED).write(path, map(with_marks, rows))


def write_draws(path: str | Path, rows: Iterable[Row], reading: Reading = Reading()) -> None:
    """Write fresh draws as CJE JSONL."""
    reading.bounded(DRAWS).write(path, rows)


def write_calibration(path: str | Path, rows: Iterable[Row], reading: Reading = Reading()) -> None:
    """Write calibration data as CJE JSONL."""
    reading.bounded(CALIBRATION).write(path, rows)
