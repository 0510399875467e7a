"""The cells of a result's tables, which the terminal, notebooks and Python's prompt share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from arena_cje.numbers import decimal, interval
from arena_cje.results.sentences import difference_remark

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arena_cje.results.record import ResultRecord

SIGNED = "+.3f"  # a difference


class PolicyCells(NamedTuple):
    """What a table shows of a policy. A refused one has no number but those of the checks; "-" is unknown."""

    policy: str
    estimate: str
    se: str
    interval: str
    ess: str
    raw_ess: str
    max_weight: str
    labels: str
    verdict: str


class DifferenceCells(NamedTuple):
    """What a table shows of the difference of a policy to the one that the decision compares with."""

    policy: str
    difference: str
    se: str
    interval: str
    decision: str


def policy_cells(result: ResultRecord) -> list[PolicyCells]:
    """A row for each policy, the base policy first."""
    return [_policy_cells(result, policy) for policy in result.all_policies]


def _policy_cells(result: ResultRecord, policy: str) -> PolicyCells:
    summary, diagnostics = result.summary(policy), result.document["metadata"]["diagnostics"].get(policy, {})
    published = policy not in result.refused
    weights = diagnostics if diagnostics.get("ess") is not None else {}  # none without weights
    return PolicyCells(
        policy=policy + (" (logged)" if policy == result.base_policy else ""),
        estimate=decimal(summary["estimate"]) if published else "refused",
        se=decimal(summary["se"]) if published else "",
        interval=interval(summary["ci_lower"], summary["ci_upper"]) if published else "",
        ess=decimal(weights.get("ess")),
        raw_ess=decimal(weights.get("ess_raw")),
        max_weight=decimal(weights.get("max_weight"), ".1f"),
        labels=decimal(diagnostics.get("effective_labels"), ".0f"),
        verdict=result.verdicts[policy].level,
    )


def difference_cells(decision: Mapping[str, Any]) -> dict[str, DifferenceCells]:
    """A row by policy for each difference that is published; none in files of earlier versions, which have no decision."""
    return {
        policy: DifferenceCells(
            policy=policy,
            difference=decimal(entry["difference"], SIGNED),
            se=decimal(entry["se"]),
            interval=interval(*entry["corrected_interval"], SIGNED),
            decision=difference_remark(decision, entry),
        )
        for policy, entry in decision.get("policies", {}).items()
        if entry["difference"] is not None
    }
