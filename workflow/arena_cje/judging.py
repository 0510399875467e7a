"""Grades, rubrics and who gives them.

A rubric is a YAML file: what the judge is shown and how a score in [0, 1] is read from it. A grader is a provider module with
`VERSION` (raised when its grades would change), `identity(item)` (all that determines one grade) and `grade(items)`; judge and
oracle are the same thing here, one cheap and one dear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from arena_cje.errors import UserError


@dataclass(frozen=True)
class Grade:
    """A score in [0, 1], or none and the reason why; `reply` is what the grader said, the tokens what it cost."""

    score: float | None
    reason: str | None = None
    reply: str | None = None
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


def load_rubric(path: Path) -> Likelihood:
    """The rubric in a YAML file."""
    try:
        raw = yaml.safe_load(path.read_text())
        return Likelihood.model_validate(raw)
    except (yaml.YAMLError, ValidationError) as error:
        said = str(error).splitlines()
        raise UserError(
            f"{path}: not a rubric this version reads ({'; '.join(line.strip() for line in said[1:3])}); see resources/judges/"
        ) from None
