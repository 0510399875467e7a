"""What one does with llama-cpp-python's high-level class where one has no scorer and no generator."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.llama.library import library
from arena_cje.llama.scorer import Item
from benchmarks._work import MODEL, SYSTEM_PROMPT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arena_cje.llama.scorer import Item


@contextlib.contextmanager
def opened(**options: Any) -> Iterator[Any]:
    """The default model in a `llama_cpp.Llama` with its default options, but for one thread."""
    llama = library().Llama(str(MODEL), n_threads=1, n_threads_batch=1, verbose=False, **options)
    with contextlib.closing(llama):
        yield llama


def totals(llama: Any, items: Sequence[Item]) -> list[float]:
    """Log probability of each response, nats, by `eval`, `scores` and numpy."""
    response_logprobs = []
    for item in items:
        llama.reset()
        llama.eval([*item.prompt_ids, *item.response_ids[:-1]])
        logits = llama.scores[len(item.prompt_ids) - 1 : llama.n_tokens]  # (t, V)
        shifted = logits - logits.max(axis=1, keepdims=True)
        chosen = shifted[np.arange(len(shifted)), item.response_ids]
        response_logprobs.append(float((chosen - np.log(np.exp(shifted).sum(axis=1))).sum()))
    return response_logprobs


def echo(llama: Any, text: str) -> list[float | None]:
    """What `create_completion` gives as the log probabilities of a text's tokens; one more token is drawn."""
    answer = llama.create_completion(text, max_tokens=1, temperature=0, echo=True, logprobs=1)
    return answer["choices"][0]["logprobs"]["token_logprobs"]


def chat(llama: Any, user: str, *, max_tokens: int, seed: int) -> int:
    """Draw one response from the model's own distribution; how many tokens it has, its end included."""
    answer = llama.create_chat_completion(
        [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": user}],
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        min_p=0.0,
        repeat_penalty=1.0,
        max_tokens=max_tokens,
        seed=seed,
    )
    return answer["usage"]["completion_tokens"] + (answer["choices"][0]["finish_reason"] == "stop")
