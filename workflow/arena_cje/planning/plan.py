"""The plan of a study: what a pilot's sizes reach, the cheapest sizes for a goal, the best for a budget, the labels of audits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.diagnostics.audit_size import chance_to_pass, labels_of_both_to_pass, labels_to_pass
from arena_cje.errors import UserError
from arena_cje.planning.sample_size import Costs
from arena_cje.planning.study import (
    Goal,
    Pilot,
    Size,
    best_for_budget,
    cheapest,
    cost,
    fewest_labels,
    precision,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.results.record import ResultRecord

PROMPT_FACTORS = (0.5, 1, 2, 4, 8)  # numbers of prompts that a plan shows, in those of the pilot
CURVE_POINTS = 25  # numbers of labels of a curve
JUDGED_STAGES = ("generate", "score", "judge")  # what a prompt without labels costs

Document = dict[str, Any]


@dataclass(frozen=True)
class Prices:
    """US dollars of a prompt with judged responses of all policies, and of one label; None where unknown."""

    judge: float | None = None
    label: float | None = None

    @property
    def costs(self) -> Costs | None:
        """Both prices; None where one is unknown."""
        return None if self.judge is None or self.label is None else Costs(self.judge, self.label)

    def over(self, other: Prices) -> Prices:
        """These prices, those of another source where these are unknown."""
        return Prices(
            other.judge if self.judge is None else self.judge, other.label if self.label is None else self.label
        )


def prices_of(spending: Iterable[Mapping[str, Any]], prompts: int) -> Prices:
    """Prices from the calls that a run of this many prompts has paid for, a row each; unknown where a call's price is."""
    judged, labels = [], []
    for row in spending:
        stage = row["stage"].split("/")[0]
        if stage == "oracle":
            labels.append(row["usd"])
        elif stage in (*JUDGED_STAGES, "judges"):
            judged.append(row["usd"])
    judge = sum(judged) / prompts if judged and None not in judged else None
    label = sum(labels) / len(labels) if labels and None not in labels else None
    return Prices(judge or None, label or None)


def document(
    pilot: Pilot,
    goal: Goal,
    prices: Prices,
    *,
    budget: float | None = None,
    audits: Mapping[str, Document] | None = None,
) -> Document:
    """The plan as JSON values.

    audits: as `audits_of` gives them. Raises a `UserError` for a budget without prices, or one that is too small.
    """
    costs, planned = prices.costs, bool(pilot.differences)
    if budget is not None and costs is None:
        raise UserError(
            "a budget needs the prices of a judged prompt and of a label, and this run has none; give them with "
            "--price-judge and --price-label (in a configuration: planning.price_judge, planning.price_label)"
        )
    has_goal = goal.difference is not None or goal.half_width is not None
    content: Document = {
        "schema_version": 1,
        "pilot": pilot.document(),
        "goal": asdict(goal) | {"budget": budget},
        "prices": asdict(prices),
        "now": _now(pilot, goal.power) if planned else [],
        "curves": _curves(pilot, goal.power) if planned else [],
        "choices": _choices(pilot, goal, costs) if planned and has_goal else [],
        "cheapest": None,
        "best_for_budget": None,
        "audits": dict(audits or {}),
    }
    if planned and has_goal and costs is not None and (size := cheapest(pilot, costs, goal)) is not None:
        content["cheapest"] = _study(pilot, size, goal.power, costs)
    if planned and budget is not None and costs is not None:
        content["best_for_budget"] = _study(
            pilot, best_for_budget(pilot, costs, budget, power=goal.power), goal.power, costs
        )
    return content


def audits_of(result: ResultRecord, thresholds: Thresholds) -> dict[str, Document]:
    """By target, its labels, its audit, and how many labels of its own pass it where the calibration holds for it."""
    metadata, residual_sd = result.document["metadata"], result.document["calibration"]["rmse"]
    base_labels = metadata["n_oracle"]
    family = max(1, len(result.policies))
    if residual_sd is None or not base_labels:
        return {}
    facts = {"family": family, "residual_sd": residual_sd, "base_labels": base_labels}
    needed = labels_to_pass(thresholds, **facts)
    of_both = labels_of_both_to_pass(thresholds, family=family, residual_sd=residual_sd)
    audits = {}
    for policy in result.policies:
        audit = metadata["diagnostics"].get(policy, {}).get("transport") or {"status": "NOT_CHECKED"}
        labels = round(audit.get("effective_prompts") or 0)
        audits[policy] = {
            "status": audit["status"],
            "labels": labels,
            "chance_to_pass": chance_to_pass(labels, thresholds, **facts),
            "labels_to_pass": needed,
            "labels_of_both_to_pass": of_both,
            "residual_sd": residual_sd,
            "base_labels": base_labels,
            "margin": thresholds.transport_margin,
        }
    return audits


def _now(pilot: Pilot, power: float) -> list[Document]:
    """Each difference at the sizes of the pilot, as it shows them, with the range that it leaves open."""
    at = precision(pilot, pilot.prompts, pilot.most_labels, power=power, margin=False)
    return [
        {
            "policy": policy,
            "half_width": float(at.half_width[k]),
            "half_width_range": [float(at.half_width[k] * at.low[k]), float(at.half_width[k] * at.high[k])],
            "detectable": float(at.detectable[k]),
            "detectable_range": [float(at.detectable[k] * at.low[k]), float(at.detectable[k] * at.high[k])],
        }
        for k, policy in enumerate(pilot.differences)
    ]


def _prompt_counts(pilot: Pilot) -> list[int]:
    return [round(factor * pilot.prompts) for factor in PROMPT_FACTORS if factor * pilot.prompts >= pilot.least_m]


def _curves(pilot: Pilot, power: float) -> list[Document]:
    """Precision by difference against labelled prompts, a curve for each number of prompts, as it would be planned."""
    rows = []
    for n in _prompt_counts(pilot):
        m = np.unique(np.round(np.geomspace(pilot.least_m, n, CURVE_POINTS)).astype(int))
        with_margin, without_margin = (precision(pilot, n, m, power=power, margin=margin) for margin in (True, False))
        for k, policy in enumerate(pilot.differences):
            rows.append(
                {
                    "policy": policy,
                    "n": n,
                    "m": m.tolist(),
                    "half_width": with_margin.half_width[k].tolist(),
                    "detectable": with_margin.detectable[k].tolist(),
                    "low": (without_margin.detectable[k] * without_margin.low[k]).tolist(),
                    "high": (without_margin.detectable[k] * without_margin.high[k]).tolist(),
                }
            )
    return rows


def _choices(pilot: Pilot, goal: Goal, costs: Costs | None) -> list[Document]:
    """For each number of prompts the fewest labels that reach the goal; null where no number does."""
    choices = []
    for n in _prompt_counts(pilot):
        m = fewest_labels(pilot, goal, n)
        choices.append({"n": n, "m": None} if m is None else _study(pilot, Size(n, m), goal.power, costs))
    return choices


def _study(pilot: Pilot, size: Size, power: float, costs: Costs | None) -> Document:
    """Sizes, cost and precision of a planned study; precision is that of the least precise difference."""
    at = precision(pilot, size.n, size.m, power=power)
    labels = pilot.labels_at(size.m)
    return {
        "n": size.n,
        "m": size.m,
        "labels": labels,
        "total_labels": sum(labels.values()),
        "cost": None if costs is None else cost(pilot, costs, size),
        "half_width": float(at.half_width.max()),
        "detectable": float(at.detectable.max()),
    }
