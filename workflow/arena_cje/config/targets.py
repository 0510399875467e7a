"""The file targets a user types, checked before any job runs: a typing slip gets one sentence, not a missing rule."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from arena_cje.config.checks import TAKEN
from arena_cje.config.scoring import missing_input, why_no_logprobs
from arena_cje.data.coverage import coverage_name
from arena_cje.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arena_cje.config.records import Config

COVERAGE = re.compile(r"(?:^|/)coverage_(.+?)(?:\.jsonl$|/|$)")
SHARD = re.compile(r"(?<=/)\d{4,}(?=\.)")
SUFFIXES = (".json", ".csv", ".influence.parquet")
FIGURES = (
    "policy_estimates",
    "weight_distributions",
    "calibration_curve",
    "comparison_heatmap",
    "judge_distributions",
)
EXPORTS = ("precomputed_sampler.jsonl", "stochastic_log.jsonl", "token_level_cje_results.json", "leaderboard.csv")
COVERAGE_FILES = (
    "cje_dataset.jsonl",
    "summary.json",
    "comparisons.json",
    "comparisons.csv",
    "diagnostics_dashboard.html",
)
PRINTING_TARGETS = ("cost", "check_models")  # targets that tell and make nothing
TAKES_A_PATH = ("--report", "--archive", "--configfile", "--directory", "-d", "--snakefile", "-s", "--profile")


def check(words: Sequence[str], config: Config) -> None:
    """Raise a `UserError` for a target among the words of a command line that cannot be made."""
    for before, word in zip(("", *words), words, strict=False):
        target = os.path.relpath(word) if word.startswith(("/", "./")) else word
        if target.startswith("results/") and before not in TAKES_A_PATH:
            _check_target(target, config)


def _check_target(target: str, config: Config) -> None:
    if found := COVERAGE.search(target):
        coverage_name(found[1])
    # A shard's file is as good as the whole table's, and a coverage that is not listed as good as one that is.
    known = _known(config, coverage=found[1] if found else "0.1")
    brought = config.logged_data is not None and "/fresh_draws/" in target  # the policies are those of the files
    if SHARD.sub("0000", target) in known or brought or Path(target).is_file():
        return
    folder, file = os.path.split(target)
    if _holds_estimates(folder) and file.endswith(SUFFIXES):
        _check_analysis(target, file.split(".")[0], config)
    _check_policy(target, config)
    raise UserError(f"{target}: there is no such target{nearest(target, known)}; the README has a table of them")


def _known(config: Config, *, coverage: str) -> set[str]:
    """Every target there is, with one coverage for all and one shard for all."""
    at = f"results/coverage_{coverage}"
    known = {f"{at}/{name}{suffix}" for name in config.analyses if config.can_run(name) for suffix in SUFFIXES}
    known |= {f"{at}/{file}" for file in COVERAGE_FILES}
    known |= {f"{at}/plots/{figure}.png" for figure in FIGURES} | {"results/plots/sweep.png"}
    known |= {f"results/export/coverage_{coverage}/{file}" for file in EXPORTS}
    known |= {"results/export/results.csv", "results/export/results.parquet", "results/archive.zip"}
    if config.logged_data is not None:
        return known | ({f"{at}/calibration_data.jsonl"} if config.calibration_data else set())
    tables = {"prompts"} | {f"{stage}/{policy}" for stage in ("responses", "judge") for policy in config.policies}
    tables |= {f"oracle/{policy}/coverage_{coverage}" for policy in config.policies}
    tables |= {f"judges/{judge}/{policy}" for judge in config.judges for policy in config.policies}
    known |= {f"results/{table}{part}.jsonl" for table in tables for part in ("", "/0000")}
    known |= {f"results/logprobs/{policy}.parquet" for policy in config.policies_with_logprobs}
    known |= {f"results/logprobs/{context}/0000.parquet" for context in config.contexts}
    known |= {f"results/models/{model}.json" for model in config.models}
    known |= {f"{at}/fresh_draws/{policy}{suffix}" for policy in config.targets for suffix in (".jsonl", ".json")}
    return known | ({f"{at}/validation.csv"} if config.oracle.truth_coverage else set())


def _check_analysis(target: str, name: str, config: Config) -> None:
    """Say why an analysis at a coverage cannot be made."""
    if name == "validation":
        why = "the truth of data brought along is not known" if config.logged_data else "`oracle.truth` is none"
        raise UserError(f"{target}: there is nothing to validate against, {why}")
    if name not in config.analyses:
        known = ", ".join(config.analyses)
        raise UserError(f"{target}: unknown estimator {name!r}{nearest(name, config.analyses)}; available: {known}")
    if not config.can_run(name):
        raise UserError(f"{target}: estimator {name!r} needs {missing_input(name, config)}")


def _check_policy(target: str, config: Config) -> None:
    """Say when a target names a policy that is not there."""
    found = re.match(r"results/(?:responses|logprobs|judge|oracle|coverage_[^/]+/fresh_draws)/([^/.]+)", target)
    if found is None or config.logged_data is not None:
        return
    policies = [*config.policies, *config.contexts]
    if (
        target.startswith("results/logprobs/")
        and found[1] in config.policies
        and found[1] not in config.policies_with_logprobs
    ):
        unscored = config.base_policy if not config.policies_with_logprobs else found[1]
        raise UserError(
            f"{target}: there are no log probabilities under policy {unscored!r}: {why_no_logprobs(unscored, config)}"
        )
    if found[1] not in policies:
        hint = nearest(found[1], policies)
        raise UserError(
            f"{target}: unknown policy {found[1]!r}{hint}; defined in the config: {', '.join(config.policies)}"
        )


def is_estimate(target: str) -> bool:
    """Is this target the results file of an estimator or a variant?"""
    folder, file = os.path.split(target)
    stem, suffix = os.path.splitext(file)
    return _holds_estimates(folder) and suffix == ".json" and stem not in TAKEN


def _holds_estimates(folder: str) -> bool:
    """Is this results/coverage_{coverage}, and not the folder of that name under results/export?"""
    above, name = os.path.split(folder)
    return name.startswith("coverage_") and os.path.basename(above) != "export"


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


def estimate_files(targets: Iterable[str] | None) -> list[str]:
    """Results files among the targets, to be shown at the end of a run."""
    return [target for target in sorted(targets or ()) if is_estimate(target)]
