"""Coverage, error, width and refusals in worlds whose truth is known, against the levels that intervals promise.

The default is a subset of the grid; FULL=1 in the environment runs all of it. Finished cells are kept beside the result
and not run again. The table of all cells is results/bench/coverage.csv.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._result import Result
from benchmarks._simulation import CASES, Cell, Row, run_cell
from benchmarks._timing import cores, progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDER = Path("results/bench/coverage")
SIZES, SHARES = (250, 1000, 5000), (0.05, 0.10, 0.25, 0.50)
FEW = ("healthy", "few_scores", "binary")  # cases that also run with 25 labels unless all do

PLENTY, SOME, ENOUGH = 50, 25, 30  # labels from which the three promises hold


def cells() -> list[Cell]:
    """The cells to run: all, or the default subset."""
    if os.environ.get("FULL") == "1":
        return [Cell(case, n, share) for n in SIZES for share in SHARES for case in CASES]
    common = [Cell(case, n, share) for n, share in ((250, 0.25), (1000, 0.05)) for case in CASES]
    more = [Cell(case, n, share) for n, share in ((250, 0.10), (1000, 0.25)) for case in CASES if case.name in FEW]
    return [*more, *common]


def run() -> Iterator[Result]:
    """Run the cells, write the table, and hold it against what is promised."""
    chosen, rows = cells(), []
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as pool:
        for k, cell in enumerate(chosen):
            rows += run_cell(cell, pool, FOLDER)
            progress(f"{k + 1} of {len(chosen)}: {cell.name}")
    _write(rows, FOLDER.with_suffix(".csv"))
    print(_table(rows))
    yield from promises(rows)


def promises(rows: Sequence[Row]) -> Iterator[Result]:
    """How many cells break each promise by more than two Monte Carlo errors, and which."""
    honest = [row for row in rows if row["kind"] in ("sound", "thin") and row["published"]]
    many = [row for row in honest if row["labels"] >= PLENTY]
    yield _count("coverage below .93, 50 labels or more", [r for r in many if below(r, 0.93)], many)
    yield _count("coverage above .97, 50 labels or more", [r for r in many if above(r, 0.97)], many, goal=None)
    some = [row for row in honest if row["labels"] >= SOME]
    yield _count("coverage below .90, 25 labels or more", [r for r in some if below(r, 0.90)], some)
    wrong = [row for row in rows if row["kind"] == "unsound"]
    yield _count(
        "wrong levels published in 1 % of runs or more", [r for r in wrong if r["wrong_published"] >= 0.01], wrong
    )
    sound = [row for row in rows if row["kind"] == "sound" and row["labels"] >= ENOUGH]
    yield _count("sound claims refused in 5 % of runs or more", [r for r in sound if r["refused"] >= 0.05], sound)
    unseen = [row for row in rows if row["kind"] == "unseen"]
    worst = max((row["wrong_published"] for row in unseen), default=None)
    yield Result(
        "wrong levels that no data shows, worst cell", worst, None, f"{len(unseen)} rows, all transport_unverified"
    )


def below(row: Row, level: float) -> bool:
    """Is the coverage of what is published lower than a level by more than two Monte Carlo errors?"""
    return row["coverage"] < level - 2 * np.sqrt(level * (1 - level) / row["published"])


def above(row: Row, level: float) -> bool:
    """Is it higher by more than two Monte Carlo errors?"""
    return row["coverage"] > level + 2 * np.sqrt(level * (1 - level) / row["published"])


def _count(name: str, broken: Sequence[Row], of: Sequence[Row], *, goal: str | None = "<= 0") -> Result:
    named = [f"{r['case']} n={r['n']} {r['share']:.0%} {r['policy']} {r['estimator']}" for r in broken]
    more = f", and {len(named) - 4} more" if len(named) > 4 else ""
    return Result(
        name, len(broken), goal, f"of {len(of)} rows; {'; '.join(named[:4])}{more}" if named else f"of {len(of)} rows"
    )


def _table(rows: Sequence[Row]) -> str:
    """All rows, one a line."""
    numbers = "".join(f"{title:>9}" for title in ("cover", "rmse", "width", "refused", "wrong"))
    head = f"{'case':34}{'n':>6}{'labels':>8}  {'policy':11}{'estimator':16}{'kind':9}{numbers}"
    lines = [head, "-" * len(head)]
    for row in rows:
        covered = "-" if row["coverage"] is None else f"{row['coverage']:.3f}"
        lines.append(
            f"{row['case']:34}{row['n']:>6}{row['labels']:>8}  {row['policy']:11}{row['estimator']:16}{row['kind']:9}"
            f"{covered:>9}{row['rmse']:>9.4f}{row['width']:>9.3f}{row['refused']:>9.3f}{row['wrong_published']:>9.3f}"
        )
    return "\n".join(lines)


def _write(rows: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)
