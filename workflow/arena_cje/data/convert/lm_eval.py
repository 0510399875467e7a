"""Samples of lm-evaluation-harness: `samples_TASK_DATE.jsonl`, as `--log_samples` writes them for one model.

The policy is the name of the folder, in which the harness writes the files of a model. A prompt is a document of a task,
by its doc_id. Every metric is a scorer; where a task has several filters, METRIC.FILTER is one.

Dropped: targets, arguments of generation, log likelihoods of given choices, and further responses of a document, since
the metrics are those of the document as a whole.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from arena_cje.data.convert._answers import Answer, Loss, conversation, id_of, is_number, number
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arena_cje.data.convert._build import Choices
    from arena_cje.data.convert._sources import Document
    from arena_cje.files import Row

FIELDS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}
FIELDS |= {"doc_hash", "prompt_hash", "target_hash"}
FILE = re.compile(r"samples_(?P<task>.+?)(_\d{4}-\d\d-\d\dT[\d.:-]+)?\.jsonl(\.gz)?")


def recognises(document: Document) -> bool:
    """Whether a file has samples of the harness."""
    return "doc_id" in document.first and bool({"resps", "filtered_resps"} & document.first.keys())


def answers(documents: Sequence[Document], choices: Choices) -> Iterator[Answer | Loss]:
    """The responses to all documents."""
    tasks = {_task(document) for document in documents}
    texts: dict[str, tuple[Any, str]] = {}
    for document in documents:
        match = FILE.fullmatch(document.path.name)
        policy = document.name(document.path.absolute().parent.name if match else None)
        filters = {row.get("filter") for _, row in document.rows}
        for where, row in document.rows:
            prompt_id = id_of(row.get("doc_id"))
            prompt_id = prompt_id if len(tasks) == 1 else f"{_task(document)}/{prompt_id}"
            text, first = texts.setdefault(prompt_id, (row.get("doc_hash"), where))
            if text != row.get("doc_hash"):
                raise UserError(
                    f"{where}: doc_id {prompt_id} is another document than at {first}; convert one task at a time"
                )
            yield from _answer(where, row, policy, prompt_id, suffix=f".{row['filter']}" if len(filters) > 1 else "")


def _task(document: Document) -> str:
    match = FILE.fullmatch(document.path.name)
    return match["task"] if match else document.path.stem


def _answer(where: str, row: Row, policy: str, prompt_id: str, suffix: str) -> Iterator[Answer | Loss]:
    scores: dict[str, float | None] = {}
    for name in row.get("metrics") or [name for name in row if name not in FIELDS]:
        value = row.get(name)
        if value is None or is_number(value):
            scores[f"{name}{suffix}"] = number(value, where, name)
        else:
            yield Loss(f"metric {name}, which is no number")
    response, extra = _response(row)
    if extra:
        yield Loss("further responses to a document, which has one score", extra)
    yield Answer(where, policy, prompt_id, _prompt(row.get("arguments")), response, 0, scores)


def _response(row: Row) -> tuple[str | None, int]:
    """The first response as generated, and the number of further ones; None where choices were scored."""
    groups = row.get("resps") or []
    responses = groups[0] if groups and isinstance(groups[0], list) else groups
    texts = [response for response in responses if isinstance(response, str)]
    return (texts[0], len(texts) - 1) if texts else (None, 0)


def _prompt(arguments: Any) -> str | None:
    """The text of the prompt, which newer versions keep as arg_0 of gen_args_0."""
    if isinstance(arguments, dict):
        first = next(iter(arguments.values()), None)
        context = first.get("arg_0") if isinstance(first, dict) else None
    else:
        first = arguments[0] if arguments else None
        context = first[0] if isinstance(first, list) and first else first
    context = context[0] if isinstance(context, list) and len(context) == 1 and isinstance(context[0], str) else context
    return conversation(context) if isinstance(context, str | list) else None
