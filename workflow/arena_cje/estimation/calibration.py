"""Reward calibration: a monotone map f from judge scores to oracle labels.

    f = argmin sum_j (Y_j - f(S_j))^2  over non-decreasing f,   R_i = f(S_i)

Solved by pooling adjacent violators after tied scores are pooled, then read off by linear interpolation between the
fitted points and held constant beyond them. Every block predicts its mean label, so sum f(S_j) = sum Y_j over the
labelled rows: the map neither adds nor removes reward on the slice it was fitted to. It transports to a policy whose
labels depend on its responses through the score alone, and whose scores lie where labels lie.

Barlow et al. (1972), "Statistical Inference under Order Restrictions"; cross-fitting after Chernozhukov et al. (2018),
"Double/debiased machine learning", The Econometrics Journal; delete-one-fold variance after Efron & Stein (1981).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from arena_cje.errors import UserError
from arena_cje.estimation.folds import affordable, deal
from arena_cje.estimation.records import Logged

MIN_LABELLED_PROMPTS = 4  # two folds of two prompts: fewer leave nothing to cross-fit


@dataclass(frozen=True)
class Monotone:
    """A piecewise linear monotone map, constant beyond its knots; the same for a row alone or in a batch."""

    knots: np.ndarray  # (b,) increasing
    values: np.ndarray  # (b,) monotone

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """Values at points of any shape; NaN stays NaN."""
        return np.interp(at, self.knots, self.values)


def isotonic(x: np.ndarray, y: np.ndarray, *, increasing: bool = True) -> Monotone:
    """Least-squares monotone fit of y on x; equal x count as one point, weighted by how many they are."""
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    first = np.flatnonzero(np.concatenate(([True], x[1:] > x[:-1])))  # (b,) where each distinct x begins
    count = np.diff(np.append(first, len(x)))
    mean = np.add.reduceat(y, first) / count
    return Monotone(x[first], isotonic_regression(mean, weights=count, increasing=increasing).x)


def calibrate(
    score: np.ndarray, label: np.ndarray, fold: np.ndarray | None = None, *, without_fold: int | None = None
) -> Monotone:
    """Fit labels on scores, both (l,); `without_fold` leaves that fold's rows out, unless nothing would be left."""
    if without_fold is not None and (fold != without_fold).any():
        score, label = score[fold != without_fold], label[fold != without_fold]
    return isotonic(score, label)


@dataclass(frozen=True)
class Calibration:
    """The calibrator, its cross-fitted versions and its delete-one-fold versions, from one oracle slice of l rows."""

    score: np.ndarray  # (l,) judge scores of the labelled rows
    label: np.ndarray  # (l,)
    slice_fold: np.ndarray  # (l,) cross-fitting fold of the labelled rows
    fold: np.ndarray  # (n,) cross-fitting fold of every logged row
    full: Monotone
    cross_fitted: tuple[Monotone, ...]  # by fold left out
    jackknife: tuple[Monotone, ...]  # by jackknife fold left out
    n_folds_wanted: int

    def held_out(self, score: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """Calibrated scores, (u,) or (u, m), from calibrators that did not see the fold (u,) of the row."""
        unknown = set(np.unique(fold)) - set(range(len(self.cross_fitted)))
        if unknown:
            raise ValueError(
                f"no calibrator was fitted without fold {min(unknown)}; there are {len(self.cross_fitted)}"
            )
        reward = np.empty(score.shape)
        for k, calibrator in enumerate(self.cross_fitted):
            reward[fold == k] = calibrator(score[fold == k])
        return reward


def fit(logged: Logged, *, n_folds: int, jackknife_folds: int, seed: int) -> Calibration:
    """Calibrate on the oracle slice of the logged rows."""
    labelled = logged.labelled
    prompts = len(np.unique(logged.prompt_id[labelled]))
    if prompts < MIN_LABELLED_PROMPTS:
        mend = (
            "raise the oracle coverage or the number of prompts" if prompts else "no row has an oracle_label, give some"
        )
        raise UserError(
            f"calibration needs oracle labels on at least {MIN_LABELLED_PROMPTS} prompts, got {prompts} of "
            f"{len(np.unique(logged.prompt_id))}; {mend}"
        )
    score, label = logged.judge_score[labelled], logged.oracle_label[labelled]
    crossing = affordable(n_folds, prompts)
    leaving = affordable(jackknife_folds, prompts)
    fold = deal(logged.prompt_id, labelled, crossing, seed)  # (n,)
    left_out = deal(logged.prompt_id[labelled], np.ones(len(label), bool), leaving, seed)  # (l,)
    return Calibration(
        score=score,
        label=label,
        slice_fold=fold[labelled],
        fold=fold,
        full=calibrate(score, label),
        cross_fitted=tuple(calibrate(score, label, fold[labelled], without_fold=k) for k in range(crossing)),
        jackknife=tuple(calibrate(score, label, left_out, without_fold=k) for k in range(leaving)),
        n_folds_wanted=n_folds,
    )
