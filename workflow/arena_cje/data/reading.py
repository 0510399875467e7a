"""How the rows of a data set are read: with which covariates, in which units, by which judge.

A scale (low, high) belongs to a column: judge scores and oracle labels have one each, and their values are mapped to [0, 1]
by (x - low) / (high - low). Beside `judge_score` a row may have the scores of further judges as `judge_NAME`; an analysis
may read one of these in its place, on a scale of its own.
"""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass
from dataclasses import replace as changed
from numbers import Real
from typing import TYPE_CHECKING, Any

from arena_cje.data.schemas import CALIBRATION, DRAWS, LOGGED, Column, Table
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Scale = tuple[float, float]  # lowest and highest value

RESPONSE_LENGTH = "response_length"  # the covariate that is computed, as the number of words of the response


@dataclass(frozen=True)
class Reading:
    """Options of reading a data set; the default is right for the data that the workflow writes.

    covariates: names, each `response_length` or a numeric field of the rows or of their metadata.
    scale: lowest and highest value of judge scores and labels both, where they have one scale.
    judge: name of a further judge, whose scores `judge_NAME` replace `judge_score`; None is the judge of every row.
    judge_scale, label_scale: lowest and highest score of the judge that is read, and lowest and highest label; None is
        `scale`, and (0, 1) without it.

    Raises a `UserError` for a scale that does not rise, a repeated covariate, or a covariate that has the name of a field
    of the format.
    """

    covariates: tuple[str, ...] = ()
    scale: InitVar[Scale | None] = None
    judge: str | None = None
    judge_scale: Scale | None = None
    label_scale: Scale | None = None

    def __post_init__(self, scale: Scale | None) -> None:
        object.__setattr__(self, "covariates", tuple(self.covariates))  # a caller may pass a list
        _check_covariates(self.covariates)
        shorthand = _ends("scale", scale)
        for name in ("judge_scale", "label_scale"):
            own = _ends(name, getattr(self, name))
            object.__setattr__(self, name, shorthand if own is None else own)

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> Reading:
        """The scales and the judge that the summary of a data set, or the `data` of a results file, records."""
        return cls(**{name: summary.get(name) for name in ("judge", "judge_scale", "label_scale")})

    def summary(self) -> dict[str, Any]:
        """Scales and judge as a summary records them; a default is left out."""
        scales = {"judge_scale": self.judge_scale, "label_scale": self.label_scale}
        recorded = {name: None if scale is None else list(scale) for name, scale in scales.items()}
        return {name: value for name, value in (recorded | {"judge": self.judge}).items() if value is not None}

    def without_covariates(self) -> Reading:
        """The same scales and judge, for rows that need no covariates."""
        return changed(self, covariates=())

    @property
    def score_field(self) -> str:
        """The field of a row that holds the score."""
        return "judge_score" if self.judge is None else f"judge_{self.judge}"

    @property
    def score_width(self) -> float:
        """Length of the range of scores."""
        return 1.0 if self.judge_scale is None else self.judge_scale[1] - self.judge_scale[0]

    def bounded(self, table: Table) -> Table:
        """The table with the scales as the bounds of scores and labels, and with a column for the judge's scores.

        Where a further judge is read, `judge_score` is not, and may have any scale.
        """
        score = _on_scale(table.columns["judge_score"], self.judge_scale)
        bounds = {"oracle_label": _on_scale(table.columns["oracle_label"], self.label_scale)}
        if self.judge is not None:
            bounds["judge_score"] = changed(score, low=None, high=None)
        bounds[self.score_field] = score
        return changed(table, columns={**table.columns, **bounds}, metadata={**table.metadata, **bounds})

    def unit_score(self, score: float | None) -> float | None:
        """A score of the data on [0, 1]."""
        return _to_unit(score, self.judge_scale)

    def unit_label(self, label: float | None) -> float | None:
        """A label of the data on [0, 1]."""
        return _to_unit(label, self.label_scale)

    def data_score(self, score: float | None) -> float | None:
        """A score in [0, 1] on the scale of the data."""
        return _from_unit(score, self.judge_scale)

    def data_label(self, label: float | None) -> float | None:
        """A label in [0, 1] on the scale of the data."""
        return _from_unit(label, self.label_scale)


def _to_unit(value: float | None, scale: Scale | None) -> float | None:
    return value if value is None or scale is None else (value - scale[0]) / (scale[1] - scale[0])


def _from_unit(value: float | None, scale: Scale | None) -> float | None:
    return value if value is None or scale is None else scale[0] + (scale[1] - scale[0]) * value


def _on_scale(column: Column, scale: Scale | None) -> Column:
    """The column with a scale as its bounds."""
    if scale is None:
        return column
    hint = " on the declared scale; set the range of each column by `judge_scale` and `label_scale`"
    return changed(column, low=float(scale[0]), high=float(scale[1]), hint=hint)


def _ends(name: str, scale: Any) -> Scale | None:
    """The two ends of a scale; raises a `UserError` where they are none, or do not rise."""
    if scale is None:
        return None
    ends = tuple(scale) if isinstance(scale, list | tuple) else ()
    numbers = [end for end in ends if isinstance(end, Real) and not isinstance(end, bool) and math.isfinite(end)]
    if len(ends) != 2 or len(numbers) != 2 or not ends[0] < ends[1]:
        value = list(ends) if isinstance(scale, list | tuple) else scale
        raise UserError(f"{name} is {value!r:.60}, expected [lowest, highest], such as [0, 100]")
    return tuple(end if isinstance(end, int) else float(end) for end in ends)


def _check_covariates(names: Sequence[str]) -> None:
    fields = {*LOGGED.columns, *DRAWS.columns, *CALIBRATION.columns}
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"covariates list {name!r} more than once; list it once")
        if name in fields:
            raise UserError(
                f"covariate {name!r} is another field of the CJE format; use a number in the rows' metadata, or {RESPONSE_LENGTH}"
            )
