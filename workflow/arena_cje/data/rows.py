"""One row of the CJE format, checked: where each field may stand and which values it may take.

A logged row is a response of the base policy with its log probability under the base and under every target, a judge
score and, on some rows, an oracle label; older files keep id, score and label under `metadata`. Fresh draws are
responses of the targets themselves. Log probabilities are those of whole sequences in nats; what the target cannot say
has -inf, which JSON cannot hold: files carry -10000.0 with the policy's name under `metadata.outside_support`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.data.fields import Distribution, covariates_of, judge_of, stored
from arena_cje.data.reading import Reading
from arena_cje.data.schemas import LOGPROB, OUTSIDE_SUPPORT, Table
from arena_cje.errors import UserError, nearest
from arena_cje.files import Row, read_placed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    Source = str | Path | pl.DataFrame

NO_SCORE = "no judge score"


@dataclass(frozen=True)
class Response:
    """One row, checked: a response of the base policy, or a fresh draw of a target (no log ratio)."""

    where: str
    row: Row  # as it was read
    prompt_id: str
    draw_idx: int
    judge_score: float | None  # [0, 1]; the mean of the distribution, where there is one
    oracle_label: float | None  # [0, 1]
    distribution: Distribution | None = None  # of an uncertain judge
    covariates: tuple[float, ...] = ()  # empty where the row has no judge score
    numbered: bool = False  # does the row itself say its draw_idx?


def read_responses(table: Table, source: Source, *, reading: Reading = Reading()) -> list[Response]:
    """The rows of a source, checked one by one, with a unique (prompt_id, draw_idx), counted where it is not given."""
    responses, seen, drawn = [], {}, {}
    for response in read_pairs(table, source, reading=reading):
        before = drawn.get(response.prompt_id, 0)
        drawn[response.prompt_id] = before + 1
        responses.append(response if response.numbered else replace(response, draw_idx=before))
        refuse_twice(responses[-1], seen)
    return responses


def read_pairs(table: Table, source: Source, *, reading: Reading = Reading()) -> list[Response]:
    """The rows of a source, checked one by one; one without a draw_idx speaks of the first draw."""
    if isinstance(source, str | Path):
        placed = read_placed(source)
    else:
        placed = [(f"row {k}", row) for k, row in enumerate(source.iter_rows(named=True))]
    table = reading.bounded(table)
    rows = []
    for where, row in table.check(placed):
        prompt_id = _prompt_id(row, where, table)
        index = stored(row, "draw_idx", where, table)
        score, distribution = judge_of(row, where, table, reading)
        label = reading.unit_label(stored(row, "oracle_label", where, table))
        numbered = index is not None
        rows.append(Response(where, row, prompt_id, index or 0, score, label, distribution, (), numbered))
    return with_covariates(rows, reading.covariates)


def with_covariates(responses: Sequence[Response], names: Sequence[str]) -> list[Response]:
    """The responses with covariates of their rows; one whose covariates lack a judge's score has no score then."""
    return [_with_covariates(response, names) for response in responses] if names else list(responses)


def _with_covariates(response: Response, names: Sequence[str]) -> Response:
    if response.judge_score is None:
        return response
    numbers = covariates_of(response.row, names, response.where)
    if numbers is None:
        return replace(response, judge_score=None, distribution=None)
    return replace(response, covariates=numbers)


def refuse_twice(response: Response, seen: dict[tuple[str, int], str]) -> None:
    """Raise a `UserError` where (prompt_id, draw_idx) has been `seen`; note it there otherwise."""
    key = (response.prompt_id, response.draw_idx)
    if key in seen:
        raise UserError(
            f"{response.where}: prompt_id {key[0]!r} with draw_idx {key[1]} appears again (first at {seen[key]}); "
            "keep one of the two"
        )
    seen[key] = response.where


def arrays(
    responses: Sequence[Response | None], shape: tuple[int, ...], n_covariates: int = 0
) -> dict[str, np.ndarray | None]:
    """What is judged and labelled of responses, as arrays of a shape: fields of `Logged` and `Draws`.

    NaN stands where a response is missing or has no score, and where it has no label. A judge that is certain of one
    response and not of another gives it one point; points of mass zero, at the mean, fill up those with fewer.
    """
    judged = [response if response and response.judge_score is not None else None for response in responses]
    score = np.array([np.nan if r is None else r.judge_score for r in judged], dtype=float)
    label = np.array([np.nan if r is None or r.oracle_label is None else r.oracle_label for r in judged], dtype=float)
    found: dict[str, np.ndarray | None] = {"judge_score": score.reshape(shape), "oracle_label": label.reshape(shape)}
    found |= {"covariates": None, "judge_points": None, "judge_mass": None}
    if n_covariates:
        unknown = (np.nan,) * n_covariates
        numbers = np.array([unknown if r is None else r.covariates for r in judged], dtype=float)
        found["covariates"] = numbers.reshape(*shape, n_covariates)
    given = [len(r.distribution) for r in judged if r and r.distribution]
    if given:
        points = np.repeat(score[:, None], max(given), axis=1)  # (..., r)
        mass = np.zeros_like(points)
        mass[:, 0] = 1.0
        for k, r in enumerate(judged):
            if r and r.distribution:
                points[k, : len(r.distribution)], mass[k, : len(r.distribution)] = zip(*r.distribution, strict=True)
        found |= {"judge_points": points.reshape(*shape, -1), "judge_mass": mass.reshape(*shape, -1)}
    return found


def _prompt_id(row: Row, where: str, table: Table) -> str:
    """The id as a string; 0 and the empty string are ids like any other. Without one, a hash of the prompt."""
    held = row.get("metadata") or {}
    problem = table.columns["prompt_id"].problem(held.get("prompt_id"))
    if problem:
        raise UserError(f"{where}: metadata.prompt_id {problem}")
    names = [str(place["prompt_id"]) for place in (row, held) if place.get("prompt_id") is not None]
    if len(set(names)) == 2:
        raise UserError(
            f"{where}: prompt_id is {names[0]!r} at the top level but {names[1]!r} under metadata; make them agree"
        )
    if names:
        return names[0]
    if row.get("prompt") is None:
        raise UserError(
            f"{where}: neither prompt_id nor prompt; one of them is needed to know which prompt was answered"
        )
    return "prompt-" + blake2b(row["prompt"].encode(), digest_size=8).hexdigest()


def log_ratios(response: Response, policies: Sequence[str]) -> list[float]:
    """Target minus base in nats, by policy: -inf outside the target's support, NaN where either is missing."""
    row, where = response.row, response.where
    base = row.get("base_policy_logprob")
    if base is not None and math.isinf(base):
        raise UserError(
            f"{where}: base_policy_logprob is -inf, but the base policy did say this response; score it again"
        )
    targets = row.get("target_policy_logprobs") or {}
    outside = (row.get("metadata") or {}).get("outside_support") or []
    for name in (*targets, *outside):
        if name not in policies:
            raise UserError(
                f"{where}: unknown target policy {name!r}{nearest(name, policies)}; the data's policies: "
                f"{', '.join(policies)} (every row names all of them, with null where it was not scored)"
            )
    return [_target(targets.get(name), name, name in outside, where) - _or_nan(base) for name in policies]


def _target(value: Any, name: str, outside: bool, where: str) -> float:
    problem = LOGPROB.problem(value)
    if problem:
        raise UserError(f"{where}: target_policy_logprobs.{name} {problem}")
    if not outside:
        return _or_nan(value)
    if value not in (OUTSIDE_SUPPORT, -math.inf):
        raise UserError(
            f"{where}: metadata.outside_support names {name!r}, whose log probability is {value}; "
            f"expected {OUTSIDE_SUPPORT}"
        )
    return -math.inf


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def identified(response: Response) -> Row:
    """The row with its id as a string at the top level, as those who join on it expect."""
    row = {"prompt_id": response.prompt_id} | response.row | {"prompt_id": response.prompt_id}
    held = row.get("metadata")
    if held and held.get("prompt_id") is not None:
        row["metadata"] = {name: value for name, value in held.items() if name != "prompt_id"}
    return row


def relabelled(row: Row, other: Row) -> Row:
    """The row with the label of another one, at the top level and nowhere else."""
    held = {name: value for name, value in (row.get("metadata") or {}).items() if name != "oracle_label"}
    label = other["oracle_label"] if "oracle_label" in other else other["metadata"]["oracle_label"]
    return row | {"oracle_label": label} | ({"metadata": held} if row.get("metadata") else {})


def mask(rows: Sequence[Row], keep: Sequence[bool]) -> list[Row]:
    """The rows with labels cleared where not kept, at the top level and under metadata alike."""
    return [row if kept else _unlabelled(row) for row, kept in zip(rows, keep, strict=True)]


def _unlabelled(row: Row) -> Row:
    cleared = row | ({"oracle_label": None} if "oracle_label" in row else {})
    if "oracle_label" in (row.get("metadata") or {}):
        cleared["metadata"] = row["metadata"] | {"oracle_label": None}
    return cleared


def n_labels(responses: Sequence[Response]) -> int:
    """How many responses carry an oracle label."""
    return sum(response.oracle_label is not None for response in responses)


def counts(
    read: Sequence[Response], kept: Sequence[Response], dropped: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """How many rows were read and kept, and why the others were dropped: for want of a judge score, unless told."""
    lost = len(read) - len(kept)
    reasons = dropped if dropped is not None else {NO_SCORE: lost}
    return {
        "n_responses": len(read),
        "n_rows": len(kept),
        "dropped": {reason: count for reason, count in reasons.items() if count},
        "n_labels_dropped": n_labels(read) - n_labels(kept),
    }


def named(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else "the data frame"
