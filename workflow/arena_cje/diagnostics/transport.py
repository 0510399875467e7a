"""Transport audit: does the calibration hold for a policy, by labels of its own responses?

    delta = mean_{labelled draws} (Y' - f^(-k)(S')),   interval at level 1 - alpha / number of audited policies

Judged as an equivalence, so that few labels cannot pass: PASS when the interval lies inside +-margin and enough effective
prompts are labelled; FAIL when it lies wholly outside, or when delta itself does and is not zero at the level of suspicion,
which a calibration that holds meets with in three cases of a hundred; INCONCLUSIVE otherwise; NOT_CHECKED without labels. The
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
from arena_cje.estimation.records import Draws, Estimate, Logged

if TYPE_CHECKING:
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Audit:
    """How far labels of a policy's own draws lie from what the calibrator says of them."""

    status: str  # PASS, FAIL, INCONCLUSIVE, NOT_CHECKED
    delta: float
    interval: tuple[float, float]
    n_labels: int
    effective_prompts: float
    margin: float
    against: str = "the calibration"  # what the labels are held against


def shift(calibration: Calibration, draws: Draws, cluster: np.ndarray) -> Estimate:
    """Mean held-out residual of a policy's own labelled draws; clusters (n,) are prompt codes."""
    label, judged = draws.scored_label, draws.judged
    labelled = ~np.isnan(label)  # (n, m)
    used = labelled.any(axis=1)
    share = own_share(draws.judge_score, label)[used]  # (u, m)

    def residual(reward: np.ndarray) -> np.ndarray:
        return np.where(labelled[used], label[used] - reward, 0.0)

    own = residual(calibration.held_out(judged[used], calibration.fold[used]))  # (u, m)
    delta = np.sum(share * own)
    influence = np.zeros(len(used))
    influence[used] = (share * (own - delta)).sum(axis=1) * len(used)
    without = [np.sum(share * residual(rewards(calibrator, judged[used]))) for calibrator in calibration.jackknife]
    return Estimate(float(delta), influence, cluster, np.array(without), used)


def label_shift(evaluation: Evaluation, logged: Logged, policy: str) -> Estimate:
    """What a label term adds to the value of a policy: the shift that the weighted labels of the base's responses see."""
    fitted, used = evaluation.calibration, evaluation.estimates[policy].used
    weight = evaluation.weights[policy].raw / evaluation.weights[policy].raw[used].mean()
    labelled = used & logged.labelled
    scale = weight[labelled] * used.sum() / labelled.sum()

    def missed(reward: np.ndarray) -> np.ndarray:
        return scale * (logged.oracle_label[labelled] - reward)

    judged = logged.judged[labelled]
    influence = np.zeros(len(used))
    influence[labelled] = missed(fitted.held_out(judged, fitted.fold[labelled])) * len(used) / used.sum()
    value = float(influence.mean())
    influence[used] -= influence[used].mean()
    without = [missed(rewards(calibrator, judged)).sum() / used.sum() for calibrator in fitted.jackknife]
    return Estimate(value, influence, evaluation.base.cluster, np.array(without), used)


def audit(
    evaluation: Evaluation,
    logged: Logged,
    draws: Draws | None,
    thresholds: Thresholds,
    *,
    family: int,
    label_term: bool = False,
) -> Audit:
    """The audit of one policy among `family` that have labels of their own, after what a label term has mended."""
    nan, margin = float("nan"), thresholds.transport_margin
    if draws is None or np.isnan(draws.scored_label).all():
        return Audit("NOT_CHECKED", nan, (nan, nan), 0, 0.0, margin)
    cluster = evaluation.base.cluster
    found, against = shift(evaluation.calibration, draws, cluster), "the calibration"
    if label_term:
        found, against = found - label_shift(evaluation, logged, draws.policy), "the calibration with the label term"
    wider = _widening(found, evaluation.calibration, labelled_prompts(draws.scored_label, cluster))
    (low, high), (least, most) = (
        [found.value + wider * (end - found.value) for end in found.interval(level / family)]
        for level in (thresholds.transport_alpha, thresholds.transport_suspicion)
    )
    _, first = np.unique(cluster, return_index=True)  # a prompt's draws stand beside every row of it
    prompts = (~np.isnan(draws.scored_label[first])).sum(axis=1).astype(float)
    effective = float(prompts.sum() ** 2 / np.sum(prompts**2))
    if low > margin or high < -margin or (abs(found.value) > margin and least * most > 0):
        status = "FAIL"
    elif -margin < low and high < margin and effective >= thresholds.transport_prompts:
        status = "PASS"
    else:
        status = "INCONCLUSIVE"
    return Audit(status, found.value, (low, high), int(prompts.sum()), effective, margin, against)


def _widening(found: Estimate, calibration: Calibration, prompts: int) -> float:
    """What the interval of fewer than ten prompts is stretched by: few residuals may agree by chance, labels being coarse.

    Their variance is then at least that of the oracle slice's.
    """
    if prompts >= MIN_OWN or not found.se > 0 or not len(calibration.label):
        return 1.0
    held_out = calibration.held_out(calibration.slice.judged, calibration.slice_fold)
    least = np.mean((calibration.label - held_out) ** 2) / prompts
    return float(np.sqrt(1 + max(0.0, least - found.sampling_variance) / found.se**2))
