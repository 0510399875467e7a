"""Pairwise comparisons of policies, and the evidence for the top rank.

    pair         V_1 - V_2 from paired influence functions, with Holm's correction over all pairs of one estimator
    separated    Holm-corrected p <= alpha
    ranks of a   from 1 + #{separated and better} to n - #{separated and worse}, n the policies that are published

A policy is best only if every other published policy is separated from the highest value. A refused policy is in no
comparison and has no rank; it is named beside the ranking, since its value may be higher. The correction is per estimator,
since estimators are different analyses of the same data.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from arena_cje.files import Row
    from arena_cje.results.record import ResultRecord

log = logging.getLogger(__name__)

NUMBERS = ("difference", "se", "ci_lower", "ci_upper", "df", "p_value", "p_holm", "p_bh")


@dataclass(frozen=True)
class Place:
    """Rank of a published policy, and the ranks that the data allow."""

    policy: str
    rank: int  # by value; equal values share a rank
    best_rank: int  # one below the policies that are better after Holm's correction
    worst_rank: int  # one above the policies that are worse after it
    apart_from_next: bool | None  # from the published policy next below; None for the last
    p_holm_next: float | None


@dataclass(frozen=True)
class Top:
    """The policy with the highest published value, and the evidence for its rank."""

    policy: str | None
    second: str | None
    apart_from_second: bool | None  # after Holm's correction; None where there is no second
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
    value = _published(result)
    p_holm = _p_holm(comparisons)
    separated = {pair for pair, p in p_holm.items() if p is not None and p <= result.document["metadata"]["alpha"]}
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
                p_holm_next=None if pair is None else p_holm[pair],
            )
        )
    return places


def top(result: ResultRecord, comparisons: Sequence[Row]) -> Top:
    """The policy with the highest value, the policies not separated from it, and the refused ones.

    comparisons: `pairs` of the result.
    """
    places, alpha = ranking(result, comparisons), result.document["metadata"]["alpha"]
    best, second = ([place.policy for place in places] + [None, None])[:2]
    p_holm = _p_holm(comparisons)
    p_to_best = {place.policy: p_holm[frozenset((best, place.policy))] for place in places[1:]}
    rivals = tuple(policy for policy, p in p_to_best.items() if p is None or p > alpha)
    refused = tuple(result.refused)
    higher = tuple(result.document["best_policy"]["refused_but_higher"])
    sentence = " ".join((_top_sentence(best, len(places), rivals, alpha), *_refusal_sentences(refused, higher)))
    return Top(best, second, second not in rivals if second else None, rivals, refused, higher, sentence)


def document(results: Sequence[ResultRecord], coverage: str) -> dict[str, Any]:
    """Content of comparisons.json: pairs, ranking and best policy by estimator; the first estimator's best is logged."""
    estimators = {}
    for result in results:
        comparisons = pairs(result)
        estimators[result.name] = {
            "alpha": result.document["metadata"]["alpha"],
            "base_policy": result.base_policy,
            "comparisons": [_with_interval(row) for row in comparisons],
            "ranking": [asdict(place) for place in ranking(result, comparisons)],
            "best": asdict(top(result, comparisons)),
        }
    log.info("%s: %s", results[0].name, estimators[results[0].name]["best"]["says"])
    return {"coverage": coverage, "estimators": estimators}


def table(results: Sequence[ResultRecord]) -> pl.DataFrame:
    """Content of comparisons.csv: the pairs of all estimators, one row each."""
    import polars as pl

    schema = dict.fromkeys(("estimator", "first", "second"), pl.String) | dict.fromkeys(NUMBERS, pl.Float64)
    rows = [
        row | {"estimator": result.name, "refused": ";".join(row["refused"])}
        for result in results
        for row in pairs(result)
    ]
    return pl.DataFrame(rows, schema=schema | {"refused": pl.String})


def _published(result: ResultRecord) -> dict[str, float]:
    """Estimates by policy, the base policy first, without refused and missing ones."""
    names = [policy for policy in result.all_policies if policy not in result.refused]
    values = {policy: result.summary(policy)["estimate"] for policy in names}
    return {policy: value for policy, value in values.items() if not np.isnan(value)}


def _p_holm(comparisons: Sequence[Row]) -> dict[frozenset[str], float | None]:
    """Holm-corrected p-values by pair of policies."""
    return {frozenset((row["first"], row["second"])): row["p_holm"] for row in comparisons}


def _with_interval(row: Mapping[str, Any]) -> Row:
    """A pair with its interval as one field, as in the results files."""
    fields = {name: value for name, value in row.items() if name not in ("ci_lower", "ci_upper")}
    return fields | {"confidence_interval": [row["ci_lower"], row["ci_upper"]]}


def _top_sentence(best: str | None, published: int, rivals: Sequence[str], alpha: float) -> str:
    """A sentence about the highest value; rivals: policies that are not separated from it."""
    if best is None:
        return "No policy is published."
    if published == 1:
        return f"{best} is the only policy that is published, so that there is nothing to rank it against."
    if rivals:
        return f"{best} has the highest value, but it is not told apart from {', '.join(rivals)} (Holm, {alpha:g})."
    return f"{best} has the highest value, apart from every other published policy (Holm, {alpha:g})."


def _refusal_sentences(refused: Sequence[str], higher: Sequence[str]) -> list[str]:
    """Sentences about refused policies; higher: those with a higher number than the best one."""
    sentences = [f"Refused, and so not ranked: {', '.join(refused)}."] if refused else []
    return sentences + ([f"Computed higher, but not published: {', '.join(higher)}."] if higher else [])
