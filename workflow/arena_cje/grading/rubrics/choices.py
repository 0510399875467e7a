"""A rubric that asks for one of several answers and reads the score off their probabilities.

mass_k = p(answer_k) / sum_j p(answer_j),   score = sum_k mass_k score_k"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from arena_cje.grading.quoting import EARLIER, quoted
from arena_cje.grading.rubrics.question import Question


def _texts_alone(choices: Any) -> Any:
    """YAML reads 1 as a number and yes as true, and an answer is text."""
    for answer in choices if isinstance(choices, Mapping) else ():
        if not isinstance(answer, str):
            raise ValueError(f"the answer {answer!r} is not text; put it in quotes")
    return choices


Choice = Annotated[float, Field(ge=0, le=1)]


class Choices(Question):
    """A question about the response, and the answers that a model may give to it with the score of each.

    The score is read off the model's own probabilities of the answers, so nothing is sampled and nothing is parsed.
    """

    kind: Literal["choices"]
    choices: Annotated[dict[str, Choice], BeforeValidator(_texts_alone)] = Field(
        description="score of each answer; an answer is one token of the model"
    )
    opening: str = Field(
        "", description="what a local model's answer begins with, before the choice; behind an API it is not used"
    )

    @field_validator("choices")
    @classmethod
    def _differ(cls, choices: dict[str, float]) -> dict[str, float]:
        if len(set(choices.values())) < 2:
            raise ValueError(f"expected answers of at least two different scores, got {choices}")
        return choices

    def question(self, prompt: str, response: str, *, again: bool = False) -> str:
        """What the model is asked about a response; `again`: a second time, more firmly."""
        asked = quoted(self.template, prompt, response)
        firmer = f"Answer with one of these and nothing else: {', '.join(map(str.strip, self.choices))}."
        return asked + EARLIER + firmer if again else asked
