"""The file targets a user types, checked before any job runs: a typing slip gets one sentence, not a missing rule."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from arena_cje.config.checks import TAKEN
from arena_cje.config.exhibits import EXHIBITS
from arena_cje.config.records import REFERENCE, Config
from arena_cje.config.scoring import lacks, why_unscored
from arena_cje.data.coverage import canonical
from arena_cje.errors import UserError, nearest

COVERAGE = re.compile(r"(?:^|/)coverage_(.+?)(?:\.jsonl$|/|$)")
SHARD = re.compile(r"(?<=/)\d{4,}(?=\.)")
SUFFIXES = (".json", ".csv", ".influence.parquet")
ARCHIVE, ESTIMATES = "results/archive.zip", "estimates"
TELLING = ("cost", "check_models")  # targets that tell and make nothing
TAKES_A_PATH = ("--report", "--archive", "--configfile", "--directory", "-d", "--snakefile", "-s", "--profile")


def check(words: Sequence[str], config: Config) -> None:
    """Raise a `UserError` for a target among the words of a command line that cannot be made."""
    for target in named(words):
        _check_target(target, config)


def named(words: Sequence[str]) -> list[str]:
    """The results among the words of a command line that are asked for, relative to the working directory."""
    following = zip(("", *words), words, strict=False)
    paths = [
        os.path.relpath(word) if word.startswith(("/", "./")) else word
        for before, word in following
        if before not in TAKES_A_PATH
    ]
    return [path for path in paths if path.startswith("results/")]


def asks_for_all(words: Sequence[str]) -> bool:
    """Is the whole experiment asked for: no result by its name but the archive of all, and no part of it by a rule's?"""
    return not {*named(words)} - {ARCHIVE} and not {*words} & {ESTIMATES, *TELLING}


def alone(words: Sequence[str], group: Iterable[str], exists: Callable[[str], bool] = os.path.exists) -> bool:
    """Is a file asked for by its name, and not all of those are there that one job makes together with it?

    group: the files that are made together, with `{coverage}` where they are of one coverage. While some of them are missing,
    who asks for one gets one. Once all are there, the job that made them is to say whether they are stale.
    """
    return any(
        target in files and not all(map(exists, files))
        for target in named(words)
        for files in [{file.replace("{coverage}", coverage_in(target)) for file in group}]
    )


def complete(
    words: Sequence[str],
    group: Iterable[str],
    coverages: Sequence[str],
    exists: Callable[[str], bool] = os.path.exists,
) -> bool:
    """Are all files of a group there, at the coverages that are asked for by name, or else at all configured ones?"""
    asked_for = {coverage for target in named(words) if (coverage := coverage_in(target))} or coverages
    return all(exists(file.replace("{coverage}", coverage)) for file in group for coverage in asked_for)


def few_missing(
    groups: Iterable[Collection[str]], coverages: Sequence[str], exists: Callable[[str], bool] = os.path.exists
) -> bool:
    """Does no group lack more than one file at any coverage, and some group one: as when an estimator was added?"""
    lacking = [
        sum(not exists(file.replace("{coverage}", coverage)) for file in group)
        for group in groups
        for coverage in coverages
    ]
    return max(lacking, default=0) == 1


def coverage_in(target: str) -> str:
    """The coverage that a target's path names; empty where it names none."""
    found = COVERAGE.search(target)
    return found[1] if found else ""


def _check_target(target: str, config: Config) -> None:
    coverage = coverage_in(target)
    if coverage:
        canonical(coverage)
    # A shard's file is as good as the whole table's, and a coverage that is not listed as good as one that is.
    known = _known(config, coverage=coverage or "0.1")
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
    known |= {f"{at}/cje_dataset.jsonl", f"{at}/summary.json", ARCHIVE}
    exhibits = {one.name: one.path.replace("{coverage}", coverage) for one in EXHIBITS}
    if config.logged_data is not None or not config.oracle.truth_coverage:
        del exhibits["validate"]
    known |= set(exhibits.values())
    if config.logged_data is not None:
        return known | ({f"{at}/calibration_data.jsonl"} if config.calibration_data else set())
    tables = {"prompts"} | {f"{stage}/{policy}" for stage in ("responses", "judge") for policy in config.policies}
    labels = {f"oracle/{policy}/coverage_{coverage}" for policy in config.policies}
    tables |= set() if config.oracle.provider == REFERENCE else labels
    known |= {f"results/{table}.jsonl" for table in labels}
    tables |= {f"judges/{judge}/{policy}" for judge in config.judges for policy in config.policies}
    known |= {f"results/{table}{part}.jsonl" for table in tables for part in ("", "/0000")}
    known |= {f"results/logprobs/{policy}.parquet" for policy in config.scored}
    known |= {f"results/logprobs/{context}/0000.parquet" for context in config.contexts}
    known |= {f"results/models/{model}.json" for model in config.models}
    return known | {f"{at}/fresh_draws/{policy}{suffix}" for policy in config.targets for suffix in (".jsonl", ".json")}


def _check_analysis(target: str, name: str, config: Config) -> None:
    """Say why an analysis at a coverage cannot be made."""
    if name == "validation":
        why = "the truth of data brought along is not known" if config.logged_data else "`oracle.truth` is none"
        raise UserError(f"{target}: there is nothing to validate against, {why}")
    if name not in config.analyses:
        known = ", ".join(config.analyses)
        raise UserError(f"{target}: unknown estimator {name!r}{nearest(name, config.analyses)}; available: {known}")
    if not config.can_run(name):
        raise UserError(f"{target}: estimator {name!r} needs {lacks(name, config)}")


def _check_policy(target: str, config: Config) -> None:
    """Say when a target names a policy that is not there."""
    found = re.match(r"results/(?:responses|logprobs|judge|oracle|coverage_[^/]+/fresh_draws)/([^/.]+)", target)
    if found is None or config.logged_data is not None:
        return
    policies = [*config.policies, *config.contexts]
    if target.startswith("results/logprobs/") and found[1] in config.policies and found[1] not in config.scored:
        unscored = config.base_policy if not config.scored else found[1]
        raise UserError(
            f"{target}: there are no log probabilities under policy {unscored!r}: {why_unscored(unscored, config)}"
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


def asked(targets: Iterable[str] | None) -> list[str]:
    """Results files among the targets, to be shown at the end of a run."""
    return [target for target in sorted(targets or ()) if is_estimate(target)]
