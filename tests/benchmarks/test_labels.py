"""The comparison of labels used alone, plainly and jointly, on a few draws of the worlds of `make bench ONLY=labels`."""

from __future__ import annotations

import json
import sys
from functools import cache

import numpy as np
import pytest

from benchmarks import _label_peers, labels

FEW = 60


@cache
def chat(count: int) -> dict[tuple[str, str], dict]:
    rows = labels.summarise("chat", count, labels.replicates("chat", count, range(FEW)))
    return {(row["method"], row["kind"]): row for row in rows}


def test_estimates_from_labels_alone_are_means_and_paired_differences():
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


def test_promises_are_checked_against_the_rows():
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


def test_the_public_packages_get_the_same_draws_as_the_other_methods(monkeypatch):
    """Their results, here the mean labels from a replaced interpreter, become rows beside ours."""

    class Answer:
        def __init__(self, command, **_):
            with np.load(command[2]) as file:
                policies, label = file["policies"].tolist(), file["label"]
            means = np.nanmean(label, axis=2)
            claims = [{p: (m, 0.1, m - 0.2, m + 0.2) for p, m in zip(policies, row, strict=True)} for row in means]
            self.stdout = json.dumps([{"cje-eval": one} for one in claims])

    monkeypatch.setattr(labels.subprocess, "run", Answer)
    monkeypatch.setattr(labels, "PEER_DRAWS", 3)
    rows = labels.by_peers(sys.executable, "chat", 30)
    assert {row["method"] for row in rows} == {"cje-eval"} and len(rows) == 3 * 4
    own = [row for row in labels.replicates("chat", 30, range(3)) if row["method"] == "labels"]
    errors = {claim: [row["error"] for row in own if row["claim"] == claim] for claim in ("base", "better")}
    for claim, expected in errors.items():
        assert [row["error"] for row in rows if row["claim"] == claim] == pytest.approx(expected)
    assert labels.by_peers(None, "chat", 30) == []


def test_widths_are_compared_only_with_packages_that_cover():
    own_rows = [row for row in chat(30).values() if row["method"] == "joint"]
    peer_rows = [
        row | {"method": peer, "width": 2 * row["width"], "coverage": coverage}
        for row in own_rows
        for peer, coverage in zip(_label_peers.METHODS, (0.95, 0.8), strict=True)
    ]
    results = {one.name: one for one in labels._against_peers(own_rows + peer_rows)}
    assert results["width of a level in chats / cje-eval"].value == pytest.approx(0.5)
    assert results["width of a level in chats / ppi_py"].value is None
