"""Reading a prompt set: how much longer the selection of prompts takes than reading the file, and how much memory.

    ratio = time to select prompts from a file / time of pyarrow to read all of the same file

The file has 33 000 conversations in the schema of `lmsys/chatbot_arena_conversations`, a number that the data set has, with
made-up words. Memory is that of a process that selects, less that of one that only imports the same modules.
"""

from __future__ import annotations

import random
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from arena_cje.data.prompt_sets.pool import Source, read_pool
from arena_cje.data.prompt_sets.selection import Selection
from benchmarks._arena import battle, write_parquet
from benchmarks._memory import peak_of
from benchmarks._result import Result
from benchmarks._timing import counted, measure, progress, ratio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

N_ROWS = 33_000
WORDS = [f"word{k}" for k in range(5000)]


def run(n_rows: int = N_ROWS) -> Iterator[Result]:
    """Time and memory of the selection."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "arena.parquet")
        progress(f"writing {n_rows} conversations")
        write_parquet(path, conversations(n_rows))
        sides = {"select": counted(partial(select, path), n_rows), "pyarrow": counted(partial(read_all, path), n_rows)}
        rates = measure(sides)
        seconds = n_rows / sorted(rates["select"])[len(rates["select"]) // 2]
        yield Result(
            "selection / pyarrow's reading",
            1 / ratio(rates, "select", "pyarrow"),
            "<= 3",
            f"{n_rows} conversations of {path.stat().st_size / 2**20:.0f} MiB: {seconds:.2f} s of processor time",
        )
        memory = peak_of(partial(select, path)) - peak_of(import_only)
        file_memory = peak_of(partial(read_all, path)) - peak_of(import_only)
        yield Result(
            "memory / pyarrow's",
            memory / file_memory,
            "<= 1",
            f"{memory / 2**20:.0f} MiB, where pyarrow holds the whole file in {file_memory / 2**20:.0f} MiB",
        )


def conversations(n_rows: int) -> Iterator[dict[str, Any]]:
    """Conversations of one or three turns, English or German, with answers of 200 words; some prompts occur twice."""
    rng = random.Random(1)
    for k in range(n_rows):
        question = " ".join(rng.choices(WORDS, k=rng.choice((3, 10, 40))))
        if rng.random() < 0.05:
            question = f"Question {rng.randrange(500)}?"
        turns = 1 if rng.random() < 0.8 else 3
        language = "English" if rng.random() < 0.85 else "German"
        yield battle(f"{k:032x}", *[question] * turns, language=language, reply=" ".join(rng.choices(WORDS, k=200)))


def select(path: Path) -> None:
    """Select the English prompts of a file."""
    with tempfile.TemporaryDirectory() as folder:
        read_pool(Source(path.name, path, selection=Selection(language="en")), 1, Path(folder))


def read_all(path: Path) -> None:
    """Read all of a file into memory."""
    import pyarrow.parquet as pq

    pq.read_table(path)


def import_only() -> None:
    """Import what the others import."""
    import pyarrow.parquet  # noqa: F401
