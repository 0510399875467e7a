"""What a benchmark found, as a record, a table and a file."""

from __future__ import annotations

import csv
import json
import operator
import os
import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
DETAIL_WIDTH = 60  # characters


@dataclass(frozen=True)
class Result:
    """One number and what it should be; `value` is None where it could not be measured; `detail` then has the reason."""

    name: str
    value: float | None
    goal: str | None  # a comparison and a number, such as ">= 0.95"
    detail: str

    @property
    def met(self) -> bool | None:
        """None where there is no goal or no value."""
        if self.goal is None or self.value is None:
            return None
        comparison, bound = self.goal.split()
        return COMPARISONS[comparison](self.value, float(bound))


def save_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows with the same columns as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def save(results: Sequence[Result], path: Path) -> Path:
    """Write the results as a list of objects, in one rename; values keep four digits."""
    rows = [asdict(result) | {"value": _rounded(result.value), "met": result.met} for result in results]
    order = ("name", "value", "goal", "met", "detail")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps([{key: row[key] for key in order} for row in rows], indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def table(group: str, results: Sequence[Result]) -> str:
    """The results, one a row, long details wrapped in their column."""
    rows = [("name", "value", "goal", "met", "detail"), *map(_cells, results)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    margin = sum(widths) + 2 * len(widths)
    lines = [f"benchmarks: {group}"]
    for name, value, goal, met, detail in rows:
        first, *more = textwrap.wrap(detail, DETAIL_WIDTH) or [""]
        cells = (name.ljust(widths[0]), value.rjust(widths[1]), goal.ljust(widths[2]), met.ljust(widths[3]), first)
        lines += ["  ".join(cells).rstrip(), *(" " * margin + part for part in more)]
    lines.insert(2, "-" * (margin + DETAIL_WIDTH))
    return "\n".join(lines)


def _cells(result: Result) -> tuple[str, str, str, str, str]:
    value = "-" if result.value is None else f"{result.value:.3g}"
    met = {True: "yes", False: "no", None: "-"}[result.met]
    return result.name, value, result.goal or "-", met, result.detail


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
