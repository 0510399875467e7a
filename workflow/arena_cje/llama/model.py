"""A GGUF model opened through llama.cpp's C interface: tokenizer, vocabulary, contexts.

The C interface rather than the high-level class, because exact log probabilities need control over which tokens share a
forward pass: in floating point a sum depends on how it is cut, so the same tokens cut otherwise give other last digits.
Fixed here, as results depend on them: flash attention `auto`, key and value caches in 16 bits, one physical batch per
decode, and one cache a sequence ("streams"), so that a sequence's keys lie in its own order whatever its neighbours do.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.errors import UserError
from arena_cje.llama.gguf import check_magic
from arena_cje.llama.library import clear_errors, last_error, library

if TYPE_CHECKING:
    from collections.abc import Sequence

CACHE_STEP = 256  # tokens; llama.cpp pads caches to multiples of it
# Rows of a matrix product. llama.cpp computes few rows by another kernel, which adds up in another order: one on x86, up to
# seven on 64-bit ARM (`n < 2`, `n < 8` in ggml-cpu/llamafile/sgemm.cpp).
LEAST_ROWS = 2 if platform.machine().lower() in ("x86_64", "amd64") else 8
# Most quantised weights have a kernel from 8 rows on (`ggml_tiled_min_batch` in ggml-cpu/tiled/tiled.cpp), or one for groups
# of 4 rows and another for the rest (ggml-cpu/repack.cpp). A file's type is that of most of its weights only, so that of
# the quantised ones Q8_0 alone, whose files hold no other kind, is known to have neither.
GROUP = 8  # rows
LONG_TEXT = 1 << 16  # bytes, from which on it is worth a look whether a text can fit
UNGROUPED = ("LLAMA_FTYPE_ALL_F32", "LLAMA_FTYPE_MOSTLY_F16", "LLAMA_FTYPE_MOSTLY_BF16", "LLAMA_FTYPE_MOSTLY_Q8_0")


class Model:
    """An open model. Use `open_model` as a context manager."""

    def __init__(self, path: Path, pointer: int, *, n_ctx: int, n_threads: int):
        llama = library()
        self.path = path
        self.n_ctx = n_ctx  # tokens, the most that prompt and response may have together
        self.n_threads = n_threads
        self.pointer = pointer
        self.contexts: set[Context] = set()
        # A recurrent state holds all it has read in one sum and cannot go back to an earlier token.
        self.can_rewind = not (llama.llama_model_is_recurrent(pointer) or llama.llama_model_is_hybrid(pointer))
        ungrouped = llama.llama_model_ftype(pointer) in [getattr(llama, name) for name in UNGROUPED]
        self.row_step = 1 if ungrouped and LEAST_ROWS < GROUP else GROUP  # rows, of which a pass must have a multiple
        self._vocab = llama.llama_model_get_vocab(pointer)
        self.n_vocab = llama.llama_vocab_n_tokens(self._vocab)
        self.eog_ids = frozenset(i for i in range(self.n_vocab) if llama.llama_vocab_is_eog(self._vocab, i))
        self.add_bos = bool(llama.llama_vocab_get_add_bos(self._vocab))
        self.bos_id = llama.llama_vocab_bos(self._vocab)  # -1 where the vocabulary has none
        self.bos_text = self._piece(self.bos_id)
        eos_id, eot_id = llama.llama_vocab_eos(self._vocab), llama.llama_vocab_eot(self._vocab)
        self.eos_text = self._piece(eos_id)
        # The end of a turn by the vocabulary alone; `chat.end_of_turn` looks in the template first.
        self.default_end = eot_id if eot_id >= 0 else eos_id
        template = llama.llama_model_chat_template(pointer, None)
        self.chat_template = None if template is None else template.decode("utf-8", errors="replace")

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the contexts that are still open, as when a loop over results was left early, and then the weights."""
        for context in list(self.contexts):
            context.close()
        if self.pointer is not None:
            library().llama_model_free(self.pointer)
            self.pointer = None

    def n_rows(self, n: int) -> int:
        """How many rows a pass with `n` needs so that each has the bits that it has beside any others."""
        return max(LEAST_ROWS, round_up(n, self.row_step))

    @property
    def tokenizer_sha256(self) -> str:
        """Hash of the vocabulary: models that share it share token ids."""
        pieces = [self._piece(token) for token in range(self.n_vocab)]
        vocabulary = [pieces, sorted(self.eog_ids), self.default_end]
        return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()

    def tokenize(self, text: str, special: bool = False) -> tuple[int, ...]:
        """Token ids of `text`, without BOS; only with `special` does a written-out control token become itself.

        A text that is longer than a context can hold is cut where that is certain: its time may grow with the square of its
        length. It still has more tokens than fit.
        """
        raw = text.encode("utf-8", errors="replace")  # lone surrogates have no UTF-8
        if len(raw) > LONG_TEXT:
            beginning = raw[: (self.n_ctx + 1) * self._longest_piece].decode("utf-8", errors="ignore").encode()
            tokens = self._token_ids(beginning, special)
            if len(tokens) > self.n_ctx:
                return tokens
        return self._token_ids(raw, special)

    def _token_ids(self, raw: bytes, special: bool) -> tuple[int, ...]:
        ids = np.empty(len(raw) + 8, dtype=np.int32)  # no tokenizer makes more tokens than bytes and a space prefix
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = library().llama_tokenize(self._vocab, raw, len(raw), pointer, len(ids), False, special)
        if count < 0:
            raise RuntimeError(f"llama_tokenize returned {count} for a text of {len(raw)} bytes")
        tokens = tuple(ids[:count].tolist())
        return tokens if special or self.control_ids.isdisjoint(tokens) else self._spelt_out(tokens)

    @functools.cached_property
    def _longest_piece(self) -> int:
        """Bytes of the longest token, the most that one token of a text can have."""
        return max(len(self._piece(token).encode()) for token in range(self.n_vocab))

    def _spelt_out(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Control tokens as bytes: a SentencePiece vocabulary joins pieces of text up to them, whatever its options."""
        return tuple(
            part
            for token in tokens
            for part in (
                [self._byte_ids[b] for b in self._piece(token).encode()] if token in self.control_ids else [token]
            )
        )

    @functools.cached_property
    def control_ids(self) -> frozenset[int]:
        """Tokens that no text may become."""
        return frozenset(self._having(library().LLAMA_TOKEN_ATTR_CONTROL))

    @functools.cached_property
    def control_texts(self) -> re.Pattern[str]:
        """Matches what becomes one token with `special`, as its one group."""
        ids = self._having(library().LLAMA_TOKEN_ATTR_CONTROL | library().LLAMA_TOKEN_ATTR_UNKNOWN)
        texts = sorted({self._piece(token) for token in ids} - {""}, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, texts)) or '(?!)'})")

    @functools.cached_property
    def _byte_ids(self) -> dict[int, int]:
        """The token of each byte, in a vocabulary that has such."""
        texts = {
            token: library().llama_vocab_get_text(self._vocab, token)
            for token in self._having(library().LLAMA_TOKEN_ATTR_BYTE)
        }
        return {int(text[3:5], 16): token for token, text in texts.items()}

    def _having(self, attributes: int) -> list[int]:
        attribute_of = library().llama_vocab_get_attr
        return [token for token in range(self.n_vocab) if attribute_of(self._vocab, token) & attributes]

    def detokenize(self, ids: Sequence[int], *, control: bool = False) -> str:
        """The text of token ids; control tokens are left out, or written out with `control`.

        Broken UTF-8 becomes the replacement character.
        """
        tokens = np.asarray(ids, dtype=np.int32)
        pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        size = 16 * len(tokens) + 16  # bytes, a first guess
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = library().llama_detokenize(self._vocab, pointer, len(tokens), buffer, size, False, control)
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", errors="replace")
            size = -count

    def _piece(self, token: int) -> str:
        """The text of one token, control tokens written out; empty for -1."""
        if token < 0:
            return ""
        size = 256  # bytes, enough for nearly all tokens
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = library().llama_token_to_piece(self._vocab, token, buffer, size, 0, True)
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", errors="replace")
            size = -count


def open_model(path: str | Path, n_ctx: int = 2048, n_gpu_layers: int = 0, n_threads: int = 1) -> Model:
    """Open a GGUF file, memory-mapped; `n_gpu_layers` below 0 puts all layers on the accelerator, if there is one."""
    path = Path(path)
    if n_ctx < 1 or n_threads < 1:
        raise UserError(f"model {path.name}: n_ctx and n_threads must be at least 1, got {n_ctx} and {n_threads}")
    check_magic(path)
    llama = library()
    llama.llama_backend_init()
    params = llama.llama_model_default_params()
    params.n_gpu_layers = n_gpu_layers
    params.load_mode = llama.LLAMA_LOAD_MODE_MMAP
    # llama.cpp's matrix extension for recent Intel processors crashes on quantised weights (its issue 20824, unresolved in
    # the pinned version); without the extra buffers the usual kernels are used.
    params.use_extra_bufts = b"AMX_INT8 = 1" not in llama.llama_print_system_info()
    clear_errors()
    pointer = llama.llama_model_load_from_file(os.fsencode(path), params)
    if not pointer:
        raise UserError(f"model file {path} cannot be loaded: {last_error()}; fetch it again or use another model")
    trained = llama.llama_model_n_ctx_train(pointer)
    if llama.llama_model_has_encoder(pointer) or not llama.llama_model_has_decoder(pointer):
        reason = "it is not a decoder-only language model"
    elif n_ctx > trained:
        reason = f"n_ctx is {n_ctx}, but the model was trained on contexts of at most {trained} tokens; lower n_ctx"
    else:
        return Model(path, pointer, n_ctx=n_ctx, n_threads=n_threads)
    llama.llama_model_free(pointer)
    raise UserError(f"model file {path} cannot be used: {reason}")


class Context:
    """Caches for `n_seq` sequences of up to `n_tokens` tokens, and the buffers of one batch. A context manager.

    `n_batch` is the most tokens in one decode and `n_outputs` the most rows of logits (LEAST_ROWS are always possible);
    memory follows all four.
    """

    def __init__(self, model: Model, *, n_tokens: int, n_batch: int, n_outputs: int, n_seq: int = 1):
        llama = library()
        params = llama.llama_context_default_params()
        params.n_ctx = round_up(n_tokens, CACHE_STEP) * n_seq
        params.n_batch = params.n_ubatch = max(n_batch, n_seq)
        params.n_seq_max = n_seq
        params.n_outputs_max = max(n_outputs, n_seq, LEAST_ROWS)  # llama.cpp aborts on fewer than sequences
        params.n_outputs_max_per_seq = 0  # no limit of its own
        params.n_threads = params.n_threads_batch = model.n_threads
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.type_k = params.type_v = llama.GGML_TYPE_F16
        params.kv_unified = False
        clear_errors()
        self._pointer = llama.llama_init_from_model(model.pointer, params)
        if not self._pointer:
            raise UserError(
                f"model {model.path.name}: no memory for {n_seq} caches of {n_tokens} tokens ({last_error()}); "
                "lower n_ctx, max_tokens or the number of slots"
            )
        self._model = model
        model.contexts.add(self)
        self._allocate_batch(max(n_batch, n_seq), n_seq)

    def _allocate_batch(self, size: int, n_seq: int) -> None:
        llama = library()
        self._tokens = np.empty(size, dtype=np.int32)
        self._positions = np.empty(size, dtype=np.int32)
        self._logit_mask = np.empty(size, dtype=np.int8)
        self._counts = np.ones(size, dtype=np.int32)  # every token belongs to one sequence
        self._sequence_ids = np.arange(n_seq, dtype=np.int32)
        self._sequence_pointers = np.empty(size, dtype=np.uintp)
        integers, pointers = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))
        self._batch = llama.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(integers),
            pos=self._positions.ctypes.data_as(integers),
            n_seq_id=self._counts.ctypes.data_as(integers),
            seq_id=self._sequence_pointers.ctypes.data_as(pointers),
            logits=self._logit_mask.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the caches and buffers."""
        if self._pointer is not None:
            library().llama_free(self._pointer)
            self._pointer = None
            self._model.contexts.discard(self)

    def decode(
        self,
        tokens: Sequence[int] | np.ndarray,
        positions: Sequence[int] | np.ndarray | range,
        sequences: int | Sequence[int] | np.ndarray,
        n_wanted: int,
    ) -> np.ndarray:
        """One forward pass; logits of its last `n_wanted` tokens, (n_wanted, V) float32, valid until the next pass.

        The array is a view of llama.cpp's own buffer: copy what must outlive the next pass.
        """
        pointer = self._open()
        n = len(tokens)
        if n > len(self._tokens):  # llama.cpp would abort the process
            raise ValueError(f"a batch of {n} tokens does not fit the context's {len(self._tokens)}")
        self._tokens[:n] = tokens
        self._positions[:n] = positions
        self._sequence_pointers[:n] = self._sequence_ids.ctypes.data + 4 * np.asarray(sequences)
        self._logit_mask[: n - n_wanted] = 0
        self._logit_mask[n - n_wanted : n] = 1
        self._batch.n_tokens = n
        clear_errors()
        status = library().llama_decode(pointer, self._batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status} for {n} tokens: {last_error()}")
        if n_wanted == 0:
            return np.empty((0, self._model.n_vocab), dtype=np.float32)
        return np.ctypeslib.as_array(library().llama_get_logits(pointer), shape=(n_wanted, self._model.n_vocab))

    def forget(self, sequence: int, *, since: int = 0) -> None:
        """Forget a sequence, or what it has from position `since` on."""
        if not library().llama_memory_seq_rm(self._memory(), sequence, since, -1):
            raise RuntimeError(f"model {self._model.path.name} cannot forget part of a sequence")

    def copy(self, source: int, target: int) -> None:
        """Copy a sequence into the (forgotten) place of another."""
        library().llama_memory_seq_cp(self._memory(), source, target, -1, -1)

    def move(self, source: int, target: int) -> None:
        """Move a sequence into the (forgotten) place of another."""
        self.copy(source, target)
        self.forget(source)

    def _memory(self) -> int:
        return library().llama_get_memory(self._open())

    def _open(self) -> int:
        """The library's pointer; it would crash on one that was freed."""
        if self._pointer is None:
            raise RuntimeError("this context is closed, or its model is")
        return self._pointer


def round_up(n: int, step: int) -> int:
    """The least multiple of `step` that is at least `n`."""
    return -(-n // step) * step
