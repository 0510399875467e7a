"""After a fault `arena-cje doctor --redo` and the same command end with the bytes of a run without it, and nothing is done twice.

Two of the faults that `make bench ONLY=faults` injects many times.
"""

from __future__ import annotations

import pytest

import faults


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> faults.Study:
    return faults.new_study(tmp_path_factory.mktemp("study"))


@pytest.mark.parametrize("fault", ["kill -9 of the group", "table short of lines"])
def test_after_a_fault_no_item_is_lost_or_done_twice_and_no_result_is_different(study, tmp_path, fault):
    outcome = faults.inject(study, fault, 1, tmp_path / "run")
    assert (outcome.lost, outcome.doubled, outcome.different, outcome.silent) == (0, 0, 0, ""), outcome.detail
