"""A rubric that is answered in words: one JSON object with a number on a scale."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from arena_cje.grading.grades import CUT, NO_JSON, NO_NUMBER, NO_SCORE, OFF_SCALE, TWO_SCORES, Grade
from arena_cje.grading.quoting import EARLIER, quoted
from arena_cje.grading.rubrics.question import Question

if TYPE_CHECKING:
    from arena_cje.config.records import Grading


class Structured(Question):
    """A question about the response that is answered in words: one JSON object with a number on a scale."""

    kind: Literal["structured"]
    scale: tuple[float, float] = Field(description="lowest and highest score, mapped to 0 and 1")
    instructions: str | None = Field(
        None, description="how to answer, after the template; null is a sentence that asks for the JSON object"
    )
    reasoning: bool = Field(False, description="a short reason before the score")
    samples: int = Field(
        1, ge=1, le=100, description="answers to one question: their mean is the score, they are its distribution"
    )
    temperature: float | None = Field(None, ge=0, le=2, description="of the answer; null is that of the judge's block")

    @field_validator("scale")
    @classmethod
    def _rises(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not (all(map(math.isfinite, scale)) and scale[0] < scale[1]):
            raise ValueError(f"expected [lowest, highest], two numbers that rise, got {list(scale)}")
        return scale

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of an answer. Its range is told in words: not all servers know bounds."""
        properties = {"reason": {"type": "string"}} if self.reasoning else {}
        properties["score"] = {"type": "number"}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def question(self, prompt: str, response: str, *, again: bool = False) -> str:
        """What the model is asked about a response; `again`: a second time, more firmly."""
        low, high = self.scale
        reason = '"reason": one or two sentences, ' if self.reasoning else ""
        form = f'Answer with one JSON object and nothing else: {{{reason}"score": a number from {low:g} to {high:g}}}'
        firmer = f'Answer with the JSON object alone, with a number from {low:g} to {high:g} as "score"' + (
            " and a reason of at most ten words." if self.reasoning else "."
        )
        asked = f"{quoted(self.template, prompt, response)}\n\n{self.instructions or form}"
        return asked + EARLIER + firmer if again else asked

    def read(self, reply: str, *, cut: bool = False) -> Grade:
        """The grade that an answer gives: its one JSON object, whatever text is around it, with a number on the scale.

        An answer in which any brace opens something else is not read: what it quotes of the text being judged could be
        taken for its own. `cut`: it ended at the limit of tokens.
        """
        low, high = self.scale
        try:
            found = _scores_in(_own(reply))
        except (ValueError, RecursionError):
            return Grade(None, CUT if cut else NO_JSON, reply)
        if not found:
            return Grade(None, CUT if cut else NO_SCORE, reply)
        score = found[0]
        if any(other != score for other in found[1:]):
            return Grade(None, TWO_SCORES, reply)
        if isinstance(score, bool) or not isinstance(score, int | float) or score != score:
            return Grade(None, NO_NUMBER, reply)
        if not low <= score <= high:
            return Grade(None, OFF_SCALE, reply)
        return Grade((score - low) / (high - low), reply=reply)


_JSON = json.JSONDecoder(object_pairs_hook=tuple)  # an object as (name, value) pairs, so that no second score is lost


def _scores_in(text: str) -> list[Any]:
    """Values of `score` in the JSON objects of a text; a `ValueError` where a brace opens no JSON object."""
    found: list[Any] = []
    start = text.find("{")
    while start >= 0:
        pairs, end = _JSON.raw_decode(text, start)
        found += [value for name, value in pairs if name == "score"]
        start = text.find("{", end)
    return found


def _own(reply: str) -> str:
    """An answer without what a reasoning model thought before it, where the server leaves that in."""
    return reply.rpartition("</think>")[2] if reply.lstrip().startswith("<think>") else reply


def temperature_of(rubric: Structured, block: Grading) -> float | None:
    """Temperature of an answer in words: the rubric's, else that of the judge's block."""
    return block.temperature if rubric.temperature is None else rubric.temperature
