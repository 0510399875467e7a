"""Which of the estimators of a data set is shown first, and whose decision counts.

    1. those that publish at least half as many targets as the one that publishes most
    2. of these, those whose differences rest on labels for at least half of the targets, if there are any
    3. of these, the first in the order of `PREFERENCE`; an estimator before its variants

The choice is by what the data have (fresh draws, labels of the targets' own responses, log probabilities, overlap) and never
by the estimates, since the estimator whose result pleases most would be the one with the largest error.
"""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from arena_cje.errors import UserError, did_you_mean, printable
from arena_cje.estimation.decision import SUPPORTS_SHIPPING
from arena_cje.estimation.records import ROUNDING
from arena_cje.files import read_json
from arena_cje.results.result import from_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from arena_cje.results.record import ResultRecord

WIDTH = 110  # of a line on the terminal

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


def document(results: Sequence[ResultRecord], coverage: str) -> dict[str, Any]:
    """Content of decision.json: the decision by the recommended estimator, and the headlines of all, its own first."""
    recommendation = recommend(results)
    ordered = recommended_first(results)
    return {
        "coverage": coverage,
        "recommended": asdict(recommendation),
        "decision": ordered[0].decision,
        "headlines": [{"estimator": one.name, "headline": one.decision["headline"]} for one in ordered],
    }


def is_decision(content: Any) -> bool:
    """Whether the content of a file is that of decision.json."""
    return isinstance(content, dict) and {"recommended", "decision"} <= content.keys()


def text(content: Mapping[str, Any]) -> str:
    """A decision for the terminal: its headline, why this estimator, then a sentence about each policy."""
    decision = content["decision"]
    sentences = [entry["sentence"] for entry in decision["policies"].values()]
    lines = [decision["headline"], content["recommended"]["reason"], *sentences]
    return printable("\n".join(line for part in lines for line in textwrap.wrap(part, WIDTH, subsequent_indent="  ")))


def answer(file: Path, policy: str) -> tuple[str, int]:
    """What a decision says about shipping a policy: a sentence, and 0 (supported), 1 (not supported) or 2 (not yet known).

    file: decision.json, or a results file. Raises a `UserError` where the file holds no decision about the policy.
    """
    document = read_json(file)
    if is_decision(document):
        decision, name = document["decision"], document["recommended"]["estimator"]
    else:
        result = from_document(document, file)
        decision, name = result.decision, result.name
    entries = decision.get("policies")
    if not entries:
        raise UserError(f"{file}: was made by an earlier version and has no decision; run the analysis again")
    if policy == decision["against"]:
        raise UserError(
            f"{file}: {policy!r} is the policy that the others are compared with; name one of {', '.join(entries)}"
        )
    if policy not in entries:
        raise UserError(
            f"{file}: no policy {policy!r}{did_you_mean(policy, entries)}; policies with a decision: {', '.join(entries)}"
        )
    status = entries[policy]["status"]
    code = 0 if status in SUPPORTS_SHIPPING else 2 if status == "not_yet_known" else 1
    verdict = ("supported", "not supported", "neither supported nor ruled out yet")[code]
    return f"Shipping {policy} is {verdict} ({name}). {entries[policy]['sentence']}", code


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
