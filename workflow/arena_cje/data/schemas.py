"""Every table is declared here once and checked where it is written and where it is read.

A JSONL table is a list of dicts, a parquet table a polars frame. A row that breaks its declaration is refused with
file and line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.errors import UserError, nearest
from arena_cje.files import Placed, Row, read_json, read_jsonl, read_placed, replace, write_csv, write_json, write_jsonl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import polars as pl

__all__ = [
    "CALIBRATION",
    "DRAWS",
    "GRADES",
    "LOGGED",
    "LOGPROB",
    "LOGPROBS",
    "OUTSIDE_SUPPORT",
    "PROBES",
    "PROMPTS",
    "RESPONSES",
    "SCORES",
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
    "list[int]": ((list,), "a list of whole numbers"),
    "list[float]": ((list,), "a list of numbers"),
    "list[list]": ((list,), "a list of [score, mass] pairs"),
}


@dataclass(frozen=True)
class Column:
    """What a column holds. `null` allows null and absence; bounds are inclusive and refuse NaN."""

    kind: str
    meaning: str
    null: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    non_empty: bool = False
    hint: str = ""  # what to do about a value out of bounds

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, to follow the column's name in a sentence; None when it is right."""
        if value is None:
            return None if self.null else "is missing or null"
        types, expected = TYPES[self.kind]
        if not isinstance(value, types) or isinstance(value, bool):
            return f"is {value!r:.60}, expected {expected}"
        return self._elements_problem(value) if isinstance(value, list) else self._out_of_bounds(value)

    def _elements_problem(self, values: list) -> str | None:
        types, _ = TYPES[self.kind[5:-1]]
        strange = sorted(kind.__name__ for kind in set(map(type, values)) - set(types))
        if strange:
            return f"has elements of type {', '.join(strange)}, expected {TYPES[self.kind][1]}"
        return "has a NaN in it" if any(value != value for value in values) else None

    def _out_of_bounds(self, value: Any) -> str | None:
        if isinstance(value, float) and math.isnan(value):
            return "is NaN; write null where the value is missing"
        if self.low is not None and value < self.low:
            return f"is {value!r}, expected at least {self.low:g}{self.hint}"
        if self.high is not None and value > self.high:
            return f"is {value!r}, expected at most {self.high:g}{self.hint}"
        if self.choices and value not in self.choices:
            return f"is {value!r}, expected one of {', '.join(self.choices)}{nearest(str(value), self.choices)}"
        return "is empty" if self.non_empty and not value else None


@dataclass(frozen=True)
class Table:
    """A table's columns, the key that is unique in it, and whether fields beyond those declared are kept."""

    name: str
    columns: Mapping[str, Column]
    key: tuple[str, ...] = ()
    extra: bool = False
    parquet: bool = False
    rule: Callable[[Row], str | None] | None = None

    def check(self, placed: Iterable[Placed]) -> list[Placed]:
        """The rows, ids as strings; the first row that breaks the declaration is refused, with its place."""
        seen: dict[tuple, str] = {}
        checked = []
        for where, row in placed:
            problem = self._row_problem(row)
            if problem:
                raise UserError(f"{where}: {problem}")
            row = {
                name: str(value) if self._is_id(name) and value is not None else value for name, value in row.items()
            }
            key = tuple(row[name] for name in self.key)
            if key and key in seen:
                named = ", ".join(f"{name} {value!r}" for name, value in zip(self.key, key, strict=True))
                raise UserError(f"{where}: {named} appears again (first at {seen[key]}); keep one of the two")
            seen[key] = where
            checked.append((where, row))
        return checked

    def read(self, path: str | Path) -> list[Row] | pl.DataFrame:
        """The checked table: a polars frame from parquet, a list of dicts from JSONL."""
        if self.parquet:
            return self._read_parquet(Path(path))
        return [row for _, row in self.check(read_placed(path))]

    def write(self, path: str | Path, rows: Iterable[Row]) -> None:
        """Check the rows and write them, columns in declared order, further fields after them."""
        placed = self.check((f"{path} (row {k})", row) for k, row in enumerate(rows))
        ordered = [{name: row[name] for name in (*self.columns, *row) if name in row} for _, row in placed]
        if self.parquet:
            frame = self._frame(ordered)
            replace(path, frame.write_parquet)
        else:
            write_jsonl(path, ordered)

    def _is_id(self, name: str) -> bool:
        return name in self.columns and self.columns[name].kind == "id"

    def _row_problem(self, row: Row) -> str | None:
        if not self.extra:
            for name in row:
                if name not in self.columns:
                    return f"unknown field {name!r} in {self.name}{nearest(name, self.columns)}"
        for name, column in self.columns.items():
            problem = column.problem(row.get(name))
            if problem:
                return f"{name} {problem}"
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

    def _read_parquet(self, path: Path) -> pl.DataFrame:
        import polars as pl

        try:
            frame = pl.read_parquet(path)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except pl.exceptions.ComputeError as error:
            raise UserError(f"{path}: not a readable parquet file ({error})") from None
        self.check((f"{path} (row {k})", row) for k, row in enumerate(frame.iter_rows(named=True)))
        return frame.cast(dict(self._frame([]).schema)).select(list(self.columns))


ROUNDING = 1e-6  # of masses that sum to one, and of a mean that went through text


def _grade_rule(row: Row) -> str | None:
    score, pairs = row.get("score"), row.get("distribution")
    if score is None and not row.get("reason"):
        return "score is null without a reason; say why there is none"
    if pairs is None:
        return None
    if any(len(pair) != 2 for pair in pairs):
        return "distribution has an element that is no [score, mass] pair"
    total, mean = sum(mass for _, mass in pairs), sum(point * mass for point, mass in pairs)
    if abs(total - 1) > ROUNDING:
        return f"distribution has masses that sum to {total:.8g}, expected 1"
    return (
        None
        if score is not None and abs(mean - score) <= ROUNDING
        else f"score is {score}, expected the mean {mean:.8g}"
    )


# Why a response has no log probability; the last three behind an API alone: the text holds control tokens, the server
# echoed another text than it was sent, it declined.
UNSCORED = ("too_long", "empty", "not_finite", "control_tokens", "not_echoed", "refused")


def _logprob_rule(row: Row) -> str | None:
    logprob, status = row.get("logprob"), row["status"]
    implied = UNSCORED if logprob is None else ("outside_support",) if logprob == -math.inf else ("ok",)
    return None if status in implied else f"logprob {logprob} has status {status!r}, expected {' or '.join(implied)}"


_ID = Column("id", "prompt answered")
_DRAW = Column("int", "which of the policy's responses to the prompt, from 0", low=0)
_ELSE = "; declare the range of your data by `scale` if it is another"
_JUDGED = {
    "judge_score": Column("float", "judge score", null=True, low=0.0, high=1.0, hint=_ELSE),
    "judge_distribution": Column(
        "list[list]", "[score, mass] of an uncertain judge; judge_score is its mean", null=True
    ),
    "judge_scores": Column("list[float]", "instead of these, repeated scores of equal mass", null=True),
    "oracle_label": Column("float", "oracle label", null=True, low=0.0, high=1.0, hint=_ELSE),
}
LOGPROB = Column("float", "nats, summed over the response's tokens", null=True, high=0.0)
OUTSIDE_SUPPORT = -10000.0  # stands for -inf in JSONL, with the policy's name under metadata.outside_support

PROMPTS = Table(
    "the prompts",
    {
        "prompt_id": _ID,
        "prompt": Column("str", "what the user wrote", non_empty=True),
        "reference": Column("object", "what a free oracle compares with", null=True),
    },
    key=("prompt_id",),
    extra=True,
)

RESPONSES = Table(
    "the responses",
    {
        "prompt_id": _ID,
        "policy": Column("str", "policy that answered", non_empty=True),
        "draw_idx": _DRAW,
        "prompt": Column("str", "prompt answered, before rendering"),
        "response": Column("str", "text of the response"),
        "token_ids": Column("list[int]", "tokens as sampled; APIs tell none", null=True),
        "finish_reason": Column("str", "why it ended", null=True, choices=("stop", "length")),
        "status": Column(
            "str",
            "too_long: the prompt did not fit; refused: the provider declined; control_tokens: the prompt holds the model's own "
            "control tokens, which an endpoint that takes text would obey",
            choices=("ok", "too_long", "refused", "control_tokens"),
        ),
        "seed": Column("int", "seed of the response's random stream"),
        "model_sha256": Column("str", "hash of the weights; null behind an API", null=True),
        "model": Column("str", "version that answered, behind an API", null=True),
        "system_fingerprint": Column("str", "of the server that answered, where it tells one", null=True),
        "item": Column("str", "hash of all that determined the response"),
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
        "reply": Column("str", "what the grader said", null=True),
        "distribution": Column("list[list]", "[score, mass], where the judge says how sure it is", null=True),
        "choice_mass": Column("float", "probability of all the judge's answers together", null=True, low=0.0, high=1.0),
        "model": Column("str", "the version behind an API that answered", null=True),
        "system_fingerprint": Column("str", "what that API ran on, as it says", null=True),
        "item": Column("str", "hash of all that determined the grade"),
    },
    key=("prompt_id", "draw_idx"),
    rule=_grade_rule,
)

_SCORED = {
    "logprob": LOGPROB,
    "n_tokens": Column("int", "response tokens", low=0),
    "token_logprobs": Column("list[float]", "nats per token", null=True),
    "n_boundary": Column("int", "tokens on a boundary: the nucleus' edge, or prompt and response in one", low=0),
    "status": Column("str", "how scoring went", choices=("ok", "outside_support", *UNSCORED)),
}

LOGPROBS = Table(
    "the log probabilities", {"prompt_id": _ID, **_SCORED}, key=("prompt_id",), parquet=True, rule=_logprob_rule
)

SCORES = Table(
    "the scores of a context",
    {
        "prompt_id": _ID,
        "temperature": Column("float", "of the sampling scored", low=0.0),
        "top_p": Column("float", "of the sampling scored", low=0.0, high=1.0),
        **_SCORED,
    },
    key=("prompt_id", "temperature", "top_p"),
    parquet=True,
    rule=_logprob_rule,
)

LOGGED = Table(
    "the logged data",
    {
        "prompt_id": Column("id", "prompt answered; a hash of `prompt` when absent", null=True),
        "draw_idx": Column("int", "which of the base's responses to the prompt", null=True, low=0),
        "prompt": Column("str", "what the user wrote", null=True),
        "response": Column("str", "the base policy's response", null=True),
        "base_policy": Column("str", "name of the base policy; `base` when absent", null=True, non_empty=True),
        "base_policy_logprob": LOGPROB,
        "target_policy_logprobs": Column("object", "nats, by target policy", null=True),
        **_JUDGED,
        "metadata": Column("object", "covariates, outside_support", null=True),
    },
    extra=True,
)

_DRAWN = {
    "prompt_id": Column("id", "prompt answered", null=True),
    "draw_idx": Column("int", "counted from 0 within a prompt when absent", null=True, low=0),
    "policy": Column("str", "policy that answered", null=True),
    "target_policy": Column("str", "the same, as older files call it", null=True),
    "prompt": Column("str", "what the user wrote", null=True),
    "response": Column("str", "the response", null=True),
    **_JUDGED,
    "metadata": Column("object", "covariates", null=True),
}

DRAWS = Table("the fresh draws", _DRAWN, extra=True)

_FIRST = Column("int", "which of the policy's responses to the prompt; 0 when absent", null=True, low=0)

PROBES = Table("the probes", _DRAWN | {"draw_idx": _FIRST}, extra=True)

CALIBRATION = Table("the calibration data", _DRAWN | {"draw_idx": _FIRST}, extra=True)
