"""From the merged YAML to a checked `Config`: defaults, `like`, and one sentence for the first thing that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from arena_cje.config import checks
from arena_cje.config.records import (
    LOCAL,
    Analysis,
    Config,
    Judge,
    Model,
    Oracle,
    Policy,
    Price,
    Prompts,
    Provider,
    Variant,
)
from arena_cje.errors import UserError, nearest


def parse(merged: Mapping[str, Any], *, user_keys: Mapping[str, Any] | None = None) -> Config:
    """The checked configuration, or a `UserError` that says which key is wrong and what was expected.

    merged: the shipped file with the user's keys merged in; own: the user's keys alone, where there are any.
    """
    raw = _overlay(merged, user_keys or {})
    raw["policies"] = _resolve_like(raw.get("policies") or {})
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise UserError(_sentence(error)) from None
    checks.check(config)
    return config


def _overlay(merged: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The merged keys, but the user's policies replace the shipped ones, a model's `path` its shipped `file`, and a judge
    behind an API has no model but its own.

    Merging policies would evaluate some that nobody asked for; the shipped judge's model is none that an API knows.
    """
    raw = dict(merged)
    if "policies" in own:
        raw["policies"] = own["policies"]
    models = own.get("models")
    for name, block in models.items() if isinstance(models, Mapping) else ():
        if isinstance(block, Mapping) and block.get("path") is not None and "file" not in block:
            raw["models"] = {**raw["models"], name: {**raw["models"][name], "file": None}}
    judge = own.get("judge")
    if isinstance(judge, Mapping) and judge.get("provider", LOCAL) != LOCAL and "model" not in judge:
        raw["judge"] = {**raw["judge"], "model": None}
    return raw


def _resolve_like(policies: Any) -> dict[str, Any]:
    """Policies with every `like: other` replaced by the block it names, own keys on top."""
    if not isinstance(policies, Mapping):
        raise UserError(f"config: `policies` is {policies!r:.60}, expected a block for each policy, by name")

    def resolve(name: str, seen: tuple[str, ...]) -> Any:
        block = policies[name]
        if not isinstance(block, Mapping) or "like" not in block:
            return block
        other = block["like"]
        if other not in policies:
            raise UserError(
                f"config: policy {name!r} is like {other!r}, which is not under `policies`{nearest(str(other), policies)}"
            )
        if other in seen:
            raise UserError(
                f"config: policies {' -> '.join((*seen, other))} are `like` each other in a circle; give one of them in full"
            )
        own = {key: value for key, value in block.items() if key != "like"}
        return {**resolve(other, (*seen, other)), **own}

    return {name: resolve(name, (name,)) for name in policies}


def _fields_at(location: tuple[Any, ...]) -> list[str]:
    """Known keys of the record that holds the last element of a pydantic error location."""
    records = {
        "prompts": Prompts,
        "models": Model,
        "policies": Policy,
        "providers": Provider,
        "prices": Price,
        "judge": Judge,
        "judges": Judge,
        "oracle": Oracle,
        "analysis": Analysis,
        "variants": Variant,
    }
    if len(location) == 1:
        return list(Config.model_fields)
    known = list(records[location[0]].model_fields) if location[0] in records else []
    return [*known, "like"] if location[0] == "policies" else known


def _sentence(error: ValidationError) -> str:
    """The first finding of a validation as one sentence."""
    finding = error.errors()[0]
    location = tuple(
        part for part in finding["loc"] if not str(part).startswith(("function-", "constrained-", "literal["))
    )
    place, got = ".".join(str(part) for part in location), finding["input"]
    if finding["type"] == "extra_forbidden":
        known = _fields_at(location)
        hint = nearest(str(location[-1]), known) or f"; known here: {', '.join(known)}"
        return f"config: unknown key `{place}`{hint}"
    if finding["type"] == "missing":
        return f"config: `{place}` is missing; config/README.md says what it is"
    said = finding["msg"].removeprefix("Value error, ")
    place = place.removesuffix(".[key]")
    if finding["type"] == "string_pattern_mismatch":
        said = "a name starts with a letter and has only letters, digits, _ and -"
    if finding["type"] == "model_type":
        said = "expected a block of keys"
    if finding["type"] == "value_error":
        return f"config: `{place}`: {said}"
    return f"config: `{place}`: {said[0].lower() + said[1:]}, got {got!r}"


def find_file(name: str, kind: str, *, workflow_resources: Path) -> Path:
    """A file the configuration names: relative to the working directory if it is there, else the workflow's own.

    `kind` is the folder of `resources/` that holds files of this sort ("policies", "judges", ...).
    """
    shipped = workflow_resources / kind
    places = [
        Path(name),
        Path("resources") / kind / name,
        shipped / name,
        workflow_resources / name,
        workflow_resources.parent / name,
    ]
    for place in places:
        if place.is_file():
            return place
    names = sorted(path.name for path in shipped.glob("*") if path.name != "README.md")
    hint = nearest(name, names) or f"; shipped: {', '.join(names)}"
    raise UserError(
        f"config: no file {name!r} in {Path.cwd()}, its resources/{kind}/ or the workflow's resources/{kind}/{hint}"
    )
