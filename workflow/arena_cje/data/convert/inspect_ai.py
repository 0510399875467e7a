"""Logs of Inspect: `.eval` archives and JSON logs, one policy (the model of the evaluation) each.

A prompt is a sample, by its id, with the task where the logs have several; epochs are draws. Every scorer is one, a
dictionary of values one for each key: C and yes are 1, P is 0.5, I, N and no are 0.

Dropped: events, messages before the answer, tool calls, usage, metrics. A sample that failed has no score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arena_cje.data.convert._answers import Answer, Loss, conversation, draw_index, id_of, is_number, number, text_of
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arena_cje.data.convert._build import Choices
    from arena_cje.data.convert._sources import Document
    from arena_cje.files import Row, RowWithPlace

LETTERS = {"c": 1.0, "p": 0.5, "i": 0.0, "n": 0.0, "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}
ATTACHMENT = "attachment://"


def recognises(document: Document) -> bool:
    """Whether a file is a log of Inspect."""
    return _header(document) is not None


def answers(documents: Sequence[Document], choices: Choices) -> Iterator[Answer | Loss]:
    """The answers of all samples."""
    tasks = {_header(document)["eval"].get("task") for document in documents}
    for document in documents:
        head = _header(document)["eval"]
        policy = document.name(head.get("model"))
        samples = _samples(document)
        if not samples:
            raise UserError(f"{document.path}: has no samples; log them (log_samples), or finish the evaluation")
        for where, sample in samples:
            if "id" not in sample:
                raise UserError(f"{where}: has no id, expected a sample of an Inspect log")
            prompt_id = id_of(sample["id"]) if len(tasks) == 1 else f"{head.get('task')}/{id_of(sample['id'])}"
            yield from _answer(where, sample, policy, prompt_id)


def _header(document: Document) -> Row | None:
    """The part of a log that names its task and model; None where there is none."""
    for _, row in document.rows:
        name = row.get("__name__", "header.json")
        if (
            name in ("header.json", "_journal/start.json")
            and isinstance(row.get("eval"), dict)
            and "task" in row["eval"]
        ):
            return row
    return None


def _samples(document: Document) -> list[RowWithPlace]:
    rows = [(where, row) for where, row in document.rows if row.get("__name__", "").startswith("samples/")]
    listed = document.first.get("samples") or [] if not rows else []
    return rows or [(f"{document.path} (sample {k})", row) for k, row in enumerate(listed, start=1)]


def _answer(where: str, sample: Row, policy: str, prompt_id: str) -> Iterator[Answer | Loss]:
    attached = sample.get("attachments") or {}
    failed = sample.get("error") is not None
    if failed:
        yield Loss("failed sample (it has no score)")
    scores: dict[str, float | None] = {}
    for scorer, score in (sample.get("scores") or {}).items():
        for name, value in _values(where, scorer, score.get("value") if isinstance(score, dict) else score):
            if isinstance(value, Loss):
                yield value
            else:
                scores[name] = None if failed else value
    metadata = {
        name: value
        for name, value in (sample.get("metadata") or {}).items()
        if is_number(value) or isinstance(value, str)
    }
    yield Answer(
        where,
        policy,
        prompt_id,
        _resolved(conversation(sample.get("input")), attached),
        _resolved(_response(sample.get("output") or {}), attached),
        max(draw_index(sample.get("epoch"), where, "epoch") or 1, 1) - 1,
        scores,
        metadata=metadata,
    )


def _response(output: Row) -> str | None:
    choices = output.get("choices") or []
    if choices:
        return text_of((choices[0].get("message") or {}).get("content"))
    return output.get("completion")


def _values(where: str, name: str, value: Any) -> Iterator[tuple[str, float | None | Loss]]:
    """The scores of a scorer's value by name; a `Loss` where it is no score."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _values(where, f"{name}.{key}", part)
    elif value is None or is_number(value):
        yield name, number(value, where, name)
    elif isinstance(value, str) and value.strip().lower() in LETTERS:
        yield name, LETTERS[value.strip().lower()]
    else:
        yield name, Loss(f"value of {name} that is no score")


def _resolved(text: str | None, attached: Row) -> str | None:
    """The text, where the log keeps a long one apart."""
    if text is not None and text.startswith(ATTACHMENT):
        return attached.get(text.removeprefix(ATTACHMENT), text)
    return text
