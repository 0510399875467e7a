"""Reads the YAML files that users write: configurations, rubrics, chat templates, recipes of models.

An alias (`*name`) costs a few bytes in a file and may stand for all that its anchor holds, so that a small file can describe
gigabytes. What a file describes is therefore measured before it is made, from the parser's events, which come one by one.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any

import yaml

from arena_cje.errors import UserError, display_form, file_errors
from arena_cje.files import text_bytes

MOST_BYTES = 1 << 20  # of a file
MOST_CHARACTERS = 4 << 20  # of what a file describes, its aliases replaced by what they stand for
MOST_LEVELS = 50  # of blocks inside each other

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file; raises a `UserError` where it is missing, too large or malformed."""
    with file_errors(path):
        size = Path(path).stat().st_size
    if size > MOST_BYTES:
        raise UserError(f"{path}: is larger than {MOST_BYTES >> 20} MiB, too large for a configuration; check its name")
    content = text_bytes(path)
    try:
        _check_size(content)
        return yaml.load(content, Loader)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).replace(' in "<byte string>",', " at").split())
        raise UserError(f"{path}: is not valid YAML ({problem})") from error
    # The makers of dates, numbers and the like do not turn their errors into those of YAML.
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: a value does not match its tag or form ({error}); put it in quotes") from error


def check_config_file(path: str | Path) -> None:
    """Raise a `UserError` for a configuration file that Snakemake could not read, or only as a thing of gigabytes."""
    path = Path(path)
    with file_errors(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            return  # a pipe, which can be read once
    text = text_bytes(path)
    if text != path.read_bytes().removeprefix(BOM_UTF8):
        raise UserError(f"{path}: is UTF-16 or UTF-32 text, and Snakemake reads UTF-8; save the file as UTF-8")
    try:
        json.loads(text)  # as Snakemake does before it tries YAML; JSON has no aliases
        return
    except (ValueError, RecursionError):
        content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a block of keys as in config/config.yaml, got {display_form(content)}")


def _check_size(content: bytes) -> None:
    """Raise a `UserError` for YAML that describes more than its limits, or holds itself."""
    sizes: dict[str, int | None] = {}  # characters of what an anchor holds; None while it is open
    open_anchors: list[tuple[str | None, int]] = []  # of the blocks around the event, and the size before each
    size = 0
    for event in yaml.parse(content, Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_anchors.append((event.anchor, size))
            if event.anchor:
                sizes[event.anchor] = None
            size += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_anchors.pop()
            if anchor:
                sizes[anchor] = size - before
        elif isinstance(event, yaml.ScalarEvent):
            size += 1 + len(event.value)
            if event.anchor:
                sizes[event.anchor] = 1 + len(event.value)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in sizes and sizes[event.anchor] is None:
                raise UserError(
                    f"the alias *{event.anchor} is inside the block that it refers to; write the block in full"
                )
            size += sizes.get(event.anchor) or 1  # an unknown one is an error when the file is loaded
        if len(open_anchors) > MOST_LEVELS:
            raise UserError(f"has more than {MOST_LEVELS} nested levels; check its brackets")
        if size > MOST_CHARACTERS:
            raise UserError(
                f"expands to more than {MOST_CHARACTERS >> 20} million characters by its aliases; write the blocks in full"
            )
