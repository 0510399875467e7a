"""Judge through llama.cpp: the likelihood of a response under a rubric's system prompt.

    score = exp(mean_t log p(token_t | rubric's system prompt, prompt, earlier tokens))   in [0, 1]

the geometric mean of the token probabilities at the rubric's temperature, without a nucleus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from arena_cje.judging import Grade, Item, Likelihood
from arena_cje.llama import chat, scorer
from arena_cje.llama.distribution import Sampling

VERSION = 1  # raise when a grade would change

UNSCORED = {
    "empty": "there is no response to judge",
    "too_long": "prompt and response do not fit the judge's context",
    "not_finite": "the model returned no number",
}


@dataclass(frozen=True)
class Judge:
    """A local model that reads a likelihood rubric."""

    model: Any
    model_sha256: str
    rubric: Likelihood
    system_prompt: str

    def identity(self, item: Item) -> dict[str, Any]:
        prompt_ids = chat.render(self.model, self.system_prompt, item.prompt)
        return {
            "judge": VERSION,
            "score": scorer.VERSION,
            "model": self.model_sha256,
            "prompt_ids": prompt_ids,
            "response_ids": item.token_ids,
            "temperature": self.rubric.temperature,
            "fits": len(prompt_ids) + len(item.token_ids) <= self.model.n_ctx,
        }

    def grade(self, items: Mapping[str, Item]) -> Iterator[tuple[str, Grade]]:
        sampling = Sampling(temperature=self.rubric.temperature)
        passes = [
            scorer.Item(key, chat.render(self.model, self.system_prompt, item.prompt), item.token_ids)
            for key, item in items.items()
        ]
        shared = chat.shared(self.model, self.system_prompt)
        for key, (scored,) in scorer.score(self.model, passes, [sampling], shared=shared):
            if scored.status in UNSCORED:
                yield key, Grade(None, UNSCORED[scored.status])
            else:
                yield key, Grade(float(np.exp(np.mean(scored.token_logprobs))))
