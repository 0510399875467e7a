"""Remedies: for every reason that refuses an estimate or calls for caution, the cheapest thing that would lift it.

Each reason has the measures that lift it; a measure is bought with oracle labels and with judged responses, or is free
with the data at hand. Of all sets of measures that together lift every reason of a level, the one with the least effort
is taken: labels of a policy's own responses lift several reasons at once. Effort is counted in labels; a judged response
costs a sixteenth of one unless both prices are known. Another judge, other data or another policy are last resorts.

    50 labels of its own     replace support and transport, since they correct the estimate (`thresholds.own_labels`)
    base labels              raise the effective labels of a target (`label_needs`)
    direct                   has no weights, so that no reason about overlap concerns it

A target that random base labels would not support either is far from the base. Base labels at its scores would then publish
a value that no label of its own has confirmed, so that they lift a caution alone, and a refusal takes labels of its own.
A remedy lifts its reason; the new data may bring others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from arena_cje import estimators
from arena_cje.diagnostics import support
from arena_cje.diagnostics.evidence import target_scores
from arena_cje.diagnostics.label_needs import BaseLabels, Limits, OwnLabels, ScoreCells, own_labels
from arena_cje.diagnostics.overlap import ess_share
from arena_cje.estimation.fresh import MIN_OWN, labelled_prompts, prompt_weights
from arena_cje.estimation.records import LEVELS
from arena_cje.estimation.robust import has_label_term
from arena_cje.estimation.weights import hajek

if TYPE_CHECKING:
    from arena_cje.diagnostics.evidence import Evidence
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.estimation.records import Draws, Logged, Reason, Verdict
    from arena_cje.evaluation.evaluate import Evaluation

RESPONSE = 1 / 16  # labels that a judged response costs; the ratio in the published study of the method
Z = 1.96  # of the half-width that is announced
THIS, DIRECT, JOINT = (
    "this",
    "direct",
    "joint",
)  # what own labels correct: this estimate, `direct`, or correction: joint


@dataclass(frozen=True)
class UnitPrices:
    """Prices of what a remedy needs, in US dollars; None where they are unknown."""

    label: float | None = None  # one oracle label
    response: float | None = None  # one further response with its judge score

    def usd(self, labels: int, responses: int) -> float | None:
        """Price of labels and responses; None where a part of it is unknown."""
        parts = ((labels, self.label), (responses, self.response))
        if any(count and price is None for count, price in parts):
            return None
        return float(sum(count * (price or 0.0) for count, price in parts))

    @property
    def response_in_labels(self) -> float:
        """Labels that a judged response costs."""
        return self.response / self.label if self.label and self.response is not None else RESPONSE


@dataclass(frozen=True)
class Remedy:
    """The cheapest thing that lifts one reason."""

    reason: str  # the code of the reason
    kind: str
    amount: float | None  # how many labels, responses or prompts; None where it is no number
    usd: float | None
    text: str  # one sentence


@dataclass(frozen=True)
class Circumstances:
    """What the remedies of one policy depend on."""

    estimator: str
    is_base: bool
    n_prompts: int
    has_draws: bool  # fresh draws of the policy with judge scores, enough of them to be labelled
    rows_without_input: int  # rows that the estimate leaves out
    n_rows: int
    own_correct: str  # the estimate that labels of its own responses correct: THIS, DIRECT or JOINT
    own: OwnLabels
    n_labels: int  # of the oracle slice
    n_unlabelled: int  # base responses without a label
    # Further base labels that lift a support reason, by its level.
    base_labels: Mapping[str, BaseLabels | None] = field(default_factory=dict)
    direct_supported: bool = True  # whether labels lie at the scores of its fresh draws
    weights_reach: float = math.nan  # of the distance to the base in log probability, what has overlap
    mode: str = "monotone"  # of the calibrator
    better_judge: str | None = None  # a further judge in the data that agrees better with the oracle


@dataclass(frozen=True)
class Measure:
    """Something that lifts a reason, and what has to be bought for it."""

    kind: str
    sentence: str
    amount: float | None = None
    note: str = ""  # a further sentence
    labels: int = 0
    responses: int = 0
    name: str = ""  # of an estimator or option, where a kind has several that exclude each other
    last_resort: bool = False

    def effort(self, prices: UnitPrices) -> float:
        """What it takes, in labels."""
        if self.last_resort:
            return 1e6
        return self.labels + prices.response_in_labels * self.responses


Lift = Callable[[Circumstances, str, "Thresholds"], Sequence[Measure]]


def remedies(
    evaluation: Evaluation,
    logged: Logged,
    draws: Mapping[str, Draws] | None,
    evidence: Mapping[str, Evidence],
    verdicts: Mapping[str, Verdict],
    thresholds: Thresholds,
    prices: UnitPrices = UnitPrices(),
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
    reasons: Sequence[Reason], at_hand: Circumstances, thresholds: Thresholds, prices: UnitPrices = UnitPrices()
) -> tuple[Remedy, ...]:
    """The remedies of these reasons: those that lift a refusal first, then those that lift a caution, cheapest first."""
    ordered: list[Remedy] = []
    chosen: dict[tuple[str, str], Measure] = {}
    for level in reversed(LEVELS[1:]):
        options = {reason.code: _measures(reason, at_hand, thresholds) for reason in reasons if reason.level == level}
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

    options: measures that lift a reason, by its code; chosen: measures that are taken already, for which only what goes
    beyond them counts. Of measures of a kind, the largest lifts the reasons of the others too and stands for them.
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
                taken = chosen.get(_key(measure))
                more = measure.effort(prices) - (taken.effort(prices) if taken else 0.0)
                effort[_key(measure)] = max(effort[_key(measure)], more)
            total = sum(effort.values())
            if total < least:
                best, least = lifted, total
    largest: dict[tuple[str, str], Measure] = {}
    for measure in best.values():
        other = largest.get(_key(measure), measure)
        largest[_key(measure)] = measure if measure.effort(prices) > other.effort(prices) else other
    return {code: largest[_key(measure)] for code, measure in best.items()}


def circumstances(
    evaluation: Evaluation,
    logged: Logged,
    draws: Mapping[str, Draws],
    evidence: Evidence,
    policy: str,
    thresholds: Thresholds,
    better_judge: str | None = None,
) -> Circumstances:
    """What the remedies of a policy depend on, from the data."""
    name, fitted, cluster = evaluation.estimator, evaluation.calibration, evaluation.base.cluster
    own_draws = draws.get(policy)
    n_prompts = len(np.unique(logged.prompt_id))
    drawn = 0 if own_draws is None else len(np.unique(cluster[(~np.isnan(own_draws.judge_score)).any(axis=1)]))
    has_draws = drawn > 0 and drawn >= min(thresholds.own_labels, n_prompts)
    is_base = policy == logged.base_policy
    counts = {one: labelled_prompts(of.scored_label, cluster) for one, of in draws.items()}
    estimate = evaluation.base if is_base else evaluation.estimates[policy]
    label_term = has_label_term(estimators.get(name), evaluation.options)
    own = OwnLabels(0, math.nan, None)
    if not is_base and fitted.mode != "none":
        own = own_labels(
            evaluation, own_draws if has_draws else None, thresholds, audited=sum(map(bool, counts.values()))
        )
    log_ratio = np.empty(0) if is_base else logged.log_ratio[:, logged.policies.index(policy)]
    return Circumstances(
        estimator=name,
        is_base=is_base,
        n_prompts=n_prompts,
        has_draws=has_draws,
        rows_without_input=len(cluster) - estimate.n_used,
        n_rows=len(cluster),
        own_correct=_corrected_by_own(name, label_term=label_term, correction=evaluation.options.correction),
        own=own,
        n_labels=len(fitted.label),
        n_unlabelled=int(np.sum(~logged.labelled)),
        base_labels=_base_labels(
            evaluation,
            logged,
            draws,
            evidence,
            policy,
            thresholds,
            # Labels at scores are no random share: the calibrator may have them, a correction by base labels may not.
            at_scores=not label_term and all(count < MIN_OWN for count in counts.values()),
        ),
        direct_supported=has_draws and _is_supported(evaluation, own_draws, thresholds),
        weights_reach=weights_reach(log_ratio, thresholds),
        mode=fitted.mode,
        better_judge=better_judge,
    )


def _corrected_by_own(estimator: str, *, label_term: bool, correction: str) -> str:
    if not estimators.needs_draws(estimator) or label_term:
        return DIRECT
    return JOINT if correction == "none" else THIS


def _base_labels(
    evaluation: Evaluation,
    logged: Logged,
    draws: Mapping[str, Draws],
    evidence: Evidence,
    policy: str,
    thresholds: Thresholds,
    *,
    at_scores: bool,
) -> dict[str, BaseLabels | None]:
    """Further base labels that lift a support reason of each level; at_scores: whether they may be other than random."""
    if evidence.support is None:
        return {}
    if policy == logged.base_policy:
        cluster = evaluation.base.cluster
        score, weight = logged.judge_score, 1 / np.bincount(cluster)[cluster]
    else:
        score, weight = target_scores(evaluation, logged, draws, policy)
    at_hand = ScoreCells.of(evaluation.calibration.score, logged.judge_score[~logged.labelled], score, weight)
    if at_hand is None:
        return {}
    t = thresholds
    published = Limits(t.label_share_refuse, t.effective_labels_refuse)
    sound = Limits(t.label_share_caution, t.effective_labels_caution)
    near = Limits(sound.share, 0).hold(at_hand.mass, at_hand.labels + at_hand.left)  # supported by random base labels
    return {
        "refuse": at_hand.at_random(published) if near else None,
        "caution": at_hand.at_random(sound) if near or not at_scores else at_hand.at_scores(sound),
    }


def _is_supported(evaluation: Evaluation, draws: Draws, thresholds: Thresholds) -> bool:
    """Whether labels lie at the scores of fresh draws, as `direct` needs it."""
    score = draws.judge_score
    own = support.effective_labels(evaluation.calibration.score, score.reshape(-1), prompt_weights(score).reshape(-1))
    t = thresholds
    return own.share >= t.label_share_refuse and own.effective_labels >= t.effective_labels_refuse


def weights_reach(log_ratio: np.ndarray, thresholds: Thresholds) -> float:
    """The largest share of the log ratios (n,), in steps of .05, whose weights have overlap; NaN where there is none.

    A share a stands for the policy of probabilities base^(1 - a) target^a, of which a temperature nearer the base is one.
    """
    finite = log_ratio[np.isfinite(log_ratio)]
    if not len(finite):
        return math.nan
    steps = np.arange(1, 20) / 20
    enough = [share for share in steps if ess_share(hajek(share * finite)) >= thresholds.ess_caution]
    return float(max(enough, default=math.nan))


# Measures


def _s(count: int) -> str:
    """The ending of a noun after a number."""
    return "" if count == 1 else "s"


def _whole(limit: float) -> int | None:
    """The whole number that reaches a threshold; None for one that no number reaches."""
    return math.ceil(limit) if math.isfinite(limit) else None


def _own(c: Circumstances, thresholds: Thresholds, *, passing: bool = False) -> list[Measure]:
    """Labels of the policy's own responses: enough to correct the estimate, or for the audit to pass."""
    in_all = _whole(thresholds.own_labels)
    if c.is_base or c.mode == "none" or in_all is None:
        return []
    how = {
        THIS: "",
        DIRECT: " and use the estimator `direct`, which these labels correct",
        JOINT: ", chosen at random, and set `correction: joint`",
    }[c.own_correct]
    responses = 0 if c.has_draws else c.n_rows
    measures = []
    if c.own.prompts >= in_all:
        text = "Set `correction: joint`, if the labelled responses of this policy are a random sample"
        joint = Measure("estimator", text, name=JOINT)
        measures.append(joint if c.own_correct == JOINT else _direct(c, labels_suffice=True))
    elif c.n_prompts < in_all:
        more = in_all - c.n_prompts
        text = f"Add {more} prompt{_s(more)} and label this policy's responses to all {in_all} prompts{how}"
        measures.append(Measure("prompts", text, more, labels=in_all - c.own.prompts, responses=2 * more + responses))
    else:
        more = in_all - c.own.prompts
        half_width = Z * c.own.spread / math.sqrt(in_all)
        interval = f" (expected interval: about ± {half_width:.2f})" if half_width > 0 else ""
        begin = f"Label {more}{' more' if c.own.prompts else ''} of this policy's own responses"
        if not c.has_draws:
            begin = f"Generate and judge this policy's responses to the {c.n_prompts} prompts, label {more} of them"
        text = f"{begin}{how}{interval}"
        measures.append(Measure("own_labels", text, more, labels=more, responses=responses))
    if passing and c.own.passing is not None and c.own.prompts < c.own.passing <= c.n_prompts:
        more = c.own.passing - c.own.prompts
        text = (
            f"Label {more} more of this policy's own responses, {c.own.passing} in total: the transport audit then passes if the "
            "measured difference stays the same"
        )
        measures.append(Measure("own_labels", text, more, labels=more))
    return measures


def _direct(c: Circumstances, *, labels_suffice: bool = False) -> Measure:
    """The estimator without weights, on fresh draws that are at hand or to be made."""
    why = "which the labels of this policy's own responses correct" if labels_suffice else "which needs no overlap"
    if c.has_draws:
        return Measure("estimator", f"Use the estimator `direct`, {why}; the data have its fresh draws", name="direct")
    text = (
        f"Generate and judge this policy's responses to the {c.n_prompts} prompts and use the estimator `direct`, {why}"
    )
    return Measure("fresh_draws", text, c.n_rows, responses=c.n_rows, name="direct")


def _without_weights(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    """For reasons about weights: an estimator without them, with own labels where the calibration may be wrong for it."""
    measures = _own(c, thresholds) if c.own_correct == DIRECT else []
    if c.direct_supported or not measures or not c.has_draws:
        measures.append(_direct(c))
    return measures


def _overlap(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    """For want of overlap: an estimator without weights; the sentence says which policies would have overlap."""
    reach = ""
    if not math.isnan(c.weights_reach):
        reach = (
            f" Importance weights would need a policy closer to the base: at most {100 * c.weights_reach:.0f} % of this policy's "
            "distance in log probability (for example, with a temperature closer to the base's)."
        )
    return [replace(measure, note=reach) for measure in _without_weights(c, level, thresholds)]


def _normalised(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    """For weights without variance: an estimator that normalises them, or one without."""
    text = "Use the estimator `calibrated-ips`, whose weights have mean 1 and a limited variance"
    return [Measure("estimator", text, name="calibrated-ips"), *_without_weights(c, level, thresholds)]


def _support(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    """For want of labels at the policy's scores: base labels there, or labels of its own."""
    plan = c.base_labels.get(level)
    measures = _own(c, thresholds)
    if plan is not None:
        where = (
            ", chosen at random"
            if plan.scores is None
            else " with judge scores from {:.2f} to {:.2f}".format(*plan.scores)
        )
        text = f"Label {plan.count} more base response{_s(plan.count)}{where}"
        measures.append(Measure("base_labels", text, plan.count, labels=plan.count))
    return measures or _base_labels_up_to(c, thresholds.effective_labels_caution)


def _base_labels_up_to(c: Circumstances, limit: float) -> list[Measure]:
    """Base labels up to a number, with new prompts where the base responses do not suffice."""
    in_all = _whole(limit)
    if in_all is None:
        return []
    more = max(in_all - c.n_labels, 1)
    if more <= c.n_unlabelled:
        return [
            Measure("base_labels", f"Label {more} more base response{_s(more)}, {in_all} in total", more, labels=more)
        ]
    prompts = more - c.n_unlabelled
    text = f"Add {prompts} prompt{_s(prompts)} and label {more} more base response{_s(more)}"
    return [Measure("prompts", text, prompts, labels=more, responses=2 * prompts)]


def _few_labels(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    limit = thresholds.labels_refuse if level == "refuse" else thresholds.labels_caution
    return _base_labels_up_to(c, limit)


def _judge(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    """For a judge whose scores hardly correlate with the labels."""
    if c.better_judge is not None:
        text = f"Use the judge {c.better_judge!r}: its scores are in the data and correlate better with the labels"
        return [Measure("judge", text, name=c.better_judge)]  # free: the scores are there
    text = "Use another judge or rubric; more labels do not improve the correlation of these scores with the oracle"
    return [Measure("judge", text, last_resort=True)]


def _reversed(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    text = "Reverse the judge's scale (highest plus lowest minus score), or correct the rubric"
    return [Measure("judge", text, name="reversed")]


def _uninformative(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    return [*_own(c, thresholds), *_judge(c, level, thresholds)]


def _option(name: str, sentence: str) -> Lift:
    """An option of the analysis, free with the data at hand."""
    return lambda c, level, thresholds: [Measure("estimator", sentence, name=name)]


def _calibrated(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    if c.n_labels < thresholds.labels_refuse:
        return [
            replace(labels, sentence=f"{labels.sentence}, and set `rewards: calibrated`")
            for labels in _base_labels_up_to(c, thresholds.labels_refuse)
        ]
    return [
        Measure(
            "estimator", f"Set `rewards: calibrated`, which uses the {c.n_labels} labels in the data", name="rewards"
        )
    ]


def _rows(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    """For rows that lack an input: so many that the rest is within the limit."""
    allowed = 0 if level == "refuse" else math.floor(np.clip(thresholds.left_out_caution, 0, 1) * c.n_rows)
    more = max(c.rows_without_input - allowed, 1)
    if estimators.needs_draws(c.estimator) and not estimators.needs_weights(c.estimator):
        return [
            Measure(
                "fresh_draws",
                f"Generate and judge this policy's responses to {more} more prompt{_s(more)}",
                more,
                responses=more,
            )
        ]
    lacking = "log probabilities under this policy"
    lacking += ", fresh draws or both" if estimators.needs_draws(c.estimator) else ""
    measures = [
        Measure("log_probabilities", f"Add the missing {lacking} on {more} row{_s(more)}", more, responses=more)
    ]
    return [*measures, _direct(c)] if c.has_draws or level == "refuse" else measures


def _prompts(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    return [Measure("prompts", "Add 1 or more prompts with complete data", 1, responses=2)]


def _transport(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    if c.mode == "none":
        return _calibrated(c, level, thresholds)
    return _own(c, thresholds, passing=level == "caution")


def _data(sentence: str) -> Lift:
    """What only other data or another configuration lift."""
    return lambda c, level, thresholds: [Measure("data", sentence, last_resort=True)]


def _log_probabilities(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    """For log probabilities that cannot be right: an estimator without them, or other ones."""
    text = "Compute the log probabilities again (in nats, summed over all tokens of the response)"
    return [*_without_weights(c, level, thresholds), Measure("log_probabilities", text, last_resort=True)]


LIFTS: Mapping[str, Lift] = {
    # Inputs and overlap.
    "no_rows": _rows,
    "too_few_rows": _prompts,
    "rows_left_out": _rows,
    "no_overlap": _overlap,
    "low_ess": _overlap,
    "near_zero_weights": _overlap,
    "heavy_tail": _overlap,
    "concentrated_weights": _overlap,
    "mean_weight_off": _log_probabilities,
    "infinite_variance": _normalised,
    "mean_weight_not_one": _normalised,
    "variance_capped": _without_weights,
    "implausible_logprobs": _log_probabilities,
    "zero_logprobs": _log_probabilities,
    "no_log_probabilities": _without_weights,
    "api_log_probabilities": _without_weights,
    "support_exceeds_base": _without_weights,
    # Labels, judge and calibrator.
    "few_labels": _few_labels,
    "unsupported_labels": _support,
    "few_effective_labels": _support,
    "judge_uninformative": _uninformative,
    "judge_unproven": _uninformative,
    "weak_judge": _judge,
    "inverted_judge": _reversed,
    "constant_calibration": _judge,
    "covariates_not_used": _option("calibration", "Set `calibration: monotone`, which uses no covariates"),
    "falling_calibration": _option(
        "calibration", "Set `calibration: monotone`, which never falls while the score rises"
    ),
    "uncalibrated_rewards": _calibrated,
    "bootstrap_too_short": _option(
        "inference", "Set `inference: jackknife`, whose intervals hold their level with few labels"
    ),
    "transport_failed": _transport,
    "transport_inconclusive": _transport,
    "unusual_units": _data(
        "Check the units of scores and labels, and set `judge_scale` and `label_scale` to the range of each column"
    ),
}
UNKNOWN = _data("No option of this analysis helps: the cause is in the data, or in a threshold that was changed")


def _measures(reason: Reason, c: Circumstances, thresholds: Thresholds) -> Sequence[Measure]:
    """The measures that lift a reason; reasons that callers add are known to them alone."""
    measures = LIFTS.get(reason.code, UNKNOWN)(c, reason.level, thresholds)
    return measures or UNKNOWN(c, reason.level, thresholds)
