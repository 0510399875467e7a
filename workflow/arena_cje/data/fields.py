"""Fields of a row that may stand at its top level or under `metadata`: judge score, label, covariates.

A judge that is not certain gives a distribution over scores instead of one score:

    judge_distribution: [[s_1, p_1], ...],  p_j > 0,  sum p_j = 1;     judge_scores: [s_1, ..., s_r],  p_j = 1/r
    judge_score = sum_j p_j s_j

A covariate may be the score of a further judge.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from arena_cje.data.reading import RESPONSE_LENGTH, Reading
from arena_cje.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.data.schemas import Table
    from arena_cje.files import Row

Distribution = tuple[tuple[float, float], ...]  # (score, mass), scores rising, masses sum to one

SAME = 1e-6  # numbers that went through text or single precision, and sums of masses, are equal up to this


def stored(row: Row, name: str, where: str, table: Table) -> Any:
    """A field that may stand at the top level, under metadata, or equally in both; None where it is absent."""
    values = [place[name] for place in (row, row.get("metadata") or {}) if name in place]
    if len(values) == 2 and values[0] != values[1]:
        raise UserError(
            f"{where}: {name} is {values[0]!r} at the top level but {values[1]!r} under metadata; make them agree"
        )
    problem = table.columns[name].problem(values[0]) if values else None
    if problem:
        raise UserError(f"{where}: {name} {problem}")
    return values[0] if values else None


def judge_of(row: Row, where: str, table: Table, reading: Reading) -> tuple[float | None, Distribution | None]:
    """What the judge says, on [0, 1]: its score, the mean where it gives a distribution, and that distribution.

    Of a further judge rows have the score alone.
    """
    score = stored(row, reading.score_field, where, table)
    pairs = _pairs(row, where, table) if reading.judge is None else None
    if pairs is None:
        return reading.unit_score(score), None
    mean = _mean(pairs)
    if score is not None and abs(score - mean) > SAME * reading.score_width:
        raise UserError(
            f"{where}: judge_score is {score!r}, but the judge's distribution has mean {mean:.6g}; "
            "make them agree, or leave judge_score out"
        )
    unit = tuple((reading.unit_score(point), mass) for point, mass in pairs)
    return _mean(unit), unit


def _mean(pairs: Distribution) -> float:
    mean = sum(point * mass for point, mass in pairs)
    return min(max(mean, pairs[0][0]), pairs[-1][0])  # a rounded sum must not leave the scale


def _pairs(row: Row, where: str, table: Table) -> Distribution | None:
    """The judge's distribution as it is given, equal scores joined; None where the row has none."""
    given = {name: stored(row, name, where, table) for name in ("judge_distribution", "judge_scores")}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return None
    if len(given) == 2:
        raise UserError(f"{where}: judge_distribution and judge_scores are both there; give one of the two")
    name, value = next(iter(given.items()))
    if not value:
        raise UserError(f"{where}: {name} is empty; give at least one score, or leave it out")
    pairs = value if name == "judge_distribution" else [[score, 1 / len(value)] for score in value]
    column = replace(table.columns["judge_score"], null=False)
    joined: dict[float, float] = {}
    for pair in pairs:
        problem = _pair_problem(pair, column)
        if problem:
            raise UserError(f"{where}: {name} {problem}")
        joined[float(pair[0])] = joined.get(float(pair[0]), 0.0) + float(pair[1])
    total = math.fsum(joined.values())
    if abs(total - 1) > SAME:
        raise UserError(f"{where}: {name} has masses that sum to {total:.8g}, expected 1")
    return tuple((point, mass / total) for point, mass in sorted(joined.items()))


def _pair_problem(pair: Any, column: Any) -> str | None:
    if len(pair) != 2:
        return f"has the element {list(pair)!r:.60}, expected a pair [score, mass]"
    problem = column.problem(pair[0])
    if problem:
        return f"has a score that {problem}"
    mass = pair[1]
    number = isinstance(mass, int | float) and not isinstance(mass, bool) and math.isfinite(mass)
    return None if number and mass > 0 else f"has the mass {mass!r}, expected a number above 0"


def covariates_of(row: Row, names: Sequence[str], where: str) -> tuple[float, ...] | None:
    """The covariates of a row, in the units they came in; None where one is a judge's score and that judge gave none."""
    if any(_gave_none(row, name) for name in names):
        return None
    return tuple(_words(row, where) if name == RESPONSE_LENGTH else _number(row, name, where) for name in names)


def _gave_none(row: Row, name: str) -> bool:
    """Is this a judge's score that is said to be missing?"""
    held = [place[name] for place in (row, row.get("metadata") or {}) if name in place]
    return name.startswith("judge_") and len(held) > 0 and all(value is None for value in held)


def _words(row: Row, where: str) -> float:
    text = row.get("response")
    if text is None:
        raise UserError(f"{where}: covariate {RESPONSE_LENGTH} counts the words of `response`, which this row lacks")
    return float(len(text.split()))


def _number(row: Row, name: str, where: str) -> float:
    places = (row, row.get("metadata") or {})
    found = [place[name] for place in places if place.get(name) is not None]
    if not found:
        known = [RESPONSE_LENGTH, *(key for place in places for key, value in place.items() if _is_number(value))]
        raise UserError(
            f"{where}: covariate {name!r} is missing{nearest(name, known)}; "
            "every judged row needs it, at the top level or under metadata"
        )
    if len(found) == 2 and found[0] != found[1]:
        raise UserError(
            f"{where}: covariate {name!r} is {found[0]!r} at the top level but {found[1]!r} under metadata; "
            "make them agree"
        )
    if not _is_number(found[0]):
        raise UserError(f"{where}: covariate {name!r} is {found[0]!r:.60}, expected a finite number")
    return float(found[0])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
