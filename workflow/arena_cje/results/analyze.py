"""The analysis of a data set in the CJE format: `arena_cje.analyze`."""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from arena_cje import estimators
from arena_cje.data.calibration import labels_on_draws_alone
from arena_cje.data.coverage import first_labels
from arena_cje.data.dataset import find_draws, find_probes, load_dataset, load_draws
from arena_cje.data.logged import base_logprobs, further_judges
from arena_cje.data.reading import Reading, Scale
from arena_cje.data.rows import NO_TEXTS
from arena_cje.data.units import differing_units, swapped_columns, unusual_units
from arena_cje.diagnostics import plausibility
from arena_cje.diagnostics.evidence import gather
from arena_cje.diagnostics.judge_worth import judge_worth
from arena_cje.diagnostics.measures import UnitPrices
from arena_cje.diagnostics.remedies import remedies
from arena_cje.diagnostics.thresholds import Thresholds, with_overrides
from arena_cje.diagnostics.verdict import judge as verdicts_of
from arena_cje.errors import UserError, did_you_mean
from arena_cje.estimation.decision import DecisionRule
from arena_cje.estimation.records import Draws, Estimate, Labelled, Logged, Options, Reason, Verdict
from arena_cje.evaluation.evaluate import evaluate_all
from arena_cje.files import json_text
from arena_cje.results import arguments, document
from arena_cje.results import decision as decisions
from arena_cje.results.document import Analysis
from arena_cje.results.result import Result, load, write

if TYPE_CHECKING:
    from pathlib import Path

    from arena_cje.data.sources import Source

__all__ = [
    "DecisionRule",
    "Result",
    "Settings",
    "Thresholds",
    "UnitPrices",
    "analyze",
    "analyze_all",
    "load",
    "read_arrays",
    "write",
]

Cautions = Mapping[str, Sequence[tuple[str, str, str]]]  # by policy: code, sentence and level of each reason


@dataclass(frozen=True)
class Settings:
    """How data are read and analysed, whichever estimators run; the fields are described in `analyze`."""

    options: Options
    oracle_coverage: float | None = None
    alpha: float = 0.05
    scale: Scale | None = None
    judge: str | None = None
    judge_scale: Scale | None = None
    label_scale: Scale | None = None
    base_policy: str | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    decision: DecisionRule = field(default_factory=DecisionRule)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    prices: UnitPrices = field(default_factory=UnitPrices)

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
    def reading(self) -> Reading:
        """How rows are read."""
        return Reading(self.options.covariates, self.scale, self.judge, self.judge_scale, self.label_scale)


@dataclass(frozen=True)
class _Data:
    """The data of an analysis, and their part of the results file's metadata."""

    logged: Logged
    draws: dict[str, Draws]
    calibration: Labelled | None  # labelled responses for the calibrator alone
    plausibility: dict[str, plausibility.Plausibility]  # of log probabilities, by target policy
    metadata: dict[str, Any]
    cautions: dict[str, list[Reason]]  # about the data of a policy, the base policy among them
    further_judges: dict[str, np.ndarray]  # their scores (n,) of the logged rows


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
    scale: Scale | None = None,
    judge: str | None = None,
    judge_scale: Scale | None = None,
    label_scale: Scale | None = None,
    base_policy: str | None = None,
    variant: str | None = None,
    thresholds: Thresholds | Mapping[str, float] | None = None,
    against: str | None = None,
    margin: float = DecisionRule.margin,
    assume_transport: bool = False,
    cautions: Cautions | None = None,
    provenance: Mapping[str, Any] | None = None,
    **options: Any,
) -> Result:
    """Estimate the value of every target policy and of the base policy, with an interval and a verdict for each.

        V(policy) = E[Y],   Y the oracle label in [0, 1] of the policy's response to a prompt of the same population

    Judge scores S become rewards R = f(S) by a calibrator f that is fitted to the labels. With weights w, the mean-one
    exp(log probability under the target - under the base), and the rewards g of fresh draws, the three kinds of estimators are

        by weights (calibrated-ips, ips, raw-ips, snips)          mean(w R)
        by fresh draws (direct)                                   mean(g), corrected by labels of the target's own draws
        doubly robust (dr-cpo, mrdr, tmle, tr-cpo, stacked-dr)    mean(g) + mean(w (R - outcome model))

    Intervals allow for the sampling of prompts (or clusters) and for how few labels there are. Log probabilities are in nats,
    summed over the tokens of a response. The result has `estimates` (p,), `standard_errors` (p,) and `confidence_intervals`
    (p, 2) on [0, 1] for the p target policies, NaN where refused, and `influence` (n, p) over the n logged rows.

    logged: logged responses of the base policy in the CJE format: a JSONL file, a folder with its parts, a data frame
        (polars, pandas or another Arrow table) or a list of dicts.
    fresh_draws: responses of the target policies, a folder with a file for each policy, or such a source by policy.
    estimator: a name of `arena_cje.estimators.NAMES`.
    oracle_coverage: share of the logged rows that keep an oracle label, in the order of a hash of seed and prompt id; None
        keeps all labels.
    alpha: intervals have the level 1 - alpha.
    probes: labels of some fresh draws, in files of their own; as `fresh_draws`.
    calibration_data: labelled responses of any policy, for the calibrator alone; a source as `logged`.
    scale: lowest and highest score and label of the data; results are on [0, 1], where these are 0 and 1.
    judge_scale, label_scale: the same for the scores of the judge that is read, and for the labels, where they differ.
    judge: name of a further judge, whose scores `judge_NAME` replace `judge_score`.
    base_policy: name of the base policy, where the rows do not give it.
    variant: name of the result; None is the name of the estimator.
    thresholds: thresholds of the verdicts by name, where they differ from those of `Thresholds`.
    against: the policy that the others are compared with; None is the base policy.
    margin: largest difference that does not matter, on the scale from 0 to 1.
    assume_transport: whether differences that depend on judge scores alone may decide.
    cautions: further reasons for the verdicts, by policy, each a (code, sentence, level).
    provenance: written into the result as it is.
    seed, n_folds, jackknife_folds and **options: rewards, calibration, covariates, weights, correction, label_term, clip,
        var_cap, ess_floor, inference and n_bootstrap. Each is described, with its default, in the class `Options` of
        `arena_cje.estimation.records`.

    Raises a `UserError` for data or options that cannot be analysed, with the file and line where there is one, and a
    `TypeError` for an unknown option.

    Example:

        result = arena_cje.analyze("logged.jsonl", "draws", estimator="direct", margin=0.02)
        print(result)                              # the decision, and a row for each policy
        result.decision["headline"]                # what may be claimed
        result.summary("new")["estimate"]          # a number, refused or not
    """
    _check_options(options)
    if isinstance(thresholds, Thresholds):
        thresholds = dataclasses.asdict(thresholds)
    options = arguments.checked({"seed": seed, "n_folds": n_folds, "jackknife_folds": jackknife_folds, **options})
    names = arguments.checked({"estimator": estimator, "variant": variant})
    rule = arguments.checked({"against": against, "margin": margin, "assume_transport": assume_transport})
    by_name = arguments.checked({"thresholds": thresholds, "cautions": cautions, "provenance": provenance})
    settings = Settings(
        Options(**options),
        **arguments.checked(
            {
                "oracle_coverage": oracle_coverage,
                "alpha": alpha,
                "scale": scale,
                "judge": judge,
                "judge_scale": judge_scale,
                "label_scale": label_scale,
                "base_policy": base_policy,
            }
        ),
        thresholds=with_overrides(by_name["thresholds"] or {}),
        decision=DecisionRule(**rule),
        provenance=by_name["provenance"] or {},
    )
    name = names["variant"] or names["estimator"]
    results = analyze_all(
        logged,
        fresh_draws,
        {name: names["estimator"]},
        settings,
        probes=probes,
        calibration_data=calibration_data,
        cautions={name: by_name["cautions"] or {}},
    )
    return results[name]


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise a `TypeError` for a name that is not an option."""
    names = [field.name for field in dataclasses.fields(Options)]
    for name in options:
        if name not in names:
            parameters = [parameter for parameter in inspect.signature(analyze).parameters if parameter != "options"]
            known = [*parameters, *names]
            raise TypeError(
                f"analyze() has no option {name!r}{did_you_mean(name, known)}; the options are {', '.join(known)}"
            )


def analyze_all(
    logged: Source,
    fresh_draws: str | Path | Mapping[str, Source] | None,
    names: Mapping[str, str],
    settings: Settings,
    *,
    probes: str | Path | Mapping[str, Source] | None = None,
    calibration_data: Source | None = None,
    cautions: Mapping[str, Cautions] | None = None,
    left_out: Mapping[str, Any] | None = None,
) -> dict[str, Result]:
    """Results of several estimators, equal to those of `analyze` one by one.

    The data are read once, and what estimators share is computed once. names: the estimator by the name of its result;
    cautions: by that name; left_out: the summary of a data set whose preparation left out responses (`dropped`, by reason, of
    `n_responses`); the rest as in `analyze`.
    """
    data = _read(logged, fresh_draws, settings, probes, calibration_data)
    if left_out:
        _count_left_out(data.metadata["data"], left_out)
    _check_labels(data, settings.options)
    estimator_names = list(dict.fromkeys(names.values()))
    evaluations = evaluate_all(estimator_names, data.logged, data.draws, settings.options, data.calibration)
    results, t = {}, settings.thresholds
    fitted = evaluations[estimator_names[0]].calibration  # the same for all
    of_judge = judge_worth(fitted, data.logged, data.draws, data.further_judges, t, settings.alpha)
    for name, estimator in names.items():
        evaluation = evaluations[estimator]
        evidence = gather(evaluation, data.logged, data.draws, settings.thresholds)
        verdicts = verdicts_of(evaluation, data.logged, evidence, settings.thresholds)
        for policy, reasons in data.cautions.items():
            verdicts[policy] = Verdict((*verdicts[policy].reasons, *reasons))
        if estimators.needs_weights(estimator):
            for policy, counts in data.plausibility.items():
                reasons = plausibility.reasons(counts, settings.thresholds)
                verdicts[policy] = Verdict((*verdicts[policy].reasons, *reasons))
        for policy, reasons in (cautions or {}).get(name, {}).items():
            if policy not in verdicts:
                raise UserError(
                    f"`cautions` names {policy!r}, which is not a policy of the data{did_you_mean(policy, verdicts)}; its "
                    "policies: "
                    f"{', '.join(verdicts)}"
                )
            verdicts[policy] = Verdict((*verdicts[policy].reasons, *(Reason(*reason) for reason in reasons)))
        prices, better = settings.prices, of_judge.better
        lifts = remedies(evaluation, data.logged, data.draws, evidence, verdicts, t, prices, better)
        module, rule = estimators.get(estimator), settings.decision
        sides = decisions.sides(evaluation, data.logged, data.draws, evidence, verdicts, t, rule.margin)
        analysis = Analysis(
            module, data.logged, evaluation, evidence, verdicts, lifts, of_judge, t, settings.alpha, rule, sides
        )
        results[name] = _result(name, analysis, data, settings)
    return results


def _count_left_out(counts: dict[str, Any], earlier: Mapping[str, Any]) -> None:
    """Add the responses that an earlier step left out to the numbers of rows of a data set, in place."""
    dropped = Counter(earlier.get("dropped", {}))
    counts["n_responses"] += dropped.total()
    counts["n_labels_dropped"] += earlier.get("n_labels_dropped", 0)
    counts["dropped"] = dict(dropped + Counter(counts["dropped"]))


def read_arrays(
    logged: Source,
    fresh_draws: str | Path | Mapping[str, Source] | None,
    settings: Settings,
    *,
    probes: str | Path | Mapping[str, Source] | None = None,
) -> tuple[Logged, dict[str, Draws], dict[str, list[Reason]]]:
    """The data as `analyze` reads them: logged rows, fresh draws, and by policy the reasons about its log probabilities."""
    data = _read(logged, fresh_draws, settings, probes, None)
    counts = data.plausibility.items()
    return (
        data.logged,
        data.draws,
        {policy: list(plausibility.reasons(one, settings.thresholds)) for policy, one in counts},
    )


def _check_labels(data: _Data, options: Options) -> None:
    """Raise a `UserError` where labels are only on fresh draws, which do not fit the calibrator by themselves."""
    if options.rewards == "judge" or data.calibration is not None or data.logged.labelled.any():
        return
    labelled = [policy for policy, draws in data.draws.items() if not np.isnan(draws.oracle_label).all()]
    if labelled:
        raise UserError(labels_on_draws_alone(labelled))


def _read(
    logged: Source,
    fresh_draws: str | Path | Mapping[str, Source] | None,
    settings: Settings,
    probes: str | Path | Mapping[str, Source] | None,
    calibration_data: Source | None,
) -> _Data:
    reading = settings.reading
    dataset = load_dataset(logged, calibration_data, base_policy=settings.base_policy, reading=reading, texts=NO_TEXTS)
    responses = [row for row in dataset.responses if row.judge_score is not None]
    plausible, logprob_counts = plausibility.reject(dataset.logged, *base_logprobs(responses), settings.thresholds)
    judges, calibration, row_counts = further_judges(responses, reading), dataset.calibration, dataset.counts
    del dataset, responses  # the arrays have all that is needed of them, in a tenth of the memory
    rows, draws, draw_counts = _load_all_draws(plausible, fresh_draws, probes, reading)
    rows, label_counts = _mask_labels(rows, settings.options.seed, settings.oracle_coverage)
    logprobs = {policy: dataclasses.asdict(counts) for policy, counts in logprob_counts.items()}
    metadata = label_counts | {"data": row_counts | {"fresh_draws": draw_counts, "logprobs": logprobs}}
    cautions = _unit_cautions(rows, draws, reading, row_counts)
    return _Data(rows, draws, calibration, logprob_counts, metadata, cautions, judges)


def _unit_cautions(
    logged: Logged, draws: Mapping[str, Draws], reading: Reading, counts: Mapping[str, Any]
) -> dict[str, list[Reason]]:
    """Reasons for caution about every policy whose data may be in other units than their scales, or in swapped columns."""
    of_all, cautions = _unit_reasons(logged, "of the logged rows", reading), {}
    scales = (reading.judge_scale, reading.label_scale)
    if sentence := differing_units(logged.judge_score, logged.oracle_label, *scales):
        of_all.append(Reason("unusual_units", sentence, "caution"))
    if sentence := swapped_columns(counts["n_rows"], counts["n_labels_dropped"]):
        of_all.append(Reason("labels_without_scores", sentence, "caution"))
    for policy in (logged.base_policy, *logged.policies):
        own = _unit_reasons(draws[policy], f"of {policy}'s fresh draws", reading) if policy in draws else []
        if of_all or own:
            cautions[policy] = [*of_all, *own]
    return cautions


def _unit_reasons(rows: Logged | Draws, whose: str, reading: Reading) -> list[Reason]:
    columns = (
        (rows.judge_score, reading.judge_scale, f"judge scores {whose}"),
        (rows.oracle_label, reading.label_scale, f"oracle labels {whose}"),
    )
    sentences = (unusual_units(*column) for column in columns)
    return [Reason("unusual_units", sentence, "caution") for sentence in sentences if sentence]


def _result(name: str, analysis: Analysis, data: _Data, settings: Settings) -> Result:
    content = document.content(analysis) | {"provenance": dict(settings.provenance)}
    content["metadata"] |= {"variant": name} | data.metadata | {"seed": settings.options.seed, "alpha": settings.alpha}
    content["metadata"] |= {
        "options": dataclasses.asdict(settings.options),
        "thresholds": dataclasses.asdict(settings.thresholds),
    }
    content["decision"] = decisions.decide(
        analysis.sides,
        analysis.rule,
        analysis.alpha,
        base=analysis.logged.base_policy,
        remedies=content.get("remedies"),
    )
    # Written as text and read again, so that the result equals the one that is loaded from its file.
    text = json_text(document.plain(content))
    influence = [_influence(analysis.evaluation.estimates[policy]) for policy in data.logged.policies]
    return Result(
        orjson.loads(text),
        data.logged.prompt_id,
        np.column_stack(influence),
        _influence(analysis.evaluation.base),
        data.logged.cluster_id,
    )


def _influence(estimate: Estimate) -> np.ndarray:
    """Influence of every row (n,), NaN where the estimate does not use it."""
    return np.where(estimate.used, estimate.influence, np.nan)


def _load_all_draws(
    logged: Logged,
    fresh_draws: str | Path | Mapping[str, Source] | None,
    probes: str | Path | Mapping[str, Source] | None,
    reading: Reading,
) -> tuple[Logged, dict[str, Draws], dict[str, Any]]:
    """The logged rows, the fresh draws of every target and their numbers of rows.

    The targets are the policies with log probabilities in the logged data, followed by others with fresh draws. A target
    without the one or the other has NaN there; without any fresh draws there are none.
    """
    sources = find_draws(fresh_draws, logged.base_policy, logged.policies) if fresh_draws is not None else {}
    sources.pop(logged.base_policy, None)  # they are the logged responses again
    probe_sources = find_probes(probes, tuple(sources))
    if not logged.policies and not sources:
        raise UserError(
            "no target policy: the logged data has no target_policy_logprobs and there are no fresh draws; add one of the two"
        )
    logged = _with_policies(logged, [name for name in sources if name not in logged.policies])
    draws, counts = {}, {}
    for policy, source in sources.items():
        draws[policy], counts[policy] = load_draws(
            source, policy, logged.prompt_id, probes=probe_sources.get(policy), reading=reading
        )
    if draws:
        missing = np.full((len(logged.prompt_id), 1), np.nan)
        draws |= {policy: Draws(policy, missing, missing) for policy in logged.policies if policy not in draws}
    return logged, draws, counts


def _with_policies(logged: Logged, names: Sequence[str]) -> Logged:
    """The logged rows with further target policies, which have no log probabilities."""
    if not names:
        return logged
    unknown = np.full((len(logged.prompt_id), len(names)), np.nan)
    by_token = None if logged.token_logprob is None else np.hstack([logged.token_logprob, unknown])
    return dataclasses.replace(
        logged,
        policies=(*logged.policies, *names),
        log_ratio=np.hstack([logged.log_ratio, unknown]),
        token_logprob=by_token,
    )


def _mask_labels(logged: Logged, seed: int, coverage: float | None) -> tuple[Logged, dict[str, Any]]:
    """The logged rows with labels on a share of them (None is all), and the numbers of labels."""
    if coverage is None:
        n = int(logged.labelled.sum())
        share = n / len(logged.prompt_id)
        return logged, {"n_oracle": n, "n_labels_wanted": n, "n_labels_found": n, "oracle_coverage": share}
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


def arrays(
    logged: Source,
    fresh_draws: str | Path | Mapping[str, Source] | None,
    settings: Settings,
    *,
    probes: str | Path | Mapping[str, Source] | None = None,
    calibration_data: Source | None = None,
) -> tuple[Logged, dict[str, Draws], Labelled | None]:
    """The logged rows, the fresh draws and the calibration data, as `analyze_all` reads them."""
    data = _read(logged, fresh_draws, settings, probes, calibration_data)
    return data.logged, data.draws, data.calibration
