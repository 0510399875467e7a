"""What the journals of a stage cost to read, by its number of shards: every job looks for items that no shard has finished yet.

A job looks in the other shards for items that its own file lacks. If it read them all, a stage would read a number of bytes
that grows with the square of its shards; by the index it reads each line once, so that the time for a shard stays about the
same:

    growth = seconds a shard at many shards / seconds a shard at few

What is left of it is to look at the sizes of all files (some microseconds each), and that the keys of a larger index lie further
apart.

Two more numbers are those of a user who changes `shard_size`: one job that finds all its items in other shards' files, beside
reading these files through, and the memory that such a job takes.
"""

from __future__ import annotations

import logging
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

from arena_cje import journal
from arena_cje.journal import FinishedItem, Journal
from arena_cje.provenance import digest
from benchmarks._result import Result
from benchmarks._timing import progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHARDS = (10, 100, 1000)
ITEMS, BYTES = 200, 2000  # of a shard, of a record
LIMIT = 2  # of the growth from 100 to 1000 shards


def run() -> Iterator[Result]:
    """Processor time for a shard at each number of shards, its growth, and a job that finds what others have finished."""
    logging.getLogger("arena_cje").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        each = {}
        for n in SHARDS:
            progress(f"journals: {n} shards of {ITEMS} items of {BYTES} bytes ...")
            stage = Path(folder) / str(n)
            each[n] = _stage(stage, n) / n
            detail = f"all {n} jobs look for their {ITEMS} items in the other shards; {each[n] * n:.2f} CPU-s together"
            yield Result(f"CPU-ms a shard, {n} shards", 1000 * each[n], None, detail)
        few, many = SHARDS[-2:]
        detail = f"CPU time a shard at {many} shards over that at {few}; {many // few} if every job read every file"
        yield Result(f"growth from {few} to {many} shards", each[many] / each[few], f"<= {LIMIT}", detail)
        yield from _other_shard_size(stage)


def _keys(shard: int) -> list[str]:
    return [digest([shard, item]) for item in range(ITEMS)]


def _stage(folder: Path, n_shards: int) -> float:
    """CPU seconds in which the jobs of a stage, one after the other, look for their items; none is there."""
    seconds = 0.0
    for shard in range(n_shards):
        keys = _keys(shard)
        with Journal(folder / f"{shard:04d}.jsonl") as opened:
            began = time.process_time()
            records = opened.find(keys)
            seconds += time.process_time() - began
            assert not records
            opened.append([FinishedItem(key, {"text": key[0] * BYTES}) for key in keys])
    return seconds


def _other_shard_size(folder: Path) -> Iterator[Result]:
    """One job whose items are spread over all shards."""
    shards = sorted(folder.glob("*.jsonl"))
    keys = [_keys(shard)[0] for shard in range(len(shards))]
    began = time.process_time()
    n_read = sum(1 for path in shards for _ in journal.read(path))
    through = time.process_time() - began
    began = time.process_time()
    records = _records(folder, keys)
    seconds = time.process_time() - began
    assert len(records) == len(keys)
    detail = f"{len(keys)} items of {len(shards)} files; {seconds:.2f} CPU-s, {through:.2f} to read all {n_read} items"
    yield Result("a job that finds all its items / all journals read", seconds / through, "<= 0.5", detail)
    tracemalloc.start()
    _records(folder, keys)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = sum(path.stat().st_size for path in shards)
    detail = (
        f"peak {peak / 1e6:.1f} MB for records of {len(keys) * BYTES / 1e6:.1f} MB, in journals of {size / 1e6:.0f} MB"
    )
    yield Result("peak memory of this job / its records", peak / (len(keys) * BYTES), "<= 3", detail)


def _records(folder: Path, keys: Sequence[str]) -> dict[str, dict]:
    """Records of some keys as a job with an empty file of its own finds them."""
    own = folder / "9999.jsonl"
    with Journal(own) as opened:
        records = opened.find(keys)
    own.unlink()
    return records
