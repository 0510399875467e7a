"""MT-bench files of FastChat: questions, model answers, and judgments of single answers.

A policy is a model, a prompt is the first turn of a question, choices are draws, a judge is a scorer with scores of 1 to
10; a score of -1, a judgment that could not be read, is missing. Give all files together, or their folder.

Dropped: later turns, whose prompt contains the model's own first answer, pairwise judgments, reference answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena_cje.data.convert._answers import Answer, Loss, draw_index, id_of, number
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arena_cje.data.convert._build import Choices
    from arena_cje.data.convert._sources import Document
    from arena_cje.files import Row

SCALES = {"*": (1.0, 10.0)}
UNREADABLE = -1


def recognises(document: Document) -> bool:
    """Whether a file has questions, answers or judgments of MT-bench."""
    return "question_id" in document.first and bool({"turns", "choices", "judge"} & document.first.keys())


def answers(documents: Sequence[Document], choices: Choices) -> Iterator[Answer | Loss]:
    """The first turns of all models."""
    rows = [(document, where, row) for document in documents for where, row in document.rows]
    questions = {id_of(row["question_id"]): row for _, _, row in rows if "turns" in row}
    for document, where, row in rows:
        if "choices" in row and "reference_answer" in document.path.parts:
            yield Loss("reference answers")
        elif "choices" in row:
            yield from _first_turns(document, where, row, questions.get(id_of(row["question_id"]), {}))
        elif "g1_winner" in row:
            yield Loss("pairwise judgments")
        elif "judge" in row and row.get("turn", 1) != 1:
            yield Loss("judgments of later turns")
        elif "judge" in row:
            yield _judgment(document, where, row)


def _first_turns(document: Document, where: str, row: Row, question: Row) -> Iterator[Answer | Loss]:
    policy, later = document.name(row.get("model_id")), 0
    for choice in row["choices"]:
        turns = choice.get("turns") or [None]
        later += len(turns) - 1
        yield Answer(
            where,
            policy,
            id_of(row["question_id"]),
            (question.get("turns") or [None])[0],
            turns[0],
            draw_index(choice.get("index"), where, "index") or 0,
            metadata={"category": question["category"]} if question.get("category") else {},
        )
    if later:
        yield Loss("answers to later turns", later)


def _judgment(document: Document, where: str, row: Row) -> Answer:
    if "score" not in row or "model" not in row:
        raise UserError(f"{where}: has a judge but no model and score, expected a judgment of a single answer")
    judge = row["judge"][0] if isinstance(row["judge"], list) else row["judge"]
    score = number(row["score"], where, "score")
    return Answer(
        where,
        document.name(row["model"]),
        id_of(row["question_id"]),
        scores={judge: None if score == UNREADABLE else score},
    )
