"""Folds of prompts.

A fold belongs to a prompt, not to a row: repeated rows, fresh draws and filtered tables of a prompt share it, so no
model is judged on a prompt it was fitted to. Chosen prompts (the oracle slice) are dealt out in the order of a keyed
hash, which makes their folds equal in size up to one; the others go by the hash itself. The order of rows plays no
part.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np


def clusters(prompt_id: np.ndarray) -> np.ndarray:
    """One code per prompt, 0 .. G-1, (n,) int."""
    return np.unique(prompt_id, return_inverse=True)[1].reshape(-1)


def rank_key(prompt_id: str, seed: int) -> bytes:
    """Sort key of a prompt: the same in every table it appears in."""
    return blake2b(f"{prompt_id}-{seed}".encode(), digest_size=16).digest()


def deal(prompt_id: np.ndarray, chosen: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of every row, (n,) int in 0 .. folds-1; balanced over prompts with a chosen row."""
    names, code = np.unique(prompt_id, return_inverse=True)  # (G,), (n,)
    keys = [rank_key(str(name), seed) for name in names]
    fold = np.array([int.from_bytes(key, "big") % folds for key in keys], dtype=int)  # (G,)
    balanced = np.unique(code[chosen])  # prompts with a chosen row
    dealt_out = sorted(balanced, key=lambda prompt: (keys[prompt], str(names[prompt])))
    fold[dealt_out] = np.arange(len(dealt_out)) % folds
    return fold[code.reshape(-1)]


def affordable(wanted: int, prompts: int) -> int:
    """Number of folds that `prompts` labelled prompts bear: at least two prompts a fold."""
    return min(wanted, max(2, prompts // 2))
