"""May an estimate be published? Each line looks at one quantity; the worst line gives the level.

    ok        publish
    caution   publish with the reason beside it
    refuse    do not publish: the number stands on something other than data about this policy

Which lines apply depends on what the estimator stands on. Importance weights answer for overlap, always by the raw
ones, and for what capping them did: fully where they are all there is, as a caution where fresh draws stand beside them.
Calibrated rewards answer for labels, judge and support, those of the base policy too. Transport, the same label at the
same score, is seen by labels of the policy's own draws alone; without them that is a reason which leaves the level as
it is. Enough such labels mend what support and transport would refuse; a label term with overlap mends support, and its
value is held against labels of the policy's own where there are some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arena_cje import estimators
from arena_cje.diagnostics import calibration
from arena_cje.estimation.records import Estimate, Logged, Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arena_cje.diagnostics.calibration import CalibrationDiagnostics
    from arena_cje.diagnostics.evidence import Evidence
    from arena_cje.diagnostics.overlap import Overlap
    from arena_cje.diagnostics.support import Support
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.diagnostics.transport import Audit
    from arena_cje.evaluation.evaluate import Evaluation

SOFTER = {"refuse": "caution", "caution": "ok", "ok": "ok"}  # one level down


def judge(
    evaluation: Evaluation, logged: Logged, evidence: Mapping[str, Evidence], thresholds: Thresholds
) -> dict[str, Verdict]:
    """Verdicts of the base policy and of every target policy, in declared order."""
    shared = calibration_reasons(calibration.diagnose(evaluation.calibration, thresholds), thresholds)
    shared += bootstrap_reasons(evaluation, thresholds)
    base = Verdict(support_reasons(evidence[logged.base_policy].support, thresholds) + shared)
    targets = {
        policy: Verdict(
            _rows(evaluation, policy, logged.log_ratio[:, column])
            or _published(evaluation, evidence[policy], policy, logged.log_ratio[:, column], thresholds) + shared
        )
        for column, policy in enumerate(logged.policies)
    }
    return {logged.base_policy: base} | targets


def _rows(evaluation: Evaluation, policy: str, log_ratio: np.ndarray) -> tuple[Reason, ...]:
    """Why there is no estimate, or none with an interval, if so."""
    estimate, n = evaluation.estimates[policy], len(log_ratio)
    if np.isfinite([estimate.value, estimate.se]).all():
        return ()
    if not estimate.n_used:
        return (Reason("no_rows", f"none of the {n} rows has what the estimator needs", "refuse"),)
    if np.isfinite(estimate.value):
        text = f"a standard error needs usable rows of two prompts, there are {estimate.n_used} of one prompt"
        return (Reason("too_few_rows", text, "refuse"),)
    impossible = int(np.sum(log_ratio == -np.inf))
    return (Reason("no_overlap", f"the target could have given none of {impossible} base responses", "refuse"),)


def _published(
    evaluation: Evaluation, evidence: Evidence, policy: str, log_ratio: np.ndarray, thresholds: Thresholds
) -> tuple[Reason, ...]:
    """Reasons of one policy that has an estimate."""
    needs, estimate = estimators.get(evaluation.estimator).NEEDS, evaluation.estimates[policy]
    reasons = left_out_reasons(estimate.n_used, len(log_ratio), needs)
    if "log_ratio" in needs:
        # Fresh draws carry a doubly robust estimate where the weights do not.
        weighted = overlap_reasons(evidence.overlap, thresholds)
        if not estimators.normalised(evaluation.estimator):
            weighted += unnormalised_reasons(evidence.overlap, thresholds)
        reasons += softened(weighted) if "fresh_score" in needs else weighted
    reasons += cap_reasons(estimate, thresholds)
    if evidence.own_labels >= thresholds.own_labels:
        return reasons + own_label_reasons(evidence)
    if not carried(evidence, thresholds):
        reasons += support_reasons(evidence.support, thresholds)
    if evidence.audit.status != "NOT_CHECKED":
        return reasons + audit_reasons(evidence.audit)
    return reasons + transport_reasons(needs, log_ratio)


def carried(evidence: Evidence, thresholds: Thresholds) -> bool:
    """Does a label term see enough effective labels to make up for what the calibrator says where it has none?"""
    if evidence.weighted_labels is None:
        return False
    count, share = evidence.weighted_labels
    return count * share >= thresholds.weighted_labels and share >= thresholds.ess_refuse


def own_label_reasons(evidence: Evidence) -> tuple[Reason, ...]:
    """Says that labels of the policy's own responses stand in for the calibrator's hold on them."""
    count, by = evidence.own_labels, f"{evidence.audit.delta:+.3f}"
    text = f"labels of {count} of this policy's own responses correct the calibration by {by}"
    return (Reason("own_labels", text),)


def softened(reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """The same reasons, no longer refusing; low overlap above the threshold of refusal only informs."""
    return tuple(
        Reason(reason.code, reason.sentence, "caution" if reason.level == "refuse" else _kept(reason))
        for reason in reasons
    )


def _kept(reason: Reason) -> str:
    return SOFTER[reason.level] if reason.code == "low_ess" else reason.level


def left_out_reasons(n_used: int, n: int, needs: tuple[str, ...]) -> tuple[Reason, ...]:
    """Says how many rows an estimate does without."""
    if n_used == n:
        return ()
    lacking = " or ".join({"log_ratio": "a log ratio", "fresh_score": "a fresh draw"}[need] for need in needs)
    return (Reason("rows_left_out", f"{n - n_used} of {n} rows are left out for want of {lacking}"),)


def overlap_reasons(found: Overlap, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Lines about raw importance weights."""
    raw, t = found.raw, thresholds
    text = f"raw weights make {raw.ess_share:.1%} of the rows effective"
    reasons = _too_low("low_ess", raw.ess_share, text, t.ess_refuse, t.ess_caution, ".0%")
    if raw.near_zero_share > t.near_zero_refuse:
        text = f"{raw.near_zero_share:.1%} of raw weights are practically zero (refuse > {t.near_zero_refuse:.0%})"
        reasons.append(Reason("near_zero_weights", text, "refuse"))
    if raw.tail_index < t.tail_caution:
        text = f"the raw weights' tail index is {raw.tail_index:.2f}: below {t.tail_caution:g} their mean is infinite"
        reasons.append(Reason("heavy_tail", text, "caution"))
    if raw.top5_mass > t.top5_caution and raw.cv > t.cv_caution:
        text = f"5 % of the rows carry {raw.top5_mass:.0%} of the raw weight (coefficient of variation {raw.cv:.1f})"
        reasons.append(Reason("concentrated_weights", text, "caution"))
    if abs(found.mean_weight_z) > t.mean_weight_z:
        text = (
            f"raw weights average {found.mean_weight:.3g} where 1 is expected, {abs(found.mean_weight_z):.1f} standard "
            "errors off: log probabilities disagree, or the target says what the base never says"
        )
        reasons.append(Reason("mean_weight_off", text, "caution"))
    return tuple(reasons)


def unnormalised_reasons(found: Overlap, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Lines about weights that are not made to average to one: nothing takes out what a few rows do to their mean."""
    t, instead = thresholds, "this estimator does not normalise them; choose 'snips' or 'calibrated-ips'"
    reasons = []
    if found.raw.tail_index < t.tail_refuse:
        text = f"the raw weights' tail index is {found.raw.tail_index:.2f} (refuse < {t.tail_refuse:g})"
        reasons.append(Reason("infinite_variance", f"{text}: their variance is infinite, and {instead}", "refuse"))
    if not abs(found.mean_weight - 1) <= t.mean_weight_refuse:
        text = f"raw weights average {found.mean_weight:.3g} (refuse beyond 1 ± {t.mean_weight_refuse:g})"
        reasons.append(Reason("mean_weight_not_one", f"{text}, and {instead}", "refuse"))
    return tuple(reasons)


def cap_reasons(estimate: Estimate, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Says where capping the weights moved the value, and how far beside its noise."""
    if not estimate.bias:
        return ()
    text = (
        f"the cap on the weights' variance moves the estimate by {estimate.bias:+.3f}, where its standard error is "
        f"{estimate.spread:.3f} without that (caution > {thresholds.cap_bias_caution:g} times it); the interval allows for it"
    )
    level = "caution" if abs(estimate.bias) > thresholds.cap_bias_caution * estimate.spread else "ok"
    return (Reason("variance_capped", text, level),)


def support_reasons(found: Support, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Lines about the labels that speak for a policy."""
    t, count = thresholds, found.effective_labels
    text = f"{found.share:.1%} of the labels speak for this policy, {found.unsupported:.1%} of its scores have none"
    share = _too_low("unsupported_labels", found.share, text, t.label_share_refuse, t.label_share_caution, ".0%")
    text = f"{count:.1f} effective labels for this policy"
    few = _too_low("few_effective_labels", count, text, t.effective_labels_refuse, t.effective_labels_caution)
    return (*share, *few)


def calibration_reasons(found: CalibrationDiagnostics, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Lines about the oracle slice and the judge, the same for every policy."""
    if found.mode == "none":
        text = "judge scores are taken as they are: the interval says what the judge thinks, not what the oracle would"
        return (Reason("uncalibrated_rewards", text, "refuse"),)
    t, labels = thresholds, f"{found.n_labels} oracle labels"
    reasons = _too_low("few_labels", found.n_labels, labels, t.labels_refuse, t.labels_caution)
    if not found.spearman >= t.spearman_caution:
        text = f"judge and oracle agree weakly: Spearman {found.spearman:.2f} (caution < {t.spearman_caution:g})"
        reasons.append(Reason("weak_judge", text, "caution"))
    return (*reasons, *found.reasons)


def bootstrap_reasons(evaluation: Evaluation, thresholds: Thresholds) -> tuple[Reason, ...]:
    """A monotone fit follows the noise of few labels, and what is left to draw again is too small."""
    labels = len(evaluation.calibration.label)
    if evaluation.options.inference != "bootstrap" or labels >= thresholds.bootstrap_caution:
        return ()
    limit = thresholds.bootstrap_caution
    text = f"bootstrap intervals are too short with {labels} labels (caution < {limit:g}); use the jackknife"
    return (Reason("bootstrap_too_short", text, "caution"),)


def audit_reasons(found: Audit) -> tuple[Reason, ...]:
    """What labels of the policy's own responses say about the calibration."""
    low, high = found.interval
    text = (
        f"{found.n_labels} labels of this policy's own responses lie {found.delta:+.3f} from what {found.against} says, "
        f"between {low:+.3f} and {high:+.3f}"
    )
    if found.status == "PASS":
        return (Reason("transport_passed", f"{text}: within {found.margin:g}"),)
    if found.status == "FAIL":
        known = low > found.margin or high < -found.margin
        return (
            Reason(
                "transport_failed", f"{text}: {'' if known else 'most likely '}more than {found.margin:g} off", "refuse"
            ),
        )
    return (Reason("transport_inconclusive", f"{text}: not known to be within {found.margin:g}", "caution"),)


def transport_reasons(needs: tuple[str, ...], log_ratio: np.ndarray) -> tuple[Reason, ...]:
    """Responses other than the base's own may be labelled otherwise at the same score; nothing here has looked.

    Without fresh draws, and with every log ratio known to be zero, the responses are the base's own.
    """
    if "fresh_score" not in needs and (log_ratio == 0).all():
        return ()
    text = "whether the calibration holds for this policy is not checked by labels of its own responses"
    return (Reason("transport_unverified", text),)


def _too_low(code: str, value: float, sentence: str, refuse: float, caution: float, form: str = "g") -> list[Reason]:
    """The reason of a quantity that ought to be large, if there is one; unknown is a caution."""
    if value >= caution and not value < refuse:
        return []
    limits = f"(refuse < {refuse:{form}}, caution < {caution:{form}})"
    return [Reason(code, f"{sentence} {limits}", "refuse" if value < refuse else "caution")]
