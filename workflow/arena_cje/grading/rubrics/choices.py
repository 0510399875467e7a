"""A rubric that asks for one of several answers and reads the score off their probabilities.

    mass_k = p(answer_k) / sum_j p(answer_j),   score = sum_k mass_k score_k

Behind an API only the likeliest tokens have known probabilities; answers that are not among them count as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, field_validator

from arena_cje.calls import apis
from arena_cje.grading import grades
from arena_cje.grading.grades import Grade
from arena_cje.grading.quoting import RETRY_INTRODUCTION, fill
from arena_cje.grading.rubrics.question import Question

if TYPE_CHECKING:
    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.calls.request import Reply
    from arena_cje.config.records.grading import Grading

# Probability of all the answers together; with less the model did not take the question for one. Higher than for local
# models, which give the probability of any token.
FLOOR = 0.01
NO_CHOICE = f"the rubric's answers have probability below {FLOOR:g} together"
NO_LOGPROBS = "the answer came without log probabilities"


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

    VERSION: ClassVar[int] = 2
    LOCAL_GRADER: ClassVar[str] = "choice"
    ENGINE: ClassVar = "scorer"
    TASK: ClassVar[str] = "chooses"

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

    @property
    def gives_distribution(self) -> bool:
        return True

    @property
    def reading(self) -> dict[str, float]:
        return self.choices

    def question(self, prompt: str, response: str, *, again: bool = False) -> str:
        question = fill(self.template, prompt, response)
        retry = f"Answer with one of these and nothing else: {', '.join(map(str.strip, self.choices))}."
        return question + RETRY_INTRODUCTION + retry if again else question

    def request_parameters(self, endpoint: Endpoint) -> dict[str, Any]:
        return {"logprobs": True, "top_logprobs": apis.get(endpoint.api).TOP_LOGPROBS}

    def answer_limits(self, block: Grading) -> tuple[float | None, int]:
        return block.temperature, 1

    def read_reply(self, reply: Reply) -> Grade:
        """The grade by the likeliest first tokens; tokens that differ by the spaces around them are one answer."""
        if not reply.top_logprobs:
            return Grade(None, NO_LOGPROBS, reply.text)
        mass = dict.fromkeys(map(str.strip, self.choices), 0.0)
        for token, logprob in reply.top_logprobs[0].items():
            if token.strip() in mass:
                mass[token.strip()] += float(np.exp(logprob))
        choice_mass = min(1.0, sum(mass.values()))
        if choice_mass < FLOOR:
            return Grade(None, NO_CHOICE, reply.text, choice_mass=choice_mass)
        score_of = {text.strip(): score for text, score in self.choices.items()}
        positive = {text: share for text, share in mass.items() if share > 0}
        scores = np.array([score_of[text] for text in positive])
        pairs = grades.distribution(np.log(list(positive.values())), scores)
        return Grade(grades.mean_score(pairs), None, reply.text, pairs, choice_mass)
