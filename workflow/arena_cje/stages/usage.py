"""What this process has used of the machine."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


def peak_memory() -> int:
    """The most memory that the process has held, in bytes."""
    status = Path("/proc/self/status")
    # On Linux ru_maxrss begins with what the parent had when it started this process; VmHWM is this one's own.
    own = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if own:
        return 1024 * int(own[1])
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
