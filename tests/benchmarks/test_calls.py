"""The benchmark of calls: each timed run sends all its calls, and the ratio to the ideal time is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena_cje.journal import read
from benchmarks import calls


def test_every_run_of_a_side_sends_all_its_calls_again(tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "LATENCY", 0.0)
    monkeypatch.setattr(calls, "FEW", 20)
    with calls._server() as url, calls._jobs(url, tmp_path) as sides:
        assert [sides["few"](), sides["few"](), calls._bare(url)] == [20, 20, 20]
    journals = sorted(Path(tmp_path).glob("*/0000.jsonl"))
    keys = [key for journal in journals for key, _ in read(journal)]
    assert len(journals) == 3  # the first is the warm-up
    assert len(keys) == len(set(keys)) == 40 + calls.LIMIT
    assert len((tmp_path / "spending.jsonl").read_text().splitlines()) == 40 + calls.LIMIT


@pytest.mark.parametrize(("option", "value"), [("--rate", 50.0), ("--rejected", 0.2)])
def test_throughput_of_a_server_that_rejects_is_compared_with_the_rate_that_it_grants(monkeypatch, option, value):
    monkeypatch.setattr(calls, "LATENCY", 0.0)
    monkeypatch.setattr(calls, "CALLS", 60)
    result = calls._of_granted("x", 10.0, "all of them", option, value)
    assert result.goal == ">= 0.7"
    assert result.value > 0
    rate = 10 * result.value
    assert f"60 calls, 8 at a time; {rate:.0f} replies a second of 10 granted (all of them)" in result.detail


def test_times_are_divided_by_the_ideal_time_under_the_limit():
    result = calls._over_ideal("x", [80.0, 160.0, 128.0], "here")
    assert result.value == pytest.approx(1.25)
    assert (result.goal, result.met) == ("<= 1.3", True)
    assert "ideal 12.5 s, by round 2.00, 1.00, 1.25" in result.detail


def test_processor_time_is_that_of_our_calls_over_that_of_the_bare_client():
    result = calls._processor_time({"ours": [250.0, 200.0, 250.0], "bare client": [500.0, 500.0, 500.0]})
    assert result.value == pytest.approx(2.0)
    assert "4.0 ms a call" in result.detail
    assert result.met is None
