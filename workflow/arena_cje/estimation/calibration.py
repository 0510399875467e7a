"""Reward calibration: a map f from judge scores to oracle labels.

    monotone     f = argmin sum_j (Y_j - f(S_j))^2 over non-decreasing f,   R_i = f(S_i)
    two_stage    f = monotone in the rank of an index g(S, X) of score and covariates (`two_stage`)
    auto         two_stage where its held-out error is lower by more than a standard error, else monotone

A label that was bought with a known probability pi_j has the weight 1 / pi_j, so that the fit is that of a random share of
the responses. Where the judge gives a distribution p_i over scores, R_i = sum_s p_i(s) f(s), and the monotone f is fitted
to these rewards (`isotonic.mixture`); in two_stage a label has the weight p_j(s) at every score s. Over the rows of the
fit, the mean prediction of either map is the mean label. A map transports to a policy if its labels depend on its
responses through score and covariates alone, and if there are labels at its scores.

Barlow et al. (1972), "Statistical Inference under Order Restrictions"; cross-fitting after Chernozhukov et al. (2018),
"Double/debiased machine learning", The Econometrics Journal; delete-one-fold variance after Efron & Stein (1981).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from arena_cje.errors import UserError
from arena_cje.estimation.folds import Prompts, affordable
from arena_cje.estimation.isotonic import Monotone, isotonic, mixture
from arena_cje.estimation.records import Judged, Labelled, Logged, Options
from arena_cje.estimation.short_repr import short_repr

__all__ = ["Calibration", "Monotone", "calibrate", "fit", "isotonic", "oracle_slice", "rewards"]

MIN_LABELLED_PROMPTS = 4  # two folds of two prompts, the least that can be cross-fitted
SHARED = 10  # labelled prompts that share a jackknife fold with another, where a fold may have a single one
JACKKNIFE = 1  # salt of the jackknife's folds, so that they differ from the cross-fitting folds

Calibrator = Callable[[np.ndarray, np.ndarray], np.ndarray]  # scores (...,), covariates (..., c) -> rewards (...,)


def identity(score: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """The calibrator whose rewards are the judge scores (...)."""
    return score


def rewards(calibrator: Calibrator, judged: Judged) -> np.ndarray:
    """Calibrated scores (...) in [0, 1]: the mean of the calibrated points under the judge's distribution."""
    if judged.points.shape[-1] == 1:
        return calibrator(judged.points[..., 0], judged.covariates)
    values = calibrator(judged.points, judged.covariates[..., None, :])
    return np.sum(judged.mass * values, axis=-1)


def rewards_by_calibrator(calibrators: Sequence[Calibrator], judged: Judged) -> np.ndarray:
    """Calibrated scores (k, ...) in [0, 1], one row for each of k calibrators."""
    values = np.empty((len(calibrators), *judged.points.shape[:-1]))
    if judged.points.shape[-1] > 1 or judged.covariates.shape[-1]:
        for row, calibrator in zip(values, calibrators, strict=True):
            row[...] = rewards(calibrator, judged)
        return values
    # Interpolation at sorted points is several times faster.
    score = judged.points.reshape(-1)
    order = np.argsort(score)
    no_covariates = np.empty((len(score), 0))
    for row, calibrator in zip(values.reshape(len(calibrators), len(score)), calibrators, strict=True):
        row[order] = calibrator(score[order], no_covariates)
    return values


def calibrate(judged: Judged, label: np.ndarray, mode: str, weight: np.ndarray | None = None) -> Calibrator:
    """Fit labels (l,) on the scores and covariates of l responses, with weights (l,) if given.

    mode: "monotone" or "two_stage".
    """
    points = judged.points.shape[-1]
    if mode == "monotone":
        if points == 1:
            return isotonic(judged.points[:, 0], label, weight)
        return mixture(judged.points, judged.mass, label, weight)
    from arena_cje.estimation import two_stage

    score, covariates = judged.points.reshape(-1), judged.covariates
    if points > 1:
        mass = judged.mass if weight is None else judged.mass * weight[:, None]
        label, covariates, weight = np.repeat(label, points), np.repeat(covariates, points, axis=0), mass.reshape(-1)
    return two_stage.fit(score, covariates, label, weight)


@dataclass(frozen=True)
class Calibration:
    """The calibrator, its cross-fitted versions and its delete-one-fold versions, from one oracle slice of l responses."""

    slice: Labelled
    prompts: Prompts  # of the logged rows, followed by the calibration data
    slice_fold: np.ndarray  # (l,) cross-fitting fold of the labelled responses
    fold: np.ndarray  # (n,) cross-fitting fold of every logged row
    group: np.ndarray  # (n,) jackknife fold of every logged row
    mode: str  # monotone, two_stage, or none where rewards are the judge scores
    full: Calibrator
    cross_fitted: tuple[Calibrator, ...]  # item k is fitted without cross-fitting fold k
    jackknife: tuple[Calibrator, ...]  # item k is fitted without jackknife fold k; empty in mode none
    n_folds_requested: int
    choice: Mapping[str, float] = field(default_factory=dict)  # held-out errors, where the mode was chosen by `auto`

    __repr__ = short_repr

    @property
    def score(self) -> np.ndarray:
        """Judge scores of the labelled responses, (l,)."""
        return self.slice.judged.score

    @property
    def label(self) -> np.ndarray:
        """Oracle labels of the slice, (l,) in [0, 1]."""
        return self.slice.oracle_label

    def held_out(self, judged: Judged, fold: np.ndarray) -> np.ndarray:
        """Calibrated scores of responses (u,) or (u, m), each by the calibrator fitted without the row's fold (u,)."""
        if len(fold) and fold.max() >= len(self.cross_fitted):
            raise ValueError(f"no calibrator was fitted without fold {fold.max()}; there are {len(self.cross_fitted)}")
        reward = np.empty(judged.points.shape[:-1])
        for k, calibrator in enumerate(self.cross_fitted):
            reward[fold == k] = rewards(calibrator, judged[fold == k])
        return reward


def oracle_slice(logged: Logged, calibration_data: Labelled | None = None) -> Labelled:
    """All l labelled responses: the logged ones, followed by the calibration data."""
    labelled, weight = logged.labelled, logged.label_weight
    weight = None if weight is None else weight[labelled]
    rows = Labelled(logged.question[labelled], logged.judged[labelled], logged.oracle_label[labelled], weight)
    if calibration_data is None:
        return rows
    return Labelled(
        np.concatenate([rows.question, calibration_data.question]),
        concatenated(rows.judged, calibration_data.judged),
        np.concatenate([rows.oracle_label, calibration_data.oracle_label]),
        joined_weights(
            [rows.weight, calibration_data.weight], [len(rows.oracle_label), len(calibration_data.oracle_label)]
        ),
    )


def joined_weights(weights: Sequence[np.ndarray | None], sizes: Sequence[int]) -> np.ndarray | None:
    """Weights of the labels of several sources, one after the other; those of each have mean one. None: all are equal."""
    if all(weight is None for weight in weights):
        return None
    return np.concatenate([np.ones(n) if one is None else one for one, n in zip(weights, sizes, strict=True)])


def fit(
    logged: Logged, options: Options, calibration_data: Labelled | None = None, *, single: bool = False
) -> Calibration:
    """Fit the calibrator, and its versions without each fold, to the labelled logged rows and the calibration data.

    single: whether jackknife folds may have a single labelled prompt from 20 on, so that 30 have 20 folds in place of 15.
    With fewer labels, t intervals of more degrees of freedom are too short where labels are skewed.
    Raises a `UserError` where fewer than `MIN_LABELLED_PROMPTS` prompts have a label.
    """
    labelled = oracle_slice(logged, calibration_data)
    n, question = len(logged.prompt_id), logged.question
    if calibration_data is not None:
        question = np.concatenate([question, calibration_data.question])
    prompts = Prompts.of(question, options.seed)
    in_slice = np.concatenate([logged.labelled, np.ones(len(question) - n, dtype=bool)])
    if options.rewards == "judge":
        fold = prompts.deal(in_slice, options.n_folds)
        return Calibration(
            slice=labelled,
            prompts=prompts,
            slice_fold=fold[in_slice],
            fold=fold[:n],
            group=np.zeros(n, dtype=int),
            mode="none",
            full=identity,
            cross_fitted=(identity,) * options.n_folds,
            jackknife=(),
            n_folds_requested=options.n_folds,
        )
    n_prompts = len(np.unique(prompts.code[in_slice]))
    if n_prompts < MIN_LABELLED_PROMPTS:
        advice = (
            "raise the oracle coverage or the number of prompts"
            if n_prompts
            else "no row has an `oracle_label`; label a random sample of the rows"
        )
        raise UserError(
            f"calibration needs oracle labels on at least {MIN_LABELLED_PROMPTS} prompts, got {n_prompts} of "
            f"{len(np.unique(logged.question))}; {advice}"
        )
    fold = prompts.deal(in_slice, affordable(options.n_folds, n_prompts))
    folds = affordable(options.jackknife_folds, n_prompts)
    if single:
        folds = max(folds, min(options.jackknife_folds, n_prompts - SHARED))
    jackknife_fold = prompts.deal(in_slice, folds, salt=JACKKNIFE)
    mode, choice = options.calibration, {}
    if mode == "auto":
        from arena_cje.estimation import two_stage

        judged = labelled.judged
        mode, choice = two_stage.choose(
            judged.score, judged.covariates, labelled.oracle_label, fold[in_slice], labelled.weight
        )

    def calibrator_of(rows: np.ndarray | slice) -> Calibrator:
        weight = None if labelled.weight is None else labelled.weight[rows]
        return calibrate(labelled.judged[rows], labelled.oracle_label[rows], mode, weight)

    def fit_without_each(folds: np.ndarray) -> tuple[Calibrator, ...]:
        others = [folds != k for k in range(folds.max() + 1)]
        return tuple(map(calibrator_of, others))

    return Calibration(
        slice=labelled,
        prompts=prompts,
        slice_fold=fold[in_slice],
        fold=fold[:n],
        group=jackknife_fold[:n],
        mode=mode,
        full=calibrator_of(slice(None)),
        cross_fitted=fit_without_each(fold[in_slice]),
        jackknife=fit_without_each(jackknife_fold[in_slice]),
        n_folds_requested=options.n_folds,
        choice=choice,
    )


def concatenated(first: Judged, second: Judged) -> Judged:
    """The responses of both; the one with fewer points a response is padded."""
    points = max(first.points.shape[-1], second.points.shape[-1])
    parts = _pad(first, points), _pad(second, points)
    return Judged(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.mass for part in parts]),
        np.concatenate([part.covariates for part in parts]),
    )


def _pad(judged: Judged, points: int) -> Judged:
    """The same judgements with `points` points a response: those that are added have mass zero, at the mean score."""
    missing = points - judged.points.shape[-1]
    if not missing:
        return judged
    padding = np.repeat(judged.score[..., None], missing, axis=-1)
    return Judged(
        np.concatenate([judged.points, padding], axis=-1),
        np.concatenate([judged.mass, np.zeros_like(padding)], axis=-1),
        judged.covariates,
    )
