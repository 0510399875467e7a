"""From data in the CJE format to a result: what `arena_cje.analyze` does."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from arena_cje import estimators
from arena_cje.data.coverage import first_labels
from arena_cje.data.dataset import find_draws, find_probes, load_dataset, load_draws
from arena_cje.data.reading import Reading
from arena_cje.diagnostics.calibration import diagnose as diagnose_calibration
from arena_cje.diagnostics.evidence import Evidence, gather
from arena_cje.diagnostics.thresholds import Thresholds, moved
from arena_cje.diagnostics.verdict import judge as judged
from arena_cje.errors import UserError, nearest
from arena_cje.estimation.contrasts import Contrast, contrast
from arena_cje.estimation.isotonic import Monotone
from arena_cje.estimation.records import Draws, Estimate, Logged, Options, Reason, Verdict
from arena_cje.evaluation.evaluate import Evaluation, evaluate
from arena_cje.files import json_text
from arena_cje.results.record import SCHEMA_VERSION
from arena_cje.results.result import Result, load, write

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from arena_cje.data.rows import Source

__all__ = ["Result", "Thresholds", "analyze", "load", "write"]

CURVE = 101  # points that a calibrator with covariates is drawn at


@dataclass(frozen=True)
class _Analysis:
    """One analysis, computed and about to be written down."""

    module: ModuleType
    logged: Logged
    evaluation: Evaluation
    evidence: dict[str, Evidence]  # the base policy first, here and below
    verdicts: dict[str, Verdict]
    thresholds: Thresholds
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
    seed: int = Options.seed,
    n_folds: int = Options.n_folds,
    jackknife_folds: int = Options.jackknife_folds,
    alpha: float = 0.05,
    *,
    probes: str | Path | Mapping[str, Source] | None = None,
    calibration_data: Source | None = None,
    scale: tuple[float, float] | None = None,
    judge: str | None = None,
    base_policy: str | None = None,
    variant: str | None = None,
    thresholds: Thresholds | Mapping[str, float] | None = None,
    cautions: Mapping[str, Sequence[tuple[str, str, str]]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    **options: Any,
) -> Result:
    """Estimate the value of every target policy and of the base policy.

    logged: logged responses of the base policy in the CJE format, a path or a polars frame.
    fresh_draws: responses of the target policies, a directory or {policy: path or frame}.
    estimator: a name of `arena_cje.estimators.NAMES`.
    oracle_coverage: share of the logged rows that keep an oracle label, in the order of a hash of seed and prompt id; None
        keeps all labels.
    alpha: intervals have the level 1 - alpha.
    probes: labels of some fresh draws, in files of their own; a directory or {policy: path or frame}.
    calibration_data: labelled responses of any policy, for the calibrator alone; a path or a frame.
    scale: lowest and highest score and label of the data; results are on [0, 1], where these are 0 and 1.
    judge: name of a further judge, whose scores `judge_NAME` replace `judge_score`.
    base_policy: name of the base policy, where the rows do not give it.
    variant: name of the result; None is the name of the estimator.
    thresholds: thresholds of the verdicts by name, where they differ from those of `Thresholds`.
    cautions: further reasons for the verdicts, by policy, each a (code, sentence, level).
    provenance: written into the result as it is.
    seed, n_folds, jackknife_folds and **options: rewards, calibration, covariates, weights, label_term, clip, var_cap,
        ess_floor, inference and n_bootstrap. Each is described, with its default, in the class `Options` of
        `arena_cje.estimation.records`.

    Raises a `UserError` for data or options that cannot be analysed, and a `TypeError` for an unknown option.
    """
    if not 0 < alpha < 1:
        raise UserError(f"alpha must lie in (0, 1), got {alpha}; 0.05 gives 95 % intervals")
    limits = thresholds if isinstance(thresholds, Thresholds) else moved(thresholds or {})
    _check_options(options)
    settings = Options(seed=seed, n_folds=n_folds, jackknife_folds=jackknife_folds, **options)
    reading = Reading(settings.covariates, scale, judge)
    dataset = load_dataset(logged, calibration_data, base_policy=base_policy, reading=reading)
    rows, draws, drawn = _with_draws(dataset.logged, fresh_draws, probes, reading)
    rows, labels = _with_coverage(rows, seed, oracle_coverage)
    evaluation = evaluate(estimator, rows, draws, settings, dataset.calibration)
    evidence = gather(evaluation, rows, draws, limits)
    verdicts = judged(evaluation, rows, evidence, limits)
    for policy, reasons in (cautions or {}).items():
        verdicts[policy] = Verdict((*verdicts[policy].reasons, *(Reason(*reason) for reason in reasons)))
    analysis = _Analysis(estimators.get(estimator), rows, evaluation, evidence, verdicts, limits, alpha)
    document = _document(analysis) | {"provenance": dict(provenance or {})}
    document["metadata"] |= {"variant": variant or estimator} | labels
    document["metadata"] |= {"data": dataset.counts | {"fresh_draws": drawn}, "seed": seed, "alpha": alpha}
    document["metadata"] |= {"options": dataclasses.asdict(settings), "thresholds": dataclasses.asdict(limits)}
    # Through its own text, so that what is returned is what a reader of the file gets.
    written = orjson.loads(json_text(_plain(document)))
    influence = [_influence(evaluation.estimates[policy]) for policy in rows.policies]
    return Result(written, rows.prompt_id, np.column_stack(influence), _influence(evaluation.base))


def _check_options(options: Mapping[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(Options)]
    for name in options:
        if name not in known:
            others = [parameter for parameter in inspect.signature(analyze).parameters if parameter != "options"]
            raise TypeError(
                f"analyze() has no option {name!r}{nearest(name, [*known, *others])}; the options are {', '.join(known)}"
            )


def _influence(estimate: Estimate) -> np.ndarray:
    """Influence of every row (n,), NaN where it was not used."""
    return np.where(estimate.used, estimate.influence, np.nan)


def _with_draws(
    logged: Logged,
    fresh_draws: str | Path | Mapping[str, Source] | None,
    probes: str | Path | Mapping[str, Source] | None,
    reading: Reading,
) -> tuple[Logged, dict[str, Draws], dict[str, Any]]:
    """Fresh draws aligned with the logged rows; they name the targets where the logged data scores none."""
    sources = find_draws(fresh_draws, logged.base_policy, logged.policies) if fresh_draws is not None else {}
    sources.pop(logged.base_policy, None)  # the logged responses again
    probed = find_probes(probes, tuple(sources))
    if not logged.policies:
        if not sources:
            raise UserError(
                "no target policy: the logged data has no target_policy_logprobs and there are no fresh draws; "
                "add one of the two"
            )
        unscored = np.full((len(logged.prompt_id), len(sources)), np.nan)
        logged = dataclasses.replace(logged, policies=tuple(sources), log_ratio=unscored, token_logprob=None)
    loaded = {
        policy: load_draws(source, policy, logged.prompt_id, probes=probed.get(policy), reading=reading)
        for policy, source in sources.items()
    }
    return logged, {p: draws for p, (draws, _) in loaded.items()}, {p: counts for p, (_, counts) in loaded.items()}


def _with_coverage(logged: Logged, seed: int, coverage: float | None) -> tuple[Logged, dict[str, Any]]:
    """Labels on the share of rows asked for, all that exist where there are fewer."""
    found = int(logged.labelled.sum())
    if coverage is None:
        share = found / len(logged.prompt_id)
        return logged, {"n_oracle": found, "n_labels_wanted": found, "n_labels_found": found, "oracle_coverage": share}
    if not 0 < coverage <= 1:
        raise UserError(f"oracle_coverage must lie in (0, 1], got {coverage}; 0.1 keeps labels on a tenth of the rows")
    labels = first_labels(logged.prompt_id.tolist(), seed, coverage, logged.labelled)
    masked = dataclasses.replace(logged, oracle_label=np.where(labels.mask, logged.oracle_label, np.nan))
    counts = {
        "n_oracle": int(labels.mask.sum()),
        "n_labels_wanted": labels.requested,
        "n_labels_found": labels.available,
    }
    return masked, counts | {"oracle_coverage": coverage}


def _document(analysis: _Analysis) -> dict[str, Any]:
    """The content of the results file, but for what the caller knows alone."""
    logged, evaluation = analysis.logged, analysis.evaluation
    numbers = {policy: _number(estimate, analysis.alpha) for policy, estimate in analysis.estimates.items()}
    refused = [policy for policy, verdict in analysis.verdicts.items() if not verdict.ok]
    shown = numbers | dict.fromkeys(refused, {"estimate": None, "se": None, "confidence_interval": [None, None]})
    return {
        "schema_version": SCHEMA_VERSION,
        "estimates": [shown[policy]["estimate"] for policy in logged.policies],
        "standard_errors": [shown[policy]["se"] for policy in logged.policies],
        "confidence_intervals": [shown[policy]["confidence_interval"] for policy in logged.policies],
        "base_policy": {"policy": logged.base_policy} | shown[logged.base_policy],
        "refused": {policy: numbers[policy] | {"reasons": analysis.verdicts[policy].grounds} for policy in refused},
        "verdicts": {
            policy: {"level": verdict.level, "reasons": [dataclasses.asdict(reason) for reason in verdict.reasons]}
            for policy, verdict in analysis.verdicts.items()
        },
        "differences_to_base": _differences(analysis, refused),
        "best_policy": _best(shown, numbers, refused),
        "se_components": {policy: _components(estimate) for policy, estimate in analysis.estimates.items()},
        "calibration": _calibration(evaluation, analysis.thresholds),
        "n_used": {policy: estimate.n_used for policy, estimate in analysis.estimates.items()},
        "metadata": {
            "target_policies": list(logged.policies),
            "estimator": evaluation.estimator,
            "n_samples": len(logged.prompt_id),
            "n_prompts": len(np.unique(logged.prompt_id)),
            "diagnostics": {policy: _diagnostics(analysis, policy) for policy in analysis.estimates},
        },
    }


def _number(estimate: Estimate, alpha: float) -> dict[str, Any]:
    return {"estimate": estimate.value, "se": estimate.se, "confidence_interval": estimate.interval(alpha)}


def _differences(analysis: _Analysis, refused: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each target minus the base policy, paired; null where either is refused. `Result.comparisons` has every pair."""
    base = analysis.logged.base_policy
    found = {}
    for policy in analysis.logged.policies:
        one = Contrast(policy, base)
        if not {policy, base} & set(refused):
            one = contrast(policy, base, analysis.estimates[policy] - analysis.evaluation.base, analysis.alpha)
        interval = [one.ci_lower, one.ci_upper]
        found[policy] = {"difference": one.difference, "se": one.se, "confidence_interval": interval, "df": one.df}
        found[policy]["p_value"] = one.p_value
    return found


def _best(shown: Mapping[str, Any], numbers: Mapping[str, Any], refused: Sequence[str]) -> dict[str, Any]:
    """The highest published value, and the refused policies whose number is higher: no claim, but a reason to look."""
    published = {policy: number["estimate"] for policy, number in shown.items() if number["estimate"] is not None}
    best = max(published, key=published.get, default=None)
    higher = [name for name in refused if numbers[name]["estimate"] > published.get(best, -math.inf)]
    return {"policy": best, "refused_but_higher": higher}


def _components(estimate: Estimate) -> dict[str, Any]:
    """What the standard error is made of: se^2 = sampling^2 + oracle^2 + cap_bias^2, the last with its sign.

    With a bootstrap it is the standard deviation of its draws instead.
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
    } | ({"bootstrap_deviations": (estimate.replicates - estimate.value).tolist()} if len(estimate.replicates) else {})


def _calibration(evaluation: Evaluation, thresholds: Thresholds) -> dict[str, Any]:
    """Figures of the calibrator, and the curve itself: reward by judge score, linear between the knots.

    A calibrator that sees covariates is drawn at their median over the labelled responses.
    """
    fitted = evaluation.calibration
    found = dataclasses.asdict(diagnose_calibration(fitted, thresholds)) | {"choice": dict(fitted.choice)}
    found["reasons"] = [reason["code"] for reason in found["reasons"]]
    if isinstance(fitted.full, Monotone):
        return found | {"knots": fitted.full.knots.tolist(), "values": fitted.full.values.tolist()}
    if not len(fitted.label):
        return found | {"knots": [], "values": []}
    knots = np.linspace(fitted.score.min(), fitted.score.max(), CURVE)
    typical = np.median(fitted.slice.judged.covariates, axis=0)  # (c,)
    values = fitted.full(knots, np.broadcast_to(typical, (CURVE, len(typical))))
    return found | {"knots": knots.tolist(), "values": np.asarray(values).tolist()}


def _diagnostics(analysis: _Analysis, policy: str) -> dict[str, Any]:
    """Evidence of one policy; `ess` and `max_weight` are of the weights the estimator used, if any."""
    found: dict[str, Any] = {"level": analysis.verdicts[policy].level, "n_used": analysis.estimates[policy].n_used}
    evidence = analysis.evidence[policy]
    if evidence.overlap is not None:
        weighted = "log_ratio" in analysis.module.NEEDS
        found |= {
            "ess": evidence.overlap.stabilised.ess_share if weighted else None,
            "max_weight": evidence.overlap.stabilised.max_weight if weighted else None,
            "ess_raw": evidence.overlap.raw.ess_share,
            "max_weight_raw": evidence.overlap.raw.max_weight,
            "weights": dataclasses.asdict(evidence.overlap),
        }
    if evidence.support is not None:
        found |= {
            "effective_labels": evidence.support.effective_labels,
            "label_share": evidence.support.share,
            "unsupported_share": evidence.support.unsupported,
            "judge_affinity": evidence.affinity,
        }
    if evidence.boundary is not None:
        found["boundary"] = dataclasses.asdict(evidence.boundary)
    if evidence.audit is not None:
        found |= {"transport": dataclasses.asdict(evidence.audit), "own_labels_used": evidence.own_labels}
    return found


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
