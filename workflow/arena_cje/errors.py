"""The exception for errors that the user can correct.

Raise `UserError` where the input, the configuration or the machine is the cause, with one sentence: what is wrong, where, what
was expected, and what to do. The workflow and the command line print the sentence without a traceback and exit with status 1.
Any other exception is a bug.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import reprlib
import sys
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MOST_CHARACTERS = 2000  # of a message, which may repeat what a file holds
LONG_WORD = re.compile(r"(\S{200})\S{200,}(\S{50})")  # longer than any path that people use
IN_RUST = re.compile(r"\(os error (\d+)\)")  # the error number in messages of libraries such as polars
HALF = re.compile("[\ud800-\udfff]")  # of a character: no text has it, but a name that was read in another encoding may
NUL = re.compile(r"(null|NUL) (byte|character)")  # in a path, which Python and Rust refuse

WHAT_TO_DO = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again (finished items are kept)",
    errno.EDQUOT: "your disk quota is used up; free some space and run the same command again (finished items are kept)",
    errno.EFBIG: "the file exceeds the size limit; raise the limit (`ulimit -f`) or choose another folder",
    errno.EROFS: "is on a read-only file system; choose another folder",
    errno.EACCES: "permission denied; change its permissions, or choose another place",
    errno.EPERM: "permission denied; change its permissions, or choose another place",
    errno.ENOENT: "no such file or folder",
    errno.EEXIST: "exists already and is not a folder; move it or choose another place",
    errno.EISDIR: "is a folder, expected a file",
    errno.ENOTDIR: "part of this path is a file, expected a folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EMFILE: "too many open files; raise the limit (`ulimit -n`)",
    errno.EIO: "the disk cannot be read or written (input/output error); check it",
}

_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother, _short.maxlong = 2, 60, 60, 40


# Joiners are parts of words in some scripts, and of emoji.
INVISIBLE_IN_TEXT = "\u200c\u200d"


class UserError(Exception):
    """An error that the user can correct; its message is all that the user sees: one line, shortened where it is long."""

    def __init__(self, message: str):
        message = LONG_WORD.sub(r"\1...\2", printable(message).replace("\n", "\\n"))
        if len(message) > MOST_CHARACTERS:
            message = f"{message[: MOST_CHARACTERS // 2]} ... {message[-MOST_CHARACTERS // 2 :]}"
        super().__init__(message)


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


def display_form(value: object) -> str:
    """A value for a message, at most a line of it: values of users can be of any size."""
    try:
        text = " ".join(_short.repr(value).split())
    except Exception:  # a number of too many digits, an object that cannot show itself
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 100 else f"{text[:100]}..."


@contextmanager
def file_errors(path: str | Path | None = None) -> Iterator[None]:
    """Turn an error of the file system, or a name that it cannot have, into a `UserError`.

    path: what is read or written, where the error itself does not name it.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        place = path or getattr(error, "filename", None)
        raise UserError(f"{place}: {reason}" if place else reason) from error


def _reason(error: Exception) -> str | None:
    """What the operating system refuses, and what to do; None for an error that is not about a file."""
    if isinstance(error, BrokenPipeError):
        return None  # the reader of what is printed has ended
    if isinstance(error, UnicodeEncodeError):
        character = error.object[error.start : error.start + 1]
        return f"the file names of this machine are in {error.encoding}, which lacks {character!a}; set PYTHONUTF8=1"
    if isinstance(error, ValueError | OSError) and NUL.search(str(error)):
        return "a file name cannot contain a NUL character"
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := IN_RUST.search(str(error))):
        number = int(match[1])
    return None if number is None else WHAT_TO_DO.get(number) or os.strerror(number).lower()


def did_you_mean(name: object, names: Iterable[object]) -> str:
    """` (did you mean 'x'?)` for the known name that is closest; an empty string where none is close."""
    matches = difflib.get_close_matches(str(name), [*map(str, names)], n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def escape_what_it_lacks() -> None:
    """Have characters that the encoding of the standard streams lacks shown as escapes, such as \\u540d."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook or a test may have put another object there
            stream.reconfigure(errors="backslashreplace")
