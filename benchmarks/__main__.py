"""Runs groups of benchmarks: `python -m benchmarks [GROUP ...]`, from the root of the repository.

The exit status is 0 when they ran, whether or not they met their goals: that depends on the machine and is in the table.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import benchmarks
from arena_cje.errors import UserError
from benchmarks._result import save, table

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the groups that are named, or all; 1 and one sentence for an error that the user can correct."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the project's claims on this machine: a table on the terminal, and a JSON file a group.",
    )
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"what to run: {', '.join(benchmarks.NAMES)} (default: all)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/bench"),
        metavar="DIRECTORY",
        help="where {group}.json is written (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    try:
        groups = {name: benchmarks.get(name) for name in options.groups or benchmarks.NAMES}
        for name, group in groups.items():
            results = list(group.run())
            print(table(name, results))
            print(f"\nwritten to {save(results, options.out / f'{name}.json')}\n")
    except UserError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
