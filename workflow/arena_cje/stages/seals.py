"""Seals: size, rows and hash of each output, and the parameters and inputs of its job.

A job checks the files of results that it reads against their seals, and seals what it has written: `results/seals/NAME.json` for
`results/NAME`. A file that was cut or changed afterwards is so refused by name, a table short of whole lines too. A file
without a seal is a user's own, or was made before there were seals: it is read as it is.

    with seals.sealed(inputs, outputs, rule, params): ...

Snakemake records in `.snakemake/` which job made an output, with its parameters and inputs. Without these records it accepts
every existing file, whatever configuration made it. Seals keep the same records beside the results: if those of Snakemake are
missing, `restore` writes them anew, and Snakemake makes the outputs again whose parameters or inputs have changed.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje import files
from arena_cje.errors import UserError, file_errors
from arena_cje.journal import sync_folder
from arena_cje.provenance import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

RESULTS = Path("results")
FOLDER = RESULTS / "seals"
# Parameters that follow from the outputs: Snakemake compares only the others.
DERIVED = ("estimators", "prices")
COMPARED = (type(None), int, float, complex, str, bytes, bytearray, range, list, tuple, dict, set, frozenset)
MEMORY = Path(".snakemake")  # of Snakemake
MARK = MEMORY / "metadata" / "arena-cje"  # Snakemake has its memory since this was written
MEND = "remove it (`arena-cje doctor --redo` removes everything that is damaged) and run the same command again"


@dataclass(frozen=True)
class Seal:
    """What is known of an output.

    size: in bytes; rows: None for what is no table; sha256: None from the start of its job to the end.
    parameters: of the rule, as Snakemake records them. inputs: each with its hash, None where it has no seal itself.
    """

    rule: str
    parameters: tuple[str, ...]
    inputs: tuple[tuple[str, str | None], ...]
    sha256: str | None = None
    size: int = 0
    rows: int | None = None

    def problem(self, path: Path) -> str | None:
        """How a file differs from the one that was sealed, to follow its name; None where it does not."""
        if self.sha256 is None:
            return "is incomplete: the job that writes it was killed"
        size = path.stat().st_size
        if size == self.size and sha256(path) == self.sha256:
            return None
        if path.suffix == ".jsonl" and (rows := _n_rows(path)) != self.rows:
            return f"is damaged: {rows} rows are left of {self.rows}"
        same = (
            "other content than when it was written" if size == self.size else f"{size} bytes, {self.size} were written"
        )
        return f"is damaged: it has {same}"


@contextmanager
def sealed(inputs: Sequence[str], outputs: Iterable[str], rule: str, params: Mapping[str, Any]) -> Iterator[None]:
    """Check the inputs of a job, and seal its outputs when the body has ended well.

    Raises a `UserError` for an input that is not what was written.
    """
    hashes = {path: check(path) for path in dict.fromkeys(inputs)}
    compared = (value for name, value in params.items() if name not in DERIVED and isinstance(value, COMPARED))
    parameters = tuple(sorted(map(repr, compared)))
    own = [Path(path) for path in outputs if place(path)]
    unfinished = Seal(rule, parameters, tuple((path, hashes[path]) for path in sorted(inputs)))
    for path in own:
        _write(path, unfinished, durable=False)
    yield
    for path in own:
        seal = replace(unfinished, sha256=sha256(path), size=path.stat().st_size, rows=_n_rows(path))
        _write(path, seal, durable=True)
    for folder in {folder for path in own for folder in (path.parent, place(path).parent)}:
        sync_folder(folder)


def check(path: str | Path) -> str | None:
    """The hash of a file as it was sealed, None where it has no seal; raises a `UserError` where it is not what was written."""
    seal = read(path)
    if seal is None:
        return None
    with file_errors(path):
        problem = seal.problem(Path(path))
    if problem:
        raise UserError(f"{path}: {problem}; {MEND}")
    return seal.sha256


def place(path: str | Path) -> Path | None:
    """Where the seal of a file is; None for a file that is not among the results."""
    path = Path(path)
    return FOLDER / f"{path.relative_to(RESULTS)}.json" if path.is_relative_to(RESULTS) else None


def sealed_file(seal: Path) -> Path:
    """The file that a seal is of."""
    return RESULTS / seal.relative_to(FOLDER).with_suffix("")


def read(path: str | Path) -> Seal | None:
    """The seal of a file; None where it has none. A seal that cannot be read is that of a file which is not finished."""
    seal = place(path)
    if seal is None:
        return None
    try:
        values = orjson.loads(seal.read_bytes())
        pairs = tuple((name, value) for name, value in values["inputs"])
        return Seal(**values | {"parameters": tuple(values["parameters"]), "inputs": pairs})
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError):
        return Seal("", (), ())


def _write(path: Path, seal: Seal, *, durable: bool) -> None:
    content = orjson.dumps(asdict(seal), option=orjson.OPT_SORT_KEYS)
    if durable:
        files.write_bytes(place(path), content)
        return
    with file_errors(place(path)):
        place(path).parent.mkdir(parents=True, exist_ok=True)
        place(path).write_bytes(content)


def _n_rows(path: Path) -> int | None:
    """Number of rows of a table; None for a file of another kind."""
    if path.suffix == ".parquet":
        import polars as pl

        return pl.scan_parquet(path).select(pl.len()).collect().item()
    if path.suffix != ".jsonl":
        return None
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def all_seals() -> list[Path]:
    """The files of all seals."""
    return sorted(FOLDER.rglob("*.json"))


def restore(format_version: int) -> int:
    """Restore Snakemake's records of the outputs that have seals, where they were deleted; returns their number.

    format_version: of the records of the Snakemake that runs.
    """
    if MARK.exists():
        return 0
    restored = 0
    with file_errors(MEMORY):
        for place_of_seal in all_seals():
            path = sealed_file(place_of_seal)
            seal = read(path)
            if path.exists() and not _record_place("metadata", path).exists():
                _restore(path, seal, format_version)
                restored += 1
        MARK.parent.mkdir(parents=True, exist_ok=True)
        (MEMORY / "incomplete").mkdir(exist_ok=True)  # without it Snakemake takes its folder for one of an old version
        MARK.write_text("{}")
    return restored


def remove_unfinished() -> list[Path]:
    """Remove the outputs that were written by jobs that were killed before they sealed them; returns their paths.

    Snakemake makes incomplete outputs again, but not those of jobs that it knows of only after a checkpoint. Nothing is removed
    while another Snakemake has locked the folder.
    """
    if any((MEMORY / "locks").glob("*")):
        return []
    removed = []
    with file_errors(MEMORY):
        for record in sorted(path for path in (MEMORY / "incomplete").rglob("*") if path.is_file()):
            path = _recorded_path(record)
            seal = read(path) if path else None
            if seal is not None and seal.sha256 is None and path.is_file():
                path.unlink()
                place(path).unlink()
                removed.append(path)
    return removed


def _restore(path: Path, seal: Seal, format_version: int) -> None:
    time = path.stat().st_mtime
    record = {
        "rule": seal.rule,
        "input": [name for name, _ in seal.inputs],
        "params": list(seal.parameters),
        "log": [],
        "record_format_version": format_version,
        "starttime": time,
        "endtime": time,
        "incomplete": False,
        "input_checksums": {name: f"sha256:{value}" for name, value in seal.inputs if value},
    }
    if seal.sha256 is None:
        _write_record("incomplete", path, {"external_jobid": None})
    else:
        _write_record("metadata", path, record)


def _record_place(kind: str, path: Path) -> Path:
    """The path of Snakemake's record of an output: its encoded path, cut where it is longer than a name may be."""
    name = urlsafe_b64encode(str(path).encode()).decode()
    longest = os.pathconf(".", "PC_NAME_MAX") - 1
    parts = [name[start : start + longest] for start in range(0, len(name), longest)]
    return Path(MEMORY, kind, *(f"@{part}" for part in parts[:-1]), parts[-1])


def _recorded_path(record: Path) -> Path | None:
    """The path of the output that a record of Snakemake is about, the inverse of `_record_place`; None for another file."""
    _, _, *folders, name = record.parts
    try:
        return Path(urlsafe_b64decode("".join([*(folder.removeprefix("@") for folder in folders), name])).decode())
    except ValueError:
        return None


def _write_record(kind: str, path: Path, record: Mapping[str, Any]) -> None:
    place_of_record = _record_place(kind, path)
    place_of_record.parent.mkdir(parents=True, exist_ok=True)
    place_of_record.write_bytes(orjson.dumps(record))
