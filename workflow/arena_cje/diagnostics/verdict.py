"""Verdicts: whether an estimate may be published. Each check looks at one quantity; the worst one gives the level.

    ok        publish
    caution   publish with the reason beside it
    refuse    do not publish: the number is not supported by data about this policy

Which checks apply depends on the estimator. Importance weights are checked for overlap, always with the raw weights, and
for the bias of their cap; a failure refuses an estimate by weights alone, and is a caution where fresh draws are used too.
Calibrated rewards are checked for labels, judge and support, those of the base policy too. Transport (the same mean label
at the same score) can be checked only with labels of the policy's own draws; without them a reason says so and leaves the
level as it is. With enough such labels, support and transport are not checked, since the labels correct the estimate. A
label term with enough effective labels replaces the check of support; its value is compared with labels of the policy's
own draws where there are some. A value that rests on the judge alone is refused where the labels do not show that judge and
oracle go together: the calibrator then gives every policy the value of the base.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arena_cje import estimators
from arena_cje.diagnostics import calibration
from arena_cje.diagnostics.agreement import agreement
from arena_cje.estimation.records import Estimate, Logged, Reason, Verdict

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
            text = f"no row has a log probability under {policy} and the base: add it to target_policy_logprobs"
        else:
            text = f"no row has what the estimator needs: add fresh draws of {policy} ({policy}.jsonl in fresh_draws)"
        return (Reason("no_rows", text, "refuse"),)
    if np.isfinite(estimate.value):
        text = f"a standard error needs usable rows of two prompts, there are {estimate.n_used} of one prompt"
        return (Reason("too_few_rows", text, "refuse"),)
    impossible = int(np.sum(log_ratio == -np.inf))
    return (Reason("no_overlap", f"the target could have given none of {impossible} base responses", "refuse"),)


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
    """Whether nothing but the judge tells the value of a target from that of the base policy, not even a passed audit."""
    return evidence.audit.status != "PASS" and lacks_labels(evaluation, evidence, log_ratio, thresholds)


def lacks_labels(evaluation: Evaluation, evidence: Evidence, log_ratio: np.ndarray, thresholds: Thresholds) -> bool:
    """Whether the value of a target has no part that labels speak for, so that the judge alone tells it from the base's.

    Labels of its own that correct the estimate tell it too, and so do weighted labels of the base: a label term, and rewards
    that are labels. A target whose log ratios are all zero gives the base's responses.
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


def agreement_reasons(judge_oracle: Agreement) -> tuple[Reason, ...]:
    """Whether judge and oracle go together, for a value that rests on the judge."""
    if judge_oracle.labels_alike:
        text = (
            f"all labels of {judge_oracle.n_prompts} prompts are alike: nothing shows that judge and oracle go together"
        )
        return (Reason("judge_unproven", text, "caution"),)
    if judge_oracle.shown:
        return ()
    advice = "its scores carry no value from the base policy to this one: label some of this policy's own responses"
    if np.isnan(judge_oracle.correlation):
        return (
            Reason("judge_uninformative", f"the judge gave all labelled responses the same score; {advice}", "refuse"),
        )
    text = (
        f"the labels do not show that judge and oracle go together (Spearman {judge_oracle.correlation:.2f} over "
        f"{judge_oracle.n_prompts} labelled prompts, refuse <= {judge_oracle.needed:.2f})"
    )
    return (Reason("judge_uninformative", f"{text}; {advice}", "refuse"),)


def own_label_reasons(evidence: Evidence) -> tuple[Reason, ...]:
    """States that labels of the policy's own responses correct the calibration."""
    count, correction = evidence.own_labels, f"{evidence.audit.delta:+.3f}"
    text = f"labels of {count} of this policy's own responses correct the calibration by {correction}"
    return (Reason("own_labels", text),)


def capped_at_caution(reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """The same reasons with `refuse` lowered to `caution`, and a caution about the effective share to `ok`."""
    return tuple(
        Reason(reason.code, reason.sentence, LOWER_LEVEL[reason.level])
        if reason.level == "refuse" or reason.code == "low_ess"
        else reason
        for reason in reasons
    )


def left_out_reasons(n_used: int, n: int, needs: tuple[str, ...], thresholds: Thresholds) -> tuple[Reason, ...]:
    """States how many rows the estimate does not use; with many left out it is the value on other prompts than the rest."""
    if n_used == n:
        return ()
    lacking = " or ".join({"log_ratio": "a log ratio", "fresh_score": "a fresh draw"}[need] for need in needs)
    text = f"{n - n_used} of {n} rows are left out for want of {lacking}"
    if (n - n_used) / n <= thresholds.left_out_caution:
        return (Reason("rows_left_out", text),)
    text = f"{text} (caution > {thresholds.left_out_caution:.0%}): the value is that of the other prompts"
    return (Reason("rows_left_out", text, "caution"),)


def overlap_reasons(overlap: Overlap, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Checks of the raw importance weights."""
    raw, t = overlap.raw, thresholds
    text = f"raw weights make {raw.ess_share:.1%} of the rows effective"
    reasons = _low_value_reasons("low_ess", raw.ess_share, text, t.ess_refuse, t.ess_caution, ".0%")
    if raw.near_zero_share > t.near_zero_refuse:
        text = f"{raw.near_zero_share:.1%} of raw weights are practically zero (refuse > {t.near_zero_refuse:.0%})"
        reasons.append(Reason("near_zero_weights", text, "refuse"))
    if raw.tail_index < t.tail_caution:
        text = f"the raw weights' tail index is {raw.tail_index:.2f}: below {t.tail_caution:g} their mean is infinite"
        reasons.append(Reason("heavy_tail", text, "caution"))
    if raw.top5_mass > t.top5_caution and raw.cv > t.cv_caution:
        text = f"5 % of the rows carry {raw.top5_mass:.0%} of the raw weight (coefficient of variation {raw.cv:.1f})"
        reasons.append(Reason("concentrated_weights", text, "caution"))
    if abs(overlap.mean_weight_z) > t.mean_weight_z:
        text = (
            f"raw weights average {overlap.mean_weight:.3g} where 1 is expected, {abs(overlap.mean_weight_z):.1f} standard "
            "errors off: log probabilities disagree, or the target says what the base never says"
        )
        reasons.append(Reason("mean_weight_off", text, "caution"))
    return tuple(reasons)


def unnormalised_reasons(overlap: Overlap, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Checks of weights that are not normalised to mean one: a few large ones can shift the estimate."""
    t, advice = thresholds, "this estimator does not normalise them; choose 'snips' or 'calibrated-ips'"
    reasons = []
    if overlap.raw.tail_index < t.tail_refuse:
        text = f"the raw weights' tail index is {overlap.raw.tail_index:.2f} (refuse < {t.tail_refuse:g})"
        reasons.append(Reason("infinite_variance", f"{text}: their variance is infinite, and {advice}", "refuse"))
    if not abs(overlap.mean_weight - 1) <= t.mean_weight_refuse:
        text = f"raw weights average {overlap.mean_weight:.3g} (refuse beyond 1 ± {t.mean_weight_refuse:g})"
        reasons.append(Reason("mean_weight_not_one", f"{text}, and {advice}", "refuse"))
    return tuple(reasons)


def cap_reasons(estimate: Estimate, thresholds: Thresholds) -> tuple[Reason, ...]:
    """States how far the cap on the weights moved the value, relative to its standard error."""
    if not estimate.bias:
        return ()
    text = (
        f"the cap on the weights' variance moves the estimate by {estimate.bias:+.3f}, where its standard error is "
        f"{estimate.spread:.3f} without that (caution > {thresholds.cap_bias_caution:g} times it); the interval allows for it"
    )
    level = "caution" if abs(estimate.bias) > thresholds.cap_bias_caution * estimate.spread else "ok"
    return (Reason("variance_capped", text, level),)


def support_reasons(support: Support, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Checks of the labels that support a policy."""
    t, count = thresholds, support.effective_labels
    text = f"{support.share:.1%} of the labels speak for this policy, {support.unsupported:.1%} of its scores have none"
    share = _low_value_reasons(
        "unsupported_labels", support.share, text, t.label_share_refuse, t.label_share_caution, ".0%"
    )
    text = f"{count:.1f} effective labels for this policy"
    few = _low_value_reasons("few_effective_labels", count, text, t.effective_labels_refuse, t.effective_labels_caution)
    return (*share, *few)


def calibration_reasons(diagnostics: CalibrationDiagnostics, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Checks of the oracle slice and the judge, the same for every policy."""
    if diagnostics.mode == "none":
        text = "judge scores are taken as they are: the interval says what the judge thinks, not what the oracle would"
        return (Reason("uncalibrated_rewards", text, "refuse"),)
    t, labels = thresholds, f"{diagnostics.n_labels} oracle labels"
    reasons = _low_value_reasons("few_labels", diagnostics.n_labels, labels, t.labels_refuse, t.labels_caution)
    if np.isnan(diagnostics.spearman):
        text = "whether judge and oracle agree cannot be seen: all scores or all labels of the slice are alike"
        reasons.append(Reason("weak_judge", text, "caution"))
    elif diagnostics.spearman < t.spearman_caution:
        text = f"judge and oracle agree weakly: Spearman {diagnostics.spearman:.2f} (caution < {t.spearman_caution:g})"
        reasons.append(Reason("weak_judge", text, "caution"))
    return (*reasons, *diagnostics.reasons)


def bootstrap_reasons(evaluation: Evaluation, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Bootstrap intervals are too short with few labels: a monotone fit overfits them, so resampled residuals are too small."""
    labels = len(evaluation.calibration.label)
    if evaluation.options.inference != "bootstrap" or labels >= thresholds.bootstrap_caution:
        return ()
    limit = thresholds.bootstrap_caution
    text = f"bootstrap intervals are too short with {labels} labels (caution < {limit:g}); use the jackknife"
    return (Reason("bootstrap_too_short", text, "caution"),)


def audit_reasons(audit: Audit) -> tuple[Reason, ...]:
    """Result of the transport audit: labels of the policy's own responses against the calibration."""
    low, high = audit.interval
    text = (
        f"{audit.n_labels} labels of this policy's own responses lie {audit.delta:+.3f} from what {audit.against} says, "
        f"between {low:+.3f} and {high:+.3f}"
    )
    if audit.status == "PASS":
        return (Reason("transport_passed", f"{text}: within {audit.margin:g}"),)
    if audit.status == "FAIL":
        outside = low > audit.margin or high < -audit.margin
        return (
            Reason(
                "transport_failed",
                f"{text}: {'' if outside else 'most likely '}more than {audit.margin:g} off",
                "refuse",
            ),
        )
    return (Reason("transport_inconclusive", f"{text}: not known to be within {audit.margin:g}", "caution"),)


def transport_reasons(needs: tuple[str, ...], log_ratio: np.ndarray) -> tuple[Reason, ...]:
    """States that transport was not checked: responses of another policy may have other labels at the same score.

    Without fresh draws, and with every log ratio known to be zero, the responses are the base's own.
    """
    if "fresh_score" not in needs and (log_ratio == 0).all():
        return ()
    text = "whether the calibration holds for this policy is not checked by labels of its own responses"
    return (Reason("transport_unverified", text),)


def _low_value_reasons(
    code: str, value: float, sentence: str, refuse: float, caution: float, form: str = "g"
) -> list[Reason]:
    """The reason of a quantity that is below a threshold, empty if it is not; NaN is a caution."""
    if value >= caution and not value < refuse:
        return []
    limits = f"(refuse < {refuse:{form}}, caution < {caution:{form}})"
    return [Reason(code, f"{sentence} {limits}", "refuse" if value < refuse else "caution")]
