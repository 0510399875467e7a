"""What the configuration says of results: the settings that change them, without where things lie on one machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arena_cje.config.records import Config

# Settings that change how a run goes and nothing that comes out.
ONLY_HOW = {
    **dict.fromkeys(("n_slots", "cache_tokens", "model_slots", "shard_size", "fresh"), True),
    "policies": {"__all__": {"description", "api_key_env"}},
    "judge": {"api_key_env", "max_unscored"},
    "judges": {"__all__": {"api_key_env", "max_unscored"}},
    "oracle": {"api_key_env", "max_unscored"},
    "providers": {
        "__all__": {"api_key_env", "max_concurrency", "requests_per_minute", "timeout", "max_attempts"},
    },
    **dict.fromkeys(("prices", "budget_usd"), True),
    "models": {"__all__": {"n_threads", "n_gpu_layers"}},
}
# What your own data make idle.
OF_RESPONSES = ("prompts", "n_prompts", "models", "policies", "base_policy", "providers", "judge", "judges", "oracle")


def settings(config: Config, *, folder: Path) -> dict[str, Any]:
    """Settings as JSON has them; a path inside `folder`, the run's, is told from there, any other by its last part."""
    kept = config.model_dump(mode="json", exclude=ONLY_HOW)
    if config.logged_data is not None:
        kept = {name: value for name, value in kept.items() if name not in OF_RESPONSES}
    else:
        used = {block.provider for _, block in config.model_blocks.items()}
        kept["providers"] = {name: block for name, block in kept["providers"].items() if name in used}
    return _told(kept, folder)


def _told(value: Any, folder: Path) -> Any:
    if isinstance(value, Mapping):
        return {name: _told(part, folder) for name, part in value.items()}
    if isinstance(value, list):
        return [_told(part, folder) for part in value]
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    path = Path(value)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
