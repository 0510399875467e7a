"""Reward calibration: a map f from what the judge says to oracle labels.

    monotone     f = argmin sum_j (Y_j - f(S_j))^2 over non-decreasing f,   R_i = f(S_i)
    two_stage    f = monotone in the rank of an index g(S, X) of score and covariates (`two_stage`)
    auto         two_stage where it beats monotone by more than a standard error, held out

Where the judge gives a distribution p_i over scores, a label counts at every score by p_j(s) and R_i = sum_s p_i(s) f(s).
Both maps predict the mean label over the rows they were fitted to, so they neither add nor remove reward there. A map
transports to a policy whose labels depend on its responses through score and covariates alone, and whose scores lie
where labels lie.

Barlow et al. (1972), "Statistical Inference under Order Restrictions"; cross-fitting after Chernozhukov et al. (2018),
"Double/debiased machine learning", The Econometrics Journal; delete-one-fold variance after Efron & Stein (1981).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from arena_cje.errors import UserError
from arena_cje.estimation.folds import Prompts, affordable
from arena_cje.estimation.isotonic import Monotone, isotonic
from arena_cje.estimation.records import Judged, Labelled, Logged, Options

__all__ = ["Calibration", "Monotone", "calibrate", "fit", "isotonic", "oracle_slice", "rewards"]

MIN_LABELLED_PROMPTS = 4  # two folds of two prompts: fewer leave nothing to cross-fit
JACKKNIFE = 1  # salt of the jackknife's folds, which are not those of cross-fitting

Calibrator = Callable[[np.ndarray, np.ndarray], np.ndarray]  # scores (...,), covariates (..., c) -> rewards (...,)


def as_they_are(score: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """The calibrator that does nothing: rewards are judge scores."""
    return score


def rewards(calibrator: Calibrator, judged: Judged) -> np.ndarray:
    """Calibrated scores (...): those of the judge's points, weighed by their probability."""
    if judged.points.shape[-1] == 1:
        return calibrator(judged.points[..., 0], judged.covariates)
    values = calibrator(judged.points, judged.covariates[..., None, :])
    return np.sum(judged.mass * values, axis=-1)


def rewards_by_each(calibrators: Sequence[Calibrator], judged: Judged) -> np.ndarray:
    """Calibrated scores (k, ...) by each of k calibrators."""
    found = np.empty((len(calibrators), *judged.points.shape[:-1]))
    if judged.points.shape[-1] > 1 or judged.covariates.shape[-1]:
        for row, calibrator in zip(found, calibrators, strict=True):
            row[...] = rewards(calibrator, judged)
        return found
    # A curve is read off at rising points several times as fast.
    score = judged.points.reshape(-1)
    order = np.argsort(score)
    none = np.empty((len(score), 0))
    for row, calibrator in zip(found.reshape(len(calibrators), len(score)), calibrators, strict=True):
        row[order] = calibrator(score[order], none)
    return found


def calibrate(judged: Judged, label: np.ndarray, mode: str, weight: np.ndarray | None = None) -> Calibrator:
    """Fit labels (l,) on what the judge says of their responses; weights (l,) make some count more."""
    points = judged.points.shape[-1]
    score, covariates = judged.points.reshape(-1), judged.covariates
    if points > 1:
        mass = judged.mass if weight is None else judged.mass * weight[:, None]
        label, covariates, weight = np.repeat(label, points), np.repeat(covariates, points, axis=0), mass.reshape(-1)
    if mode == "monotone":
        return isotonic(score, label, weight)
    from arena_cje.estimation import two_stage

    return two_stage.fit(score, covariates, label, weight)


@dataclass(frozen=True)
class Calibration:
    """The calibrator, its cross-fitted versions and its delete-one-fold versions, from one oracle slice of l responses."""

    slice: Labelled
    prompts: Prompts  # of the logged rows, then of what was brought along
    slice_fold: np.ndarray  # (l,) cross-fitting fold of the labelled responses
    fold: np.ndarray  # (n,) cross-fitting fold of every logged row
    mode: str  # monotone, two_stage, or none where judge scores are taken as they are
    full: Calibrator
    cross_fitted: tuple[Calibrator, ...]  # by fold left out
    jackknife: tuple[Calibrator, ...]  # by jackknife fold left out; empty where nothing was fitted
    n_folds_wanted: int
    choice: Mapping[str, float] = field(default_factory=dict)  # held-out errors that `auto` chose by

    @property
    def score(self) -> np.ndarray:
        """Judge scores of the labelled responses, (l,)."""
        return self.slice.judged.score

    @property
    def label(self) -> np.ndarray:
        """(l,)"""
        return self.slice.oracle_label

    def held_out(self, judged: Judged, fold: np.ndarray) -> np.ndarray:
        """Calibrated scores of responses with leading shape (u,) or (u, m), by calibrators that did not see the fold (u,)."""
        if len(fold) and fold.max() >= len(self.cross_fitted):
            raise ValueError(f"no calibrator was fitted without fold {fold.max()}; there are {len(self.cross_fitted)}")
        reward = np.empty(judged.points.shape[:-1])
        for k, calibrator in enumerate(self.cross_fitted):
            reward[fold == k] = rewards(calibrator, judged[fold == k])
        return reward


def oracle_slice(logged: Logged, beside: Labelled | None = None) -> Labelled:
    """All labelled responses: the logged ones, then those that were brought along for calibration."""
    labelled = logged.labelled
    own = Labelled(logged.prompt_id[labelled], logged.judged[labelled], logged.oracle_label[labelled])
    if beside is None:
        return own
    return Labelled(
        np.concatenate([own.prompt_id, beside.prompt_id]),
        _joined(own.judged, beside.judged),
        np.concatenate([own.oracle_label, beside.oracle_label]),
    )


def fit(logged: Logged, options: Options, beside: Labelled | None = None) -> Calibration:
    """Calibrate on the oracle slice: the labelled logged rows, and labelled responses beside them."""
    known = oracle_slice(logged, beside)
    n, beyond = len(logged.prompt_id), beside.prompt_id if beside else np.empty(0, dtype=str)
    prompts = Prompts.of(np.concatenate([logged.prompt_id, beyond]) if len(beyond) else logged.prompt_id, options.seed)
    in_slice = np.concatenate([logged.labelled, np.ones(len(beyond), dtype=bool)])
    n_prompts = len(np.unique(prompts.code[in_slice]))
    if options.rewards == "judge":
        fold = prompts.deal(in_slice, options.n_folds)
        kept = (as_they_are,) * options.n_folds
        return Calibration(known, prompts, fold[in_slice], fold[:n], "none", as_they_are, kept, (), options.n_folds)
    if n_prompts < MIN_LABELLED_PROMPTS:
        mend = (
            "raise the oracle coverage or the number of prompts"
            if n_prompts
            else "no row has an oracle_label, give some"
        )
        raise UserError(
            f"calibration needs oracle labels on at least {MIN_LABELLED_PROMPTS} prompts, got {n_prompts} of "
            f"{len(np.unique(logged.prompt_id))}; {mend}"
        )
    fold = prompts.deal(in_slice, affordable(options.n_folds, n_prompts))
    left_out = prompts.deal(in_slice, affordable(options.jackknife_folds, n_prompts), salt=JACKKNIFE)
    left_out = left_out[in_slice]
    mode, choice = _mode(known, fold[in_slice], options.calibration)

    def without(folds: np.ndarray) -> tuple[Calibrator, ...]:
        kept = [folds != k for k in range(folds.max() + 1)]
        return tuple(calibrate(known.judged[rows], known.oracle_label[rows], mode) for rows in kept)

    return Calibration(
        slice=known,
        prompts=prompts,
        slice_fold=fold[in_slice],
        fold=fold[:n],
        mode=mode,
        full=calibrate(known.judged, known.oracle_label, mode),
        cross_fitted=without(fold[in_slice]),
        jackknife=without(left_out),
        n_folds_wanted=options.n_folds,
        choice=choice,
    )


def _mode(known: Labelled, fold: np.ndarray, asked: str) -> tuple[str, Mapping[str, float]]:
    if asked != "auto":
        return asked, {}
    from arena_cje.estimation import two_stage

    return two_stage.choose(known.judged.score, known.judged.covariates, known.oracle_label, fold)


def _joined(one: Judged, other: Judged) -> Judged:
    """Responses of both, with room for the judge's points of either."""
    wide = max(one.points.shape[-1], other.points.shape[-1])
    first, second = _widened(one, wide), _widened(other, wide)
    return Judged(
        np.concatenate([first.points, second.points]),
        np.concatenate([first.mass, second.mass]),
        np.concatenate([first.covariates, second.covariates]),
    )


def _widened(judged: Judged, points: int) -> Judged:
    more = points - judged.points.shape[-1]
    if not more:
        return judged
    padding = np.repeat(judged.score[..., None], more, axis=-1)
    return Judged(
        np.concatenate([judged.points, padding], axis=-1),
        np.concatenate([judged.mass, np.zeros_like(padding)], axis=-1),
        judged.covariates,
    )
