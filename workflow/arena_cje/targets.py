"""The file targets a user types, checked before any job runs: a typing slip gets one sentence, not a missing rule."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from arena_cje import estimators
from arena_cje.config import Config
from arena_cje.errors import UserError, nearest
from arena_cje.labeling import canonical

AT_COVERAGE = re.compile(r"results/coverage_(?P<coverage>[^/]*)/(?P<file>.*)")
OF_POLICY = re.compile(r"results/(?P<stage>responses|logprobs|judge|oracle)/(?P<policy>[^/.]+)")
NOT_ESTIMATORS = ("summary.json", "cje_dataset.jsonl", "validation.csv")
SUFFIXES = (".json", ".csv", ".influence.parquet")


def check(requested: Iterable[str] | None, config: Config) -> None:
    """Raise a `UserError` for a target whose coverage, estimator or policy cannot be made."""
    for target in requested or ():
        if found := AT_COVERAGE.fullmatch(target):
            canonical(found["coverage"])
            _check_analysis(target, found["file"], config)
        elif found := OF_POLICY.match(target):
            _check_policy(target, found["policy"], config, contexts=found["stage"] == "logprobs")


def _check_analysis(target: str, file: str, config: Config) -> None:
    if file in NOT_ESTIMATORS:
        return
    if file.startswith("fresh_draws/"):
        return _check_policy(target, Path(file).stem, config)
    suffix = next((suffix for suffix in SUFFIXES if file.endswith(suffix)), None)
    if "/" in file or suffix is None:
        return
    name = file.removesuffix(suffix)
    if name not in estimators.NAMES:
        raise UserError(
            f"{target}: unknown estimator {name!r}{nearest(name, estimators.NAMES)}; available: {', '.join(estimators.NAMES)}"
        )
    if "fresh_score" in estimators.get(name).NEEDS and config.logged_data is not None and config.fresh_draws is None:
        raise UserError(
            f"{target}: estimator {name!r} needs fresh draws of the target policies, and none were brought along; "
            "add --config fresh_draws=DIR"
        )


def _check_policy(target: str, policy: str, config: Config, *, contexts: bool = False) -> None:
    if config.logged_data is not None:
        return
    known = [*config.policies, *(config.contexts if contexts else ())]
    if policy not in known:
        raise UserError(
            f"{target}: unknown policy {policy!r}{nearest(policy, known)}; defined in the config: {', '.join(config.policies)}"
        )


def is_estimate(target: str) -> bool:
    """Is this target the results file of an estimator?"""
    found = AT_COVERAGE.fullmatch(target)
    return found is not None and found["file"].removesuffix(".json") in estimators.NAMES


def check_writable(results: Path) -> None:
    """Raise a `UserError` when results cannot be written in the working directory."""
    place = results if results.exists() else results.absolute().parent
    if not place.is_dir():
        raise UserError(
            f"{results}: is a file, but results are written to a folder of this name; move it or choose another --directory"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(
            f"{place}: is not writable, so no results can be kept; change its permissions or choose another --directory"
        )
