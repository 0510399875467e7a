"""What the interval of a difference decides, with a margin, and what would decide an undecided one.

    intervals of K differences at level 1 - alpha / K each, so that all of them hold at once at level 1 - alpha

    inside (-margin, +margin)     equivalent          two one-sided tests
    at or above +margin           better_by_margin
    above 0                       better              possibly by less than the margin
    below 0                       worse
    otherwise                     not_yet_known

Every status is read from the same simultaneous interval, so that the probability of any false status among the K is at most
alpha, whatever the true differences are: a status is false only where an interval misses its difference. Holm's procedure is
as safe and rejects a little more, but has no intervals that belong to it and tests no equivalence. Two one-sided tests at
level alpha / K would need an interval at level 1 - 2 alpha / K; the wider one is used, so that one interval serves all decisions.

    decided:  |D| > c se  or  |D| < margin - c se,   D normal about the difference with standard error se
    se(r)^2 = labels / r + prompts + bias^2

c is the critical value of the interval. An undecided difference needs the growth r of the numbers of labels at which four of
five studies decide, if the true difference is the measured one. A standard error of margin / 2c always decides: a difference
that then is not significantly different from 0 is known to be below the margin.

Dunn (1961), "Multiple comparisons among means", JASA; Schuirmann (1987), "A comparison of the two one-sided tests procedure
and the power approach", Journal of Pharmacokinetics and Biopharmaceutics; Stefansson, Kim & Hsu (1988), "On confidence sets in
multiple comparisons", Statistical Decision Theory and Related Topics IV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.special import ndtr

from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

STATUSES = ("better_by_margin", "better", "equivalent", "worse", "not_yet_known", "refused")
SUPPORTS_SHIPPING = ("better_by_margin", "better", "equivalent")
LABELS, AUDITED, JUDGE = "labels", "audited_judge", "judge"  # what the value of a policy rests on
CHANCE = 0.8  # of a decision, at the numbers of labels and prompts that are named


@dataclass(frozen=True, kw_only=True)
class DecisionRule:
    """The options of decisions.

    against: the policy that the others are compared with; None is the base policy.
    margin: the largest difference that does not matter, above 0 and below 1.
    assume_transport: whether a difference that depends on judge scores alone may decide.

    Raises a `UserError` for a margin out of its range.
    """

    against: str | None = None
    margin: float = 0.02
    assume_transport: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.margin < 1:
            raise UserError(f"margin must lie in (0, 1), got {self.margin}; 0.02 is a difference of two points of 100")


def level_of_each(alpha: float, count: int) -> float:
    """The alpha of each of `count` intervals that hold together at level 1 - alpha."""
    return alpha / max(count, 1)


def status(low: float, high: float, margin: float) -> str:
    """What an interval [low, high] of a difference decides; NaN decides nothing."""
    if -margin < low and high < margin:
        return "equivalent"
    if low >= margin:
        return "better_by_margin"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "not_yet_known"


def words(one: str, margin: float) -> str:
    """A status in a few words."""
    return {
        "better_by_margin": f"better by at least {margin:g}",
        "equivalent": f"equivalent within {margin:g}",
    }.get(one, one.replace("_", " "))


def judge_only(rests_on: Sequence[str]) -> bool:
    """Whether the difference of policies that rest on these depends on judge scores alone."""
    return any(one != LABELS for one in rests_on)


def may_decide(rests_on: Sequence[str], assume_transport: bool) -> bool:
    """Whether the difference of policies that rest on these may decide."""
    return assume_transport or JUDGE not in rests_on


@dataclass(frozen=True)
class Parts:
    """The variance of a difference by what makes it smaller."""

    labels: float  # falls as the numbers of labels of all policies grow
    prompts: float  # falls as the number of prompts grows, with their labels
    bias: float = 0.0  # the bias of capped weights, which nothing makes smaller


@dataclass(frozen=True)
class Need:
    """What would decide an undecided difference, if the true difference is the measured one."""

    outcome: str  # the status that is nearest: better, worse or equivalent
    labels: float | None  # factor on the numbers of labels; None where no number of labels is enough
    prompts: float | None  # factor on the number of prompts at the same share of labels; None where none is enough


def need(value: float, parts: Parts, critical: float, margin: float) -> Need:
    """What would decide a difference; critical: half width of its interval in standard errors."""
    outcome = "equivalent" if margin - abs(value) >= abs(value) else "better" if value > 0 else "worse"
    allowed = needed_error(value, critical, margin) ** 2 - parts.bias**2
    return Need(
        outcome,
        _factor(parts.labels, allowed - parts.prompts),
        _factor(parts.labels + parts.prompts, allowed),
    )


def needed_error(value: float, critical: float, margin: float) -> float:
    """The largest standard error at which studies of a difference of this value decide with the probability CHANCE."""
    from scipy.optimize import brentq  # takes longer to import than all that results need to be loaded

    always = margin / (2 * critical)
    seldom = 10 * max(always, abs(value) / critical)  # decides hardly more often than by chance
    if _chance(value, seldom, critical, margin) >= CHANCE:  # alpha is so large that nearly every interval decides
        return seldom
    return float(brentq(lambda se: _chance(value, se, critical, margin) - CHANCE, always, seldom))


def _chance(value: float, se: float, critical: float, margin: float) -> float:
    """Probability of a decision about a difference of this value, estimated with standard error se."""
    half = critical * se
    apart = ndtr((value - half) / se) + ndtr((-value - half) / se)
    inside = max(margin - half, 0.0)
    return float(apart + ndtr((inside - value) / se) - ndtr((-inside - value) / se))


def _factor(variance: float, allowed: float) -> float | None:
    """Growth of what a variance falls with, so that it is as small as allowed; None where it cannot be."""
    if not allowed > 0 or not math.isfinite(variance):
        return None
    return max(variance / allowed, 1.0)
