"""GGUF files with random weights, written by hand: real model files of about a megabyte.

Two architectures with different mathematics and two kinds of vocabulary, which combine freely; `KINDS` are two
combinations that show all four.

Layout (GGUF version 3, little endian): magic, version, counts, key-value pairs, tensor descriptions, then the tensors,
each at a multiple of 32 bytes. Source: github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ALIGNMENT = 32
WIDTH, HEADS, HIDDEN, LAYERS = 128, 2, 256, 4
HEAD_WIDTH = WIDTH // HEADS
N_CTX_TRAIN = 1024
U16, U32, I32, F32, BOOL, STRING, ARRAY = 2, 4, 5, 6, 7, 8, 9  # value types
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # token types
F16 = 1  # file type: matrices in 16 bits

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BOS, END = "<|bos|>", "<|im_end|>"
SPECIAL = (BOS, "<|im_start|>", END)
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ t", "i n", "e r", "a n")  # Ġ is the space

KINDS = {
    "llama-sentencepiece-bos": {"architecture": "llama", "vocabulary": "sentencepiece", "add_bos": True},
    "gpt2-bytes": {"architecture": "gpt2", "vocabulary": "bytes", "add_bos": False},
}


@dataclass(frozen=True)
class Vocabulary:
    """Tokens with their types, and llama.cpp's name and metadata of this kind of tokenizer."""

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    name: str
    pairs: dict[str, bytes]  # keys without "tokenizer.ggml."


@dataclass(frozen=True)
class Architecture:
    """The tensors of a block (names without "blk.{layer}."), those that only this architecture has outside the
    blocks, and its hyperparameters (keys without its name)."""

    block: Callable[[Random], dict[str, np.ndarray]]
    outside: Callable[[Random], dict[str, np.ndarray]]
    pairs: dict[str, bytes]


class Random:
    """Random tensors, of a scale that keeps the scale of the activations."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def matrix(self, rows: int, columns: int) -> np.ndarray:
        return (self.rng.normal(size=(rows, columns)) / np.sqrt(columns)).astype(np.float16)

    def embedding(self, rows: int) -> np.ndarray:
        return self.rng.normal(size=(rows, WIDTH)).astype(np.float16)

    def bias(self, size: int) -> np.ndarray:
        return (0.3 * self.rng.normal(size=size)).astype(np.float32)


def write(
    path: Path,
    *,
    add_bos: bool = False,
    template: str | None = CHATML,
    seed: int = 0,
    spread: float = 3.0,
    architecture: str = "llama",
    vocabulary: str = "bytes",
) -> Path:
    """Write a model; `spread` is the scale of its logits, and the end-of-generation token is more likely than most."""
    path.write_bytes(_gguf(*_contents(add_bos, template, seed, spread, architecture, vocabulary)))
    return path


def write_parts(path: Path, n_parts: int) -> list[Path]:
    """Write the model that `write(path)` writes, split into parts beside `path`; returns them, the first first."""
    pairs, tensors = _contents()
    names = list(tensors)
    parts = [path.with_name(f"{path.stem}-{i + 1:05}-of-{n_parts:05}.gguf") for i in range(n_parts)]
    for i, part in enumerate(parts):
        own = {name: tensors[name] for name in names[i::n_parts]}
        split = {"no": _short(i), "count": _short(n_parts), "tensors.count": _whole(len(tensors))}
        head = {f"split.{key}": value for key, value in split.items()}
        part.write_bytes(_gguf((pairs if i == 0 else {}) | head, own))
    return parts


def _contents(
    add_bos: bool = False,
    template: str | None = CHATML,
    seed: int = 0,
    spread: float = 3.0,
    architecture: str = "llama",
    vocabulary: str = "bytes",
) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """Key-value pairs and tensors of a model."""
    tensors = _tensors(Random(seed), ARCHITECTURES[architecture], VOCABULARIES[vocabulary], spread)
    pairs = _model_pairs(architecture) | _tokenizer_pairs(VOCABULARIES[vocabulary], add_bos)
    if template is not None:
        pairs["tokenizer.chat_template"] = _text(template)
    return pairs, tensors


def _gguf(pairs: dict[str, bytes], tensors: dict[str, np.ndarray]) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    head += b"".join(_string(key) + value for key, value in pairs.items())
    offset = 0
    for name, data in tensors.items():
        dims = data.shape[::-1]  # fastest first
        kind = 1 if data.dtype == np.float16 else 0
        head += _string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        offset += _padded(data.nbytes)
    body = b"".join(data.tobytes().ljust(_padded(data.nbytes), b"\0") for data in tensors.values())
    return head.ljust(_padded(len(head)), b"\0") + body


def _tensors(
    random: Random, architecture: Architecture, vocabulary: Vocabulary, spread: float
) -> dict[str, np.ndarray]:
    n_vocab = len(vocabulary.tokens)
    embedding = random.embedding(n_vocab)
    embedding[:, 0] = 4  # a constant direction, by which the output layer can favour a token everywhere
    output = random.matrix(n_vocab, WIDTH) * np.float16(spread)
    output[vocabulary.tokens.index(END), 0] = 0.8
    tensors = {"token_embd.weight": embedding, "output_norm.weight": _ones(), "output.weight": output}
    for layer in range(LAYERS):
        tensors |= {f"blk.{layer}.{name}": data for name, data in architecture.block(random).items()}
    return tensors | architecture.outside(random)


def _llama_block(random: Random) -> dict[str, np.ndarray]:
    """RMS norms, rotary positions, two query heads to one key head, a gated feed-forward layer, no biases."""
    return {
        "attn_norm.weight": _ones(),
        "attn_q.weight": random.matrix(WIDTH, WIDTH),
        "attn_k.weight": random.matrix(HEAD_WIDTH, WIDTH),
        "attn_v.weight": random.matrix(HEAD_WIDTH, WIDTH),
        "attn_output.weight": random.matrix(WIDTH, WIDTH),
        "ffn_norm.weight": _ones(),
        "ffn_gate.weight": random.matrix(HIDDEN, WIDTH),
        "ffn_up.weight": random.matrix(HIDDEN, WIDTH),
        "ffn_down.weight": random.matrix(WIDTH, HIDDEN),
    }


def _gpt2_block(random: Random) -> dict[str, np.ndarray]:
    """Layer norms, query, key and value in one matrix, a key head a query head, GELU, biases everywhere."""
    return {
        "attn_norm.weight": _ones(),
        "attn_norm.bias": random.bias(WIDTH),
        "attn_qkv.weight": random.matrix(3 * WIDTH, WIDTH),
        "attn_qkv.bias": random.bias(3 * WIDTH),
        "attn_output.weight": random.matrix(WIDTH, WIDTH),
        "attn_output.bias": random.bias(WIDTH),
        "ffn_norm.weight": _ones(),
        "ffn_norm.bias": random.bias(WIDTH),
        "ffn_up.weight": random.matrix(HIDDEN, WIDTH),
        "ffn_up.bias": random.bias(HIDDEN),
        "ffn_down.weight": random.matrix(WIDTH, HIDDEN),
        "ffn_down.bias": random.bias(WIDTH),
    }


def _gpt2_outside(random: Random) -> dict[str, np.ndarray]:
    return {"position_embd.weight": random.embedding(N_CTX_TRAIN), "output_norm.bias": random.bias(WIDTH)}


def _model_pairs(architecture: str) -> dict[str, bytes]:
    pairs = {
        "context_length": _number(N_CTX_TRAIN),
        "embedding_length": _number(WIDTH),
        "block_count": _number(LAYERS),
        "feed_forward_length": _number(HIDDEN),
        "attention.head_count": _number(HEADS),
        **ARCHITECTURES[architecture].pairs,
    }
    named = {
        "general.architecture": _text(architecture),
        "general.name": _text("tiny"),
        "general.file_type": _number(F16),
    }
    return named | {f"{architecture}.{key}": value for key, value in pairs.items()}


def _tokenizer_pairs(vocabulary: Vocabulary, add_bos: bool) -> dict[str, bytes]:
    pairs = {
        "model": _text(vocabulary.name),
        "tokens": _texts(vocabulary.tokens),
        "token_type": _numbers(I32, "i", vocabulary.types),
        "bos_token_id": _number(vocabulary.tokens.index(BOS)),
        "eos_token_id": _number(vocabulary.tokens.index(END)),
        "add_bos_token": _flag(add_bos),
        **vocabulary.pairs,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in pairs.items()}


def _byte_level() -> Vocabulary:
    """GPT-2's kind: every byte is a character, and the merges are the pairs that join."""
    tokens = (*_byte_characters(), *(merge.replace(" ", "") for merge in MERGES), *SPECIAL)
    types = tuple(CONTROL if token in SPECIAL else NORMAL for token in tokens)
    return Vocabulary(tokens, types, "gpt2", {"pre": _text("smollm"), "merges": _texts(MERGES)})


def _byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    stand_in = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [stand_in[byte] for byte in range(256)]


def _sentencepiece(*more: str) -> Vocabulary:
    """Llama 2's kind: a space before every text, pieces joined by score, bytes only for what is no piece."""
    merged = [merge.replace(" ", "").replace("Ġ", "▁") for merge in MERGES]
    pieces = [*merged, *more, "▁", *map(chr, range(ord("!"), ord("~") + 1))]  # the best first
    tokens = ("<unk>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces)
    types = (UNKNOWN, *[CONTROL] * len(SPECIAL), *[BYTE] * 256, *[NORMAL] * len(pieces))
    scores = [0.0] * (len(tokens) - len(pieces)) + [-float(rank) for rank in range(len(pieces))]
    pairs = {
        "scores": _numbers(F32, "f", scores),
        "unknown_token_id": _number(tokens.index("<unk>")),
        "add_space_prefix": _flag(True),
    }
    return Vocabulary(tokens, types, "llama", pairs)


def _ones() -> np.ndarray:
    return np.ones(WIDTH, dtype=np.float32)


def _number(number: int) -> bytes:
    return struct.pack("<II", U32, number)


def _short(number: int) -> bytes:
    return struct.pack("<IH", U16, number)


def _whole(number: int) -> bytes:
    return struct.pack("<Ii", I32, number)


def _real(number: float) -> bytes:
    return struct.pack("<If", F32, number)


def _flag(flag: bool) -> bytes:
    return struct.pack("<I?", BOOL, flag)


def _string(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _text(text: str) -> bytes:
    return struct.pack("<I", STRING) + _string(text)


def _texts(texts: tuple[str, ...]) -> bytes:
    return struct.pack("<IIQ", ARRAY, STRING, len(texts)) + b"".join(map(_string, texts))


def _numbers(kind: int, letter: str, numbers: tuple[int, ...] | list[float]) -> bytes:
    return struct.pack(f"<IIQ{len(numbers)}{letter}", ARRAY, kind, len(numbers), *numbers)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


VOCABULARIES = {
    "bytes": _byte_level(),
    "sentencepiece": _sentencepiece(),
    # As a vocabulary made from web pages may hold "</s": with it, plain characters join up to a control token.
    "sentencepiece-joining": _sentencepiece(*(END[:n] for n in range(2, len(END)))),
}
ARCHITECTURES = {
    "llama": Architecture(
        _llama_block,
        lambda _: {},
        {
            "attention.head_count_kv": _number(1),
            "rope.dimension_count": _number(HEAD_WIDTH),
            "attention.layer_norm_rms_epsilon": _real(1e-5),
        },
    ),
    "gpt2": Architecture(_gpt2_block, _gpt2_outside, {"attention.layer_norm_epsilon": _real(1e-5)}),
}
TOKENS = VOCABULARIES["bytes"].tokens
