"""Files of cje-eval and of PrecomputedSampler, with the names that its versions have for the same fields.

Logged rows with log probabilities (`total_logprob` and `target_logps`, `base_policy_logprob` and
`target_policy_logprobs`, `sequence_logp` of a stochastic log), responses of a policy in a file POLICY_responses.jsonl or
POLICY.jsonl of several, and a JSON object with the rows of each policy. A field may stand under `metadata`. Scorers are
`judge_score`, further judges (`judge_NAME`), `oracle_label`, and `reward` where there is no judge score.

Dropped: fields that are none of these, such as log probabilities by token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arena_cje.data.convert._answers import (
    Answer,
    DrawCounter,
    Loss,
    draw_index,
    id_of,
    number,
    numbers,
    text_id,
)
from arena_cje.errors import UserError, display_form

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arena_cje.data.convert._build import Choices
    from arena_cje.data.convert._sources import Document
    from arena_cje.files import Row, RowWithPlace

JUDGE = "judge_score"
NAMES = {  # of a field of the CJE format, the usual one first
    "prompt_id": ("prompt_id", "uid", "id"),
    "prompt": ("prompt", "context"),
    "response": ("response", "answer"),
    "policy": ("policy", "target_policy", "base_policy", "action"),
    "draw_idx": ("draw_idx",),
    "base_logprob": ("base_policy_logprob", "total_logprob", "p0_logprob", "sequence_logp", "logp"),
    "target_logprobs": ("target_policy_logprobs", "target_logps"),
    "judge_score": ("judge_score", "judge_raw", "score_raw"),
    "oracle_label": ("oracle_label", "oracle_score", "y_true"),
    "reward": ("reward", "calibrated_reward"),
}
EVIDENCE = {*NAMES["base_logprob"], *NAMES["target_logprobs"], "judge_score", "judge_raw", "oracle_label"}
CARRIED_METADATA = ("outside_support",)


def recognises(document: Document) -> bool:
    """Whether a file has rows of cje-eval."""
    rows = _rows(document)
    first = rows[0][1] if rows else {}
    fields = (
        first.keys() | (first.get("metadata") or {}).keys()
        if isinstance(first.get("metadata"), dict | None)
        else first.keys()
    )
    return bool(EVIDENCE & fields) and document.table is None


def answers(documents: Sequence[Document], choices: Choices) -> Iterator[Answer | Loss]:
    """The responses of all files."""
    draws = DrawCounter()
    base = choices.base or "base"
    field_names = {"metadata", "cluster", *(alias for names in NAMES.values() for alias in names)}
    for document in documents:
        dropped: dict[str, int] = {}
        file_policy = _policy_of_file(document) if len(documents) > 1 else base
        for where, row in _rows(document):
            is_logged = _field(row, "target_logprobs") is not None
            yield _answer(document, where, row, base if is_logged else file_policy, draws)
            for name in row.keys() - field_names - {f"judge_{scorer}" for scorer in _further(row, where)}:
                dropped[name] = dropped.get(name, 0) + (row[name] is not None)
        yield from (Loss(f"values of {name}", count) for name, count in sorted(dropped.items()) if count)


def _rows(document: Document) -> list[RowWithPlace]:
    """The rows of a file; those of an object of lists have its key as policy."""
    if len(document.rows) == 1 and document.first and all(isinstance(rows, list) for rows in document.first.values()):
        return [
            (f"{document.path} ({policy}, row {k})", row | {"policy": policy})
            for policy, rows in document.first.items()
            for k, row in enumerate(rows, start=1)
            if isinstance(row, dict)
        ]
    return document.rows


def _answer(document: Document, where: str, row: Row, unnamed: str, draws: DrawCounter) -> Answer:
    """The answer in a row; unnamed: its policy where the row names none."""
    target_logprobs, prompt = _field(row, "target_logprobs"), _field(row, "prompt")
    if target_logprobs is not None and not isinstance(target_logprobs, dict):
        raise UserError(
            f"{where}: log probabilities of targets are {display_form(target_logprobs)}, expected an object by policy"
        )
    policy = document.name(_field(row, "policy") or unnamed)
    own_id = _field(row, "prompt_id")
    if own_id is None and not isinstance(prompt, str):
        raise UserError(
            f"{where}: neither prompt_id nor prompt; one of them is needed to know which prompt was answered"
        )
    prompt_id = id_of(own_id) if own_id is not None else text_id(prompt)
    own_draw = draw_index(_field(row, "draw_idx"), where, "draw_idx")
    numbered = draws.next(policy, prompt_id)
    reward = {"reward": number(_field(row, "reward"), where, "reward")} if _field(row, "judge_score") is None else {}
    return Answer(
        where,
        policy,
        prompt_id,
        prompt,
        _field(row, "response"),
        numbered if own_draw is None else own_draw,
        {name: number(_field(row, name), where, name) for name in ("judge_score", "oracle_label")}
        | {name: value for name, value in reward.items() if value is not None}
        | _further(row, where),
        number(_field(row, "base_logprob"), where, "log probability"),
        target_logprobs,
        None if row.get("cluster") is None else id_of(row["cluster"]),
        {name: row["metadata"][name] for name in CARRIED_METADATA if name in (row.get("metadata") or {})},
    )


def _further(row: Row, where: str) -> dict[str, float | None]:
    """Scores of further judges."""
    fields = {name: row[name] for name in row if name.startswith("judge_") and name not in NAMES["judge_score"]}
    return {name.removeprefix("judge_"): score for name, score in numbers(fields, where).items()}


def _policy_of_file(document: Document) -> str:
    """The policy in the name of a file of responses, POLICY_responses.jsonl or POLICY.jsonl."""
    return document.path.name.split(".jsonl")[0].removesuffix("_responses")


def _field(row: Row, name: str) -> Any:
    """A field under any of its names, at the top level or under metadata; None where it is missing."""
    for place in (row, row.get("metadata") or {}):
        for alias in NAMES[name]:
            if place.get(alias) is not None:
                return place[alias]
    return None
