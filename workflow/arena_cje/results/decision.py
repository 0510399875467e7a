"""The decision of a result: for each policy whether it is better than the policy it is compared with, and what is missing.

`arena_cje.estimation.decision` has the rule. A difference decides where labels support the estimates of both policies: the
base's own labels, labels of a target's own responses that correct its value, labels under importance weights. The interval of
one that depends on judge scores alone covers the sampling of scores and no error of transport; it is published at caution
(`judge_only_difference`) and decides nothing, unless the transport audit holds within the margin or the user declares
`assume_transport`. The sentences are made here once, for results file, terminal, dashboard and command line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.diagnostics.verdict import DIRECT, JOINT, corrected_by_own, lacks_labels
from arena_cje.errors import UserError, did_you_mean
from arena_cje.estimation.contrasts import differences_to
from arena_cje.estimation.decision import (
    AUDITED,
    CHANCE,
    JUDGE,
    LABELS,
    STATUSES,
    Parts,
    judge_only,
    may_decide,
    need,
    status,
    words,
)
from arena_cje.estimation.fresh import MIN_OWN, labelled_prompts
from arena_cje.estimation.inference import clustered_variance
from arena_cje.estimation.records import Reason
from arena_cje.numbers import decimal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.diagnostics.evidence import Evidence
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.estimation.contrasts import Contrast
    from arena_cje.estimation.decision import DecisionRule, Need
    from arena_cje.estimation.records import Draws, Estimate, Logged, Verdict
    from arena_cje.evaluation.evaluate import Evaluation

CODE = "judge_only_difference"
MIN_ADVISED = 50  # labels of own responses that correct an estimate, as `Thresholds.own_labels`
MIN_UNLABELLED = 20  # prompts without a label, for the variance that labels do not lower


@dataclass(frozen=True)
class Side:
    """One policy as a side of differences."""

    estimate: Estimate
    labelled: np.ndarray  # (n,) bool, rows with a label of this policy's
    rests_on: str  # labels; audited_judge: an audit holds within the margin; judge
    refusal: str = ""  # why the policy is refused; empty where it is published
    codes: tuple[str, ...] = ()  # of the reasons that refuse it
    unused_labels: int = 0  # labels of its own responses that do not correct the estimate
    corrected_by_labels: str = DIRECT  # what they would correct (`verdict.corrected_by_own`)

    @property
    def n_labelled(self) -> int:
        """Number of labelled prompts."""
        return len(np.unique(self.estimate.cluster[self.labelled]))

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return len(np.unique(self.estimate.cluster))


def sides(
    evaluation: Evaluation,
    logged: Logged,
    draws: Mapping[str, Draws],
    evidence: Mapping[str, Evidence],
    verdicts: Mapping[str, Verdict],
    thresholds: Thresholds,
    margin: float,
) -> dict[str, Side]:
    """Every policy as a side of differences, the base policy first."""
    base, cluster = evaluation.base, evaluation.base.cluster
    has_labels = labelled_prompts(logged.oracle_label[:, None], cluster) >= MIN_OWN
    refusals = {
        policy: {
            "refusal": "; ".join(verdict.grounds),
            "codes": tuple(reason.code for reason in verdict.reasons if reason.level == "refuse"),
        }
        for policy, verdict in verdicts.items()
        if not verdict.ok
    }
    of_base = Side(base, logged.labelled, LABELS if has_labels else JUDGE, **refusals.get(logged.base_policy, {}))
    by_policy = {logged.base_policy: of_base}
    for column, policy in enumerate(logged.policies):
        own, audit = np.zeros(len(cluster), dtype=bool), evidence[policy].audit
        rests_on, unused_labels = LABELS, 0
        if audit is not None and lacks_labels(evaluation, evidence[policy], logged.log_ratio[:, column], thresholds):
            low, high = audit.interval
            rests_on = AUDITED if audit.status == "PASS" and -margin < low and high < margin else JUDGE
            unused_labels = audit.n_labels
        elif evidence[policy].own_labels:
            own = (~np.isnan(draws[policy].scored_label)).any(axis=1)
        by_policy[policy] = Side(
            evaluation.estimates[policy],
            own,
            rests_on,
            unused_labels=unused_labels,
            corrected_by_labels=corrected_by_own(evaluation),
            **refusals.get(policy, {}),
        )
    return by_policy


def reasons(one: Contrast, by_policy: Mapping[str, Side]) -> tuple[Reason, ...]:
    """Why a published difference calls for caution; empty where labels support both estimates, or it is refused."""
    lacking = [policy for policy in (one.first, one.second) if by_policy[policy].rests_on != LABELS]
    if math.isnan(one.difference) or not lacking:
        return ()
    text = f"the difference depends on judge scores alone: no labels correct the estimate of {' or '.join(lacking)}"
    return (Reason(CODE, text, "caution"),)


def decide(
    sides: Mapping[str, Side],
    rule: DecisionRule,
    alpha: float,
    *,
    base: str,
    alpha_each: float | None = None,
    remedies: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> dict[str, Any]:
    """The entry `decision` of a results file.

    sides: by policy, the base policy first; alpha: of all intervals together; alpha_each: of each interval, where it is not
    that of `level_of_each` (a planned look); remedies: by policy, what would lift the reasons of its verdict.
    Raises a `UserError` where the rule compares with a policy that is not in the data.
    """
    against = base if rule.against is None else rule.against
    if against not in sides:
        raise UserError(
            f"decision: against is {against!r}, which is not a policy of the data{did_you_mean(against, sides)}; its policies: "
            f"{', '.join(sides)}"
        )
    refused = [policy for policy, side in sides.items() if side.refusal]
    estimates = {policy: side.estimate for policy, side in sides.items()}
    differences = {one.first: one for one in differences_to(against, estimates, refused=refused, alpha=alpha)}
    entries = {
        policy: _entry(policy, one, sides, against, rule, alpha_each, (remedies or {}).get(policy, ()))
        for policy, one in differences.items()
    }
    return {
        "against": against,
        "margin": rule.margin,
        "assume_transport": rule.assume_transport,
        "alpha": alpha,
        "n_differences": sum(one["difference"] is not None for one in entries.values()),
        "headline": headline(entries, against, rule.margin),
        "policies": entries,
    }


def _entry(
    policy: str,
    one: Contrast,
    sides: Mapping[str, Side],
    against: str,
    rule: DecisionRule,
    alpha_each: float | None,
    remedies: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What is decided about one policy, in numbers and in a sentence."""
    own, other = sides[policy], sides[against]
    rests_on = (own.rests_on, other.rests_on)
    entry = {
        "difference": one.difference,
        "se": one.se,
        "corrected_interval": [one.corrected_lower, one.corrected_upper],
        "judge_only": judge_only(rests_on),
        "needs": None,
    }
    if math.isnan(one.difference):
        refused = {"difference": None, "se": None, "corrected_interval": [None, None], "judge_only": False}
        return entry | refused | {"status": "refused", "sentence": _refusal(policy, own, other, against, remedies)}
    difference = own.estimate - other.estimate
    if alpha_each is not None:
        entry["corrected_interval"] = list(difference.interval(alpha_each))
    low, high = entry["corrected_interval"]
    outcome = status(low, high, rule.margin) if may_decide(rests_on, rule.assume_transport) else "not_yet_known"
    value, lower, upper = (decimal(number, "+.3f") for number in (one.difference, low, high))
    numbers = f"{value}, interval {lower} to {upper}"
    if outcome != "not_yet_known":
        phrase = _decided(outcome, low, high, against, rule.margin)
        return entry | {"status": outcome, "sentence": f"{policy} is {phrase} (difference {numbers})."}
    if not may_decide(rests_on, rule.assume_transport):
        return entry | {"status": outcome, "sentence": _judge_only_sentence(policy, own, against, numbers)}
    parts = variance_parts(difference, own.labelled | other.labelled)
    critical = (high - low) / 2 / one.se
    needs = need(one.difference, parts, critical, rule.margin) if one.se > 0 and critical > 0 else None
    text, numbers_needed = _needs(policy, own, against, other, needs, rule.margin)
    sentence = f"{policy} compared with {against}: not yet known (difference {numbers}). {text}".rstrip()
    return entry | {"status": outcome, "needs": numbers_needed, "sentence": sentence}


def variance_parts(difference: Estimate, labelled: np.ndarray) -> Parts:
    """The variance of a difference by what lowers it; labelled: rows (n,) that have a label.

    A prompt without labels has in its influence only what prompts leave open. Their variance is that of the estimate with
    labels without end; the rest falls with labels. Where nearly all prompts have labels, all of it falls with prompts alone.
    """
    total, rest = difference.spread**2, difference.used & ~labelled
    cluster = difference.cluster
    count = len(np.unique(cluster[rest]))
    if count < MIN_UNLABELLED:
        return Parts(0.0, total, difference.bias)
    share = count / difference.n_clusters
    n = len(cluster)
    # Of the mean over the unlabelled prompts; over all prompts it is smaller by their share.
    prompts = min(clustered_variance(difference.influence[rest], cluster[rest], n) / share, total)
    return Parts(total - prompts, prompts, difference.bias)


def _needs(
    policy: str, own: Side, against: str, other: Side, needs: Need | None, margin: float
) -> tuple[str, dict[str, Any] | None]:
    """What would decide an undecided difference: a sentence, and numbers of labels and prompts."""
    if needs is None:
        return "", None
    numbers: dict[str, Any] = {"outcome": needs.outcome, "labels": None, "prompts": None, "chance": CHANCE}
    outcome = f"{needs.outcome} within {margin:g}" if needs.outcome == "equivalent" else needs.outcome
    effect = (
        f"would show with {100 * CHANCE:.0f} % probability that {policy} is {outcome}, if the true difference is the "
        "measured one"
    )
    n, labels = own.n_prompts, {policy: own.n_labelled, against: other.n_labelled}
    labels = {name: count for name, count in labels.items() if count}
    if needs.labels is not None and labels and needs.labels * min(labels.values()) <= n:
        numbers["labels"] = {name: min(rounded_up(needs.labels * count), n) for name, count in labels.items()}
        return f"{_labels_text(numbers['labels'], labels)} {effect}.", numbers
    if needs.prompts is not None:
        numbers["prompts"] = rounded_up(needs.prompts * n)
        numbers["labels"] = {name: rounded_up(needs.prompts * count) for name, count in labels.items()}
        counts = " and ".join(f"{count:,} with labels of {name}" for name, count in numbers["labels"].items())
        prompts = f"{numbers['prompts']:,} prompts{f' ({counts})' if counts else ''}"
        return f"More labels on these {n:,} prompts are not enough: {prompts} {effect}.", numbers
    return (
        "More labels or prompts are not enough, because the shift from capping the weights is too large: use `direct` with "
        "labels of the policy's own fresh draws."
    ), numbers


def _labels_text(needed: Mapping[str, int], labels: Mapping[str, int]) -> str:
    """The numbers of labelled prompts that are needed, beside those in the data."""
    counts = list(labels.values())
    if len(counts) == 2 and counts[0] == counts[1]:
        policy = next(iter(labels))
        return f"Labels of both policies on about {needed[policy]:,} prompts (now {labels[policy]:,})"
    return "Labels of " + " and of ".join(
        f"{policy} on about {needed[policy]:,} prompts (now {count:,})" for policy, count in labels.items()
    )


def rounded_up(count: float) -> int:
    """A number with two digits that count, not below it."""
    unit = 10 ** max(len(str(math.ceil(count))) - 2, 0)
    return math.ceil(count / unit) * unit


def _decided(outcome: str, low: float, high: float, against: str, margin: float) -> str:
    """What is known, to be read after "is"."""
    if outcome == "equivalent":
        side = "better" if low > 0 else "worse" if high < 0 else ""
        return f"equivalent to {against} within {margin:g}{side and f' ({side}, but by less than {margin:g})'}"
    return {
        "better_by_margin": f"better than {against} by at least {margin:g}",
        "better": f"better than {against}, possibly by less than {margin:g}",
        "worse": f"worse than {against}",
    }[outcome]


def _judge_only_sentence(policy: str, own: Side, against: str, numbers: str) -> str:
    """Why a difference that depends on judge scores alone decides nothing, and what would."""
    lacking = policy if own.rests_on != LABELS else against
    if own.unused_labels >= MIN_ADVISED:
        use = (
            "set `correction: joint`, if they are a random sample"
            if own.corrected_by_labels == JOINT
            else "use `direct`"
        )
        advice = f"So that the {own.unused_labels} labels of its own responses correct it, {use}"
    else:
        advice = (
            f"Label at least {MIN_ADVISED} of {lacking}'s own responses (`oracle.target_labels`, or `probes` with your own data) "
            "and use `direct`"
        )
    return (
        f"{policy} compared with {against}: not yet known. The difference ({numbers}) depends on judge scores alone, because no "
        f"labels correct the estimate of {lacking}. {advice}, or declare `assume_transport`."
    )


def _refusal(policy: str, own: Side, other: Side, against: str, remedies: Sequence[Mapping[str, Any]]) -> str:
    """Why there is no difference, and what would lift the refusal."""
    if not own.refusal and other.refusal:
        return f"{policy} cannot be compared: {against} is refused ({other.refusal})."
    advice = next((f" {one['text']}" for one in remedies if one["reason"] in own.codes), "")
    return f"{policy} is refused: {own.refusal or 'its difference has no standard error'}.{advice}"


def headline(entries: Mapping[str, Mapping[str, Any]], against: str, margin: float) -> str:
    """One sentence about all policies, of their statuses alone."""
    phrases = {status: words(status, margin) for status in STATUSES} | {
        "better": f"better, possibly by less than {margin:g}",
        "not_yet_known": "not yet known to be better or worse",
    }
    parts = []
    for one in STATUSES:
        names = [policy for policy, entry in entries.items() if entry["status"] == one]
        if names:
            parts.append(f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {phrases[one]}")
    return f"Compared with {against}, {'; '.join(parts)}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
