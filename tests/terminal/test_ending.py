"""The last lines of a run that did not succeed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from arena_cje.stages import run_record
from arena_cje.stages.run_record import PlannedJob, RunRecord
from arena_cje.stages.status import JobState, Status
from arena_cje.terminal import ending


def final_status(*errors, interrupted=False):
    """The status of a run in which one job failed with each error, and one job succeeded."""
    states = [
        JobState(PlannedJob((f"{k}.json",), True, log=f"logs/{k}.log"), "failed", error=error)
        for k, error in enumerate(errors)
    ]
    success = JobState(PlannedJob(("done.json",), True), "done")
    record = RunRecord(time.time(), 1, run_record.socket.gethostname(), (), time.time(), False, interrupted)
    return Status(record, (), (*states, success), time.time())


@pytest.fixture(autouse=True)
def command_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/opt/snakemake/__main__.py", "--cores", "2", "a file.json"])
    monkeypatch.delenv("ARENA_CJE_COMMAND", raising=False)


CONTINUE_LINE = "The same command goes on from here: snakemake --cores 2 'a file.json'"


def test_each_reason_is_printed_once_and_then_the_command_that_continues(monkeypatch):
    lines = [*ending.lines(final_status("no key", "the disk is full", "no key", "it ended in logs/3.log"))]
    assert lines == [
        "ERROR no key (logs/0.log and 1 more job)",
        "ERROR the disk is full (logs/1.log)",
        "ERROR it ended in logs/3.log",
        CONTINUE_LINE,
    ]
    monkeypatch.setenv("ARENA_CJE_COMMAND", "make run CORES=2 ")
    assert [*ending.lines(final_status("no key"))][-1] == "The same command goes on from here: make run CORES=2"


def test_paths_and_commands_fit_the_folder_where_the_command_was_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "jobs.log").write_text("[a] WARNING one\n[b] WARNING two\n")
    for arguments, folder in ([], ""), (["-d", "my run"], "my run/"), (["--directory=/runs/a"], "/runs/a/"):
        monkeypatch.setattr(sys, "argv", ["snakemake", "-n", *arguments, "x.json"])
        assert [*ending.warnings_note()] == [f"NOTE 2 warnings of jobs in {folder}logs/jobs.log"]
        lines = [*ending.lines(final_status("no key", "it ended in logs/1.log"))]
        assert lines[:2] == [f"ERROR no key ({folder}logs/0.log)", f"ERROR it ended in {folder}logs/1.log"]
    many = [*ending.lines(final_status(*map(str, range(30))))]
    assert many[-2] == "ERROR 20 other reasons; `arena-cje status /runs/a` tells them"
    assert "`arena-cje unlock --directory /runs/a` removes it" in ending.lock_sentence()


def test_many_reasons_are_counted():
    lines = [*ending.lines(final_status(*map(str, range(30))))]
    assert len(lines) == ending.N_REASONS + 2
    assert lines[-2] == "ERROR 20 other reasons; `arena-cje status` tells them"


def test_a_damaged_result_is_reported_with_the_command_that_removes_it():
    lines = [
        *ending.lines(
            final_status("a.json: is damaged: 1 row is left; take it away (`arena-cje doctor --redo` does so)")
        )
    ]
    assert lines[1:] == ["First remove the damaged files: arena-cje doctor . --redo", CONTINUE_LINE]


def test_an_interrupted_run_reports_how_many_jobs_are_finished():
    first, last = ending.lines(final_status(interrupted=True))
    assert first == "Interrupted. What is finished stays: 1 of 1 jobs."
    assert last == CONTINUE_LINE
    again, _ = ending.lines(final_status(interrupted=True), {"done.json"})  # the file is there, and its job runs again
    assert again == "Interrupted. What is finished stays: 0 of 1 jobs."


def test_a_program_is_named_as_a_user_would_type_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = tmp_path / ".venv" / "bin" / "snakemake"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    assert ending.command([str(program), "-n"]) == ".venv/bin/snakemake -n"
    monkeypatch.setenv("PATH", str(program.parent))
    assert ending.command([str(program), "-n"]) == "snakemake -n"


def test_a_signal_is_recorded_and_its_previous_handler_still_runs():
    before, signals, interrupt = signal.getsignal(signal.SIGTERM), [], threading.Event()
    signal.signal(signal.SIGTERM, lambda *arguments: signals.append(arguments[0]))
    handlers = signal.getsignal(signal.SIGINT)
    try:
        ending.note_interrupts(interrupt)
        assert not interrupt.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.is_set() and signals == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, handlers)


def test_the_sentence_on_a_lock_without_a_process_names_the_unlock_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "`arena-cje unlock` removes it, then the same command goes on: snakemake" in ending.lock_sentence()
