"""A rubric that is read without a question: how likely a model finds the response.

score = exp(mean_t log p(token_t | system prompt, prompt, earlier tokens))     in [0, 1]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from arena_cje.calls.tokens import ECHO_CALLS, CallSize, Range, estimate_tokens, mean_range
from arena_cje.errors import UserError
from arena_cje.grading.rubrics.base import Rubric
from arena_cje.hosted import writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.config.records.grading import Grading


def score(token_logprobs: Sequence[float]) -> float:
    """exp of the mean log probability of a response's tokens (t,), nats."""
    return float(np.exp(np.mean(token_logprobs)))


class Likelihood(Rubric):
    """How likely a model finds the response when its system prompt asks it to be helpful.

    A judge for models too small to follow a rubric in words: what is improbable for a helpful assistant is seldom right.
    """

    VERSION: ClassVar[int] = 1
    LOCAL_GRADER: ClassVar[str] = "likelihood"
    ENGINE: ClassVar = "scorer"
    SCORES_TEXT: ClassVar[bool] = True

    kind: Literal["likelihood"]
    system_prompt: str = Field(description="a file of resources/policies/ or a path")
    temperature: float = Field(1.0, gt=0)
    description: str | None = None

    def hosted_parameters(self, block: Grading, endpoint: Endpoint) -> dict[str, Any]:
        identity = writer.request_identity(block, endpoint, echoes_logprobs=True)
        return {"request": identity, "score": writer.VERSION}

    def call_size(self, block: Grading, endpoint: Endpoint, prompts: Sequence[str]) -> CallSize:
        written = Range(0, endpoint.echo_max_tokens, endpoint.echo_max_tokens)
        return CallSize(ECHO_CALLS, mean_range(map(estimate_tokens, prompts)), written)

    def check(self, block: Grading, key: str) -> None:
        if not block.hosted:
            super().check(block, key)
        elif block.template is None or self.temperature != 1:
            raise UserError(
                f"config: `{key}` asks the provider {block.provider!r}, but {self.described(block)}, which reads log "
                f"probabilities of given text: behind an API that takes a `{key}.template` and the rubric's temperature 1; or "
                "choose a rubric of kind 'structured' (such as rating.yaml), or `provider: llama_cpp`"
            )
        self._check_uncertainty(block, key)
