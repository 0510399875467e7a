"""The exception for errors that the user can correct.

Raise `UserError` where the input, the configuration or the machine is the cause, with one sentence: what is wrong, where, what
was expected, and what to do. The workflow and the command line print the sentence without a traceback and exit with status 1.
Any other exception is a bug.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can correct; its message is all that the user sees."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the known name that is closest; an empty string where none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
