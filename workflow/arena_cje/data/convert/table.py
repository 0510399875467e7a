"""A plain table with one row a response: CSV, TSV, Parquet, JSON or JSONL.

`columns` names the column of each field: prompt_id, prompt, policy, response, draw_idx, judge_score, oracle_label,
judge_NAME (a further judge), base_policy_logprob, target_policy_logprobs.NAME, cluster; a field without an entry is in
the column of its own name. Long tables have a row for each score: `scorer` is the column with the scorer's name, `score`
that with its score. Rows of one prompt and policy with the same response are votes on it, others are draws.
A wide table has several columns of votes: `columns` then names several for `judge_score`, `judge_NAME` or `oracle_label`.

Dropped: other columns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from arena_cje.data.convert._answers import Answer, Loss, draw_index, id_of, log_probability, number, text_id, text_of
from arena_cje.data.convert._build import ORACLE
from arena_cje.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arena_cje.data.convert._build import Choices
    from arena_cje.data.convert._sources import Document
    from arena_cje.files import Row

JUDGE = "judge_score"
FIELDS = ("prompt_id", "prompt", "policy", "response", "draw_idx", "judge_score", "oracle_label", "scorer", "score")
FIELDS += ("base_policy_logprob", "cluster")
PREFIXES = ("judge_", "target_policy_logprobs.")  # of fields that carry a name


def recognises(document: Document) -> bool:
    """Any file with rows is a table."""
    return bool(document.rows)


def answers(documents: Sequence[Document], choices: Choices) -> Iterator[Answer | Loss]:
    """The responses of all rows."""
    for field in choices.columns:
        if field not in FIELDS and not field.startswith(PREFIXES):
            raise UserError(f"columns has the field {field!r}{did_you_mean(field, FIELDS)}; known: {', '.join(FIELDS)}")
    first, further = _first_and_further(choices.columns)
    draws = _Draws()
    for document in documents:
        columns = _columns(document, first, further)
        for where, row in document.rows:
            answer = _answer(document, where, row, columns, draws)
            yield answer
            for field, column in further:  # votes on the same response
                yield replace(answer, scores={_scorer(field): number(row.get(column), where, column)})
        used_columns = {*columns.values(), *(column for _, column in further)}
        others = [name for name in _names(document) if name not in used_columns]
        if others:
            yield Loss(f"columns that are no field: {', '.join(others)}", len(others))


def _first_and_further(columns: Mapping[str, str | Sequence[str]]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The first column of each field, and the field of each further column.

    Raises a `UserError` for several columns of a field that is no score, and for a column that is there twice.
    """
    several = {field: (names,) if isinstance(names, str) else tuple(names) for field, names in columns.items()}
    for field, names in several.items():
        if len(names) > 1 and not _is_score(field):
            raise UserError(
                f"columns has {len(names)} columns for {field!r} ({', '.join(names)}), expected one; only scores may have "
                "several (oracle_label, judge_score, judge_NAME), which are votes on the same response"
            )
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"columns has {repeated!r} twice for {field!r}; name each column of votes once")
    further = [(field, name) for field, names in several.items() for name in names[1:]]
    return {field: names[0] for field, names in several.items()}, further


def _is_score(field: str) -> bool:
    return field == ORACLE or field.startswith("judge_")


def _scorer(field: str) -> str:
    """The scorer of a field with scores."""
    return field if field == JUDGE else field.removeprefix("judge_")


def _names(document: Document) -> list[str]:
    """The names of all columns; those of a CSV file may repeat."""
    if document.table is not None:
        return document.table[0]
    return list(dict.fromkeys(name for _, row in document.rows for name in row))


def _columns(document: Document, columns: Mapping[str, str], further: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The column of each field that the table has, the first of several; raises a `UserError` for a column that it lacks.

    further: fields and their columns after the first.
    """
    names = _names(document)
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"{document.path}: has more than one column {repeated!r}; rename one of them")
    for field, column in [*columns.items(), *further]:
        if column not in names:
            raise UserError(
                f"{document.path}: has no column {column!r} for {field}{did_you_mean(column, names)}; its columns: "
                f"{', '.join(names)}"
            )
    used_columns = {*columns.values(), *(column for _, column in further)}
    own = {name: name for name in names if (name in FIELDS or name.startswith(PREFIXES)) and name not in used_columns}
    column_by_field = own | dict(columns)
    if "prompt_id" not in column_by_field and "prompt" not in column_by_field:
        raise UserError(
            f"{document.path}: no column is the prompt; name it by --columns prompt=COLUMN or prompt_id=COLUMN "
            f"(`columns` in the configuration); its columns: {', '.join(names)}"
        )
    if not {"judge_score", "score"} & column_by_field.keys() and not any(
        name.startswith("judge_") for name in column_by_field
    ):
        raise UserError(
            f"{document.path}: no column is a score; name it by --columns judge_score=COLUMN (`columns` in the "
            f"configuration); its columns: {', '.join(names)}"
        )
    fields: dict[str, str] = {}  # by scorer
    for field in filter(_is_score, column_by_field):
        if (other := fields.setdefault(_scorer(field), field)) != field:
            raise UserError(
                f"{document.path}: the columns {column_by_field[other]!r} and {column_by_field[field]!r} are both scores of "
                f"{_scorer(field)!r}; rename one of them"
            )
    if ("scorer" in column_by_field) != ("score" in column_by_field):
        raise UserError(f"{document.path}: a long table has both a column `scorer` and a column `score`; name both")
    return column_by_field


def _answer(document: Document, where: str, row: Row, columns: Mapping[str, str], draws: _Draws) -> Answer:
    cell = {field: row.get(column) for field, column in columns.items()}
    policy = document.name(cell.get("policy"))
    prompt = text_of(cell.get("prompt"))
    own_id = cell.get("prompt_id")
    if own_id in (None, "") and not prompt:
        raise UserError(f"{where}: has neither an id nor a text of the prompt")
    prompt_id = id_of(own_id) if own_id not in (None, "") else text_id(prompt)
    response = text_of(cell.get("response"))
    draw = draw_index(cell.get("draw_idx"), where, "draw_idx")
    scores = {_scorer(field): number(value, where, columns[field]) for field, value in cell.items() if _is_score(field)}
    if "scorer" in cell:
        scorer = str(cell["scorer"])
        if scores.get(scorer) is not None:
            raise UserError(
                f"{where}: has two scores of {scorer!r}, one in the column {columns['score']!r} and one in a column of the "
                "scorer; rename the scorer or the column"
            )
        scores[scorer] = number(cell["score"], where, columns["score"])
    prefix = "target_policy_logprobs."
    targets = {
        field.removeprefix(prefix): log_probability(value, where, columns[field])
        for field, value in cell.items()
        if field.startswith(prefix)
    }
    return Answer(
        where,
        policy,
        prompt_id,
        prompt,
        response,
        draw if draw is not None else draws.index(policy, prompt_id, response, where, is_vote="scorer" in cell),
        scores,
        number(cell.get("base_policy_logprob"), where, "base_policy_logprob"),
        targets or None,
        None if cell.get("cluster") in (None, "") else id_of(cell["cluster"]),
    )


class _Draws:
    """Numbers the distinct responses of a policy to a prompt."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str], list[Any]] = {}

    def index(self, policy: str, prompt_id: str, response: str | None, where: str, *, is_vote: bool) -> int:
        """The number of a response; raises a `UserError` where a row could be a draw or a vote."""
        texts = self._texts.setdefault((policy, prompt_id), [])
        if response in texts:
            if response is None and not is_vote:
                raise UserError(
                    f"{where}: prompt {prompt_id!r} of policy {policy!r} appears again, without a response; name the column of "
                    "the response, or number several responses by a column draw_idx"
                )
            return texts.index(response)
        texts.append(response)
        return len(texts) - 1
