"""Faults at seeded random moments: kills, full disks, damaged files, a missing `.snakemake/`, races.

Each strikes a small experiment with a tiny random model, in a folder of its own; then `arena-cje doctor --redo` and the same
command bring it to its end. Counted are items that were finished and are lost, items that were made twice, results that are not
the bytes of a run without a fault, faults that should have been reported and were not, and runs that the command could not end.

`INJECTIONS=200 python -m benchmarks faults` runs 200 of them; `FAULTS="kill"` only those with this in their name. The
outcome of an injection is in results/bench/faults.jsonl when it ends: the same command goes on after the last one, unless the
code has changed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._result import Result
from benchmarks._timing import progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from faults import Outcome

ROOT = Path(__file__).parents[1]
SUPPORT = ROOT / "tests/support"
FINISHED = Path("results/bench/faults.jsonl")
INJECTIONS = 16  # by default: each fault once
COUNTS = ("lost", "doubled", "different")


def run() -> Iterator[Result]:
    """Items lost, items doubled and results that differ, by fault and in all."""
    sys.path.insert(0, str(SUPPORT))
    import faults

    possible = tuple(faults.FAULTS) if os.geteuid() == 0 else faults.ANY_USER
    names = [name for name in possible if os.environ.get("FAULTS", "") in name]
    n, first = int(os.environ.get("INJECTIONS", INJECTIONS)), int(os.environ.get("SEED", "0"))
    injections = [(names[k % len(names)], first + k // len(names)) for k in range(n)]
    outcomes = {key: outcome for key, outcome in finished(faults.Outcome).items() if key in set(injections)}
    if outcomes:
        progress(f"faults: {len(outcomes)} of {n} are in {FINISHED}")
    with tempfile.TemporaryDirectory() as folder:
        study = faults.new_study(Path(folder))
        for name, seed in injections:
            if (name, seed) not in outcomes:
                outcomes[name, seed] = outcome = _inject(study, name, seed, Path(folder) / f"run-{len(outcomes)}")
                numbers = ", ".join(f"{getattr(outcome, count)} {count}" for count in COUNTS)
                problems = f"{outcome.silent}{outcome.unfinished} ({outcome.detail})"
                progress(f"faults: {len(outcomes)} of {n}, {name} {seed}: {numbers} {problems}")
    everything = [outcomes[key] for key in injections]
    for name in dict.fromkeys(name for name, _ in injections):
        of_fault = [outcome for outcome in everything if outcome.fault == name]
        yield Result(name, float(sum(map(_bad, of_fault))), "<= 0", f"of {len(of_fault)}: {_details(of_fault)}")
    for count in COUNTS:
        total = sum(getattr(outcome, count) for outcome in everything)
        yield Result(count, float(total), "<= 0", f"{n} injections")
    yield Result("faults that were not reported", float(sum(bool(one.silent) for one in everything)), "<= 0", f"of {n}")
    unfinished = sum(bool(one.unfinished) for one in everything)
    yield Result("runs that did not end", float(unfinished), "<= 0", f"of {n}")


def _inject(study: object, name: str, seed: int, folder: Path) -> Outcome:
    """The outcome of an injection, on disk when this returns."""
    import faults

    began = time.monotonic()
    try:
        outcome = faults.inject(study, name, seed, folder)
    except (AssertionError, subprocess.SubprocessError) as error:  # the next fault is tried all the same
        outcome = faults.Outcome(name, seed, 0, 0, 0, "", "", unfinished=str(error)[-2000:] or type(error).__name__)
    shutil.rmtree(folder, ignore_errors=True)
    record(outcome, time.monotonic() - began)
    return outcome


def record(outcome: Outcome, seconds: float) -> None:
    """Write what an injection into this code came to."""
    FINISHED.parent.mkdir(parents=True, exist_ok=True)
    row = {"code": _code(), "seconds": round(seconds, 1)} | asdict(outcome)
    with FINISHED.open("a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(row)}")  # a line that was cut stays one of its own


def finished(kind: type[Outcome]) -> dict[tuple[str, int], Outcome]:
    """What injections into this code came to, by fault and seed."""
    outcomes = {}
    for line in FINISHED.read_text(encoding="utf-8").splitlines() if FINISHED.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:  # empty, or cut
            continue
        if row.pop("code") == _code():
            del row["seconds"]
            outcomes[row["fault"], row["seed"]] = kind(**row)
    return outcomes


def _code() -> str:
    """A hash of the workflow and of the faults."""
    suffixes = (".py", ".smk", "Snakefile")
    files = [path for path in (ROOT / "workflow").rglob("*") if path.name.endswith(suffixes) and path.is_file()]
    files += [SUPPORT / f"{name}.py" for name in ("faults", "tiny_gguf", "workflow_run")]
    digest = blake2b(digest_size=8)
    for path in sorted(files):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _bad(one: Outcome) -> bool:
    return bool(one.lost or one.doubled or one.different or one.silent or one.unfinished)


def _details(outcomes: Sequence[Outcome]) -> str:
    """What went wrong, by seed; the counts where nothing did."""
    bad = [f"seed {one.seed}: {one.silent}{one.unfinished} {one.detail}" for one in outcomes if _bad(one)]
    return "; ".join(bad[:3]) or "0 lost, 0 doubled, 0 different"
