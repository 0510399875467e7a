"""What the HTML pages share: templates that escape all text, and names that break where it does not hurt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from arena_cje.results import line_breaks

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

FOLDER = Path(__file__).parent
UNBROKEN = line_breaks.WIDTH + 4  # characters of a word without breaks: a name in a sentence has punctuation around it


def environment() -> jinja2.Environment:
    """Templates of this folder; a text passes the filter `breakable` where a table or a heading shows it."""
    import jinja2

    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    pages.filters["breakable"] = breakable
    return pages


def breakable(text: str) -> Markup:
    """The text as HTML in which words that are longer than a line of a name may break, after their parts."""
    from markupsafe import Markup, escape

    words = re.split(r"(\s+)", str(text))
    return Markup("").join(
        escape(word) if len(word) <= UNBROKEN else Markup("<wbr>").join(line_breaks.parts(word)) for word in words
    )
