"""A rubric that is read without a question: how likely a model finds the response."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Sequence


class Likelihood(BaseModel):
    """How likely a model finds the response when it is told to be helpful: exp(mean token log probability), in [0, 1].

    A judge for models too small to follow a rubric in words: what a helpful assistant would hardly say is seldom right.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["likelihood"]
    system_prompt: str = Field(description="a file of resources/policies/ or a path")
    temperature: float = Field(1.0, gt=0)
    description: str | None = None


def score(token_logprobs: Sequence[float]) -> float:
    """exp of the mean log probability of a response's tokens (t,), nats."""
    return math.exp(math.fsum(token_logprobs) / len(token_logprobs))
