"""Data in the CJE format into arrays, and back: the one place to import from, whatever the file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from arena_cje.data.calibration import calibration_arrays, load_calibration, read_calibration
from arena_cje.data.draws import find_draws, find_probes, load_draws
from arena_cje.data.logged import load_logged, logged_arrays, read_logged
from arena_cje.data.reading import Reading
from arena_cje.data.rows import OUTSIDE_SUPPORT, named, with_covariates
from arena_cje.data.schemas import CALIBRATION, DRAWS, LOGGED

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from arena_cje.data.rows import Response, Source
    from arena_cje.estimation.records import Labelled, Logged
    from arena_cje.files import Row

__all__ = [
    "Dataset",
    "find_draws",
    "find_probes",
    "load_calibration",
    "load_dataset",
    "load_draws",
    "load_logged",
    "write_calibration",
    "write_draws",
    "write_logged",
]


class Dataset(NamedTuple):
    """The logged data and the calibration data beside them."""

    responses: list[Response]  # every logged row
    logged: Logged  # those with a judge score
    calibration: Labelled | None
    counts: dict[str, Any]  # rows that were read and dropped, and why


def load_dataset(
    logged: Source,
    calibration_data: Source | None = None,
    *,
    base_policy: str | None = None,
    reading: Reading = Reading(),
) -> Dataset:
    """The logged data and the calibration data, where there are any; each source is read once."""
    own, base, policies = read_logged(logged, base_policy, reading=reading.without_covariates())
    responses = with_covariates(own, reading.covariates)
    arrays, counts = logged_arrays(responses, base, policies, named(logged), reading)
    if calibration_data is None:
        return Dataset(responses, arrays, None, counts)
    kept, summary = read_calibration(calibration_data, own, base, reading=reading)
    return Dataset(responses, arrays, calibration_arrays(kept, reading), counts | {"calibration_data": summary})


def write_logged(path: str | Path, rows: Iterable[Row], reading: Reading = Reading()) -> None:
    """Logged rows as CJE JSONL; a target log probability of -inf is written in its agreed form."""
    reading.bounded(LOGGED).write(path, [_without_infinity(row) for row in rows])


def write_draws(path: str | Path, rows: Iterable[Row], reading: Reading = Reading()) -> None:
    """Fresh draws as CJE JSONL."""
    reading.bounded(DRAWS).write(path, rows)


def write_calibration(path: str | Path, rows: Iterable[Row], reading: Reading = Reading()) -> None:
    """Calibration data as CJE JSONL."""
    reading.bounded(CALIBRATION).write(path, rows)


def _without_infinity(row: Row) -> Row:
    targets = row.get("target_policy_logprobs") or {}
    outside = [name for name, value in targets.items() if value == -math.inf]
    if not outside:
        return row
    metadata = row.get("metadata") or {}
    named = list(dict.fromkeys([*metadata.get("outside_support", []), *outside]))
    written = {name: OUTSIDE_SUPPORT if name in outside else value for name, value in targets.items()}
    return row | {"target_policy_logprobs": written, "metadata": metadata | {"outside_support": named}}
