"""Plans from noisy pilots: a few of those of `make bench ONLY=planning`."""

from __future__ import annotations

from functools import cache

import pytest

from benchmarks import planning

FEW = 6


@cache
def chat() -> tuple[float, list[dict]]:
    width = planning.typical_width(planning.WORLDS["chat"], 300, 50) * planning.SHARPER
    return width, planning.studies("chat", 300, 50, width, range(FEW))


def test_planned_studies_have_about_the_planned_width_and_stay_within_budget():
    width, studies = chat()
    rows = {row["kind"]: row for row in planning.summarise("chat", 300, 50, width, studies)}
    assert all(row["plans"] == FEW and row["reached"] >= 0.75 for row in rows.values())
    assert all(0.6 < row["median_width"] < 1.1 for row in rows.values())
    assert rows["budget"]["over_budget"] == 0
    assert rows["budget"]["median_cost"] == pytest.approx(planning.BUDGET, rel=0.01)  # and it is spent
    assert rows["power"]["detected"] >= 0.75


def test_promises_are_checked_against_the_rows():
    width, studies = chat()
    rows = planning.summarise("chat", 300, 50, width, studies)
    results = {one.name: one for one in planning.promises(rows)}
    assert results["planned studies that reach their width, worst"].value == min(row["reached"] for row in rows)
    assert results["planned studies over their budget"].value == 0
