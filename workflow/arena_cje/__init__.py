"""Causal Judge Evaluation: the value of a policy, estimated from judge scores, few oracle labels and log probabilities.

result = arena_cje.analyze("cje_dataset.jsonl", estimator="calibrated-ips")
result = arena_cje.load("results/coverage_0.1/calibrated-ips.json")
"""

from __future__ import annotations

from typing import Any

__version__ = "1.0.0"
__all__ = ["__version__", "analyze", "load"]


def __getattr__(name: str) -> Any:
    # Imported on first use: jobs that run a model do not need polars and scipy, which take long to import.
    if name in ("analyze", "load"):
        from arena_cje.results import analyze as analysis

        return getattr(analysis, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
