"""The promises of intervals and verdicts, in a few cells of the grid that `make bench ONLY=coverage` runs."""

from __future__ import annotations

import json
from concurrent.futures import Executor, Future

import numpy as np
import pytest

from arena_cje import estimators
from benchmarks import _simulation as simulation
from benchmarks import coverage
from benchmarks._remedies import outcomes
from benchmarks._simulation import CASES, DESIGNS, EDGE_CASES, FAR, Case, Cell, replicates, run_cell, summarise

FEW = 80  # replicates: a Monte Carlo error of .024


def case(name: str) -> Case:
    return next(one for one in CASES if one.name == name)


def cell_of(name: str, n: int, share: float, count: int = FEW) -> dict[tuple[str, str], dict]:
    cell = Cell(case(name), n, share)
    return {(row["policy"], row["estimator"]): row for row in summarise(cell, replicates(cell, range(count)))}


@pytest.mark.parametrize("name", ["few_scores", "binary"])
def test_intervals_of_sound_claims_are_published_and_cover(name):
    for (policy, estimator), row in cell_of(name, 250, 0.25).items():
        assert row["kind"] == "sound"
        assert row["refused"] < 0.05, (policy, estimator)
        assert row["coverage"] > 0.95 - 4 * np.sqrt(0.95 * 0.05 / FEW), (policy, estimator)


def test_a_shift_out_of_the_labelled_support_is_refused_and_the_other_policy_is_not():
    for (policy, estimator), row in cell_of("no_transport", 500, 0.25, 40).items():
        assert (row["refused"] > 0.9) == (policy == "unhelpful"), estimator
        assert row["refused"] < 0.1 or policy == "unhelpful", estimator
        assert row["wrong_published"] == 0


def test_a_policy_with_fifty_own_labels_is_published_with_an_interval_that_covers():
    rows = cell_of("no_transport +50 labels", 500, 0.25)
    for estimator in ("direct", "dr-cpo", "stacked-dr"):
        row = rows["unhelpful", estimator]
        assert (row["kind"], row["refused"]) == ("sound", 0)
        assert row["coverage"] > 0.87 and row["wrong_published"] < 0.03
    assert rows["unhelpful", "calibrated-ips"]["refused"] == 1


def test_own_labels_reveal_a_drop_that_the_scores_hide():
    rows = cell_of("no_transport_hidden +50 labels", 500, 0.25, 40)
    for estimator in estimators.NAMES:
        row = rows["worse", estimator]
        uses_them = estimators.needs_draws(estimator) and estimator != "tr-cpo"
        assert row["kind"] == ("sound" if uses_them else "unsound")
        assert row["refused"] == 0 if uses_them else row["refused"] > 0.9, estimator
        assert row["wrong_published"] < 0.05, estimator
    without_own_labels = cell_of("no_transport_hidden", 500, 0.25, 10)
    assert {row["kind"] for row in without_own_labels.values()} == {"unseen"}
    assert without_own_labels["worse", "direct"]["wrong_published"] == 1


def test_an_estimate_with_unnormalised_weights_is_refused_under_heavy_tails():
    row = cell_of("heavy_tails", 1000, 0.25, 40)["better", "ips"]
    assert row["refused"] > 0.9 and row["kind"] == "thin"


class DirectExecutor(Executor):
    """Runs each call at once in this process, and counts the calls."""

    def __init__(self) -> None:
        self.calls = 0

    def submit(self, function, /, *args, **kwargs):
        self.calls += 1
        future: Future = Future()
        future.set_result(function(*args, **kwargs))
        return future


def test_a_finished_cell_is_not_run_again_unless_the_code_has_changed(tmp_path, monkeypatch):
    cell, executor = Cell(case("healthy"), 250, 0.1), DirectExecutor()
    first = run_cell(cell, executor, tmp_path, n=2)
    assert executor.calls == 1
    assert run_cell(cell, executor, tmp_path, n=2) == first and executor.calls == 1
    run_cell(cell, executor, tmp_path, n=3)
    assert executor.calls == 2
    monkeypatch.setattr(simulation, "code", lambda: "another")
    run_cell(cell, executor, tmp_path, n=3)
    assert executor.calls == 3
    assert json.loads((tmp_path / cell.file_name).read_text())["code"] == "another"


def row(**changes) -> dict:
    return {
        "case": "healthy", "n": 250, "labels": 62, "share": 0.25, "policy": "better", "estimator": "direct",
        "kind": "sound", "replicates": 500, "published": 500, "coverage": 0.95, "refused": 0.0, "wrong_published": 0.0,
        "no_width": 0.0,
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "promise"),
    [
        ({"coverage": 0.90}, "coverage below .93"),
        ({"coverage": 0.99}, "coverage above .97"),
        ({"coverage": 0.86, "labels": 25}, "coverage below .90"),
        ({"kind": "unsound", "wrong_published": 0.02}, "wrong levels published"),
        ({"refused": 0.06, "published": 470}, "sound claims refused"),
        ({"case": "useless_judge", "kind": "unsound", "refused": 0.9}, "a useless judge carries a value"),
        ({"case": "pass rate 0.98", "coverage": 0.90, "labels": 10}, "pass rates near 0 or 1: coverage"),
        ({"case": "pass rate 0.98", "no_width": 0.01}, "pass rates near 0 or 1: intervals without width"),
    ],
)
def test_a_broken_promise_is_counted_and_named(changes, promise):
    results = {result.name: result for result in coverage.promises([row(), row(**changes)])}
    (broken_promise,) = [name for name in results if name.startswith(promise)]
    case = changes.get("case", "healthy")
    assert results[broken_promise].value == 1 and f"{case} n=250 25% better direct" in results[broken_promise].detail
    if not promise.startswith("coverage"):
        assert sum(result.value for result in results.values() if result.value) == 1


def remedy_row(**changes) -> dict:
    return {"world": "healthy", "policy": "base", "estimator": "direct", "kinds": "base_labels"} | changes


def test_remedies_are_counted_by_whether_the_estimate_is_then_published_and_wrong():
    rows = [
        remedy_row(published=True, wrong=False),
        remedy_row(published=True, wrong=True),
        remedy_row(published=False, wrong=False, kinds="own_labels"),
        remedy_row(published=None, wrong=None, kinds="other"),
    ]
    published_share, wrong_share = coverage.remedies_kept(rows)
    assert published_share.value == pytest.approx(2 / 3) and published_share.met is False
    assert published_share.detail == "of 3; 100.0% by base labels, 0.0% by own labels"
    assert wrong_share.value == pytest.approx(1 / 3) and wrong_share.detail == "1 left out"


def test_remedies_of_every_draw_of_every_world_are_followed_once(monkeypatch):
    study = coverage.STUDIES[0]
    monkeypatch.setattr(coverage, "STUDIES", (study,))
    executor = DirectExecutor()
    rows = coverage.follow_remedies(executor, draws=coverage.REMEDY_CHUNK + 1)
    assert executor.calls == 2
    assert rows == [row for seed in range(coverage.REMEDY_CHUNK + 1) for row in outcomes(study, seed)]
    assert {row["policy"] for row in rows if row["kinds"] == "own_labels"} == {"unhelpful"}


def test_monte_carlo_noise_is_no_broken_promise():
    results = list(
        coverage.promises([row(coverage=0.915), row(coverage=0.98), row(published=0, coverage=None, refused=0.0)])
    )
    assert [result.value for result in results[:3]] == [0, 0, 0]


def test_the_whole_grid_is_run_only_when_the_environment_asks_for_it(monkeypatch):
    monkeypatch.setenv("FULL", "1")
    cells = {(cell.case, cell.n, cell.share) for cell in coverage.cells()}
    assert {(case, n, share) for case in CASES for n in coverage.SIZES for share in coverage.SHARES} <= cells
    assert {(case, n, m / n) for case in EDGE_CASES for n, m in coverage.EDGE_SIZES} <= cells
    monkeypatch.delenv("FULL")
    cases = {cell.case for cell in coverage.cells()}
    assert set(CASES) <= cases and {case.name for case in cases - set(CASES)} >= set(coverage.FEW_EDGES)
    designs = [case for case in cases if case.design]
    assert {case.world for case in designs} == set(FAR) and {case.design for case in designs} == {
        "at random",
        "by score",
    }
    assert len({cell.file_name for cell in coverage.cells()}) == len(coverage.cells())


def test_labels_by_score_publish_a_far_policy_that_as_many_labels_at_random_refuse():
    rows = []
    for one in (one for one in DESIGNS if one.world == "far" and not one.paired):
        cell = Cell(one, 1000, 0.1)
        rows += summarise(cell, [row for seed in range(20) for row in simulation.replicate(cell, seed, ["direct"])])
    results = {result.name: result for result in coverage.of_designs(rows)}
    assert results["labels by score: effective labels of a far policy / at random, least"].value > 1.5
    assert results["labels by score: width / at random, worst"].value < 1.2
    refused = {row["case"]: row["refused"] for row in rows if row["policy"] == "unhelpful"}
    assert refused["far at random"] > 0.8 and refused["far by score"] < 0.2
