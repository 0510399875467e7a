"""The content of a results file, made from the records of an analysis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.diagnostics.calibration import diagnose as diagnose_calibration
from arena_cje.estimation.contrasts import corrected_contrasts, differences_to
from arena_cje.estimation.isotonic import Monotone
from arena_cje.results import decision as decisions
from arena_cje.results.record import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from arena_cje.diagnostics.evidence import Evidence
    from arena_cje.diagnostics.judge_worth import JudgeWorth
    from arena_cje.diagnostics.remedies import Remedy
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.estimation.decision import DecisionRule
    from arena_cje.estimation.records import Estimate, Logged, Verdict
    from arena_cje.evaluation.evaluate import Evaluation

CURVE_POINTS = 101  # of the curve of a calibrator with covariates


@dataclass(frozen=True)
class Analysis:
    """The records that the results file is made from."""

    module: ModuleType
    logged: Logged
    evaluation: Evaluation
    evidence: dict[str, Evidence]  # the base policy first, here and below
    verdicts: dict[str, Verdict]
    remedies: dict[str, tuple[Remedy, ...]]
    judge_worth: JudgeWorth
    thresholds: Thresholds
    alpha: float
    rule: DecisionRule
    sides: dict[str, decisions.Side]

    @property
    def estimates(self) -> dict[str, Estimate]:
        """By policy, the base policy first."""
        return {self.logged.base_policy: self.evaluation.base} | self.evaluation.estimates


def content(analysis: Analysis) -> dict[str, Any]:
    """The content of the results file, without the metadata of the call."""
    logged, evaluation = analysis.logged, analysis.evaluation
    numbers = {
        policy: {
            "estimate": estimate.value,
            "se": estimate.se,
            "confidence_interval": estimate.interval(analysis.alpha),
        }
        for policy, estimate in analysis.estimates.items()
    }
    refused = [policy for policy, verdict in analysis.verdicts.items() if not verdict.ok]
    published = numbers | dict.fromkeys(refused, {"estimate": None, "se": None, "confidence_interval": [None, None]})
    return {
        "schema_version": SCHEMA_VERSION,
        "estimates": [published[policy]["estimate"] for policy in logged.policies],
        "standard_errors": [published[policy]["se"] for policy in logged.policies],
        "confidence_intervals": [published[policy]["confidence_interval"] for policy in logged.policies],
        "base_policy": {"policy": logged.base_policy} | published[logged.base_policy],
        "refused": {policy: numbers[policy] | {"reasons": analysis.verdicts[policy].grounds} for policy in refused},
        "verdicts": {
            policy: {"level": verdict.level, "reasons": [dataclasses.asdict(reason) for reason in verdict.reasons]}
            for policy, verdict in analysis.verdicts.items()
        },
        "remedies": {
            policy: [dataclasses.asdict(remedy) for remedy in of_policy]
            for policy, of_policy in analysis.remedies.items()
        },
        "differences_to_base": _differences(analysis, refused),
        "best_policy": _best_policy(numbers, refused),
        "se_components": {policy: _se_components(estimate) for policy, estimate in analysis.estimates.items()},
        "calibration": _calibration(evaluation, analysis.thresholds),
        "judge_worth": _judge_worth(analysis.judge_worth),
        "n_used": {policy: estimate.n_used for policy, estimate in analysis.estimates.items()},
        "metadata": {
            "target_policies": list(logged.policies),
            "estimator": evaluation.estimator,
            "n_samples": len(logged.prompt_id),
            "n_prompts": len(np.unique(logged.prompt_id)),
            **({} if logged.cluster_id is None else {"n_clusters": len(np.unique(logged.cluster_id))}),
            "diagnostics": {policy: _diagnostics(analysis, policy) for policy in analysis.estimates},
        },
    }


def _differences(analysis: Analysis, refused: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The paired difference of each target to the base policy; null where either is refused."""
    base, rule = analysis.logged.base_policy, analysis.rule
    if rule.against in (None, base):
        pairs = differences_to(base, analysis.estimates, refused=refused, alpha=analysis.alpha)
    else:  # some of these are then among the pairs that rank
        pairs = corrected_contrasts(
            analysis.estimates, base=base, reference=rule.against, refused=refused, alpha=analysis.alpha
        )
    return {
        one.first: {
            "difference": one.difference,
            "se": one.se,
            "confidence_interval": [one.ci_lower, one.ci_upper],
            "df": one.df,
            "p_value": one.p_value,
            "corrected_interval": [one.corrected_lower, one.corrected_upper],
            "p_corrected": one.p_corrected,
            "reasons": [dataclasses.asdict(reason) for reason in decisions.reasons(one, analysis.sides)],
        }
        for one in pairs
        if one.second == base
    }


def _best_policy(numbers: Mapping[str, Any], refused: Sequence[str]) -> dict[str, Any]:
    """The policy with the highest published value, and the refused policies whose number is higher still."""
    published = {policy: number["estimate"] for policy, number in numbers.items() if policy not in refused}
    best = max(published, key=published.get, default=None)
    higher = [name for name in refused if numbers[name]["estimate"] > published.get(best, -math.inf)]
    return {"policy": best, "refused_but_higher": higher}


def _se_components(estimate: Estimate) -> dict[str, Any]:
    """The parts of the standard error: se^2 = max(sampling^2 + oracle^2, label_floor^2) + cap_bias^2; cap_bias has a sign.

    With a bootstrap, the variance of the replicates takes the place of sampling^2 + oracle^2. A paired difference of two
    policies is computed from their influence values, the deviations of the jackknife values, and its own floor.
    """
    jackknife = estimate.jackknife
    return {
        "sampling": math.sqrt(estimate.sampling_variance),
        "oracle": math.sqrt(estimate.oracle_variance),
        "cap_bias": estimate.bias,
        "label_floor": estimate.floor.value,
        "label_floor_of_difference": dict(estimate.floor.differences),
        "df": estimate.df,
        "n_jackknife": len(jackknife),
        "jackknife_deviations": (jackknife - jackknife.mean()).tolist() if len(jackknife) else [],
    } | ({"bootstrap_deviations": (estimate.replicates - estimate.value).tolist()} if len(estimate.replicates) else {})


def _calibration(evaluation: Evaluation, thresholds: Thresholds) -> dict[str, Any]:
    """Diagnostics of the calibrator, and its curve: reward by judge score, linear between the knots.

    The curve of a calibrator with covariates is that at their median over the labelled responses.
    """
    calibration = evaluation.calibration
    entries = dataclasses.asdict(diagnose_calibration(calibration, thresholds)) | {"choice": dict(calibration.choice)}
    entries["reasons"] = [reason["code"] for reason in entries["reasons"]]
    if isinstance(calibration.full, Monotone):
        return entries | {"knots": calibration.full.knots.tolist(), "values": calibration.full.values.tolist()}
    if not len(calibration.label):
        return entries | {"knots": [], "values": []}
    knots = np.linspace(calibration.score.min(), calibration.score.max(), CURVE_POINTS)
    median = np.median(calibration.slice.judged.covariates, axis=0)  # (c,)
    values = calibration.full(knots, np.broadcast_to(median, (CURVE_POINTS, len(median))))
    return entries | {"knots": knots.tolist(), "values": np.asarray(values).tolist()}


def _judge_worth(of_judge: JudgeWorth) -> dict[str, Any]:
    """The share of labels that the judge saves by policy, and further judges beside it."""
    return {
        "policies": {policy: dataclasses.asdict(one) for policy, one in of_judge.policies.items()},
        "further_judges": {
            name: dataclasses.asdict(one.worth)
            | {"label_ratio": one.label_ratio, "ratio_interval": one.ratio_interval, "spearman": one.spearman}
            for name, one in of_judge.others.items()
        },
    }


def _diagnostics(analysis: Analysis, policy: str) -> dict[str, Any]:
    """Diagnostics of one policy; `ess` and `max_weight` are those of the estimator's weights, null if it has none."""
    entries: dict[str, Any] = {"level": analysis.verdicts[policy].level, "n_used": analysis.estimates[policy].n_used}
    entries["rests_on"] = analysis.sides[policy].rests_on
    evidence = analysis.evidence[policy]
    if evidence.overlap is not None:
        weighted = "log_ratio" in analysis.module.NEEDS
        entries |= {
            "ess": evidence.overlap.stabilised.ess_share if weighted else None,
            "max_weight": evidence.overlap.stabilised.max_weight if weighted else None,
            "ess_raw": evidence.overlap.raw.ess_share,
            "max_weight_raw": evidence.overlap.raw.max_weight,
            "weights": dataclasses.asdict(evidence.overlap),
        }
    if evidence.support is not None:
        entries |= {
            "effective_labels": evidence.support.effective_labels,
            "label_share": evidence.support.share,
            "unsupported_share": evidence.support.unsupported,
            "judge_affinity": evidence.affinity,
        }
    if evidence.boundary is not None:
        entries["boundary"] = dataclasses.asdict(evidence.boundary)
    if evidence.audit is not None:
        entries |= {"transport": dataclasses.asdict(evidence.audit), "own_labels_used": evidence.own_labels}
    return entries


def plain(value: Any) -> Any:
    """A value as JSON can express it: NaN, which means unknown, as null; an infinite number, which is known, as text."""
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)
