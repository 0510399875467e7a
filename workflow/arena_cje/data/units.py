"""Signs that a column was read in other units than its own, or in place of another one.

A scale of the data is a claim of the user. Read on too wide a scale, a column is squeezed into one end of [0, 1], and every
value that is estimated from it is a wrong number that looks like a low one: labels 0 and 1 on the scale (0, 10) are 0 and .1.

    wrong:   all values lie in [0, 1] though the scale is at least WIDE times as long, or all lie in its lowest tenth;
             fewer than FEW values, and a column of one value at the end of its scale, decide nothing
    unusual: the same of nearly all values above the lower end; or all lie in [0, 1] on a scale that is twice as long;
             or, of two columns on one scale, one ends at the middle where the other nears the top

The logged data and the calibration data are refused where they are wrong. A policy may truly have the lowest scores only,
so fresh draws are refused only where fractions of one show their units, and are cautioned about otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arena_cje.data.reading import Scale

WIDE = 3  # length of a scale from which values within [0, 1] alone are more likely in other units than low
TENTH = 0.1
FEW = 10
NEARLY_ALL = 0.95
MIDDLE, NEAR_TOP = 0.5, 0.8  # of a scale, on [0, 1]
ROUNDING = 1e-9


def check_units(values: Iterable[float | None], scale: Scale | None, key: str, what: str, *, of_policy: bool) -> None:
    """Raise a `UserError` where the values of a column, on [0, 1], show that they are in other units than its scale.

    key: name of the option that gives the scale; what: the column and its place, for the error; of_policy: whether the rows
    are those of one policy, whose scores may truly be the lowest.
    """
    present = np.array([value for value in values if value is not None], dtype=float)
    problem = _problem(present, scale)
    if problem is None or (of_policy and not _has_fractions(present, scale)):
        return
    low, high = scale
    raise UserError(
        f"{what}: {problem} of the declared scale {low:g} to {high:g}; set the range of this column by `{key}` (judge "
        "scores: `judge_scale`, oracle labels: `label_scale`), or map its values to [0, 1] yourself if they are correct"
    )


def unusual_units(values: np.ndarray, scale: Scale | None, what: str) -> str | None:
    """A sentence where values (n,) on [0, 1] may be in other units than their declared scale; NaN is missing."""
    present = values[~np.isnan(values)]
    above = present[present > ROUNDING]
    if scale is None or len(above) < FEW:
        return None
    if np.mean(above <= _edge(scale)) >= NEARLY_ALL:
        where = f"nearly all {what} lie at the lower end of"
    elif scale[0] >= 0 and scale[1] >= 2 and _in_data(above, scale).max() <= 1 + ROUNDING:
        where = f"all {what} lie between 0 and 1 on"
    else:
        return None
    low, high = scale
    return f"{where} the declared scale {low:g} to {high:g}; check that this is the range of the column"


def differing_units(
    scores: np.ndarray, labels: np.ndarray, judge_scale: Scale | None, label_scale: Scale | None
) -> str | None:
    """A sentence where scores and labels (n,) on [0, 1] share a declared scale that may be that of one of them only.

    Scores from 1 to 10 and labels from 1 to 5, both read on (1, 10), are an example. NaN is missing.
    """
    columns = {"judge scores": scores[~np.isnan(scores)], "oracle labels": labels[~np.isnan(labels)]}
    if judge_scale is None or judge_scale != label_scale or min(map(len, columns.values())) < FEW:
        return None
    (lower, below), (higher, above) = sorted(columns.items(), key=lambda column: column[1].max())
    if below.max() > MIDDLE + ROUNDING or above.max() < NEAR_TOP:
        return None
    low, high = judge_scale
    ends = [_in_data(values.max(), judge_scale) for values in (below, above)]
    return (
        f"no {lower[:-1]} exceeds {ends[0]:g} where {higher} reach {ends[1]:g}, both on the scale from {low:g} to {high:g} "
        "that was declared; if they have different scales, give `judge_scale` and `label_scale`"
    )


def swapped_columns(n_scored: int, n_labels_without_score: int) -> str | None:
    """A sentence where labels without a judge score outnumber the scored rows: a judge scores all rows, labels are few."""
    if n_labels_without_score <= n_scored:
        return None
    return (
        f"{n_labels_without_score} logged rows have a label and no judge score, and only {n_scored} have a judge score; check "
        "that the columns of scores and labels are not swapped"
    )


def _problem(values: np.ndarray, scale: Scale | None) -> str | None:
    """What is wrong with the values (n,) on [0, 1], None if nothing is."""
    if scale is None or len(values) < FEW or values.max() <= ROUNDING or values.min() >= 1 - ROUNDING:
        return None
    if _within_unit(values, scale):
        return f"all {len(values)} values lie between 0 and 1, a small part"
    return f"all {len(values)} values lie in the lowest tenth" if values.max() <= TENTH + ROUNDING else None


def _within_unit(values: np.ndarray, scale: Scale) -> bool:
    """Whether all values (n,) are between 0 and 1 in the units of the data, where the scale is much longer."""
    data = _in_data(values, scale)
    return bool(scale[1] - scale[0] >= WIDE and data.min() >= -ROUNDING and data.max() <= 1 + ROUNDING)


def _has_fractions(values: np.ndarray, scale: Scale) -> bool:
    """Whether values (n,) between 0 and 1 in the units of the data are no whole numbers."""
    data = _in_data(values, scale)
    return _within_unit(values, scale) and bool(np.any(np.abs(data - np.rint(data)) > 1e-6))


def _in_data(values: np.ndarray, scale: Scale) -> np.ndarray:
    return scale[0] + (scale[1] - scale[0]) * values


def _edge(scale: Scale) -> float:
    """Upper end, on [0, 1], of what counts as the lower end of a scale: its tenth, or 1 in the data where that is more."""
    low, high = scale
    return max(TENTH, (1 - low) / (high - low) if low >= 0 and high - low >= WIDE else 0.0) + ROUNDING
