"""From checked votes to labels and a report of how far raters agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from arena_cje.labeling import aggregation, agreement

if TYPE_CHECKING:
    from arena_cje.files import Row
    from arena_cje.labeling.records import Scale
    from arena_cje.labeling.votes import Ballot


@dataclass(frozen=True)
class Labelled:
    """Labels as rows of `schemas.LABELS`, and the report on the votes they are made of."""

    rows: tuple[Row, ...]
    report: dict[str, Any]


def make(ballot: Ballot, scale: Scale, method: Literal["auto", "mean", "two_way"] = "auto") -> Labelled:
    """A label for every text with a vote, and the report."""
    known = {
        "n_known": ballot.n_items,
        "n_open": ballot.n_open,
        "n_skipped": len(ballot.skipped),
        "notes": list(ballot.notes),
    }
    if not ballot.votes:
        return Labelled((), known | {"n_items": 0, "n_votes": 0, "n_raters": 0})
    ratings = agreement.ratings(ballot.votes, scale)
    labels = aggregation.aggregate(ratings, method)
    rows = (
        {"item_id": item, "label": float(value), "n_votes": int(n)}
        for item, value, n in zip(ratings.items, labels.value, ratings.n_votes, strict=True)
    )
    how = {
        "model": labels.model,
        "p_value": labels.p_value,
        "biases": None if labels.bias is None else dict(zip(ratings.raters, labels.bias.tolist(), strict=True)),
        "panel_error": labels.panel_error,
        "n_clipped": labels.n_clipped,
    }
    return Labelled(
        tuple(rows), known | agreement.summary(ratings, ballot.votes, ballot.copies, scale) | {"aggregation": how}
    )
