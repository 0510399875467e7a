"""What labels by people cost, before there are responses to label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arena_cje.data.coverage import entry, has_label
from arena_cje.labeling.tasks import Terms, is_labelled

if TYPE_CHECKING:
    from arena_cje.config.records import Config


@dataclass(frozen=True)
class BatchCost:
    """Votes of a batch and their price; at most so many, since equal responses to a prompt are labelled once."""

    batch: str
    n_votes: int
    usd: float | None  # None: the price of a vote is unknown


def batch_costs(config: Config, n_prompts: int) -> list[BatchCost]:
    """The costs of the labelling batches; none where people label nothing."""
    labeling, costs, before = config.labeling, [], 0.0
    terms = Terms(labeling.votes_per_item, labeling.usd_per_vote, labeling.duplicates)
    for name, batch in labeling.batches.items():
        if batch.coverage is None:
            price = labeling.usd_per_vote
            n_votes = batch.labels if batch.labels is not None else int(batch.usd / price + 1e-9)
            costs.append(BatchCost(name, n_votes, None if price is None else n_votes * price))
            continue
        n_texts = _n_texts(config, batch.coverage, n_prompts) - _n_texts(config, min(before, batch.coverage), n_prompts)
        costs.append(BatchCost(name, *terms.cost(n_texts)))
        before = max(before, batch.coverage)
    return costs


def _n_texts(config: Config, coverage: float, n_prompts: int) -> int:
    """Responses of all labelled policies to the prompts at a coverage."""
    places = [place for place in range(n_prompts) if has_label(place, coverage)]
    validation = config.validation_span
    return sum(
        is_labelled(entry(place), share, validation) for share in config.human_shares.values() for place in places
    )
