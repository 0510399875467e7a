"""Verdicts: whether an estimate may be published. Each check looks at one quantity; the worst one gives the level.

    ok        publish
    caution   publish with the reason beside it
    refuse    do not publish: the number is not supported by data about this policy

Which checks apply depends on the estimator. Importance weights are checked for overlap, always with the raw weights, and
for the bias of their cap; a failure refuses an estimate by weights alone, and is a caution where fresh draws are used too.
Calibrated rewards are checked for labels, judge and support, those of the base policy too. Transport (the same mean label
at the same score) can be checked only with labels of the policy's own draws; without them a reason states that and leaves the
level as it is. With enough such labels, support and transport are not checked, since the labels correct the estimate. A
label term with enough effective labels replaces the check of support; its value is compared with labels of the policy's
own draws where there are some. A value that depends on judge scores alone is refused where the labels show no correlation of
judge and oracle: the calibrator then gives every policy the value of the base.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from arena_cje import estimators
from arena_cje.diagnostics import calibration
from arena_cje.diagnostics.agreement import agreement
from arena_cje.estimation.records import Estimate, Logged, Reason, Verdict
from arena_cje.estimation.robust import has_label_term

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arena_cje.diagnostics.agreement import Agreement
    from arena_cje.diagnostics.calibration import CalibrationDiagnostics
    from arena_cje.diagnostics.evidence import Evidence
    from arena_cje.diagnostics.overlap import Overlap
    from arena_cje.diagnostics.support import Support
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.diagnostics.transport import Audit
    from arena_cje.evaluation.evaluate import Evaluation

PERCENT = " %"
# What labels of a policy's own responses correct: this estimate, `direct`, or this one with `correction: joint`
THIS, DIRECT, JOINT = "this", "direct", "joint"
LOWER_LEVEL = {"refuse": "caution", "caution": "ok", "ok": "ok"}  # one level down


def judge(
    evaluation: Evaluation, logged: Logged, evidence: Mapping[str, Evidence], thresholds: Thresholds
) -> dict[str, Verdict]:
    """Verdicts of the base policy and of every target policy, in declared order."""
    shared = calibration_reasons(calibration.diagnose(evaluation.calibration, thresholds), thresholds)
    shared += bootstrap_reasons(evaluation, thresholds)
    base = Verdict(support_reasons(evidence[logged.base_policy].support, thresholds) + shared)
    targets = {
        policy: Verdict(
            _missing_estimate_reasons(evaluation, policy, logged.log_ratio[:, column])
            or _estimate_reasons(evaluation, evidence[policy], policy, logged.log_ratio[:, column], thresholds) + shared
        )
        for column, policy in enumerate(logged.policies)
    }
    return {logged.base_policy: base} | targets


def _missing_estimate_reasons(evaluation: Evaluation, policy: str, log_ratio: np.ndarray) -> tuple[Reason, ...]:
    """Why an estimate or its standard error is missing; empty when both are there."""
    estimate = evaluation.estimates[policy]
    if np.isfinite([estimate.value, estimate.se]).all():
        return ()
    if not estimate.n_used:
        needs = estimators.get(evaluation.estimator).NEEDS
        if "log_ratio" in needs and np.isnan(log_ratio).all():
            text = (
                f"no row has log probabilities under both {policy} and the base: add them to `target_policy_logprobs`"
            )
        else:
            text = f"no row has the fresh draws that this estimator needs: add {policy}.jsonl to `fresh_draws`"
        return (Reason("no_rows", text, "refuse"),)
    if np.isfinite(estimate.value):
        text = f"all {estimate.n_used} usable rows belong to one prompt; a standard error needs two prompts or more"
        return (Reason("too_few_rows", text, "refuse"),)
    impossible = int(np.sum(log_ratio == -np.inf))
    text = f"this policy cannot produce any of the {impossible} base responses (probability 0)"
    return (Reason("no_overlap", text, "refuse"),)


def _estimate_reasons(
    evaluation: Evaluation, evidence: Evidence, policy: str, log_ratio: np.ndarray, thresholds: Thresholds
) -> tuple[Reason, ...]:
    """Reasons of one policy that has an estimate."""
    needs, estimate = estimators.get(evaluation.estimator).NEEDS, evaluation.estimates[policy]
    reasons = left_out_reasons(estimate.n_used, len(log_ratio), needs, thresholds)
    if "log_ratio" in needs:
        # With fresh draws a doubly robust estimate does not depend on the weights alone.
        weighted = overlap_reasons(evidence.overlap, thresholds)
        if not estimators.normalised(evaluation.estimator):
            weighted += unnormalised_reasons(evidence.overlap, thresholds)
        reasons += capped_at_caution(weighted) if "fresh_score" in needs else weighted
    reasons += cap_reasons(estimate, thresholds)
    if evidence.own_labels >= thresholds.own_labels:
        return reasons + own_label_reasons(evidence)
    if not has_label_term_support(evidence, thresholds):
        reasons += support_reasons(evidence.support, thresholds)
    if rests_on_judge(evaluation, evidence, log_ratio, thresholds):
        reasons += agreement_reasons(agreement(evaluation.calibration, thresholds))
    if evidence.audit.status != "NOT_CHECKED":
        return reasons + audit_reasons(evidence.audit)
    return reasons + transport_reasons(needs, log_ratio)


def has_label_term_support(evidence: Evidence, thresholds: Thresholds) -> bool:
    """Whether a label term has enough effective labels to correct the calibrator where it has no label."""
    if evidence.weighted_labels is None:
        return False
    count, share = evidence.weighted_labels
    return count * share >= thresholds.weighted_labels and share >= thresholds.ess_refuse


def rests_on_judge(evaluation: Evaluation, evidence: Evidence, log_ratio: np.ndarray, thresholds: Thresholds) -> bool:
    """Whether the value of a target depends on judge scores alone, without even a passed audit."""
    return evidence.audit.status != "PASS" and lacks_labels(evaluation, evidence, log_ratio, thresholds)


def lacks_labels(evaluation: Evaluation, evidence: Evidence, log_ratio: np.ndarray, thresholds: Thresholds) -> bool:
    """Whether no labels enter the difference of a target's value to the base's, so that it depends on judge scores alone.

    Labels that count are those of its own responses that correct the estimate, and weighted labels of the base: a label term,
    and rewards that are labels. A target whose log ratios are all zero gives the base's responses.
    """
    module = estimators.get(evaluation.estimator)
    if evaluation.calibration.mode == "none":  # refused for that
        return False
    if evidence.own_labels or has_label_term_support(evidence, thresholds):
        return False
    if "log_ratio" not in module.NEEDS:
        return True
    if evaluation.labels_are_rewards and evidence.overlap.raw.ess_share >= thresholds.ess_refuse:
        return False
    return "fresh_score" in module.NEEDS or bool((log_ratio[~np.isnan(log_ratio)] != 0).any())


def corrected_by_own(evaluation: Evaluation) -> str:
    """The estimate that labels of a target's own responses correct: THIS, DIRECT or JOINT."""
    label_term = has_label_term(estimators.get(evaluation.estimator), evaluation.options)
    if not estimators.needs_draws(evaluation.estimator) or label_term:
        return DIRECT
    return JOINT if evaluation.options.correction == "none" else THIS


def agreement_reasons(judge_oracle: Agreement) -> tuple[Reason, ...]:
    """Whether the labels show a correlation of judge and oracle, for a value that depends on judge scores alone."""
    if judge_oracle.labels_alike:
        text = f"the correlation of judge and oracle is unknown: the labels of all {judge_oracle.n_prompts} prompts are equal"
        return (Reason("judge_unproven", text, "caution"),)
    if judge_oracle.is_sufficient:
        return ()
    meaning = "judge scores cannot show how this policy differs from the base"
    if np.isnan(judge_oracle.correlation):
        text = f"the judge gave all labelled responses the same score: {meaning}"
    else:
        text = (
            f"no significant correlation of judge and oracle: Spearman {judge_oracle.correlation:.2f} on "
            f"{judge_oracle.n_prompts} labelled prompts (minimum {judge_oracle.needed:.2f}): {meaning}"
        )
    return (Reason("judge_uninformative", text, "refuse"),)


def own_label_reasons(evidence: Evidence) -> tuple[Reason, ...]:
    """States that labels of the policy's own responses correct the calibration."""
    text = (
        f"{evidence.own_labels} labels of this policy's own responses correct the estimate; they differ from the "
        f"calibration by {evidence.audit.delta:+.3f} on average"
    )
    return (Reason("own_labels", text),)


def capped_at_caution(reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """The same reasons with `refuse` lowered to `caution`, and a caution about the effective share to `ok`.

    For an estimator that uses fresh draws besides the weights.
    """

    def lowered(reason: Reason) -> Reason:
        if reason.level == "refuse":
            return Reason(
                reason.code, f"{reason.sentence}; the fresh draws of this estimate need no overlap", "caution"
            )
        return replace(reason, level=LOWER_LEVEL[reason.level]) if reason.code == "low_ess" else reason

    return tuple(map(lowered, reasons))


def left_out_reasons(n_used: int, n: int, needs: tuple[str, ...], thresholds: Thresholds) -> tuple[Reason, ...]:
    """States how many rows the estimate does not use; with many left out it is the value on other prompts than the rest."""
    if n_used == n:
        return ()
    lacking = " or ".join({"log_ratio": "log probabilities", "fresh_score": "a fresh draw"}[need] for need in needs)
    are, they_lack = ("is", "it lacks") if n - n_used == 1 else ("are", "they lack")
    text = f"{n - n_used} of {n} rows {are} left out because {they_lack} {lacking}"
    if (n - n_used) / n <= thresholds.left_out_caution:
        return (Reason("rows_left_out", text),)
    limit = f"caution above {100 * thresholds.left_out_caution:.0f} %"
    text = f"{text} ({limit}): the estimate describes the remaining rows only"
    return (Reason("rows_left_out", text, "caution"),)


def overlap_reasons(overlap: Overlap, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Checks of the raw importance weights."""
    raw, t = overlap.raw, thresholds
    meaning = f"the logged responses are {'too' if raw.ess_share < t.ess_refuse else 'rather'} unlike this policy's"
    reasons = _low_value_reasons("low_ess", "raw ESS", raw.ess_share, meaning, t.ess_refuse, t.ess_caution, PERCENT)
    if raw.near_zero_share > t.near_zero_refuse:
        text = (
            f"{100 * raw.near_zero_share:.1f} % of the raw weights are practically 0 (maximum "
            f"{100 * t.near_zero_refuse:.0f} %): this policy would almost never give these responses"
        )
        reasons.append(Reason("near_zero_weights", text, "refuse"))
    if raw.tail_index < t.tail_caution:
        text = (
            f"a few very large raw weights determine the estimate (Hill's tail index {raw.tail_index:.2f}, caution below "
            f"{t.tail_caution:g})"
        )
        reasons.append(Reason("heavy_tail", text, "caution"))
    if raw.top5_mass > t.top5_caution and raw.cv > t.cv_caution:
        text = (
            f"the largest 5 % of the raw weights are {100 * raw.top5_mass:.0f} % of their sum (caution above "
            f"{100 * t.top5_caution:.0f} %): few logged responses determine the estimate"
        )
        reasons.append(Reason("concentrated_weights", text, "caution"))
    if abs(overlap.mean_weight_z) > t.mean_weight_z:
        text = (
            f"mean raw weight {overlap.mean_weight:.3g} instead of 1, a difference of {abs(overlap.mean_weight_z):.1f} "
            f"standard errors (caution above {t.mean_weight_z:g}): the log probabilities are inconsistent, or this policy gives "
            "responses that the base never gives"
        )
        reasons.append(Reason("mean_weight_off", text, "caution"))
    return tuple(reasons)


def unnormalised_reasons(overlap: Overlap, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Checks of weights that are not normalised to mean one: a few large ones can shift the estimate."""
    t, reasons = thresholds, []
    if overlap.raw.tail_index < t.tail_refuse:
        text = (
            f"the raw weights have infinite variance (Hill's tail index {overlap.raw.tail_index:.2f}, minimum "
            f"{t.tail_refuse:g}), and this estimator does not normalise them"
        )
        reasons.append(Reason("infinite_variance", text, "refuse"))
    if not abs(overlap.mean_weight - 1) <= t.mean_weight_refuse:
        text = (
            f"mean raw weight {overlap.mean_weight:.3g} instead of 1 (allowed: 1 ± {t.mean_weight_refuse:g}), and this estimator "
            "does not normalise the weights"
        )
        reasons.append(Reason("mean_weight_not_one", text, "refuse"))
    return tuple(reasons)


def cap_reasons(estimate: Estimate, thresholds: Thresholds) -> tuple[Reason, ...]:
    """States how far the cap on the weights moved the value, relative to its standard error."""
    if not estimate.bias:
        return ()
    text = (
        f"capping the weights shifts the estimate by {estimate.bias:+.3f} (caution above {thresholds.cap_bias_caution:g} × its "
        f"standard error, {estimate.spread:.3f}); the interval includes this shift"
    )
    level = "caution" if abs(estimate.bias) > thresholds.cap_bias_caution * estimate.spread else "ok"
    return (Reason("variance_capped", text, level),)


def support_reasons(support: Support, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Checks of the labels that support a policy."""
    t, meaning = thresholds, "too few labelled responses have judge scores like this policy's"
    unsupported = f"{100 * support.unsupported:.1f} % of its responses have scores without any label"
    share = _low_value_reasons(
        "unsupported_labels",
        "effective share of the labels",
        support.share,
        f"most labelled responses have other judge scores than this policy's; {unsupported}",
        t.label_share_refuse,
        t.label_share_caution,
        PERCENT,
    )
    few = _low_value_reasons(
        "few_effective_labels",
        "effective labels",
        support.effective_labels,
        meaning,
        t.effective_labels_refuse,
        t.effective_labels_caution,
    )
    return (*share, *few)


def calibration_reasons(diagnostics: CalibrationDiagnostics, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Checks of the oracle slice and the judge, the same for every policy."""
    if diagnostics.mode == "none":
        text = "judge scores are used without calibration: estimate and interval describe the judge's scores, not oracle labels"
        return (Reason("uncalibrated_rewards", text, "refuse"),)
    t, meaning = thresholds, "too few to calibrate judge scores reliably"
    reasons = _low_value_reasons(
        "few_labels", "oracle labels", diagnostics.n_labels, meaning, t.labels_refuse, t.labels_caution
    )
    if np.isnan(diagnostics.spearman):
        text = "the correlation of judge and oracle is unknown: all labelled responses have the same score, or the same label"
        reasons.append(Reason("weak_judge", text, "caution"))
    elif diagnostics.spearman < t.spearman_caution:
        text = f"weak correlation of judge and oracle: Spearman {diagnostics.spearman:.2f} (caution below {t.spearman_caution:g})"
        reasons.append(Reason("weak_judge", text, "caution"))
    return (*reasons, *diagnostics.reasons)


def bootstrap_reasons(evaluation: Evaluation, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Bootstrap intervals are too short with few labels: a monotone fit overfits them, so resampled residuals are too small."""
    labels = len(evaluation.calibration.label)
    if evaluation.options.inference != "bootstrap" or labels >= thresholds.bootstrap_caution:
        return ()
    limit = thresholds.bootstrap_caution
    text = f"bootstrap intervals are too short with {labels} labels (caution below {limit:g})"
    return (Reason("bootstrap_too_short", text, "caution"),)


def audit_reasons(audit: Audit) -> tuple[Reason, ...]:
    """Result of the transport audit: labels of the policy's own responses against the calibration."""
    low, high = audit.interval
    text = (
        f"{audit.n_labels} labels of this policy's own responses differ from {audit.against} by {audit.delta:+.3f} on average "
        f"(interval {low:+.3f} to {high:+.3f})"
    )
    if audit.status == "PASS":
        return (Reason("transport_passed", f"{text}: bias within ±{audit.margin:g} is established"),)
    if audit.status == "FAIL":
        certain = low > audit.margin or high < -audit.margin
        finding = f"the bias is {'' if certain else 'probably '}above {audit.margin:g}"
        return (Reason("transport_failed", f"{text}: {finding}", "refuse"),)
    finding = f"bias within ±{audit.margin:g} is not established"
    return (Reason("transport_inconclusive", f"{text}: {finding}", "caution"),)


def transport_reasons(needs: tuple[str, ...], log_ratio: np.ndarray) -> tuple[Reason, ...]:
    """States that transport was not checked: responses of another policy may have other labels at the same score.

    Without fresh draws, and with every log ratio known to be zero, the responses are the base's own.
    """
    if "fresh_score" not in needs and (log_ratio == 0).all():
        return ()
    text = "transport not checked: no labels of this policy's own responses, so its calibration may be biased"
    return (Reason("transport_unverified", text),)


def _low_value_reasons(
    code: str, quantity: str, value: float, meaning: str, refuse: float, caution: float, unit: str = ""
) -> list[Reason]:
    """The reason of a quantity that is below a threshold, empty if it is not; NaN is a caution."""
    if value >= caution and not value < refuse:
        return []
    level, limit = ("refuse", refuse) if value < refuse else ("caution", caution)
    factor = 100 if unit else 1
    numbers = f"{_below(factor * value, factor * limit)}{unit}"
    words = f"{'minimum' if level == 'refuse' else 'caution below'} {factor * limit:g}{unit}"
    return [Reason(code, f"{quantity} {numbers} ({words}): {meaning}", level)]


def _below(value: float, limit: float) -> str:
    """A value with as many decimals as it takes to read as below a limit: 9.96 and a limit of 10 is no "10.0"."""
    texts = (f"{value:.{decimals}f}" for decimals in range(1, 7))
    return next((text for text in texts if float(text) < limit), f"{value:g}").removesuffix(".0")
