"""Which of the estimators of a data set is shown first, and whose decision counts.

    1. those that publish at least half as many targets as the one that publishes most
    2. of these, those whose differences rest on labels for at least half of the targets, if there are any
    3. of these, the first in the order of `PREFERENCE`; an estimator before its variants

The choice is by what the data have (fresh draws, labels of the targets' own responses, log probabilities, overlap) and never
by the estimates, since the estimator whose result pleases most would be the one with the largest error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arena_cje.estimation.records import ROUNDING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.results.record import ResultRecord

# `direct` needs no overlap, and labels of the targets' own responses correct it. tr-cpo adds weighted labels in its label
# term. The other estimators with fresh draws are close to `direct` below full coverage; of those by weights alone the one
# with calibrated weights is the least at the mercy of single rows.
WITH_DRAWS = ("direct", "tr-cpo", "stacked-dr", "dr-cpo", "tmle", "mrdr")
BY_WEIGHTS = ("calibrated-ips", "snips", "raw-ips", "ips")
PREFERENCE = (*WITH_DRAWS, *BY_WEIGHTS)


@dataclass(frozen=True)
class Recommendation:
    """The estimator, or variant of one, that is shown first, and why."""

    estimator: str
    reason: str


def recommend(results: Sequence[ResultRecord]) -> Recommendation:
    """The recommended one of the results of a coverage."""
    published = {result.name: len(_published(result)) for result in results}
    enough = [result for result in results if 2 * published[result.name] >= max(published.values())]
    decisive = [result for result in enough if 2 * _on_labels(result) >= len(result.policies)]
    chosen = min(decisive or enough, key=_preference)
    return Recommendation(chosen.name, _reason(chosen, decisive=bool(decisive)))


def recommended_first(results: Sequence[ResultRecord]) -> list[ResultRecord]:
    """The results with the recommended one first, the others in their order."""
    name = recommend(results).estimator
    return sorted(results, key=lambda result: result.name != name)


def _published(result: ResultRecord) -> list[str]:
    """Targets that are published beside a published base policy."""
    base_is_refused = result.base_policy in result.refused
    return [policy for policy in result.policies if policy not in result.refused and not base_is_refused]


def _on_labels(result: ResultRecord) -> int:
    """Number of targets whose published difference to the base policy rests on labels, the base policy again left out."""
    differences = result.document["differences_to_base"]
    return sum(
        not differences[policy].get("reasons", True) and differences[policy]["se"] > ROUNDING
        for policy in _published(result)
    )


def _preference(result: ResultRecord) -> tuple[bool, int]:
    """Estimators before variants of estimators, each in the order of preference."""
    estimator = result.document["metadata"]["estimator"]
    place = PREFERENCE.index(estimator) if estimator in PREFERENCE else len(PREFERENCE)
    return result.name != estimator, place


def _reason(chosen: ResultRecord, *, decisive: bool) -> str:
    """Why this one is recommended, in a sentence."""
    count, targets = len(_published(chosen)), len(chosen.policies)
    counted = f"{_on_labels(chosen)} of {targets} targets"
    diagnostics = chosen.document["metadata"]["diagnostics"]
    own = [diagnostics[policy].get("own_labels_used") or 0 for policy in chosen.policies]
    if decisive and any(own):
        least = min(filter(None, own))
        why = (
            f"labels of their own responses correct the estimates of {counted} (at least {least} labelled prompts each)"
        )
    elif decisive:
        why = f"weighted labels of base responses support the estimates of {counted}"
    else:
        publishes = (
            f"it publishes estimates of {count} of {targets} targets" if count else "no estimator publishes a target"
        )
        what = "log probabilities" if chosen.document["metadata"]["estimator"] in BY_WEIGHTS else "fresh draws"
        why = f"{publishes}, from {what}; no estimator has labels that support the differences of half of the targets"
    return f"{chosen.name} is recommended: {why}."
