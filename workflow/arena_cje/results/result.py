"""`Result`, a result with its tables and figures, and the files it is written to and loaded from."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.errors import UserError, display_form, file_errors
from arena_cje.files import read_json, replace, write_bytes, write_csv
from arena_cje.results import schema as results_schema
from arena_cje.results.overview import overview
from arena_cje.results.record import SCHEMA_VERSION, ResultRecord
from arena_cje.results.text import console_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    import plotnine as p9
    import polars as pl

    from arena_cje.data.sources import Source
    from arena_cje.estimation.records import Logged


class Result(ResultRecord):
    """Policy values with their intervals and verdicts, of `arena_cje.analyze` or `arena_cje.load`.

    Printed it is the decision and a row for each policy, in a notebook all of its tables; `details()` is what the terminal
    shows. p target policies, n logged rows; values are on [0, 1].

    policies, base_policy, all_policies: names
    estimates, standard_errors (p,), confidence_intervals (p, 2): NaN where refused
    summary(policy), estimate(policy): one policy, refused or not; `estimate(a) - estimate(b)` is a paired difference
    verdicts, refused, remedies(policy): what is published, what is not and why, and what would help
    decision, best, comparisons(): what may be claimed; differences of all pairs with corrected intervals
    plot_estimates(), plot_weight_diagnostics(logged), diagnose_weights(): figures, and the status of the weights
    to_frame(), to_json(), document: a polars frame, the results file, and its content

    Methods that need influence values raise a `UserError` where their file was not beside the results file.

    Example:

        result = arena_cje.load("results/coverage_0.1/direct.json")
        result.estimate("new") - result.estimate("base")       # Estimate(0.129, se 0.022, 95 % interval [0.085, 0.174], ...)
        result.plot_estimates().save("estimates.png")
    """

    def plot_estimates(self, truth: Mapping[str, float] | None = None) -> p9.ggplot:
        """Forest plot of the estimates; truth: true values by policy, where they are known."""
        from arena_cje.results import notebook

        return notebook.plot_estimates(self, truth)

    def plot_weight_diagnostics(self, logged: Source | Logged) -> p9.ggplot:
        """Histograms of the raw importance weights; logged: the logged data of the analysis."""
        from arena_cje.results import notebook

        return notebook.plot_weights(self, logged)

    def diagnose_weights(self, logged: Source | Logged | None = None) -> dict[str, Any]:
        """The `WeightStatus` of every policy: GOOD, WARNING or CRITICAL, with numbers and reasons.

        logged: the logged data of the analysis, for the share of the weight that raw-ips clips.
        """
        from arena_cje.results import notebook

        return notebook.weight_status(self, logged)

    def details(self) -> str:
        """All that the terminal shows: estimates, differences, weights, reasons, remedies, and what the judge is worth."""
        return console_table(self)

    def __repr__(self) -> str:
        return overview(self)

    def _repr_html_(self) -> str:
        from arena_cje.results import html

        return html.page(self)


def write(result: Result, json_path: str | Path, csv_path: str | Path, influence_path: str | Path) -> None:
    """Write the results file, its table as CSV, and the influence values as parquet, a row for each logged response.

    Raises a `UserError` where the result has no influence values.
    """
    if result.influence is None:
        raise UserError(
            f"{influence_path}: this result was loaded without its influence values; analyze the data again"
        )
    results_schema.check(result.document, json_path)
    write_bytes(json_path, result.to_json().encode())
    write_csv(csv_path, result.to_frame())
    replace(influence_path, _influence_frame(result).write_parquet)


def load(path: str | Path = "results") -> Result:
    """The result of a results file, with the influence values if their file is beside it.

    path: of the file, or of the results folder of a run, whose newest result is meant. Raises a `UserError` for a file that
    is missing, of another kind, damaged, or of another schema version.

    Example:

        result = arena_cje.load("results/coverage_0.1/calibrated-ips.json")
    """
    if not isinstance(path, str | PathLike) or isinstance(path, bytes):
        raise UserError(f"load takes the path of a results file, got {display_form(path)}")
    path = newest(Path(path))
    result = from_document(read_json(path), path)
    influence_path = path.with_name(f"{path.stem}.influence.parquet")
    with file_errors(influence_path):
        return _with_influence(result, influence_path) if influence_path.exists() else result


def from_document(document: Any, path: Path) -> Result:
    """The result of a results file's content, without influence values; path: where it was read, for errors.

    Raises a `UserError` for content of another kind or schema version.
    """
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path}: not a results file of schema version {SCHEMA_VERSION}; expected results/coverage_*/ESTIMATOR.json"
        )
    if problem := next(results_schema.problems(document), None):
        raise UserError(f"{path}: not a results file of this version ({problem}); make it again")
    result = Result(document)
    try:
        _ = (
            result.options,
            result.reading,
            repr(result),
            result.details(),
        )  # they read parts that the schema describes as objects alone
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a results file of this version ({error}); make it again") from None
    return result


def newest(path: Path) -> Path:
    """The results file that was written last in a results folder; a file itself."""
    with file_errors(path):
        return _newest(path) if path.is_dir() or path == Path("results") else path


def _newest(folder: Path) -> Path:
    written = [path.with_name(path.name.replace(".influence.parquet", ".json")) for path in _influence_files(folder)]
    files = [path for path in written if path.is_file()]
    if not files:
        raise UserError(
            f"{folder}: no results files in it; expected {folder / 'coverage_*' / 'ESTIMATOR.json'}, or name a file"
        )
    return max(files, key=lambda path: (path.stat().st_mtime_ns, path))


def _influence_files(folder: Path) -> list[Path]:
    return [*folder.glob("*.influence.parquet"), *folder.glob("coverage_*/*.influence.parquet")]


def _influence_frame(result: Result) -> pl.DataFrame:
    import polars as pl

    columns = {"prompt_id": result.prompt_id.tolist(), result.base_policy: result.base_influence}
    columns |= dict(zip(result.policies, result.influence.T, strict=True))
    if result.cluster_id is not None:
        columns["cluster_id"] = result.cluster_id.tolist()
    return pl.DataFrame(columns).with_columns(pl.col(pl.Float64).fill_nan(None))


def _with_influence(result: Result, path: Path) -> Result:
    import polars as pl

    try:
        frame = pl.read_parquet(path)
        return Result(
            result.document,
            np.array(frame["prompt_id"].to_list()),
            np.column_stack([frame[policy].to_numpy() for policy in result.policies]),
            frame[result.base_policy].to_numpy(),
            np.array(frame["cluster_id"].to_list()) if "cluster_id" in frame.columns else None,
        )
    except pl.exceptions.PolarsError as error:
        problem = " ".join(str(error).split())
        raise UserError(
            f"{path}: contains influence values that do not belong to this result ({problem}); delete it"
        ) from None
