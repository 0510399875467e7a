"""Prices of one more oracle label and of one more response with its judge score, for remedies and plans.

They are the middle of the estimate of costs for each row (`estimate`), the mean over policies. A local model has no price in
money, and an unknown price is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from arena_cje.config.records.values import HUMAN
from arena_cje.money import estimate
from arena_cje.money.prices import Prices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.config.records import Config
    from arena_cje.money.estimate import CallPlan

OF_RESPONSES = ("generate", "judge")  # stages that a further response goes through


def unit_prices(config: Config, pool: str | None, resources: str) -> dict[str, float | None]:
    """US dollars for a `label` and for a `response`, None where unknown.

    pool: file of the prompts in their order; resources: the workflow's folder of files.
    """
    plans = []
    if any(block.hosted for block in config.model_blocks.values()):
        plans = estimate.plan_calls(config, estimate.load_texts(config, pool and Path(pool), Path(resources)))
    prices = Prices(config.prices)
    of_targets = [plan for plan in plans if plan.policy != config.base_policy]
    stages = [[plan for plan in of_targets if plan.stage == stage] for stage in OF_RESPONSES]
    parts = [_row_price(of_stage, prices) for of_stage in stages if of_stage]  # without those of local models
    label = _row_price([plan for plan in plans if plan.stage == "oracle"], prices)
    return {
        "label": _vote_price(config) if config.oracle.provider == HUMAN else label,
        "response": sum(parts) if parts and None not in parts else None,
    }


def _row_price(plans: Sequence[CallPlan], prices: Prices) -> float | None:
    """Mean price of a row in US dollars; None without rows, and where a model's price is unknown."""
    lines, rows = estimate.estimate_costs(plans, prices), sum(plan.rows for plan in plans)
    if not rows or any(line.usd is None for line in lines):
        return None
    return sum(line.usd.middle for line in lines) / rows


def _vote_price(config: Config) -> float | None:
    """Price of the votes on one text, with its share of texts that come twice."""
    labeling = config.labeling
    if labeling.usd_per_vote is None:
        return None
    return labeling.usd_per_vote * labeling.votes_per_item * (1 + labeling.duplicates)
