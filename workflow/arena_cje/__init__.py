"""Causal Judge Evaluation: the value of a policy, estimated from judge scores, few oracle labels and log probabilities.

result = arena_cje.analyze("cje_dataset.jsonl", estimator="calibrated-ips")
result = arena_cje.load("results/coverage_0.1/calibrated-ips.json")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arena_cje.results.analyze import Result, analyze, load

__version__ = "1.0.0"
__all__ = ["Result", "__version__", "analyze", "load"]


def __getattr__(name: str) -> Any:
    # Imported on first use: jobs that run a model do not need polars and scipy, which take long to import.
    if name in ("Result", "analyze", "load"):
        from arena_cje.results import analyze as analysis

        return getattr(analysis, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)  # names that are not imported yet, for those who complete names
