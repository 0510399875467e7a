"""Remedies: for every reason that refuses an estimate or calls for caution, the cheapest thing that would lift it.

Each reason has the measures that lift it (`measures`); a measure is bought with oracle labels and with judged responses, or is
free with the data at hand (`circumstances`). Of all sets of measures that together lift every reason of a level, the one with
the least effort is taken: labels of a policy's own responses lift several reasons at once. Effort is counted in labels; a
judged response costs a sixteenth of one unless both prices are known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from arena_cje.diagnostics.circumstances import circumstances
from arena_cje.diagnostics.measures import NO_PRICES, measures_for
from arena_cje.estimation.records import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.diagnostics.circumstances import Circumstances
    from arena_cje.diagnostics.evidence import Evidence
    from arena_cje.diagnostics.measures import Measure, UnitPrices
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.estimation.records import Draws, Logged, Reason, Verdict
    from arena_cje.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Remedy:
    """The cheapest thing that lifts one reason."""

    reason: str  # the code of the reason
    kind: str
    amount: float | None  # how many labels, responses or prompts; None where it is no number
    usd: float | None
    text: str  # one sentence


def remedies(
    evaluation: Evaluation,
    logged: Logged,
    draws: Mapping[str, Draws] | None,
    evidence: Mapping[str, Evidence],
    verdicts: Mapping[str, Verdict],
    thresholds: Thresholds,
    prices: UnitPrices = NO_PRICES,
    better_judge: str | None = None,
) -> dict[str, tuple[Remedy, ...]]:
    """Remedies of every policy, the base policy first; empty where its verdict is ok."""
    by_policy = {}
    for policy, verdict in verdicts.items():
        reasons = [reason for reason in verdict.reasons if reason.level != "ok"]
        if not reasons:
            by_policy[policy] = ()
            continue
        at_hand = circumstances(evaluation, logged, draws or {}, evidence[policy], policy, thresholds, better_judge)
        by_policy[policy] = remedies_of(reasons, at_hand, thresholds, prices)
    return by_policy


def remedies_of(
    reasons: Sequence[Reason], at_hand: Circumstances, thresholds: Thresholds, prices: UnitPrices = NO_PRICES
) -> tuple[Remedy, ...]:
    """The remedies of these reasons: those that lift a refusal first, then those that lift a caution, cheapest first."""
    ordered: list[Remedy] = []
    chosen: dict[tuple[str, str], Measure] = {}
    for level in reversed(LEVELS[1:]):
        options = {
            reason.code: measures_for(reason, at_hand, thresholds) for reason in reasons if reason.level == level
        }
        lifted = cheapest(options, prices, chosen)
        chosen |= {_key(measure): measure for measure in lifted.values()}
        ordered += [
            _remedy(code, measure, prices)
            for code, measure in sorted(lifted.items(), key=lambda item: item[1].effort(prices))
        ]
    return tuple(ordered)


def _key(measure: Measure) -> tuple[str, str]:
    return measure.kind, measure.name


def _remedy(code: str, measure: Measure, prices: UnitPrices) -> Remedy:
    priced = not measure.last_resort and measure.kind != "log_probabilities"
    usd = prices.usd(measure.labels, measure.responses) if priced else None
    price = f" (about ${usd:,.2f})" if usd else ""
    return Remedy(code, measure.kind, measure.amount, usd, f"{measure.sentence}{price}.{measure.note}")


def cheapest(
    options: Mapping[str, Sequence[Measure]],
    prices: UnitPrices,
    chosen: Mapping[tuple[str, str], Measure] | None = None,
) -> dict[str, Measure]:
    """The measure of each reason, from the set of measures with the least effort that lifts all reasons.

    options: measures that lift a reason, by its code; chosen: measures chosen already, of which only a larger amount counts as
    effort. Of measures of a kind, the largest lifts the reasons of the others too and stands for them.
    """
    chosen = chosen or {}
    keys = sorted({_key(measure) for measures in options.values() for measure in measures})
    best, least = {}, math.inf
    for size in range(1, len(keys) + 1):
        for allowed in combinations(keys, size):
            lifted = {}
            for code, measures in options.items():
                possible = [measure for measure in measures if _key(measure) in allowed]
                if possible:
                    lifted[code] = min(possible, key=lambda measure: measure.effort(prices))
            if len(lifted) < len(options):
                continue
            effort = {_key(measure): 0.0 for measure in lifted.values()}
            for measure in lifted.values():
                earlier = chosen.get(_key(measure))
                more = measure.effort(prices) - (earlier.effort(prices) if earlier else 0.0)
                effort[_key(measure)] = max(effort[_key(measure)], more)
            total = sum(effort.values())
            if total < least:
                best, least = lifted, total
    largest: dict[tuple[str, str], Measure] = {}
    for measure in best.values():
        other = largest.get(_key(measure), measure)
        largest[_key(measure)] = measure if measure.effort(prices) > other.effort(prices) else other
    return {code: largest[_key(measure)] for code, measure in best.items()}
