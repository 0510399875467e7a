"""Judge through llama.cpp: the likelihood of a response under a rubric's system prompt.

    score = exp(mean_t log p(token_t | rubric's system prompt, prompt, earlier tokens))   in [0, 1]

the geometric mean of the token probabilities at the rubric's temperature, without a nucleus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    """A local model that reads a likelihood rubric.

    `scored` are rows of `schemas.LOGPROBS` for responses, by prompt id, that an experiment has scored with this model, prompt
    and temperature for its own sake: the same numbers, so they are not computed again.
    """

    model: Any
    model_sha256: str
    rubric: Likelihood
    system_prompt: str
    scored: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def identity(self, item: Item) -> dict[str, Any]:
        prompt_ids = self._prompt_ids(item)
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
        passes = []
        for key, item in items.items():
            if (row := self.scored.get(item.prompt_id)) is not None:
                yield key, _grade(row["status"], row["token_logprobs"])
            else:
                passes.append(scorer.Item(key, self._prompt_ids(item), item.token_ids))
        n_read = {one.key: len(one.prompt_ids) for one in passes}
        sampling = Sampling(temperature=self.rubric.temperature)
        shared = chat.shared(self.model, self.system_prompt)
        for key, (result,) in scorer.score(self.model, passes, [sampling], shared=shared):
            yield key, _grade(result.status, result.token_logprobs, n_read[key])

    def _prompt_ids(self, item: Item) -> tuple[int, ...]:
        return chat.render(self.model, self.system_prompt, item.prompt)


def _grade(status: str, token_logprobs: Sequence[float], n_read: int = 0) -> Grade:
    """The grade of a scored response, for which `n_read` prompt tokens were read now; 0 where it had been scored before."""
    if status in UNSCORED:
        return Grade(None, UNSCORED[status])
    n_scored = len(token_logprobs) if n_read else 0
    return Grade(float(np.exp(np.mean(token_logprobs))), prompt_tokens=n_read, response_tokens=n_scored)
