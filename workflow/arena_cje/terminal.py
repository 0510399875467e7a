"""The terminal: what a process prints is shown as far as the terminal can, whatever its encoding."""

from __future__ import annotations

import sys


def escape_what_it_lacks() -> None:
    """Have characters that the encoding of the standard streams lacks shown as escapes, such as \\u540d."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook or a test may have put another object there
            stream.reconfigure(errors="backslashreplace")
