"""Shards are joined completely or not at all, and a judge must have a grade for every response."""

from __future__ import annotations

import polars as pl
import pytest

from arena_cje.errors import UserError
from arena_cje.stages import joins


def test_joined_shards_have_all_lines_in_order(tmp_path):
    contents = [b'{"a":1}\n{"a":2}\n', b"", b'{"a":3}\n']
    shards = [tmp_path / f"{k}.jsonl" for k in range(3)]
    for shard, content in zip(shards, contents, strict=True):
        shard.write_bytes(content)
    joins.join(shards, tmp_path / "all.jsonl")
    assert (tmp_path / "all.jsonl").read_bytes() == b"".join(contents)


def test_a_cut_shard_is_refused_by_name_and_nothing_is_written(tmp_path):
    (tmp_path / "0.jsonl").write_bytes(b'{"a":1}\n')
    (tmp_path / "1.jsonl").write_bytes(b'{"a":2}\n{"a"')
    with pytest.raises(UserError, match=f"^{tmp_path}/1.jsonl: is damaged: its last line is cut"):
        joins.join([tmp_path / "0.jsonl", tmp_path / "1.jsonl"], tmp_path / "all.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.jsonl", "1.jsonl"]


def rows(*draws: int) -> list[dict]:
    return [{"prompt_id": "q1", "draw_idx": draw} for draw in draws]


def test_missing_grades_of_a_judge_are_refused_with_the_first_response_that_lacks_one():
    paths = {"judge": "results/judge/base.jsonl", "oracle": "results/oracle/base/coverage_0.1.jsonl"}
    joins.check_complete(rows(0, 1), {"judge": rows(0, 1), "oracle": rows(0)}, paths)  # an oracle need not label all
    with pytest.raises(
        UserError,
        match=r"^results/judge/base.jsonl: lacks the grade of 1 of 2 responses \(for example prompt 'q1', draw 1\)",
    ):
        joins.check_complete(rows(0, 1), {"judge": rows(0), "oracle": []}, paths)


def test_missing_log_probabilities_are_refused_with_the_first_response_that_lacks_one():
    paths = {name: f"results/logprobs/{name}.parquet" for name in ("base", "a")}
    whole, short = pl.DataFrame({"prompt_id": ["q1", "q2"]}), pl.DataFrame({"prompt_id": ["q2"]})
    joins.check_scored(rows(0, 1), {"base": whole, "a": whole}, paths)
    with pytest.raises(
        UserError,
        match=r"^results/logprobs/a.parquet: lacks the log probability of 2 of 2 responses \(for example prompt 'q1', draw 0\)",
    ):
        joins.check_scored(rows(0, 1), {"base": whole, "a": short}, paths)
