"""The benchmark of prompt sets: conversations as the hub has them, and a ratio of two sides of one run."""

from __future__ import annotations

from benchmarks import prompts
from benchmarks._arena import schema


def test_conversations_have_the_schema_of_the_hub_and_are_of_several_kinds():
    import pyarrow as pa

    table = pa.Table.from_pylist(list(prompts.conversations(300)), schema=schema())
    assert len(set(table["question_id"].to_pylist())) == 300
    assert {"English", "German"} == set(table["language"].to_pylist())
    assert {1, 3} == set(table["turn"].to_pylist())


def test_the_ratio_compares_both_sides_of_one_run():
    result = next(prompts.run(300))
    assert result.name == "selection / pyarrow's reading"
    assert result.value > 0 and result.detail.startswith("300 conversations of ")
