"""Planned looks: what each look at growing labels shows, and whether the next one is needed.

    interval of target t at look k: D_t,k at the level of `spending.boundaries` for alpha / T and the looks so far
    a target is decided by the first look whose interval decides it (`arena_cje.estimation.decision`)
    looks end: all targets are decided, all intervals are narrow enough, or the next labels cost too much

T is the number of compared policies, refused ones among them, so that it is known before the first look. The intervals of
all looks and targets hold at once at level 1 - alpha, so that the decision of an earlier look stays. A look with few labels
decides nothing and spends nothing, nor does a refused target or one whose difference depends on judge scores alone: what is not
spent remains for later looks. A width depends on standard errors, not on values, so that looks which end by width have plain
intervals.

The information of the last look that can be paid is projected from each look's own variance, of which one part falls with
the number of labels and the other, the sampling of prompts, is the same at every look.

Jennison & Turnbull (1989), "Interim analyses: the repeated confidence interval approach", JRSS B; Chow & Robbins (1965),
"On the asymptotic theory of fixed-width sequential confidence intervals", Annals of Mathematical Statistics.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from arena_cje.errors import printable
from arena_cje.estimation import spending
from arena_cje.estimation.decision import DecisionRule, level_of_each, may_decide, status, words
from arena_cje.numbers import decimal, interval
from arena_cje.results.decision import headline

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arena_cje.estimation.records import Estimate
    from arena_cje.results.record import ResultRecord

WIDTH = 110  # of sentences on a terminal
LEAST_LEVEL = 1e-12  # intervals at a nominal level below it are not shown
OPEN = ("not_yet_known", "refused")  # statuses that are no decision
FEW, JUDGE_ONLY = "too few labels", "judge scores alone, no labels"  # why a look decides nothing


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What looks are planned and what ends them."""

    coverages: tuple[str, ...]  # in ascending order
    until: Literal["decision", "width"] = "decision"
    margin: float = DecisionRule.margin  # of the decisions
    width: float | None = None
    spending: spending.Spending = "obrien_fleming"
    min_labels: int = 30
    max_labels: int | None = None
    max_usd: float | None = None

    @classmethod
    def of(cls, entries: Mapping[str, Any]) -> Plan:
        """From its entries in JSON."""
        return cls(**{**entries, "coverages": tuple(entries["coverages"])})


@dataclass(frozen=True)
class Look:
    """The data of one look."""

    coverage: str
    base_labels: int
    labels: int  # of base and targets
    usd: float | None  # what they cost; None where it is unknown
    differences: Mapping[str, Estimate | None]  # to the policy that all are compared with; None where one is refused
    undecidable: frozenset[str] = frozenset()  # policies whose differences rest on the judge alone

    @classmethod
    def of(cls, coverage: str, result: ResultRecord, target_labels: int, usd_per_label: float | None) -> Look:
        """From a result; target_labels: number of labels of the targets' own draws."""
        decision, diagnostics = result.document["decision"], result.document["metadata"]["diagnostics"]
        against, base_labels = decision["against"], result.document["metadata"]["n_oracle"]
        labels = base_labels + target_labels
        policies = list(decision["policies"])
        differences = {
            policy: None
            if {policy, against} & set(result.refused)
            else result.estimate(policy) - result.estimate(against)
            for policy in policies
        }
        rests_on = {policy: (diagnostics[policy]["rests_on"], diagnostics[against]["rests_on"]) for policy in policies}
        return cls(
            coverage,
            base_labels,
            labels,
            None if usd_per_label is None else labels * usd_per_label,
            differences,
            frozenset(p for p in policies if not may_decide(rests_on[p], decision["assume_transport"])),
        )

    def limit(self, plan: Plan, coverage: str) -> str | None:
        """The limit of a plan that the labels of another coverage would pass, by what this look's labels are and cost."""
        growth = float(coverage) / float(self.coverage)
        if plan.max_labels is not None and self.labels * growth > plan.max_labels:
            return "max_labels"
        if plan.max_usd is not None and (self.usd or 0.0) * growth > plan.max_usd:
            return "max_usd"
        return None

    def last_share(self, plan: Plan) -> float:
        """The largest coverage of a plan that its limits allow; at least that of this look."""
        return max(float(c) for c in {self.coverage, *plan.coverages} if c == self.coverage or not self.limit(plan, c))


@dataclass(frozen=True)
class Reading:
    """What a look shows of one target; None where there is no difference, or no interval yet."""

    status: str  # of a decision; `narrow` for an interval that is narrow enough
    note: str = ""  # why nothing is decided, where the interval is not the reason
    decided_at: str | None = None  # coverage of the look that decided
    difference: float | None = None
    se: float | None = None
    fraction: float | None = None  # of the information of the last look
    spent: float | None = None  # error probability up to this look
    boundary: float | None = None  # critical value, were the standard error known
    level: float | None = None  # of the interval: it covers with probability 1 - level
    interval: tuple[float, float] | None = None


def document(
    plan: Plan, looks: Sequence[Look], *, alpha: float, estimator: str = "", against: str = ""
) -> dict[str, Any]:
    """The account of the looks so far, up to the one that ends them; `stop` is None where the next one is needed.

    alpha: error probability of all decisions together; estimator, against: names for the reader.
    """
    by_target = readings(plan, looks, alpha)
    accounts: list[dict[str, Any]] = []
    stop = None
    for k, look in enumerate(looks):
        look_readings = {policy: of_looks[k] for policy, of_looks in by_target.items()}
        account = {"coverage": look.coverage, "base_labels": look.base_labels, "labels": look.labels, "usd": look.usd}
        accounts.append(account | {"targets": {policy: asdict(reading) for policy, reading in look_readings.items()}})
        if stop := _stop(plan, look, look_readings.values()):
            break
    account = {"estimator": estimator, "against": against, "alpha": alpha, "plan": asdict(plan)}
    account |= {"looks": accounts, "stop": stop}
    account |= {"sentence": sentence(account)}
    return account if plan.until == "width" else account | _decision(account)


def _decision(account: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of decision.json, as `arena-cje decide` reads them, by the last look."""
    against, margin, last = account["against"], account["plan"]["margin"], account["looks"][-1]
    prefix = f"compared with {against}, after the planned looks up to coverage {last['coverage']}"
    entries = {
        policy: reading | {"sentence": f"{policy} {prefix}: {_words(account, policy)}."}
        for policy, reading in last["targets"].items()
    }
    decision = {
        "against": against,
        "margin": margin,
        "headline": headline(entries, against, margin),
        "policies": entries,
    }
    return {"recommended": {"estimator": account["estimator"]}, "decision": decision}


def readings(plan: Plan, looks: Sequence[Look], alpha: float) -> dict[str, list[Reading]]:
    """What each look shows of each target, whether the looks before it have ended or not."""
    targets = list(looks[0].differences)
    # A width is no statement about a policy, so that it may rest on the judge.
    if plan.until == "width":
        return {policy: _plain_readings(plan, looks, policy, alpha) for policy in targets}
    each = level_of_each(alpha, len(targets))
    return {policy: _repeated_readings(plan, looks, policy, each) for policy in targets}


def _stop(plan: Plan, look: Look, readings: Iterable[Reading]) -> dict[str, str] | None:
    """Why a look is the last one; None where it is not."""
    following = next((c for c in plan.coverages if float(c) > float(look.coverage)), None)
    if all(reading.status not in OPEN for reading in readings):
        reason = "decided" if plan.until == "decision" else "narrow"
    elif following is None:
        reason = "last_look"
    else:
        reason = look.limit(plan, following)
    return {"coverage": look.coverage, "reason": reason} if reason else None


def _plain_readings(plan: Plan, looks: Sequence[Look], policy: str, alpha: float) -> list[Reading]:
    """Readings of a target by intervals without a correction for other looks, with the status `narrow` or `not_yet_known`."""
    readings = []
    for look in looks:
        difference = look.differences[policy]
        if difference is None:
            readings.append(Reading("refused"))
            continue
        low, high = difference.interval(alpha)
        narrow = look.base_labels >= plan.min_labels and high - low <= (plan.width or 0.0)
        outcome = "narrow" if narrow else "not_yet_known"
        readings.append(Reading(outcome, "", None, difference.value, difference.se, level=alpha, interval=(low, high)))
    return readings


def _repeated_readings(plan: Plan, looks: Sequence[Look], policy: str, alpha: float) -> list[Reading]:
    """Readings of a target by intervals that hold over all looks at level 1 - alpha, with the decision of the first to decide."""
    readings: list[Reading] = []
    fractions: list[float] = []
    information: list[float] = []
    decision = None
    for look in looks:
        difference = look.differences[policy]
        if difference is None:
            readings.append(Reading("refused"))
            continue
        reading = Reading("not_yet_known", FEW, None, difference.value, difference.se)
        if policy in look.undecidable:
            reading = replace(reading, note=JUDGE_ONLY)
        elif look.base_labels >= plan.min_labels and difference.se > 0:
            fractions.append(max([_fraction(plan, look, difference), *fractions]))
            information.append(1 / difference.se**2)
            z = float(spending.boundaries(fractions, information, alpha, plan.spending)[-1])
            reading = _at_boundary(plan, reading, difference, z, fractions[-1], alpha)
        elif look.base_labels >= plan.min_labels and difference.se == 0:  # a target that is the base again
            interval = (difference.value, difference.value)
            reading = replace(reading, status=status(*interval, plan.margin), note="", interval=interval)
        if decision is None and reading.status not in OPEN:
            decision = {"status": reading.status, "decided_at": look.coverage}
        readings.append(replace(reading, **decision) if decision else reading)
    return readings


def _fraction(plan: Plan, look: Look, difference: Estimate) -> float:
    """The fraction of the last look's information that a look has."""
    share, last = float(look.coverage), look.last_share(plan)
    if share >= last:
        return 1.0
    return spending.projected_fraction(difference.sampling_variance, difference.oracle_variance, share, last)


def _at_boundary(
    plan: Plan, reading: Reading, difference: Estimate, z: float, fraction: float, alpha: float
) -> Reading:
    """A reading with its boundary, and with its interval and status where there is something to spend."""
    level, n_draws = spending.nominal_level(z), len(difference.replicates)
    # Bootstrap draws have no percentiles beyond the most extreme ones.
    least = max(LEAST_LEVEL, 2 / (n_draws + 1) if n_draws else 0.0)
    interval = difference.interval(level) if level > least else None
    return replace(
        reading,
        status=status(*interval, plan.margin) if interval else "not_yet_known",
        note="",
        fraction=fraction,
        spent=spending.spent(fraction, alpha, plan.spending),
        boundary=z if math.isfinite(z) else None,
        level=level,
        interval=interval,
    )


def is_account(content: Any) -> bool:
    """Whether the content of a file is an account of looks."""
    return isinstance(content, dict) and {"plan", "looks", "stop"} <= content.keys()


# Texts


ENDS = {
    "decided": "every policy has a decision",
    "narrow": "every interval is narrow enough",
    "last_look": "this was the last planned look",
    "max_labels": "the labels of the next look would exceed `looks.max_labels`",
    "max_usd": "the labels of the next look would exceed `looks.max_usd`",
}


LEGEND = (
    "Information: share of the precision of the last look. Spent: error probability used so far. Boundary: a difference decides "
    "when it exceeds this many standard errors."
)


def sentence(account: Mapping[str, Any]) -> str:
    """The looks so far in one sentence."""
    plan, look, stop = account["plan"], account["looks"][-1], account["stop"]
    place = list(plan["coverages"]).index(look["coverage"]) + 1
    end = f"no further look, because {ENDS[stop['reason']]}" if stop else "the next look is needed"
    summary = "; ".join(f"{policy} {_words(account, policy)}" for policy in look["targets"])
    return (
        f"Planned look {place} of {len(plan['coverages'])} (coverage {look['coverage']}, {look['labels']} labels"
        f"{_dollars(look['usd'])}): {end}. Compared with {account['against']}: {summary}."
    )


def table(account: Mapping[str, Any]) -> str:
    """All looks for the terminal: what each has spent, its boundary, and its intervals."""
    plan = account["plan"]
    if plan["until"] == "width":
        rule = (
            f"until every {100 * (1 - account['alpha']):g} % interval of a difference is at most {plan['width']:g} wide"
        )
    else:
        rule = (
            f"until every policy has a decision (margin {plan['margin']:g}); error probability {account['alpha']:g}, spread over "
            f"{len(plan['coverages'])} looks ({plan['spending']}) and {len(account['looks'][0]['targets'])} differences"
        )
    rows = [("coverage", "labels", "USD", "policy", "information", "spent", "boundary", "difference", "interval", "")]
    for look in account["looks"]:
        cells = [look["coverage"], str(look["labels"]), _cell(look["usd"], ".2f")]
        for policy, one in look["targets"].items():
            ends = interval(*one["interval"], "+.3f") if one["interval"] else ""
            numbers = [_cell(one["fraction"], ".2f"), _cell(one["spent"], ".2g"), _cell(one["boundary"], ".2f")]
            finding = one["note"] or words(one["status"], plan["margin"])
            rows.append((*cells, policy, *numbers, _cell(one["difference"], "+.3f"), ends, finding))
            cells = ["", "", ""]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    values = (
        f"Estimates are in results/coverage_{account['looks'][-1]['coverage']}/{account['estimator']}.json; the decision in that "
        "file ignores earlier looks."
    )
    head = f"Planned looks of {account['estimator']}, {rule}"
    legend = textwrap.wrap(LEGEND, WIDTH) if plan["until"] == "decision" else []
    return printable("\n".join([head, "", *lines, "", *legend, *textwrap.wrap(account["sentence"], WIDTH), values]))


def _words(account: Mapping[str, Any], policy: str) -> str:
    """What the last look shows of a policy in a few words, with the look that decided where that is an earlier one."""
    look = account["looks"][-1]
    reading = look["targets"][policy]
    at = reading["decided_at"]
    earlier = f"at coverage {at}" if at and at != look["coverage"] else ""
    remark = "; ".join(filter(None, (reading["note"], earlier)))
    return words(reading["status"], account["plan"]["margin"]) + (f" ({remark})" if remark else "")


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else decimal(value, form)


def _dollars(usd: float | None) -> str:
    return f", {usd:,.2f} US dollars" if usd else ""
