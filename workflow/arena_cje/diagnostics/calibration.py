"""Diagnostics of the calibration: the fit of calibrated judge scores to the oracle's labels.

Every measure of fit is held out: each labelled row is predicted by the calibrator that was fitted without its fold.

    RMSE = sqrt(mean (Y - f^(-k)(S))^2),   calibration error = sum_g n_g/m |mean_g f^(-k)(S) - mean_g Y|

with up to ten groups g of equal size in the order of the prediction. A rising monotone fit to an inverted
judge is a constant, hence the two warnings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.diagnostics.agreement import rank_correlation
from arena_cje.estimation.calibration import Calibration, rewards
from arena_cje.estimation.records import Reason

if TYPE_CHECKING:
    from arena_cje.diagnostics.thresholds import Thresholds

GROUPS = 10


@dataclass(frozen=True)
class CalibrationDiagnostics:
    """Statistics of the calibrator and the judge."""

    mode: str  # monotone, two_stage, none
    n_labels: int
    n_folds: int
    f_min: float
    f_max: float
    score_min: float  # range of the labelled scores
    score_max: float
    rmse: float  # held out
    calibration_error: float  # held out
    within_tenth: float  # share of |f - Y| <= 0.1, held out
    spearman: float  # judge score and label; NaN when either is constant
    instability: float  # largest mean |f^(-k) - f| over folds, at the labelled scores
    reasons: tuple[Reason, ...]


def diagnose(fitted: Calibration, thresholds: Thresholds) -> CalibrationDiagnostics:
    """Statistics and warnings of one calibration; all NaN where there is no label."""
    nan = float("nan")
    folds = len(fitted.cross_fitted)
    if not len(fitted.label):
        return CalibrationDiagnostics(fitted.mode, 0, folds, nan, nan, nan, nan, nan, nan, nan, nan, nan, ())
    judged = fitted.slice.judged
    full = rewards(fitted.full, judged)
    held_out = fitted.held_out(judged, fitted.slice_fold)
    error = fitted.label - held_out
    spearman = rank_correlation(fitted.score, fitted.label)
    return CalibrationDiagnostics(
        mode=fitted.mode,
        n_labels=len(fitted.label),
        n_folds=folds,
        f_min=float(full.min()),
        f_max=float(full.max()),
        score_min=float(fitted.score.min()),
        score_max=float(fitted.score.max()),
        rmse=float(np.sqrt(np.mean(error**2))),
        calibration_error=calibration_error(held_out, fitted.label),
        within_tenth=float(np.mean(np.abs(error) <= 0.1)),
        spearman=spearman,
        instability=max(float(np.mean(np.abs(rewards(f, judged) - full))) for f in fitted.cross_fitted),
        reasons=() if fitted.mode == "none" else _warnings(fitted, full, spearman, thresholds),
    )


def calibration_error(predicted: np.ndarray, label: np.ndarray) -> float:
    """Mean absolute gap between predictions and labels (m,) over groups of similar prediction."""
    order = np.argsort(predicted, kind="stable")
    groups = np.array_split(order, min(GROUPS, len(order)))
    return float(sum(abs(np.sum(predicted[g] - label[g])) for g in groups) / len(order))


def _two_stage_warnings(fitted: Calibration, limit: float) -> tuple[Reason, ...]:
    """Warnings about a calibrator with covariates: its reward may fall as the score rises, by chance with few labels."""
    from arena_cje.estimation.two_stage import falls

    if fitted.full.fallback:
        sentence = f"{len(fitted.label)} labels are too few for covariates: the calibrator uses the judge score alone"
        return (Reason("covariates_not_used", sentence, "caution"),)
    drop = falls(fitted.full, fitted.score, fitted.slice.judged.covariates)
    if drop <= limit:
        return ()
    sentence = f"the calibrated reward falls by up to {drop:.2f} while the judge score rises (caution above {limit:g})"
    return (Reason("falling_calibration", sentence, "caution"),)


def _warnings(fitted: Calibration, full: np.ndarray, spearman: float, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Warnings about folds, judge and calibrator; full (m,) are the rewards of the labelled rows."""
    reasons = []
    if len(fitted.cross_fitted) < fitted.n_folds_requested:
        sentence = (
            f"{len(fitted.cross_fitted)} folds are used instead of {fitted.n_folds_requested}, because there are only "
            f"{len(fitted.label)} labels"
        )
        reasons.append(Reason("few_folds", sentence))
    if spearman < 0:
        sentence = (
            f"negative correlation of judge and oracle (Spearman {spearman:.2f}): the judge's scale may be reversed"
        )
        reasons.append(Reason("inverted_judge", sentence, "caution"))
    if np.ptp(full) == 0 and np.ptp(fitted.label) > 0:
        sentence = f"the calibration maps every judge score to {full[0]:.3f}, although the labels vary"
        reasons.append(Reason("constant_calibration", sentence, "caution"))
    if fitted.mode == "two_stage":
        reasons += _two_stage_warnings(fitted, thresholds.fall_caution)
    return tuple(reasons)
