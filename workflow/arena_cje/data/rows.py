"""Rows of the CJE format: read from a source, checked, and made into arrays.

A logged row is a response of the base policy with its log probability under the base and under every target, a judge
score and, on some rows, an oracle label; older files have id, score and label under `metadata`. A fresh draw is a
response of a target policy. Log probabilities are those of whole responses in nats.
"""

from __future__ import annotations

import gc
import math
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.data.fields import Distribution, covariates_of, field_of, judge_of
from arena_cje.data.reading import Reading
from arena_cje.data.schemas import DRAWS, LOGGED, LOGPROB, OUTSIDE_SUPPORT, PROBES, Table, fields_hint
from arena_cje.data.sources import placed_rows, source_name
from arena_cje.data.support import with_marks
from arena_cje.data.units import check_units
from arena_cje.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from arena_cje.data.sources import Source
    from arena_cje.files import Row

NO_SCORE = "no judge score"


ALL_TEXTS = None  # of `texts`: rows keep their texts
NO_TEXTS: Container[str] = frozenset()

TEXTS = ("prompt", "response", "judge_distribution", "judge_scores")  # fields that a row without texts lacks


@dataclass(frozen=True, slots=True)
class Response:
    """One checked row: a logged response, a fresh draw, a probe, or a row of the calibration data."""

    where: str  # FILE:LINE, for errors
    row: Row  # as in the file; where its texts are not read, the fields that analyses still need
    prompt_id: str
    draw_idx: int
    judge_score: float | None  # [0, 1]; the mean of the distribution, where there is one
    oracle_label: float | None  # [0, 1]
    distribution: Distribution | None = None  # of the judge, on [0, 1]
    covariates: tuple[float, ...] = ()  # empty where the row has no judge score
    has_draw_idx: bool = False  # whether draw_idx is a field of the row
    label_probability: float | None = None  # with which the label was bought
    n_characters: int | None = None  # of the text; None without one
    n_words: int | None = None
    text_hash: int = 0  # equal for equal texts within a process


def read_responses(
    table: Table, source: Source, *, reading: Reading = Reading(), texts: Container[str] | None = ALL_TEXTS
) -> list[Response]:
    """The checked rows of a source, each with a unique (prompt_id, draw_idx).

    Without a draw_idx of its own a row has the number of earlier rows of its prompt. texts: as in `read_pairs`. Raises a
    `UserError` for a row that breaks the format, and for a repeated (prompt_id, draw_idx).
    """
    responses, places, counts = [], {}, Counter()
    for response in read_pairs(table, source, reading=reading, texts=texts):
        if not response.has_draw_idx and counts[response.prompt_id]:
            response = replace(response, draw_idx=counts[response.prompt_id])
        counts[response.prompt_id] += 1
        check_unique(response, places)
        responses.append(response)
    return responses


def read_pairs(
    table: Table, source: Source, *, reading: Reading = Reading(), texts: Container[str] | None = ALL_TEXTS
) -> list[Response]:
    """The checked rows of a source; without a draw_idx of its own a row is about draw 0.

    texts: ids of the prompts whose rows keep their texts, so that what only reads numbers holds no text; None is all.
    Raises a `UserError` for a row that breaks the format.
    """
    with _without_collections():
        rows = list(checked_rows(table, source, reading, texts))
    check_label_probabilities(rows)
    _check_units(rows, source_name(source), reading, of_policy=table in (DRAWS, PROBES))
    return rows


def checked_rows(
    table: Table, source: Source, reading: Reading, texts: Container[str] | None = ALL_TEXTS
) -> Iterator[Response]:
    """The rows of a source one by one, each checked by itself; arguments as in `read_pairs`."""
    bounded, of_policies = reading.bounded(table), {}
    marked = ((where, with_marks(row)) for where, row in placed_rows(source, table.name))
    for where, row in bounded.checked(marked):
        prompt_id = _prompt_id(row, where)
        draw_idx = field_of(row, "draw_idx", where)
        score, distribution = judge_of(row, where, bounded, reading)
        text = row.get("response")
        response = Response(
            where,
            row if texts is None or prompt_id in texts else _without_texts(row, table, of_policies),
            prompt_id,
            draw_idx or 0,
            score,
            reading.unit_label(field_of(row, "oracle_label", where)),
            distribution,
            (),
            draw_idx is not None,
            field_of(row, "label_probability", where),
            None if text is None else len(text),
            None if text is None else len(text.split()),
            hash(text),
        )
        yield _with_covariates(response, row, reading.covariates) if reading.covariates else response


def _without_texts(row: Row, table: Table, of_policies: dict[tuple, Row]) -> Row:
    """The fields of a row that analyses still need when it was checked: of a fresh draw its policy alone, in one row for all."""
    if table is DRAWS:
        names = {name: row[name] for name in ("policy", "target_policy") if row.get(name) is not None}
        return of_policies.setdefault(tuple(names.items()), names)
    return {name: value for name, value in row.items() if name not in TEXTS}


@contextmanager
def _without_collections() -> Iterator[None]:
    """Do not look for garbage among rows while they are made: there is none, and to look takes as long as to read."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _check_units(responses: Sequence[Response], where: str, reading: Reading, *, of_policy: bool) -> None:
    """Raise a `UserError` where scores or labels are in other units than their scale."""
    scores = (response.judge_score for response in responses)
    labels = (response.oracle_label for response in responses)
    check_units(scores, reading.judge_scale, "judge_scale", f"{where}: {reading.score_field}", of_policy=of_policy)
    check_units(labels, reading.label_scale, "label_scale", f"{where}: oracle_label", of_policy=of_policy)


def with_covariates(responses: Sequence[Response], names: Sequence[str]) -> list[Response]:
    """The responses with the covariates of their rows.

    A response with a null judge's score among its covariates has no score in the result. Raises a `UserError` for a
    missing covariate.
    """
    return [_with_covariates(one, one.row, names) for one in responses] if names else list(responses)


def _with_covariates(response: Response, row: Row, names: Sequence[str]) -> Response:
    if response.judge_score is None:
        return response
    covariates = covariates_of(row, names, response.where)
    if covariates is None:
        return replace(response, judge_score=None, distribution=None)
    return replace(response, covariates=covariates)


def check_label_probabilities(responses: Sequence[Response]) -> None:
    """Raise a `UserError` where some labelled rows have a label_probability and others do not."""
    labelled = [response for response in responses if response.oracle_label is not None]
    without = [response for response in labelled if response.label_probability is None]
    if 0 < len(without) < len(labelled):
        other = next(response for response in labelled if response.label_probability is not None)
        raise UserError(
            f"{without[0].where}: label_probability is missing or null on this labelled row (and on {len(without)} of "
            f"{len(labelled)} in total), but present on others ({other.where}); set it on every labelled row, or on none"
        )


def check_unique(response: Response, places: dict[tuple[str, int], str]) -> None:
    """Raise a `UserError` where `places` has the response's (prompt_id, draw_idx) already; else add it, with its place."""
    key = (response.prompt_id, response.draw_idx)
    if key in places:
        raise UserError(
            f"{response.where}: prompt_id {key[0]!r} with draw_idx {key[1]} appears again (first at {places[key]}); "
            "keep one of the two"
        )
    places[key] = response.where


def arrays(
    responses: Sequence[Response | None], shape: tuple[int, ...], n_covariates: int = 0
) -> dict[str, np.ndarray | None]:
    """Scores, labels and their probabilities, covariates and distributions of responses: fields of `Logged` and `Draws`.

    NaN marks a response that is missing (None) or has no score, and a missing label. A response with fewer points than
    another has further points of mass zero, at its score.
    """
    scored = [response if response and response.judge_score is not None else None for response in responses]
    score = np.array([np.nan if r is None else r.judge_score for r in scored], dtype=float)
    label = np.array([np.nan if r is None or r.oracle_label is None else r.oracle_label for r in scored], dtype=float)
    fields: dict[str, np.ndarray | None] = {"judge_score": score.reshape(shape), "oracle_label": label.reshape(shape)}
    fields |= {"covariates": None, "judge_points": None, "judge_mass": None, "label_probability": None}
    probability = [r and r.oracle_label is not None and r.label_probability for r in scored]
    if any(probability):
        probabilities = np.array([value or np.nan for value in probability], dtype=float)
        fields["label_probability"] = probabilities.reshape(shape)
    if n_covariates:
        missing = (np.nan,) * n_covariates
        covariates = np.array([missing if r is None else r.covariates for r in scored], dtype=float)
        fields["covariates"] = covariates.reshape(*shape, n_covariates)
    n_points = max((len(r.distribution) for r in scored if r and r.distribution), default=0)
    if n_points:
        points = np.repeat(score[:, None], n_points, axis=1)  # (..., r)
        mass = np.zeros_like(points)
        mass[:, 0] = 1.0
        for k, r in enumerate(scored):
            if r and r.distribution:
                points[k, : len(r.distribution)], mass[k, : len(r.distribution)] = zip(*r.distribution, strict=True)
        fields |= {"judge_points": points.reshape(*shape, -1), "judge_mass": mass.reshape(*shape, -1)}
    return fields


def _prompt_id(row: Row, where: str) -> str:
    """The id as a string, which may be "0" or empty; a hash of the prompt where the row has none."""
    metadata = row.get("metadata") or {}
    if "prompt_id" not in metadata and row.get("prompt_id") is not None:
        return str(row["prompt_id"])
    names = [str(place["prompt_id"]) for place in (row, metadata) if place.get("prompt_id") is not None]
    if len(set(names)) == 2:
        raise UserError(
            f"{where}: prompt_id is {names[0]!r} at the top level but {names[1]!r} under metadata; make them agree"
        )
    if names:
        return names[0]
    if row.get("prompt") is None:
        raise UserError(
            f"{where}: has neither prompt_id nor prompt; one of them must identify the prompt"
            f"{fields_hint(row, LOGGED.columns)}"
        )
    return "prompt-" + blake2b(row["prompt"].encode(), digest_size=8).hexdigest()


def log_ratios(response: Response, policies: Sequence[str]) -> list[float]:
    """Log probability under each policy minus that under the base, in nats.

    -inf outside the target's support, NaN where either is missing. Raises a `UserError` for an unknown policy, and for a
    response that the base policy could not have given.
    """
    row, where = response.row, response.where
    base = row.get("base_policy_logprob")
    if base is not None and math.isinf(base):
        raise UserError(
            f"{where}: base_policy_logprob is -inf, but the base policy produced this response; compute it again"
        )
    targets = row.get("target_policy_logprobs") or {}
    outside = (row.get("metadata") or {}).get("outside_support") or []
    for name in (*targets, *outside):
        if name not in policies:
            raise UserError(
                f"{where}: unknown target policy {name!r}{did_you_mean(name, policies)}; the data's policies: "
                f"{', '.join(policies)} (every row lists all of them, with null where the log probability is unknown)"
            )
    return [_target_logprob(targets.get(name), name, name in outside, where) - _or_nan(base) for name in policies]


def _target_logprob(value: Any, name: str, outside: bool, where: str) -> float:
    """The checked log probability under a target: -inf outside its support, NaN where it is missing."""
    problem = LOGPROB.problem(value)
    if problem:
        raise UserError(f"{where}: target_policy_logprobs.{name} {problem}")
    if not outside:
        return _or_nan(value)
    if value != OUTSIDE_SUPPORT:
        raise UserError(
            f"{where}: metadata.outside_support names {name!r}, whose log probability is {value}; "
            f"expected {OUTSIDE_SUPPORT}"
        )
    return -math.inf


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def with_top_level_id(response: Response) -> Row:
    """The row of a response with its prompt_id as a string at the top level, and not under metadata."""
    row = {"prompt_id": response.prompt_id} | response.row | {"prompt_id": response.prompt_id}
    metadata = row.get("metadata")
    if metadata and metadata.get("prompt_id") is not None:
        row["metadata"] = {name: value for name, value in metadata.items() if name != "prompt_id"}
    return row


def with_label_of(row: Row, other: Row) -> Row:
    """The row with the oracle label of another row, and its probability, at the top level and not under metadata."""
    names = ("oracle_label", "label_probability")
    metadata = {name: value for name, value in (row.get("metadata") or {}).items() if name not in names}
    labels = {name: place[name] for place in (other.get("metadata") or {}, other) for name in names if name in place}
    return row | labels | ({"metadata": metadata} if row.get("metadata") else {})


def mask_labels(rows: Iterable[Row], mask: Sequence[bool]) -> Iterator[Row]:
    """The rows one by one, with null for the labels of those that are False in the mask, at the top level and under metadata."""
    return (row if has_label else _without_label(row) for row, has_label in zip(rows, mask, strict=True))


def _without_label(row: Row) -> Row:
    unlabelled = row | ({"oracle_label": None} if "oracle_label" in row else {})
    if "oracle_label" in (row.get("metadata") or {}):
        unlabelled["metadata"] = row["metadata"] | {"oracle_label": None}
    return unlabelled


def n_labels(responses: Sequence[Response]) -> int:
    """Number of responses with an oracle label."""
    return sum(response.oracle_label is not None for response in responses)


def row_counts(
    responses: Sequence[Response], rows: Sequence[Response], dropped: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Numbers of the responses that were read, of the rows that are used, and of those that were dropped, by reason.

    dropped: by default all of them for the lack of a judge score.
    """
    if dropped is None:
        dropped = {NO_SCORE: len(responses) - len(rows)}
    return {
        "n_responses": len(responses),
        "n_rows": len(rows),
        "dropped": {reason: count for reason, count in dropped.items() if count},
        "n_labels_dropped": n_labels(responses) - n_labels(rows),
    }
