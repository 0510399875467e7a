"""Settings that results depend on, without the folders of one machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arena_cje.config.records import Config

# Settings that change the course of a run and not its results.
RUN_SETTINGS = {
    **dict.fromkeys(("n_slots", "cache_tokens", "model_slots", "shard_size", "progress_seconds", "fresh"), True),
    "policies": {"__all__": {"description", "api_key_env"}},
    "judge": {"api_key_env", "max_unscored"},
    "judges": {"__all__": {"api_key_env", "max_unscored"}},
    "oracle": {"api_key_env", "max_unscored"},
    "providers": {
        "__all__": {"api_key_env", "max_concurrency", "requests_per_minute", "timeout", "max_attempts"},
    },
    **dict.fromkeys(
        ("prices", "budget_usd", "planning", "ablation"), True
    ),  # plans and ablations stand in files of their own
    "models": {"__all__": {"n_threads", "n_gpu_layers"}},
}
# Settings of generation and grading, unused when the logged data are supplied.
RESPONSE_SETTINGS = (
    "prompts",
    "n_prompts",
    "models",
    "policies",
    "base_policy",
    "providers",
    "judge",
    "judges",
    "oracle",
)


def settings(config: Config, *, folder: Path) -> dict[str, Any]:
    """Settings as JSON values; a path inside `folder`, the run's, is relative to it, any other is its last part."""
    values = config.model_dump(mode="json", exclude=RUN_SETTINGS)
    if config.logged_data is not None:
        values = {name: value for name, value in values.items() if name not in RESPONSE_SETTINGS}
    else:
        provider_names = {block.provider for _, block in config.model_blocks.items()}
        values["providers"] = {name: block for name, block in values["providers"].items() if name in provider_names}
    return _with_portable_paths(values, folder)


def _with_portable_paths(value: Any, folder: Path) -> Any:
    """The value with every absolute path relative to `folder`, or as its last part outside of it."""
    if isinstance(value, Mapping):
        return {name: _with_portable_paths(part, folder) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_portable_paths(part, folder) for part in value]
    if not isinstance(value, str):
        return value
    name, separator, rest = value.partition("=")  # NAME=FILE names the policy of a file
    if separator and Path(rest).is_absolute():
        return f"{name}={_with_portable_paths(rest, folder)}"
    if not Path(value).is_absolute():
        return value
    path = Path(value)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
