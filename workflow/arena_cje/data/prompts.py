"""Prompts: read from a source, put in a seeded random order, cut into shards.

Prompts are ordered by a hash of seed and prompt id: the first n are a simple random sample without replacement, and a
larger n only adds prompts. Each shard is cut from the source by its own range; with a common file of all prompts in
between, every shard would depend on every prompt.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from arena_cje.data import schemas
from arena_cje.errors import UserError
from arena_cje.provenance import digest

if TYPE_CHECKING:
    from pathlib import Path


def rank(prompt_id: str, seed: int) -> bytes:
    """Sort key of a prompt: its hash with the seed."""
    return blake2b(f"prompt/{seed}/{prompt_id}".encode(), digest_size=16).digest()


def sample(source: Path, *, n: int, seed: int) -> list[dict[str, Any]]:
    """The first n prompts of the source in the seeded order; raises a `UserError` where it has fewer."""
    rows = schemas.PROMPTS.read(source)
    if not rows:
        raise UserError(f"{source}: no prompts in it; expected one JSON object a line with `prompt_id` and `prompt`")
    if n > len(rows):
        raise UserError(
            f"config: n_prompts is {n}, but {source} has {len(rows)} prompts; lower it or name a larger source"
        )
    return sorted(rows, key=lambda row: rank(row["prompt_id"], seed))[:n]


def shards(n: int, size: int) -> list[str]:
    """Names of the shards of n prompts, `size` in each: "0000", "0001", ..."""
    return [f"{index:04d}" for index in range(-(-n // size))]


def cut(rows: list[dict[str, Any]], shard: str, size: int) -> list[dict[str, Any]]:
    """The rows of one shard, by its name."""
    return rows[int(shard) * size : (int(shard) + 1) * size]


def fingerprint(rows: list[dict[str, Any]]) -> str:
    """Hash of the rows of a shard; a change of other rows of the source does not make the shard stale."""
    return digest(rows)
