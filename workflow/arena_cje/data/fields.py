"""Fields of a row, at its top level or under `metadata`: judge score, distribution, covariates.

A judge may give a distribution over scores instead of one score:

    judge_distribution: [[s_1, p_1], ...],  p_j > 0,  sum p_j = 1;     judge_scores: [s_1, ..., s_r],  p_j = 1/r
    judge_score = sum_j p_j s_j

A covariate is the length of the response, a number of the row, the score of a further judge, or a function of prompt and
response that `add_covariate` makes known.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from arena_cje.data.reading import RESPONSE_LENGTH
from arena_cje.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arena_cje.data.reading import Reading
    from arena_cje.data.schemas import Column, Table
    from arena_cje.files import Row

Distribution = tuple[tuple[float, float], ...]  # (score, mass), scores increasing, masses sum to one

TOLERANCE = 1e-6  # of scores, labels and sums of masses, which lose digits in text and in single precision


def field_of(row: Row, name: str, where: str) -> Any:
    """The value of a field at the top level or under metadata, None where it is absent.

    Raises a `UserError` where the two places differ. Their values are checked with their table.
    """
    metadata = row.get("metadata")
    if not metadata or name not in metadata:
        return row.get(name)
    if name in row and row[name] != metadata[name]:
        raise UserError(
            f"{where}: {name} is {row[name]!r} at the top level but {metadata[name]!r} under metadata; make them agree"
        )
    return row.get(name, metadata[name])


def judge_of(row: Row, where: str, table: Table, reading: Reading) -> tuple[float | None, Distribution | None]:
    """The judge's score on [0, 1], the mean of its distribution where there is one, and that distribution.

    Only the judge of every row, not a further judge, has distributions. Raises a `UserError` where score and mean differ.
    """
    score = field_of(row, reading.score_field, where)
    pairs = _distribution(row, where, table) if reading.judge is None else None
    if pairs is None:
        return reading.unit_score(score), None
    mean = _mean(pairs)
    if score is not None and abs(score - mean) > TOLERANCE * reading.score_width:
        raise UserError(
            f"{where}: judge_score is {score!r}, but the judge's distribution has mean {mean:.6g}; "
            "make them agree, or leave judge_score out"
        )
    unit = tuple((reading.unit_score(point), mass) for point, mass in pairs)
    return _mean(unit), unit


def _mean(pairs: Distribution) -> float:
    mean = sum(point * mass for point, mass in pairs)
    return min(max(mean, pairs[0][0]), pairs[-1][0])  # rounding must not move it out of the scale


def _distribution(row: Row, where: str, table: Table) -> Distribution | None:
    """The judge's distribution on the scale of the data, equal scores merged; None where the row has none."""
    fields = {
        name: field_of(row, name, where)
        for name in ("judge_distribution", "judge_scores")
        if name in row or name in (row.get("metadata") or ())
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    if not fields:
        return None
    if len(fields) == 2:
        raise UserError(f"{where}: judge_distribution and judge_scores are both set; keep one of the two")
    name, value = next(iter(fields.items()))
    if not value:
        raise UserError(f"{where}: {name} is empty; it needs at least one score, or leave it out")
    pairs = value if name == "judge_distribution" else [[score, 1 / len(value)] for score in value]
    column = replace(table.columns["judge_score"], null=False)
    mass_by_score: dict[float, float] = {}
    for pair in pairs:
        problem = _pair_problem(pair, column)
        if problem:
            raise UserError(f"{where}: {name} {problem}")
        score, mass = map(float, pair)
        mass_by_score[score] = mass_by_score.get(score, 0.0) + mass
    total = math.fsum(mass_by_score.values())
    if abs(total - 1) > TOLERANCE:
        raise UserError(f"{where}: {name} has masses with the sum {total:.8g}, expected 1")
    return tuple((score, mass / total) for score, mass in sorted(mass_by_score.items()))


def _pair_problem(pair: Any, column: Column) -> str | None:
    """What is wrong with an element of a distribution, to follow the field's name in a sentence; None if nothing is."""
    if len(pair) != 2:
        return f"has the element {list(pair)!r:.60}, expected a pair [score, mass]"
    problem = column.problem(pair[0])
    if problem:
        return f"has a score that {problem}"
    mass = pair[1]
    return None if _is_number(mass) and mass > 0 else f"has the mass {mass!r}, expected a number above 0"


_own_covariates: dict[str, Callable[[str, str], float]] = {}  # functions of the user


def add_covariate(name: str, function: Callable[[str, str], float]) -> None:
    """Make a covariate known that a function of prompt and response computes."""
    if name == RESPONSE_LENGTH:
        raise UserError(f"a covariate cannot have the name {name!r}, which is already in use; rename the function")
    _own_covariates[name] = function


def covariates_of(row: Row, names: Sequence[str], where: str) -> tuple[float, ...] | None:
    """The covariates of a row in the units of the data; None where one is a judge's score that is null.

    Raises a `UserError` for a covariate that is missing, or that is no finite number.
    """
    if any(_is_null_score(row, name) for name in names):
        return None
    return tuple(_covariate_of(row, name, where) for name in names)


def _covariate_of(row: Row, name: str, where: str) -> float:
    if name == RESPONSE_LENGTH:
        return _response_length(row, where)
    return _own_covariate(row, name, where) if name in _own_covariates else _covariate(row, name, where)


def _own_covariate(row: Row, name: str, where: str) -> float:
    """A covariate by a function of the user, of prompt and response."""
    if row.get("prompt") is None or row.get("response") is None:
        raise UserError(f"{where}: covariate {name!r} is computed from `prompt` and `response`, which this row lacks")
    try:
        value = _own_covariates[name](row["prompt"], row["response"])
    except UserError:
        raise
    except Exception as error:  # whatever code of the user raises
        raise UserError(f"{where}: covariate {name!r} raises {type(error).__name__}: {error}") from error
    if not _is_number(value):
        raise UserError(f"{where}: covariate {name!r} is {value!r:.60}, expected a finite number")
    return float(value)


def _is_null_score(row: Row, name: str) -> bool:
    """Whether a covariate is a judge's score that the row has as null."""
    values = [place[name] for place in (row, row.get("metadata") or {}) if name in place]
    return name.startswith("judge_") and len(values) > 0 and all(value is None for value in values)


def _response_length(row: Row, where: str) -> float:
    text = row.get("response")
    if text is None:
        raise UserError(f"{where}: covariate {RESPONSE_LENGTH} counts the words of `response`, which this row lacks")
    return float(len(text.split()))


def _covariate(row: Row, name: str, where: str) -> float:
    places = (row, row.get("metadata") or {})
    values = [place[name] for place in places if place.get(name) is not None]
    if not values:
        available = [RESPONSE_LENGTH, *(key for place in places for key, value in place.items() if _is_number(value))]
        raise UserError(
            f"{where}: covariate {name!r} is missing{did_you_mean(name, available)}; "
            "every row with a judge score needs it, at the top level or under metadata"
        )
    if len(values) == 2 and values[0] != values[1]:
        raise UserError(
            f"{where}: covariate {name!r} is {values[0]!r} at the top level but {values[1]!r} under metadata; "
            "make them agree"
        )
    if not _is_number(values[0]):
        raise UserError(f"{where}: covariate {name!r} is {values[0]!r:.60}, expected a finite number")
    return float(values[0])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
