"""A preview of a user's own data before any job runs, so that a plan of a run can refuse them in a sentence.

Data of up to WHOLE bytes are read as the import reads them: what it would refuse is refused here. Of larger data the first ROWS
rows of each file are checked, each by itself, and the logged data are searched for a label; what takes all rows (repeated
prompts, draws of other prompts, columns in other units) is left to the import.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.data import convert
from arena_cje.data.draws import check_policy
from arena_cje.data.logged import base_policy_of, check_scored, similar_field
from arena_cje.data.rows import NO_TEXTS, Response, check_label_probabilities, checked_rows, log_ratios, n_labels
from arena_cje.data.schemas import CALIBRATION, DRAWS, LOGGED, PROBES
from arena_cje.data.sources import source_name
from arena_cje.data.units import differing_units, swapped_columns, unusual_units
from arena_cje.data.user_data import policy_names, read_user_data
from arena_cje.errors import UserError
from arena_cje.files import user_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from arena_cje.data.reading import Reading

WHOLE = 16 * 2**20  # bytes of all files together, which take about half a second
ROWS = 1000
LABEL = re.compile(rb'"oracle_label"\s*:\s*[-0-9.]')


@dataclass(frozen=True)
class OwnFiles:
    """The files of a user's own data."""

    logged: str
    fresh_draws: str | None = None  # folder
    draws: Mapping[str, Path] | None = None  # the files of this folder by policy
    probes: Mapping[str, Path] | None = None
    calibration_data: str | None = None

    @property
    def n_bytes(self) -> int:
        """Size of all files together."""
        others = filter(None, (self.calibration_data, *(self.draws or {}).values(), *(self.probes or {}).values()))
        return sum(user_path(path).stat().st_size for path in (self.logged, *others))


@dataclass(frozen=True)
class Preview:
    """Policies and labels of a user's own data."""

    base_policy: str
    with_logprobs: tuple[str, ...]  # targets that the logged data have log probabilities of
    with_draws: tuple[str, ...]  # targets that have fresh draws
    has_labels: bool  # to fit a calibrator with: on logged rows, or in the calibration data
    n_rows: int | None = None  # logged rows with a judge score; None where the data were read in part, here and below
    n_labels: int | None = None  # of logged rows
    label_hint: str = ""  # ` (did you mean 'x'?)`, where no row has a label and a field may be a misspelled one
    notes: tuple[str, ...] = ()  # what is unusual about the units of the columns

    @property
    def policies(self) -> tuple[str, ...]:
        """The base policy, then the targets."""
        return tuple(dict.fromkeys((self.base_policy, *self.with_logprobs, *self.with_draws)))


def check_first_row(logged: str, reading: Reading) -> None:
    """Raise a `UserError` if the first row is not a logged row; this check runs first."""
    try:
        next(checked_rows(LOGGED, logged, reading, NO_TEXTS), None)
    except UserError as error:
        raise _with_format(logged, error) from None


def preview(files: OwnFiles, reading: Reading, base_policy: str | None = None) -> Preview:
    """The preview of the data; base_policy: its name, where the rows do not give it.

    Raises a `UserError` for data that cannot be analysed, as far as they are read.
    """
    try:
        return _preview(files, reading, base_policy)
    except UserError as error:
        raise _with_format(files.logged, error) from None


def _preview(files: OwnFiles, reading: Reading, base_policy: str | None) -> Preview:
    is_whole = files.n_bytes <= WHOLE
    responses = list(islice(checked_rows(LOGGED, files.logged, reading, NO_TEXTS), None if is_whole else ROWS))
    base = base_policy_of(responses, base_policy)
    targets = tuple(name for name in policy_names(files.logged, base)[1:] if name != base)
    draws = tuple(name for name in files.draws or () if name != base)
    facts = {"base_policy": base, "with_logprobs": targets, "with_draws": draws}
    hint = "" if n_labels(responses) else similar_field("oracle_label", responses)
    if not is_whole:
        _check_first_rows(files, reading, responses, base, targets)
        has_labels = bool(n_labels(responses)) or files.calibration_data is not None or _has_label(files.logged)
        return Preview(**facts, has_labels=has_labels, label_hint=hint)
    data = read_user_data(
        files.logged,
        files.fresh_draws,
        coverage=1.0,
        seed=0,
        base_policy=base_policy,
        probes=files.probes,
        calibration_data=files.calibration_data,
        reading=reading,
    )
    n_found = data.summary["n_labels_found"]
    has_labels = n_found > 0 or files.calibration_data is not None
    notes = _unit_notes(responses, source_name(files.logged), reading)
    return Preview(
        **facts, has_labels=has_labels, n_rows=data.summary["n_rows"], n_labels=n_found, label_hint=hint, notes=notes
    )


def _check_first_rows(
    files: OwnFiles, reading: Reading, responses: list[Response], base: str, targets: tuple[str, ...]
) -> None:
    """Raise a `UserError` for one of the first rows of a file that breaks the format."""
    check_label_probabilities(responses)
    for response in responses:
        log_ratios(response, targets)
    if len(responses) < ROWS or not n_labels(responses):
        check_scored(responses, source_name(files.logged), reading)
    for table, sources, what in ((DRAWS, files.draws, "the fresh draws"), (PROBES, files.probes, "the probes")):
        plain = reading if table is DRAWS else reading.without_covariates()
        for policy, path in (sources or {}).items():
            rows = list(islice(checked_rows(table, path, plain, NO_TEXTS), ROWS))
            check_policy(rows, policy, what)
    if files.calibration_data is not None:
        first = list(islice(checked_rows(CALIBRATION, files.calibration_data, reading), ROWS))
        check_label_probabilities(first)


def _unit_notes(responses: list[Response], where: str, reading: Reading) -> tuple[str, ...]:
    """Sentences about columns of the logged rows that may be in other units than their scales, or swapped."""
    scores, labels = (
        np.array([getattr(row, name) for row in responses], dtype=float) for name in ("judge_score", "oracle_label")
    )
    sentences = (
        unusual_units(scores, reading.judge_scale, f"judge scores of {where}"),
        unusual_units(labels, reading.label_scale, f"oracle labels of {where}"),
        differing_units(scores, labels, reading.judge_scale, reading.label_scale),
        swapped_columns(int((~np.isnan(scores)).sum()), int((np.isnan(scores) & ~np.isnan(labels)).sum())),
    )
    return tuple(filter(None, sentences))


def _has_label(path: str) -> bool:
    """Whether some row of a file has a label; texts that quote the field in JSON have a backslash before it."""
    with user_path(path).open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content[match.start() - 1 : match.start()] != b"\\" for match in LABEL.finditer(content))


def _with_format(path: str, error: UserError) -> UserError:
    """The error, or one that names the tool whose format the logged data have."""
    file = user_path(path)
    if str(file) not in str(error) or file.stat().st_size > WHOLE:
        return error
    try:
        name = convert.recognise(file)
    except UserError:
        return error
    if name in (None, "cje-eval"):  # whose fields have the names of ours, so that it is no other tool
        return error
    return UserError(
        f"{file}: is a file of the format {name}, expected JSONL in the CJE format; convert it (arena-cje convert {name} {file} "
        f"--to DIR), or write logged_data: {{format: {name}, file: {file}}}"
    )
