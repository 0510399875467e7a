"""The benchmark of large data at a small size: the stages end and count all rows."""

from __future__ import annotations

import json

import pytest

from arena_cje.errors import UserError
from benchmarks import _large_data as large_data
from benchmarks import large


def test_the_stages_process_every_row(tmp_path):
    large_data.write(tmp_path, 60)
    large_data.write_stages(tmp_path, 60)
    jobs = large._jobs()
    for stage in ("assembly", "import"):
        cost = large.in_process(tmp_path, jobs[stage])
        assert cost.cpu > 0 and cost.peak > 10
        outputs = jobs[stage].outputs
        rows = [json.loads(line) for line in (tmp_path / outputs["dataset"]).read_text().splitlines()]
        summary = json.loads((tmp_path / outputs["summary"]).read_text())
        assert summary["n_rows"] == len(rows) == 60
        assert [row["prompt_id"] for row in rows] == [f"q{k}" for k in range(60)]
        assert set(rows[0]["target_policy_logprobs"]) == set(large_data.POLICIES)
    n_draws = {path.stem: path.read_text().count("\n") for path in (tmp_path / large.FOLDER / "fresh_draws").iterdir()}
    assert n_draws == dict.fromkeys(large_data.POLICIES, 60)


def test_numbers_of_rows_that_are_no_numbers_are_refused(monkeypatch):
    monkeypatch.setenv("ARENA_CJE_BENCH_ROWS", "10,20")
    assert large._numbers_of_rows() == (10, 20)
    monkeypatch.setenv("ARENA_CJE_BENCH_ROWS", "many")
    with pytest.raises(UserError, match="expected numbers of rows"):
        next(large.run())
