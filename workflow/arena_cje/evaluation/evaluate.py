"""From logged rows and fresh draws to estimates: the one runner of all estimators.

An estimator is a function of the calibrated rewards. It is evaluated once for the value, with the calibrator fitted
on the whole oracle slice, and once more for every jackknife fold, with the calibrator that never saw that fold in
place of all others; the spread of those values is what the oracle slice contributes to the variance. Rows without a
log ratio, or without a fresh draw, are left out for that policy alone and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arena_cje import estimators
from arena_cje.errors import UserError
from arena_cje.estimation import calibration as calibrating
from arena_cje.estimation.calibration import Calibration, rewards, rewards_by_each
from arena_cje.estimation.records import Draws, Estimate, Judged, Labelled, Logged, Options, Point, Sample, Weights
from arena_cje.estimation.robust import has_label_term, label_residual
from arena_cje.estimation.weights import hajek
from arena_cje.evaluation import bootstrap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

__all__ = ["Evaluation", "Options", "evaluate", "evaluate_all"]

ROWS = 2  # salt of the folds that weights and outcome models are fitted by


@dataclass(frozen=True)
class Evaluation:
    """Everything one estimator says about one data set, policies in declared order."""

    estimator: str
    options: Options
    estimates: dict[str, Estimate]
    base: Estimate  # the base policy's own value on its own responses
    calibration: Calibration
    weights: dict[str, Weights]  # of the policies that have log ratios

    @property
    def n_used(self) -> dict[str, int]:
        return {policy: estimate.n_used for policy, estimate in self.estimates.items()}


@dataclass(frozen=True)
class _Problem:
    """What all estimators and policies share while one data set is evaluated."""

    logged: Logged
    options: Options
    calibration: Calibration
    cluster: np.ndarray  # (n,)
    fold: np.ndarray  # (n,) of the prompt, for what is fitted to logged rows
    reward: np.ndarray  # (n,) calibrated scores of the logged responses
    held_out: np.ndarray  # (n,)
    without: np.ndarray  # (K, n) calibrated scores without each jackknife fold

    @property
    def labels_are_rewards(self) -> bool:
        """With a label on every row nobody needs a calibrated score of a logged response."""
        return self.options.rewards == "calibrated" and bool(self.logged.labelled.all())


@dataclass(frozen=True)
class _Fresh:
    """Fresh draws of one policy and their calibrated scores; m = 0 where an estimator does not ask for them."""

    judged: Judged  # leading shape (n, m)
    label: np.ndarray  # (n, m)
    reward: np.ndarray  # (n, m)
    held_out: np.ndarray  # (n, m)
    without: np.ndarray  # (K, n, m) calibrated scores without each jackknife fold


def evaluate(
    name: str,
    logged: Logged,
    draws: Mapping[str, Draws] | None,
    options: Options,
    calibration_data: Labelled | None = None,
) -> Evaluation:
    """Value of every target policy and of the base policy itself, each with its uncertainty."""
    return evaluate_all([name], logged, draws, options, calibration_data)[name]


def evaluate_all(
    names: Sequence[str],
    logged: Logged,
    draws: Mapping[str, Draws] | None,
    options: Options,
    calibration_data: Labelled | None = None,
) -> dict[str, Evaluation]:
    """The same for several estimators, by name: what they share is computed once."""
    modules = {name: estimators.get(name) for name in names}
    draws = draws or {}
    check_logged(logged)
    for name, module in modules.items():
        check_needs(name, module, logged, draws, options)
    problem = _prepare(logged, options, calibration_data)
    bases = {name: _base(problem, label_term=has_label_term(module, options)) for name, module in modules.items()}
    estimates: dict[str, dict[str, Estimate]] = {name: {} for name in names}
    weights: dict[str, dict[str, Weights]] = {name: {} for name in names}
    for column, policy in enumerate(logged.policies):
        log_ratio = logged.log_ratio[:, column]
        found = _policy(problem, modules, log_ratio, draws.get(policy))
        for name, (estimate, used_weight) in found.items():
            estimates[name][policy] = estimate
            if not np.isnan(log_ratio).all():
                weights[name][policy] = _weights(log_ratio, used_weight)
    return {
        name: Evaluation(name, options, estimates[name], bases[name], problem.calibration, weights[name])
        for name in names
    }


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


def check_needs(name: str, module: ModuleType, logged: Logged, draws: Mapping[str, Draws], options: Options) -> None:
    """Refuse an estimator whose inputs the data set lacks, or an option that it does not have."""
    if "log_ratio" in module.NEEDS and np.isnan(logged.log_ratio).all():
        raise UserError(
            f"estimator {name!r} needs log probabilities of the base responses under the target policies; the data set "
            "has none: add target_policy_logprobs, or choose 'direct'"
        )
    missing = [policy for policy in logged.policies if policy not in draws]
    if _wants_draws(module) and missing:
        raise UserError(
            f"estimator {name!r} needs fresh draws of every target policy; none for {', '.join(map(repr, missing))}: "
            "add them, or choose an estimator that works on the logged responses, such as 'calibrated-ips'"
        )
    if options.inference == "bootstrap" and name != "direct":
        raise UserError(f"estimator {name!r} has no bootstrap; use inference 'jackknife', or the estimator 'direct'")


def _prepare(logged: Logged, options: Options, beside: Labelled | None) -> _Problem:
    fitted = calibrating.fit(logged, options, beside)
    n = len(logged.prompt_id)
    everyone = np.arange(len(fitted.prompts.code)) < n
    judged = logged.judged
    return _Problem(
        logged,
        options,
        fitted,
        fitted.prompts.code[:n],
        fitted.prompts.deal(everyone, options.n_folds, salt=ROWS)[:n],
        rewards(fitted.full, judged),
        fitted.held_out(judged, fitted.fold),
        rewards_by_each(fitted.jackknife, judged),
    )


def _policy(
    problem: _Problem, modules: Mapping[str, ModuleType], log_ratio: np.ndarray, draws: Draws | None
) -> dict[str, tuple[Estimate, np.ndarray | None]]:
    """Estimates of one target policy, and the weights (n,) they used, NaN where a row was left out, by estimator."""
    none = _fresh(problem, None)
    fresh = _fresh(problem, draws) if any(map(_wants_draws, modules.values())) else none
    usable = {name: _usable(module, log_ratio, fresh.judged) for name, module in modules.items()}
    found = {
        name: (_no_estimate(problem, used), None)
        for name, used in usable.items()
        if not _speaks(modules[name], log_ratio[used])
    }
    waiting = [name for name in modules if name not in found]
    while waiting:
        # Estimators that can use the same rows see the same sample, so that its weights are made once.
        used = usable[waiting[0]]
        alike = {name: modules[name] for name in waiting if np.array_equal(usable[name], used)}
        waiting = [name for name in waiting if name not in alike]
        wants = any(map(_wants_draws, alike.values()))
        found |= _evaluated(problem, alike, log_ratio, fresh if wants else none, used)
    return {name: found[name] for name in modules}


def _wants_draws(module: ModuleType) -> bool:
    return "fresh_score" in module.NEEDS


def _usable(module: ModuleType, log_ratio: np.ndarray, fresh: Judged) -> np.ndarray:
    """Rows (n,) that have what the estimator needs."""
    used = np.ones(len(log_ratio), dtype=bool)
    if "log_ratio" in module.NEEDS:
        used &= ~np.isnan(log_ratio)
    if _wants_draws(module):
        used &= ~np.isnan(fresh.score).all(axis=1)
    return used


def _speaks(module: ModuleType, log_ratio: np.ndarray) -> bool:
    """Is there a row at all, and one that the target could have given, where the estimator weighs them?"""
    return len(log_ratio) > 0 and ("log_ratio" not in module.NEEDS or bool(np.isfinite(log_ratio).any()))


def _no_estimate(problem: _Problem, used: np.ndarray) -> Estimate:
    return Estimate(float("nan"), np.full(len(used), np.nan), problem.cluster, np.empty(0), used)


def _evaluated(
    problem: _Problem, modules: Mapping[str, ModuleType], log_ratio: np.ndarray, fresh: _Fresh, used: np.ndarray
) -> dict[str, tuple[Estimate, np.ndarray | None]]:
    """Estimates by estimator on one set of usable rows: once in full, once without each fold of the oracle slice."""
    sample = _sample(problem, log_ratio, fresh, used)
    points = {name: module.estimate(sample, problem.options) for name, module in modules.items()}
    asked = {name: _asks_calibrator(problem, module) for name, module in modules.items()}
    values: dict[str, list[float]] = {name: [] for name in modules}
    for k in range(len(problem.without)) if any(asked.values()) else ():
        without = _sample(problem, log_ratio, fresh, used, without_fold=k)
        for name, module in modules.items():
            if asked[name]:
                values[name].append(module.estimate(without, problem.options).value)
    return {
        name: (_estimate(problem, point, values[name], used, fresh), _spread(point.weight, used))
        for name, point in points.items()
    }


def _asks_calibrator(problem: _Problem, module: ModuleType) -> bool:
    """With every row labelled, estimators that look at logged responses alone never ask the calibrator for a reward."""
    if problem.options.inference == "bootstrap":
        return False
    return not problem.labels_are_rewards or _wants_draws(module)


def _estimate(problem: _Problem, point: Point, jackknife: list[float], used: np.ndarray, fresh: _Fresh) -> Estimate:
    """On the scale of a mean over all n rows: the usable ones carry the influence, the others carry none."""
    influence = point.influence
    if not used.all():
        influence = np.zeros(len(used))
        influence[used] = point.influence * len(used) / used.sum()
    drawn = _replicates(problem, fresh.judged[used], fresh.label[used], used)
    return Estimate(point.value, influence, problem.cluster, np.array(jackknife), used, point.bias, drawn)


def _replicates(problem: _Problem, judged: Judged, label: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Bootstrap values of responses (u, m) to the prompts of the used rows; none unless asked for."""
    options, fitted = problem.options, problem.calibration
    if options.inference != "bootstrap" or fitted.mode == "none":
        return np.empty(0)
    prompts, names = problem.logged.prompt_id[used], fitted.prompts.names
    return bootstrap.replicates(
        fitted.slice, fitted.mode, names, prompts, judged, label, n=options.n_bootstrap, seed=options.seed
    )


def _sample(
    problem: _Problem, log_ratio: np.ndarray, fresh: _Fresh, used: np.ndarray, *, without_fold: int | None = None
) -> Sample:
    """What estimators see; `without_fold` puts the calibrator without that fold in place of all others."""
    rows = slice(None) if used.all() else used
    if without_fold is None:
        reward, index = problem.reward[rows], problem.held_out[rows]
        new, new_held_out = fresh.reward[rows], fresh.held_out[rows]
    else:
        reward = index = problem.without[without_fold][rows]
        new = new_held_out = fresh.without[without_fold][rows]
    label, held_out = problem.logged.oracle_label[rows], index
    if problem.labels_are_rewards:
        reward = held_out = label
    return Sample(
        log_ratio=log_ratio[rows],
        cluster=problem.cluster[rows],
        fold=problem.fold[rows],
        label=label,
        reward=reward,
        held_out=held_out,
        index=index,
        fresh=new,
        fresh_held_out=new_held_out,
        fresh_label=fresh.label[rows],
        weight_variance=problem.options.weight_variance,
    )


def _fresh(problem: _Problem, draws: Draws | None) -> _Fresh:
    n = len(problem.cluster)
    if draws is None:
        nothing = np.empty((n, 0))
        without = np.empty((len(problem.without), n, 0))
        return _Fresh(Judged.of(nothing), nothing, nothing, nothing, without)
    if len(draws.judge_score) != n:
        raise ValueError(
            f"fresh draws of {draws.policy!r} must be aligned with the {n} logged rows, got {len(draws.judge_score)}"
        )
    judged, fitted = draws.judged, problem.calibration
    return _Fresh(
        judged,
        draws.oracle_label,
        rewards(fitted.full, judged),
        fitted.held_out(judged, fitted.fold),
        rewards_by_each(fitted.jackknife, judged),
    )


def _base(problem: _Problem, *, label_term: bool) -> Estimate:
    """Mean reward of the base policy's own responses: mean f(S), or mean Y when every row is labelled.

    Beside an estimator with a label term it has that term, too, with weights of one: then the labels' noise cancels in
    the difference to a target.
    """
    everyone = np.ones(len(problem.cluster), dtype=bool)
    label, judged = problem.logged.oracle_label, problem.logged.judged
    own = label if problem.labels_are_rewards else np.full_like(label, np.nan)
    drawn = _replicates(problem, judged[:, None], own[:, None], everyone)
    if problem.labels_are_rewards:
        return Estimate(
            float(label.mean()), label - label.mean(), problem.cluster, np.empty(0), everyone, replicates=drawn
        )

    def term(held_out: np.ndarray) -> np.ndarray:
        return label_residual(label, held_out, np.ones(len(label))) if label_term else np.zeros(len(label))

    added = term(problem.held_out)
    influence = problem.held_out + added - np.mean(problem.held_out + added)
    value = float(problem.reward.mean() + added.mean())
    jackknife = np.array([np.mean(reward + term(reward)) for reward in problem.without] if not len(drawn) else [])
    return Estimate(value, influence, problem.cluster, jackknife, everyone, replicates=drawn)


def _weights(log_ratio: np.ndarray, used_weight: np.ndarray | None) -> Weights:
    scored = ~np.isnan(log_ratio)
    raw = _spread(hajek(log_ratio[scored]), scored)
    return Weights(raw, raw if used_weight is None else used_weight)


def _spread(values: np.ndarray | None, used: np.ndarray) -> np.ndarray | None:
    """Values (u,) of the used rows over all rows (n,), NaN elsewhere; None stays None."""
    if values is None or used.all():
        return values
    spread = np.full(len(used), np.nan)
    spread[used] = values
    return spread
