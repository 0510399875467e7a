"""Documents made from the configuration's records: the table of keys in config/README.md, and the JSON Schema for editors.

    python -m arena_cje.config.documents

writes both files. A test fails where they are out of date.
"""

from __future__ import annotations

import json
import typing
from dataclasses import fields
from pathlib import Path

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from arena_cje.config.records import Config
from arena_cje.config.records.analysis import AnalysisOptions, Variant
from arena_cje.diagnostics.thresholds import Thresholds

if typing.TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
README = ROOT / "config" / "README.md"
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
MARK = "<!-- {name}: {edge}, written by python -m arena_cje.config.documents -->\n"


def table() -> str:
    """A Markdown table of all keys with their defaults and descriptions."""
    lines = ["| key | default | what it is |", "|---|---|---|"]
    lines += [f"| `{key}` | {default} | {meaning} |" for key, default, meaning in _keys(Config, "")]
    return "\n".join(lines) + "\n"


def _keys(record: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Key, default and description of each key of a record and of the records in it."""
    # The options of the analysis that a variant may change are listed once, under `analysis`.
    inherited = AnalysisOptions.model_fields if record is Variant else {}
    for name, field in record.model_fields.items():
        if name in inherited:
            continue
        default = _default_text(field.get_default(call_default_factory=True))
        key = (f"{prefix}{name}", default, field.description or "")
        nested = next(
            (part for part in _parts(field.annotation) if isinstance(part, type) and issubclass(part, BaseModel)), None
        )
        if nested is not None and str in _parts(field.annotation) and typing.get_origin(field.annotation) is not dict:
            yield key
        if nested is not None:
            by_name = ".NAME" if typing.get_origin(field.annotation) is dict else ""
            yield from _keys(nested, f"{prefix}{name}{by_name}.")
        else:
            yield key


def _parts(annotation: object) -> Iterator[object]:
    """A type annotation and all types in it."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from _parts(part)


def _default_text(value: object) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel) or value in ({}, []):
        return ""
    return f"`{json.dumps(value)}`"


def schema() -> str:
    """JSON Schema (2020-12) of the configuration, as YAML."""
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    content["$defs"]["Policy"]["properties"]["like"] = {
        "type": "string",
        "description": "policy whose keys are copied; keys beside it replace them",
    }
    content["$defs"]["Policy"].pop("required", None)  # the policy under `like` may have the required keys
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def thresholds() -> str:
    """A Markdown table of the thresholds of verdicts with their defaults."""
    lines = ["| threshold | default |", "|---|---|"]
    lines += [f"| `{field.name}` | {field.default:g} |" for field in fields(Thresholds)]
    return "\n".join(lines) + "\n"


def readme() -> str:
    """The text of config/README.md with current tables."""
    text = README.read_text(encoding="utf-8")
    for name, content in (("keys", table()), ("thresholds", thresholds())):
        begin, end = MARK.format(name=name, edge="begin"), MARK.format(name=name, edge="end")
        before, rest = text.split(begin)
        text = before + begin + content + end + rest.split(end)[1]
    return text


if __name__ == "__main__":
    README.write_text(readme(), encoding="utf-8")
    SCHEMA.write_text(schema(), encoding="utf-8")
