"""Data sets in the CJE format as arrays: the functions that find and load their files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from arena_cje.data.calibration import calibration_arrays, load_calibration, read_calibration
from arena_cje.data.draws import find_draws, find_probes, load_draws
from arena_cje.data.logged import load_logged, logged_arrays, read_logged
from arena_cje.data.reading import Reading
from arena_cje.data.rows import ALL_TEXTS, with_covariates
from arena_cje.data.sources import source_name

if TYPE_CHECKING:
    from collections.abc import Container

    from arena_cje.data.rows import Response
    from arena_cje.data.sources import Source
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
    """The logged data and the calibration data of an analysis."""

    responses: list[Response]  # all logged rows
    logged: Logged  # the logged rows with a judge score
    calibration: Labelled | None  # None without calibration data
    counts: dict[str, Any]  # numbers of rows that were read, used and dropped by reason


def load_dataset(
    logged: Source,
    calibration_data: Source | None = None,
    *,
    base_policy: str | None = None,
    reading: Reading = Reading(),
    texts: Container[str] | None = ALL_TEXTS,
) -> Dataset:
    """The logged data and, if given, the calibration data; each source is read once.

    base_policy: its name, where the rows do not give it; texts: ids of the prompts whose logged rows keep their texts, as in
    `read_pairs`; all do where covariates are computed. Raises a `UserError` as `read_logged` and `read_calibration` do.
    """
    text_ids = ALL_TEXTS if reading.covariates else texts
    rows, base, policies = read_logged(logged, base_policy, reading=reading.without_covariates(), texts=text_ids)
    responses = with_covariates(rows, reading.covariates)
    arrays, counts = logged_arrays(responses, base, policies, source_name(logged), reading)
    if calibration_data is None:
        return Dataset(responses, arrays, None, counts)
    questions = dict(zip(arrays.prompt_id.tolist(), arrays.question.tolist(), strict=True))
    labelled, summary = read_calibration(calibration_data, rows, base, reading=reading)
    return Dataset(
        responses, arrays, calibration_arrays(labelled, reading, questions), counts | {"calibration_data": summary}
    )
