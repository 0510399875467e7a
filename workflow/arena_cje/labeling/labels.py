"""From checked votes to labels and a report of how far raters agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from arena_cje.errors import UserError
from arena_cje.files import read_json
from arena_cje.labeling import aggregation, agreement, tasks, votes
from arena_cje.labeling.records import Scale

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from arena_cje.files import Row
    from arena_cje.labeling.records import Vote
    from arena_cje.labeling.votes import Ballot

Method = Literal["auto", "mean", "two_way"]


@dataclass(frozen=True)
class Labelled:
    """Labels as rows of `schemas.LABELS`, and the report on the votes they are made of."""

    rows: tuple[Row, ...]
    report: dict[str, Any]


def from_files(paths: Iterable[str | Path], folder: str | Path, columns: Mapping[str, str] | None = None) -> Labelled:
    """Labels and report of files of votes on the batches in a folder, by the keys and settings that lie there.

    columns: names in files of no known kind, by ours. Raises a `UserError` where there is no batch, or a vote cannot be used.
    """
    batches = sorted(Path(folder).glob("*/batch.json"))
    if not batches:
        raise UserError(
            f"{folder}: has no labelling batch (*/batch.json); create one first, or give its folder by --labeling"
        )
    settings = read_json(batches[0])
    key = tasks.read_key(batch.with_name("key.csv") for batch in batches)
    placed = [row for path in paths for row in votes.read(path, columns)]
    scale = Scale(*settings["scale"], settings["step"])
    return make(votes.collect(placed, key, scale, votes=settings["votes_per_item"]), scale)


def make(
    ballot: Ballot,
    scale: Scale,
    method: Method = "auto",
    apart: Collection[str] = (),
) -> Labelled:
    """A label for every text with a vote, and the report.

    apart: items for validation alone. Raters' biases are estimated for them and for the others separately, so that no vote on
    them has a part in a label of an estimate. The report's `aggregation` is that of the others.
    """
    counts = {
        "n_known": ballot.n_items,
        "n_open": ballot.n_open,
        "n_skipped": len(ballot.skipped),
        "notes": list(ballot.notes),
    }
    if not ballot.votes:
        return Labelled((), counts | {"n_items": 0, "n_votes": 0, "n_raters": 0})
    ratings = agreement.ratings(ballot.votes, scale)
    of_estimates, estimates = _aggregated([vote for vote in ballot.votes if vote.item_id not in apart], scale, method)
    of_validation, validation = _aggregated([vote for vote in ballot.votes if vote.item_id in apart], scale, method)
    rows = sorted(of_estimates + of_validation, key=lambda row: row["item_id"])
    how = {"aggregation": estimates} | ({"aggregation_of_validation": validation} if apart else {})
    return Labelled(tuple(rows), counts | agreement.summary(ratings, ballot.votes, ballot.copies, scale) | how)


def _aggregated(votes: Sequence[Vote], scale: Scale, method: Method) -> tuple[list[Row], dict[str, Any] | None]:
    """Labels of the texts of some votes, and how they were made; None where there are no votes."""
    if not votes:
        return [], None
    ratings = agreement.ratings(votes, scale)
    labels = aggregation.aggregate(ratings, method)
    rows = [
        {"item_id": item, "label": float(value), "n_votes": int(n)}
        for item, value, n in zip(ratings.items, labels.value, ratings.n_votes, strict=True)
    ]
    return rows, {
        "model": labels.model,
        "p_value": labels.p_value,
        "biases": None if labels.bias is None else dict(zip(ratings.raters, labels.bias.tolist(), strict=True)),
        "panel_error": labels.panel_error,
        "n_clipped": labels.n_clipped,
    }
