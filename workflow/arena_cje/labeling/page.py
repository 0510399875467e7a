"""The page to label on: one HTML file for a browser without a network.

All text of prompts, responses and instructions is data: the template escapes it, or it is JSON without a character that could
end the script element, and the script writes it as text. The page's security policy allows no request, and its own script and
style alone, by their hashes. Votes are saved in the browser and leave it as a file that `votes` reads.
"""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arena_cje.labeling.records import Scale
    from arena_cje.labeling.tasks import Batch

FOLDER = Path(__file__).parent
TEMPLATE, STYLE, SCRIPT = "label.html.j2", "label.css", "label.js"
FILES = tuple(FOLDER / name for name in (TEMPLATE, STYLE, SCRIPT))
MOST_POINTS = 9  # votes that have a key each; a finer scale has a slider
ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


def render(batch: Batch, scale: Scale, instructions: str) -> str:
    """The page of a batch as HTML."""
    import jinja2
    from markupsafe import Markup

    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in (STYLE, SCRIPT))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        batch=batch.name,
        instructions=instructions.strip(),
        points=_points(scale),
        low=f"{scale.low:g}",
        high=f"{scale.high:g}",
        step=f"{scale.step:g}",
        payload=Markup(_payload(batch)),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _points(scale: Scale) -> list[dict[str, str]]:
    """The votes with their keys: the digit where all votes are digits, else the place; none where there are too many."""
    if scale.n_points > MOST_POINTS:
        return []
    values = [f"{scale.low + k * scale.step:g}" for k in range(scale.n_points)]
    keys = values if all(len(value) == 1 for value in values) else [str(k) for k in range(1, len(values) + 1)]
    return [{"value": value, "key": key} for value, key in zip(values, keys, strict=True)]


def _payload(batch: Batch) -> str:
    """The tasks as JSON."""
    return json.dumps({"batch": batch.name, "tasks": [vars(task) for task in batch.tasks]}).translate(ESCAPES)


def _hash(text: str) -> str:
    return base64.b64encode(sha256(text.encode()).digest()).decode()
