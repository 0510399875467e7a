"""Prompts in a seeded random order, cut into shards.

Prompts are ordered by a hash of seed and prompt id: the first n are a simple random sample without replacement, and a
larger n only adds prompts.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from arena_cje.files import Row


def rank(prompt_id: str, seed: int) -> bytes:
    """Sort key of a prompt: its hash with the seed."""
    return blake2b(f"prompt/{seed}/{prompt_id}".encode(), digest_size=16).digest()


def shards(n: int, size: int) -> list[str]:
    """Names of the shards of n prompts, `size` in each: "0000", "0001", ..."""
    return [f"{index:04d}" for index in range(-(-n // size))]


def cut(prompts: Sequence[Any], shard: str, size: int) -> Sequence[Any]:
    """The prompts of one shard, by its name."""
    return prompts[int(shard) * size : (int(shard) + 1) * size]


def fingerprint(lines: Iterable[bytes]) -> str:
    """Hash of the lines of a shard; a change of other prompts of the source does not make the shard stale."""
    return blake2b(b"".join(lines), digest_size=16).hexdigest()


def read(pool: Path, start: int, stop: int) -> list[Row]:
    """The prompts of a pool from one position to before another; no more of the file is read."""
    return list(map(orjson.loads, lines(pool, start, stop)))


def lines(pool: Path, start: int, stop: int) -> list[bytes]:
    """The same as lines of JSON."""
    with pool.open("rb") as file:
        return list(islice(file, start, stop))
