"""Base class of the rubrics that ask a model a question: `choices` and `structured`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from arena_cje.calls.tokens import CallSize, Range, estimate_tokens, exact, mean_range
from arena_cje.errors import did_you_mean
from arena_cje.grading.quoting import PLACEHOLDER, TEXTS
from arena_cje.grading.rubrics.base import Rubric
from arena_cje.hosted import writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.calls.request import Reply
    from arena_cje.config.records.grading import Grading
    from arena_cje.grading.grades import Grade

# Calls a response: an answer that arrives damaged is asked for again, and may have been paid for; an empty response takes
# none. Answers that cannot be read are asked for a second time, in a longer question.
CALLS = Range(0.5, 1.0, 1.2) * Range(1.0, 1.02, 2.0)
RETRY_TOKENS = Range(0, 1, 120)  # over all calls in the mean


class Question(Rubric):
    """A rubric that shows the response to a model and asks a question about it."""

    TASK: ClassVar[str] = (
        "writes"  # what `check_models` tries: that a reply comes, or "chooses": with log probabilities
    )

    template: str = Field(description="the question, with {prompt} and {response} in it")
    system_prompt: str | None = Field(None, description="a file of resources/policies/ or a path; null sends none")
    description: str | None = None
    version: str | int | None = Field(None, description="for people; what a grade depends on are the texts themselves")

    @field_validator("template")
    @classmethod
    def _shows_the_response(cls, template: str) -> str:
        names = PLACEHOLDER.findall(template)
        for name in names:
            if name not in TEXTS:
                raise ValueError(
                    f"unknown placeholder {{{name}}}{did_you_mean(name, TEXTS) or '; known: {prompt}, {response}'}"
                )
        if "response" not in names:
            raise ValueError("{response} is not in it, so the judge would not see what it judges")
        return template

    @abstractmethod
    def question(self, prompt: str, response: str, *, again: bool = False) -> str:
        """The question about a response; `again`: the second, firmer one."""

    @property
    @abstractmethod
    def reading(self) -> Any:
        """How a score is read from an answer, as plain JSON values: part of what identifies a grade."""

    @abstractmethod
    def request_parameters(self, endpoint: Endpoint) -> dict[str, Any]:
        """Parameters of a request that ask for the kind of answer that this rubric reads."""

    @abstractmethod
    def answer_limits(self, block: Grading) -> tuple[float | None, int]:
        """Temperature (None is not sent) and `max_tokens` of an answer behind an API."""

    @abstractmethod
    def read_reply(self, reply: Reply) -> Grade:
        """The grade that an API's reply gives."""

    def hosted_parameters(self, block: Grading, endpoint: Endpoint) -> dict[str, Any]:
        temperature, max_tokens = self.answer_limits(block)
        request = writer.request_identity(block, endpoint) | {"json_reply": endpoint.json_reply}
        return {"request": request, "temperature": temperature, "max_tokens": max_tokens}

    def call_size(self, block: Grading, endpoint: Endpoint, prompts: Sequence[str]) -> CallSize:
        return CallSize(
            CALLS, mean_range(estimate_tokens(self.question(prompt, "")) for prompt in prompts) + RETRY_TOKENS, exact(1)
        )
