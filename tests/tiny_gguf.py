"""A llama-architecture GGUF with random weights, written by hand: a real model file of about a megabyte.

Layout (GGUF version 3, little endian): magic, version, counts, key-value pairs, tensor descriptions, then the tensors,
each at a multiple of 32 bytes. Source: github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

ALIGNMENT = 32
WIDTH, HEADS, KV_HEADS, HIDDEN, LAYERS = 128, 2, 1, 256, 4
N_CTX_TRAIN = 1024
U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5  # value types
NORMAL, CONTROL = 1, 3  # token types

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|bos|>", "<|im_start|>", "<|im_end|>")
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ t", "i n", "e r", "a n")


def byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    stand_in = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [stand_in[byte] for byte in range(256)]


TOKENS = [*byte_characters(), *(merge.replace(" ", "") for merge in MERGES), *SPECIAL]
IM_END = TOKENS.index("<|im_end|>")
BOS = TOKENS.index("<|bos|>")


def write(
    path: Path, *, add_bos: bool = False, template: str | None = CHATML, seed: int = 0, spread: float = 3.0
) -> Path:
    """Write a model; `spread` is the scale of its logits, and the end-of-generation token is more likely than most."""
    tensors = _tensors(np.random.default_rng(seed), spread)
    pairs = _pairs(add_bos, template)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    head += b"".join(_string(key) + value for key, value in pairs.items())
    offset = 0
    for name, data in tensors.items():
        dims = data.shape[::-1]  # fastest first
        kind = 1 if data.dtype == np.float16 else 0
        head += _string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        offset += _padded(data.nbytes)
    body = b"".join(data.tobytes().ljust(_padded(data.nbytes), b"\0") for data in tensors.values())
    path.write_bytes(head.ljust(_padded(len(head)), b"\0") + body)
    return path


def _tensors(rng: np.random.Generator, spread: float) -> dict[str, np.ndarray]:
    def matrix(rows: int, columns: int) -> np.ndarray:
        return (rng.normal(size=(rows, columns)) / np.sqrt(columns)).astype(np.float16)

    ones = np.ones(WIDTH, dtype=np.float32)
    embedding = rng.normal(size=(len(TOKENS), WIDTH)).astype(np.float16)
    embedding[:, 0] = 4  # a constant direction, by which the output layer can favour a token everywhere
    output = matrix(len(TOKENS), WIDTH) * np.float16(spread)
    output[IM_END, 0] = 0.8
    head_width = WIDTH // HEADS
    tensors = {"token_embd.weight": embedding, "output_norm.weight": ones, "output.weight": output}
    for layer in range(LAYERS):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": ones,
            f"blk.{layer}.attn_q.weight": matrix(WIDTH, WIDTH),
            f"blk.{layer}.attn_k.weight": matrix(KV_HEADS * head_width, WIDTH),
            f"blk.{layer}.attn_v.weight": matrix(KV_HEADS * head_width, WIDTH),
            f"blk.{layer}.attn_output.weight": matrix(WIDTH, WIDTH),
            f"blk.{layer}.ffn_norm.weight": ones,
            f"blk.{layer}.ffn_gate.weight": matrix(HIDDEN, WIDTH),
            f"blk.{layer}.ffn_up.weight": matrix(HIDDEN, WIDTH),
            f"blk.{layer}.ffn_down.weight": matrix(WIDTH, HIDDEN),
        }
    return tensors


def _pairs(add_bos: bool, template: str | None) -> dict[str, bytes]:
    numbers = {
        "llama.context_length": N_CTX_TRAIN,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": HIDDEN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.vocab_size": len(TOKENS),
        "tokenizer.ggml.bos_token_id": BOS,
        "tokenizer.ggml.eos_token_id": IM_END,
    }
    types = [CONTROL if token in SPECIAL else NORMAL for token in TOKENS]
    pairs = {"general.architecture": _value("llama"), "general.name": _value("tiny")}
    pairs |= {key: struct.pack("<II", U32, number) for key, number in numbers.items()}
    pairs["llama.attention.layer_norm_rms_epsilon"] = struct.pack("<If", F32, 1e-5)
    pairs |= {"tokenizer.ggml.model": _value("gpt2"), "tokenizer.ggml.pre": _value("smollm")}
    pairs["tokenizer.ggml.tokens"] = _strings(TOKENS)
    pairs["tokenizer.ggml.merges"] = _strings(MERGES)
    pairs["tokenizer.ggml.token_type"] = struct.pack(f"<IIQ{len(types)}i", ARRAY, I32, len(types), *types)
    pairs["tokenizer.ggml.add_bos_token"] = struct.pack("<I?", BOOL, add_bos)
    return pairs if template is None else pairs | {"tokenizer.chat_template": _value(template)}


def _string(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _value(text: str) -> bytes:
    return struct.pack("<I", STRING) + _string(text)


def _strings(texts: list[str] | tuple[str, ...]) -> bytes:
    return struct.pack("<IIQ", ARRAY, STRING, len(texts)) + b"".join(map(_string, texts))


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
