"""The terminal of a run: which of Snakemake's lines reach it, and where the lines of jobs go.

By default it shows progress, warnings and errors. Snakemake's lines about single jobs are in its own log below .snakemake/log/,
what jobs write to standard error is in logs/jobs.log, beside the log of each job. VERBOSE=1 shows all of it on the terminal.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import threading
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

JOBS_LOG = Path("logs/jobs.log")
SNAKEMAKE_LOGGER, SNAKEMAKE_HANDLER = "snakemake.logging", "DefaultStreamHandler"

# Events and beginnings of Snakemake's records. A record of another version that is not recognised is shown or left out as the
# others of its level; nothing depends on it.
JOB_ERRORS = ("job_error", "group_error")
BLOCKS = ("job_info", "group_info", "job_started", "job_finished", "progress", "resources_info")
REQUESTED = ("shellcmd", "debug_dag")  # Snakemake's handler leaves them out unless the command line asks for them
SETTING_UP = ("Config file ", "Assuming unrestricted shared filesystem usage")
JOBS_FAILED = ("Exiting because a job execution failed", "WorkflowError:\nAt least one job did not complete")
NOTHING = "Nothing to be done"
ANSWERS = (NOTHING, "Will exit after finishing", "Terminating processes on user request")
SOFTWARE = ("Creating conda environment", "Environment for ", "Pulling singularity image")  # takes minutes
PROVENANCE, EACH_JOB = "Some jobs were triggered by provenance", "(check individual jobs above for details)"
DRY_RUN = "This was a dry-run"


def is_verbose() -> bool:
    """Whether the environment asks for the lines of single jobs."""
    return os.environ.get("VERBOSE", "").lower() not in ("", "0", "no", "false")


class Screen:
    """Lines on a stream; on a terminal also rows below them that are drawn again in their place."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self._n_rows = 0  # of the drawn block
        self._lock = threading.RLock()

    @property
    def can_redraw(self) -> bool:
        """Whether rows can be drawn again; in a file or pipe each redraw would append a copy."""
        return self.stream.isatty() and os.environ.get("TERM") != "dumb"

    @contextlib.contextmanager
    def above_rows(self) -> Iterator[None]:
        """While the body writes to the stream there are no rows, so that its lines stand above the next ones."""
        with self._lock:
            self._erase()
            yield

    def write(self, lines: Iterable[str]) -> None:
        """Write lines."""
        with self.above_rows():
            self.stream.writelines(f"{line}\n" for line in lines)
            self.stream.flush()

    def draw(self, rows: Sequence[str]) -> None:
        """Draw rows in place of those before."""
        width = shutil.get_terminal_size().columns - 1  # a row of two lines would not be erased
        with self._lock:
            self._erase()
            self.stream.writelines(f"{row[:width]}\n" for row in rows)
            self.stream.flush()
            self._n_rows = len(rows)

    def keep_rows(self) -> None:
        """Leave the drawn rows where they are."""
        with self._lock:
            self._n_rows = 0

    def _erase(self) -> None:
        if self._n_rows:
            self.stream.write(f"\x1b[{self._n_rows}A\x1b[J")
            self._n_rows = 0


class RunLines(logging.Handler):
    """A log handler that passes the lines for users to Snakemake's handler.

    settings: Snakemake's settings of its output. lock_sentence: what takes the place of Snakemake's on a locked folder.
    closing_lines: what follows where nothing was to be done, so that no handler of the workflow is called.
    """

    def __init__(
        self, inner: logging.StreamHandler, screen: Screen, settings: Any, lock_sentence: Any, closing_lines: Any
    ):
        super().__init__()
        self.inner, self.screen, self._settings, self._lock_sentence = inner, screen, settings, lock_sentence
        self._closing_lines = closing_lines
        self.verbose = is_verbose() or settings.verbose
        self.is_quiet = bool({"ALL", "PROGRESS"} & {choice.name for choice in settings.quiet or ()})
        self.ended = False  # only what goes wrong follows the last lines of a run
        self._is_run = self._has_stats = False
        self._answers: set[str] = set()  # those that were shown: Snakemake repeats one with each job that ends
        self._planned_rules: defaultdict[str, set[str]] = defaultdict(set)  # of a dry run, by policy or context

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, or leave it out."""
        self._is_run = self._is_run or getattr(record, "event", None) == "workflow_started"
        if self._settings.dryrun and getattr(record, "event", None) == "job_info":
            self._note_plan(record)
        if getattr(record, "exception", None) == "LockException":
            self.screen.write([self._lock_sentence()])
        elif (self.verbose and not self.ended) or self._is_shown(record):
            if str(record.msg).startswith(DRY_RUN) and not self.verbose:
                self.screen.write(self._plan_by_policy())
            with self.screen.above_rows():
                self.inner.handle(self._in_short(record))
            if str(record.msg).startswith(NOTHING) and not self._settings.dryrun:
                self.screen.write(self._closing_lines())

    def _note_plan(self, record: logging.LogRecord) -> None:
        wildcards = getattr(record, "wildcards", None) or {}
        if name := wildcards.get("policy") or wildcards.get("context"):
            self._planned_rules[name].add(record.rule_name)

    def _plan_by_policy(self) -> list[str]:
        """Which policies, and contexts of log probabilities, have planned jobs of which rules; a line for equal ones."""
        names_by_rules: dict[tuple[str, ...], list[str]] = {}
        for name, rules in self._planned_rules.items():
            names_by_rules.setdefault(tuple(sorted(rules)), []).append(name)
        lines = [f"{', '.join(rules)}: {', '.join(names)}" for rules, names in names_by_rules.items()]
        return ["Planned for single policies:", *(f"  {line}" for line in lines)] if lines else []

    def _is_shown(self, record: logging.LogRecord) -> bool:
        event, text = getattr(record, "event", None), str(record.msg)
        if event in REQUESTED or text.startswith(SOFTWARE):
            return True
        if text.startswith(ANSWERS):
            is_new = text not in self._answers
            self._answers.add(text)
            return is_new
        if record.levelno >= logging.WARNING:
            is_of_job = event in JOB_ERRORS or (text.startswith("RuleException") and "CalledProcessError" in text)
            return self._settings.show_failed_logs if is_of_job else not text.startswith(JOBS_FAILED)
        if not self._is_run:  # a report, an unlocking: Snakemake's lines are the answer
            return not text.startswith(SETTING_UP)
        if event == "workflow_started" or not self._settings.dryrun:
            return False
        if event == "run_info":  # the numbers of jobs, at the beginning and again at the end
            is_first, self._has_stats = not self._has_stats, True
            return is_first
        return self._has_stats and event not in BLOCKS and not text.startswith(PROVENANCE)

    def _in_short(self, record: logging.LogRecord) -> logging.LogRecord:
        """A record of a dry run without reference to jobs that are not shown."""
        if self.verbose or not isinstance(record.msg, str):
            return record
        text = record.msg.replace(EACH_JOB, "(of each job with VERBOSE=1)")
        if text.startswith(DRY_RUN):
            text = "This was a dry run: nothing was made. VERBOSE=1 shows every job."
        return record if text == record.msg else logging.makeLogRecord({**record.__dict__, "msg": text})


class Terminal:
    """The terminal of the main process of Snakemake, from the reading of the workflow to its end."""

    def __init__(self) -> None:
        self.screen = Screen(sys.stderr)
        self._lines: RunLines | None = None
        self._stderr: tuple[int, TextIO] | None = None  # the terminal, and the stream, while jobs write elsewhere

    @property
    def is_verbose(self) -> bool:
        """Whether the lines of single jobs are shown: also where another logger or workflow has the terminal."""
        return self._lines is None or self._lines.verbose

    @property
    def is_quiet(self) -> bool:
        """Whether the command line has `--quiet` for progress."""
        return self._lines is not None and self._lines.is_quiet

    @property
    def can_redraw(self) -> bool:
        """Whether rows are drawn again in their place: not among the lines of others."""
        return self.screen.can_redraw and not self.is_verbose

    def take(self, settings: Any, lock_sentence: Any, closing_lines: Any) -> None:
        """Have the lines of Snakemake come through `RunLines`, where its own handler has the terminal."""
        logger = logging.getLogger(SNAKEMAKE_LOGGER)
        for handler in logger.handlers:
            if handler.name == SNAKEMAKE_HANDLER and isinstance(handler, logging.StreamHandler):
                self._lines = RunLines(handler, self.screen, settings, lock_sentence, closing_lines)
                logger.removeHandler(handler)
                logger.addHandler(self._lines)
                return

    def send_jobs_to_log(self) -> None:
        """Have standard error of the jobs that start from now on be a file, and that of this process the terminal as before."""
        with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor, a folder that cannot be written
            if not self.is_verbose and sys.stderr.fileno() == 2:
                JOBS_LOG.parent.mkdir(exist_ok=True)
                log = os.open(JOBS_LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
                sys.stderr.flush()
                terminal = os.dup(2)  # jobs do not inherit it
                self._stderr = (terminal, sys.stderr)
                os.dup2(log, 2)
                os.close(log)
                self._use(os.fdopen(terminal, "w", 1, sys.stderr.encoding, "backslashreplace", closefd=False))

    def end(self, lines: Iterable[str] = ()) -> None:
        """Write the last lines of a run, and give standard error back."""
        sys.stdout.flush()
        self.screen.write(lines)
        if self._lines:
            self._lines.ended = True
        if self._stderr:
            terminal, stream = self._stderr
            os.dup2(terminal, 2)
            self._use(stream)
            os.close(terminal)
            self._stderr = None

    def _use(self, stream: TextIO) -> None:
        sys.stderr = self.screen.stream = stream
        if self._lines:
            self._lines.inner.setStream(stream)
