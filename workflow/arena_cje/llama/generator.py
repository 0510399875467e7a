"""Generation: many responses at once, each as if it were alone.

Prompts are read one by one (see `prefill`); then all responses grow by one token a pass. Rows that are not used fill
every such pass up (`Model.n_rows`), since llama.cpp computes a few rows with other kernels than many. So a response
depends on its prompt, its sampling and its random stream, bit for bit, and not on its neighbours, on the number of slots
or on where a run was resumed. (On CPUs; GPUs choose kernels by the number of rows in ways of their own.)

Tokens are drawn by `distribution.sample`, with none of the usual extras (top-k, min-p, repetition penalties): the text
must come from exactly the distribution that is scored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.llama.distribution import Sampling, sample
from arena_cje.llama.model import CACHE_STEP, Context, Model, round_up
from arena_cje.llama.prefill import BLOCK, Reader, usable

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

# Raise this number when any drawn response would change: the passes above, the distribution, the use of the stream.
VERSION = 2

CACHE_TOKENS = 8192
MAX_SLOTS = 248  # of llama.cpp's 256 sequences (LLAMA_MAX_SEQ) one holds the shared prefix; a multiple of GROUP


@dataclass(frozen=True)
class Request:
    """A response to draw."""

    key: Hashable
    prompt_ids: Sequence[int]
    rng: np.random.Generator  # gives one uniform number a token


@dataclass(frozen=True)
class Response:
    """A drawn response.

    `finish_reason` is `stop` (the end-of-generation token was drawn, and is the last id) or `length` (cut at
    max_tokens); None with status `too_long`, where prompt and max_tokens exceed the context and nothing was drawn.
    """

    key: Hashable
    token_ids: tuple[int, ...]
    finish_reason: str | None
    status: str


@dataclass
class _Draft:
    """A response that is being drawn."""

    request: Request
    token_ids: list[int] = field(default_factory=list)

    @property
    def position(self) -> int:
        """Position of the newest token in its sequence."""
        return len(self.request.prompt_ids) + len(self.token_ids) - 1


def generate(
    model: Model,
    requests: Iterable[Request],
    sampling: Sampling,
    max_tokens: int,
    n_slots: int = 32,
    *,
    cache_tokens: int = CACHE_TOKENS,
    shared: Sequence[int] = (),
) -> Iterator[Response]:
    """Draw a response of up to `max_tokens` tokens for every request; yielded as each is finished, none left out.

    Up to `n_slots` grow side by side, fewer (but as many as a pass needs rows, two or eight) where their caches would hold
    more than `cache_tokens` together: these two bound the memory and the speed, and change no response. `shared` are the ids
    that the prompts begin with (`chat.shared`): a matter of speed, and of the last digits. Give the same for a policy,
    whatever the requests.
    """
    if max_tokens < 1 or not 1 <= n_slots <= MAX_SLOTS:
        raise ValueError(f"max_tokens must be >= 1 and n_slots in 1..{MAX_SLOTS}, got {max_tokens} and {n_slots}")
    waiting = []
    for request in requests:
        if len(request.prompt_ids) + max_tokens > model.n_ctx:
            yield Response(request.key, (), None, "too_long")
        else:
            waiting.append(request)
    if not waiting:
        return
    shared = usable(model, shared)
    longest = max(len(request.prompt_ids) for request in waiting)
    n_tokens = max(longest + max_tokens, len(shared))
    n_caches = cache_tokens // round_up(n_tokens, CACHE_STEP) - (1 if shared else 0)
    n_slots = min(n_slots, len(waiting), max(model.n_rows(1), n_caches // model.row_step * model.row_step))
    n_seq = model.n_rows(n_slots)
    with Context(
        model,
        n_tokens=n_tokens,
        n_batch=min(n_tokens, BLOCK),
        n_outputs=n_seq,
        n_seq=n_seq + 1 if shared else n_seq,
    ) as context:
        reader = Reader(context, shared, place=n_seq)
        yield from _run(model, context, reader, waiting, sampling, max_tokens, n_slots)


def text_of(model: Model, token_ids: Sequence[int], *, control: bool = False) -> str:
    """The text of a response, without the end-of-generation token; other control tokens are written out with `control`."""
    ended = len(token_ids) > 0 and token_ids[-1] in model.eog_ids
    return model.detokenize(token_ids[:-1] if ended else token_ids, control=control)


def _run(
    model: Model,
    context: Context,
    reader: Reader,
    waiting: list[Request],
    sampling: Sampling,
    max_tokens: int,
    n_slots: int,
) -> Iterator[Response]:
    queue = iter(waiting)
    drafts: list[_Draft] = []  # slot i of the context holds drafts[i]
    while True:
        while len(drafts) < n_slots and (request := next(queue, None)) is not None:
            drafts.append(_begin(reader, len(drafts), request, sampling))
            yield from _finished(model, context, drafts, max_tokens, since=len(drafts) - 1)
        if not drafts:
            return
        _step(context, drafts, model.n_rows(len(drafts)), sampling)
        yield from _finished(model, context, drafts, max_tokens, since=0)


def _begin(reader: Reader, slot: int, request: Request, sampling: Sampling) -> _Draft:
    """Read the prompt in passes of its own and draw the first token."""
    if not request.prompt_ids:
        raise ValueError(f"request {request.key!r} has an empty prompt, so nothing predicts its first token")
    draft = _Draft(request)
    (logits,) = reader.read(request.prompt_ids, slot, 1)
    _draw(logits, [draft], sampling)
    return draft


def _step(context: Context, drafts: list[_Draft], n_rows: int, sampling: Sampling) -> None:
    """Draw one more token for every draft, in a pass of `n_rows`."""
    tokens = [draft.token_ids[-1] for draft in drafts]
    positions = [draft.position for draft in drafts]
    for unused in range(len(drafts), n_rows):  # rows whose logits are not used
        context.forget(unused)
        tokens.append(tokens[0])
        positions.append(0)
    logits = context.decode(tokens, positions, range(n_rows), n_rows)
    _draw(logits[: len(drafts)], drafts, sampling)


def _draw(logits: np.ndarray, drafts: list[_Draft], sampling: Sampling) -> None:
    uniforms = np.array([draft.request.rng.random() for draft in drafts])
    for draft, token in zip(drafts, sample(logits, sampling, uniforms).tolist(), strict=True):
        draft.token_ids.append(token)


def _finished(
    model: Model, context: Context, drafts: list[_Draft], max_tokens: int, *, since: int
) -> Iterator[Response]:
    """Take the finished drafts out, the last slot moving into each gap.

    Gaps must close: llama.cpp cuts a pass at every missing sequence number, and computes a piece of one row otherwise.
    """
    for slot in reversed(range(since, len(drafts))):
        draft = drafts[slot]
        stopped = draft.token_ids[-1] in model.eog_ids
        if not stopped and len(draft.token_ids) < max_tokens:
            continue
        context.forget(slot)
        moved = drafts.pop()
        if slot < len(drafts):
            context.move(len(drafts), slot)
            drafts[slot] = moved
        yield Response(draft.request.key, tuple(draft.token_ids), "stop" if stopped else "length", "ok")
