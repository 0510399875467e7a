"""OpenAI Evals: the log of `oaieval`, and output items of the Evals API.

A log has the samples of one policy, its completion function: a prompt is a sample, by its id, its response is the first
sampling, and scorers are `match` (correct or not) and every number of its metrics. Output items have the model of their
sample as policy, the id of their data source item as prompt, and a scorer for each grader; several items of one run for
the same data source item are draws.

Dropped: later samplings of a sample, which are the grader's, other events, usage, final reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arena_cje.data.convert._answers import (
    Answer,
    DrawCounter,
    Loss,
    conversation,
    id_of,
    number,
    numbers,
    text_of,
)
from arena_cje.errors import UserError, display_form

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arena_cje.data.convert._build import Choices
    from arena_cje.data.convert._sources import Document
    from arena_cje.files import Row, RowWithPlace

ITEM = "eval.run.output_item"


def recognises(document: Document) -> bool:
    """Whether a file is a log of `oaieval`, or has output items of the API."""
    items = _items(document)
    is_log = isinstance(document.first.get("spec"), dict) or {"sample_id", "event_id"} <= document.first.keys()
    return is_log or bool(items and items[0][1].get("object") == ITEM)


def answers(documents: Sequence[Document], choices: Choices) -> Iterator[Answer | Loss]:
    """The responses of all logs and output items."""
    draws = DrawCounter()
    for document in documents:
        items = _items(document)
        if items and items[0][1].get("object") == ITEM:
            for where, item in items:
                yield _item(document, where, item, draws)
        else:
            yield from _log(document)


def _items(document: Document) -> list[RowWithPlace]:
    """Output items: the `data` of a page, or the rows; raises a `UserError` for an item that is no object."""
    data = document.first.get("data")
    if document.first.get("object") == "list" and isinstance(data, list):
        items = [(f"{document.path} (item {k})", item) for k, item in enumerate(data, start=1)]
        for where, item in items:
            if not isinstance(item, dict):
                raise UserError(f"{where}: is {display_form(item)}, expected a JSON object")
        return items
    return document.rows


def _item(document: Document, where: str, item: Row, draws: DrawCounter) -> Answer:
    sample, results = item.get("sample") or {}, item.get("results") or []
    policy = document.name(sample.get("model"))
    prompt_id = id_of(item.get("datasource_item_id", item.get("id")))
    outputs = sample.get("output") or []
    scores = {result.get("name", "score"): _result(result, where) for result in results if isinstance(result, dict)}
    return Answer(
        where,
        policy,
        prompt_id,
        conversation(sample.get("input")),
        text_of(outputs[-1].get("content")) if outputs else None,
        draws.next(policy, prompt_id),
        scores if sample.get("error") is None or outputs else dict.fromkeys(scores),
    )


def _result(result: Row, where: str) -> float | None:
    value = result.get("score", result.get("passed"))
    return number(value, where, result.get("name", "score"))


def _log(document: Document) -> Iterator[Answer | Loss]:
    policy = document.name(_completion_function(document))
    responses: set[str] = set()
    for where, row in document.rows:
        if "sample_id" not in row:
            continue  # the specification and the final report
        sample_id, kind, data = id_of(row["sample_id"]), row.get("type"), row.get("data") or {}
        if kind == "sampling" and sample_id not in responses:
            responses.add(sample_id)
            yield Answer(where, policy, sample_id, conversation(data.get("prompt")), _sampled(data.get("sampled")))
        elif kind == "sampling":
            yield Loss("samplings of a grader")
        elif kind == "match":
            yield Answer(where, policy, sample_id, scores={"match": number(data.get("correct"), where, "correct")})
        elif kind == "metrics":
            yield Answer(where, policy, sample_id, scores=numbers(data, where))
        else:
            yield Loss(f"events of type {kind}")


def _completion_function(document: Document) -> str | None:
    functions = (document.first.get("spec") or {}).get("completion_fns") or []
    return functions[0] if functions else (document.first.get("spec") or {}).get("model_name")


def _sampled(sampled: Any) -> str | None:
    return text_of(sampled[0]) if isinstance(sampled, list) and sampled else text_of(sampled)
