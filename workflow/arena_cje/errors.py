"""The exception for errors that the user can correct.

Raise `UserError` where the input, the configuration or the machine is the cause, with one sentence: what is wrong, where, what
was expected, and what to do. The workflow and the command line print the sentence without a traceback and exit with status 1.
Any other exception is a bug.
"""

from __future__ import annotations

import difflib
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


# Joiners are parts of words in some scripts, and of emoji.
INVISIBLE_IN_TEXT = "\u200c\u200d"


class UserError(Exception):
    """An error that the user can correct; its message is all that the user sees."""

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Text for a terminal or a log: what would move the cursor, hide text or turn it round is written as an escape.

    These are control characters (line breaks and tabs excepted), formatting characters such as those that reverse the direction
    of text, the other line separators of Unicode, and lone surrogates, which no file can hold.
    """
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(char if _is_harmless(char) else _escape(char) for char in text)


def _is_harmless(char: str) -> bool:
    return (
        char in "\n\t" or char in INVISIBLE_IN_TEXT or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the known name that is closest; an empty string where none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
