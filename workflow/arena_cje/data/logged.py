"""Logged responses of the base policy.

A row without a judge score is dropped and counted. A row without the log probability of one target is left out for that
target alone. A row that breaks the format is refused with its file and line.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.data.fields import field_of
from arena_cje.data.reading import Reading
from arena_cje.data.rows import ALL_TEXTS, NO_TEXTS, Response, arrays, log_ratios, read_responses, row_counts
from arena_cje.data.schemas import LOGGED
from arena_cje.data.sources import source_name
from arena_cje.errors import UserError, did_you_mean
from arena_cje.estimation.records import Logged

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from arena_cje.data.sources import Source

OF_ONE_JUDGE = ("judge_distribution", "judge_scores")  # fields of the judge of every row


def read_logged(
    source: Source,
    base_policy: str | None = None,
    policies: Sequence[str] | None = None,
    *,
    reading: Reading = Reading(),
    texts: Container[str] | None = ALL_TEXTS,
) -> tuple[list[Response], str, tuple[str, ...]]:
    """The checked rows, the name of the base policy, and the target policies.

    base_policy: its name, where the rows do not give it; policies: the targets, by default those of the first row; texts: as
    in `read_pairs`.
    Raises a `UserError` for rows that break the format, repeated rows, and names of policies that contradict each other.
    """
    responses = read_responses(LOGGED, source, reading=reading, texts=texts)
    if not responses:
        raise UserError(f"{source_name(source)}: no rows; expected one response of the base policy per line")
    _check_distinct_texts(responses)
    base = base_policy_of(responses, base_policy)
    targets = tuple(policies) if policies is not None else _first_policies(responses)
    if base in targets:
        raise UserError(
            f"{source_name(source)}: target policy {base!r} has the name of the base policy; give the name of the base "
            "policy in the field `base_policy`"
        )
    return responses, base, targets


def load_logged(
    source: Source,
    *,
    base_policy: str | None = None,
    policies: Sequence[str] | None = None,
    reading: Reading = Reading(),
) -> tuple[Logged, dict[str, Any]]:
    """The logged rows with a judge score as arrays, and the numbers of rows that were read, used and dropped by reason.

    Arguments and errors are those of `read_logged`; a data set without any score is refused, too.
    """
    read = read_logged(source, base_policy, policies, reading=reading, texts=NO_TEXTS)
    return logged_arrays(*read, source_name(source), reading)


def logged_arrays(
    responses: Sequence[Response], base: str, targets: tuple[str, ...], where: str, reading: Reading
) -> tuple[Logged, dict[str, Any]]:
    """The rows of `read_logged` as arrays, and the numbers of rows as `load_logged` gives them.

    where: name of the data in errors. Raises a `UserError` where no row has a judge score.
    """
    ratios = [log_ratios(response, targets) for response in responses]
    scored = [k for k, response in enumerate(responses) if response.judge_score is not None]
    check_scored(responses, where, reading)
    rows = [responses[k] for k in scored]
    shape = (len(rows), len(targets))
    logged = Logged(
        base,
        targets,
        np.array([response.prompt_id for response in rows]),
        np.array([ratios[k] for k in scored]).reshape(shape),
        **arrays(rows, (len(rows),), len(reading.covariates)),
        cluster_id=question_ids(rows),
        token_logprob=np.array([_token_logprobs(response, targets) for response in rows]).reshape(shape),
    )
    return logged, row_counts(responses, rows) | reading.summary()


def check_scored(responses: Sequence[Response], where: str, reading: Reading) -> None:
    """Raise a `UserError` where no row has a judge score; where: name of the data in errors."""
    if all(response.judge_score is None for response in responses):
        hint = similar_field(reading.score_field, responses)
        raise UserError(f"{where}: none of {len(responses)} rows has a {reading.score_field}{hint}")


def further_judges(responses: Sequence[Response], reading: Reading) -> dict[str, np.ndarray]:
    """Scores (n,) of the judges beside the one that is read, by the names of their fields; NaN where one has none.

    They are the numbers of the fields `judge_NAME`, on any scale, and `judge_score` where another judge is read.
    """
    fields = {name for name in _field_names(responses) if name.startswith("judge_")} - {
        reading.score_field,
        *OF_ONE_JUDGE,
    }
    scores = {}
    for name in sorted(fields):
        values = [response.row.get(name, (response.row.get("metadata") or {}).get(name)) for response in responses]
        if all(isinstance(value, int | float | None) and not isinstance(value, bool) for value in values):
            score = np.array([math.nan if value is None else float(value) for value in values])
            scores[name] = np.where(np.isfinite(score), score, math.nan)
    return {name: score for name, score in scores.items() if not np.isnan(score).all()}


def similar_field(name: str, responses: Sequence[Response]) -> str:
    """` (did you mean 'x'?)` for the user's own field that is closest to a name; an empty string where none is close."""
    return did_you_mean(name, sorted(set(_field_names(responses)) - {name, *LOGGED.columns}))


def _field_names(responses: Sequence[Response]) -> list[str]:
    """Names of the fields of any row, at the top level or under metadata."""
    return sorted({name for response in responses for name in (*response.row, *(response.row.get("metadata") or {}))})


def _token_logprobs(response: Response, policies: Sequence[str]) -> list[float]:
    """Log probability of a response under each target in nats per token, per character where tokens were not counted."""
    row = response.row
    length = (row.get("metadata") or {}).get("response_token_count") or response.n_characters
    logprobs = row.get("target_policy_logprobs") or {}
    return [logprobs[name] / length if length and logprobs.get(name) is not None else math.nan for name in policies]


def question_ids(responses: Sequence[Response]) -> np.ndarray | None:
    """The cluster of each row, its prompt where it has none, (n,) str; None where no row has a cluster.

    Raises a `UserError` for a prompt in two clusters.
    """
    clusters = [field_of(response.row, "cluster", response.where) for response in responses]
    if all(cluster is None for cluster in clusters):
        return None
    first: dict[str, tuple[str, str]] = {}
    questions = []
    for response, cluster in zip(responses, clusters, strict=True):
        question = response.prompt_id if cluster is None else str(cluster)
        other, where = first.setdefault(response.prompt_id, (question, response.where))
        if other != question:
            raise UserError(
                f"{response.where}: prompt_id {response.prompt_id!r} is in cluster {question!r}, but in {other!r} at {where}; "
                "a prompt belongs to one cluster"
            )
        questions.append(question)
    return np.array(questions)


def base_logprobs(responses: Sequence[Response]) -> tuple[np.ndarray, np.ndarray]:
    """Log probability under the base policy in nats and number of tokens of each response, (n,) NaN where unknown."""
    logprobs = [response.row.get("base_policy_logprob") for response in responses]
    tokens = [(response.row.get("metadata") or {}).get("response_token_count") for response in responses]
    return tuple(np.array([math.nan if v is None else float(v) for v in values]) for values in (logprobs, tokens))


def base_policy_of(responses: Sequence[Response], name: str | None) -> str:
    """The name of the base policy: that of the rows, or `name`, or `base`; raises a `UserError` where rows name several."""
    places = {r.row["base_policy"]: r.where for r in reversed(responses) if r.row.get("base_policy") is not None}
    if name is not None:
        places.setdefault(name, "the call")
    if len(places) > 1:
        names = ", ".join(f"{name!r} ({where})" for name, where in places.items())
        raise UserError(f"the logged data has more than one base policy: {names}; one analysis has one base policy")
    return next(iter(places), "base")


def _first_policies(responses: Sequence[Response]) -> tuple[str, ...]:
    """Targets of the first row that has any: another name in a later row is more likely misspelt than a further policy."""
    return next((tuple(logprobs) for r in responses if (logprobs := r.row.get("target_policy_logprobs"))), ())


def _check_distinct_texts(responses: Sequence[Response]) -> None:
    """Raise a `UserError` for two rows of one prompt that differ neither in draw_idx nor in their text."""
    places: dict[tuple[str, int], str] = {}
    for response in responses:
        if response.has_draw_idx:
            continue
        key = (response.prompt_id, response.text_hash)
        if key in places:
            raise UserError(
                f"{response.where}: prompt_id {response.prompt_id!r} appears again with the same response "
                f"(first at {places[key]}); keep one of the two, or number them by `draw_idx` if both are draws"
            )
        places[key] = response.where
