"""Prompts: read from a source, put in a seeded random order that only grows, cut into shards.

The order is by hash of (seed, prompt id): the first n of it are a simple random sample without replacement, and a larger n
only adds to it. Each shard is cut from the source by its own range, so that no common file ties the shards together.
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
    """Sort key of a prompt in the random order."""
    return blake2b(f"prompt/{seed}/{prompt_id}".encode(), digest_size=16).digest()


def sample(source: Path, *, n: int, seed: int) -> list[dict[str, Any]]:
    """The first n prompts of the source in its seeded order."""
    rows = schemas.PROMPTS.read(source)
    if not rows:
        raise UserError(f"{source}: no prompts in it; expected one JSON object a line with `prompt_id` and `prompt`")
    if n > len(rows):
        raise UserError(
            f"config: n_prompts is {n}, but {source} has {len(rows)} prompts; lower it or name a larger source"
        )
    return sorted(rows, key=lambda row: rank(row["prompt_id"], seed))[:n]


def shards(n: int, size: int) -> list[str]:
    """Names of the shards that n prompts make."""
    return [f"{index:04d}" for index in range(-(-n // size))]


def cut(rows: list[dict[str, Any]], shard: str, size: int) -> list[dict[str, Any]]:
    """The rows of one shard."""
    return rows[int(shard) * size : (int(shard) + 1) * size]


def fingerprint(rows: list[dict[str, Any]]) -> str:
    """Hash of the rows of a shard: what makes it stale, whatever happens to the rest of the source."""
    return digest(rows)
