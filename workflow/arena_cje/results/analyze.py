"""From data in the CJE format to a result: what `arena_cje.analyze` does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from arena_cje import estimators
from arena_cje.data.coverage import first_come
from arena_cje.data.dataset import find_draws, find_probes, load_calibration, load_draws, load_logged
from arena_cje.diagnostics.calibration import diagnose as diagnose_calibration
from arena_cje.diagnostics.evidence import Evidence, gather
from arena_cje.diagnostics.thresholds import Thresholds, moved
from arena_cje.diagnostics.verdict import judge as judged
from arena_cje.errors import UserError
from arena_cje.estimation.contrasts import Contrast, contrast
from arena_cje.estimation.isotonic import Monotone
from arena_cje.estimation.records import Draws, Estimate, Labelled, Logged, Options, Reason, Verdict
from arena_cje.evaluation.evaluate import Evaluation, evaluate_all
from arena_cje.files import json_text
from arena_cje.results.record import SCHEMA_VERSION
from arena_cje.results.result import Result, load, write

if TYPE_CHECKING:
    from arena_cje.data.rows import Source

__all__ = ["Result", "Settings", "Thresholds", "analyze", "analyze_all", "load", "write"]

Cautions = Mapping[str, Sequence[tuple[str, str, str]]]  # by policy: code, sentence and level of each reason

CURVE = 101  # points that a calibrator with covariates is drawn at


@dataclass(frozen=True)
class Settings:
    """How data are read and analysed, whichever estimators run; `analyze` says what the fields mean."""

    options: Options
    oracle_coverage: float | None = None
    alpha: float = 0.05
    scale: tuple[float, float] | None = None
    judge: str | None = None
    base_policy: str | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise UserError(f"alpha must lie in (0, 1), got {self.alpha}; 0.05 gives 95 % intervals")

    @classmethod
    def of(cls, analysis: Mapping[str, Any], **more: Any) -> Settings:
        """Settings from the keys of `analysis` in the configuration and the seed."""
        names = {one.name for one in fields(Options)}
        options = Options(**{key: value for key, value in analysis.items() if key in names})
        options = dataclasses.replace(options, covariates=tuple(options.covariates))
        return cls(options, **{key: value for key, value in analysis.items() if key not in names}, **more)

    @property
    def reading(self) -> dict[str, Any]:
        """How rows are read."""
        return {"covariates": self.options.covariates, "scale": self.scale, "judge": self.judge}


@dataclass(frozen=True)
class _Data:
    """What estimators run on, and what the results file says of it."""

    logged: Logged
    draws: dict[str, Draws]
    beside: Labelled | None  # labelled responses for calibration alone
    metadata: dict[str, Any]


@dataclass(frozen=True)
class _Analysis:
    """One analysis, computed and about to be written down."""

    module: ModuleType
    logged: Logged
    evaluation: Evaluation
    evidence: dict[str, Evidence]  # the base policy first, here and below
    verdicts: dict[str, Verdict]
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
    probes: str | Path | Mapping[str, Source] | None = None,
    calibration_data: Source | None = None,
    scale: tuple[float, float] | None = None,
    judge: str | None = None,
    rewards: str = Options.rewards,
    calibration: str = Options.calibration,
    covariates: Sequence[str] = (),
    weights: str = Options.weights,
    label_term: bool = Options.label_term,
    clip: float = Options.clip,
    var_cap: float = Options.var_cap,
    ess_floor: float = Options.ess_floor,
    inference: str = Options.inference,
    n_bootstrap: int = Options.n_bootstrap,
    base_policy: str | None = None,
    variant: str | None = None,
    thresholds: Thresholds | Mapping[str, float] | None = None,
    cautions: Cautions | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Result:
    """Estimate the value of every target policy.

    logged: path or polars frame in the CJE format; fresh_draws: directory, or {policy: path or frame}. probes are labelled
    ones among the fresh draws, in the same two forms; calibration_data are labelled responses of any policy, for the
    calibrator alone. oracle_coverage keeps labels on that share of the logged rows, in the order of a hash of seed and
    prompt id. scale: the (lowest, highest) score and label of the data, mapped to 0 and 1, where results stay. judge: the
    name of a further judge, whose scores `judge_NAME` in the metadata of rows and draws are taken instead of `judge_score`.
    The options from rewards to n_bootstrap are those of `Options`; variant is the name that the result goes by, the
    estimator's own unless given. thresholds moves those of the verdicts; cautions are reasons (code, sentence, level) by
    policy that the data cannot show; provenance is written into the result as it is.
    """
    options = Options(
        seed=seed,
        n_folds=n_folds,
        jackknife_folds=jackknife_folds,
        rewards=rewards,
        calibration=calibration,
        covariates=tuple(covariates),
        weights=weights,
        label_term=label_term,
        clip=clip,
        var_cap=var_cap,
        ess_floor=ess_floor,
        inference=inference,
        n_bootstrap=n_bootstrap,
    )
    settings = Settings(
        options,
        oracle_coverage=oracle_coverage,
        alpha=alpha,
        scale=scale,
        judge=judge,
        base_policy=base_policy,
        thresholds=thresholds if isinstance(thresholds, Thresholds) else moved(thresholds or {}),
        provenance=provenance or {},
    )
    name = variant or estimator
    found = analyze_all(
        logged,
        fresh_draws,
        {name: estimator},
        settings,
        probes=probes,
        calibration_data=calibration_data,
        cautions={name: cautions or {}},
    )
    return found[name]


def analyze_all(
    logged: Source,
    fresh_draws: str | Path | Mapping[str, Source] | None,
    names: Mapping[str, str],
    settings: Settings,
    *,
    probes: str | Path | Mapping[str, Source] | None = None,
    calibration_data: Source | None = None,
    cautions: Mapping[str, Cautions] | None = None,
) -> dict[str, Result]:
    """Results of several estimators, the same as one by one: the data are read once, and what estimators share is computed once.

    names: the estimator by the name that its result goes by; cautions by that name; the rest as in `analyze`.
    """
    limits, data = settings.thresholds, _read(logged, fresh_draws, settings, probes, calibration_data)
    evaluations = evaluate_all(
        list(dict.fromkeys(names.values())), data.logged, data.draws, settings.options, data.beside
    )
    found = {}
    for name, estimator in names.items():
        evaluation = evaluations[estimator]
        evidence = gather(evaluation, data.logged, data.draws, limits)
        verdicts = judged(evaluation, data.logged, evidence, limits)
        for policy, reasons in (cautions or {}).get(name, {}).items():
            verdicts[policy] = Verdict((*verdicts[policy].reasons, *(Reason(*reason) for reason in reasons)))
        analysis = _Analysis(estimators.get(estimator), data.logged, evaluation, evidence, verdicts, settings.alpha)
        found[name] = _result(name, analysis, data, settings)
    return found


def _read(
    logged: Source,
    fresh_draws: str | Path | Mapping[str, Source] | None,
    settings: Settings,
    probes: str | Path | Mapping[str, Source] | None,
    calibration_data: Source | None,
) -> _Data:
    reading, base_policy = settings.reading, settings.base_policy
    rows, counts = load_logged(logged, base_policy=base_policy, **reading)
    rows, draws, drawn = _with_draws(rows, fresh_draws, probes, reading)
    rows, labels = _with_coverage(rows, settings.options.seed, settings.oracle_coverage)
    beside = None
    if calibration_data is not None:
        beside, counts["calibration_data"] = load_calibration(
            calibration_data, logged=logged, base_policy=base_policy, **reading
        )
    return _Data(rows, draws, beside, labels | {"data": counts | {"fresh_draws": drawn}})


def _result(name: str, analysis: _Analysis, data: _Data, settings: Settings) -> Result:
    document = _document(analysis) | {"provenance": dict(settings.provenance)}
    document["metadata"] |= {"variant": name} | data.metadata | {"seed": settings.options.seed, "alpha": settings.alpha}
    document["metadata"] |= {
        "options": dataclasses.asdict(settings.options),
        "thresholds": dataclasses.asdict(settings.thresholds),
    }
    # Through its own text, so that what is returned is what a reader of the file gets.
    written = orjson.loads(json_text(_plain(document)))
    estimates, logged = analysis.evaluation.estimates, data.logged
    influence = [_influence(estimates[policy]) for policy in logged.policies]
    return Result(written, logged.prompt_id, np.column_stack(influence), _influence(analysis.evaluation.base))


def _influence(estimate: Estimate) -> np.ndarray:
    """Influence of every row (n,), NaN where it was not used."""
    return np.where(estimate.used, estimate.influence, np.nan)


def _with_draws(
    logged: Logged,
    fresh_draws: str | Path | Mapping[str, Source] | None,
    probes: str | Path | Mapping[str, Source] | None,
    read: Mapping[str, Any],
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
        policy: load_draws(source, policy, logged.prompt_id, probes=probed.get(policy), **read)
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
        "calibration": _calibration(evaluation),
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


def _calibration(evaluation: Evaluation) -> dict[str, Any]:
    """Figures of the calibrator, and the curve itself: reward by judge score, linear between the knots.

    A calibrator that sees covariates is drawn at their median over the labelled responses.
    """
    fitted = evaluation.calibration
    found = dataclasses.asdict(diagnose_calibration(fitted)) | {"choice": dict(fitted.choice)}
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
