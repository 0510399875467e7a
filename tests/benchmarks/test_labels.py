"""The comparison of labels used alone, plainly and jointly, on a few draws of the worlds of `make bench ONLY=labels`."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from benchmarks import labels

FEW = 60


@cache
def chat(count: int) -> dict[tuple[str, str], dict]:
    rows = labels.summarise("chat", count, labels.replicates("chat", count, range(FEW)))
    return {(row["method"], row["kind"]): row for row in rows}


def test_labels_alone_are_means_and_paired_differences():
    nan = float("nan")
    label = {"base": np.array([0.0, 1.0, nan, 1.0]), "other": np.array([1.0, 1.0, 0.5, nan])}
    claims = labels._of_labels(label)
    assert claims["base"][0] == pytest.approx(2 / 3) and claims["other"][0] == pytest.approx(2.5 / 3)
    value, se, low, high = claims["other - base"]
    assert (value, se) == pytest.approx((0.5, 0.5)) and low == -(high - 1)


@pytest.mark.parametrize("count", [30, 100])
def test_joint_intervals_cover_and_differences_are_narrower_than_plain_ones(count):
    rows = chat(count)
    for kind in ("level", "difference"):
        assert rows["joint", kind]["coverage"] > 0.88
        assert rows["joint", kind]["error"] < 1.05 * rows["plain", kind]["error"]
    assert rows["plain", "difference"]["ratio"] > 1.3
    assert rows["joint", "difference"]["ratio"] < 1.25
    assert rows["joint", "difference"]["width"] < 0.75 * rows["plain", "difference"]["width"]
    assert rows["joint", "level"]["width"] < 0.9 * rows["labels", "level"]["width"]


def test_promises_are_held_against_the_rows():
    rows = [row for count in (30, 100) for row in chat(count).values()]
    results = {one.name: one for one in labels.promises(rows)}
    assert results["coverage of a level, worst"].value == min(
        row["coverage"] for row in rows if (row["method"], row["kind"]) == ("joint", "level")
    )
    widths = [
        chat(count)["joint", "difference"]["width"] / chat(count)["plain", "difference"]["width"] for count in (30, 100)
    ]
    assert results["width of a difference in chats / plain"].value == max(widths)
    assert len(labels._table(rows).splitlines()) == 2 + len(rows)
