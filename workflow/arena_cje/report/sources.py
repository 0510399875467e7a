"""What a figure is drawn from: the files of a coverage, read into records.

Data on another scale than [0, 1] are mapped to it here as they are in the analysis, so that they fit the results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.data.dataset import load_calibration, load_draws, load_logged
from arena_cje.estimation.records import Draws, Labelled, Logged
from arena_cje.results.result import Result, load

if TYPE_CHECKING:
    from arena_cje.data.rows import Source

Summary = Mapping[str, Any]  # of results/coverage_*/summary.json


def logged(dataset: Source, summary: Summary, covariates: Sequence[str] = (), judge: str | None = None) -> Logged:
    """The logged responses of a coverage; judge: a further judge whose scores are taken."""
    read = {"covariates": covariates, "scale": _scale(summary), "judge": judge}
    return load_logged(dataset, base_policy=summary["base_policy"], **read)[0]


def draws(
    files: Iterable[str | Path], responses: Logged, summary: Summary, judge: str | None = None
) -> dict[str, Draws]:
    """Fresh draws by policy, from the files of a coverage that are named after it."""
    found = {Path(file).stem: file for file in files}
    return {
        policy: load_draws(file, policy, responses.prompt_id.tolist(), scale=_scale(summary), judge=judge)[0]
        for policy, file in found.items()
        if policy != summary["base_policy"]
    }


def beside(
    file: Source, dataset: Source, summary: Summary, covariates: Sequence[str] = (), judge: str | None = None
) -> Labelled:
    """Labelled responses that were brought along for calibration."""
    read = {"covariates": covariates, "scale": _scale(summary), "judge": judge}
    return load_calibration(file, logged=dataset, base_policy=summary["base_policy"], **read)[0]


def seen(result: Result) -> dict[str, Any]:
    """What the result's calibrator sees: covariates, and the judge whose scores they stand beside."""
    return {"covariates": result.options.covariates, "judge": result.judge}


def coverage_of(file: str | Path) -> str:
    """The coverage that a file belongs to, by the folder it lies in."""
    return Path(file).parent.name.removeprefix("coverage_")


def by_coverage(files: Iterable[str | Path]) -> dict[str, list[Result]]:
    """Results by coverage, the lowest first; those of a coverage in the order of the files."""
    found: dict[str, list[Result]] = {}
    for file in files:
        found.setdefault(coverage_of(file), []).append(load(file))
    return dict(sorted(found.items(), key=lambda item: float(item[0])))


def _scale(summary: Summary) -> tuple[float, float] | None:
    ends = summary.get("scale")
    return tuple(ends) if ends else None
