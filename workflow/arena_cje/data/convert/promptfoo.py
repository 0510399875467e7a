"""Results of promptfoo: the JSON of `promptfoo eval -o results.json`, its rows as JSONL, and its CSV.

A policy is a provider, with the label of its prompt where a provider has several; a prompt is the variables of a test
case, so that policies with different prompt templates share it, and repetitions of a test case are draws. Scorers are
`score` (the score of all assertions), the named metrics, and `human`, the ratings that people gave in the viewer. A rated
row has the rating as its score; there `score` is the weighted mean of its assertions.

Dropped: reasons, costs, latencies, tokens. A row whose provider failed has no score. The CSV has scores of two digits.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje.data.convert._answers import Answer, DrawCounter, Loss, number, numbers, text_id, text_of
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arena_cje.data.convert._build import Choices
    from arena_cje.data.convert._sources import Document
    from arena_cje.files import Row, RowWithPlace

JUDGE = "score"
HUMAN = "human"

OUTPUT = re.compile(r"\[(?P<provider>[^\]]+)\] (?P<label>.*)", re.DOTALL)  # header of a column of outputs
CELL = re.compile(r"\[(?P<status>PASS|FAIL|ERROR)\]\s*(?:\((?P<scores>[^)]*)\))?\s*(?P<text>.*)", re.DOTALL)
REASON = re.compile(r"\n\s*(?:Pass|Fail) Reason:.*", re.DOTALL)
STATUS_SCORES = {"PASS": 1.0, "FAIL": 0.0, "ERROR": None}
ERROR_REASON = "error of the provider (the row has no score)"
LONGEST_LABEL = 40  # of a prompt that names a policy; a longer one is the prompt's text


def recognises(document: Document) -> bool:
    """Whether a file has results of promptfoo."""
    if document.table is not None:
        return any(OUTPUT.fullmatch(name) for name in document.table[0])
    rows = _results(document)
    fields = rows[0][1].keys() if rows else set()
    has_prompt = {"prompt", "promptIdx"} & fields and {"vars", "testCase"} & fields
    return bool(has_prompt and {"success", "gradingResult", "score"} & fields)


def answers(documents: Sequence[Document], choices: Choices) -> Iterator[Answer | Loss]:
    """The responses of all providers."""
    for document in documents:
        yield from _table_answers(document) if document.table is not None else _json_answers(document)


def _results(document: Document) -> list[RowWithPlace]:
    """The rows of results: under `results.results`, under `results`, or those of the file."""
    results = document.first.get("results")
    if isinstance(results, dict):
        results = results.get("results")
    if isinstance(results, list):
        return [
            (f"{document.path} (result {k})", row) for k, row in enumerate(results, start=1) if isinstance(row, dict)
        ]
    return document.rows


def _json_answers(document: Document) -> Iterator[Answer | Loss]:
    rows, draws = _results(document), DrawCounter()
    names = _policies(document, rows)
    for where, row in rows:
        variables = _variables((row.get("testCase") or {}).get("vars") or row.get("vars"))
        prompt = row.get("prompt")
        raw = prompt.get("raw") if isinstance(prompt, dict) else prompt
        policy, prompt_id = names[_column(row)], text_id(variables or raw or "")
        response = (row.get("response") or {}).get("output")
        failed = row.get("error") is not None and response is None
        if failed:
            yield Loss(ERROR_REASON)
        yield Answer(
            where,
            policy,
            prompt_id,
            _prompt_text(variables) or raw,
            text_of(response),
            draws.next(policy, prompt_id),
            {JUDGE: None} if failed else _scores(row, where),
        )


def _policies(document: Document, rows: Sequence[RowWithPlace]) -> dict[Any, str]:
    """The name of each column of the results, by its index."""
    columns: dict[Any, tuple[str, str]] = {}
    for _, row in rows:
        columns.setdefault(_column(row), _provider_and_label(row))
    return _column_names(document, columns)


def _column(row: Row) -> Any:
    """The key of a column of the results: its number, or its provider and label in files of old versions, which lack it."""
    return row.get("promptIdx", _provider_and_label(row))


def _provider_and_label(row: Row) -> tuple[str, str]:
    provider, prompt = row.get("provider") or {}, row.get("prompt") or {}
    name = provider if isinstance(provider, str) else provider.get("label") or provider.get("id") or ""
    label = prompt.get("label", prompt.get("display")) if isinstance(prompt, dict) else ""
    return name, label or ""


def _variables(variables: Any) -> Any:
    """The variables of a test case; old versions have its assertions among them."""
    if not isinstance(variables, dict):
        return variables
    return {name: value for name, value in variables.items() if not name.startswith("__")}


def _column_names(document: Document, columns: Mapping[Any, tuple[str, str]]) -> dict[Any, str]:
    if document.policy is not None and len(columns) > 1:
        raise UserError(f"{document.path}: has {len(columns)} policies, which {document.policy!r} cannot name")
    providers = Counter(provider for provider, _ in columns.values())
    labels = Counter(columns.values())
    names = {}
    for place, (index, (provider, label)) in enumerate(columns.items()):
        own_label = label if len(label) <= LONGEST_LABEL and labels[provider, label] == 1 else ""
        own_label = own_label or f"prompt{place}"
        name = document.policy or provider or own_label
        names[index] = f"{name} {own_label}" if provider and providers[provider] > 1 else name
    return names


def _prompt_text(variables: Any) -> str | None:
    """The text of a test case: its only variable, or all of them as lines."""
    if not isinstance(variables, dict) or not variables:
        return None
    if len(variables) == 1:
        return text_of(next(iter(variables.values())))
    return "\n".join(f"{name}: {text_of(value)}" for name, value in variables.items())


def _scores(row: Row, where: str) -> dict[str, float | None]:
    """The scores of a row by scorer, without what people rated in `score`."""
    grading = row.get("gradingResult") or {}
    parts = [part for part in grading.get("componentResults") or [] if isinstance(part, dict)]
    ratings = [part for part in parts if (part.get("assertion") or {}).get("type") == HUMAN]
    score = number(row.get("score", grading.get("score", row.get("success"))), where, JUDGE)
    if ratings:
        score = _weighted_mean([part for part in parts if part not in ratings], where)
    named_scores = numbers(row.get("namedScores") or {}, where)
    human = {HUMAN: number(ratings[-1].get("score"), where, HUMAN)} if ratings else {}
    return {JUDGE: score} | named_scores | human


def _weighted_mean(parts: Sequence[Row], where: str) -> float | None:
    weights = [(part.get("assertion") or {}).get("weight", 1) for part in parts]
    scores = [number(part.get("score"), where, JUDGE) for part in parts]
    if not parts or None in scores or not sum(weights):
        return None
    return sum(weight * score for weight, score in zip(weights, scores, strict=True)) / sum(weights)


def _table_answers(document: Document) -> Iterator[Answer | Loss]:
    header, *rows = document.table
    outputs = [k for k, name in enumerate(header) if OUTPUT.fullmatch(name)]
    matches = {k: OUTPUT.fullmatch(header[k]) for k in outputs}
    names = _column_names(document, {k: (match["provider"], match["label"]) for k, match in matches.items()})
    variables = [k for k in range(outputs[0]) if header[k] != "Description"]
    draws = DrawCounter()
    for place, cells in enumerate(rows, start=1):
        where = f"{document.path} (row {place})"
        values = {header[k]: cells[k] for k in variables}
        prompt_id = text_id(values)
        for k, end in zip(outputs, [*outputs[1:], len(header)], strict=True):
            response, scores, failed = _cell(
                cells[k], dict(zip(header[k + 1 : end], cells[k + 1 : end], strict=True)), where
            )
            if failed:
                yield Loss(ERROR_REASON)
            policy = names[k]
            yield Answer(
                where, policy, prompt_id, _prompt_text(values), response, draws.next(policy, prompt_id), scores
            )


def _cell(text: str, columns: Mapping[str, str], where: str) -> tuple[str | None, dict[str, float | None], bool]:
    """Response, scores, and whether the provider failed: from the columns beside a cell, or else from its own text."""
    if "Status" in columns:
        failed = columns["Status"] == "ERROR"
        named_scores = _named_scores(columns.get("Named Scores", ""), where)
        metrics = {
            name.removeprefix("Metric: "): number(columns[name], where, name) for name in columns if "Metric: " in name
        }
        score = None if failed else number(columns.get("Score"), where, "Score")
        return (None if failed else text), {JUDGE: score} | named_scores | metrics, failed
    match = CELL.fullmatch(text.strip())
    if match is None:
        raise UserError(
            f"{where}: the cell {text!r:.60} does not begin with [PASS], [FAIL] or [ERROR]; export the file again"
        )
    failed = match["status"] == "ERROR"
    first, *others = (match["scores"] or "").split(", ")
    score = number(first, where, JUDGE)
    pairs = [other.rpartition(": ") for other in others]
    named_scores = {name: number(value, where, name) for name, _, value in pairs}
    score = STATUS_SCORES[match["status"]] if score is None or failed else score
    return (None if failed else REASON.sub("", match["text"]).strip()), {JUDGE: score} | named_scores, failed


def _named_scores(text: str, where: str) -> dict[str, float | None]:
    if not text.strip():
        return {}
    try:
        scores = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise UserError(f"{where}: Named Scores is {text!r:.60}, expected a JSON object") from None
    return {name: number(value, where, name) for name, value in scores.items()}
