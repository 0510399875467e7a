"""Pairwise comparisons of policies, and the evidence for the top rank.

    pair         V_1 - V_2 from paired influence functions, with an interval that is corrected for its family of pairs
    apart        the corrected interval leaves zero out, and the difference does not rest on the judge alone
    ranks of a   from 1 + #{apart and better} to n - #{apart and worse}, n the policies that are published

`arena_cje.estimation.contrasts` has the families. The differences to the policy that the decision compares with are one of
them, so that the same policies are apart here and in the decision. A policy is best only if every
other published policy is apart from the highest value. A refused policy is in no comparison and has no rank; it is named
beside the ranking, since its value may be higher. The correction is per estimator, since estimators are different analyses of
the same data; the recommended one is the first.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.results.recommendation import recommend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from arena_cje.files import Row
    from arena_cje.results.record import ResultRecord

log = logging.getLogger(__name__)

CORRECTED = ("corrected_lower", "corrected_upper", "p_corrected")
NUMBERS = ("difference", "se", "ci_lower", "ci_upper", "df", "p_value", *CORRECTED, "p_holm", "p_bh")


@dataclass(frozen=True)
class Place:
    """Rank of a published policy, and the ranks that the data allow."""

    policy: str
    rank: int  # by value; equal values share a rank
    best_rank: int  # one below the policies that are apart and better
    worst_rank: int  # one above the policies that are apart and worse
    apart_from_next: bool | None  # from the published policy next below; None for the last
    p_corrected_next: float | None


@dataclass(frozen=True)
class Top:
    """The policy with the highest published value, and the evidence for its rank."""

    policy: str | None
    second: str | None
    apart_from_second: bool | None  # None where there is no second
    not_apart_from: tuple[str, ...]  # published policies that may be as good
    refused: tuple[str, ...]  # policies that are not ranked
    refused_but_higher: tuple[str, ...]  # those whose unpublished number is higher
    says: str  # the same in sentences


def pairs(result: ResultRecord) -> list[Row]:
    """Every pair, target minus base first: numbers, null with a refused policy, and which of the two are refused."""
    refused = result.refused
    return [
        row | {"refused": [policy for policy in (row["first"], row["second"]) if policy in refused]}
        for row in result.comparisons().iter_rows(named=True)
    ]


def ranking(result: ResultRecord, comparisons: Sequence[Row]) -> list[Place]:
    """The published policies from the highest value down, the base policy among them; comparisons: `pairs` of the result."""
    value, by_pair = _published(result), _by_pair(comparisons)
    separated = {pair for pair, row in by_pair.items() if row["apart"]}
    order = sorted(value, key=lambda policy: -value[policy])  # stable: ties in declared order
    places = []
    for k, policy in enumerate(order):
        below = order[k + 1] if k + 1 < len(order) else None
        others = [other for other in order if frozenset((policy, other)) in separated]
        pair = None if below is None else frozenset((policy, below))
        places.append(
            Place(
                policy=policy,
                rank=1 + sum(value[other] > value[policy] for other in order),
                best_rank=1 + sum(value[other] > value[policy] for other in others),
                worst_rank=len(order) - sum(value[other] < value[policy] for other in others),
                apart_from_next=None if pair is None else pair in separated,
                p_corrected_next=None if pair is None else by_pair[pair]["p_corrected"],
            )
        )
    return places


def top(result: ResultRecord, comparisons: Sequence[Row]) -> Top:
    """The policy with the highest value, the policies not separated from it, and the refused ones.

    comparisons: `pairs` of the result.
    """
    places, by_pair = ranking(result, comparisons), _by_pair(comparisons)
    best, second = ([place.policy for place in places] + [None, None])[:2]
    rivals = tuple(place.policy for place in places[1:] if not by_pair[frozenset((best, place.policy))]["apart"])
    refused = tuple(result.refused)
    higher = tuple(result.document["best_policy"]["refused_but_higher"])
    sentence = " ".join(
        (_top_sentence(best, len(places), rivals), *_refusal_sentences(refused, higher if best else ()))
    )
    return Top(best, second, second not in rivals if second else None, rivals, refused, higher, sentence)


def document(results: Sequence[ResultRecord], coverage: str) -> dict[str, Any]:
    """Content of comparisons.json: decision, pairs, ranking and best policy by estimator, the recommended one first.

    The headline of its decision is logged. results: the recommended one first.
    """
    estimators = {}
    for result in results:
        comparisons = pairs(result)
        estimators[result.name] = {
            "alpha": result.document["metadata"]["alpha"],
            "base_policy": result.base_policy,
            "decision": result.decision,
            "comparisons": [_with_intervals(row) for row in comparisons],
            "ranking": [asdict(place) for place in ranking(result, comparisons)],
            "best": asdict(top(result, comparisons)),
        }
    log.info("%s: %s", results[0].name, results[0].decision["headline"])
    return {"coverage": coverage, "recommended": asdict(recommend(results)), "estimators": estimators}


def table(results: Sequence[ResultRecord]) -> pl.DataFrame:
    """Content of comparisons.csv: the pairs of all estimators, one row each."""
    import polars as pl

    schema = dict.fromkeys(("estimator", "first", "second"), pl.String) | dict.fromkeys(NUMBERS, pl.Float64)
    rows = [
        row | {"estimator": result.name, "refused": ";".join(row["refused"])}
        for result in results
        for row in pairs(result)
    ]
    flags = dict.fromkeys(("judge_only", "apart"), pl.Boolean)
    return pl.DataFrame(rows, schema=schema | flags | {"refused": pl.String})


def _published(result: ResultRecord) -> dict[str, float]:
    """Estimates by policy, the base policy first, without refused and missing ones."""
    names = [policy for policy in result.all_policies if policy not in result.refused]
    values = {policy: result.summary(policy)["estimate"] for policy in names}
    return {policy: value for policy, value in values.items() if not np.isnan(value)}


def _by_pair(comparisons: Sequence[Row]) -> dict[frozenset[str], Row]:
    """The rows of the comparisons by their pair of policies."""
    return {frozenset((row["first"], row["second"])): row for row in comparisons}


def _with_intervals(row: Mapping[str, Any]) -> Row:
    """A pair with each interval as one field, as in the results files."""
    ends = {
        "confidence_interval": ("ci_lower", "ci_upper"),
        "corrected_interval": ("corrected_lower", "corrected_upper"),
    }
    fields = {name: value for name, value in row.items() if name not in {*ends["confidence_interval"], *CORRECTED[:2]}}
    return fields | {name: [row[low], row[high]] for name, (low, high) in ends.items()}


def _top_sentence(best: str | None, published: int, rivals: Sequence[str]) -> str:
    """A sentence about the highest value; rivals: policies that are not separated from it."""
    if best is None:
        return "No policy is published."
    if published == 1:
        return f"{best} is the only published policy: there is nothing to rank it against."
    if rivals:
        equals = ", ".join(rivals)
        return f"No policy is known to be best: {best} has the highest estimate, without a significant difference from {equals}."
    return f"{best} has the highest estimate, with a significant difference from every other published policy."


def _refusal_sentences(refused: Sequence[str], higher: Sequence[str]) -> list[str]:
    """Sentences about refused policies; higher: those with a higher number than the best one."""
    sentences = [f"Refused, so not ranked: {', '.join(refused)}."] if refused else []
    return sentences + ([f"Unpublished estimates above it: {', '.join(higher)}."] if higher else [])
