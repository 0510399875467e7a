"""Logged responses of the base policy.

A row without a judge score is dropped and counted; a missing target log probability leaves its row out for that policy
alone; whatever cannot be right is refused with file and line.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.data.reading import Reading
from arena_cje.data.rows import Response, arrays, counts, log_ratios, named, read_responses
from arena_cje.data.schemas import LOGGED
from arena_cje.errors import UserError, nearest
from arena_cje.estimation.records import Logged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.data.rows import Source


def read_logged(
    source: Source,
    base_policy: str | None = None,
    policies: Sequence[str] | None = None,
    *,
    reading: Reading = Reading(),
) -> tuple[list[Response], str, tuple[str, ...]]:
    """The checked rows, the base policy's name, and the target policies (those of the first row, unless given)."""
    responses = read_responses(LOGGED, source, reading=reading)
    if not responses:
        raise UserError(f"{named(source)}: no rows; expected one response of the base policy a line")
    _refuse_repeated_text(responses)
    base = _base_policy(responses, base_policy)
    declared = tuple(policies) if policies is not None else _first_policies(responses)
    if base in declared:
        raise UserError(
            f"{named(source)}: target policy {base!r} has the base policy's name; "
            "say in a field `base_policy` what the base is called"
        )
    return responses, base, declared


def load_logged(
    source: Source,
    *,
    base_policy: str | None = None,
    policies: Sequence[str] | None = None,
    reading: Reading = Reading(),
) -> tuple[Logged, dict[str, Any]]:
    """The logged rows that have a judge score, as arrays, and how many were read and dropped, and why."""
    return logged_arrays(*read_logged(source, base_policy, policies, reading=reading), named(source), reading)


def logged_arrays(
    responses: Sequence[Response], base: str, declared: tuple[str, ...], where: str, reading: Reading
) -> tuple[Logged, dict[str, Any]]:
    """The same of rows that were read already, with their covariates; `where` begins the sentence that refuses them."""
    ratios = [log_ratios(response, declared) for response in responses]
    scored = [k for k, response in enumerate(responses) if response.judge_score is not None]
    kept = [responses[k] for k in scored]
    if not kept:
        raise UserError(
            f"{where}: none of {len(responses)} rows has a {reading.score_field}{_nearest(reading, responses)}"
        )
    logged = Logged(
        base,
        declared,
        np.array([response.prompt_id for response in kept]),
        np.array([ratios[k] for k in scored]).reshape(len(kept), len(declared)),
        **arrays(kept, (len(kept),), len(reading.covariates)),
        token_logprob=np.array([_by_token(response, declared) for response in kept]).reshape(len(kept), len(declared)),
    )
    return logged, counts(responses, kept) | reading.summary()


def _nearest(reading: Reading, responses: Sequence[Response]) -> str:
    """A name of the rows that the judge's may be a slip of."""
    known = {name for response in responses for name in (*response.row, *(response.row.get("metadata") or {}))}
    return "" if reading.judge is None else nearest(reading.score_field, sorted(known))


def _by_token(response: Response, policies: Sequence[str]) -> list[float]:
    """Log probability of a response a token under each target, nats; a character where tokens were not counted."""
    row = response.row
    length = (row.get("metadata") or {}).get("response_token_count") or len(row.get("response") or "")
    scored = row.get("target_policy_logprobs") or {}
    return [scored[name] / length if length and scored.get(name) is not None else math.nan for name in policies]


def _base_policy(responses: Sequence[Response], asked: str | None) -> str:
    names = {r.row["base_policy"]: r.where for r in reversed(responses) if r.row.get("base_policy") is not None}
    if asked is not None:
        names.setdefault(asked, "the call")
    if len(names) > 1:
        told = ", ".join(f"{name!r} ({where})" for name, where in names.items())
        raise UserError(f"the logged data has more than one base policy: {told}; one analysis has one base policy")
    return next(iter(names), "base")


def _first_policies(responses: Sequence[Response]) -> tuple[str, ...]:
    """Targets of the first row that has any: a name that comes up later is more likely a slip than a policy."""
    return next((tuple(scored) for r in responses if (scored := r.row.get("target_policy_logprobs"))), ())


def _refuse_repeated_text(responses: Sequence[Response]) -> None:
    """Rows of one prompt that neither a draw_idx nor their text tells apart are one row, twice."""
    seen: dict[tuple[str, str | None], str] = {}
    for response in responses:
        if response.numbered:
            continue
        key = (response.prompt_id, response.row.get("response"))
        if key in seen:
            raise UserError(
                f"{response.where}: prompt_id {response.prompt_id!r} appears again with the same response "
                f"(first at {seen[key]}); keep one of the two, or number them by draw_idx if the policy said it twice"
            )
        seen[key] = response.where
