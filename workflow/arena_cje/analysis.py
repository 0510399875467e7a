"""From data in the CJE format to a result: what `arena_cje.analyze` does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from arena_cje import estimators
from arena_cje.dataset import find_draws, load_draws, load_logged
from arena_cje.diagnostics import calibration, overlap, support
from arena_cje.diagnostics.support import Support
from arena_cje.diagnostics.thresholds import Thresholds, moved
from arena_cje.diagnostics.verdict import base_support, judge, judge_base, target_scores, target_support
from arena_cje.errors import UserError
from arena_cje.estimation.estimate import Evaluation, evaluate
from arena_cje.estimation.records import Draws, Estimate, Logged, Options, Reason, Verdict
from arena_cje.files import json_text
from arena_cje.labeling import first_come
from arena_cje.results import SCHEMA_VERSION, Result, load, write

if TYPE_CHECKING:
    from arena_cje.cje_format import Source

__all__ = ["Result", "Thresholds", "analyze", "load", "write"]


@dataclass(frozen=True)
class _Analysis:
    """One analysis, computed and about to be written down."""

    module: ModuleType
    logged: Logged
    draws: dict[str, Draws]
    evaluation: Evaluation
    verdicts: dict[str, Verdict]  # the base policy first
    alpha: float

    @property
    def estimates(self) -> dict[str, Estimate]:
        """By policy, the base policy first."""
        return {self.logged.base_policy: self.evaluation.base} | self.evaluation.estimates


def analyze(
    logged: Source,
    fresh_draws: str | Path | Mapping[str, Source] | None = None,
    estimator: str = "calibrated-ips",
    oracle_coverage: float | None = None,
    seed: int = 42,
    n_folds: int = 5,
    jackknife_folds: int = 20,
    alpha: float = 0.05,
    *,
    clip: float = Options.clip,
    var_cap: float = Options.var_cap,
    ess_floor: float = Options.ess_floor,
    base_policy: str | None = None,
    thresholds: Thresholds | Mapping[str, float] | None = None,
    cautions: Mapping[str, tuple[str, str, str]] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Result:
    """Estimate the value of every target policy.

    logged: path or polars frame in the CJE format; fresh_draws: directory, or {policy: path or frame}. oracle_coverage
    keeps labels on that share of the logged rows, in the order of a hash of seed and prompt id. thresholds moves those
    of the verdicts; cautions are reasons (code, sentence, level) by policy that the data cannot show; provenance is written
    into the result as it is.
    """
    if not 0 < alpha < 1:
        raise UserError(f"alpha must lie in (0, 1), got {alpha}; 0.05 gives 95 % intervals")
    module = estimators.get(estimator)
    limits = thresholds if isinstance(thresholds, Thresholds) else moved(thresholds or {})
    options = Options(
        seed=seed, n_folds=n_folds, jackknife_folds=jackknife_folds, clip=clip, var_cap=var_cap, ess_floor=ess_floor
    )
    rows, counts = load_logged(logged, base_policy=base_policy)
    rows, draws, drawn = _with_draws(rows, fresh_draws)
    rows, labels = _with_coverage(rows, seed, oracle_coverage)
    evaluation = evaluate(estimator, rows, draws, options)
    verdicts = {rows.base_policy: judge_base(evaluation, rows, limits)}
    verdicts |= judge(module, evaluation, rows, draws, limits)
    for policy, reason in (cautions or {}).items():
        verdicts[policy] = Verdict((*verdicts[policy].reasons, Reason(*reason)))
    analysis = _Analysis(module, rows, draws, evaluation, verdicts, alpha)
    document = _document(analysis) | {"provenance": dict(provenance or {})}
    document["metadata"] |= labels | {"data": counts | {"fresh_draws": drawn}, "seed": seed, "alpha": alpha}
    document["metadata"] |= {"options": dataclasses.asdict(options), "thresholds": dataclasses.asdict(limits)}
    influence = np.column_stack([evaluation.estimates[policy].influence for policy in rows.policies])
    # Through its own text, so that what is returned is what a reader of the file gets.
    written = orjson.loads(json_text(_plain(document)))
    return Result(written, rows.prompt_id, influence, evaluation.base.influence)


def _with_draws(
    logged: Logged, fresh_draws: str | Path | Mapping[str, Source] | None
) -> tuple[Logged, dict[str, Draws], dict[str, Any]]:
    """Fresh draws aligned with the logged rows; they name the targets where the logged data scores none."""
    sources = find_draws(fresh_draws, logged.base_policy, logged.policies) if fresh_draws is not None else {}
    sources.pop(logged.base_policy, None)  # the logged responses again
    if not logged.policies:
        if not sources:
            raise UserError(
                "no target policy: the logged data has no target_policy_logprobs and there are no fresh draws; "
                "add one of the two"
            )
        unscored = np.full((len(logged.prompt_id), len(sources)), np.nan)
        logged = dataclasses.replace(logged, policies=tuple(sources), log_ratio=unscored)
    loaded = {policy: load_draws(source, policy, logged.prompt_id) for policy, source in sources.items()}
    return logged, {p: draws for p, (draws, _) in loaded.items()}, {p: counts for p, (_, counts) in loaded.items()}


def _with_coverage(logged: Logged, seed: int, coverage: float | None) -> tuple[Logged, dict[str, Any]]:
    """Labels on the share of rows asked for, all that exist where there are fewer."""
    found = int(logged.labelled.sum())
    if coverage is None:
        share = found / len(logged.prompt_id)
        return logged, {"n_oracle": found, "n_labels_wanted": found, "n_labels_found": found, "oracle_coverage": share}
    if not 0 < coverage <= 1:
        raise UserError(f"oracle_coverage must lie in (0, 1], got {coverage}; 0.1 keeps labels on a tenth of the rows")
    kept = first_come(logged.prompt_id.tolist(), seed, coverage, logged.labelled)
    masked = dataclasses.replace(logged, oracle_label=np.where(kept.mask, logged.oracle_label, np.nan))
    counts = {"n_oracle": int(kept.mask.sum()), "n_labels_wanted": kept.wanted, "n_labels_found": kept.found}
    return masked, counts | {"oracle_coverage": coverage}


def _document(analysis: _Analysis) -> dict[str, Any]:
    """The content of the results file, but for what the caller knows alone."""
    logged, evaluation = analysis.logged, analysis.evaluation
    numbers = {policy: _number(estimate, analysis.alpha) for policy, estimate in analysis.estimates.items()}
    refused = [policy for policy, verdict in analysis.verdicts.items() if not verdict.ok]
    shown = numbers | dict.fromkeys(refused, {"estimate": None, "se": None, "confidence_interval": [None, None]})
    used = {logged.base_policy: evaluation.base.n_used} | evaluation.n_used
    return {
        "schema_version": SCHEMA_VERSION,
        "estimates": [shown[policy]["estimate"] for policy in logged.policies],
        "standard_errors": [shown[policy]["se"] for policy in logged.policies],
        "confidence_intervals": [shown[policy]["confidence_interval"] for policy in logged.policies],
        "base_policy": {"policy": logged.base_policy} | shown[logged.base_policy],
        "refused": {policy: numbers[policy] | {"reasons": _refusals(analysis.verdicts[policy])} for policy in refused},
        "verdicts": {
            policy: {"level": verdict.level, "reasons": [dataclasses.asdict(reason) for reason in verdict.reasons]}
            for policy, verdict in analysis.verdicts.items()
        },
        "se_components": {policy: _components(estimate) for policy, estimate in analysis.estimates.items()},
        "calibration": _calibration(evaluation),
        "n_used": used,
        "metadata": {
            "target_policies": list(logged.policies),
            "estimator": evaluation.estimator,
            "n_samples": len(logged.prompt_id),
            "n_prompts": len(np.unique(logged.prompt_id)),
            "diagnostics": {logged.base_policy: _base_diagnostics(analysis)}
            | {policy: _diagnostics(analysis, policy) for policy in logged.policies},
        },
    }


def _number(estimate: Estimate, alpha: float) -> dict[str, Any]:
    return {"estimate": estimate.value, "se": estimate.se, "confidence_interval": estimate.interval(alpha)}


def _refusals(verdict: Verdict) -> list[str]:
    return [reason.sentence for reason in verdict.reasons if reason.level == "refuse"]


def _components(estimate: Estimate) -> dict[str, Any]:
    """What the standard error is made of: se^2 = sampling^2 + oracle^2 + cap_bias^2, the last with its sign.

    The deviations of the jackknife from their mean are what a paired difference of two policies needs beside the
    influence values.
    """
    jackknife = estimate.jackknife
    return {
        "sampling": math.sqrt(estimate.sampling_variance),
        "oracle": math.sqrt(estimate.oracle_variance),
        "cap_bias": estimate.bias,
        "df": estimate.df,
        "n_jackknife": len(jackknife),
        "jackknife_deviations": (jackknife - jackknife.mean()).tolist() if len(jackknife) else [],
    }


def _calibration(evaluation: Evaluation) -> dict[str, Any]:
    """Figures of the calibrator, and the curve itself: reward by judge score, linear between the knots."""
    found = dataclasses.asdict(calibration.diagnose(evaluation.calibration))
    curve = evaluation.calibration.full
    found["reasons"] = [reason["code"] for reason in found["reasons"]]
    return found | {"mode": "monotone", "knots": curve.knots.tolist(), "values": curve.values.tolist()}


def _diagnostics(analysis: _Analysis, policy: str) -> dict[str, Any]:
    """Weights and label support of a target; `ess` and `max_weight` are of the weights the estimator used, if any."""
    evaluation, logged = analysis.evaluation, analysis.logged
    found: dict[str, Any] = {"level": analysis.verdicts[policy].level, "n_used": evaluation.n_used[policy]}
    if policy in evaluation.weights:
        log_ratio = logged.log_ratio[:, logged.policies.index(policy)]
        weights = overlap.diagnose(evaluation.weights[policy], log_ratio, evaluation.base.cluster)
        weighted = "log_ratio" in analysis.module.NEEDS
        found |= {
            "ess": weights.stabilised.ess_share if weighted else None,
            "max_weight": weights.stabilised.max_weight if weighted else None,
            "ess_raw": weights.raw.ess_share,
            "max_weight_raw": weights.raw.max_weight,
            "weights": dataclasses.asdict(weights),
        }
    if math.isfinite(evaluation.estimates[policy].value):
        labels = target_support(analysis.module, evaluation, logged, analysis.draws, policy)
        found |= _support(labels) | {"boundary": dataclasses.asdict(_boundary(analysis, policy))}
    return found


def _base_diagnostics(analysis: _Analysis) -> dict[str, Any]:
    """Label support of the base policy, which needs no weights."""
    evaluation, base = analysis.evaluation, analysis.logged.base_policy
    found = {"level": analysis.verdicts[base].level, "n_used": evaluation.base.n_used}
    return found | _support(base_support(evaluation, analysis.logged))


def _support(labels: Support) -> dict[str, Any]:
    return {
        "effective_labels": labels.effective_labels,
        "label_share": labels.share,
        "unsupported_share": labels.unsupported,
    }


def _boundary(analysis: _Analysis, policy: str) -> support.BoundaryCard:
    fitted = analysis.evaluation.calibration
    standing = target_scores(analysis.module, analysis.evaluation, analysis.logged, analysis.draws, policy)
    return support.boundary_card(fitted.full, fitted.score, *standing)


def _plain(value: Any) -> Any:
    """Python values that JSON can hold: NaN, which is unknown, as null; an infinite figure, which is not, as text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)
