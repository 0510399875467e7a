"""The benchmark of the estimators: every limit has a number, and a comparison that cannot run has its reason."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

import arena_cje
from arena_cje import estimators as all_estimators
from arena_cje.estimation.records import Options
from arena_cje.evaluation.evaluate import evaluate
from benchmarks import _peer, estimators


@pytest.fixture
def small_sizes(monkeypatch):
    """Sizes too small for a measurement, at which all code runs."""
    for name, size in {"SMALL": 200, "MIDDLE": 250, "MANY": 200, "TENFOLD": 2, "ROUNDS": 1}.items():
        monkeypatch.setattr(estimators, name, size)


def test_every_limit_has_a_row_with_a_number(small_sizes):
    results = {
        result.name: result for name in ("few_rows", "many_rows", "job") for result in getattr(estimators, name)()
    }
    assert set(results) == {
        f"all {len(all_estimators.NAMES)} estimators together", "the slowest estimator alone", "dr-cpo, ten times the rows",
        *(f"{name}: {what}" for name in estimators.LINEAR for what in ("growth", "seconds", "memory")),
        "estimate job", "slow imports an estimate job does not need",
    }  # fmt: skip
    assert all(result.value >= 0 and result.goal for result in results.values())
    assert results["slow imports an estimate job does not need"].value == 0


def test_a_missing_number_never_counts_as_agreement():
    assert estimators._apart(np.array([0.1, 0.2]), [0.1, 0.25]) == pytest.approx(0.05)
    assert np.isnan(estimators._apart(np.array([np.nan, 0.2]), [0.1, 0.2]))


def test_the_files_for_the_peer_contain_the_arrays_that_are_evaluated(small_sizes, tmp_path):
    logged, draws = estimators._data(estimators.SMALL)
    place = estimators.save(tmp_path, logged, draws)
    read = arena_cje.analyze(place / "logged.jsonl", place / "draws", "dr-cpo", seed=0)
    direct = evaluate("dr-cpo", logged, draws, Options(seed=0))
    for k, policy in enumerate(read.policies):
        assert read.estimates[k] == pytest.approx(direct.estimates[policy].value, abs=1e-9)


def test_without_the_peer_every_row_states_the_reason(small_sizes, monkeypatch, tmp_path):
    monkeypatch.setenv(_peer.VARIABLE, str(tmp_path / "no-python"))
    rows = list(estimators.peer())
    assert len(rows) == 4 + 2 * len(estimators.ROBUST) + len(estimators.OTHERS)
    for row in rows:
        assert row.value is None and row.met is None
        assert "no-python, which does not exist" in row.detail


def test_an_interpreter_without_the_package_is_refused(monkeypatch):
    monkeypatch.setenv(_peer.VARIABLE, sys.executable)
    with pytest.raises(_peer.Absent, match=r"has no cje-eval==0\.3"):
        _peer.python()


@pytest.mark.skipif(
    _peer.VARIABLE not in os.environ, reason=f"{_peer.VARIABLE} names no interpreter with {_peer.REQUIREMENT}"
)
def test_numbers_that_depend_on_no_fold_agree_with_the_peer(small_sizes, tmp_path):
    estimators.save(tmp_path, *estimators._data(estimators.SMALL))
    for row in estimators.agreement(_peer.python(), tmp_path):
        assert row.met, (row.name, row.value, row.detail)
