"""From logged rows and fresh draws to estimates: the one runner of all estimators.

An estimator is a function of the calibrated rewards. It is evaluated once for the value, with the calibrator fitted
on the whole oracle slice, and once more for every jackknife fold, with the calibrator that never saw that fold in
place of all others; the spread of those values is what the oracle slice contributes to the variance. Rows without a
log ratio, or without a fresh draw, are left out for that policy alone and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from arena_cje import estimators
from arena_cje.errors import UserError
from arena_cje.estimation import calibration as calibrating
from arena_cje.estimation.calibration import Calibration
from arena_cje.estimation.folds import clusters, deal
from arena_cje.estimation.records import Draws, Estimate, Logged, Options, Point, PolicyData, Rewards, Weights
from arena_cje.estimation.weights import hajek

__all__ = ["Evaluation", "Options", "evaluate"]

# Outer folds of the weights are dealt with a seed of their own, so that they cut across the cross-fitting folds.
OUTER_SEED = 1000


@dataclass(frozen=True)
class Evaluation:
    """Everything one estimator says about one data set, policies in declared order."""

    estimator: str
    estimates: dict[str, Estimate]
    base: Estimate  # the base policy's own value on its own responses
    calibration: Calibration
    weights: dict[str, Weights]  # of the policies that have log ratios
    n_used: dict[str, int]


@dataclass(frozen=True)
class _Problem:
    """What all policies share while one data set is evaluated."""

    module: ModuleType
    logged: Logged
    calibration: Calibration
    options: Options
    cluster: np.ndarray  # (n,)
    inner_fold: np.ndarray  # (n,)
    outer_fold: np.ndarray  # (n,)

    @property
    def fully_labelled(self) -> bool:
        return bool(self.logged.labelled.all())


def evaluate(name: str, logged: Logged, draws: Mapping[str, Draws] | None, options: Options) -> Evaluation:
    """Value of every target policy and of the base policy itself, each with its uncertainty."""
    module = estimators.get(name)
    draws = draws or {}
    check_logged(logged)
    check_needs(name, module, logged, draws)
    fitted = calibrating.fit(
        logged, n_folds=options.n_folds, jackknife_folds=options.jackknife_folds, seed=options.seed
    )
    everyone = np.ones(len(logged.prompt_id), dtype=bool)
    problem = _Problem(
        module,
        logged,
        fitted,
        options,
        clusters(logged.prompt_id),
        deal(logged.prompt_id, everyone, options.n_folds, options.seed),
        deal(logged.prompt_id, everyone, options.n_folds, options.seed + OUTER_SEED),
    )
    estimates, weights = {}, {}
    for column, policy in enumerate(logged.policies):
        log_ratio = logged.log_ratio[:, column]
        estimate, used_weight = _target(problem, log_ratio, _fresh_score(logged, draws.get(policy)))
        estimates[policy] = estimate
        if not np.isnan(log_ratio).all():
            weights[policy] = _weights(log_ratio, used_weight)
    used = {policy: estimate.n_used for policy, estimate in estimates.items()}
    return Evaluation(name, estimates, _base(problem), fitted, weights, used)


def check_logged(logged: Logged) -> None:
    """Refuse arrays that estimation cannot read; -inf log ratios and missing ones are in order."""
    n, p = len(logged.prompt_id), len(logged.policies)
    if logged.log_ratio.shape != (n, p):
        raise ValueError(f"log_ratio must have shape {(n, p)} (rows, target policies), got {logged.log_ratio.shape}")
    for what, values in (("judge score", logged.judge_score), ("oracle label", logged.oracle_label[logged.labelled])):
        outside = np.flatnonzero(~((values >= 0) & (values <= 1)))
        if len(outside):
            raise UserError(
                f"logged data: {len(outside)} of {len(values)} {what}s lie outside [0, 1] or are missing, the first of "
                f"them {values[outside[0]]}; declare the scale, or leave these rows out"
            )
    if (logged.log_ratio == np.inf).any():
        raise UserError(
            "logged data: a log ratio of +inf says that the base policy could not have given its own response; "
            "score the base responses again under the base policy"
        )


def check_needs(name: str, module: ModuleType, logged: Logged, draws: Mapping[str, Draws]) -> None:
    """Refuse an estimator whose inputs the data set lacks."""
    if "log_ratio" in module.NEEDS and np.isnan(logged.log_ratio).all():
        raise UserError(
            f"estimator {name!r} needs log probabilities of the base responses under the target policies; the data set "
            "has none: add target_policy_logprobs, or choose 'direct'"
        )
    missing = [policy for policy in logged.policies if policy not in draws]
    if "fresh_score" in module.NEEDS and missing:
        raise UserError(
            f"estimator {name!r} needs fresh draws of every target policy; none for {', '.join(map(repr, missing))}: "
            "add them, or choose an estimator that works on the logged responses, such as 'calibrated-ips'"
        )


def _fresh_score(logged: Logged, draws: Draws | None) -> np.ndarray:
    """Judge scores of fresh draws, (n, m); m = 0 where there are none."""
    if draws is None:
        return np.empty((len(logged.prompt_id), 0))
    if len(draws.judge_score) != len(logged.prompt_id):
        raise ValueError(
            f"fresh draws of {draws.policy!r} must be aligned with the {len(logged.prompt_id)} logged rows, "
            f"got {len(draws.judge_score)}"
        )
    return draws.judge_score


def _target(problem: _Problem, log_ratio: np.ndarray, fresh_score: np.ndarray) -> tuple[Estimate, np.ndarray | None]:
    """Estimate of one target policy, and the weights (n,) it used, NaN where a row was left out."""
    needs = problem.module.NEEDS
    used = np.ones(len(log_ratio), dtype=bool)
    if "log_ratio" in needs:
        used &= ~np.isnan(log_ratio)
    if "fresh_score" in needs:
        used &= ~np.isnan(fresh_score).all(axis=1)
    else:
        fresh_score = fresh_score[:, :0]
    if not used.any() or ("log_ratio" in needs and not np.isfinite(log_ratio[used]).any()):
        return Estimate(float("nan"), np.full(len(used), np.nan), problem.cluster, np.empty(0), used), None

    data = PolicyData(log_ratio[used], problem.inner_fold[used], problem.outer_fold[used])

    def evaluated(without_fold: int | None = None) -> Point:
        rewards = _rewards(problem, fresh_score, used, without_fold=without_fold)
        return problem.module.estimate(data, rewards, problem.options)

    point = evaluated()
    # With every row labelled, estimators that look at logged responses alone never ask the calibrator for a reward.
    calibrated = not problem.fully_labelled or "fresh_score" in needs
    folds = range(len(problem.calibration.jackknife)) if calibrated else ()
    jackknife = np.array([evaluated(k).value for k in folds])
    influence = _embed(point.influence, used)
    estimate = Estimate(point.value, influence, problem.cluster, jackknife, used, point.bias)
    return estimate, None if point.weight is None else _spread(point.weight, used)


def _rewards(problem: _Problem, fresh_score: np.ndarray, used: np.ndarray, *, without_fold: int | None) -> Rewards:
    """Rewards of the usable rows; `without_fold` puts the calibrator without that fold in place of all others."""
    fitted, score, fresh = problem.calibration, problem.logged.judge_score[used], fresh_score[used]
    if without_fold is None:
        fold = fitted.fold[used]
        value, index = fitted.full(score), fitted.held_out(score, fold)
        new, new_held_out = fitted.full(fresh), fitted.held_out(fresh, fold)
    else:
        value = index = fitted.jackknife[without_fold](score)
        new = new_held_out = fitted.jackknife[without_fold](fresh)
    if problem.fully_labelled:
        label = problem.logged.oracle_label[used]
        return Rewards(label, label, index, new, new_held_out)
    return Rewards(value, index, index, new, new_held_out)


def _base(problem: _Problem) -> Estimate:
    """Mean reward of the base policy's own responses: mean f(S), or mean Y when every row is labelled."""
    everyone = np.ones(len(problem.cluster), dtype=bool)
    no_draws = np.empty((len(everyone), 0))
    rewards = _rewards(problem, no_draws, everyone, without_fold=None)
    folds = () if problem.fully_labelled else range(len(problem.calibration.jackknife))
    jackknife = [_rewards(problem, no_draws, everyone, without_fold=k).value.mean() for k in folds]
    influence = rewards.held_out - rewards.held_out.mean()
    return Estimate(float(rewards.value.mean()), influence, problem.cluster, np.array(jackknife), everyone)


def _weights(log_ratio: np.ndarray, used_weight: np.ndarray | None) -> Weights:
    scored = ~np.isnan(log_ratio)
    raw = _spread(hajek(log_ratio[scored]), scored)
    return Weights(raw, raw if used_weight is None else used_weight)


def _embed(influence: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Influence on the scale of a mean over all n rows: the usable ones carry it, the others carry none."""
    embedded = np.zeros(len(used))
    embedded[used] = influence * len(used) / used.sum()
    return embedded


def _spread(values: np.ndarray, used: np.ndarray) -> np.ndarray:
    spread = np.full(len(used), np.nan)
    spread[used] = values
    return spread
