"""The most memory that a task takes in a process of its own."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from arena_cje.stages.usage import peak_memory

if TYPE_CHECKING:
    from collections.abc import Callable


def peak_of(task: Callable[[], object]) -> int:
    """Bytes, with the interpreter and all that the task imports."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_after, task).result()


def _peak_after(task: Callable[[], object]) -> int:
    task()
    return peak_memory()
