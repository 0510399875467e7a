"""Grades, rubrics and who gives them.

A rubric is a YAML file: what the judge is shown and how a score in [0, 1] is read from it. A judge that chooses among answers
says how sure it is:

    mass_k = p(answer_k) / sum_j p(answer_j),   score = sum_k mass_k score_k

A grader is a provider module with `VERSION` (raised when its grades would change), `identity(item)` (all that determines one
grade) and `grade(items)`; judge and oracle are the same thing here, one cheap and one dear.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from arena_cje.errors import UserError, nearest

Distribution = tuple[tuple[float, float], ...]  # (score, mass): scores rise, masses are above 0 and sum to one


@dataclass(frozen=True)
class Grade:
    """A score in [0, 1], or none and the reason why; `reply` is what the grader said, the tokens what it cost.

    One who chooses among answers gives the distribution over their scores too, of which `score` is the mean, and
    `choice_mass`, the probability that all the answers had together: how well the question was understood.
    """

    score: float | None
    reason: str | None = None
    reply: str | None = None
    distribution: Distribution | None = None
    choice_mass: float | None = None
    prompt_tokens: int = 0
    response_tokens: int = 0


@dataclass(frozen=True)
class Item:
    """A response to be graded."""

    prompt_id: str
    draw_idx: int
    prompt: str
    response: str
    token_ids: tuple[int, ...]
    reference: Mapping[str, Any] | None = None


class Grader(Protocol):
    """One who grades: the protocol of `providers/`."""

    def identity(self, item: Item) -> dict[str, Any]:
        """Everything that determines the grade of an item, as plain JSON values."""

    def grade(self, items: Mapping[str, Item]) -> Iterable[tuple[str, Grade]]:
        """Grades by key, in any order, as they are ready."""


class Likelihood(BaseModel):
    """How likely a model finds the response when it is told to be helpful: exp(mean token log probability), in [0, 1].

    A judge for models too small to follow a rubric in words: what a helpful assistant would hardly say is seldom right.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["likelihood"]
    system_prompt: str = Field(description="a file of resources/policies/ or a path")
    temperature: float = Field(1.0, gt=0)
    description: str | None = None


PLACEHOLDER = re.compile(r"\{(\w+)\}")
SHOWN = ("prompt", "response")  # what a template may show


def _texts_alone(choices: Any) -> Any:
    """YAML reads 1 as a number and yes as true, and an answer is text."""
    for answer in choices if isinstance(choices, Mapping) else ():
        if not isinstance(answer, str):
            raise ValueError(f"the answer {answer!r} is not text; put it in quotes")
    return choices


Choice = Annotated[float, Field(ge=0, le=1)]


class Choices(BaseModel):
    """A question about the response, and the answers that a model may give to it with the score of each.

    The score is read off the model's own probabilities of the answers, so nothing is sampled and nothing is parsed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["choices"]
    template: str = Field(description="what the model is asked, with {prompt} and {response} in it")
    choices: Annotated[dict[str, Choice], BeforeValidator(_texts_alone)] = Field(
        description="score of each answer; an answer is one token of the model"
    )
    opening: str = Field("", description="what the model's answer begins with, before the choice")
    system_prompt: str | None = Field(None, description="a file of resources/policies/ or a path; null sends none")
    description: str | None = None

    @field_validator("template")
    @classmethod
    def _shows_the_response(cls, template: str) -> str:
        names = PLACEHOLDER.findall(template)
        for name in names:
            if name not in SHOWN:
                raise ValueError(
                    f"unknown placeholder {{{name}}}{nearest(name, SHOWN) or '; known: {prompt}, {response}'}"
                )
        if "response" not in names:
            raise ValueError("{response} is not in it, so the judge would not see what it judges")
        return template

    @field_validator("choices")
    @classmethod
    def _differ(cls, choices: dict[str, float]) -> dict[str, float]:
        if len(set(choices.values())) < 2:
            raise ValueError(f"expected answers of at least two different scores, got {choices}")
        return choices

    def question(self, prompt: str, response: str) -> str:
        """The template with both in their places; a placeholder that a user or a model wrote stays as it is."""
        shown = {"prompt": prompt, "response": response}
        return PLACEHOLDER.sub(lambda found: shown[found[1]], self.template)


Rubric = Likelihood | Choices
_RUBRIC = TypeAdapter(Annotated[Rubric, Field(discriminator="kind")])


def load_rubric(path: Path) -> Rubric:
    """The rubric in a YAML file."""
    try:
        return _RUBRIC.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
    except ValidationError as error:
        said = _sentence(error)
    raise UserError(f"{path}: not a rubric this version reads ({said}); see resources/judges/")


def _sentence(error: ValidationError) -> str:
    """The first finding of a validation."""
    finding = error.errors()[0]
    place = ".".join(str(part) for part in finding["loc"][1:])  # after the kind
    said = finding["msg"].removeprefix("Value error, ")
    if finding["type"] not in ("missing", "value_error", "extra_forbidden"):
        said += f", got {finding['input']!r:.60}"
    return f"{place}: {said}" if place else said


def check_uncertainty(rubric: Rubric, uncertainty: str, rubric_name: str) -> None:
    """Raise a `UserError` when a judge is to say how sure it is and its rubric gives no distribution."""
    if uncertainty == "distribution" and not isinstance(rubric, Choices):
        raise UserError(
            f"config: `judge.uncertainty` is 'distribution', but the rubric {rubric_name!r} is of kind {rubric.kind!r}, which "
            "gives one number; choose a rubric of kind 'choices' (such as helpfulness.yaml), or 'deterministic'"
        )


def distribution(logprobs: np.ndarray, scores: np.ndarray) -> Distribution:
    """Masses of the answers' scores from log probabilities (k,) nats; answers of one score count together."""
    weight = np.exp(logprobs - logprobs.max())  # (k,) the maximum first: all the answers may be most improbable
    points, place = np.unique(scores, return_inverse=True)
    mass = np.bincount(place, weight) / weight.sum()
    return tuple((float(point), float(share)) for point, share in zip(points, mass, strict=True) if share > 0)


def mean_score(pairs: Distribution) -> float:
    """Mean score of a distribution, never outside its scores for rounding."""
    value = sum(point * share for point, share in pairs)
    return min(max(value, pairs[0][0]), pairs[-1][0])
