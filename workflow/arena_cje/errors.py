"""The one exception whose text is written for the person at the keyboard.

Raise `UserError` when input, configuration or surroundings are at fault: one sentence that says what, where, got, expected
and what to do. The workflow and the command line print it without a traceback and exit with 1; anything else is a bug.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend; the message is the whole report."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest known name, or an empty string."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""
