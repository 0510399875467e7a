"""Pairwise comparisons of policies, and what a top rank rests on.

    pair         V_1 - V_2 from paired influence functions, with Holm's correction over all pairs of one estimator
    separated    Holm-corrected p <= alpha
    ranks of a   from 1 + #{separated and better} to n - #{separated and worse}, n the policies that are published

The highest value is no claim by itself: it is one where every other published policy is separated from it. A refused
policy is in no comparison and has no rank; it is named beside the ranking, since nothing says that it would not lead.
Estimators are corrected one by one: they say the same of the same data in different ways.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
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
    """Where a published policy stands, and the ranks that the data leave open to it."""

    policy: str
    rank: int  # by value; equal values share a rank
    best_rank: int  # policies that are better after Holm's correction stand above it
    worst_rank: int  # those that are worse stand below it
    apart_from_next: bool | None  # from the published policy next below; None for the last
    p_holm_next: float | None


@dataclass(frozen=True)
class Top:
    """The highest published value, and what that rests on."""

    policy: str | None
    second: str | None
    apart_from_second: bool | None  # after Holm's correction; None where there is no second
    not_apart_from: tuple[str, ...]  # published policies that may be as good
    refused: tuple[str, ...]  # policies that are not ranked
    refused_but_higher: tuple[str, ...]  # those whose number, which is not published, is the higher one
    says: str


def pairs(result: ResultRecord) -> list[Row]:
    """Every pair, target minus base first: numbers, null with a refused policy, and which of the two are refused."""
    refused = result.refused
    return [
        row | {"refused": [policy for policy in (row["first"], row["second"]) if policy in refused]}
        for row in result.comparisons().iter_rows(named=True)
    ]


def ranking(result: ResultRecord, found: Sequence[Row]) -> list[Place]:
    """The published policies from the highest value down, the base policy among them; `found` are their `pairs`."""
    value = _published(result)
    p_holm = _p_holm(found)
    apart = {pair for pair, p in p_holm.items() if p is not None and p <= result.document["metadata"]["alpha"]}
    order = sorted(value, key=lambda policy: -value[policy])  # stable: ties in declared order
    places = []
    for k, policy in enumerate(order):
        below = order[k + 1] if k + 1 < len(order) else None
        others = [other for other in order if frozenset((policy, other)) in apart]
        pair = None if below is None else frozenset((policy, below))
        places.append(
            Place(
                policy=policy,
                rank=1 + sum(value[other] > value[policy] for other in order),
                best_rank=1 + sum(value[other] > value[policy] for other in others),
                worst_rank=len(order) - sum(value[other] < value[policy] for other in others),
                apart_from_next=None if pair is None else pair in apart,
                p_holm_next=None if pair is None else p_holm[pair],
            )
        )
    return places


def top(result: ResultRecord, found: Sequence[Row]) -> Top:
    """Who leads, by how much certainty, and who was left out; `found` are the `pairs` of the result."""
    places, alpha = ranking(result, found), result.document["metadata"]["alpha"]
    best, second = ([place.policy for place in places] + [None, None])[:2]
    p_holm = _p_holm(found)
    against = {place.policy: p_holm[frozenset((best, place.policy))] for place in places[1:]}
    open_to = tuple(policy for policy, p in against.items() if p is None or p > alpha)
    refused = tuple(result.refused)
    higher = tuple(result.document["best_policy"]["refused_but_higher"])
    says = " ".join((_said(best, len(places), open_to, alpha), *_left_out(refused, higher)))
    return Top(best, second, second not in open_to if second else None, open_to, refused, higher, says)


def document(results: Sequence[ResultRecord], coverage: str) -> dict[str, Any]:
    """Content of comparisons.json: for each estimator every pair, and what its top rank rests on; the first's is logged."""
    said = {}
    for result in results:
        found = pairs(result)
        said[result.name] = {
            "alpha": result.document["metadata"]["alpha"],
            "base_policy": result.base_policy,
            "comparisons": [_with_interval(row) for row in found],
            "ranking": [asdict(place) for place in ranking(result, found)],
            "best": asdict(top(result, found)),
        }
    log.info("%s: %s", results[0].name, said[results[0].name]["best"]["says"])
    return {"coverage": coverage, "estimators": said}


def table(results: Sequence[ResultRecord]) -> pl.DataFrame:
    """The pairs of all estimators, one row each."""
    import polars as pl

    schema = dict.fromkeys(("estimator", "first", "second"), pl.String) | dict.fromkeys(NUMBERS, pl.Float64)
    rows = [
        row | {"estimator": result.name, "refused": ";".join(row["refused"])}
        for result in results
        for row in pairs(result)
    ]
    return pl.DataFrame(rows, schema=schema | {"refused": pl.String})


def _published(result: ResultRecord) -> dict[str, float]:
    """Values that may be published and are known, by policy, the base policy first."""
    names = [policy for policy in result.all_policies if policy not in result.refused]
    values = {policy: result.summary(policy)["estimate"] for policy in names}
    return {policy: value for policy, value in values.items() if not np.isnan(value)}


def _p_holm(found: Sequence[Row]) -> dict[frozenset[str], float | None]:
    return {frozenset((row["first"], row["second"])): row["p_holm"] for row in found}


def _with_interval(row: Mapping[str, Any]) -> Row:
    """A pair as JSON has it: its interval as one field, as in the results files."""
    kept = {name: value for name, value in row.items() if name not in ("ci_lower", "ci_upper")}
    return kept | {"confidence_interval": [row["ci_lower"], row["ci_upper"]]}


def _said(best: str | None, published: int, open_to: Sequence[str], alpha: float) -> str:
    if best is None:
        return "No policy is published."
    if published == 1:
        return f"{best} is the only policy that is published, so that there is nothing to rank it against."
    if open_to:
        return f"{best} has the highest value, but it is not told apart from {_listed(open_to)} (Holm, {alpha:g})."
    return f"{best} has the highest value, apart from every other published policy (Holm, {alpha:g})."


def _left_out(refused: Sequence[str], higher: Sequence[str]) -> list[str]:
    said = [f"Refused, and so not ranked: {_listed(refused)}."] if refused else []
    return said + ([f"Computed higher, but not published: {_listed(higher)}."] if higher else [])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
