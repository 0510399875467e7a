"""Evidence behind the estimate of one policy, computed once for the verdict and the results file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arena_cje import estimators
from arena_cje.diagnostics import overlap, support, transport
from arena_cje.estimation.fresh import MIN_OWN, labelled_prompts, prompt_weights
from arena_cje.estimation.robust import has_label_term, has_weighted_labels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arena_cje.diagnostics.overlap import Overlap
    from arena_cje.diagnostics.support import BoundaryCard, Support
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.diagnostics.transport import Audit
    from arena_cje.estimation.records import Draws, Logged, Weights
    from arena_cje.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Evidence:
    """Overlap, support and transport of one policy, as far as its estimator depends on them."""

    overlap: Overlap | None = None  # None where there are no log ratios
    support: Support | None = None  # None where there is no estimate
    affinity: float = float("nan")  # between logged and target judge scores, 1 for equal distributions
    boundary: BoundaryCard | None = None
    audit: Audit | None = None  # None for the base policy, and where there is no estimate
    own_labels: int = 0  # labelled prompts of the policy's own draws that the estimate uses
    # Number of labels of a label term, and their effective share under raw weights; None without a label term.
    weighted_labels: tuple[int, float] | None = None


def gather(
    evaluation: Evaluation, logged: Logged, draws: Mapping[str, Draws] | None, thresholds: Thresholds
) -> dict[str, Evidence]:
    """Evidence by policy: the base policy first, then the targets in declared order."""
    draws = draws or {}
    cluster = evaluation.base.cluster
    module, options = estimators.get(evaluation.estimator), evaluation.options
    doubly_robust = set(module.NEEDS) == {"log_ratio", "fresh_score"}
    n_audited = sum(bool((~np.isnan(fresh.oracle_label)).any()) for fresh in draws.values())
    evidence = {logged.base_policy: Evidence(support=base_support(evaluation, logged))}
    for column, policy in enumerate(logged.policies):
        log_ratio, weights = logged.log_ratio[:, column], evaluation.weights.get(policy)
        by_token = None if logged.token_logprob is None else logged.token_logprob[:, column]
        policy_overlap = None if weights is None else overlap.diagnose(weights, log_ratio, cluster, by_token)
        if not np.isfinite(evaluation.estimates[policy].value):
            evidence[policy] = Evidence(policy_overlap)
            continue
        used = evaluation.estimates[policy].used
        label_term = has_weighted_labels(
            logged.oracle_label[used],
            label_term=has_label_term(module, options),
            raw_residual=doubly_robust and options.weights == "raw",
        )
        score, mass = target_scores(evaluation, logged, draws, policy)
        evidence[policy] = Evidence(
            policy_overlap,
            support.effective_labels(evaluation.calibration.score, score, mass, evaluation.calibration.slice.weight),
            support.affinity(logged.judge_score, score, mass),
            support.boundary_card(evaluation.calibration.full, evaluation.calibration.slice, score, mass, thresholds),
            transport.audit(
                evaluation,
                logged,
                draws.get(policy),
                thresholds,
                family=max(n_audited, 1),
                label_term=label_term,
            ),
            0 if label_term else _own_labels(evaluation, draws.get(policy)),
            _weighted_labels(weights, logged, used) if label_term else None,
        )
    return evidence


def target_scores(
    evaluation: Evaluation, logged: Logged, draws: Mapping[str, Draws], policy: str
) -> tuple[np.ndarray, np.ndarray]:
    """Judge scores of a target and their weights: its fresh draws if the estimator uses them, else the weighted logged rows."""
    if estimators.needs_draws(evaluation.estimator):
        fresh = draws[policy].judge_score  # (n, m)
        return fresh.reshape(-1), prompt_weights(fresh).reshape(-1)
    return logged.judge_score, evaluation.weights[policy].raw


def base_support(evaluation: Evaluation, logged: Logged) -> Support:
    """Support of the base policy by the labels: the logged responses are its draws, and each prompt counts once."""
    cluster = evaluation.base.cluster
    weight = 1 / np.bincount(cluster)[cluster]  # (n,)
    labels = evaluation.calibration.slice
    return support.effective_labels(labels.judged.score, logged.judge_score, weight, labels.weight)


def _own_labels(evaluation: Evaluation, draws: Draws | None) -> int:
    """Labelled prompts of the policy's own draws, where the estimator uses them."""
    corrects = evaluation.options.correction != "none"
    if draws is None or not corrects or not estimators.needs_draws(evaluation.estimator):
        return 0
    count = labelled_prompts(draws.scored_label, evaluation.base.cluster)
    return count if count >= MIN_OWN else 0


def _weighted_labels(weights: Weights, logged: Logged, used: np.ndarray) -> tuple[int, float]:
    """Labelled rows that the estimate uses, and their effective share under raw weights."""
    weight = weights.raw if logged.label_weight is None else weights.raw * logged.label_weight
    weight = weight[logged.labelled & used]
    weight = weight[~np.isnan(weight)]
    return len(weight), overlap.ess_share(weight) if weight.any() else 0.0
