"""The joint estimate of `arena_cje.estimation.joint` on a data set: calibrated scores, values, and values without each fold.

The policies are the base and the targets that have labels on ten prompts of their own responses, as long as one target
is among them. Their calibrated scores come from one calibrator, cross-fitted over prompts and fitted to the labels of
all of them but those of a target whose labels differ clearly from the predictions of the base's calibrator. The other
targets keep their differences to the base, on the level of its joint value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.calibration import calibrate, concatenated, joined_weights
from arena_cje.estimation.fresh import MIN_OWN, labelled_prompts
from arena_cje.estimation.joint import Column, joint_values, labelled_share, values_without
from arena_cje.estimation.records import effective_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.estimation.calibration import Calibration, Calibrator
    from arena_cje.estimation.joint import JointValue
    from arena_cje.estimation.records import Estimate, Judged, Logged

UNLIKE = 3.0  # standard errors of the mean residual beyond which a target's labels are not pooled


@dataclass(frozen=True)
class Responses:
    """Judged responses of one policy, those of a prompt repeated for each of its rows, and their labels."""

    judged: Judged  # leading shape (n, m); scores are NaN where a response is missing or not used
    label: np.ndarray  # (n, m), NaN where there is no label or no score
    weight: np.ndarray | None = None  # (n, m) of the labels by their probabilities; None: all are equal

    @classmethod
    def of(cls, judged: Judged, label: np.ndarray, used: np.ndarray, weight: np.ndarray | None) -> Responses:
        """Of the used rows (n,) bool; judged, labels and weights have the leading shape (n, m)."""
        points = np.where(used[:, None, None], judged.points, np.nan)
        return cls(replace(judged, points=points), np.where(np.isnan(points).any(axis=-1), np.nan, label), weight)

    @property
    def scored(self) -> np.ndarray:
        """Responses that have a score, (n, m) bool."""
        return ~np.isnan(self.judged.points).any(axis=-1)


@dataclass(frozen=True)
class Joint:
    """Values of the policies that have one, in full and without each fold of the oracle slice."""

    values: Mapping[str, JointValue]
    without: Mapping[str, np.ndarray]  # (K,) by policy
    label: Mapping[str, np.ndarray]  # (n,) mean label of each row, NaN where there is none
    share: Mapping[str, np.ndarray]  # (n,) share of each row's labels in the mean label, summing to one

    def point(self, policy: str, used: np.ndarray, fold: int | None = None) -> tuple[float, np.ndarray]:
        """Value and influence (u,) of a policy; without a fold, its value alone counts."""
        if fold is not None:
            return float(self.without[policy][fold]), np.zeros(int(used.sum()))
        return self.values[policy].value, self.values[policy].influence[used]


def shifted(estimate: Estimate, shift: Estimate) -> Estimate:
    """The sum of an estimate and a shift that is itself a difference of estimates on the same rows."""
    return replace(
        estimate,
        value=estimate.value + shift.value,
        influence=estimate.influence + np.where(estimate.used, shift.influence, 0.0),
        jackknife=estimate.jackknife + shift.jackknife,
    )


def joint(
    logged: Logged, calibration: Calibration, cluster: np.ndarray, responses: Mapping[str, Responses]
) -> Joint | None:
    """The joint estimate; None where no target has labels on enough prompts.

    cluster: prompt codes (n,) of the rows; responses: by policy, those of the base among them.
    """
    counts = {policy: labelled_prompts(one.label, cluster) for policy, one in responses.items()}
    policies = [policy for policy, count in counts.items() if count >= MIN_OWN]
    if not set(policies) - {logged.base_policy}:
        return None
    chosen = [responses[policy] for policy in policies]
    prompts = [_effective(counts[policy], responses[policy]) for policy in policies]
    columns = _columns(calibration, _pooled_calibrators(logged, calibration, cluster, policies, responses), chosen)
    values = joint_values(columns, prompts)
    without = values_without(columns, prompts, calibration.group, len(calibration.jackknife))
    return Joint(
        dict(zip(policies, values, strict=True)),
        dict(zip(policies, without.T, strict=True)),
        {policy: column.label for policy, column in zip(policies, columns, strict=True)},
        {policy: labelled_share(column) for policy, column in zip(policies, columns, strict=True)},
    )


def _effective(prompts: int, one: Responses) -> int:
    """The number of labelled prompts, less what unequal weights of their labels take off."""
    if one.weight is None:
        return prompts
    weight = one.weight[~np.isnan(one.label)]
    return int(prompts * effective_number(weight) / len(weight))


def _columns(
    calibration: Calibration, cross_fitted: tuple[Calibrator, ...], responses: Sequence[Responses]
) -> list[Column]:
    """Row means of scores by these calibrators, and of labels."""
    fitted = replace(calibration, cross_fitted=cross_fitted)
    columns = []
    for one in responses:
        reward = fitted.held_out(one.judged, calibration.fold)  # (n, m)
        scored, labelled = one.scored, ~np.isnan(one.label)
        label_weight = labelled if one.weight is None else np.where(labelled, one.weight, 0.0)
        n_labelled = labelled.sum(axis=1)
        columns.append(
            Column(
                _row_mean(reward, scored),
                _row_mean(reward, label_weight),
                _row_mean(one.label, label_weight),
                n_labelled / np.maximum(scored.sum(axis=1), 1),
                None if one.weight is None else label_weight.sum(axis=1) / np.maximum(n_labelled, 1),
            )
        )
    return columns


def _row_mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean (n,) over responses (n, m) with weights (n, m), NaN where all are zero."""
    total = weight.sum(axis=1)
    mean = np.where(weight > 0, weight * values, 0.0).sum(axis=1) / np.where(total > 0, total, 1)
    return np.where(total > 0, mean, np.nan)


def _pooled_calibrators(
    logged: Logged,
    calibration: Calibration,
    cluster: np.ndarray,
    policies: Sequence[str],
    responses: Mapping[str, Responses],
) -> tuple[Calibrator, ...]:
    """Calibrators without each cross-fitting fold, fitted to the oracle slice and the labels of the targets that agree with it.

    Each response counts once.
    """
    judged, label, fold = calibration.slice.judged, calibration.label, calibration.slice_fold
    residual = label - calibration.held_out(judged, fold)
    weights, sizes = [calibration.slice.weight], [len(label)]
    first_rows = np.unique(cluster, return_index=True)[1]  # responses are repeated for each row of their prompt
    for policy in policies:
        one = responses[policy]
        row, column = np.nonzero(~np.isnan(one.label[first_rows]))
        row = first_rows[row]
        own, own_label, own_fold = one.judged[row, column], one.label[row, column], calibration.fold[row]
        own_residual = own_label - calibration.held_out(own, own_fold)
        own_weight = None if one.weight is None else one.weight[row, column]
        if policy != logged.base_policy and not _differ(own_residual, own_weight, residual, calibration.slice.weight):
            judged, label = concatenated(judged, own), np.concatenate([label, own_label])
            fold = np.concatenate([fold, own_fold])
            weights.append(own_weight)
            sizes.append(len(own_label))
    weight = joined_weights(weights, sizes)
    folds = [fold != k for k in range(len(calibration.cross_fitted))]
    return tuple(
        calibrate(judged[rows], label[rows], calibration.mode, None if weight is None else weight[rows])
        for rows in folds
    )


def _differ(own: np.ndarray, own_weight: np.ndarray | None, base: np.ndarray, base_weight: np.ndarray | None) -> bool:
    """Whether the mean of a target's residuals (k,) is clearly off zero; base: residuals (l,) of the oracle slice.

    The calibrator has an error of its own, about that of the mean residual of the slice.
    """
    mean, variance = _weighted_mean(own, own_weight)
    error = np.sqrt(variance + _weighted_mean(base, base_weight)[1])
    return bool(abs(mean) > UNLIKE * error)


def _weighted_mean(values: np.ndarray, weight: np.ndarray | None) -> tuple[float, float]:
    """The mean of values (k,) with weights (k,), None for equal ones, and its variance."""
    if weight is None:
        return values.mean(), values.var() / len(values)
    mean = np.average(values, weights=weight)
    return mean, np.average((values - mean) ** 2, weights=weight) / effective_number(weight)
