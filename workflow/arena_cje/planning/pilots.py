"""A pilot: the parts of the variance of each difference to the base, from data or from the result of an analysis.

From data the base keeps as many labels as the target with the most of them, on the prompts that targets have labels on where it
has labels there: a plan is of labels of all policies on the same prompts. On other prompts their noise does not cancel, and
the plan has more labels than it needs. Where every prompt has labels, half of them are left out; without unlabelled prompts
the labels saved by the judge could not be computed. A results file has the labels as they were, and a plan from it keeps
their proportions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.joint import MIN_TUNED
from arena_cje.evaluation.evaluate import evaluate
from arena_cje.planning.study import Difference, Pilot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arena_cje.estimation.records import Draws, Estimate, Labelled, Logged, Options
    from arena_cje.results.record import ResultRecord

ESTIMATOR = "direct"
FOLDS = 100  # jackknife folds of a pilot from data: with the usual 20 the labels' variance is known to a third
KEPT_OF_ALL = 0.5  # share of the prompts that keep their labels where all have some

NO_LABELS = "none of its own responses has a label, so its difference would depend on judge scores alone"
FEW_LABELS = "its responses have labels on {count} prompts, and a plan needs {least}"


def pilot_of_data(
    logged: Logged,
    draws: Mapping[str, Draws],
    calibration_data: Labelled | None,
    options: Options,
    *,
    alpha: float = 0.05,
) -> Pilot:
    """The pilot that a data set is, by `direct`; targets with labels on fewer than 20 prompts are omitted."""
    options = replace(options, jackknife_folds=FOLDS, inference="jackknife", correction="joint", rewards="calibrated")
    labelled, omitted = {}, {}
    for policy in logged.policies:
        has_label = ~np.isnan(draws[policy].scored_label) if policy in draws else np.zeros((len(logged.prompt_id), 1))
        count = _prompts(logged, rows := has_label.any(axis=1))
        if count >= MIN_TUNED:
            labelled[policy] = rows
        else:
            omitted[policy] = FEW_LABELS.format(count=count, least=MIN_TUNED) if count else NO_LABELS
    names, code = np.unique(logged.question, return_inverse=True)
    if not labelled or (count := _prompts(logged, logged.labelled)) < MIN_TUNED:
        reason = f"base responses have labels on {count} prompts, and a plan needs {MIN_TUNED}" if labelled else ""
        omitted = {policy: omitted.get(policy, reason) for policy in logged.policies}
        return Pilot(logged.base_policy, ESTIMATOR, len(names), {}, {}, omitted, alpha)
    order = np.random.default_rng(options.seed).permutation(len(names))  # of the prompts
    counts = {policy: _prompts(logged, rows) for policy, rows in labelled.items()}
    if max(counts.values()) == len(names):
        half = order[code] < KEPT_OF_ALL * len(names)
        labelled = {policy: rows & half for policy, rows in labelled.items()}
        counts = {policy: _prompts(logged, rows) for policy, rows in labelled.items()}
    is_shared = np.isin(np.arange(len(names)), code[np.logical_or.reduce(list(labelled.values()))])
    base_labelled = _first_labels(
        logged.labelled, code, np.where(is_shared, order, order + len(names)), max(counts.values())
    )
    counts = {logged.base_policy: _prompts(logged, base_labelled)} | counts
    columns = [logged.policies.index(policy) for policy in labelled]
    rows = replace(
        logged,
        policies=tuple(labelled),
        log_ratio=logged.log_ratio[:, columns],
        token_logprob=None if logged.token_logprob is None else logged.token_logprob[:, columns],
        oracle_label=np.where(base_labelled, logged.oracle_label, np.nan),
    )
    own = {
        policy: replace(draws[policy], oracle_label=np.where(mask[:, None], draws[policy].oracle_label, np.nan))
        for policy, mask in labelled.items()
    }
    evaluation = evaluate(ESTIMATOR, rows, own, options, calibration_data)
    return _pilot(evaluation.base, evaluation.estimates, counts, omitted, alpha)


def pilot_of_result(result: ResultRecord) -> Pilot:
    """The pilot that a result is; raises a `UserError` where the influence values were not loaded."""
    estimates = {policy: result.estimate(policy) for policy in result.all_policies}
    base = estimates.pop(result.base_policy)
    diagnostics = result.document["metadata"]["diagnostics"]
    labels = {policy: int(diagnostics.get(policy, {}).get("own_labels_used") or 0) for policy in estimates}
    omitted = {policy: reason for policy in estimates if (reason := _omission(estimates[policy], base, labels[policy]))}
    labels = {policy: count for policy, count in labels.items() if policy not in omitted}
    if labels:
        labels = {result.base_policy: result.document["metadata"]["n_oracle"]} | labels
    pilot = _pilot(base, estimates, labels, omitted, result.document["metadata"]["alpha"])
    return replace(pilot, base=result.base_policy, estimator=result.name)


def _pilot(
    base: Estimate,
    estimates: Mapping[str, Estimate],
    labels: Mapping[str, int],
    omitted: Mapping[str, str],
    alpha: float,
) -> Pilot:
    """The pilot of estimates with so many labelled prompts each; labels: the base policy first."""
    differences, omitted = {}, dict(omitted)
    for policy in list(labels)[1:]:
        one = Difference.of(estimates[policy] - base, max(labels.values()))
        if one is None:
            omitted[policy] = "its difference to the base does not vary in this pilot"
        else:
            differences[policy] = one
    name = next(iter(labels), "")
    planned = {policy: count for policy, count in labels.items() if policy == name or policy in differences}
    return Pilot(name, ESTIMATOR, base.n_clusters, planned, differences, omitted, alpha)


def _omission(one: Estimate, base: Estimate, labels: int) -> str | None:
    """Why a result has no plan for a target."""
    if not np.isfinite([one.value, one.se, base.value, base.se]).all():
        return "it has no estimate in this pilot"
    if len(one.replicates):
        return "bootstrap intervals do not show how the variance depends on labels; use inference 'jackknife'"
    if not labels:
        return NO_LABELS
    if labels >= one.n_clusters or not len((one - base).jackknife):
        return "every response has a label, so the share of the variance due to labels is unknown; plan from the data instead"
    return None


def _prompts(logged: Logged, rows: np.ndarray) -> int:
    """Number of prompts with one of these rows."""
    return len(np.unique(logged.question[rows]))


def _first_labels(labelled: np.ndarray, code: np.ndarray, rank: np.ndarray, count: int) -> np.ndarray:
    """The labelled rows (n,) of the first `count` labelled prompts by rank (G,); code: prompt codes (n,)."""
    ranks = np.unique(rank[code[labelled]])[:count]
    return labelled & np.isin(rank[code], ranks)
