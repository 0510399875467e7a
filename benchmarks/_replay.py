"""The calls that our code makes of llama.cpp, recorded and made again with nothing in between.

What the same passes cost without any Python, copying of logits or arithmetic of ours is the yardstick of the scorer and
the generator. A recording holds every batch in full, so a replay is the same work in the same order.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from arena_cje.llama.library import library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from arena_cje.llama.model import Model

MEMORY = ("llama_memory_clear", "llama_memory_seq_rm", "llama_memory_seq_cp")


@dataclass(frozen=True)
class Batch:
    """One `llama_decode`: tokens, their positions and sequences, and whether each gets logits; each (n,)."""

    tokens: Sequence[int]
    positions: Sequence[int]
    sequences: Sequence[int]
    logit_mask: Sequence[int]


@dataclass
class Recording:
    """The context that was opened, and the calls made on it."""

    params: Any = None  # llama_context_params
    calls: list[tuple[str, Batch | tuple[Any, ...]]] = field(default_factory=list)  # function, arguments

    @property
    def n_tokens(self) -> int:
        """Tokens that went through the model."""
        return sum(len(batch.tokens) for batch in self.batches)

    @property
    def batches(self) -> list[Batch]:
        return [arguments for _, arguments in self.calls if isinstance(arguments, Batch)]


@contextlib.contextmanager
def recorded() -> Iterator[Recording]:
    """Record the calls made on one context inside the block."""
    llama = library()
    recording = Recording()

    def opened(model: int, params: Any) -> int:
        if recording.params is not None:
            raise RuntimeError("a second context was opened; a recording is of one")
        recording.params = params
        return open_context(model, params)

    def decoded(context: int, batch: Any) -> int:
        recording.calls.append(("llama_decode", _copied(batch)))
        return decode(context, batch)

    open_context, decode = llama.llama_init_from_model, llama.llama_decode
    wrapped = {name: _recorder(recording, name, getattr(llama, name)) for name in MEMORY}
    with mock.patch.multiple(llama, llama_init_from_model=opened, llama_decode=decoded, **wrapped):
        yield recording


class Replay:
    """A context like the recorded one, on which `run` repeats the recorded calls. A context manager."""

    def __init__(self, model: Model, recording: Recording):
        llama = library()
        self._context = llama.llama_init_from_model(model.pointer, recording.params)
        if not self._context:
            raise MemoryError("no memory for a second context like the recorded one")
        memory = llama.llama_get_memory(self._context)
        self._calls: list[Callable[[], Any]] = [lambda: llama.llama_memory_clear(memory, False)]
        for name, arguments in recording.calls:
            if isinstance(arguments, Batch):
                self._calls.append(_decoding(self._context, arguments))
            else:
                self._calls.append(functools.partial(getattr(llama, name), memory, *arguments))

    def run(self) -> None:
        """Make the calls, from empty caches."""
        for call in self._calls:
            call()

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        library().llama_free(self._context)


def prefill(tokens: Sequence[int]) -> Batch:
    """All of a text in one pass, without logits."""
    return Batch(tokens, range(len(tokens)), [0] * len(tokens), [0] * len(tokens))


def _recorder(recording: Recording, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(memory: int, *arguments: Any) -> Any:
        recording.calls.append((name, arguments))
        return function(memory, *arguments)

    return wrapper


def _copied(batch: Any) -> Batch:
    n = batch.n_tokens
    return Batch(batch.token[:n], batch.pos[:n], [batch.seq_id[i][0] for i in range(n)], batch.logits[:n])


def _decoding(context: int, batch: Batch) -> Callable[[], None]:
    """A call of llama_decode with a batch that is laid out beforehand."""
    llama = library()
    laid_out, arrays = _laid_out(batch)

    def decode(_arrays: Any = arrays) -> None:  # the closure keeps the arrays alive
        status = llama.llama_decode(context, laid_out)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status} in a replay")

    return decode


def _laid_out(batch: Batch) -> tuple[Any, tuple[np.ndarray, ...]]:
    """llama.cpp's form of a batch, and the arrays it points into."""
    llama = library()
    tokens, positions, sequences = (
        np.array(values, dtype=np.int32) for values in (batch.tokens, batch.positions, batch.sequences)
    )
    counts = np.ones_like(tokens)  # every token belongs to one sequence
    logit_mask = np.array(batch.logit_mask, dtype=np.int8)
    pointers = (sequences.ctypes.data + sequences.itemsize * np.arange(len(sequences))).astype(np.uintp)
    arrays = {
        "token": tokens,
        "pos": positions,
        "n_seq_id": counts,
        "seq_id": pointers,
        "logits": logit_mask,
    }
    types = dict(llama.llama_batch._fields_)
    laid_out = llama.llama_batch(
        n_tokens=len(tokens), **{name: array.ctypes.data_as(types[name]) for name, array in arrays.items()}
    )
    return laid_out, (*arrays.values(), sequences)
