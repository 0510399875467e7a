"""Files and folders of results as text: what `arena-cje show` prints.

A file is read once; its kind is known from its content. A folder is listed: coverages with their decision, estimators, pages and
figures, what belongs to no single coverage, and what is missing.
"""

from __future__ import annotations

import math
import shlex
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje import files
from arena_cje.config.exhibits import EXHIBITS, RESULTS
from arena_cje.errors import UserError, file_errors, printable
from arena_cje.planning import text as planning_text
from arena_cje.results import decision_file, looks
from arena_cje.results.recommendation import recommended_first
from arena_cje.results.result import from_document
from arena_cje.results.sentences import MEANING
from arena_cje.stages import run_record, seals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import polars as pl

N_ROWS = 20  # of a table, and lines of a file of another kind
CELL = 40  # characters
COMPARED = ("first", "second", "difference", "se", "p_value", "p_corrected", "apart", "judge_only")
PICTURES = (".png", ".html", ".zip")
DECISION, DASHBOARD = "decision.json", "diagnostics_dashboard.html"


def text(path: Path) -> str:
    """A file or folder as text; raises a `UserError` where it cannot be shown."""
    with file_errors(path):
        if path.is_dir() or path == Path("results"):
            return "\n".join(_folder(path))
    seals.check(path)
    if path.suffix in PICTURES and path.is_file():
        return f"open it in a browser or viewer: {path.resolve()}"
    if path.suffix in (".csv", ".jsonl", ".parquet"):
        return _table(path)
    if path.suffix == ".md":
        return files.read_text(path).rstrip()
    content = files.read_json(path)
    try:
        return _document(path, content)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a file of this version ({error}); make it again") from None


# Files


def _document(path: Path, content: Any) -> str:
    keys = content.keys() if isinstance(content, dict) else set()
    if looks.is_account(content):
        return looks.table(content)
    if decision_file.is_decision(content):
        return decision_file.text(content)
    if {"pilot", "goal"} <= keys:
        return "\n".join(planning_text.lines(content))
    if {"recommended", "estimators"} <= keys:
        return "\n".join(_comparisons(content))
    if "schema_version" in keys or not isinstance(content, dict | list) or not content:
        return from_document(content, path).details()
    if isinstance(content, dict):
        return "\n".join(_cut(list(_entries(content))))
    return "\n".join(_cut([files.json_text(row).replace("\n", " ") for row in content]))


def _comparisons(content: Mapping[str, Any]) -> Iterator[str]:
    """The differences of all pairs by the recommended estimator, and the headlines of all."""
    import polars as pl

    name = content["recommended"]["estimator"]
    chosen = content["estimators"][name]
    if chosen["decision"]:
        yield chosen["decision"]["headline"]
    yield content["recommended"]["reason"]
    yield ""
    rows = [{key: row[key] for key in COMPARED} for row in chosen["comparisons"]]
    yield _rows(pl.DataFrame(rows, infer_schema_length=None), len(rows))
    for other, entry in content["estimators"].items():
        if other != name and entry["decision"]:
            yield f"{other}: {entry['decision']['headline']}"


def _table(path: Path) -> str:
    """The first rows of a table."""
    import polars as pl

    try:
        with file_errors(path):
            if path.suffix == ".csv":
                frame = files.read_csv(path)
                return _rows(frame.head(N_ROWS), frame.height)
            if path.suffix == ".parquet":
                count = pl.scan_parquet(path).select(pl.len()).collect().item()
                return _rows(pl.read_parquet(path, n_rows=N_ROWS), count)
            rows = [row for _, row in islice(files.iterate_rows(path), N_ROWS)]
            count = sum(1 for line in path.open("rb") if line.strip())
            cells = [{key: _cell(value) for key, value in row.items()} for row in rows]
            return _rows(pl.DataFrame(cells, infer_schema_length=None), count)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: not a table that can be read ({' '.join(str(error).split())})") from None


def _cell(value: Any) -> Any:
    return files.json_text(value).replace("\n", " ") if isinstance(value, dict | list) else value


def _rows(frame: pl.DataFrame, count: int) -> str:
    """A frame in columns, with a line for the rows that are left out."""
    titles = list(frame.columns)
    cells = [titles, *([_short(value) for value in row] for row in frame.iter_rows())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    more = [f"... {count - frame.height} more rows"] if count > frame.height else []
    return "\n".join([*lines, *more])


def _short(value: Any) -> str:
    """A value in a cell: nothing where it is missing, four digits of a number, the beginning of a text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    line = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    return line if len(line) <= CELL else f"{line[: CELL - 3]}..."


def _entries(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The values of a document, a line each, by their place in it."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _entries(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}: {_short(_cell(value)) or 'none'}"


def _cut(lines: Sequence[str]) -> list[str]:
    more = [f"... {len(lines) - 3 * N_ROWS} more"] if len(lines) > 3 * N_ROWS else []
    return [*lines[: 3 * N_ROWS], *more]


# Folders


def closing(coverages: Iterable[str], folder: Path) -> Iterator[str]:
    """The last lines of a run in the working directory: where its pages and figures are, and what lists all results.

    folder: of the run, as the command line names it.
    """
    places = [Path("results") / f"coverage_{coverage}" for coverage in coverages]
    pages = [folder / path for place in places for path in sorted(place.glob("*.html"))]
    figures = [f"{folder / place / 'plots'}/" for place in places if any((place / "plots").glob("*.png"))]
    if pages:
        yield f"pages: {_names(map(str, pages))}"
    if figures:
        yield f"figures: {_names(figures)}"
    if pages or figures or any(True for place in places for _ in place.glob("*.influence.parquet")):
        shown_folder = folder if folder != Path() else Path("results")
        yield f"all results: arena-cje show {shlex.quote(str(shown_folder))}"


def _folder(folder: Path) -> Iterator[str]:
    """What is in a results folder, in that of a run, or in that of one coverage."""
    results = folder / "results" if (folder / "results").is_dir() else folder
    coverages = [results] if results.name.startswith("coverage_") else sorted(results.glob("coverage_*"))
    lines_by_coverage = {coverage: [*_coverage(coverage)] for coverage in coverages}
    others = [*_others(results)] if results not in coverages else []
    missing = _missing(results)
    if not any(lines_by_coverage.values()) and not others:
        hint = "; `arena-cje status` shows the progress of its run" if missing else ""
        raise UserError(
            f"{folder}: no results in it; looked for {results / 'coverage_*' / 'ESTIMATOR.json'}, {DECISION}, {DASHBOARD} and "
            f"plots/ beside it{hint}"
        )
    for coverage, lines in lines_by_coverage.items():
        if lines:
            yield from [coverage.name.replace("_", " "), *(f"  {line}" for line in lines)]
    if others:
        yield from ["all coverages", *(f"  {line}" for line in others)]
    if missing:
        yield f"missing of what the last run was to make: {_names(missing)}; the same command makes it"


def _coverage(folder: Path) -> Iterator[str]:
    """The decision, estimators, pages and figures of a coverage; nothing where it has none."""
    names = sorted(path.name.removesuffix(".influence.parquet") for path in folder.glob("*.influence.parquet"))
    estimators = [name for name in names if (folder / f"{name}.json").is_file()]
    accounts = [path for path in sorted(folder.glob("*.json")) if folder.name == "coverage_auto"]
    for path in accounts:
        if looks.is_account(account := files.read_json(path)):
            yield f"planned looks of {path.stem}: {account['sentence']} ({path})"
    yield from _decision(folder, estimators)
    if estimators:
        yield f"estimators: {', '.join(estimators)} ({folder / 'ESTIMATOR.json'})"
    tables = [name for name in ("comparisons.json", "validation.csv") if (folder / name).is_file()]
    if tables:
        yield f"tables: {', '.join(str(folder / name) for name in tables)}"
    pages = sorted(map(str, folder.glob("*.html")))
    if pages:
        yield f"pages: {', '.join(pages)}"
    figures = sorted(path.name for path in (folder / "plots").glob("*.png"))
    if figures:
        yield f"figures: {', '.join(figures)} ({folder / 'plots'}/)"
    if estimators:
        own = (exhibit.path for exhibit in EXHIBITS if exhibit.path.startswith(f"{RESULTS}/"))
        possible = [path.removeprefix(f"{RESULTS}/") for path in own]
        absent = [name for name in possible if not (folder / name).is_file() and name.endswith((".html", ".png"))]
        if absent:
            yield f"not made: {', '.join(absent)} (targets of snakemake, such as results/{folder.name}/{absent[0]})"


def _decision(folder: Path, estimators: Sequence[str]) -> Iterator[str]:
    """The decision by the recommended estimator, also where its file has not been made."""
    path = folder / DECISION
    content = files.read_json(path) if path.is_file() else None
    if decision_file.is_decision(content):
        name, headline = content["recommended"]["estimator"], content["decision"]["headline"]
        yield f"decision by {name}, the recommended: {headline} ({path})"
    elif estimators:
        paths = {name: folder / f"{name}.json" for name in estimators}
        results = [from_document(files.read_json(path), path) for path in paths.values()]
        first = recommended_first(results)[0]
        headline = first.decision["headline"] if first.decision else "made by an earlier version, without a decision"
        yield f"decision by {first.name}, the recommended: {headline} ({paths.get(first.name, folder)})"


def _others(results: Path) -> Iterator[str]:
    """What belongs to no single coverage."""
    groups = {
        "tables": ("export/results.csv", "export/results.parquet", "ablation/summary.csv", "ablation/summary.md"),
        "figures": ("plots/*.png", "planning/*.png", "ablation/plots/*.png"),
        "plan of the next study": ("planning/plan.json",),
        "pages to label on": ("labeling/*/label.html",),
        "archive of all": ("archive.zip",),
    }
    for name, patterns in groups.items():
        paths = [str(path) for pattern in patterns for path in sorted(results.glob(pattern))]
        if paths:
            yield f"{name}: {', '.join(paths)}"


def _missing(results: Path) -> list[str]:
    """Files for readers that the last run was to make and that are not there."""
    record = results.parent / run_record.RECORD
    if results.name != "results" or not record.is_file():
        return []
    outputs = (output for job in run_record.read(record).jobs for output in job.outputs)
    reader_files = (Path(output) for output in outputs if output.endswith((".json", ".csv", ".png", ".html", ".zip")))
    own = (
        path
        for path in reader_files
        if path.parts[1:2] and path.parts[1].startswith(("coverage_", "plots", "planning"))
    )
    return [str(path) for path in own if "fresh_draws" not in path.parts and not (results.parent / path).exists()]


def _names(paths: Iterable[str]) -> str:
    paths = list(paths)
    more = f" and {len(paths) - N_ROWS // 2} more" if len(paths) > N_ROWS // 2 else ""
    return f"{', '.join(paths[: N_ROWS // 2])}{more}"


def printouts(paths: Sequence[Path]) -> Iterator[str]:
    """The texts under their names, without control characters; what columns mean stands under the last table alone.

    Raises a `UserError` for the first that cannot be shown, after the texts before it.
    """
    texts: list[str] = []
    problem = None
    for path in paths:
        try:
            texts.append(printable(f"\n{path}\n{text(path)}"))
        except UserError as error:
            problem = error
            break
    parts = [one.split("\n\n") for one in texts]
    for k, own in enumerate(parts):
        later = {part for other in parts[k + 1 :] for part in other if _is_legend(part)}
        yield "\n\n".join(part for part in own if part not in later)
    if problem:
        raise problem


def _is_legend(part: str) -> bool:
    return " ".join(part.split()).startswith(MEANING)
