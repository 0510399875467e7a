"""What determines a grade: called by the rules, which declare it, and by the jobs, which use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arena_cje.config.records import REFERENCE

if TYPE_CHECKING:
    from arena_cje.config.records import Config, Judge, Oracle


def grader(block: Judge | Oracle, config: Config) -> dict[str, Any]:
    """What a judge or the oracle is, without how it is run; an ensemble asks nobody itself, so it has no model."""
    if block.provider == REFERENCE:
        return {"provider": block.provider}
    if getattr(block, "ensemble", ()):
        return {"ensemble": block.ensemble, "uncertainty": block.uncertainty}
    told = block.model_dump(exclude={"api_key_env", "max_unscored", "truth", "target_labels"})
    return told | (config.endpoint(block).identity if block.hosted else {})
