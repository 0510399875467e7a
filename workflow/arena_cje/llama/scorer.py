"""Teacher forcing: the exact log probability of a given response after a given prompt.

    log p(a | x) = sum_t log p(a_t | x, a_1 .. a_{t-1})    nats, over the response's tokens alone

Each sample has a forward pass of its own from an empty cache, in one physical batch. Packing samples together, sharing
prefixes or cutting the batch would all be legitimate and all change the last digits (by 0.001 to 0.1 nats a response),
so that the same policy scored twice would not have weight 1 exactly. The base policy must be scored here too, never by
the numbers noted while it generated. Every sampling asked for is read off the same pass.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from arena_cje.llama.distribution import Sampling, token_log_probs
from arena_cje.llama.model import Context, Model

# Raise this number when any log probability would change: the batching above, the distribution, the tokens that count.
VERSION = 1


@dataclass(frozen=True)
class Item:
    """A response to score, in the token ids that were generated: text tokenised again often gives others."""

    key: Hashable
    prompt_ids: Sequence[int]
    response_ids: Sequence[int]  # with the end-of-generation token if it was generated


@dataclass(frozen=True)
class Scored:
    """Log probabilities of one response under one sampling.

    Status: `ok`; `outside_support` (some token has probability 0, total -inf); `too_long` for the context, `empty` or
    `not_finite` (the model returned NaN), where the total is NaN.
    """

    token_logprobs: np.ndarray  # (t,) nats
    n_boundary: int  # tokens on the boundary of the nucleus
    status: str

    @property
    def total(self) -> float:
        """Log probability of the response, nats; NaN where there is none."""
        if self.status not in ("ok", "outside_support"):
            return math.nan
        return math.fsum(self.token_logprobs)


def score(
    model: Model, items: Iterable[Item], samplings: Sequence[Sampling], *, drawn_from: Sampling | None = None
) -> Iterator[tuple[Hashable, list[Scored]]]:
    """Score every item under every sampling, in the given order; none is left out.

    `drawn_from` is the sampling that drew the responses when these prompts are the ones they were drawn for (the base
    policy's own context), None otherwise. It alone takes tokens on the boundary of the nucleus for inside.
    """
    items = list(items)
    fitting = [item for item in items if _fits(item, model)]
    n_tokens = max((len(item.prompt_ids) + len(item.response_ids) for item in fitting), default=1)
    n_outputs = max((len(item.response_ids) for item in fitting), default=1)
    with Context(model, n_tokens=n_tokens, n_batch=n_tokens, n_outputs=n_outputs) as context:
        for item in items:
            if not _fits(item, model):
                yield item.key, [_unscored("too_long")] * len(samplings)
            elif not item.response_ids:
                yield item.key, [_unscored("empty")] * len(samplings)
            else:
                logits = _forward(context, item)  # (t, V)
                yield item.key, [_scored(logits, item, s, drawn=s == drawn_from) for s in samplings]


def _fits(item: Item, model: Model) -> bool:
    return len(item.prompt_ids) + len(item.response_ids) <= model.n_ctx


def _forward(context: Context, item: Item) -> np.ndarray:
    """Logits that predict the response's tokens, (t, V)."""
    if not item.prompt_ids:
        raise ValueError(f"item {item.key!r} has an empty prompt, so nothing predicts its first token")
    context.clear()
    tokens = [*item.prompt_ids, *item.response_ids[:-1]]  # nothing is predicted from the last token
    return context.decode(tokens, range(len(tokens)), 0, len(item.response_ids))


def _scored(logits: np.ndarray, item: Item, sampling: Sampling, *, drawn: bool) -> Scored:
    logprobs, n_boundary = token_log_probs(logits, item.response_ids, sampling, drawn=drawn)
    return Scored(logprobs, n_boundary, _status(logprobs))


def _status(logprobs: np.ndarray) -> str:
    if np.isnan(logprobs).any():
        return "not_finite"
    return "ok" if np.isfinite(logprobs).all() else "outside_support"


def _unscored(status: str) -> Scored:
    return Scored(np.empty(0), 0, status)
