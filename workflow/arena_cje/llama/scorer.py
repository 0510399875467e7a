"""Teacher forcing: the exact log probability of a given response after a given prompt.

    log p(a | x) = sum_t log p(a_t | x, a_1 .. a_{t-1})    nats, over the response's tokens alone

Each sample has a forward pass of its own, cut as described in `prefill`. Packing samples together, or cutting them by what else
is in the shard, would be legitimate and change the last digits (by 0.001 to 0.1 nats a response), so that the same
policy scored twice would not have weight 1 exactly. The base policy must be scored here too, never by the numbers noted
while it generated. Every sampling asked for is read off the same pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.llama.distribution import Sampling, token_log_probs
from arena_cje.llama.model import Context, Model
from arena_cje.llama.prefill import BLOCK, Reader, usable

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

# Raise this number when any log probability would change: the batching above, the distribution, the tokens that count.
VERSION = 2


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
    model: Model,
    items: Iterable[Item],
    samplings: Sequence[Sampling],
    *,
    drawn_from: Sampling | None = None,
    shared: Sequence[int] = (),
) -> Iterator[tuple[Hashable, list[Scored]]]:
    """Score every item under every sampling, in the given order; none is left out.

    `drawn_from` is the sampling that drew the responses when these prompts are the ones they were drawn for (the base
    policy's own context), None otherwise. It alone takes tokens on the boundary of the nucleus for inside.
    `shared` are the ids that the prompts begin with (`chat.shared`): a matter of speed, and of the last digits. Give the
    same for a context, whatever the items.
    """
    items = list(items)
    fitting = [item for item in items if _fits(item, model)]
    shared = usable(model, shared) if fitting else ()
    longest = max((len(item.prompt_ids) + len(item.response_ids) for item in fitting), default=1)
    n_tokens = max(longest, len(shared))
    n_outputs = max((len(item.response_ids) for item in fitting), default=1)
    with Context(
        model,
        n_tokens=n_tokens,
        n_batch=min(n_tokens, BLOCK),
        n_outputs=min(n_outputs, BLOCK),
        n_seq=2 if shared else 1,
    ) as context:
        reader = Reader(context, shared, place=1)
        for item in items:
            if not _fits(item, model):
                yield item.key, [_unscored("too_long")] * len(samplings)
            elif not item.response_ids:
                yield item.key, [_unscored("empty")] * len(samplings)
            else:
                yield item.key, _scored(_forward(reader, item), item, samplings, drawn_from)


def _fits(item: Item, model: Model) -> bool:
    return len(item.prompt_ids) + len(item.response_ids) <= model.n_ctx


def _forward(reader: Reader, item: Item) -> Iterator[np.ndarray]:
    """Logits that predict the response's tokens, (., V) a block."""
    if not item.prompt_ids:
        raise ValueError(f"item {item.key!r} has an empty prompt, so nothing predicts its first token")
    tokens = [*item.prompt_ids, *item.response_ids[:-1]]  # nothing is predicted from the last token
    return reader.read(tokens, 0, len(item.response_ids))


def _scored(
    blocks: Iterable[np.ndarray], item: Item, samplings: Sequence[Sampling], drawn_from: Sampling | None
) -> list[Scored]:
    parts: list[list[tuple[np.ndarray, int]]] = [[] for _ in samplings]
    start = 0
    for logits in blocks:
        ids = item.response_ids[start : start + len(logits)]
        for part, sampling in zip(parts, samplings, strict=True):
            part.append(token_log_probs(logits, ids, sampling, is_sampled=sampling == drawn_from))
        start += len(logits)
    return [_joined(part) for part in parts]


def _joined(parts: list[tuple[np.ndarray, int]]) -> Scored:
    logprobs = np.concatenate([logprobs for logprobs, _ in parts])  # (t,) nats
    return Scored(logprobs, sum(n_boundary for _, n_boundary in parts), _status(logprobs))


def _status(logprobs: np.ndarray) -> str:
    if np.isnan(logprobs).any():
        return "not_finite"
    return "ok" if np.isfinite(logprobs).all() else "outside_support"


def _unscored(status: str) -> Scored:
    return Scored(np.empty(0), 0, status)
