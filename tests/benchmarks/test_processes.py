"""Two processes over one: a machine that is slow for a while slows both sides of a round's ratio."""

from __future__ import annotations

import pytest

from benchmarks import processes
from benchmarks._timing import Clocks, Timing, Turn, _rates


def test_a_machine_that_slows_down_steadily_changes_no_ratio():
    speeds = {"one process": [100.0, 70.0], "two processes": [180.0, 120.0], "one process again": [80.0, 50.0]}
    result = processes._compared("two / one", speeds, "where")
    assert result.value == pytest.approx(2.0)
    assert result.met


def test_the_rate_of_a_turn_is_total_work_over_the_slowest_process_by_each_clock():
    turns = [Turn("two", "side", 2), Turn("one", "side", 1)]
    timings = [
        {"two": [Timing(10, 4.0, 1.0)], "one": [Timing(10, 2.0, 1.0)]},
        {"two": [Timing(10, 5.0, 2.0)], "one": []},
    ]
    wall, processor = Clocks(*(_rates(timings, turns, clock) for clock in Clocks._fields))
    assert (wall, processor) == ({"two": [4.0], "one": [5.0]}, {"two": [10.0], "one": [10.0]})
