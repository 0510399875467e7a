"""From logged rows and fresh draws to estimates, for every estimator.

An estimator is a function of calibrated rewards. It is evaluated once with the calibrator fitted on the whole oracle
slice, which gives the value, and once for every jackknife fold, with the calibrator fitted without that fold in place of
all others; the spread of these values is the oracle slice's part of the variance. A row without a log ratio or without a
fresh draw is left out where the estimator needs it, for that policy alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from arena_cje import estimators
from arena_cje.errors import UserError
from arena_cje.estimation import calibration as calibration_fit
from arena_cje.estimation.calibration import Calibration, rewards, rewards_by_calibrator
from arena_cje.estimation.fresh import MIN_OWN, prompt_weights
from arena_cje.estimation.label_floor import LabelShares, floors
from arena_cje.estimation.records import (
    Draws,
    Estimate,
    Floor,
    Judged,
    Labelled,
    Logged,
    Options,
    Point,
    Sample,
    Weights,
)
from arena_cje.estimation.robust import has_label_term, has_weighted_labels, label_residual
from arena_cje.estimation.weights import hajek
from arena_cje.evaluation import bootstrap
from arena_cje.evaluation.joint import Joint, Responses, joint, shifted
from arena_cje.evaluation.label_shares import SliceLabels, has_own_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

__all__ = ["Evaluation", "Options", "evaluate", "evaluate_all"]

UNIT = (0.0, 1.0)  # the range of labels, and so of values
ROWS = 2  # salt of the folds of outcome models and weights, so that they differ from the calibrator's


@dataclass(frozen=True)
class Evaluation:
    """The estimates of one estimator on one data set, policies in declared order."""

    estimator: str
    options: Options
    estimates: dict[str, Estimate]
    base: Estimate  # of the base policy, from its own responses
    calibration: Calibration
    weights: dict[str, Weights]  # of the policies that have log ratios
    labels_are_rewards: bool = (
        False  # whether every logged response has the oracle's label in place of a calibrated score
    )

    @property
    def n_used(self) -> dict[str, int]:
        """Number of rows that the estimate of each policy uses."""
        return {policy: estimate.n_used for policy, estimate in self.estimates.items()}


@dataclass(frozen=True)
class _CalibratedRows:
    """The logged rows with their calibrated scores, the same for all estimators and policies."""

    logged: Logged
    options: Options
    calibration: Calibration
    cluster: np.ndarray  # (n,) prompt codes
    fold: np.ndarray  # (n,) folds of outcome models and weights
    reward: np.ndarray  # (n,) calibrated scores
    held_out: np.ndarray  # (n,) calibrated scores without the row's cross-fitting fold
    jackknife: np.ndarray  # (K, n) calibrated scores without each jackknife fold
    slice_labels: SliceLabels

    @property
    def labels_are_rewards(self) -> bool:
        """Whether the rewards are the oracle labels, because every row has one."""
        return self.options.rewards == "calibrated" and bool(self.logged.labelled.all())


@dataclass(frozen=True)
class _CalibratedDraws:
    """The fresh draws of one policy with their calibrated scores; m = 0 where no estimator needs them."""

    judged: Judged  # leading shape (n, m)
    label: np.ndarray  # (n, m)
    reward: np.ndarray  # (n, m)
    held_out: np.ndarray  # (n, m)
    jackknife: np.ndarray  # (K, n, m) calibrated scores without each jackknife fold
    label_weight: np.ndarray | None = None  # (n, m) of the labels by their probabilities


def evaluate(
    name: str,
    logged: Logged,
    draws: Mapping[str, Draws] | None,
    options: Options,
    calibration_data: Labelled | None = None,
) -> Evaluation:
    """The value of every target policy and of the base policy, by one estimator.

    draws: fresh draws by policy; calibration_data: labelled responses for the calibrator alone.
    Raises a `UserError` where the data lack an input of the estimator, or an option does not suit it.
    """
    return evaluate_all([name], logged, draws, options, calibration_data)[name]


def evaluate_all(
    names: Sequence[str],
    logged: Logged,
    draws: Mapping[str, Draws] | None,
    options: Options,
    calibration_data: Labelled | None = None,
) -> dict[str, Evaluation]:
    """`evaluate` for several estimators, by name; calibration and weights are computed once for all of them."""
    modules = {name: estimators.get(name) for name in names}
    draws = draws or {}
    check_logged(logged)
    for name, module in modules.items():
        check_needs(name, module, logged, draws, options)
    rows = _calibrate_rows(logged, options, calibration_data, single=_is_joint(logged, draws, options))
    joints = _joint_estimates(rows, modules, draws)
    bases, estimates, shares, weights = {}, {name: {} for name in names}, {}, {name: {} for name in names}
    for name, module in modules.items():
        label_term = has_label_term(module, options)
        bases[name] = _estimate_base(rows, label_term=label_term)
        shares[name] = {logged.base_policy: _base_shares(rows, label_term=label_term)}
    for column, policy in enumerate(logged.policies):
        log_ratio = logged.log_ratio[:, column]
        for name, (estimate, weight, label_shares) in _estimate_policy(
            rows, modules, joints, policy, log_ratio, draws.get(policy)
        ).items():
            estimates[name][policy] = estimate
            if label_shares is not None:
                shares[name][policy] = label_shares
            scored = ~np.isnan(log_ratio)
            if scored.any():
                raw = _on_all_rows(hajek(log_ratio[scored]), scored)
                weights[name][policy] = Weights(raw, raw if weight is None else weight)
    for name, module in modules.items():
        own = joints[name]
        if own is not None and logged.base_policy in own.values and not has_label_term(module, options):
            bases[name], estimates[name], shares[name] = _on_joint_level(
                rows, own, bases[name], estimates[name], shares[name]
            )
        least = floors(shares[name])
        bases[name] = replace(bases[name], floor=least[logged.base_policy], bounds=UNIT)
        estimates[name] = {
            policy: replace(estimate, floor=least.get(policy, Floor()), bounds=UNIT)
            for policy, estimate in estimates[name].items()
        }
    return {
        name: Evaluation(
            name, options, estimates[name], bases[name], rows.calibration, weights[name], rows.labels_are_rewards
        )
        for name in names
    }


def check_logged(logged: Logged) -> None:
    """Raise for arrays that cannot be analysed: scores or labels outside [0, 1], a log ratio of +inf, a wrong shape.

    Log ratios of -inf, and missing ones, are allowed.
    """
    n, p = len(logged.prompt_id), len(logged.policies)
    if logged.log_ratio.shape != (n, p):
        raise ValueError(f"log_ratio must have shape {(n, p)} (rows, target policies), got {logged.log_ratio.shape}")
    for what, values in (("judge score", logged.judge_score), ("oracle label", logged.oracle_label[logged.labelled])):
        outside = np.flatnonzero(~((values >= 0) & (values <= 1)))
        if len(outside):
            raise UserError(
                f"logged data: {len(outside)} of {len(values)} {what}s are outside [0, 1] or missing, for example "
                f"{values[outside[0]]}; declare the scale, or leave these rows out"
            )
    if (logged.log_ratio == np.inf).any():
        raise UserError(
            "logged data: a log ratio of +inf means that the base policy gives its own response probability 0; compute the "
            "log probabilities under the base policy again"
        )


def check_needs(name: str, module: ModuleType, logged: Logged, draws: Mapping[str, Draws], options: Options) -> None:
    """Raise a `UserError` where the data lack an input of the estimator, or where it lacks an option."""
    if "log_ratio" in module.NEEDS and np.isnan(logged.log_ratio).all():
        raise UserError(
            f"estimator {name!r} needs log probabilities of the base responses under the target policies; the data set "
            "has none: add target_policy_logprobs, or choose 'direct'"
        )
    missing = [policy for policy in logged.policies if policy not in draws]
    if _uses_draws(module) and missing:
        raise UserError(
            f"estimator {name!r} needs fresh draws of every target policy; there are none for "
            f"{', '.join(map(repr, missing))}: add them, or choose an estimator that works on the logged responses, such as "
            "'calibrated-ips'"
        )
    if options.inference == "bootstrap" and name != "direct":
        raise UserError(f"estimator {name!r} has no bootstrap; use inference 'jackknife', or the estimator 'direct'")


def _is_joint(logged: Logged, draws: Mapping[str, Draws], options: Options) -> bool:
    """Whether targets have labels of their own for a joint estimate, whose mean labels need as many folds as there are."""
    if options.correction != "joint" or options.inference == "bootstrap" or options.rewards == "judge":
        return False
    labelled = ((~np.isnan(one.scored_label)).any(axis=1) for one in draws.values())
    return any(rows.any() and len(np.unique(logged.prompt_id[rows])) >= MIN_OWN for rows in labelled)


def _calibrate_rows(
    logged: Logged, options: Options, calibration_data: Labelled | None, *, single: bool
) -> _CalibratedRows:
    calibration = calibration_fit.fit(logged, options, calibration_data, single=single)
    n = len(logged.prompt_id)
    is_logged = np.arange(len(calibration.prompts.code)) < n  # calibration data follow the logged rows
    judged = logged.judged
    return _CalibratedRows(
        logged,
        options,
        calibration,
        calibration.prompts.code[:n],
        calibration.prompts.deal(is_logged, options.n_folds, salt=ROWS)[:n],
        rewards(calibration.full, judged),
        calibration.held_out(judged, calibration.fold),
        rewards_by_calibrator(calibration.jackknife, judged),
        SliceLabels.of(logged, calibration),
    )


def _calibrate_draws(rows: _CalibratedRows, draws: Draws | None) -> _CalibratedDraws:
    n, calibration = len(rows.cluster), rows.calibration
    if draws is None:
        empty = np.empty((n, 0))
        return _CalibratedDraws(Judged.of(empty), empty, empty, empty, np.empty((len(rows.jackknife), n, 0)))
    if len(draws.judge_score) != n:
        raise ValueError(
            f"fresh draws of {draws.policy!r} must be aligned with the {n} logged rows, got {len(draws.judge_score)}"
        )
    judged = draws.judged
    corrects = rows.options.correction != "none"
    return _CalibratedDraws(
        judged,
        draws.oracle_label if corrects else np.full_like(draws.oracle_label, np.nan),
        rewards(calibration.full, judged),
        calibration.held_out(judged, calibration.fold),
        rewards_by_calibrator(calibration.jackknife, judged),
        draws.label_weight,
    )


def _joint_estimates(
    rows: _CalibratedRows, modules: Mapping[str, ModuleType], draws: Mapping[str, Draws]
) -> dict[str, Joint | None]:
    """The joint estimate that each estimator takes its fresh-draw means from, None where it takes none."""
    logged, options = rows.logged, rows.options
    if not _is_joint(logged, draws, options):
        return dict.fromkeys(modules)
    by_rows: dict[bytes, Joint | None] = {}  # estimators that use the same rows have the same one
    joints = dict.fromkeys(modules)
    for name, module in modules.items():
        if not _uses_draws(module):
            continue
        used = [_usable(module, logged.log_ratio[:, k], draws[p].judged) for k, p in enumerate(logged.policies)]
        key = np.array(used).tobytes()
        if key not in by_rows:
            base_used = np.ones(len(rows.cluster), dtype=bool)
            responses = {
                logged.base_policy: Responses.of(
                    logged.judged[:, None], logged.oracle_label[:, None], base_used, _column(logged.label_weight)
                )
            }
            for policy, mask in zip(logged.policies, used, strict=True):
                own = draws[policy]
                responses[policy] = Responses.of(own.judged, own.oracle_label, mask, own.label_weight)
            by_rows[key] = joint(logged, rows.calibration, rows.cluster, responses)
        joints[name] = by_rows[key]
    return joints


def _column(values: np.ndarray | None) -> np.ndarray | None:
    """Values (n,) as those of one draw of each row, (n, 1)."""
    return None if values is None else values[:, None]


def _estimate_policy(
    rows: _CalibratedRows,
    modules: Mapping[str, ModuleType],
    joints: Mapping[str, Joint | None],
    policy: str,
    log_ratio: np.ndarray,
    draws: Draws | None,
) -> dict[str, tuple[Estimate, np.ndarray | None, LabelShares | None]]:
    """By estimator, the estimate of one target policy, the weights (n,) that it used and what it rests on.

    Weights are NaN where a row is left out.
    """
    no_draws = _calibrate_draws(rows, None)
    fresh = _calibrate_draws(rows, draws) if any(map(_uses_draws, modules.values())) else no_draws
    usable = {name: _usable(module, log_ratio, fresh.judged) for name, module in modules.items()}
    results: dict[str, tuple[Estimate, np.ndarray | None, LabelShares | None]] = {}
    remaining = []
    for name, used in usable.items():
        if _is_estimable(modules[name], log_ratio[used]):
            remaining.append(name)
        else:
            missing = np.full(len(used), np.nan)
            results[name] = Estimate(float("nan"), missing, rows.cluster, np.empty(0), used), None, None
    while remaining:
        # Estimators with the same usable rows have the same sample, whose weights are computed once.
        used = usable[remaining[0]]
        group = {name: modules[name] for name in remaining if np.array_equal(usable[name], used)}
        remaining = [name for name in remaining if name not in group]
        with_draws = [name for name, module in group.items() if _uses_draws(module)]
        group_draws, own = (fresh, joints[with_draws[0]]) if with_draws else (no_draws, None)
        own = own if own is not None and policy in own.values else None
        results |= _estimate_group(rows, group, own, policy, log_ratio, group_draws, used)
    return {name: results[name] for name in modules}


def _uses_draws(module: ModuleType) -> bool:
    return "fresh_score" in module.NEEDS


def _usable(module: ModuleType, log_ratio: np.ndarray, fresh: Judged) -> np.ndarray:
    """Rows (n,) bool that have every input of the estimator."""
    used = np.ones(len(log_ratio), dtype=bool)
    if "log_ratio" in module.NEEDS:
        used &= ~np.isnan(log_ratio)
    if _uses_draws(module):
        used &= ~np.isnan(fresh.score).all(axis=1)
    return used


def _is_estimable(module: ModuleType, log_ratio: np.ndarray) -> bool:
    """Whether there is a usable row and, for an estimator with weights, one that the target could have given."""
    return len(log_ratio) > 0 and ("log_ratio" not in module.NEEDS or bool(np.isfinite(log_ratio).any()))


def _estimate_group(
    rows: _CalibratedRows,
    modules: Mapping[str, ModuleType],
    own: Joint | None,
    policy: str,
    log_ratio: np.ndarray,
    fresh: _CalibratedDraws,
    used: np.ndarray,
) -> dict[str, tuple[Estimate, np.ndarray | None, LabelShares]]:
    """Estimates, weights (n,) and label shares by estimator, on one set of usable rows.

    own: the joint estimate that has the policy. Values are computed in full, and without each jackknife fold.
    """
    sample = _sample(rows, log_ratio, fresh, used, joint=None if own is None else own.point(policy, used))
    points = {name: module.estimate(sample, rows.options) for name, module in modules.items()}
    jackknife: dict[str, list[float]] = {name: [] for name, module in modules.items() if _needs_jackknife(rows, module)}
    for k in range(len(rows.jackknife)) if jackknife else ():
        point = None if own is None else own.point(policy, used, k)
        without_fold = _sample(rows, log_ratio, fresh, used, joint=point, jackknife_fold=k)
        for name, values in jackknife.items():
            values.append(modules[name].estimate(without_fold, rows.options).value)
    return {
        name: (
            _estimate(rows, point, jackknife.get(name, []), used, fresh),
            _on_all_rows(point.weight, used),
            _label_shares(rows, modules[name], own, policy, sample, point, fresh, used),
        )
        for name, point in points.items()
    }


def _label_shares(
    rows: _CalibratedRows,
    module: ModuleType,
    own: Joint | None,
    policy: str,
    sample: Sample,
    point: Point,
    fresh: _CalibratedDraws,
    used: np.ndarray,
) -> LabelShares:
    """Which labels the value of a target rests on."""
    labels, score, uses_draws = rows.slice_labels, rows.logged.judge_score, _uses_draws(module)
    label_term = has_label_term(module, rows.options)
    label_weight = np.where(np.isnan(sample.label), 0.0, sample.raw)
    if sample.label_weight is not None and not rows.labels_are_rewards:
        label_weight = label_weight * sample.label_weight
    label_weight = _on_all_rows_or_zero(label_weight, used)
    if not uses_draws:
        if rows.labels_are_rewards:
            return labels.under_weights(label_weight)
        return labels.behind_calibrator(score[used], sample.raw)
    fresh_score = fresh.judged.score[used]  # (u, m)
    mean_reward = labels.behind_calibrator(fresh_score, prompt_weights(fresh_score))
    if has_weighted_labels(sample.label, label_term=label_term, raw_residual=point.weight is sample.raw):
        return labels.with_label_term(mean_reward, score, label_weight)
    if own is not None:
        return labels.of_joint(own, policy, is_base=False)
    if has_own_labels(sample.fresh_label, sample.cluster):
        return labels.of_own_draws(sample.fresh_label, sample.fresh_held_out, used, sample.fresh_label_weight)
    return mean_reward


def _needs_jackknife(rows: _CalibratedRows, module: ModuleType) -> bool:
    """Whether the value depends on the calibrator: not where all rewards are labels of logged responses."""
    if rows.options.inference == "bootstrap":
        return False
    return not rows.labels_are_rewards or _uses_draws(module)


def _estimate(
    rows: _CalibratedRows, point: Point, jackknife: list[float], used: np.ndarray, fresh: _CalibratedDraws
) -> Estimate:
    """The estimate with an influence function over all n rows, scaled so that its mean is that over the used rows."""
    influence = point.influence
    if not used.all():
        influence = np.zeros(len(used))
        influence[used] = point.influence * len(used) / used.sum()
    label_weight = None if fresh.label_weight is None else fresh.label_weight[used]
    replicates = _replicates(rows, fresh.judged[used], fresh.label[used], used, label_weight)
    return Estimate(point.value, influence, rows.cluster, np.array(jackknife), used, point.bias, replicates)


def _replicates(
    rows: _CalibratedRows, judged: Judged, label: np.ndarray, used: np.ndarray, label_weight: np.ndarray | None = None
) -> np.ndarray:
    """Bootstrap values (B,) from responses (u, m) to the prompts of the used rows; B = 0 without a bootstrap."""
    options, calibration = rows.options, rows.calibration
    if options.inference != "bootstrap" or calibration.mode == "none":
        return np.empty(0)
    return bootstrap.replicates(
        calibration.slice,
        calibration.mode,
        calibration.prompts.names,
        rows.logged.question[used],
        judged,
        label,
        label_weight,
        n=options.n_bootstrap,
        seed=options.seed,
    )


def _sample(
    rows: _CalibratedRows,
    log_ratio: np.ndarray,
    fresh: _CalibratedDraws,
    used: np.ndarray,
    *,
    joint: tuple[float, np.ndarray] | None,
    jackknife_fold: int | None = None,
) -> Sample:
    """The sample of the used rows; with a jackknife fold, the calibrator without it gives every calibrated score.

    joint: fresh-draw mean and influence by the joint estimate, where it has the policy.
    """
    index = slice(None) if used.all() else used
    if jackknife_fold is None:
        reward, score = rows.reward[index], rows.held_out[index]
        fresh_reward, fresh_held_out = fresh.reward[index], fresh.held_out[index]
    else:
        reward = score = rows.jackknife[jackknife_fold][index]
        fresh_reward = fresh_held_out = fresh.jackknife[jackknife_fold][index]
    label, held_out = rows.logged.oracle_label[index], score
    if rows.labels_are_rewards:
        reward = held_out = label
    label_weight = rows.logged.label_weight
    return Sample(
        log_ratio=log_ratio[index],
        cluster=rows.cluster[index],
        fold=rows.fold[index],
        label=label,
        reward=reward,
        held_out=held_out,
        index=score,
        fresh=fresh_reward,
        fresh_held_out=fresh_held_out,
        fresh_label=fresh.label[index],
        weight_variance=rows.options.weight_variance,
        label_weight=None if label_weight is None else label_weight[index],
        fresh_label_weight=None if fresh.label_weight is None else fresh.label_weight[index],
        joint=joint,
    )


def _estimate_base(rows: _CalibratedRows, *, label_term: bool) -> Estimate:
    """Mean reward of the base policy's own responses: mean f(S), or mean Y when every row is labelled.

    For an estimator with a label term it has that term with weights of one, so that the noise of the labels cancels in
    the difference to a target.
    """
    used = np.ones(len(rows.cluster), dtype=bool)
    label, judged = rows.logged.oracle_label, rows.logged.judged
    response_label = label if rows.labels_are_rewards else np.full_like(label, np.nan)
    replicates = _replicates(rows, judged[:, None], response_label[:, None], used)
    if rows.labels_are_rewards:
        return Estimate(
            float(label.mean()), label - label.mean(), rows.cluster, np.empty(0), used, replicates=replicates
        )

    def term(held_out: np.ndarray) -> np.ndarray:
        if not label_term:
            return np.zeros(len(label))
        return label_residual(label, held_out, np.ones(len(label)), rows.logged.label_weight)

    residual = term(rows.held_out)
    influence = rows.held_out + residual - np.mean(rows.held_out + residual)
    value = float(rows.reward.mean() + residual.mean())
    jackknife = np.array([np.mean(reward + term(reward)) for reward in rows.jackknife] if not len(replicates) else [])
    return Estimate(value, influence, rows.cluster, jackknife, used, replicates=replicates)


def _base_shares(rows: _CalibratedRows, *, label_term: bool) -> LabelShares:
    """Which labels the value of the base policy rests on."""
    labels = rows.slice_labels
    score, labelled = rows.logged.judge_score, rows.logged.labelled.astype(float)
    if rows.labels_are_rewards:
        return labels.under_weights(labelled)
    mean_reward = labels.behind_calibrator(score, np.ones(len(score)))
    if not (label_term and labelled.any()):
        return mean_reward
    weight = rows.logged.label_weight
    return labels.with_label_term(mean_reward, score, labelled if weight is None else weight)


def _on_joint_level(
    rows: _CalibratedRows,
    own: Joint,
    base: Estimate,
    estimates: Mapping[str, Estimate],
    shares: Mapping[str, LabelShares],
) -> tuple[Estimate, dict[str, Estimate], dict[str, LabelShares]]:
    """The base policy's value of the joint estimate, all targets on its level, and what they rest on.

    A target without labels of its own keeps its difference to the base, since no labels correct it: what the joint
    estimate adds to the base's mean calibrated score is added to it too.
    """
    if rows.labels_are_rewards:  # the base's value is the mean label already
        return base, dict(estimates), dict(shares)
    name = rows.logged.base_policy
    value, influence = own.point(name, base.used)
    joint_base = Estimate(value, influence, rows.cluster, own.without[name], base.used)
    shift, base_shares = joint_base - base, rows.slice_labels.of_joint(own, name, is_base=True)
    moved = {
        policy: one if policy in own.values or not np.isfinite(one.value) else shifted(one, shift)
        for policy, one in estimates.items()
    }
    rests_on = {
        policy: one if policy in own.values else replace(base_shares, cell=one.cell - shares[name].cell)
        for policy, one in shares.items()
    }
    return joint_base, moved, rests_on | {name: base_shares}


def _on_all_rows_or_zero(values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Values (u,) of the used rows at their places among all rows (n,), zero elsewhere."""
    all_values = np.zeros(len(used))
    all_values[used] = values
    return all_values


def _on_all_rows(values: np.ndarray | None, used: np.ndarray) -> np.ndarray | None:
    """Values (u,) of the used rows at their places among all rows (n,), NaN elsewhere; None stays None."""
    if values is None or used.all():
        return values
    all_values = np.full(len(used), np.nan)
    all_values[used] = values
    return all_values
