"""Coverage, error, width and refusals in worlds whose truth is known, against the levels that intervals promise.

The default is a subset of the grid; FULL=1 in the environment runs all of it. Finished cells are kept beside the result
and not run again. The table of all cells is results/bench/coverage.csv. At the end refused policies get what their remedies
name, and it is counted how many are published then.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import _looks
from benchmarks._remedies import STUDIES, study_outcomes
from benchmarks._result import Result, save_table
from benchmarks._simulation import CASES, DESIGNS, EDGE_CASES, EDGE_OWN_LABELS, FAR, Cell, Row, run_cell
from benchmarks._timing import cores, progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Executor

FOLDER = Path("results/bench/coverage")
SIZES, SHARES = (250, 1000, 5000), (0.05, 0.10, 0.25, 0.50)
FEW = ("healthy", "few_scores", "binary")  # cases that also run with 25 labels unless all do

EDGE_SIZES = ((200, 25), (200, 40), (1000, 100), (5000, 250))  # rows and labels
JUDGE_LABELS = (30, 50, 100, 200)
DESIGN_SIZES = ((1000, 0.10), (1000, 0.05), (250, 0.25))  # rows and share; the first, of far policies, unless all do
FEW_EDGES = ("pass rate 0.02", "pass rate 0.95, sharp judge", "pass rate 0.98")  # that run unless all do

REMEDY_DRAWS = 100  # of each world in which policies are refused
REMEDY_CHUNK = 5  # draws that a process takes at a time

PLENTY, SOME, ENOUGH = 50, 25, 30  # labels from which the three promises hold


def cells() -> list[Cell]:
    """The cells to run: all, or the default subset."""
    by_judge = [
        Cell(case, 1000, m / 1000)
        for case in CASES
        if "useful" in case.world or "useless" in case.world
        for m in JUDGE_LABELS
    ]
    own = Cell(EDGE_OWN_LABELS, 200, 40 / 200)
    if os.environ.get("FULL") == "1":
        grid = [Cell(case, n, share) for n in SIZES for share in SHARES for case in CASES]
        edges = [Cell(case, n, m / n) for case in EDGE_CASES for n, m in EDGE_SIZES]
        return distinct(
            [*grid, *by_judge, own, *edges, *(Cell(case, *size) for case in DESIGNS for size in DESIGN_SIZES)]
        )
    edges = [Cell(case, n, m / n) for case in EDGE_CASES if case.name in FEW_EDGES for n, m in EDGE_SIZES[:2]]
    common = [Cell(case, n, share) for n, share in ((250, 0.25), (1000, 0.05)) for case in CASES]
    more = [Cell(case, n, share) for n, share in ((250, 0.10), (1000, 0.25)) for case in CASES if case.name in FEW]
    designs = [Cell(case, *DESIGN_SIZES[0]) for case in DESIGNS if case.world in FAR]
    return distinct([*more, *common, *by_judge, own, *edges, *designs])


def distinct(chosen: Sequence[Cell]) -> list[Cell]:
    """The cells, each once."""
    return list({cell.name: cell for cell in chosen}.values())


def run() -> Iterator[Result]:
    """Run the cells, write the table, and hold it against what is promised."""
    chosen, rows = cells(), []
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as pool:
        for k, cell in enumerate(chosen):
            rows += run_cell(cell, pool, FOLDER)
            progress(f"{k + 1} of {len(chosen)}: {cell.name}")
        looks = [_looks.run_cell(cell, pool, FOLDER) for cell in _looks.CELLS]
        followed = follow_remedies(pool)
    save_table(rows, FOLDER.with_suffix(".csv"))
    save_table(looks, FOLDER.with_name("looks.csv"))
    print(_table(rows))
    yield from promises(rows)
    yield from map(look_promise, looks)
    yield from remedies_kept(followed)


def follow_remedies(pool: Executor, draws: int = REMEDY_DRAWS) -> list[Row]:
    """One row for each refused policy: what its remedies name, and whether it is published once it has that."""
    chunks = [
        (study, range(start, min(start + REMEDY_CHUNK, draws)))
        for study in STUDIES
        for start in range(0, draws, REMEDY_CHUNK)
    ]
    return list(itertools.chain.from_iterable(pool.map(study_outcomes, *zip(*chunks, strict=True))))


def remedies_kept(rows: Sequence[Row]) -> Iterator[Result]:
    """How many refused policies are published once they have what their remedies name, and how many of these wrongly."""
    followed = [row for row in rows if row["published"] is not None]
    kinds = sorted({row["kinds"] for row in followed})
    by_kind = ", ".join(f"{_share(followed, 'published', kind):.1%} by {kind.replace('_', ' ')}" for kind in kinds)
    yield Result(
        "remedies kept: refused policies that they publish",
        _share(followed, "published"),
        ">= 0.9",
        f"of {len(followed)}; {by_kind}",
    )
    left_out = len(rows) - len(followed)
    yield Result("of these, values that are far off", _share(followed, "wrong"), "<= 0.03", f"{left_out} left out")


def _share(rows: Sequence[Row], name: str, kind: str | None = None) -> float | None:
    """Share of the rows, those of a kind of remedy if it is named, for which something is true."""
    values = [row[name] for row in rows if kind in (None, row["kinds"])]
    return float(np.mean(values)) if values else None


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
    useless = [row for row in wrong if row["case"] == "useless_judge"]
    yield _count(
        "a useless judge carries a value in 1 % of runs or more",
        [r for r in useless if r["refused"] <= 0.99],
        useless,
        goal=None,
    )
    edge = [row for row in honest if row["case"].startswith("pass rate")]
    yield _count("pass rates near 0 or 1: coverage below .93", [r for r in edge if below(r, 0.93)], edge)
    yield _count("pass rates near 0 or 1: intervals without width", [r for r in edge if has_no_width(r)], edge)
    yield from of_designs([row for row in rows if row["estimator"] == "direct"])
    unseen = [row for row in rows if row["kind"] == "unseen"]
    worst = max((row["wrong_published"] for row in unseen), default=None)
    yield Result(
        "wrong levels that no data shows, worst cell", worst, None, f"{len(unseen)} rows, all transport_unverified"
    )


def look_promise(row: Row) -> Result:
    """How many studies are wrong at some planned look, against the level that all looks share."""
    allowed = 0.05 + 2 * np.sqrt(0.05 * 0.95 / row["replicates"])
    by_width = row["cell"] == "until width"
    wrong = row["miss_at_the_end" if by_width else "miss_at_some_look"]
    ratio = row["last_width"] / row["fixed_width"]
    return Result(
        f"planned looks, {row['cell']}: wrong at {'the last' if by_width else 'some'} look",
        wrong,
        f"<= {allowed:.3f}",
        f"plain intervals at some look {row['miss_at_some_plain_look']:.3f}; last interval {ratio:.2f} x as wide as without "
        f"looks; {row['labels']:.0f} labels on average, {row['decided']:.0%} ended by a decision or the width",
    )


def of_designs(rows: Sequence[Row]) -> Iterator[Result]:
    """Labels where the targets' scores lie (`by score`) against as many labels at random: coverage, errors, effective labels."""
    uniform = {(row["case"], row["n"], row["labels"], row["policy"]): row for row in rows}
    pairs = [
        (row, uniform[row["case"].replace(" by score", " at random"), row["n"], row["labels"], row["policy"]])
        for row in rows
        if row["case"].endswith(" by score")
    ]
    if not pairs:
        return
    yield _count(
        "labels by score: coverage below .93", [row for row, _ in pairs if row["published"] and below(row, 0.93)], pairs
    )
    for what in ("width", "rmse"):
        row, other = max(pairs, key=lambda pair: pair[0][what] / pair[1][what])
        place = f"{row['case']}, {row['policy']}, {row['labels']} labels"
        goal = "<= 1.1" if what == "width" else None
        yield Result(f"labels by score: {what} / at random, worst", row[what] / other[what], goal, place)
    far = [pair for pair in pairs if pair[0]["policy"] == "unhelpful" and "paired" not in pair[0]["case"]]
    row, other = min(far, key=lambda pair: pair[0]["effective"] / pair[1]["effective"])
    detail = (
        f"{row['case']}: {row['effective']:.0f} for {other['effective']:.0f} of {row['labels']} labels, "
        f"refused {row['refused']:.0%} for {other['refused']:.0%}"
    )
    gain = row["effective"] / other["effective"]
    yield Result("labels by score: effective labels of a far policy / at random, least", gain, ">= 1.5", detail)


def below(row: Row, level: float) -> bool:
    """Is the coverage of what is published lower than a level by more than two Monte Carlo errors?"""
    return row["coverage"] < level - 2 * np.sqrt(level * (1 - level) / row["published"])


def above(row: Row, level: float) -> bool:
    """Is it higher by more than two Monte Carlo errors?"""
    return row["coverage"] > level + 2 * np.sqrt(level * (1 - level) / row["published"])


def has_no_width(row: Row) -> bool:
    """Is an interval published that is a point? The difference of a clone under weights of one is zero by construction."""
    return row["no_width"] > 0 and row["policy"] != "clone - base"


def _count(name: str, broken: Sequence[Row], of: Sequence[Row], *, goal: str | None = "<= 0") -> Result:
    failures = [f"{r['case']} n={r['n']} {r['share']:.0%} {r['policy']} {r['estimator']}" for r in broken]
    more = f", and {len(failures) - 4} more" if len(failures) > 4 else ""
    return Result(
        name,
        len(broken),
        goal,
        f"of {len(of)} rows; {'; '.join(failures[:4])}{more}" if failures else f"of {len(of)} rows",
    )


def _table(rows: Sequence[Row]) -> str:
    """All rows, one a line."""
    numbers = "".join(f"{title:>10}" for title in ("cover", "rmse", "width", "effective", "refused", "wrong"))
    head = f"{'case':34}{'n':>6}{'labels':>8}  {'policy':17}{'estimator':16}{'kind':9}{numbers}"
    lines = [head, "-" * len(head)]
    for row in rows:
        effective = "-" if row["effective"] is None else f"{row['effective']:.1f}"
        covered = "-" if row["coverage"] is None else f"{row['coverage']:.3f}"
        lines.append(
            f"{row['case']:34}{row['n']:>6}{row['labels']:>8}  {row['policy']:17}{row['estimator']:16}{row['kind']:9}"
            f"{covered:>10}{row['rmse']:>10.4f}{row['width']:>10.3f}{effective:>10}{row['refused']:>10.3f}{row['wrong_published']:>10.3f}"
        )
    return "\n".join(lines)
