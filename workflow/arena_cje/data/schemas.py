"""The declarations of all tables. A table is checked against its declaration whenever it is written or read.

A JSONL table is a list of dicts, a parquet table a polars frame. A row that breaks the declaration is refused with its
file and line.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from dataclasses import replace as changed
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from arena_cje.errors import UserError, did_you_mean, file_errors
from arena_cje.files import (
    Row,
    RowWithPlace,
    iterate_rows,
    read_json,
    read_jsonl,
    replace,
    write_csv,
    write_json,
    write_jsonl,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    import polars as pl

__all__ = [
    "CALIBRATION",
    "DRAWS",
    "GRADES",
    "LABELS",
    "LABEL_DESIGN",
    "LOGGED",
    "LOGPROB",
    "LOGPROBS",
    "OUTSIDE_SUPPORT",
    "PROBES",
    "PROMPTS",
    "RESPONSES",
    "SCORES",
    "UNSCORED",
    "Column",
    "Table",
    "read_json",
    "read_jsonl",
    "write_csv",
    "write_json",
    "write_jsonl",
]

TYPES = {
    "id": ((str, int), "a string or a whole number"),
    "str": ((str,), "a string"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "object": ((dict,), "an object"),
    "list": ((list,), "a list"),
    "list[str]": ((list,), "a list of strings"),
    "list[int]": ((list,), "a list of whole numbers"),
    "list[float]": ((list,), "a list of numbers"),
    "list[list]": ((list,), "a list of [score, mass] pairs"),
}

PLAIN_TYPES = {"id": (str,), "str": (str,), "int": (int,), "float": (float, int), "object": (dict,)}


class PlainValues(NamedTuple):
    """Values of a column that are right at first sight: of some types, in bounds where it has some."""

    types: tuple[type, ...]
    low: float | None
    high: float | None
    null: bool


Plain = dict[str, PlainValues]  # by name of the column


@dataclass(frozen=True)
class Column:
    """The declaration of a column."""

    kind: str  # a key of TYPES
    meaning: str
    null: bool = False  # the value may be null or absent
    low: float | None = None  # bounds are inclusive
    high: float | None = None
    choices: tuple[str, ...] = ()
    non_empty: bool = False
    hint: str = ""  # end of the error about a value out of bounds

    @property
    def plain_values(self) -> PlainValues:
        """Which values have no problem at first sight; any other may be right, too."""
        if self.choices or self.non_empty or self.kind not in PLAIN_TYPES:
            return PlainValues((), None, None, self.null)
        if self.kind == "float" or self.low is not None or self.high is not None:
            low = -sys.float_info.max if self.low is None else self.low
            high = sys.float_info.max if self.high is None else self.high
            return PlainValues(PLAIN_TYPES[self.kind], low, high, self.null)
        return PlainValues(PLAIN_TYPES[self.kind], None, None, self.null)

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, to follow the column's name in a sentence; None if nothing is."""
        if value is None:
            return None if self.null else "is missing or null"
        types, expected = TYPES[self.kind]
        if not isinstance(value, types) or isinstance(value, bool):
            return f"is {value!r:.60}, expected {expected}"
        return self._elements_problem(value) if isinstance(value, list) else self._value_problem(value)

    def _elements_problem(self, values: list) -> str | None:
        types, _ = TYPES[self.kind[5:-1]]
        other_types = sorted(kind.__name__ for kind in set(map(type, values)) - set(types))
        if other_types:
            return f"has elements of type {', '.join(other_types)}, expected {TYPES[self.kind][1]}"
        return "has a NaN in it" if any(value != value for value in values) else None

    def _value_problem(self, value: Any) -> str | None:
        if isinstance(value, float) and math.isnan(value):
            return "is NaN; write null where the value is missing"
        if self.low is not None and value < self.low:
            return f"is {value!r:.60}, expected at least {self.low:g}{self.hint}"
        if self.high is not None and value > self.high:
            return f"is {value!r:.60}, expected at most {self.high:g}{self.hint}"
        if self.kind == "float" and value != -math.inf and abs(value) > sys.float_info.max:
            return f"is {value!r:.60}, expected a finite number"
        if self.choices and value not in self.choices:
            return f"is {value!r}, expected one of {', '.join(self.choices)}{did_you_mean(str(value), self.choices)}"
        return "is empty" if self.non_empty and not value else None


def _are_plain(fields: Row, plain: Plain) -> bool:
    for name, value in fields.items():
        if name not in plain:
            continue
        types, low, high, null = plain[name]
        if value is None:
            if not null:
                return False
        elif type(value) not in types or (low is not None and not low <= value <= high):
            return False
    return True


# What other formats of this field call a field: question files of benchmarks, data sets of instructions, logs of answers.
OTHER_NAMES = {
    "prompt_id": ("question_id", "uid", "id", "qid", "task_id", "example_id", "instance_id", "sample_id", "custom_id"),
    "prompt": ("turns", "instruction", "question", "query", "input", "problem", "text", "messages", "conversations"),
    "response": ("output", "answer", "completion", "generation", "choices"),
}


def fields_hint(row: Row, names: Iterable[str]) -> str:
    """End of an error about a missing field: the fields of the row, and which of them are probably the missing ones.

    names: of the fields that a row may have. Empty where the row has fields of the format alone.
    """
    names = list(names)
    others = {str(name).lower(): name for name in row if name not in names}
    if not others:
        return ""
    changes = []
    for field_name in names:
        name = next((others[other] for other in OTHER_NAMES.get(field_name, ()) if other in others), None)
        if name is not None and row.get(field_name) is None:
            first = " (its first element, as text)" if isinstance(row[name], list) else ""
            changes.append(f"{name} to {field_name}{first}")
    advice = f"; rename {' and '.join(changes)}" if changes else ""
    return f"; the row has the fields {', '.join(map(str, row))[:200]}{advice}"


@dataclass(frozen=True)
class Table:
    """The declaration of a table."""

    name: str
    columns: Mapping[str, Column]
    key: tuple[str, ...] = ()  # columns whose values together are unique; none for no such rule
    extra: bool = False  # rows may have further fields
    parquet: bool = False
    rule: Callable[[Row], str | None] | None = None  # what is wrong with a row as a whole, None if nothing is
    metadata: Mapping[str, Column] = field(default_factory=dict)  # fields that have a meaning under `metadata`

    def check(self, placed: Iterable[RowWithPlace]) -> list[RowWithPlace]:
        """The rows with their places, ids as strings; raises a `UserError` for the first that breaks the declaration."""
        return list(self.checked(placed))

    def checked(self, placed: Iterable[RowWithPlace]) -> Iterator[RowWithPlace]:
        """The same, one by one."""
        places: dict[tuple, str] = {}
        plain = self._plain_values()
        ids = [name for name, column in self.columns.items() if column.kind == "id"]
        for where, row in placed:
            problem = self._rule_problem(row) if self._is_plain(row, plain) else self._row_problem(row)
            if problem:
                raise UserError(f"{where}: {problem}")
            if any(type(row.get(name)) is int for name in ids):
                row = {name: str(value) if name in ids and value is not None else value for name, value in row.items()}
            if self.key:
                key = tuple(row[name] for name in self.key)
                if key in places:
                    repeated = ", ".join(f"{name} {value!r}" for name, value in zip(self.key, key, strict=True))
                    raise UserError(f"{where}: {repeated} appears again (first at {places[key]}); keep one of the two")
                places[key] = where
            yield where, row

    @cached_property
    def nullable(self) -> bool:
        """Whether every column may be absent."""
        return all(column.null for column in self.columns.values())

    def _plain_values(self) -> tuple[Plain, Plain]:
        """What values of the columns, and of those under `metadata`, need no further look."""
        return tuple(
            {name: column.plain_values for name, column in columns.items()} for columns in (self.columns, self.metadata)
        )

    def _is_plain(self, row: Row, plain: tuple[Plain, Plain]) -> bool:
        """Whether a row is right at first sight, as nearly all are; another one needs `_row_problem`, which takes longer."""
        at_top, below = plain
        if not self.extra and not at_top.keys() >= row.keys():
            return False
        metadata = row.get("metadata") or {}
        return (
            type(metadata) is dict
            and (self.nullable or all(name in row for name, values in at_top.items() if not values.null))
            and _are_plain(row, at_top)
            and _are_plain(metadata, below)
        )

    def rows(self, path: str | Path) -> Iterator[Row]:
        """The checked rows of a JSONL file one by one."""
        return (row for _, row in self.checked(iterate_rows(path)))

    def read(self, path: str | Path, columns: Collection[str] | None = None) -> list[Row] | pl.DataFrame:
        """The checked table of a file: a polars frame from parquet, a list of dicts from JSONL.

        columns: those that are kept, None for all. Of parquet only these are read, and those that its rule needs must be
        among them; the values of JSONL are checked in all columns.

        Raises a `UserError` where the file does not exist, is of another format, or breaks the declaration.
        """
        if self.parquet:
            return self._read_parquet(Path(path), columns)
        if columns is None:
            return list(self.rows(path))
        return [{name: row[name] for name in columns if name in row} for row in self.rows(path)]

    def write(self, path: str | Path, rows: Iterable[Row]) -> None:
        """Check the rows and write them, columns in declared order, followed by further fields."""
        placed = self.checked((f"{path} (row {k})", row) for k, row in enumerate(rows))
        ordered = ({name: row[name] for name in (*self.columns, *row) if name in row} for _, row in placed)
        if self.parquet:
            frame = self._frame(list(ordered))
            replace(path, frame.write_parquet)
        else:
            write_jsonl(path, ordered)

    def _row_problem(self, row: Row) -> str | None:
        if not self.extra:
            for name in row:
                if name not in self.columns:
                    return f"unknown field {name!r} in {self.name}{did_you_mean(name, self.columns)}"
        for name, column in self.columns.items():
            problem = column.problem(row.get(name))
            if problem:
                return f"{name} {problem}" + (fields_hint(row, self.columns) if row.get(name) is None else "")
        metadata = row.get("metadata") or {}
        for name, column in self.metadata.items():
            problem = column.problem(metadata[name]) if name in metadata else None
            if problem:
                return f"metadata.{name} {problem}"
        return self._rule_problem(row)

    def _rule_problem(self, row: Row) -> str | None:
        return self.rule(row) if self.rule else None

    def _frame(self, rows: list[Row]) -> pl.DataFrame:
        import polars as pl

        types = {
            "id": pl.String,
            "str": pl.String,
            "int": pl.Int32,
            "float": pl.Float64,
            "list[float]": pl.List(pl.Float64),
        }
        return pl.DataFrame(rows, schema={name: types[column.kind] for name, column in self.columns.items()})

    def _read_parquet(self, path: Path, columns: Collection[str] | None) -> pl.DataFrame:
        import polars as pl

        try:
            with file_errors(path):
                frame = pl.read_parquet(path, columns=_those_of(columns, pl.read_parquet_schema(path)))
        except pl.exceptions.PolarsError as error:
            raise UserError(f"{path}: not a readable parquet file ({' '.join(str(error).split())})") from None
        table = self if columns is None else changed(self, columns={name: self.columns[name] for name in columns})
        for _ in table.checked((f"{path} (row {k})", row) for k, row in enumerate(frame.iter_rows(named=True))):
            pass
        return frame.cast(dict(table._frame([]).schema)).select(list(table.columns))


def _those_of(columns: Collection[str] | None, there: Iterable[str]) -> list[str] | None:
    """Those of some columns that the file has; rows raise the error for one that it lacks."""
    return None if columns is None else [name for name in there if name in columns]


ROUNDING = 1e-6  # of a sum of masses, and of a mean in a text file


def _grade_rule(row: Row) -> str | None:
    score, pairs = row.get("score"), row.get("distribution")
    if score is None and not row.get("reason"):
        return "score is null without a reason; give the reason"
    if pairs is None:
        return None
    if any(len(pair) != 2 for pair in pairs):
        return "distribution contains an element that is not a pair [score, mass]"
    total, mean = sum(mass for _, mass in pairs), sum(point * mass for point, mass in pairs)
    if abs(total - 1) > ROUNDING:
        return f"distribution has masses that sum to {total:.8g}, expected 1"
    return (
        None
        if score is not None and abs(mean - score) <= ROUNDING
        else f"score is {score}, expected the mean {mean:.8g}"
    )


# Reasons why a response has no log probability. The last four are those of APIs: the text has control tokens in it, the
# server echoed another text than that of the request, the server declined, its reply cannot be read.
UNSCORED = ("too_long", "empty", "not_finite", "control_tokens", "not_echoed", "refused", "unreadable")


def _logprob_rule(row: Row) -> str | None:
    logprob, status = row.get("logprob"), row["status"]
    allowed = UNSCORED if logprob is None else ("outside_support",) if logprob == -math.inf else ("ok",)
    return None if status in allowed else f"logprob {logprob} has status {status!r}, expected {' or '.join(allowed)}"


_ID = Column("id", "prompt of the response")
_DRAW = Column("int", "which of the policy's responses to the prompt, from 0", low=0)
_SCALE_HINT = "; set the ranges of your data: `judge_scale` for judge scores and `label_scale` for oracle labels"
_PROBABILITY_HINT = "; it is the known probability, above 0 and up to 1, that the row was labelled"
LABEL_PROBABILITY = Column(
    "float", "known probability that the row was labelled", null=True, low=1e-6, high=1.0, hint=_PROBABILITY_HINT
)
_JUDGE_FIELDS = {
    "judge_score": Column("float", "judge score", null=True, low=0.0, high=1.0, hint=_SCALE_HINT),
    "judge_distribution": Column(
        "list[list]", "the judge's distribution as [score, mass] pairs; judge_score is its mean", null=True
    ),
    "judge_scores": Column("list[float]", "the distribution as a list of scores with equal mass", null=True),
    "oracle_label": Column("float", "oracle label", null=True, low=0.0, high=1.0, hint=_SCALE_HINT),
    "label_probability": LABEL_PROBABILITY,
}
# What a row of any data set may have under `metadata` with a meaning of its own; all else there may be a covariate.
_METADATA = {
    "prompt_id": Column("id", "prompt of the response, in older files", null=True),
    "draw_idx": Column("int", "which of the policy's responses to the prompt", null=True, low=0),
    **_JUDGE_FIELDS,
    "response_token_count": Column("float", "tokens of the response", null=True, low=0, high=1e12),
    "outside_support": Column("list[str]", "targets that cannot produce the response", null=True),
}
LOGPROB = Column("float", "nats, summed over the response's tokens", null=True, high=0.0)
OUTSIDE_SUPPORT = -10000.0  # in JSONL, for -inf; the policy's name is then under metadata.outside_support

PROMPTS = Table(
    "the prompts",
    {
        "prompt_id": _ID,
        "prompt": Column("str", "text of the prompt", non_empty=True),
        "reference": Column("object", "reference that the oracle without an API compares with", null=True),
    },
    key=("prompt_id",),
    extra=True,
)

RESPONSES = Table(
    "the responses",
    {
        "prompt_id": _ID,
        "policy": Column("str", "policy of the response", non_empty=True),
        "draw_idx": _DRAW,
        "prompt": Column("str", "text of the prompt, before rendering"),
        "response": Column("str", "text of the response"),
        "token_ids": Column("list[int]", "sampled tokens; null for an API", null=True),
        "finish_reason": Column("str", "why the response ended", null=True, choices=("stop", "length")),
        "status": Column(
            "str",
            "too_long: the prompt did not fit; refused: the provider declined; control_tokens: the prompt contains control "
            "tokens of the model, which a text endpoint would obey; unreadable: the server's reply has no text",
            choices=("ok", "too_long", "refused", "control_tokens", "unreadable"),
        ),
        "seed": Column("int", "seed of the response's random stream"),
        "model_sha256": Column("str", "hash of the weights; null behind an API", null=True),
        "model": Column("str", "version of the model behind an API", null=True),
        "system_fingerprint": Column("str", "fingerprint of the API's server, where it sends one", null=True),
        "item": Column("str", "hash of everything that determines the response"),
    },
    key=("prompt_id", "draw_idx"),
)

GRADES = Table(
    "the grades",
    {
        "prompt_id": _ID,
        "draw_idx": _DRAW,
        "score": Column("float", "judge score or oracle label", null=True, low=0.0, high=1.0),
        "reason": Column("str", "why there is no score", null=True),
        "reply": Column("str", "text of the grader's reply", null=True),
        "distribution": Column("list[list]", "the judge's distribution as [score, mass]", null=True),
        "choice_mass": Column("float", "probability of all the judge's answers together", null=True, low=0.0, high=1.0),
        "model": Column("str", "version of the grader behind an API", null=True),
        "system_fingerprint": Column("str", "fingerprint of the API's server, where it sends one", null=True),
        "label_probability": LABEL_PROBABILITY,
        "item": Column("str", "hash of everything that determines the grade"),
    },
    key=("prompt_id", "draw_idx"),
    rule=_grade_rule,
)

LABEL_DESIGN = Table(
    "the design of the labels",
    {
        "prompt_id": _ID,
        "density": Column("float", "probability of a label of the prompt's responses, relative to their mean", low=0.0),
    },
    key=("prompt_id",),
)

LABELS = Table(
    "the labels by people",
    {
        "item_id": Column("id", "text that was labelled"),
        "label": Column("float", "label out of the votes", low=0.0, high=1.0),
        "n_votes": Column("int", "votes in the label", low=1),
    },
    key=("item_id",),
)

_SCORING_FIELDS = {
    "logprob": LOGPROB,
    "n_tokens": Column("int", "response tokens", low=0),
    "token_logprobs": Column("list[float]", "nats per token", null=True),
    "n_boundary": Column("int", "tokens at the edge of the nucleus, or part of prompt and response both", low=0),
    "status": Column("str", "result of scoring", choices=("ok", "outside_support", *UNSCORED)),
}

LOGPROBS = Table(
    "the log probabilities", {"prompt_id": _ID, **_SCORING_FIELDS}, key=("prompt_id",), parquet=True, rule=_logprob_rule
)

SCORES = Table(
    "the scores of a context",
    {
        "prompt_id": _ID,
        "temperature": Column("float", "of the sampling distribution", low=0.0),
        "top_p": Column("float", "of the sampling distribution", low=0.0, high=1.0),
        **_SCORING_FIELDS,
    },
    key=("prompt_id", "temperature", "top_p"),
    parquet=True,
    rule=_logprob_rule,
)

_CLUSTER = Column("id", "cluster of the prompt: variants of one question, such as translations, share it", null=True)

LOGGED = Table(
    "the logged data",
    {
        "prompt_id": Column("id", "prompt of the response; a hash of `prompt` when absent", null=True),
        "draw_idx": Column("int", "which of the base's responses to the prompt", null=True, low=0),
        "prompt": Column("str", "text of the prompt", null=True),
        "response": Column("str", "the base policy's response", null=True),
        "base_policy": Column("str", "name of the base policy; `base` when absent", null=True, non_empty=True),
        "base_policy_logprob": LOGPROB,
        "target_policy_logprobs": Column("object", "nats, by target policy", null=True),
        **_JUDGE_FIELDS,
        "cluster": _CLUSTER,
        "metadata": Column("object", "covariates, outside_support", null=True),
    },
    extra=True,
    metadata=_METADATA,
)

_DRAW_FIELDS = {
    "prompt_id": Column("id", "prompt of the response", null=True),
    "draw_idx": Column("int", "counted from 0 within a prompt when absent", null=True, low=0),
    "policy": Column("str", "policy of the response", null=True),
    "target_policy": Column("str", "the name of `policy` in older files", null=True),
    "prompt": Column("str", "text of the prompt", null=True),
    "response": Column("str", "the response", null=True),
    **_JUDGE_FIELDS,
    "cluster": _CLUSTER,
    "metadata": Column("object", "covariates", null=True),
}

DRAWS = Table("the fresh draws", _DRAW_FIELDS, extra=True, metadata=_METADATA)

_DRAW_OR_FIRST = Column("int", "which of the policy's responses to the prompt; 0 when absent", null=True, low=0)

PROBES = Table("the probes", _DRAW_FIELDS | {"draw_idx": _DRAW_OR_FIRST}, extra=True, metadata=_METADATA)

CALIBRATION = Table("the calibration data", _DRAW_FIELDS | {"draw_idx": _DRAW_OR_FIRST}, extra=True, metadata=_METADATA)
