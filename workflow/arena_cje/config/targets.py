"""Checks the targets of a command line before any job runs, so that a typing error ends in one sentence, not a missing rule."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from arena_cje.config.checks import RESERVED_NAMES
from arena_cje.config.exhibits import EXHIBITS
from arena_cje.config.records.values import HUMAN, REFERENCE
from arena_cje.config.scoring import missing_input, why_no_logprobs
from arena_cje.data.coverage import coverage_name
from arena_cje.errors import UserError, did_you_mean, file_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from arena_cje.config.records import Config

COVERAGE = re.compile(r"(?:^|/)coverage_(?!auto(?:/|$))(.+?)(?:\.jsonl$|/|$)")
OF_A_RUN = re.compile(r"(?!-|\./)[^=]*/(?=results/coverage_[^/]+/.)")  # the folder of a run before a target
SHARD = re.compile(r"(?<=/)\d{4,}(?=\.)")
ESTIMATE_SUFFIXES = (".json", ".csv", ".influence.parquet")
LOOKS = "results/coverage_auto"  # folder of the planned looks
ARCHIVE, ESTIMATES = "results/archive.zip", "estimates"
PLAN = "results/planning/plan.json"
BATCH_FILES = ("tasks.csv", "label_studio.json", "mturk.csv", "label.html", "key.csv", "batch.json")
LABEL_FILES = (
    "labels.jsonl",
    "agreement.json",
    "judge_agreement.json",
    "most_apart.csv",
    "oracles.json",
    "oracles.csv",
)
ABLATION = "ablation"
ABLATION_PLOTS = ("errors", "coverage", "ranking", "refusals")
PRINTING_TARGETS = ("cost", "check_models", "status")  # targets that print a table; they have no output file
PATH_OPTIONS = ("--report", "--archive", "--configfile", "--directory", "-d", "--snakefile", "-s", "--profile")


def check(arguments: Sequence[str], config: Config) -> None:
    """Raise a `UserError` for a target among the arguments of a command line that no rule makes."""
    for target in filter(OF_A_RUN.match, _paths(arguments)):
        raise UserError(
            f"{target}: targets are named from the folder of the run (--directory), here {OF_A_RUN.sub('', target)}"
        )
    for target in file_targets(arguments):
        _check_target(target, config)


def file_targets(arguments: Sequence[str]) -> list[str]:
    """The files under results/ that a command line names as targets, relative to the working directory."""
    paths = (os.path.relpath(path) if path.startswith(("/", "./")) else path for path in _paths(arguments))
    return [path for path in paths if path.startswith("results/")]


def _paths(arguments: Sequence[str]) -> list[str]:
    """Arguments that may be targets: all but the values of options that take a path."""
    before = ("", *arguments)
    return [argument for argument, option in zip(arguments, before, strict=False) if option not in PATH_OPTIONS]


def whole_experiment(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for the whole experiment: it names no file but the archive, and no part by a rule's name."""
    return not {*file_targets(arguments)} - {ARCHIVE} and not {*arguments} & {ESTIMATES, ABLATION, *PRINTING_TARGETS}


def asks_for_one(
    arguments: Sequence[str], group: Iterable[str], exists: Callable[[str], bool] = os.path.exists
) -> bool:
    """Whether a command line names a file of a group that one job makes together, while files of the group are missing.

    group: the files, with `{coverage}` in their paths where they are of one coverage. While some are missing, a user who
    names one file gets that file alone. Once all exist, the job that made them together decides whether they are stale.
    """
    return any(
        target in files and not all(map(exists, files))
        for target in file_targets(arguments)
        for files in [{file.replace("{coverage}", coverage_in(target)) for file in group}]
    )


def asks_for_looks(arguments: Sequence[str]) -> bool:
    """Whether a command line names planned looks, which are of one estimator."""
    return any(target.startswith(f"{LOOKS}/") for target in file_targets(arguments))


def complete(
    arguments: Sequence[str],
    group: Iterable[str],
    coverages: Sequence[str],
    exists: Callable[[str], bool] = os.path.exists,
) -> bool:
    """Whether all files of a group exist, at the coverages that a command line names, or else at all configured ones."""
    named_coverages = {coverage for target in file_targets(arguments) if (coverage := coverage_in(target))} or coverages
    return all(exists(file.replace("{coverage}", coverage)) for file in group for coverage in named_coverages)


def one_missing(
    groups: Iterable[Collection[str]], coverages: Sequence[str], exists: Callable[[str], bool] = os.path.exists
) -> bool:
    """Whether some group lacks one file at a coverage and none lacks more: the state after an estimator was added."""
    n_missing = [
        sum(not exists(file.replace("{coverage}", coverage)) for file in group)
        for group in groups
        for coverage in coverages
    ]
    return max(n_missing, default=0) == 1


def coverage_in(target: str) -> str:
    """The coverage in a target's path; empty where there is none."""
    match = COVERAGE.search(target)
    return match[1] if match else ""


def _check_target(target: str, config: Config) -> None:
    coverage = coverage_in(target)
    if coverage:
        coverage_name(coverage)
        if config.validation_span and float(coverage) > config.validation_span[0]:
            raise UserError(
                f"{target}: people's labels above coverage {config.validation_span[0]:g} are for validation (`oracle.truth`) "
                "and are not used for estimates; use a smaller coverage, or add this one to `coverages`"
            )
    # Any coverage and any shard may be a target, so the name is compared with the targets of one coverage and shard 0000.
    targets = _all_targets(config, coverage=coverage or "0.1")
    # The policies of a user's own data are those of the files, which are read later.
    is_user_draws = config.logged_data is not None and "/fresh_draws/" in target
    is_cells = re.fullmatch(r"results/ablation/cells/n\d+/\d{5,}\.parquet", target) is not None
    if SHARD.sub("0000", target) in targets or is_user_draws or is_cells or Path(target).is_file():
        return
    folder, file = os.path.split(target)
    if folder == LOOKS or (_is_coverage_folder(folder) and file.endswith(ESTIMATE_SUFFIXES)):
        _check_analysis(target, file.split(".")[0], config)
    _check_policy(target, config)
    if config.logged_data is not None and target.startswith("results/labeling/"):
        raise UserError(
            f"{target}: a labelling page shows responses that the workflow generates, and with `logged_data` it generates none; "
            "label the responses in your own files (`oracle_label`, `probes`)"
        )
    raise UserError(
        f"{target}: there is no such target{did_you_mean(target, targets)}; the README has a table of all targets"
    )


def _all_targets(config: Config, *, coverage: str) -> set[str]:
    """Every file target, with one coverage in place of all and shard 0000 in place of all shards."""
    folder = f"results/coverage_{coverage}"
    targets = {
        f"{folder}/{name}{suffix}" for name in config.analyses if config.can_run(name) for suffix in ESTIMATE_SUFFIXES
    }
    targets |= {f"{folder}/cje_dataset.jsonl", f"{folder}/summary.json", PLAN, ARCHIVE}
    runnable = list(filter(config.can_run, config.analyses))
    targets |= {f"{LOOKS}/{name}.json" for name in runnable}
    targets |= {f"{LOOKS}/{name}/look_{share}.json" for name in runnable for share in config.look_coverages}
    targets |= {f"results/{ABLATION}/{name}" for name in ("summary.csv", "summary.md")}
    targets |= {f"results/{ABLATION}/plots/{name}.png" for name in ABLATION_PLOTS}
    exhibits = {exhibit.name: exhibit.path.replace("{coverage}", coverage) for exhibit in EXHIBITS}
    if config.logged_data is not None or not config.oracle.truth_coverage:
        del exhibits["validate"]
    targets |= set(exhibits.values())
    if config.logged_data is not None:
        return targets | ({f"{folder}/calibration_data.jsonl"} if config.calibration_data else set())
    tables = {"prompts"} | {f"{stage}/{policy}" for stage in ("responses", "judge") for policy in config.policies}
    labels = {f"oracle/{policy}/coverage_{coverage}" for policy in config.policies}
    tables |= set() if config.oracle.provider in (REFERENCE, HUMAN) else labels
    targets |= _labeling_targets(config) if config.labeling.batches else set()
    tables |= {f"judges/{judge}/{policy}" for judge in config.judges for policy in config.policies}
    targets |= {f"results/{table}.jsonl" for table in labels}
    targets |= {f"results/{table}{shard}.jsonl" for table in tables for shard in ("", "/0000")}
    targets |= {f"results/logprobs/{policy}.parquet" for policy in config.policies_with_logprobs}
    targets |= {f"results/logprobs/{context}/0000.parquet" for context in config.contexts}
    targets |= {f"results/models/{model}.json" for model in config.models}
    return targets | {
        f"{folder}/fresh_draws/{policy}{suffix}" for policy in config.targets for suffix in (".jsonl", ".json")
    }


def _labeling_targets(config: Config) -> set[str]:
    """Files of the labelling by people."""
    of_batch = {f"results/labeling/{batch}/{file}" for batch in config.labeling.batches for file in BATCH_FILES}
    of_validation = {
        f"results/oracle/{policy}/validation.jsonl" for policy in config.policies if config.validation_span
    }
    return of_batch | of_validation | {f"results/labeling/{file}" for file in LABEL_FILES}


def _check_analysis(target: str, name: str, config: Config) -> None:
    """Raise a `UserError` where there is no such estimate or validation, with the reason."""
    if name == "validation":
        reason = "the true values of a user's own data are unknown" if config.logged_data else "`oracle.truth` is none"
        raise UserError(f"{target}: no true values to compare with: {reason}")
    if name not in config.analyses:
        available = ", ".join(config.analyses)
        raise UserError(
            f"{target}: unknown estimator {name!r}{did_you_mean(name, config.analyses)}; available: {available}"
        )
    if not config.can_run(name):
        raise UserError(f"{target}: estimator {name!r} needs {missing_input(name, config)}")


def _check_policy(target: str, config: Config) -> None:
    """Raise a `UserError` for a target of an unknown policy, or of a policy without log probabilities."""
    match = re.match(r"results/(?:responses|logprobs|judge|oracle|coverage_[^/]+/fresh_draws)/([^/.]+)", target)
    if match is None or config.logged_data is not None:
        return
    name, with_logprobs = match[1], config.policies_with_logprobs
    if target.startswith("results/logprobs/") and name in config.policies and name not in with_logprobs:
        # Without log probabilities under the base policy there are none under any policy.
        cause = name if with_logprobs else config.base_policy
        raise UserError(
            f"{target}: there are no log probabilities under policy {cause!r}: {why_no_logprobs(cause, config)}"
        )
    names = [*config.policies, *config.contexts]
    if name not in names:
        raise UserError(
            f"{target}: unknown policy {name!r}{did_you_mean(name, names)}; defined in the configuration: "
            f"{', '.join(config.policies)}"
        )


def is_estimate(target: str) -> bool:
    """Whether a target is the results file of an estimator or a variant."""
    folder, file = os.path.split(target)
    stem, suffix = os.path.splitext(file)
    return _is_coverage_folder(folder) and suffix == ".json" and stem not in RESERVED_NAMES


def _is_coverage_folder(folder: str) -> bool:
    """Whether a folder is results/coverage_{coverage}, and not the folder of that name under results/export."""
    parent, name = os.path.split(folder)
    return name.startswith("coverage_") and os.path.basename(parent) != "export" and folder != LOOKS


def check_writable(results: Path) -> None:
    """Raise a `UserError` where results cannot be written in the working directory."""
    with file_errors(results):
        folder = results if results.exists() else results.absolute().parent
        is_folder = folder.is_dir()
    if not is_folder:
        raise UserError(
            f"{results}: is a file, but results are written to a folder with this name; move it or choose another --directory"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"{folder}: is not writable, so results cannot be written; change its permissions or choose another --directory"
        )


def estimate_files(targets: Iterable[str] | None) -> list[str]:
    """Results files of estimators, and files of planned looks, among the targets, sorted: the end of a run shows them."""
    return [target for target in sorted(targets or ()) if is_estimate(target) or os.path.dirname(target) == LOOKS]
