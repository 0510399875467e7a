"""Where long names may break: after a separator, and within a part only where the part itself is too long."""

from __future__ import annotations

import re

WIDTH = 24  # characters of a name in a line; shorter names are never broken
# After a separator that is not followed by another one; a point within a number, as in v0.1, is none.
PART = re.compile(r".+?(?:[\s_/:#-](?![\s_/:#-])|\.(?=\D)|$)")


def parts(text: str, width: int = WIDTH) -> list[str]:
    """The pieces of a text between which a line may end, none longer than `width`; together they are the text."""
    return [part[at : at + width] for part in PART.findall(text) for at in range(0, len(part.rstrip()), width)]


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    """The text in lines of at most `width` characters, white space as single blanks."""
    lines = [""]
    for part in parts(" ".join(text.split()), width):
        if len(lines[-1] + part.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]
