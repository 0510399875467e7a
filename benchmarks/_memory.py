"""The most memory that a task takes in a process of its own."""

from __future__ import annotations

import multiprocessing
import re
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


def peak_of(task: Callable[[], object]) -> int:
    """Bytes, with the interpreter and all that the task imports."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_after, task).result()


def _peak_after(task: Callable[[], object]) -> int:
    task()
    status = Path("/proc/self/status")
    # On Linux ru_maxrss begins with what the parent had when it started this process; VmHWM is this one's own.
    own = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if own:
        return 1024 * int(own[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
