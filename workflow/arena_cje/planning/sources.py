"""Pilots from files: a plan that was made, the folder of a run, a results file, or data."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.errors import UserError
from arena_cje.estimation.calibration import MIN_LABELLED_PROMPTS
from arena_cje.estimation.records import Options
from arena_cje.files import read_json
from arena_cje.planning.pilots import ESTIMATOR, pilot_of_data, pilot_of_result
from arena_cje.planning.plan import Prices, audits_of
from arena_cje.planning.study import Pilot
from arena_cje.results import analyze
from arena_cje.results.result import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arena_cje.data.sources import Source
    from arena_cje.results.record import ResultRecord

COVERAGE = re.compile(r"coverage_(1\.0|0\.\d+)")  # folders of results
PLAN = Path("planning/plan.json")  # below the folder of results


@dataclass(frozen=True)
class Known:
    """The content of a source: the pilot, the transport audits, and the prices of the run."""

    pilot: Pilot
    audits: Mapping[str, dict[str, Any]]
    prices: Prices = field(default_factory=Prices)


def read(path: Path, fresh_draws: Path | None = None, probes: Path | None = None, *, base: str | None = None) -> Known:
    """The pilot, audits and prices in a file or folder; fresh_draws, probes, base: for data.

    Raises a `UserError` for a file of another kind.
    """
    if path.is_dir() and fresh_draws is None and (place := _in_run(path)) is not None:
        path = place
    if path.suffix != ".json" or fresh_draws is not None:
        return of_data(path, fresh_draws, analyze.Settings(Options(), base_policy=base), probes=probes)
    content = read_json(path)
    if isinstance(content, dict) and "pilot" in content:
        return _of_plan(path, content)
    return _of_result(path)


def of_data(
    logged: Source,
    fresh_draws: str | Path | Mapping[str, Source] | None,
    settings: analyze.Settings,
    **more: Any,
) -> Known:
    """The pilot and audits of data; more: `probes` and `calibration_data`, as in `analyze`."""
    rows, draws, calibration = analyze.arrays(logged, fresh_draws, settings, **more)
    pilot = pilot_of_data(rows, draws, calibration, settings.options, alpha=settings.alpha)
    if not draws or len(np.unique(rows.question[rows.labelled])) < MIN_LABELLED_PROMPTS:
        return Known(pilot, {})
    options = dataclasses.replace(settings.options, inference="jackknife", rewards="calibrated")
    settings = dataclasses.replace(settings, options=options)
    results = analyze.analyze_all(logged, fresh_draws, {ESTIMATOR: ESTIMATOR}, settings, **more)
    return Known(pilot, audits_of(results[ESTIMATOR], settings.thresholds))


def _in_run(folder: Path) -> Path | None:
    """The plan of a run, else its results file of `direct` at the highest coverage below one; folder: its results or its own."""
    for results in (folder, folder / "results"):
        if (results / PLAN).is_file():
            return results / PLAN
        files = [file for file in results.glob(f"coverage_*/{ESTIMATOR}.json") if COVERAGE.fullmatch(file.parent.name)]
        if files:
            return max(files, key=lambda file: float(file.parent.name.removeprefix("coverage_")) % 1)
        if any(results.glob("coverage_*/*.json")):
            raise UserError(
                f"{results}: has neither {PLAN} nor results of {ESTIMATOR!r}; make one of them, such as "
                f"`snakemake --cores 1 results/{PLAN}`, or name a results file"
            )
    return None


def _of_plan(path: Path, content: Mapping[str, Any]) -> Known:
    try:
        return Known(Pilot.from_document(content["pilot"]), content["audits"], Prices(**content["prices"]))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a plan of this version ({error}); make it again") from None


def _of_result(path: Path) -> Known:
    """The pilot, audits and prices of a results file, by the data beside it where they are there."""
    result = load(path)
    thresholds = Thresholds(**result.document["metadata"]["thresholds"])
    plan = path.parent.parent / PLAN
    prices = _of_plan(plan, read_json(plan)).prices if plan.is_file() else Prices()
    dataset, draws = path.parent / "cje_dataset.jsonl", path.parent / "fresh_draws"
    if dataset.is_file() and draws.is_dir() and result.options.inference == "jackknife":
        pilot = _pilot_beside(result, dataset, draws)
    elif result.influence is None:
        raise UserError(
            f"{path}: {path.stem}.influence.parquet, with the influence values that a plan needs, is not beside it; plan from "
            "the data instead: `arena-cje plan logged.jsonl --fresh-draws draws`"
        )
    else:
        pilot = pilot_of_result(result)
    return Known(pilot, audits_of(result, thresholds), prices)


def _pilot_beside(result: ResultRecord, dataset: Path, draws: Path) -> Pilot:
    """The pilot from the data of a result, read as the result read them."""
    reading = result.reading
    settings = analyze.Settings(
        result.options,
        alpha=result.document["metadata"]["alpha"],
        judge=reading.judge,
        judge_scale=reading.judge_scale,
        label_scale=reading.label_scale,
        base_policy=result.base_policy,
    )
    calibration = dataset.with_name("calibration_data.jsonl")
    arrays = analyze.arrays(dataset, draws, settings, calibration_data=calibration if calibration.is_file() else None)
    return pilot_of_data(*arrays, settings.options, alpha=settings.alpha)
