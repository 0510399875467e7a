"""Annotations of AlpacaEval, and model outputs beside them.

A policy is a generator, a prompt is an instruction, a scorer is an annotator; people, who have numbers, are `human`, and
several of them on one response are votes. The score is the preference for the generator's output over that of the
reference: 1 where the reference is better, 1.5 (or 0, in older files) for a tie, 2 where the generator's is better.

Dropped: outputs of the reference, whose own score would be a comparison with itself; prices, times, raw completions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena_cje.data.convert._answers import Answer, Loss, number, text_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arena_cje.data.convert._build import Choices
    from arena_cje.data.convert._sources import Document
    from arena_cje.files import Row

SCALES = {"*": (1.0, 2.0)}
TIE = 1.5


def recognises(document: Document) -> bool:
    """Whether a file has outputs or annotations of AlpacaEval."""
    return "instruction" in document.first and bool({"preference", "generator"} & document.first.keys())


def answers(documents: Sequence[Document], choices: Choices) -> Iterator[Answer | Loss]:
    """The outputs of all generators but the reference."""
    rows = [(document, where, row) for document in documents for where, row in document.rows]
    references = {row.get("generator_1") for _, _, row in rows if "preference" in row}
    for document, where, row in rows:
        if "preference" in row:
            yield Loss("outputs of the reference")
            yield _annotation(document, where, row)
        elif row.get("generator") in references:
            yield Loss("outputs of the reference")
        else:
            policy = document.name(row.get("generator"))
            yield Answer(
                where,
                policy,
                text_id(row["instruction"]),
                row["instruction"],
                row.get("output"),
                metadata=_metadata(row),
            )


def _annotation(document: Document, where: str, row: Row) -> Answer:
    policy, annotator = document.name(row.get("generator_2")), row.get("annotator")
    name = annotator if isinstance(annotator, str) and not annotator.isdigit() else "human"
    preference = number(row["preference"], where, "preference")
    preference = TIE if preference == 0 else preference
    return Answer(
        where,
        policy,
        text_id(row["instruction"]),
        row["instruction"],
        row.get("output_2"),
        scores={name: preference},
        metadata=_metadata(row),
    )


def _metadata(row: Row) -> Row:
    return {"dataset": row["dataset"]} if row.get("dataset") is not None else {}
