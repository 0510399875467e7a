"""Limits on the share of answers that cannot be used."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from arena_cje.errors import UserError
from arena_cje.grading.grades import NOT_ASKED, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANCE = 1e-6  # probability that a policy whose whole share is the limit has so many of them in one job


def check_unscored(rows: Sequence[Row], limit: float, who: str, where: str) -> None:
    """Raise a `UserError` where more than a share `limit` of the rows (`schemas.GRADES`) have an answer that cannot be used.

    who: the grader's key in the config (`judge`, `judges.NAME`, `oracle`). where: where the replies can be looked at.
    The rows are those of a grader that reads answers; for an ensemble, of its members.
    """
    unused = _unused(rows)
    if len(unused) > limit * len(rows):
        raise UserError(_unscored_sentence(unused, len(rows), limit, who, where))


def check_unscored_early(rows: Sequence[Row], limit: float, who: str, where: str) -> None:
    """The same for the rows of one job: raise where chance alone would hardly bring the policy's share under the limit.

        P(k or more of n | limit) <= exp(-m KL(k / n, limit)) < 1e-6     m prompts, n rows

    The prompts of a job are a random sample of the policy's; several draws of one prompt stand or fall together. Hoeffding
    (1963), "Probability Inequalities for Sums of Bounded Random Variables", theorem 1, for the prompts' own shares.
    """
    unused, n_rows, n_prompts = _unused(rows), len(rows), len({row["prompt_id"] for row in rows})
    if len(unused) > limit * n_rows and n_prompts * _divergence(len(unused) / n_rows, limit) > -math.log(CHANCE):
        raise UserError(_unscored_sentence(unused, n_rows, limit, who, where))


def _divergence(share: float, limit: float) -> float:
    """Kullback-Leibler divergence of two shares, share > limit, nats."""
    if limit == 0:
        return math.inf
    rest = (1 - share) * math.log((1 - share) / (1 - limit)) if share < 1 else 0.0
    return share * math.log(share / limit) + rest


def _unused(rows: Sequence[Row]) -> list[str]:
    """Reasons of the rows whose answers could not be used."""
    return [row["reason"] for row in rows if row["score"] is None and row["reason"] not in NOT_ASKED]


def _unscored_sentence(unused: Sequence[str], n_rows: int, limit: float, who: str, where: str) -> str:
    counts = "; ".join(f"{count} x {reason}" for reason, count in Counter(unused).most_common())
    return (
        f"{where}: {len(unused)} of {n_rows} answers of `{who}` are unusable ({counts}), more than `{who}.max_unscored: "
        f"{limit:g}` allows; look at the replies in this file, then change the rubric, raise `{who}.max_tokens` if answers "
        f"are cut off, choose another model, or raise `{who}.max_unscored`"
    )
