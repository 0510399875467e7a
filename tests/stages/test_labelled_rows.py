"""The rows of a shard that the oracle labels are those it would label without shards, and first draws come first."""

import pytest

from arena_cje.stages.local import labelled


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("coverage", [0.1, 0.4, 1.0])
def test_the_oracle_labels_the_same_rows_with_and_without_shards(coverage, draws):
    rows = [{"prompt": i, "draw": d} for i in range(60) for d in range(draws)]
    whole = labelled(rows, coverage=coverage, start=0, draws=draws)
    shards = [
        row
        for start in range(0, 60, 20)
        for row in labelled(rows[start * draws : (start + 20) * draws], coverage=coverage, start=start, draws=draws)
    ]
    assert shards == whole
    assert len(whole) == pytest.approx(coverage * 60 * draws, abs=3 * draws)
    base = labelled([{"prompt": i, "draw": 0} for i in range(60)], coverage=coverage, start=0, draws=1)
    assert all(row in whole for row in base)
