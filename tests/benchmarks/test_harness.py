"""Benchmarks: fair ratios, replays of exactly the recorded calls, files of results, and one-sentence errors."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import benchmarks
from arena_cje.errors import UserError
from arena_cje.llama.distribution import Sampling, stream
from arena_cje.llama.generator import Request, generate
from arena_cje.llama.model import open_model
from arena_cje.llama.scorer import Item, score
from benchmarks import __main__ as command
from benchmarks import _replay, _timing, _work, engine
from benchmarks._memory import peak_of
from benchmarks._result import Result, save, table
from workflow_run import ROOT

if TYPE_CHECKING:
    from pathlib import Path

RESULTS = [
    Result("scorer / its calls", 0.97312, ">= 0.95", "4 items"),
    Result("much too slow", 3.0, "<= 1.3", "words " * 30),
    Result("unmeasured", None, ">= 1.8", "one core"),
    Result("without a goal", 2e-7, None, ""),
]


@pytest.mark.parametrize(
    ("value", "goal", "met"),
    [
        (0.95, ">= 0.95", True),
        (0.94, ">= 0.95", False),
        (1.3, "<= 1.3", True),
        (1.31, "<= 1.3", False),
        (1.0, "> 1", False),
        (1.01, "> 1", True),
        (5.0, None, None),
        (None, ">= 0.95", None),
    ],
)
def test_a_goal_is_met_or_missed_or_absent(value, goal, met):
    assert Result("x", value, goal, "").met is met


def test_results_are_saved_with_their_verdicts(tmp_path):
    path = save(RESULTS, tmp_path / "new" / "group.json")
    rows = json.loads(path.read_text())
    assert all(list(row) == ["name", "value", "goal", "met", "detail"] for row in rows)
    assert [row["value"] for row in rows] == [0.9731, 3.0, None, 2e-7]
    assert [row["met"] for row in rows] == [True, False, None, None]
    assert [path.name for path in path.parent.iterdir()] == ["group.json"]


def test_the_table_contains_every_field_of_every_result():
    lines = table("group", RESULTS).splitlines()
    assert lines[0] == "benchmarks: group"
    assert lines[1].split() == ["name", "value", "goal", "met", "detail"]
    assert lines[3].split("  ") == ["scorer / its calls", "0.973", ">= 0.95", "yes", "4 items"]
    assert any("much too slow" in line and " no " in line for line in lines)
    assert sum(line.count("words") for line in lines) == 30
    assert max(map(len, lines)) <= len(lines[2])


class Clock:
    """Time that passes only when a side works."""

    def __init__(self):
        self.now = 0.0
        self.worked = []

    def side(self, name: str, seconds: float, n_tokens: int):
        def work() -> int:
            self.worked.append(name)
            self.now += seconds
            return n_tokens

        return work


def test_sides_take_turns_and_are_measured_in_tokens_a_second(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_timing.time, "process_time", lambda: clock.now)
    rates = _timing.measure({"a": clock.side("a", 2, 10), "b": clock.side("b", 4, 10)}, rounds=3)
    assert clock.worked == ["a", "b"] * 3
    assert rates == {"a": [5.0] * 3, "b": [2.5] * 3}
    assert _timing.ratio(rates, "a", "b") == 2
    assert _timing.ratio(rates, "b", "a") == 0.5


def test_a_ratio_ignores_a_slow_machine_and_one_outlying_round():
    speed = np.array([1.0, 0.4, 0.7])  # of the machine, by round
    rates = {"a": list(300 * speed), "b": list(100 * speed)}
    assert _timing.ratio(rates, "a", "b") == pytest.approx(3)
    rates["a"][0] /= 10
    assert _timing.ratio(rates, "a", "b") == pytest.approx(3)
    assert min(_timing.by_round(rates, "a", "b")) == pytest.approx(0.3)


@contextlib.contextmanager
def sleeping_side(folder: Path):
    """A side that records when it begins and ends; one process is late."""
    with contextlib.suppress(FileExistsError):
        (folder / "late").touch(exist_ok=False)
        time.sleep(0.8)
    notes = folder / f"{os.getpid()}.txt"

    def side() -> int:
        began = time.monotonic()
        time.sleep(0.4)
        with notes.open("a") as file:
            print(began, time.monotonic(), file=file)
        return 10

    yield {"sleep": side}


@contextlib.contextmanager
def failing_side(folder: Path):
    """One process fails, while the other waits to begin."""
    with contextlib.suppress(FileExistsError):
        (folder / "failed").touch(exist_ok=False)
        raise ValueError("no such model")
    yield {"sleep": lambda: 10}


def test_the_rate_of_processes_is_their_total_work_over_the_time_of_the_slowest():
    timings = [{"two": [_timing.Timing(10, 0.4, 0.2)]}, {"two": [_timing.Timing(30, 0.5, 0.1)]}]
    assert _timing._rates(timings, [_timing.Turn("two", "any", 2)], "wall") == {"two": [40 / 0.5]}
    assert _timing._rates(timings, [_timing.Turn("two", "any", 2)], "processor") == {"two": [40 / 0.2]}


def test_processes_work_at_the_same_time(tmp_path):
    turns = [_timing.Turn("one", "sleep", 1), _timing.Turn("two", "sleep", 2)]
    prepare = functools.partial(sleeping_side, tmp_path)
    rates, processor = _timing.side_by_side(prepare, turns, rounds=2)
    assert len(rates["one"]) == len(rates["two"]) == 2
    assert min(processor["two"]) > 10 * max(rates["two"])  # to sleep takes no processor time
    second, first = sorted((np.loadtxt(path) for path in tmp_path.glob("*.txt")), key=len)
    assert (len(first), len(second)) == (4, 2)  # both rounds of both turns, and those of the turn with two processes
    began, ended = np.stack([first[1::2], second]).transpose(2, 0, 1)  # (process, round) each
    assert (began.max(axis=0) < ended.min(axis=0)).all()


def test_a_failing_process_raises_its_own_error_and_no_other_process_waits_for_it(tmp_path):
    turns = [_timing.Turn("two", "sleep", 2)]
    with pytest.raises(ValueError, match="no such model"):
        _timing.side_by_side(functools.partial(failing_side, tmp_path), turns)


@pytest.fixture(scope="module")
def model(tiny_model):
    with open_model(tiny_model, n_ctx=256) as model:
        yield model


def draw(model) -> None:
    requests = [Request(i, range(3 + i, 20), stream(0, "base", str(i), 0)) for i in range(5)]
    list(generate(model, requests, Sampling(), 6, n_slots=3))


def score_some(model) -> None:
    list(score(model, [Item(i, range(i, 20), range(30, 50 - i)) for i in range(5)], [Sampling()]))


@pytest.mark.parametrize("work", [draw, score_some])
def test_a_replay_makes_the_recorded_calls_and_no_others(model, work):
    with _replay.recorded() as recording:
        work(model)
    assert recording.calls
    with _replay.recorded() as again, _replay.Replay(model, recording) as replay:
        replay.run()
        replay.run()  # from empty caches, or llama.cpp would refuse positions that it has
    clear = ("llama_memory_clear", (False,))
    assert again.calls == 2 * [clear, *recording.calls]
    assert again.params is recording.params


def test_a_recording_has_every_token_the_scorer_reads(model):
    items = [Item(i, range(i, 20), range(30, 50 - i)) for i in range(5)]
    with _replay.recorded() as recording:
        list(score(model, items, [Sampling()]))
    assert [len(batch.tokens) for batch in recording.batches] == [_work.n_tokens([item]) for item in items]
    assert [sum(batch.logit_mask) for batch in recording.batches] == [len(item.response_ids) for item in items]


def test_calls_after_the_block_are_not_recorded(model):
    with _replay.recorded() as recording:
        score_some(model)
    before = len(recording.calls)
    score_some(model)
    assert len(recording.calls) == before


def allocate() -> None:
    np.ones(30_000_000)  # 240 MB


def test_peak_memory_is_that_of_the_task_alone():
    ballast = np.ones(60_000_000)  # 480 MB here, which must not count for the other process
    assert 240e6 < peak_of(allocate) < 480e6
    assert len(ballast)


def test_groups_are_run_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmarks, "NAMES", ("first", "second"))
    monkeypatch.setattr(benchmarks, "get", lambda name: SimpleNamespace(run=lambda: iter(RESULTS)))
    assert command.main(["--out", str(tmp_path)]) == 0  # though a goal is missed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.json", "second.json"]
    output = capsys.readouterr().out
    assert "benchmarks: first" in output and "benchmarks: second" in output and " no " in output


def test_only_the_named_group_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "get", lambda name: SimpleNamespace(run=lambda: iter(RESULTS)))
    assert command.main(["engine", "--out", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["engine.json"]


def test_an_unknown_group_is_refused_before_any_is_run(tmp_path):
    words = [sys.executable, "-m", "benchmarks", "engine", "engin", "--out", str(tmp_path)]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr == (
        "ERROR: unknown group of benchmarks 'engin' (did you mean 'engine'?); "
        f"available: {', '.join(benchmarks.NAMES)}\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_missing_model_says_how_it_is_fetched(monkeypatch):
    monkeypatch.setattr(_work, "MODEL", ROOT / "resources" / "models" / "none.gguf")
    with pytest.raises(UserError, match=r"resources/models/none\.gguf is not there; `make run` fetches it"):
        next(engine.run())
