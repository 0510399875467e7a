"""The command line beside Snakemake: it prints results and the status of a run, and removes the lock of one that was killed.

arena-cje show results/coverage_0.1/calibrated-ips.json
arena-cje status .
arena-cje unlock
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import arena_cje
from arena_cje.errors import UserError, file_errors, printable
from arena_cje.terminal import escape_what_it_lacks

if TYPE_CHECKING:
    from collections.abc import Iterable


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 1, after one sentence, for an error that the user can correct."""
    parser = argparse.ArgumentParser(
        prog="arena-cje",
        description="Print results of Causal Judge Evaluation or the status of a run, or remove a lock.",
    )
    parser.add_argument("--version", action="version", version=f"arena-cje {arena_cje.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    show_command = commands.add_parser("show", help="print results files as tables")
    show_command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="results/coverage_*/ESTIMATOR.json")
    status_command = commands.add_parser("status", help="tell what a run has done, what is left and what failed")
    status_command.add_argument("folder", nargs="?", type=Path, default=Path("."), help="working directory of the run")
    unlock_command = commands.add_parser("unlock", help="remove the lock of a Snakemake process that was killed")
    unlock_command.add_argument("--directory", type=Path, default=Path("."), help="working directory of the run")
    escape_what_it_lacks()
    options = parser.parse_args(arguments)
    try:
        with file_errors():
            if options.command == "show":
                status = show(options.files)
            elif options.command == "status":
                status = _status(options.folder)
            else:
                status = _unlock(options.directory)
            print(end="", flush=True)  # here and not at the end of Python, where a full disk is a traceback
        return status
    except UserError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        status = 1
    except BrokenPipeError:  # the reader of a pipe has ended, such as `| head`
        status = 0
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def show(files: Iterable[str | Path]) -> int:
    """Print results files as tables; the exit status is 0."""
    for file in files:
        print(f"\n{printable(str(file))}")
        print(arena_cje.load(file))
    return 0


def _status(folder: Path) -> int:
    """Print the status of the last run in a folder; the exit status is 0."""
    from arena_cje.stages import status

    print(status.table(status.read_status(folder)))
    return 0


def _unlock(directory: Path) -> int:
    """Remove Snakemake's locks; raises a `UserError` where a Snakemake process runs in the folder."""
    import psutil

    locks = directory / ".snakemake" / "locks"
    if not locks.is_dir() or not any(locks.iterdir()):
        return 0
    for process in psutil.process_iter(["cmdline", "cwd", "pid"]):
        is_snakemake = any(Path(word).name == "snakemake" for word in process.info["cmdline"] or ())
        if is_snakemake and process.info["cwd"] == str(directory.resolve()):
            raise UserError(
                f"Snakemake (process {process.pid}) is running in {directory.resolve()}; wait for its end, or end it first"
            )
    for lock in locks.iterdir():
        lock.unlink()
    print("Removed the lock of a Snakemake process that was killed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
