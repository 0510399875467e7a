"""The progress of a run, read from files that the tests write in place of a run."""

from __future__ import annotations

import io
import json
import os
import time

import pytest

from arena_cje.stages import run_record, status
from arena_cje.terminal.progress import Progress, rows, stages
from arena_cje.terminal.screen import Screen


class Folder:
    """A run in a folder that began a minute ago."""

    def __init__(self, folder):
        self.folder, self.started = folder, time.time() - 60
        self.jobs = [self._job("generate", k) for k in range(2)] + [self._job("judge", k) for k in range(2)]
        self.jobs.append(run_record.PlannedJob(("results/direct.json",), True))
        self.jobs.append(run_record.PlannedJob(("results/old.json",), False))
        self.write("results/old.json", "{}")
        self.record()

    def _job(self, stage, shard):
        place = f"{stage}/base/{shard:04d}"
        paths = (f"logs/{place}.log", f"logs/{place}.tsv", f"results/journal/{place}.jsonl")
        return run_record.PlannedJob((f"results/{place}.jsonl",), True, stage, "base", f"{shard:04d}", 10, *paths)

    def record(self, **keys):
        values = {"started": self.started, "process": os.getpid(), "host": "elsewhere"} | keys
        self.write(str(run_record.RECORD), json.dumps(values | {"jobs": [vars(job) for job in self.jobs]}))

    def write(self, path, text):
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def finish(self, job, seconds=5):
        if job.benchmark:
            self.write(job.benchmark, f"s\titems\n{seconds}\t10\n")
        self.write(job.outputs[0], "{}")

    def status(self):
        return status.read_status(self.folder, with_rows=False)


@pytest.fixture
def run(tmp_path):
    return Folder(tmp_path)


def test_each_stage_has_a_row_and_the_last_row_has_the_time_left(run):
    run.finish(run.jobs[0])
    run.finish(run.jobs[1])
    run.finish(run.jobs[2])
    assert [" ".join(row.split()) for row in rows(run.status())] == [
        "generate 20/20, 4 a second",  # 20 in the five seconds before now
        "judge 10/20, 2 a second",
        "other jobs 1/2",
        "all 30 of 40 items (75%), 0.5 a second, a few seconds left",
    ]
    assert [stage.ended for stage in stages(run.status())] == [True, False, False]


def test_a_stage_with_nothing_to_do_has_no_row(run):
    run.jobs = run.jobs[4:]
    run.record()
    assert [" ".join(row.split()) for row in rows(run.status())] == [
        "jobs 1/2",
        "all 1 of 2 jobs done, time left not known yet",
    ]


def wait_for(text, stream):
    for _ in range(1000):
        if text in stream.getvalue():
            return
        time.sleep(0.01)
    raise AssertionError(stream.getvalue())


def test_without_a_terminal_a_line_is_printed_when_a_stage_begins_or_ends(run, monkeypatch):
    monkeypatch.setattr("arena_cje.terminal.progress.POLL", 0.01)
    stream = io.StringIO()
    progress = Progress(run.folder, Screen(stream), 0.2, redraw=False)
    run.finish(run.jobs[0])
    progress.start()
    wait_for("generate: begins with 10/20 done\n", stream)
    wait_for("1 min: 10 of 40 items (25%), ", stream)
    for job in run.jobs[1:]:
        run.finish(job)
    wait_for("other jobs: 2/2 done\n", stream)
    run.record(ended=time.time(), succeeded=True)
    progress.end()
    lines = stream.getvalue().splitlines()
    assert lines[-1] == "all: 40 of 40 items (100%), 2 of 2 other jobs done; took 1 min"
    assert sum(line.startswith("generate: 20/20 done") for line in lines) == 1
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_an_error_in_the_progress_is_printed_as_a_note_and_does_not_end_the_run(run):
    (run.folder / run_record.RECORD).write_text("{")
    stream = io.StringIO()
    progress = Progress(run.folder, Screen(stream), 1, redraw=False)
    progress.start()
    progress.end()
    assert stream.getvalue().startswith("NOTE the progress is not shown any more (UserError ")


def test_progress_without_an_interval_prints_nothing_at_the_end(run):
    stream = io.StringIO()
    Progress(run.folder, Screen(stream), None, redraw=False).end()
    assert stream.getvalue() == ""
