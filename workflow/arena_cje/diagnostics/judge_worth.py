"""What a judge is worth: the share of labels that it saves, for each policy that has labels.

    share = 1 - Var(Y - f) / Var(Y),   multiplier = 1 / (1 - share)

Y are the labels of one policy's responses and f their calibrated scores, each from a calibrator that was fitted without
the prompt. A mean label over many judged prompts is then as precise as that of `multiplier` times as many labels alone.
Policies are never pooled: differences between policies are not what a judge saves labels for.

A further judge is compared with the first one on the base's labels that both score, by calibrators of the same kind,
prompts and folds:

    label ratio = (1 - share of the further judge) / (1 - share of the first)

the labels that it takes for the same precision. Intervals are those of Student's t on the logarithm of 1 - share, or of
the ratio, with the delete-one jackknife over prompts; calibrators are not fitted again.

Angelopoulos, Duchi & Zrnic (2023), "PPI++: Efficient prediction-powered inference"; Efron & Stein (1981), "The jackknife
estimate of variance", Annals of Statistics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.diagnostics.agreement import needed, rank_correlation
from arena_cje.estimation.calibration import calibrate, rewards
from arena_cje.estimation.inference import critical_value
from arena_cje.estimation.records import Judged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.estimation.calibration import Calibration
    from arena_cje.estimation.records import Draws, Logged

# Labelled ones. In four simulated worlds intervals covered .91 to .93 with 50 and .92 to .96 with 100. With 30 it was .87 to
# .95, at widths of .6 to .9, too wide for any use.
MIN_PROMPTS = 50

NAN = float("nan")


@dataclass(frozen=True)
class Worth:
    """The share of labels that a judge saves for one policy; NaN where too few labels show it."""

    n_prompts: int  # labelled prompts
    share: float
    interval: tuple[float, float]
    multiplier: float
    why_unknown: str | None = None


@dataclass(frozen=True)
class Comparison:
    """A further judge on the base's labels that it and the first judge score."""

    worth: Worth
    label_ratio: float  # NaN where unknown
    ratio_interval: tuple[float, float]
    spearman: float  # of its scores and the labels
    is_better: bool  # whether the labels show a correlation with the oracle that is above the first judge's


@dataclass(frozen=True)
class JudgeWorth:
    """What the judge of an analysis is worth by policy, and further judges in the data beside it."""

    policies: Mapping[str, Worth]  # the base policy first; those with labels
    others: Mapping[str, Comparison]

    @property
    def better(self) -> str | None:
        """The further judge with the highest correlation with the oracle, if it is above that of the first judge."""
        spearman = {name: one.spearman for name, one in self.others.items() if one.is_better}
        return max(spearman, key=spearman.get, default=None)


def judge_worth(
    fitted: Calibration,
    logged: Logged,
    draws: Mapping[str, Draws],
    further: Mapping[str, np.ndarray],
    thresholds: Thresholds,
    alpha: float = 0.05,
) -> JudgeWorth:
    """The worth of the judge behind a calibration, and of further judges with scores (n,) of the logged rows by name."""
    if fitted.mode == "none":
        return JudgeWorth({}, {})
    rows = np.flatnonzero(logged.labelled)
    cluster = fitted.prompts.code[: len(logged.prompt_id)]
    policies = {}
    if len(rows):
        reward = fitted.held_out(logged.judged[rows], fitted.fold[rows])
        policies[logged.base_policy] = worth(logged.oracle_label[rows], reward, cluster[rows], alpha)
    first_rows = np.unique(cluster, return_index=True)[1]  # draws are repeated for each row of their prompt
    for policy, own in draws.items():
        row, draw = np.nonzero(~np.isnan(own.scored_label[first_rows]))
        row = first_rows[row]
        if len(row):
            reward = fitted.held_out(own.judged[row, draw], fitted.fold[row])
            policies[policy] = worth(own.oracle_label[row, draw], reward, cluster[row], alpha)
    others = {
        name: _compare(fitted, logged, rows[~np.isnan(score[rows])], score, cluster, thresholds, alpha)
        for name, score in further.items()
    }
    return JudgeWorth(policies, {name: one for name, one in others.items() if one is not None})


def worth(label: np.ndarray, reward: np.ndarray, cluster: np.ndarray, alpha: float = 0.05) -> Worth:
    """The worth of held-out calibrated scores (l,) for labels (l,) of prompts with codes (l,)."""
    prompts = len(np.unique(cluster))
    why = _why_unknown(label, prompts)
    if why is not None:
        return Worth(prompts, NAN, (NAN, NAN), NAN, why)
    ratio, (low, high) = _variance_ratio(label - reward, label, cluster, alpha)
    return Worth(prompts, 1 - ratio, (1 - high, 1 - low), 1 / ratio if ratio > 0 else float("inf"))


def _why_unknown(label: np.ndarray, prompts: int) -> str | None:
    if prompts < MIN_PROMPTS:
        return f"too few labelled prompts ({prompts}, minimum {MIN_PROMPTS})"
    return "labels that are all equal" if np.ptp(label) == 0 else None


def _compare(
    fitted: Calibration,
    logged: Logged,
    rows: np.ndarray,
    score: np.ndarray,
    cluster: np.ndarray,
    thresholds: Thresholds,
    alpha: float,
) -> Comparison | None:
    """The comparison on labelled rows (l,) with scores (n,) of the further judge; None where it scored no labelled row."""
    if not len(rows):
        return None
    label, code = logged.oracle_label[rows], cluster[rows]
    first = logged.judged[rows]
    of_further = replace(Judged.of(score[rows]), covariates=first.covariates)
    prompts = len(np.unique(code))
    spearman, of_first = rank_correlation(score[rows], label), rank_correlation(first.score, label)
    best = rank_correlation(np.sort(score[rows]), np.sort(label))
    limit = max(thresholds.spearman_caution, needed(prompts, best, thresholds))
    is_better = bool(spearman > limit and not spearman <= of_first)
    why = _why_unknown(label, prompts)
    if why is not None:
        return Comparison(Worth(prompts, NAN, (NAN, NAN), NAN, why), NAN, (NAN, NAN), spearman, is_better)
    error, error_of_first = (
        label - _cross_fitted(judged, label, fitted.fold[rows], fitted.mode) for judged in (of_further, first)
    )
    ratio, interval = _variance_ratio(error, error_of_first, code, alpha)
    return Comparison(worth(label, label - error, code, alpha), ratio, interval, spearman, is_better)


def _cross_fitted(judged: Judged, label: np.ndarray, fold: np.ndarray, mode: str) -> np.ndarray:
    """Calibrated scores (l,) by calibrators that are fitted to these labels (l,) without each row's fold (l,)."""
    reward = np.empty(len(label))
    for k in np.unique(fold):
        others = fold != k
        reward[~others] = rewards(calibrate(judged[others], label[others], mode), judged[~others])
    return reward


def _variance_ratio(
    numerator: np.ndarray, denominator: np.ndarray, cluster: np.ndarray, alpha: float
) -> tuple[float, tuple[float, float]]:
    """Var(numerator) / Var(denominator) of values (l,) and its interval; the interval is NaN where a variance is zero."""
    code = np.unique(cluster, return_inverse=True)[1]
    prompts = int(code.max()) + 1
    rows = np.bincount(code)
    log_variance = []
    for values in (numerator, denominator):
        centred = values - values.mean()
        first, second = np.bincount(code, weights=centred), np.bincount(code, weights=centred**2)
        left = len(values) - np.concatenate([[0], rows])  # with all prompts, then without each
        mean = (first.sum() - np.concatenate([[0.0], first])) / left
        with np.errstate(divide="ignore", invalid="ignore"):
            log_variance.append(np.log((second.sum() - np.concatenate([[0.0], second])) / left - mean**2))
    log_ratio = log_variance[0] - log_variance[1]
    ratio = float(np.exp(log_ratio[0]))
    if not np.isfinite(log_ratio).all():
        return ratio, (NAN, NAN)
    without = log_ratio[1:]
    se = np.sqrt((prompts - 1) / prompts * np.sum((without - without.mean()) ** 2))
    half = critical_value(0.0, prompts - 1, alpha) * se
    return ratio, (float(ratio * np.exp(-half)), float(ratio * np.exp(half)))
