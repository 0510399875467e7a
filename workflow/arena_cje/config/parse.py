"""From the merged YAML to a checked `Config`: defaults, `like`, and one sentence for the first error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from arena_cje.config import checks, plugins
from arena_cje.config.records import Config
from arena_cje.config.records.analysis import Analysis, Looks, Variant
from arena_cje.config.records.grading import Judge, Labeling, Oracle
from arena_cje.config.records.inputs import ForeignData, PromptColumns, Prompts
from arena_cje.config.records.models import Model, Policy, Price, Provider
from arena_cje.config.records.values import LOCAL
from arena_cje.data.prompt_sets import hub
from arena_cje.errors import HALF, UserError, did_you_mean, display_form, file_errors

LEAST_TOO_LARGE = 2**63


def parse(merged: Mapping[str, Any], *, user_keys: Mapping[str, Any] | None = None) -> Config:
    """The checked configuration; raises a `UserError` that names the first wrong key, its value and what was expected.

    merged: the shipped configuration with the user's keys merged in. user_keys: the user's keys alone.
    """
    _check_values(merged, ())
    raw = _replace_shipped_keys(merged, user_keys or {})
    raw["policies"] = _with_templates_of_providers(_resolve_like(raw.get("policies") or {}), raw.get("providers"))
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise UserError(_first_error(error)) from None
    plugins.register(config.plugins)
    checks.check(config)
    return config


def _check_values(value: Any, place: tuple[Any, ...]) -> None:
    """Raise a `UserError` for a value that no file of this workflow could hold: they go into JSON as they are."""
    problem = ""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not isinstance(key, str):
                problem = f"has the key {display_form(key)}, expected text; put it in quotes"
            _check_values(part, (*place, key))
    elif isinstance(value, list | tuple):
        for k, part in enumerate(value):
            _check_values(part, (*place, k))
    elif isinstance(value, str):
        problem = (
            "contains an incomplete character (a surrogate), which cannot be written to a file; set PYTHONUTF8=1 if it comes "
            "from the command line"
            if HALF.search(value)
            else ""
        )
    elif isinstance(value, float):
        is_no_bound = value == math.inf and (place[0] == "verdict" or place[-1] in ("clip", "var_cap"))
        problem = "" if math.isfinite(value) or is_no_bound else f"is {value}, expected a finite number"
    elif isinstance(value, int):
        problem = "" if abs(value) < LEAST_TOO_LARGE else f"is {display_form(value)}, which is too large"
    elif value is not None:
        problem = f"is read by YAML as {display_form(value)}, expected text or a number; put text in quotes"
    if problem:
        raise UserError(f"config: `{'.'.join(map(str, place))}` {problem}" if place else f"config: {problem}")


def _replace_shipped_keys(merged: Mapping[str, Any], user_keys: Mapping[str, Any]) -> dict[str, Any]:
    """The merged configuration, where some keys of the user replace shipped ones that a merge would keep.

    The user's policies replace the shipped ones: a merge would evaluate policies that the user did not list. A model's `path`
    replaces its shipped `file`. A hosted judge without a model loses the shipped one, which is a local model.
    """
    raw = dict(merged)
    if "policies" in user_keys:
        raw["policies"] = user_keys["policies"]
    models = user_keys.get("models")
    for name, block in models.items() if isinstance(models, Mapping) else ():
        if isinstance(block, Mapping) and block.get("path") is not None and "file" not in block:
            raw["models"] = {**raw["models"], name: {**raw["models"][name], "file": None}}
    judge = user_keys.get("judge")
    if isinstance(judge, Mapping) and judge.get("provider", LOCAL) != LOCAL and "model" not in judge:
        raw["judge"] = {**raw["judge"], "model": None}
    return raw


def _resolve_like(policies: Any) -> dict[str, Any]:
    """The policies, each `like: other` replaced by the keys of the other policy beside the policy's own."""
    if not isinstance(policies, Mapping):
        raise UserError(
            f"config: `policies` is {display_form(policies)}, expected a block of keys for each policy name"
        )

    def resolve(name: str, chain: tuple[str, ...]) -> Any:
        block = policies[name]
        if not isinstance(block, Mapping) or "like" not in block:
            return block
        other = block["like"]
        if not isinstance(other, str) or other not in policies:
            raise UserError(
                f"config: policy {name!r} is like {display_form(other)}, which is not under `policies`"
                f"{did_you_mean(str(other), policies)}"
            )
        if other in chain:
            raise UserError(
                f"config: policies {' -> '.join((*chain, other))} refer to each other by `like` in a cycle; write one of "
                "them in full"
            )
        like = resolve(other, (*chain, other))
        if not isinstance(like, Mapping):
            return like  # refused as what it is
        return {**like, **{key: value for key, value in block.items() if key != "like"}}

    return {name: resolve(name, (name,)) for name in policies}


def _with_templates_of_providers(policies: dict[str, Any], providers: Any) -> dict[str, Any]:
    """The policies, where the template of a provider replaces those of its policies that have one."""

    def replaced(block: Any) -> Any:
        if not (isinstance(block, Mapping) and block.get("template") is not None and isinstance(providers, Mapping)):
            return block
        name = block.get("provider")
        provider = providers.get(name) if isinstance(name, str) else None
        template = provider.get("template") if isinstance(provider, Mapping) else None
        return block if template is None else {**block, "template": template}

    return {name: replaced(block) for name, block in policies.items()}


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """Keys of the block that contains the last element of a pydantic error location."""
    records = {
        "prompts": Prompts,
        "logged_data": ForeignData,
        "models": Model,
        "policies": Policy,
        "providers": Provider,
        "prices": Price,
        "judge": Judge,
        "judges": Judge,
        "oracle": Oracle,
        "labeling": Labeling,
        "looks": Looks,
        "analysis": Analysis,
        "variants": Variant,
    }
    if len(location) == 1:
        return list(Config.model_fields)
    if location[:2] == ("prompts", "columns"):
        return list(PromptColumns.model_fields)
    keys = list(records[location[0]].model_fields) if location[0] in records else []
    return [*keys, "like"] if location[0] == "policies" else keys


def _first_error(error: ValidationError) -> str:
    """The first error of a validation as one sentence."""
    details = error.errors()[0]
    location = tuple(
        part for part in details["loc"] if not str(part).startswith(("function-", "constrained-", "literal["))
    )
    place, value = ".".join(str(part) for part in location), details["input"]
    if details["type"] == "extra_forbidden":
        keys = _known_keys(location)
        hint = did_you_mean(str(location[-1]), keys) or f"; known keys here: {', '.join(keys)}"
        return f"config: unknown key `{place}`{hint}"
    if details["type"] == "missing":
        return f"config: `{place}` is missing; config/README.md describes it"
    message = details["msg"].removeprefix("Value error, ")
    place = place.removesuffix(".[key]")
    if details["type"] == "string_pattern_mismatch":
        message = "a name starts with a letter and has only letters, digits, _ and -"
    if details["type"] == "model_type":
        message = "expected a block of keys"
    if details["type"] == "value_error":
        return f"config: `{place}`: {message}"
    return f"config: `{place}`: {message[0].lower() + message[1:]}, got {display_form(value)}"


def find_prompts(name: str, *, workflow_resources: Path) -> Path | None:
    """Path of the file or folder of a prompt source; None where it is the id of a data set of the hub."""
    with file_errors(name):
        if Path(name).is_dir():
            return Path(name)
    try:
        return find_file(name, "prompts", workflow_resources=workflow_resources)
    except UserError:
        if hub.is_id(name):
            return None
        raise


def find_file(name: str, kind: str, *, workflow_resources: Path) -> Path:
    """Path of a file that the configuration names: in the working directory, else among the workflow's resources.

    kind: the folder of `resources/` for this kind of file ("policies", "judges", ...). Raises a `UserError` where there is
    no such file.
    """
    shipped = workflow_resources / kind
    candidates = [
        Path(name),
        Path("resources") / kind / name,
        shipped / name,
        workflow_resources / name,
        workflow_resources.parent / name,
    ]
    with file_errors(name):
        for path in candidates:
            if path.is_file():
                return path
    names = sorted(path.name for path in shipped.glob("*") if path.name != "README.md")
    hint = did_you_mean(name, names) or f"; shipped: {', '.join(names)}"
    raise UserError(
        f"config: no file {name!r} in {Path.cwd()}, its resources/{kind}/ or the workflow's resources/{kind}/{hint}"
    )
