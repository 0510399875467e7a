"""The range of an axis of values, which one wide interval does not stretch.

    estimates and truths    always in range
    ends of intervals       in range as far as they reach at most `REACH` median half-widths beyond these

An interval that goes on beyond the axis is drawn up to its edge, with an arrow there. A refused policy has no share in the
range, neither by its estimate nor by its truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REACH = 4.0
LEAST_SPAN = 0.2  # smallest range, so that small differences do not look large
MARGIN = 0.05  # share of the range that is free at both ends


def limits(rows: Sequence[Mapping[str, float | None]], least_span: float = LEAST_SPAN) -> tuple[float, float]:
    """The ends of the axis for rows with `value`, `low`, `high` and perhaps `truth`; None and NaN are missing.

    A row without a value has no share in it; without any value the range is that of labels.
    """
    fields = ("value", "low", "high", "truth")
    table = np.array([[row.get(name) for name in fields] for row in rows], dtype=float).reshape(-1, len(fields))
    value, low, high, truth = table[np.isfinite(table[:, 0])].T
    if not len(value):
        return -MARGIN, 1 + MARGIN
    finite = np.concatenate([value, truth[np.isfinite(truth)]])
    half = (high - low) / 2
    reach = REACH * np.median(half[np.isfinite(half)]) if np.isfinite(half).any() else 0.0
    start = min(finite.min(), max(np.nanmin([*low, finite.min()]), finite.min() - reach))
    end = max(finite.max(), min(np.nanmax([*high, finite.max()]), finite.max() + reach))
    room = MARGIN * (end - start) + max(0.0, least_span - (1 + 2 * MARGIN) * (end - start)) / 2
    return (float(start - room), float(end + room)) if room > 0 else (float(start) - MARGIN, float(end) + MARGIN)
