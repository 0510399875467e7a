"""Which lines reach the terminal of a run, and how rows are drawn on it."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from arena_cje.terminal import screen
from arena_cje.terminal.screen import RunLines, Screen, Terminal

STATS, BLOCK = "Job stats: 3", "rule estimate:"


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal_lines(monkeypatch):
    """A function that sends records to the terminal of a run and returns what is on it."""
    logger = logging.Logger("test")

    def lines_of(*records, environment="", **settings):
        stream = io.StringIO()
        monkeypatch.setenv("VERBOSE", environment)
        options = {"dryrun": False, "quiet": None, "verbose": False, "show_failed_logs": False} | settings
        lines = RunLines(
            logging.StreamHandler(stream),
            Screen(stream),
            SimpleNamespace(**options),
            lambda: "locked",
            lambda: ["pages: a.html"],
        )
        logger.handlers = [lines]
        for level, text, extra in records:
            logger.log(level, text, extra=extra)
        return stream.getvalue().splitlines()

    return lines_of


def record(text, level=logging.INFO, **extra):
    return level, text, extra


START = record("Workflow has started!", event="workflow_started")
RUN = [
    record("Config file config.yaml is extended"),
    START,
    record("Building DAG of jobs..."),
    record("Creating conda environment envs/stats.yaml..."),
    record(STATS, event="run_info"),
    record(BLOCK, event="job_info"),
    record("a file is older than it was", logging.WARNING),
    record("Error in rule estimate:", logging.ERROR, event="job_error"),
    record("RuleException:\nCalledProcessError in file x", logging.ERROR, event="error", exception="RuleException"),
    record("Exiting because a job execution failed. Look below", logging.ERROR),
    record("MissingInputException: no file", logging.ERROR, event="error", exception="MissingInputException"),
]


def test_a_run_shows_warnings_and_errors_and_no_jobs(terminal_lines):
    environment = "Creating conda environment envs/stats.yaml..."
    assert terminal_lines(*RUN) == [environment, "a file is older than it was", "MissingInputException: no file"]
    assert "Error in rule estimate:" in terminal_lines(*RUN, show_failed_logs=True)


@pytest.mark.parametrize(
    ("value", "is_verbose"), [("1", True), ("yes", True), ("0", False), ("", False), ("no", False)]
)
def test_the_environment_variable_verbose_shows_all_lines(terminal_lines, value, is_verbose):
    assert (BLOCK in terminal_lines(*RUN, environment=value)) == is_verbose


def test_the_option_verbose_of_snakemake_shows_all_lines(terminal_lines):
    assert BLOCK in terminal_lines(*RUN, verbose=True)


def test_a_dry_run_shows_the_numbers_of_jobs_once_and_no_single_jobs(terminal_lines):
    closing = [
        record("Reasons:\n    (check individual jobs above for details)"),
        record("This was a dry-run (flag -n)."),
    ]
    plan = [*RUN[:3], *RUN[4:6], record(STATS, event="run_info"), *closing]
    assert terminal_lines(*plan, dryrun=True) == [
        STATS,
        "Reasons:",
        "    (of each job with VERBOSE=1)",
        "This was a dry run: nothing was made. VERBOSE=1 shows every job.",
    ]
    nothing = "Nothing to be done (all files are present)."
    assert terminal_lines(START, record(nothing)) == [nothing, "pages: a.html"]
    assert terminal_lines(START, record(nothing), dryrun=True) == [nothing]


def test_a_dry_run_names_the_policies_that_have_jobs(terminal_lines):
    jobs = [("generate", {"policy": "short", "shard": "0000"}), ("generate", {"policy": "short", "shard": "0001"}),
            ("judge", {"policy": "short"}), ("generate", {"policy": "new"}), ("judge", {"policy": "new"}),
            ("score", {"context": "tiny-short"}), ("assemble", {"coverage": "0.1"})]  # fmt: skip
    blocks = [record(BLOCK, event="job_info", rule_name=rule, wildcards=wildcards) for rule, wildcards in jobs]
    plan = [START, record(STATS, event="run_info"), *blocks, record("This was a dry-run (flag -n).")]
    lines = ["Planned for single policies:", "  generate, judge: short, new", "  score: tiny-short"]
    assert terminal_lines(*plan, dryrun=True)[1:-1] == lines
    assert lines[0] not in terminal_lines(*plan, dryrun=True, verbose=True)


def test_a_line_that_snakemake_repeats_is_shown_once(terminal_lines):
    leaving = record("Will exit after finishing currently running jobs (scheduler).")
    assert terminal_lines(START, *[leaving] * 3) == [leaving[1]]


def test_a_command_that_starts_no_run_keeps_its_lines(terminal_lines):
    assert terminal_lines(record("Unlocking working directory.")) == ["Unlocking working directory."]


def test_a_lock_is_explained_in_place_of_its_exception(terminal_lines):
    error = record(
        "LockException:\nError: Directory cannot be locked.", logging.ERROR, event="error", exception="LockException"
    )
    assert terminal_lines(START, error) == ["locked"]


def test_progress_rows_are_redrawn_in_place_below_the_lines(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    stream = Tty()
    display = Screen(stream)
    assert display.can_redraw
    display.draw(["generate 1/2", "a row that is longer than the terminal is wide"])
    display.write(["NOTE"])
    display.draw(["generate 2/2"])
    display.keep_rows()
    display.write(["the end"])
    assert stream.getvalue().splitlines() == [
        "generate 1/2",
        "a row that is longe",
        "\x1b[2A\x1b[JNOTE",
        "generate 2/2",
        "the end",
    ]
    monkeypatch.setenv("TERM", "dumb")
    assert not display.can_redraw and not Screen(io.StringIO()).can_redraw


CODE = f"""
import subprocess, sys
from types import SimpleNamespace
import logging
from arena_cje.terminal.screen import Terminal

handler = logging.StreamHandler(sys.stderr)
handler.name = "{screen.SNAKEMAKE_HANDLER}"
logger = logging.getLogger("{screen.SNAKEMAKE_LOGGER}")
logger.addHandler(handler)
terminal = Terminal()
quiet = SimpleNamespace(dryrun=False, quiet=None, verbose=False, show_failed_logs=False)
terminal.take(quiet, lambda: "locked", lambda: [])
terminal.send_jobs_to_log()
subprocess.run([sys.executable, "-c", "import sys; print('a traceback of a job', file=sys.stderr)"])
print("of this process", file=sys.stderr)
logger.warning("of Snakemake")
terminal.end(["the last line"])
logger.error("WorkflowError:\\nAt least one job did not complete successfully.")
logger.error("the results are damaged")
subprocess.run([sys.executable, "-c", "import sys; print('after the run', file=sys.stderr)"])
"""


def test_jobs_write_to_their_log_and_this_process_to_the_terminal(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "VERBOSE"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 60}
    process = subprocess.run([sys.executable, "-c", CODE], env=environment, **run)
    assert process.stderr.splitlines() == [
        "of this process",
        "of Snakemake",
        "the last line",
        "the results are damaged",
        "after the run",
    ]
    assert (tmp_path / screen.JOBS_LOG).read_text() == "a traceback of a job\n"
    verbose_process = subprocess.run([sys.executable, "-c", CODE], env=environment | {"VERBOSE": "1"}, **run)
    assert "a traceback of a job" in verbose_process.stderr and "At least one job" not in verbose_process.stderr


def test_without_the_log_handler_of_snakemake_all_output_is_shown_unchanged():
    terminal = Terminal()
    terminal.take(None, None, None)
    assert terminal.is_verbose and not terminal.is_quiet and not terminal.can_redraw
