"""The last lines of a run that did not succeed: each reason once, and the command that continues the run."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from arena_cje.errors import UserError, printable
from arena_cje.stages.doctor import check_at_rest
from arena_cje.terminal.screen import JOBS_LOG

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterator, Sequence
    from types import FrameType

    from arena_cje.stages.status import JobState, Status

N_REASONS = 10  # shown
DOCTOR = "arena-cje doctor"  # contained in errors that `doctor` can fix


def command(arguments: Sequence[str] = ()) -> str:
    """The command of this run, as it is typed; ARENA_CJE_COMMAND names the one that runs it, where there is one."""
    if outer := os.environ.get("ARENA_CJE_COMMAND", "").strip():
        return outer
    program, *words = arguments or sys.argv
    path = Path(program)
    if path.name == "__main__.py":
        program = path.parent.name
    elif shutil.which(path.name) == program:
        program = path.name
    elif path.is_relative_to(Path.cwd()):
        program = str(path.relative_to(Path.cwd()))
    return printable(shlex.join([program, *words]))


def run_folder() -> Path:
    """The folder of the run from where the command was typed, as `--directory` names it."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--directory", "-d", type=Path, default=Path())
    try:
        return parser.parse_known_args(sys.argv[1:])[0].directory
    except argparse.ArgumentError:
        return Path()


def _tool(words: str, option: str = "") -> str:
    """A command of `arena-cje` for the folder of the run."""
    folder = run_folder()
    folder_option = [option, shlex.quote(str(folder))] if folder != Path() else []
    return " ".join(filter(None, ["arena-cje", words, *folder_option]))


def lines(status: Status, unfinished: Collection[str] = ()) -> Iterator[str]:
    """Why jobs of a run that has ended failed, and the command that continues the run.

    unfinished: outputs of jobs that Snakemake will run again, though their files may be there.
    """
    reasons: dict[str, list[JobState]] = {}
    for state in (*status.jobs, *status.other_jobs):
        if state.state == "failed":
            reasons.setdefault(state.error or "", []).append(state)
    if status.state == "interrupted":
        yield f"Interrupted. What is finished stays: {' and '.join(_at_rest(status, unfinished).completion())}."
    for error, states in list(reasons.items())[:N_REASONS]:
        yield printable(f"ERROR {_with_logs(error, states)}")
    if len(reasons) > N_REASONS:
        yield f"ERROR {len(reasons) - N_REASONS} other reasons; `{_tool('status')}` tells them"
    if any(DOCTOR in error for error in reasons):
        yield f"First remove the damaged files: arena-cje doctor {shlex.quote(str(run_folder()))} --redo"
    yield f"The same command goes on from here: {command()}"


def _at_rest(status: Status, unfinished: Collection[str]) -> Status:
    """The status without the jobs that run again among the finished ones; their items stay, as journals have them."""
    others = tuple(
        replace(state, state="started") if state.state == "done" and {*state.job.outputs} & {*unfinished} else state
        for state in status.other_jobs
    )
    return replace(status, other_jobs=others)


def _with_logs(error: str, states: list[JobState]) -> str:
    """A reason with the log of the first job that has it, and how many others there are."""
    log, others = states[0].job.log, len(states) - 1
    more = f"and {others} more job{'s' * (others > 1)}" if others else ""
    if not log:
        return f"{error} ({more})" if more else error
    path = str(run_folder() / log)
    if log in error:
        return f"{error.replace(log, path)}{f' ({more})' if more else ''}"
    return f"{error} ({' '.join(filter(None, (path, more)))})"


def warnings_note() -> Iterator[str]:
    """How many warnings of jobs stand in their log; no line where there are none."""
    try:
        text = JOBS_LOG.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if count := text.count("] WARNING "):
        yield f"NOTE {count} warning{'s' * (count > 1)} of jobs in {run_folder() / JOBS_LOG}"


def lock_sentence() -> str:
    """What a user can do about the lock on the folder."""
    try:
        check_at_rest(Path())
    except UserError as error:
        return f"ERROR {error}"
    return (
        "ERROR this folder has the lock of a Snakemake that was killed; "
        f"`{_tool('unlock', '--directory')}` removes it, then the same command goes on: {command()}"
    )


def note_interrupts(interrupted: threading.Event) -> None:
    """Set the event when the user, or the machine, ends this process; what else a signal does stays as it is."""
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        if not callable(before):
            continue

        def note(number: int, frame: FrameType | None, before: Callable[..., object] = before) -> None:
            interrupted.set()
            before(number, frame)

        try:
            signal.signal(number, note)
        except ValueError:  # Snakemake does not run in the main thread
            return


def explain_early_interrupts() -> None:
    """Have Ctrl-C before the first job be a sentence in place of a traceback."""
    usual = sys.excepthook

    def explain(kind: type[BaseException], error: BaseException, trace: object) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print(f"Interrupted. The same command goes on from here: {command()}", file=sys.stderr)
        else:
            usual(kind, error, trace)

    sys.excepthook = explain
