"""A rubric that is answered in words: one JSON object with a number on a scale."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from arena_cje.calls.tokens import CallSize, Range
from arena_cje.errors import UserError
from arena_cje.grading import answers
from arena_cje.grading.grades import CUT, NO_JSON, NO_NUMBER, NO_SCORE, OFF_SCALE, TWO_SCORES, Grade
from arena_cje.grading.quoting import RETRY_INTRODUCTION, fill
from arena_cje.grading.rubrics.question import Question

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.calls.request import Reply
    from arena_cje.config.records.grading import Grading

# Tokens, for the estimate of costs.
SCHEMA = Range(0, 40, 200)  # of the description of a structured answer
SCORE = 12  # of {"score": 7} with some space
REASON = 100  # of a sentence or two before it
THOUGHT = 400  # of a model that thinks first, in the middle


class Structured(Question):
    """A question about the response that is answered in words: one JSON object with a number on a scale."""

    VERSION: ClassVar[int] = 2
    LOCAL_GRADER: ClassVar[str] = "reply"
    ENGINE: ClassVar = "generator"

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
    def n_samples(self) -> int:
        return self.samples

    @property
    def gives_distribution(self) -> bool:
        return self.samples > 1

    @property
    def reading(self) -> tuple[float, float]:
        return self.scale

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of an answer. The question states the range in words, since not all servers support bounds."""
        properties = {"reason": {"type": "string"}} if self.reasoning else {}
        properties["score"] = {"type": "number"}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def question(self, prompt: str, response: str, *, again: bool = False) -> str:
        low, high = self.scale
        reason = '"reason": one or two sentences, ' if self.reasoning else ""
        form = f'Answer with one JSON object and nothing else: {{{reason}"score": a number from {low:g} to {high:g}}}'
        retry = f'Answer with the JSON object alone, with a number from {low:g} to {high:g} as "score"' + (
            " and a reason of at most ten words." if self.reasoning else "."
        )
        question = f"{fill(self.template, prompt, response)}\n\n{self.instructions or form}"
        return question + RETRY_INTRODUCTION + retry if again else question

    def answer_temperature(self, block: Grading) -> float | None:
        """Temperature of an answer: the rubric's, else that of the judge's block."""
        return block.temperature if self.temperature is None else self.temperature

    def answer_limits(self, block: Grading) -> tuple[float | None, int]:
        return self.answer_temperature(block), block.max_tokens

    def local_parameters(self, block: Grading) -> dict[str, Any]:
        return {"temperature": self.answer_temperature(block), "max_tokens": block.max_tokens}

    def request_parameters(self, endpoint: Endpoint) -> dict[str, Any]:
        forms = {
            "schema": {"type": "json_schema", "json_schema": {"name": "grade", "strict": True, "schema": self.schema}},
            "object": {"type": "json_object", "schema": self.schema},
        }
        return {"response_format": forms[endpoint.json_reply]} if endpoint.json_reply in forms else {}

    def call_size(self, block: Grading, endpoint: Endpoint, prompts: Sequence[str]) -> CallSize:
        one = super().call_size(block, endpoint, prompts)
        # A judge that takes no temperature is a model that thinks first.
        likely = SCORE + (REASON if self.reasoning else 0) + (THOUGHT if block.temperature is None else 0)
        written = Range(1, min(likely, block.max_tokens), block.max_tokens)
        return replace(
            one, calls=one.calls * self.samples, prompt_tokens=one.prompt_tokens + SCHEMA, completion_tokens=written
        )

    def check(self, block: Grading, key: str) -> None:
        super().check(block, key)
        if self.samples > 1 and self.answer_temperature(block) == 0:
            raise UserError(
                f"config: `{key}` asks {self.samples} times by the rubric {block.rubric!r} at temperature 0, which gives "
                f"the same answer each time; give the rubric or `{key}` a temperature above 0, or the rubric `samples: 1`"
            )
        if self.samples > 1 and "seed" in block.extra:
            raise UserError(
                f"config: `{key}.extra` has a seed, but the rubric {block.rubric!r} asks {self.samples} times, each time with "
                "a seed of its own; leave it out"
            )

    def read_reply(self, reply: Reply) -> Grade:
        return self.read(reply.text, cut=reply.ending != "complete")

    def read(self, reply: str, *, cut: bool = False) -> Grade:
        """The grade that an answer gives: its one JSON object, whatever text is around it, with a number on the scale.

        An answer in which any brace opens something else is not read: what it quotes of the text being judged could be
        taken for its own. `cut`: it did not end by itself. Then no score in it counts: the rest might have taken it back.
        """
        low, high = self.scale
        if cut:
            return Grade(None, CUT, reply)
        try:
            objects = answers.json_objects(reply)
        except answers.UnfinishedDraft:
            return Grade(None, CUT, reply)
        except ValueError:
            return Grade(None, NO_JSON, reply)
        scores = [value for pairs in objects for name, value in pairs if name == "score"]
        if not scores:
            return Grade(None, NO_SCORE, reply)
        score = scores[0]
        if any(other != score for other in scores[1:]):
            return Grade(None, TWO_SCORES, reply)
        if isinstance(score, bool) or not isinstance(score, int | float) or score != score:
            return Grade(None, NO_NUMBER, reply)
        if not low <= score <= high:
            return Grade(None, OFF_SCALE, reply)
        return Grade((score - low) / (high - low), reply=reply)
