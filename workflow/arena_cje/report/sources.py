"""The data of a figure: the files of a coverage, read into records.

Scores and labels are mapped to [0, 1] as they are in the analysis, so that the figures of data and results have one scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.data.dataset import load_dataset, load_draws, load_logged
from arena_cje.data.reading import Reading
from arena_cje.results.result import Result, load

if TYPE_CHECKING:
    from arena_cje.data.rows import Source
    from arena_cje.estimation.records import Draws, Labelled, Logged

Summary = Mapping[str, Any]  # of results/coverage_*/summary.json


def reading(summary: Summary, judge: str | None = None) -> Reading:
    """How the files of a coverage are read.

    summary: of the coverage, here and below; judge: a further judge whose scores are read in place of the judge's.
    """
    return replace(Reading.from_summary(summary), judge=judge)


def logged(dataset: Source, summary: Summary, reading: Reading) -> Logged:
    """The logged rows of a coverage as arrays."""
    return load_logged(dataset, base_policy=summary["base_policy"], reading=reading)[0]


def draws(files: Iterable[str | Path], responses: Logged, summary: Summary, reading: Reading) -> dict[str, Draws]:
    """Fresh draws of the targets by policy, from files named POLICY.jsonl; responses: the logged rows."""
    paths = {Path(file).stem: file for file in files}
    return {
        policy: load_draws(path, policy, responses.prompt_id.tolist(), reading=reading)[0]
        for policy, path in paths.items()
        if policy != summary["base_policy"]
    }


def with_calibration(
    dataset: Source, calibration_data: Source | None, summary: Summary, reading: Reading
) -> tuple[Logged, Labelled | None]:
    """The logged rows of a coverage and its calibration data as arrays; None without calibration data."""
    data = load_dataset(dataset, calibration_data, base_policy=summary["base_policy"], reading=reading)
    return data.logged, data.calibration


def coverage_of(file: str | Path) -> str:
    """The coverage of a file, from the name of its folder coverage_{coverage}."""
    return Path(file).parent.name.removeprefix("coverage_")


def by_coverage(files: Iterable[str | Path]) -> dict[str, list[Result]]:
    """The results of files by coverage, in increasing order; within a coverage in the order of the files."""
    results: dict[str, list[Result]] = {}
    for file in files:
        results.setdefault(coverage_of(file), []).append(load(file))
    return dict(sorted(results.items(), key=lambda item: float(item[0])))
