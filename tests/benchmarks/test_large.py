"""Large data at a small size: the stages end, count all rows, and hold no more rows in memory than they must."""

from __future__ import annotations

import json

import pytest

from arena_cje.errors import UserError
from benchmarks import _large_data as made
from benchmarks import large


def test_the_stages_take_every_row(tmp_path):
    made.write(tmp_path, 60)
    made.write_stages(tmp_path, 60)
    jobs = large._jobs()
    for stage in ("assembly", "import"):
        cost = large.in_process(tmp_path, jobs[stage])
        assert cost.cpu > 0 and cost.peak > 10
        outputs = jobs[stage].outputs
        rows = [json.loads(line) for line in (tmp_path / outputs["dataset"]).read_text().splitlines()]
        summary = json.loads((tmp_path / outputs["summary"]).read_text())
        assert summary["n_rows"] == len(rows) == 60
        assert [row["prompt_id"] for row in rows] == [f"q{k}" for k in range(60)]
        assert set(rows[0]["target_policy_logprobs"]) == set(made.POLICIES)
    drawn = {path.stem: path.read_text().count("\n") for path in (tmp_path / large.FOLDER / "fresh_draws").iterdir()}
    assert drawn == dict.fromkeys(made.POLICIES, 60)


def test_numbers_of_rows_are_numbers(monkeypatch):
    monkeypatch.setenv("ARENA_CJE_BENCH_ROWS", "10,20")
    assert large._numbers_of_rows() == (10, 20)
    monkeypatch.setenv("ARENA_CJE_BENCH_ROWS", "many")
    with pytest.raises(UserError, match="expected numbers of rows"):
        next(large.run())
