"""May an estimate be published? Each line looks at one quantity; the worst line gives the level.

    ok        publish
    caution   publish with the reason beside it
    refuse    do not publish: the number stands on something other than data about this policy

Which lines apply depends on what the estimator stands on. Importance weights answer for overlap, always by the raw
ones, and for what capping them did; calibrated rewards answer for labels, judge and support, those of the base policy
too. Transport, the same label at the same score, is not seen in logged data: a target whose responses are not the
base's own carries that as a reason which leaves the level as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType

import numpy as np

from arena_cje.diagnostics import calibration, overlap, support
from arena_cje.diagnostics.calibration import CalibrationDiagnostics
from arena_cje.diagnostics.overlap import Overlap
from arena_cje.diagnostics.support import Support
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.estimation.estimate import Evaluation
from arena_cje.estimation.records import Draws, Estimate, Logged, Reason, Verdict


def judge(
    module: ModuleType,
    evaluation: Evaluation,
    logged: Logged,
    draws: Mapping[str, Draws] | None,
    thresholds: Thresholds,
) -> dict[str, Verdict]:
    """Verdict of every target policy, in declared order."""
    diagnostics = calibration.diagnose(evaluation.calibration)
    shared = calibration_reasons(diagnostics, thresholds)
    return {
        policy: Verdict(
            _rows(evaluation, policy, logged.log_ratio[:, column])
            or _published(module, evaluation, logged, draws or {}, policy, thresholds) + shared
        )
        for column, policy in enumerate(logged.policies)
    }


def judge_base(evaluation: Evaluation, logged: Logged, thresholds: Thresholds) -> Verdict:
    """Verdict of the base policy's own value, which stands on its own labels and the judge."""
    shared = calibration_reasons(calibration.diagnose(evaluation.calibration), thresholds)
    return Verdict(support_reasons(base_support(evaluation, logged), thresholds) + shared)


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
    module: ModuleType,
    evaluation: Evaluation,
    logged: Logged,
    draws: Mapping[str, Draws],
    policy: str,
    thresholds: Thresholds,
) -> tuple[Reason, ...]:
    """Reasons of one policy that has an estimate."""
    log_ratio = logged.log_ratio[:, logged.policies.index(policy)]
    reasons = left_out_reasons(evaluation.n_used[policy], len(log_ratio), module.NEEDS)
    if "log_ratio" in module.NEEDS:
        found = overlap.diagnose(evaluation.weights[policy], log_ratio, evaluation.base.cluster)
        reasons += overlap_reasons(found, thresholds)
    reasons += cap_reasons(evaluation.estimates[policy], thresholds)
    spoken_for = target_support(module, evaluation, logged, draws, policy)
    return reasons + support_reasons(spoken_for, thresholds) + transport_reasons(module.NEEDS, log_ratio)


def target_support(
    module: ModuleType, evaluation: Evaluation, logged: Logged, draws: Mapping[str, Draws], policy: str
) -> Support:
    """Labels that speak for a target."""
    score, weight = target_scores(module, evaluation, logged, draws, policy)
    return support.effective_labels(evaluation.calibration.score, score, weight)


def target_scores(
    module: ModuleType, evaluation: Evaluation, logged: Logged, draws: Mapping[str, Draws], policy: str
) -> tuple[np.ndarray, np.ndarray]:
    """Judge scores that stand for a target and their weights: its fresh draws where it uses them, else weighted rows."""
    if "fresh_score" in module.NEEDS:
        fresh = draws[policy].judge_score  # (n, m)
        return fresh.reshape(-1), support.once_a_prompt(fresh).reshape(-1)
    return logged.judge_score, evaluation.weights[policy].raw


def base_support(evaluation: Evaluation, logged: Logged) -> Support:
    """Labels that speak for the base policy: its responses are draws of its own, each prompt counts once."""
    cluster = evaluation.base.cluster
    weight = 1 / np.bincount(cluster)[cluster]  # (n,)
    return support.effective_labels(evaluation.calibration.score, logged.judge_score, weight)


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


def cap_reasons(estimate: Estimate, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Says where capping the weights moved the value, and how far beside its noise."""
    if not estimate.bias:
        return ()
    unbiased = math.sqrt(estimate.sampling_variance + estimate.oracle_variance)
    text = (
        f"the cap on the weights' variance moves the estimate by {estimate.bias:+.3f}, where its standard error is "
        f"{unbiased:.3f} without that (caution > {thresholds.cap_bias_caution:g} times it); the interval allows for it"
    )
    level = "caution" if abs(estimate.bias) > thresholds.cap_bias_caution * unbiased else "ok"
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
    t, labels = thresholds, f"{found.n_labels} oracle labels"
    reasons = _too_low("few_labels", found.n_labels, labels, t.labels_refuse, t.labels_caution)
    if not found.spearman >= t.spearman_caution:
        text = f"judge and oracle agree weakly: Spearman {found.spearman:.2f} (caution < {t.spearman_caution:g})"
        reasons.append(Reason("weak_judge", text, "caution"))
    return (*reasons, *found.reasons)


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
