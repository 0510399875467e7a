"""How the rows of a data set are read: with which covariates, on which scale, by which judge.

Scores and labels on a scale (low, high) are mapped to [0, 1] by (x - low) / (high - low). Beside `judge_score` a row may
have the scores of further judges as `judge_NAME`; an analysis may read one of these in its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any

from arena_cje.data.schemas import CALIBRATION, DRAWS, LOGGED, Table
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Scale = tuple[float, float]  # lowest and highest value

RESPONSE_LENGTH = "response_length"  # the covariate that is computed, as the number of words of the response


@dataclass(frozen=True)
class Reading:
    """Options of reading a data set; the default is right for the data that the workflow writes.

    covariates: names, each `response_length` or a numeric field of the rows or of their metadata.
    scale: lowest and highest judge score and label; None is (0, 1).
    judge: name of a further judge, whose scores `judge_NAME` replace `judge_score`; None is the judge of every row.

    Raises a `UserError` for a scale that does not rise, a repeated covariate, or a covariate that has the name of a field
    of the format.
    """

    covariates: tuple[str, ...] = ()
    scale: Scale | None = None
    judge: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "covariates", tuple(self.covariates))  # a caller may pass a list
        _check_covariates(self.covariates)
        if self.scale is not None:
            object.__setattr__(self, "scale", tuple(self.scale))
            _check_scale(self.scale)

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> Reading:
        """The scale and judge that the summary of a data set, or the `data` of a results file, records."""
        return cls(scale=summary.get("scale"), judge=summary.get("judge"))

    def summary(self) -> dict[str, Any]:
        """Scale and judge as a summary records them; a default is left out."""
        scale = None if self.scale is None else list(self.scale)
        return {name: value for name, value in (("scale", scale), ("judge", self.judge)) if value is not None}

    def without_covariates(self) -> Reading:
        """The same scale and judge, for rows that need no covariates."""
        return changed(self, covariates=())

    @property
    def score_field(self) -> str:
        """The field of a row that holds the score."""
        return "judge_score" if self.judge is None else f"judge_{self.judge}"

    @property
    def score_width(self) -> float:
        """Length of the range of scores."""
        return 1.0 if self.scale is None else self.scale[1] - self.scale[0]

    def bounded(self, table: Table) -> Table:
        """The table with the scale as the bounds of scores and labels, and with a column for the judge's scores."""
        columns = dict(table.columns)
        if self.scale is not None:
            bounds = {
                "low": float(self.scale[0]),
                "high": float(self.scale[1]),
                "hint": " on the scale that was declared",
            }
            columns |= {name: changed(columns[name], **bounds) for name in ("judge_score", "oracle_label")}
        columns[self.score_field] = columns["judge_score"]
        return changed(table, columns=columns)

    def unit_score(self, score: float | None) -> float | None:
        """A score of the data on [0, 1]."""
        return _to_unit(score, self.scale)

    def unit_label(self, label: float | None) -> float | None:
        """A label of the data on [0, 1]."""
        return _to_unit(label, self.scale)

    def data_score(self, score: float | None) -> float | None:
        """A score in [0, 1] on the scale of the data."""
        return _from_unit(score, self.scale)

    def data_label(self, label: float | None) -> float | None:
        """A label in [0, 1] on the scale of the data."""
        return _from_unit(label, self.scale)


def _to_unit(value: float | None, scale: Scale | None) -> float | None:
    return value if value is None or scale is None else (value - scale[0]) / (scale[1] - scale[0])


def _from_unit(value: float | None, scale: Scale | None) -> float | None:
    return value if value is None or scale is None else scale[0] + (scale[1] - scale[0]) * value


def _check_scale(scale: Sequence[Any]) -> None:
    numbers = [end for end in scale if isinstance(end, int | float) and math.isfinite(end)]
    if len(scale) != 2 or len(numbers) != 2 or not scale[0] < scale[1]:
        raise UserError(f"scale is {list(scale)!r}, expected its two ends, the lower first, such as [0, 100]")


def _check_covariates(names: Sequence[str]) -> None:
    fields = {*LOGGED.columns, *DRAWS.columns, *CALIBRATION.columns}
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"covariates name {name!r} more than once; each counts once, leave the others out")
        if name in fields:
            raise UserError(
                f"covariate {name!r} is a field of the format with a meaning of its own; name a number of the rows' "
                f"metadata, or {RESPONSE_LENGTH}"
            )
