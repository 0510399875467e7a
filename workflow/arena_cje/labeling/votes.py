"""Votes from files of any tool, checked against the key.

A file is the canonical table (`COLUMNS`, as the labelling page writes it), a filled-in tasks.csv of one rater, Label Studio's
JSON or CSV export, Mechanical Turk's results, or any CSV whose columns are named. Problems are collected and refused in one
sentence with their rows. A vote that appears again unchanged counts once, so that files may overlap.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.errors import UserError, did_you_mean
from arena_cje.files import RowWithPlace, read_json
from arena_cje.labeling.cells import read_csv
from arena_cje.labeling.records import Vote
from arena_cje.labeling.tasks import text_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arena_cje.labeling.records import KeyRow, Scale

COLUMNS = ("item_id", "annotator_id", "score", "skipped", "comment", "submitted_at", "duration_s")
TEXTS = ("batch", "prompt", "response")  # compared with the key where a file has them
LABEL_STUDIO = {
    "annotator_id": "annotator",
    "submitted_at": "created_at",
    "duration_s": "lead_time",
}
MTURK = {
    "item_id": "Input.item_id",
    "annotator_id": "WorkerId",
    "score": "Answer.score",
    "comment": "Answer.comment",
    "submitted_at": "SubmitTime",
    "duration_s": "WorkTimeInSeconds",
    "batch": "Input.batch",
    "prompt": "Input.prompt",
    "response": "Input.response",
}
TRUE = ("1", "true", "yes", "x")
FALSE = ("", "0", "false", "no")
SHOWN = 5  # rows that a sentence names of each problem


@dataclass(frozen=True)
class Ballot:
    """The valid votes of a study."""

    votes: tuple[Vote, ...]  # one for each rater and item
    copies: tuple[Vote, ...]  # on items that come twice, the second time, under the id of the item
    skipped: tuple[Vote, ...]
    notes: tuple[str, ...]  # sentences for the reader
    n_items: int  # of the key
    n_open: int  # votes that the key's items still lack

    @property
    def n_labelled(self) -> int:
        """Items with a vote."""
        return len({vote.item_id for vote in self.votes})


def check_columns(columns: Mapping[str, str]) -> None:
    """Raise a `UserError` for names that are not ours in a mapping from our columns to those of a file."""
    names = (*COLUMNS, *TEXTS)
    for name in columns:
        if name not in names:
            raise UserError(f"`columns` maps {name!r}{did_you_mean(name, names)}; expected names of {', '.join(names)}")


def read(path: str | Path, columns: Mapping[str, str] | None = None) -> list[RowWithPlace]:
    """The rows of a file under our names of columns, as texts.

    columns: names of the columns by ours, in files that have them; others are of a known kind.
    """
    check_columns(columns or {})
    if Path(path).suffix.lower() == ".json":
        return _label_studio_json(path)
    rows = read_csv(path)
    header = list(rows[0][1]) if rows else []
    # A filled-in tasks.csv is one person's, and the file has the person's name.
    annotator = Path(path).stem if {"item_id", "position"} <= {*header} and "annotator_id" not in header else None
    column_names = {name: name for name in (*COLUMNS, *TEXTS)} | _names_in(header, columns or {})
    required = ("item_id", "score") if annotator else ("item_id", "annotator_id", "score")
    missing = [name for name in required if rows and column_names[name] not in header]
    if missing:
        raise UserError(
            f"{path}: has no column {column_names[missing[0]]!r} for {missing[0]}"
            f"{did_you_mean(column_names[missing[0]], header)}; its columns are {', '.join(header)}: "
            "map them under `labeling.columns`"
        )
    not_rejected = ((where, row) for where, row in rows if row.get("AssignmentStatus") != "Rejected")
    votes = [(where, _vote_fields(row, column_names, annotator)) for where, row in not_rejected]
    # In a sheet that one person fills in, rows without a score are those to come.
    return [(where, row) for where, row in votes if row["score"] or row["skipped"] or not annotator]


def _names_in(header: Sequence[str], columns: Mapping[str, str]) -> Mapping[str, str]:
    """Names of columns in a file with this header, by ours, where they differ."""
    if columns and {*columns.values()} <= {*header}:
        return columns
    if "WorkerId" in header and "AssignmentStatus" in header:
        return MTURK
    if "annotation_id" in header:
        return LABEL_STUDIO
    return {} if {"item_id", "score"} <= {*header} else columns


def _vote_fields(
    row: Mapping[str, str], column_names: Mapping[str, str], annotator: str | None
) -> dict[str, str | None]:
    texts = {name: (row[column].strip() if column in row else None) for name, column in column_names.items()}
    filled = {name: texts[name] or "" for name in COLUMNS}
    return {**texts, **filled, "annotator_id": annotator or filled["annotator_id"]}


def _label_studio_json(path: str | Path) -> list[RowWithPlace]:
    """Rows of Label Studio's JSON export: one for each annotation of each task."""
    tasks = read_json(path)
    rows: list[RowWithPlace] = []
    try:
        if not isinstance(tasks, list):
            raise TypeError(type(tasks).__name__)
        for number, task in enumerate(tasks, start=1):
            data = task["data"]
            for annotation in task["annotations"]:
                by = annotation.get("completed_by")
                who = by.get("email") or by.get("id") if isinstance(by, dict) else by
                values = {result["from_name"]: _value(result["value"]) for result in annotation.get("result", ())}
                row = {
                    "item_id": str(data["item_id"]),
                    "annotator_id": "" if who is None else str(who),
                    "score": values.get("score", ""),
                    "skipped": "1" if annotation.get("was_cancelled") else "",
                    "comment": values.get("comment", ""),
                    "submitted_at": str(annotation.get("created_at") or ""),
                    "duration_s": str(annotation.get("lead_time") or ""),
                }
                rows.append((f"{path} (task {number})", row | {name: data.get(name) for name in TEXTS}))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: is not a JSON export of Label Studio, which is a list of tasks with `data` and `annotations` "
            f"({error!r}); choose the "
            "format JSON when exporting, not JSON_MIN"
        ) from None
    return rows


def _value(value: Mapping[str, Any]) -> str:
    """The value of a control as text: a rating, a number, a choice or words."""
    content = next((value[name] for name in ("rating", "number", "choices", "text") if name in value), "")
    return ", ".join(map(str, content)) if isinstance(content, list) else str(content)


def collect(placed: Iterable[RowWithPlace], key: Sequence[KeyRow], scale: Scale, *, votes: int) -> Ballot:
    """The votes of all files, checked; raises a `UserError` that names the rows of every problem.

    votes: the required number for each item.
    """
    items = {row.item_id: row for row in key}
    copies = {row.copy_id: row for row in key}
    problems: dict[str, list[str]] = defaultdict(list)
    valid: dict[tuple[str, str], Vote] = {}
    repeats: list[str] = []
    for where, row in placed:
        item = items.get(row["item_id"]) or copies.get(row["item_id"])
        vote, problem = _vote(where, row, item, scale)
        if vote is None:
            problems[problem].append(where)
            continue
        first = valid.setdefault((vote.item_id, vote.annotator_id), vote)
        if first is not vote:
            same = (first.score, first.comment) == (vote.score, vote.comment)
            if same:
                repeats.append(where)
            else:
                problems["a second vote of one rater on one item; keep one of them"].append(where)
    if problems:
        kinds = (f"{_places(places)}: {problem}" for problem, places in problems.items())
        raise UserError("votes cannot be used: " + " | ".join(kinds))
    accepted = sorted(valid.values(), key=lambda vote: (vote.item_id, vote.annotator_id))
    scored = [vote for vote in accepted if vote.score is not None]
    on_items = tuple(vote for vote in scored if vote.item_id in items)
    on_copies = (vote for vote in scored if vote.item_id not in items)
    n_votes = Counter(vote.item_id for vote in on_items)
    n_open = sum(max(votes - n_votes[item], 0) for item in items)
    notes = []
    if repeats:
        notes.append(f"{len(repeats)} votes appear twice unchanged and count once: {_places(repeats)}")
    if n_open:
        few = sum(0 < n_votes[item] < votes for item in items)
        none = sum(n_votes[item] == 0 for item in items)
        notes.append(f"{n_open} votes are missing: {none} items have no vote, {few} have fewer than {votes}")
    return Ballot(
        votes=on_items,
        copies=tuple(_on_item(vote, copies[vote.item_id]) for vote in on_copies),
        skipped=tuple(vote for vote in accepted if vote.score is None),
        notes=tuple(notes),
        n_items=len(items),
        n_open=n_open,
    )


def _on_item(vote: Vote, row: KeyRow) -> Vote:
    """A vote on a copy, under the id of the item."""
    return Vote(**{**vars(vote), "item_id": row.item_id})


def _vote(where: str, row: Mapping[str, str | None], item: KeyRow | None, scale: Scale) -> tuple[Vote | None, str]:
    """The vote of a row, or what is wrong with it."""
    if item is None:
        return None, (
            "an unknown item: the file belongs to another study, or the response was generated again later; leave these rows out"
        )
    if row["batch"] and row["batch"] != item.batch:
        return None, f"a wrong batch: {row['batch']!r}; the item belongs to batch {item.batch!r}"
    texts = (row["prompt"], row["response"])
    if None not in texts and text_id(*texts) != item.text_id:
        return None, (
            "a changed text: prompt and response differ from those of the item; if a spreadsheet program sorted or cut "
            "columns, export again"
        )
    if not row["annotator_id"]:
        return None, "no rater: annotator_id is empty"
    skipped = (row["skipped"] or "").lower()
    if skipped not in (*TRUE, *FALSE):
        return None, f"skipped is {row['skipped']!r}, expected 1 or empty"
    score = None
    if skipped not in TRUE:
        if not row["score"]:
            return None, "a missing vote: score is empty and the item not skipped"
        score = _number(row["score"])
        problem = "is not a number" if score is None else scale.problem(score)
        if problem:
            return None, f"score {problem} (scale {scale.low:g} to {scale.high:g})"
    duration = _number(row["duration_s"])
    vote = Vote(
        row["item_id"], row["annotator_id"], score, where, row["comment"] or "", row["submitted_at"] or "", duration
    )
    return vote, ""


def _number(text: str | None) -> float | None:
    """A finite number; None for another text. A comma may be the decimal sign."""
    try:
        value = float((text or "").replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _places(places: Sequence[str]) -> str:
    more = len(places) - SHOWN
    return ", ".join(places[:SHOWN]) + (f" and {more} more" if more > 0 else "")
