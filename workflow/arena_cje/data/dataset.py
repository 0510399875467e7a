"""Data in the CJE format into arrays: the one place to import from, whatever the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from arena_cje.data.calibration import calibration_arrays, load_calibration, read_calibration
from arena_cje.data.draws import find_draws, find_probes, load_draws
from arena_cje.data.logged import load_logged, logged_arrays, read_logged
from arena_cje.data.reading import Reading
from arena_cje.data.rows import named, with_covariates

if TYPE_CHECKING:
    from arena_cje.data.rows import Response, Source
    from arena_cje.estimation.records import Labelled, Logged

__all__ = [
    "Dataset",
    "find_draws",
    "find_probes",
    "load_calibration",
    "load_dataset",
    "load_draws",
    "load_logged",
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
