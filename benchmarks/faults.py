"""Faults at seeded random moments: kills, full disks, damaged files, a missing `.snakemake/`, races.

Each strikes a small experiment with a tiny random model, in a folder of its own; then `arena-cje doctor --redo` and the same
command bring it to its end. Counted are items that were finished and are lost, items that were made twice, results that are not
the bytes of a run without a fault, and faults that had to be told and were not.

`INJECTIONS=200 python -m benchmarks faults` runs 200 of them; `FAULTS="kill"` only those with this in their name.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._result import Result
from benchmarks._timing import progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUPPORT = Path(__file__).parents[1] / "tests/support"
INJECTIONS = 16  # by default: each fault once
COUNTS = ("lost", "doubled", "different")


def run() -> Iterator[Result]:
    """Items lost, items doubled and results that differ, by fault and in all."""
    sys.path.insert(0, str(SUPPORT))
    import faults

    known = tuple(faults.FAULTS) if os.geteuid() == 0 else faults.ANY_USER
    names = [name for name in known if os.environ.get("FAULTS", "") in name]
    outcomes = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        study = faults.new_study(Path(folder))
        for k in range(int(os.environ.get("INJECTIONS", INJECTIONS))):
            name, seed = names[k % len(names)], int(os.environ.get("SEED", "0")) + k // len(names)
            outcome = faults.inject(study, name, seed, Path(folder) / f"run-{k}")
            outcomes[name].append(outcome)
            numbers = ", ".join(f"{getattr(outcome, count)} {count}" for count in COUNTS)
            progress(f"faults: {name} {seed}: {numbers} {outcome.silent} ({outcome.detail})")
    for name, of_fault in outcomes.items():
        yield Result(name, float(_n_bad(of_fault)), "<= 0", f"of {len(of_fault)}: {_details(of_fault)}")
    everything = [outcome for of_fault in outcomes.values() for outcome in of_fault]
    for count in COUNTS:
        total = sum(getattr(outcome, count) for outcome in everything)
        yield Result(count, float(total), "<= 0", f"{len(everything)} injections")
    silent = sum(bool(outcome.silent) for outcome in everything)
    yield Result("faults that were not told", float(silent), "<= 0", f"{len(everything)} injections")


def _n_bad(outcomes: Sequence) -> int:
    return sum(bool(one.lost or one.doubled or one.different or one.silent) for one in outcomes)


def _details(outcomes: Sequence) -> str:
    """What went wrong, by seed; the counts where nothing did."""
    bad = [f"seed {one.seed}: {one.silent} {one.detail}" for one in outcomes if _n_bad([one])]
    return "; ".join(bad[:3]) or "0 lost, 0 doubled, 0 different"
