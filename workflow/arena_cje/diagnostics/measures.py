"""Measures: for every reason of a verdict what would lift it, and what has to be bought for that.

    50 labels of its own     replace support and transport, since they correct the estimate (`thresholds.own_labels`)
    base labels              raise the effective labels of a target (`label_needs`)
    direct                   has no weights, so that no reason about overlap concerns it

Another judge, other data or another policy are last resorts. A measure lifts its reason; the new data may bring others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from arena_cje import estimators
from arena_cje.diagnostics.circumstances import Circumstances
from arena_cje.diagnostics.verdict import DIRECT, JOINT, THIS

if TYPE_CHECKING:
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.estimation.records import Reason

RESPONSE = 1 / 16  # labels that a judged response costs; the ratio in the published study of the method
Z = 1.96  # of the half-width that is announced


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


NO_PRICES = UnitPrices()


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
        """Cost of the measure, in units of one label."""
        if self.last_resort:
            return 1e6
        return self.labels + prices.response_in_labels * self.responses


Lift = Callable[[Circumstances, str, "Thresholds"], Sequence[Measure]]


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
    """Against too little overlap: an estimator without weights; the sentence names policies that would have overlap."""
    reach = ""
    if not math.isnan(c.weights_reach):
        reach = (
            " Importance weights need a policy closer to the base, for example one with a temperature closer to the base's: its "
            f"log probabilities may differ from the base's at most {100 * c.weights_reach:.0f} % as much as they do now."
        )
    return [replace(measure, note=reach) for measure in _without_weights(c, level, thresholds)]


def _normalised(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    """For weights without variance: an estimator that normalises them, or one without."""
    text = "Use the estimator `calibrated-ips`, whose weights have mean 1 and a limited variance"
    return [Measure("estimator", text, name="calibrated-ips"), *_without_weights(c, level, thresholds)]


def _support(c: Circumstances, level: str, thresholds: Thresholds) -> list[Measure]:
    """Against too few labels at the policy's scores: base labels there, or labels of its own."""
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
    "labels_without_scores": _data(
        "Check that the columns of judge scores and labels are not swapped, or add judge scores to the labelled rows"
    ),
}
UNKNOWN = _data("No option of this analysis helps: the cause is in the data, or in a threshold that was changed")


def measures_for(reason: Reason, c: Circumstances, thresholds: Thresholds) -> Sequence[Measure]:
    """The measures that lift a reason; reasons that callers add are known to them alone."""
    measures = LIFTS.get(reason.code, UNKNOWN)(c, reason.level, thresholds)
    return measures or UNKNOWN(c, reason.level, thresholds)
