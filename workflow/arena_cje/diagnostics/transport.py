"""Transport audit: does the calibration hold for a policy, by labels of its own responses?

    delta = mean_{labelled draws} (Y' - f^(-k)(S')),   interval at level 1 - alpha / number of audited policies

An equivalence test, so that few labels cannot pass: PASS when the interval lies inside +-margin and enough effective
prompts are labelled; FAIL when it lies wholly outside, or when delta itself does and is not zero at the level of suspicion,
which happens to a calibration that holds in three cases of a hundred; INCONCLUSIVE otherwise; NOT_CHECKED without labels. The
interval has the prompts' variance and the calibrator's, and is a t interval. All four numbers are in `thresholds`.

Schuirmann (1987), "A comparison of the two one-sided tests procedure and the power approach", Journal of
Pharmacokinetics and Biopharmaceutics; Kish (1965), "Survey Sampling", for effective prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.calibration import Calibration, rewards
from arena_cje.estimation.fresh import MIN_OWN, labelled_prompts, own_share
from arena_cje.estimation.label_floor import event_size, least_error
from arena_cje.estimation.records import Draws, Estimate, Floor, Logged, effective_number

if TYPE_CHECKING:
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Audit:
    """Distance of the labels of a policy's own draws from the calibrated rewards."""

    status: str  # PASS, FAIL, INCONCLUSIVE, NOT_CHECKED
    delta: float
    interval: tuple[float, float]
    n_labels: int
    effective_prompts: float
    margin: float
    against: str = "the calibration"  # what the labels are compared with


def shift(calibration: Calibration, draws: Draws, cluster: np.ndarray) -> Estimate:
    """Mean held-out residual of a policy's own labelled draws; clusters (n,) are prompt codes."""
    label, judged = draws.scored_label, draws.judged
    labelled = ~np.isnan(label)  # (n, m)
    used = labelled.any(axis=1)
    share = own_share(draws.judge_score, label, draws.label_weight)[used]  # (u, m)

    def residual(reward: np.ndarray) -> np.ndarray:
        """Label minus reward (u, m), zero where there is no label."""
        return np.where(labelled[used], label[used] - reward, 0.0)

    held_out = residual(calibration.held_out(judged[used], calibration.fold[used]))  # (u, m)
    delta = np.sum(share * held_out)
    influence = np.zeros(len(used))
    influence[used] = (share * (held_out - delta)).sum(axis=1) * len(used)
    jackknife = [np.sum(share * residual(rewards(calibrator, judged[used]))) for calibrator in calibration.jackknife]
    labels = label[labelled]
    event = event_size(residual(rewards(calibration.full, judged[used]))[labelled[used]], labels)
    least = least_error(np.bincount(cluster[used], weights=share.sum(axis=1)), event)
    return Estimate(float(delta), influence, cluster, np.array(jackknife), used, floor=Floor(value=least))


def label_shift(evaluation: Evaluation, logged: Logged, policy: str) -> Estimate:
    """What a label term adds to the value of a policy: the weighted mean residual of the labelled base responses."""
    fitted, used = evaluation.calibration, evaluation.estimates[policy].used
    weight = evaluation.weights[policy].raw / evaluation.weights[policy].raw[used].mean()
    labelled = used & logged.labelled
    scale = weight[labelled] * used.sum() / labelled.sum()
    if logged.label_weight is not None:
        scale = scale * logged.label_weight[labelled] / logged.label_weight[labelled].mean()

    def weighted_residual(reward: np.ndarray) -> np.ndarray:
        """Weighted label minus reward of the labelled rows."""
        return scale * (logged.oracle_label[labelled] - reward)

    judged = logged.judged[labelled]
    influence = np.zeros(len(used))
    influence[labelled] = weighted_residual(fitted.held_out(judged, fitted.fold[labelled])) * len(used) / used.sum()
    value = float(influence.mean())
    influence[used] -= influence[used].mean()
    jackknife = [weighted_residual(rewards(calibrator, judged)).sum() / used.sum() for calibrator in fitted.jackknife]
    return Estimate(value, influence, evaluation.base.cluster, np.array(jackknife), used)


def audit(
    evaluation: Evaluation,
    logged: Logged,
    draws: Draws | None,
    thresholds: Thresholds,
    *,
    family: int,
    label_term: bool = False,
) -> Audit:
    """The audit of one policy among `family` policies with labels of their own, after the correction by a label term."""
    nan, margin = float("nan"), thresholds.transport_margin
    if draws is None or np.isnan(draws.scored_label).all():
        return Audit("NOT_CHECKED", nan, (nan, nan), 0, 0.0, margin)
    cluster = evaluation.base.cluster
    residual, against = shift(evaluation.calibration, draws, cluster), "the calibration"
    if label_term:
        residual = residual - label_shift(evaluation, logged, draws.policy)
        against = "the calibration with the label term"
    factor = _widening(residual, evaluation.calibration, labelled_prompts(draws.scored_label, cluster))
    (low, high), (inner_low, inner_high) = (
        [residual.value + factor * (end - residual.value) for end in residual.interval(level / family)]
        for level in (thresholds.transport_alpha, thresholds.transport_suspicion)
    )
    _, first_rows = np.unique(cluster, return_index=True)  # a prompt's draws are repeated for each of its rows
    labels = ~np.isnan(draws.scored_label[first_rows])
    prompts = (labels if draws.label_weight is None else draws.label_weight[first_rows]).sum(axis=1).astype(float)
    effective = effective_number(prompts)
    if low > margin or high < -margin or (abs(residual.value) > margin and inner_low * inner_high > 0):
        status = "FAIL"
    elif -margin < low and high < margin and effective >= thresholds.transport_prompts:
        status = "PASS"
    else:
        status = "INCONCLUSIVE"
    return Audit(status, residual.value, (low, high), int(labels.sum()), effective, margin, against)


def _widening(residual: Estimate, calibration: Calibration, prompts: int) -> float:
    """The factor by which the interval is widened with few prompts, where coarse labels may agree by chance.

    The variance of the residuals is then at least that of the oracle slice's.
    """
    if prompts >= MIN_OWN or not residual.se > 0 or not len(calibration.label):
        return 1.0
    held_out = calibration.held_out(calibration.slice.judged, calibration.slice_fold)
    least = np.mean((calibration.label - held_out) ** 2) / prompts
    return float(np.sqrt(1 + max(0.0, least - residual.sampling_variance) / residual.se**2))
