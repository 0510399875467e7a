"""Finds damaged, inconsistent and leftover files of a run.

    for finding in doctor.examine(): ...        in the working directory of the run

Seals have the hash of a file when it was written and those of its inputs; journals have a checksum in each line. An output is
inconsistent if its inputs have changed since it was made. The command of the run makes a file again after its removal; finished
items are in the journals and are not computed again.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from arena_cje import files
from arena_cje.calls.ledger import LEDGER
from arena_cje.data import prompts
from arena_cje.data.prompt_sets.pool import read_index
from arena_cje.errors import UserError, file_errors
from arena_cje.journal import index, is_in_use, lines
from arena_cje.stages import seals
from arena_cje.stages.run_record import CLOCK_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

JOURNALS = seals.RESULTS / "journal"
PROMPTS, SHARDS = Path(".arena-cje/prompts"), Path(".arena-cje/shards.json")
LOCKS = Path(".snakemake/locks")
TEMPORARY = re.compile(
    r"\..+\.(\d+)"
)  # what `files.replace` writes before it renames; the number is that of its process


@dataclass(frozen=True)
class Finding:
    """A problem of a file. mends: the files to remove; a journal is written anew without its damaged lines."""

    path: Path
    problem: str
    mends: tuple[Path, ...] = ()


def examine() -> list[Finding]:
    """All findings in the working directory."""
    return [*_damaged(), *_of_other_inputs(), *_prompts(), *_journals(), *_leftovers()]


def redo(findings: list[Finding]) -> None:
    """Remove the files that the findings name, and no others; raises a `UserError` while Snakemake runs in the folder."""
    check_at_rest(Path())
    with file_errors():
        for finding in findings:
            if finding.path.is_relative_to(JOURNALS) and not finding.mends:
                _rewrite(finding.path)
            for path in finding.mends:
                path.unlink(missing_ok=True)


def check_at_rest(folder: Path) -> None:
    """Raise a `UserError` where a Snakemake process runs in a folder."""
    process = _running_snakemake(folder)
    if process is not None:
        place = folder.resolve()
        raise UserError(f"Snakemake (process {process}) is running in {place}; wait until it ends, or stop it")


def _running_snakemake(folder: Path) -> int | None:
    """The process of another Snakemake that runs in a folder; None where there is none."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter(["cmdline", "cwd", "pid"]):
        is_snakemake = any(Path(word).name == "snakemake" for word in process.info["cmdline"] or ())
        if is_snakemake and process.pid not in own and process.info["cwd"] == str(folder.resolve()):
            return process.pid
    return None


def n_unsealed() -> int:
    """Number of tables among the results that have no seal and cannot be checked."""
    sealed_files = {seals.sealed_file(seal) for seal in seals.all_seals()}
    tables = (path for pattern in ("*.jsonl", "*.parquet") for path in seals.RESULTS.rglob(pattern))
    return sum(not path.is_relative_to(JOURNALS) and path not in sealed_files for path in tables)


def _damaged() -> Iterator[Finding]:
    for place in seals.all_seals():
        path, seal = seals.sealed_file(place), seals.read(seals.sealed_file(place))
        if path.is_file() and (problem := seal.problem(path)):
            yield Finding(path, problem, (path, place))


def _of_other_inputs() -> Iterator[Finding]:
    """Outputs whose inputs had another content when they were made: another configuration made them."""
    seal_of = {seals.sealed_file(place): seals.read(seals.sealed_file(place)) for place in seals.all_seals()}
    stale: dict[Path, str] = {}
    made_from = defaultdict(list)
    for path, seal in seal_of.items():
        for name, value in seal.inputs:
            made_from[Path(name)].append(path)
            source = seal_of.get(Path(name))
            if value and source and source.sha256 and source.sha256 != value and Path(name).is_file():
                stale.setdefault(path, name)
    waiting = list(stale)
    while waiting:  # what was made from these in turn
        source = waiting.pop()
        for path in made_from[source]:
            if path not in stale:
                stale[path] = str(source)
                waiting.append(path)
    for path, name in sorted(stale.items()):
        if path.is_file():
            problem = f"was made from another version of {name}"
            yield Finding(path, problem, (path, seals.place(path)))


def _prompts() -> Iterator[Finding]:
    """The prompts in their order, of which shards are cut."""
    path, index_file = PROMPTS / "prompts.jsonl", PROMPTS / "prompts.json"
    summary = read_index(PROMPTS).get("summary")
    if not summary or not path.is_file():
        return
    rows = path.read_bytes().splitlines(keepends=True)
    if len(rows) != summary["n_eligible"]:
        yield Finding(path, f"is damaged: {len(rows)} prompts are left of {summary['n_eligible']}", (path, index_file))
    elif SHARDS.is_file() and not _are_those_of(files.read_json(SHARDS), rows):
        yield Finding(path, "is damaged: it contains other prompts than the source", (path, index_file))


def _are_those_of(plan: Any, rows: Sequence[bytes]) -> bool:
    """Whether shards have the hashes that the last plan gave them."""
    size, hashes = plan["made_from"]["shard_size"], plan["fingerprints"]
    if plan["made_from"]["n_prompts"] > len(rows):
        return True  # it is of other prompts
    cut = rows[: plan["made_from"]["n_prompts"]]
    return all(prompts.fingerprint(prompts.cut(cut, name, size)) == value for name, value in hashes.items())


def _journals() -> Iterator[Finding]:
    for path in sorted(JOURNALS.rglob("*.jsonl")):
        if path != LEDGER:
            _, n_damaged = lines.sound(path, in_use=is_in_use(path))
            if n_damaged:
                yield Finding(path, f"has {n_damaged} damaged line(s); their items are computed again")


def _rewrite(path: Path) -> None:
    """Write a journal anew without its damaged lines; raises a `UserError` where a job has it open."""
    with path.open("rb") as file:
        if not files.try_lock(file):
            raise UserError(
                f"{path}: a job is writing this journal; wait until it ends, and run the same command again"
            )
        # A job that opens the journal from here on waits, and then opens the new file.
        places, _ = lines.sound(path)
        content = file.read()
        files.write_bytes(path, b"".join(content[start : start + size] + b"\n" for start, size in places))
        index.remove(path.parent)


def _may_be_writing(process: int, path: Path) -> bool:
    """Whether a process with this number runs that is as old as a file: numbers of processes that have ended are used again."""
    try:
        return psutil.Process(process).create_time() <= path.stat().st_mtime + CLOCK_TOLERANCE
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False


def _leftovers() -> Iterator[Finding]:
    for folder in (seals.RESULTS, Path(".arena-cje")):
        for path in sorted(folder.rglob(".*")):
            match = TEMPORARY.fullmatch(path.name)
            if match and path.is_file() and not _may_be_writing(int(match[1]), path):
                yield Finding(path, "is an incomplete file of a killed process", (path,))
    if LOCKS.is_dir() and any(LOCKS.iterdir()) and _running_snakemake(Path()) is None:
        yield Finding(LOCKS, "is the lock of a Snakemake process that was killed", tuple(LOCKS.iterdir()))
