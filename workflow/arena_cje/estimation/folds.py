"""Folds of prompts.

A fold belongs to a prompt, not to a row: repeated rows, fresh draws and filtered tables of a prompt share it, so no
model is evaluated on a prompt that it was fitted to. Folds are balanced over a subset of the prompts (the oracle slice),
whose folds are assigned in turn, in the order of a keyed hash, and are equal in size up to one; the fold of any other
prompt is its hash modulo the number of folds. The order of the rows makes no difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np


@dataclass(frozen=True, eq=False)
class Prompts:
    """The G distinct prompts of n rows, with the hashes that order them."""

    names: np.ndarray  # (G,) sorted
    code: np.ndarray  # (n,) int, index of each row's prompt in `names`
    seed: int

    @classmethod
    def of(cls, prompt_id: np.ndarray, seed: int) -> Prompts:
        """The distinct prompts of the ids of rows (n,)."""
        names, code = np.unique(prompt_id, return_inverse=True)
        return cls(names, code.reshape(-1), seed)

    @cached_property
    def keys(self) -> np.ndarray:
        """Sort keys (G,) uint64, hashes of prompt id and seed: the same in every table that a prompt appears in."""
        suffix = f"-{self.seed}"
        digests = (blake2b(f"{name}{suffix}".encode(), digest_size=8).digest() for name in self.names.tolist())
        return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)

    def deal(self, subset: np.ndarray, folds: int, *, salt: int = 0) -> np.ndarray:
        """Fold of every row, (n,) int in 0 .. folds-1, balanced over the prompts with a row in the subset (n,) bool.

        salt: each value gives another assignment.
        """
        keys = self.keys if not salt else self.keys * np.uint64(2 * salt + 1)
        fold = (keys >> np.uint64(32)) % np.uint64(folds)
        balanced = np.flatnonzero(np.bincount(self.code[subset], minlength=len(self.names)))
        ordered = balanced[np.argsort(keys[balanced], kind="stable")]
        fold[ordered] = np.arange(len(ordered)) % folds
        return fold.astype(int)[self.code]


def clusters(prompt_id: np.ndarray) -> np.ndarray:
    """The code of each row's prompt, (n,) int in 0 .. G-1."""
    return Prompts.of(prompt_id, 0).code


def deal(prompt_id: np.ndarray, subset: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of every row, (n,) int in 0 .. folds-1, balanced over the prompts with a row in the subset (n,) bool."""
    return Prompts.of(prompt_id, seed).deal(subset, folds)


def affordable(folds: int, prompts: int) -> int:
    """The largest number of folds, up to `folds`, that gives each two of the labelled prompts; 2 at least."""
    return min(folds, max(2, prompts // 2))
