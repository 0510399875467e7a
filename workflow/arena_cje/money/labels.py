"""The price of an oracle label, by what the labels so far have cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena_cje.calls.ledger import LEDGER
from arena_cje.config.records.values import HUMAN
from arena_cje.money.account import count_finished_rows, read_ledger, spending_by_key, sum_spending

if TYPE_CHECKING:
    from pathlib import Path

    from arena_cje.config.records import Config


def usd_per_label(config: Config, results: Path = LEDGER.parents[1]) -> float | None:
    """US dollars for the label of one response: what an API has charged, or what people get; None where it is unknown.

    Labels of a user's own data, of the reference oracle and of local models cost nothing.
    """
    if config.logged_data is not None:
        return 0.0
    if config.oracle.provider == HUMAN:
        labeling = config.labeling
        votes = labeling.votes_per_item * (1 + labeling.duplicates)
        return None if labeling.usd_per_vote is None else votes * labeling.usd_per_vote
    if not config.oracle.hosted:
        return 0.0
    ledger = spending_by_key(read_ledger(results / LEDGER.relative_to("results")))
    spent = sum_spending(of_key for (stage, *_), of_key in ledger.items() if stage == "oracle")
    labels = sum(count for (stage, _), count in count_finished_rows(results, config).items() if stage == "oracle")
    return None if spent.n_without_price or not labels else spent.usd / labels
