"""Folds of prompts.

A fold belongs to a prompt, not to a row: repeated rows, fresh draws and filtered tables of a prompt share it, so no
model is judged on a prompt it was fitted to. Chosen prompts (the oracle slice) are dealt out in the order of a keyed
hash, which makes their folds equal in size up to one; the others go by the hash itself. The order of rows plays no
part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np


@dataclass(frozen=True, eq=False)
class Prompts:
    """The G distinct prompts of n rows: their names once, hashed once a seed."""

    names: np.ndarray  # (G,) sorted
    code: np.ndarray  # (n,) int, which prompt a row is of
    seed: int

    @classmethod
    def of(cls, prompt_id: np.ndarray, seed: int) -> Prompts:
        names, code = np.unique(prompt_id, return_inverse=True)
        return cls(names, code.reshape(-1), seed)

    @cached_property
    def keys(self) -> np.ndarray:
        """Sort keys (G,): the same in every table that a prompt appears in."""
        end = f"-{self.seed}"
        digests = (blake2b(f"{name}{end}".encode(), digest_size=8).digest() for name in self.names.tolist())
        return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)

    def deal(self, chosen: np.ndarray, folds: int, *, salt: int = 0) -> np.ndarray:
        """Fold of every row, (n,) int in 0 .. folds-1; balanced over prompts with a chosen row. Another salt, another deal."""
        keys = self.keys if not salt else self.keys * np.uint64(2 * salt + 1)
        fold = (keys >> np.uint64(32)) % np.uint64(folds)
        balanced = np.flatnonzero(np.bincount(self.code[chosen], minlength=len(self.names)))
        dealt_out = balanced[np.argsort(keys[balanced], kind="stable")]
        fold[dealt_out] = np.arange(len(dealt_out)) % folds
        return fold.astype(int)[self.code]


def clusters(prompt_id: np.ndarray) -> np.ndarray:
    """One code per prompt, 0 .. G-1, (n,) int."""
    return Prompts.of(prompt_id, 0).code


def deal(prompt_id: np.ndarray, chosen: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of every row, (n,) int in 0 .. folds-1; balanced over prompts with a chosen row."""
    return Prompts.of(prompt_id, seed).deal(chosen, folds)


def affordable(wanted: int, prompts: int) -> int:
    """Number of folds that `prompts` labelled prompts bear: at least two prompts a fold."""
    return min(wanted, max(2, prompts // 2))
