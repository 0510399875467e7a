"""The pool: all prompts of a source in their seeded order, in a file that is made once and read by every shard.

`prompts.jsonl` has the prompts, `prompts.json` what they were made from and the counts. The order does not depend on the
number of prompts that an experiment takes, so that a larger experiment finds the same file.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje import files
from arena_cje.data import prompts
from arena_cje.data.prompt_sets import hub, reading
from arena_cje.data.prompt_sets.selection import REASONS, Counts, Selection, select
from arena_cje.errors import UserError
from arena_cje.provenance import code_hash, digest, sha256

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from arena_cje.data.prompt_sets.reading import PromptSet
    from arena_cje.files import Row


# The prompts that stand in for a set that is yet to be read: lengths in characters, with the mean and about the skew of 1000
# prompts of ChatBot Arena (mean 138, median 60).
STAND_IN = "stand_in.jsonl"
STAND_IN_LENGTHS = (15, 30, 60, 105, 480)


@dataclass(frozen=True)
class Source:
    """A prompt set and what is selected from it.

    name: as in the configuration. path: of the file or folder; None for the id of a data set of the hub.
    """

    name: str
    path: Path | None
    split: str = "train"
    revision: str | None = None
    selection: Selection = Selection()

    def open(self, known_revision: str | None) -> PromptSet:
        """The opened set. known_revision: commit of the hub that was read before, which stays when none is configured."""
        if self.path is not None:
            return reading.open_path(self.path, self.split)
        return hub.open_id(self.name, self.split, self.revision or known_revision)

    def identity(self) -> dict[str, Any]:
        """What determines the rows of the source."""
        if self.path is None:
            return {"id": self.name, "split": self.split, "revision": self.revision}
        return {"sha256": _content_hash(self.path), "split": self.split}


@dataclass(frozen=True)
class Pool:
    """The prompts of a source in their order.

    summary: source, revision and counts. identity: hash of all that determines the prompts. newly_read: by this process.
    """

    path: Path
    summary: dict[str, Any]
    identity: str
    newly_read: bool = False

    @property
    def note(self) -> str:
        """What the source has in a sentence, or which prompts stand in for a source that is yet to be read."""
        if self.path.name != STAND_IN:
            return describe(self.summary)
        return (
            f"{self.summary['source']}: there is no access token of the hub (HF_TOKEN), so that its prompts are yet to be read; "
            f"this supposes {self.summary['n_eligible']} prompts of {mean(STAND_IN_LENGTHS):.0f} characters on average, as those "
            "of ChatBot Arena have"
        )

    def check_size(self, n: int) -> None:
        """Raise a `UserError` where there are fewer than n prompts."""
        if n > self.summary["n_eligible"]:
            raise UserError(_too_few(n, self.summary))

    def lines(self, n: int) -> list[bytes]:
        """The first n prompts as lines of JSON."""
        return prompts.lines(self.path, 0, n)

    def rows(self, n: int) -> list[Row]:
        """The first n prompts."""
        return prompts.read(self.path, 0, n)


def read_pool(source: Source, seed: int, folder: Path) -> Pool:
    """The pool of a source, from the folder's files while nothing has changed that they are made from, else read anew."""
    path, index = folder / "prompts.jsonl", folder / "prompts.json"
    made_from = {
        "source": source.identity(),
        "selection": asdict(source.selection),
        "seed": seed,
        "code": code_hash("arena_cje.data.prompt_sets.pool"),
    }
    cache_content = read_index(folder)
    if cache_content.get("made_from") == made_from and path.is_file():
        return _pool(path, made_from, cache_content["summary"] | {"source": source.name})
    same_source = cache_content.get("made_from", {}).get("source") == made_from["source"]
    opened = source.open(cache_content["summary"].get("revision") if same_source else None)
    index.unlink(missing_ok=True)  # from here on it would not be that of the file
    counts = Counts()
    _write_in_order(path, select(opened, source.selection, counts), seed)
    summary = {"source": source.name, "revision": opened.revision} | counts.summary()
    if not counts.n_eligible:
        path.unlink()
        raise UserError(_none_left(summary))
    files.write_json(index, {"made_from": made_from, "summary": summary})
    return _pool(path, made_from, summary, newly_read=True)


def is_read(source: Source, folder: Path) -> bool:
    """Whether the folder's files are of this source."""
    return read_index(folder).get("made_from", {}).get("source") == source.identity()


def stand_in(source: Source, n: int, folder: Path) -> Pool:
    """A pool of n prompts of usual lengths, for plans and cost estimates where the source cannot be read yet."""
    path = folder / STAND_IN
    lengths = (STAND_IN_LENGTHS[i % len(STAND_IN_LENGTHS)] for i in range(n))
    rows = [{"prompt_id": f"unread_{i}", "prompt": ("words " * 80)[:length]} for i, length in enumerate(lengths)]
    files.write_jsonl(path, rows)
    summary = {"source": source.name, "revision": None, "n_rows": n, "n_eligible": n, "flagged": 0, "dropped": {}}
    return Pool(path, summary, digest(["stand-in", n]), newly_read=True)


def _pool(path: Path, made_from: dict[str, Any], summary: dict[str, Any], *, newly_read: bool = False) -> Pool:
    return Pool(path, summary, digest([made_from, summary["revision"]]), newly_read)


def describe(summary: dict[str, Any]) -> str:
    """The counts of a pool in a sentence."""
    dropped = "".join(f"; {count} dropped: {REASONS[reason]}" for reason, count in _dropped(summary))
    flagged = f"; {summary['flagged']} of them are flagged by the data set" if summary["flagged"] else ""
    revision = f" at {summary['revision'][:12]}" if summary["revision"] else ""
    return (
        f"{summary['source']}{revision}: {summary['n_eligible']} prompts of {summary['n_rows']} rows{flagged}{dropped}"
    )


def _dropped(summary: dict[str, Any]) -> list[tuple[str, int]]:
    """Reasons with their counts in declared order (a JSON file has its keys sorted)."""
    return [(reason, summary["dropped"][reason]) for reason in REASONS if reason in summary["dropped"]]


def _too_few(n: int, summary: dict[str, Any]) -> str:
    dropped = [f"{count} {REASONS[reason]}" for reason, count in _dropped(summary)]
    of_rows = f" ({summary['n_rows']} rows without {', '.join(dropped)})" if dropped else ""
    return (
        f"config: n_prompts is {n}, but {summary['source']} has {summary['n_eligible']} prompts{of_rows}; "
        f"set n_prompts to {summary['n_eligible']} or less, or name a larger source"
    )


def _none_left(summary: dict[str, Any]) -> str:
    if not summary["n_rows"]:
        return (
            f"{summary['source']}: no prompts in it; expected one JSON object a line with `prompt_id` and `prompt`, or "
            "another prompt set (config/README.md)"
        )
    dropped = ", ".join(f"{count} {REASONS[reason]}" for reason, count in _dropped(summary))
    return f"{summary['source']}: none of its {summary['n_rows']} rows is left ({dropped}); change the block `prompts`"


def _write_in_order(path: Path, rows: Iterable[Row], seed: int) -> None:
    """Write prompts in their seeded order. Memory holds a few numbers a prompt: the texts wait in a temporary file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent) as waiting:
        places = []
        for row in rows:
            line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
            places.append((prompts.rank(row["prompt_id"], seed), waiting.tell(), len(line)))
            waiting.write(line)
        places.sort()

        def write(handle: Any) -> None:
            for _, start, length in places:
                waiting.seek(start)
                handle.write(waiting.read(length))

        files.replace(path, write)


def _content_hash(path: Path) -> str:
    """Hash of a file, or of the files of a folder with their names."""
    if path.is_file():
        return sha256(path)
    inside = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("cache-"))
    return digest([[str(file.relative_to(path)), sha256(file)] for file in inside])


def read_index(folder: Path) -> dict[str, Any]:
    """What the pool of a folder was made from (`made_from`) and its `summary`; nothing where there is none or it is damaged."""
    try:
        index = files.read_json(folder / "prompts.json")
    except UserError:
        return {}
    return index if isinstance(index, dict) and {"made_from", "summary"} <= index.keys() else {}
