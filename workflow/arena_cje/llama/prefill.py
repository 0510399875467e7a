"""Reading tokens into a context, many a pass: what they share with others once, the rest in blocks.

    tokens  0 ........ start ........ cut ........ end
            copied from the           read in blocks of at most BLOCK tokens
            shared prefix

Blocks bound the memory, whatever the length of a text; the prefix is the common beginning of all prompts of a context. Where
a text is cut depends on it and the prefix alone, so that its logits have the same bits in any order and beside any other texts.

Where fewer rows of logits are requested than llama.cpp's usual matrix kernels take (`model.LEAST_ROWS`), as many are computed
and the requested ones returned. So the rows have the bits of one pass over the same tokens with all its rows, but for
quantised weights, some of whose kernels take rows in groups. A text of fewer tokens has fewer rows in any pass.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from arena_cje.llama.model import LEAST_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from arena_cje.llama.model import Context, Model

BLOCK = 512  # tokens; larger blocks are no faster on a CPU, and a row of logits takes up to a megabyte
# Tokens; from here on llama.cpp's attention on CPUs takes its fast kernel (GGML_FA_TILE_Q in ggml-cpu/ops.cpp), which
# adds up in another order than the slow one.
LEAST = 64
WORTH = 8  # tokens; a shorter prefix saves less than its copy takes


def usable(model: Model, shared: Sequence[int]) -> tuple[int, ...]:
    """The prefix, or nothing where it is not worth sharing or the model's state cannot be cut back to it."""
    return tuple(shared) if len(shared) >= WORTH and model.can_rewind else ()


def n_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many token ids two texts begin with alike."""
    return sum(1 for _ in itertools.takewhile(bool, (a == b for a, b in zip(one, other, strict=False))))


def n_from_prefix(n_shared: int, n_tokens: int, n_wanted: int) -> int:
    """How many leading tokens of a text to take from the prefix instead of reading them.

    The first `n_shared` of its `n_tokens` are the prefix's; the last `n_wanted` must be read. It takes all it may,
    or so many fewer that the rest is long enough for the fast kernel, whichever costs less on a CPU. The rest has two
    tokens at least: the attention of a single one is shared out among the threads (`use_split_kv_path` in
    ggml-cpu/ops.cpp), so that its bits would depend on their number.
    """
    most = max(0, min(n_shared, n_tokens - max(n_wanted, 2)))
    return min((most, min(most, max(0, n_tokens - LEAST))), key=lambda start: _cost(start, n_tokens - start))


def _cost(start: int, n_read: int) -> float:
    """Of reading `n_read` tokens after `start` others, in tokens of a long block: a fit to times of the default model."""
    return n_read if n_read >= LEAST else 9 + n_read * (1 + start / 150)


class Reader:
    """Reads texts into sequences of a context. `shared` is read at once, into the sequence `place`."""

    def __init__(self, context: Context, shared: Sequence[int] = (), place: int = 0):
        self._context = context
        self._shared = shared
        self._place = place
        for start, end in _blocks(0, len(shared)):
            context.decode(shared[start:end], range(start, end), place, 0)

    def read(self, tokens: Sequence[int], sequence: int, n_wanted: int) -> Iterator[np.ndarray]:
        """Logits of the last `n_wanted` tokens, (., V) a block, each valid until the next."""
        start = n_from_prefix(n_common(self._shared, tokens), len(tokens), n_wanted)
        self._context.forget(sequence)
        if start > 0:
            self._context.copy(self._place, sequence)
            self._context.forget(sequence, since=start)
        for begin, end in _blocks(start, len(tokens)):
            n_rows = max(0, min(end - begin, end - (len(tokens) - n_wanted)))
            n_computed = min(end - begin, max(n_rows, LEAST_ROWS)) if n_rows > 0 else 0
            logits = self._context.decode(tokens[begin:end], range(begin, end), sequence, n_computed)
            if n_rows > 0:
                yield logits[n_computed - n_rows :]


def _blocks(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut [start, end) into blocks, the last one of LEAST tokens or more where there are two."""
    while end - start > BLOCK:
        cut = min(start + BLOCK, end - LEAST)
        yield start, cut
        start = cut
    if start < end:
        yield start, end
