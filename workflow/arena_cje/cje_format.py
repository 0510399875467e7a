"""One row of the CJE format, checked: where each field may stand and which values it may take.

A logged row is a response of the base policy with its log probability under the base and under every target, a judge
score and, on some rows, an oracle label; older files keep id, score and label under `metadata`. Fresh draws are
responses of the targets themselves. Log probabilities are those of whole sequences in nats; what the target cannot say
has -inf, which JSON cannot hold: files carry -10000.0 with the policy's name under `metadata.outside_support`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.errors import UserError, nearest
from arena_cje.files import Row, read_placed
from arena_cje.schemas import LOGPROB, Table

if TYPE_CHECKING:
    import polars as pl

    Source = str | Path | pl.DataFrame

OUTSIDE_SUPPORT = -10000.0  # stands for -inf in JSONL, with the policy's name under metadata.outside_support


@dataclass(frozen=True)
class Response:
    """One row, checked: a response of the base policy, or a fresh draw of a target (no log ratio)."""

    where: str
    row: Row  # as it was read
    prompt_id: str
    draw_idx: int
    judge_score: float | None  # [0, 1]
    oracle_label: float | None  # [0, 1]


def read_responses(table: Table, source: Source) -> list[Response]:
    """The rows of a source, checked one by one, with a unique (prompt_id, draw_idx)."""
    if isinstance(source, str | Path):
        placed = read_placed(source)
    else:
        placed = [(f"row {k}", row) for k, row in enumerate(source.iter_rows(named=True))]
    responses, seen, drawn = [], {}, {}
    for where, row in table.check(placed):
        prompt_id = _prompt_id(row, where, table)
        index = _stored(row, "draw_idx", where, table)
        index = drawn.get(prompt_id, 0) if index is None else index
        drawn[prompt_id] = drawn.get(prompt_id, 0) + 1
        key = (prompt_id, index)
        if key in seen:
            raise UserError(
                f"{where}: prompt_id {prompt_id!r} with draw_idx {index} appears again (first at {seen[key]}); "
                "keep one of the two"
            )
        seen[key] = where
        score, label = (_stored(row, name, where, table) for name in ("judge_score", "oracle_label"))
        responses.append(Response(where, row, prompt_id, index, score, label))
    return responses


def _stored(row: Row, name: str, where: str, table: Table) -> Any:
    """A field that may stand at the top level, under metadata, or equally in both; None where it is absent."""
    values = [place[name] for place in (row, row.get("metadata") or {}) if name in place]
    if len(values) == 2 and values[0] != values[1]:
        raise UserError(
            f"{where}: {name} is {values[0]!r} at the top level but {values[1]!r} under metadata; make them agree"
        )
    problem = table.columns[name].problem(values[0]) if values else None
    if problem:
        raise UserError(f"{where}: {name} {problem}")
    return values[0] if values else None


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


def mask(rows: Sequence[Row], keep: Sequence[bool]) -> list[Row]:
    """The rows with labels cleared where not kept, at the top level and under metadata alike."""
    return [row if kept else _unlabelled(row) for row, kept in zip(rows, keep, strict=True)]


def _unlabelled(row: Row) -> Row:
    cleared = row | ({"oracle_label": None} if "oracle_label" in row else {})
    if "oracle_label" in (row.get("metadata") or {}):
        cleared["metadata"] = row["metadata"] | {"oracle_label": None}
    return cleared


def named(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else "the data frame"
