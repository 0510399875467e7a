"""A rubric that is read without a question: how likely a model finds the response."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Likelihood(BaseModel):
    """How likely a model finds the response when it is told to be helpful: exp(mean token log probability), in [0, 1].

    A judge for models too small to follow a rubric in words: what a helpful assistant would hardly say is seldom right.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["likelihood"]
    system_prompt: str = Field(description="a file of resources/policies/ or a path")
    temperature: float = Field(1.0, gt=0)
    description: str | None = None
