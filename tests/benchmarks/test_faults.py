"""The table of faults: an injection that has ended is not repeated, unless the code has changed."""

from __future__ import annotations

import pytest

import faults
from benchmarks import faults as benchmark

KINDS = faults.ANY_USER[:2]


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INJECTIONS", "4")
    monkeypatch.setenv("FAULTS", "kill -9 of")
    monkeypatch.setenv("SEED", "7")


def outcome(fault, seed, **counts):
    return faults.Outcome(fault, seed, **{"lost": 0, "doubled": 0, "different": 0, "silent": "", "detail": ""} | counts)


def test_the_table_counts_the_recorded_injections(tmp_path):
    names = [name for name in faults.FAULTS if "kill -9 of" in name]
    for k in range(4):
        benchmark.record(outcome(names[k % 3], 7 + k // 3, doubled=int(k == 3)), 1.0)
    results = {result.name: result for result in benchmark.run()}
    assert {name: results[name].value for name in names} == {names[0]: 1, names[1]: 0, names[2]: 0}
    assert results[names[0]].detail.startswith("of 2: seed 8")
    assert [results[count].value for count in benchmark.COUNTS] == [0, 1, 0]
    assert results["runs that did not end"].value == 0


def test_a_truncated_line_loses_only_its_own_injection():
    for seed in (1, 2):
        benchmark.record(outcome(KINDS[0], seed), 1.0)
    content = benchmark.FINISHED.read_bytes()
    benchmark.FINISHED.write_bytes(content[:-5])
    benchmark.record(outcome(KINDS[1], 1), 1.0)
    assert benchmark.finished(faults.Outcome).keys() == {(KINDS[0], 1), (KINDS[1], 1)}


def test_outcomes_of_another_version_of_the_code_do_not_count():
    benchmark.record(outcome(KINDS[0], 1), 1.0)
    text = benchmark.FINISHED.read_text()
    benchmark.FINISHED.write_text(text.replace(benchmark._code(), "0" * 16))
    assert benchmark.finished(faults.Outcome) == {}
