"""What the remedies of a policy depend on: the data at hand, and how many labels would lift a reason.

A target that random base labels would not support either is far from the base. Base labels at its scores would then publish
a value that no label of its own has confirmed, so that they lift a caution alone, and a refusal takes labels of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from arena_cje import estimators
from arena_cje.diagnostics import support
from arena_cje.diagnostics.evidence import target_scores
from arena_cje.diagnostics.label_needs import BaseLabels, Limits, OwnLabels, ScoreCells, own_labels
from arena_cje.diagnostics.overlap import ess_share
from arena_cje.diagnostics.verdict import corrected_by_own
from arena_cje.estimation.fresh import MIN_OWN, labelled_prompts, prompt_weights
from arena_cje.estimation.robust import has_label_term
from arena_cje.estimation.weights import hajek

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arena_cje.diagnostics.evidence import Evidence
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.estimation.records import Draws, Logged
    from arena_cje.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Circumstances:
    """What the remedies of one policy depend on."""

    estimator: str
    is_base: bool
    n_prompts: int
    has_draws: bool  # fresh draws of the policy with judge scores, enough of them to be labelled
    rows_without_input: int  # rows that the estimate leaves out
    n_rows: int
    own_correct: str  # the estimate that labels of its own responses correct: THIS, DIRECT or JOINT
    own: OwnLabels
    n_labels: int  # of the oracle slice
    n_unlabelled: int  # base responses without a label
    # Further base labels that lift a support reason, by its level.
    base_labels: Mapping[str, BaseLabels | None] = field(default_factory=dict)
    direct_supported: bool = True  # whether labels lie at the scores of its fresh draws
    weights_reach: float = math.nan  # of the distance to the base in log probability, what has overlap
    mode: str = "monotone"  # of the calibrator
    better_judge: str | None = None  # a further judge in the data that agrees better with the oracle


def circumstances(
    evaluation: Evaluation,
    logged: Logged,
    draws: Mapping[str, Draws],
    evidence: Evidence,
    policy: str,
    thresholds: Thresholds,
    better_judge: str | None = None,
) -> Circumstances:
    """What the remedies of a policy depend on, from the data."""
    name, fitted, cluster = evaluation.estimator, evaluation.calibration, evaluation.base.cluster
    own_draws = draws.get(policy)
    n_prompts = len(np.unique(logged.prompt_id))
    n_draw_prompts = 0 if own_draws is None else len(np.unique(cluster[(~np.isnan(own_draws.judge_score)).any(axis=1)]))
    has_draws = n_draw_prompts > 0 and n_draw_prompts >= min(thresholds.own_labels, n_prompts)
    is_base = policy == logged.base_policy
    counts = {one: labelled_prompts(of.scored_label, cluster) for one, of in draws.items()}
    estimate = evaluation.base if is_base else evaluation.estimates[policy]
    label_term = has_label_term(estimators.get(name), evaluation.options)
    own = OwnLabels(0, math.nan, None)
    if not is_base and fitted.mode != "none":
        own = own_labels(
            evaluation, own_draws if has_draws else None, thresholds, audited=sum(map(bool, counts.values()))
        )
    log_ratio = np.empty(0) if is_base else logged.log_ratio[:, logged.policies.index(policy)]
    return Circumstances(
        estimator=name,
        is_base=is_base,
        n_prompts=n_prompts,
        has_draws=has_draws,
        rows_without_input=len(cluster) - estimate.n_used,
        n_rows=len(cluster),
        own_correct=corrected_by_own(evaluation),
        own=own,
        n_labels=len(fitted.label),
        n_unlabelled=int(np.sum(~logged.labelled)),
        base_labels=_base_labels(
            evaluation,
            logged,
            draws,
            evidence,
            policy,
            thresholds,
            # Labels at scores are no random share: the calibrator may have them, a correction by base labels may not.
            at_scores=not label_term and all(count < MIN_OWN for count in counts.values()),
        ),
        direct_supported=has_draws and _is_supported(evaluation, own_draws, thresholds),
        weights_reach=weights_reach(log_ratio, thresholds),
        mode=fitted.mode,
        better_judge=better_judge,
    )


def _base_labels(
    evaluation: Evaluation,
    logged: Logged,
    draws: Mapping[str, Draws],
    evidence: Evidence,
    policy: str,
    thresholds: Thresholds,
    *,
    at_scores: bool,
) -> dict[str, BaseLabels | None]:
    """Further base labels that lift a support reason of each level; at_scores: whether they may be other than random."""
    if evidence.support is None:
        return {}
    if policy == logged.base_policy:
        cluster = evaluation.base.cluster
        score, weight = logged.judge_score, 1 / np.bincount(cluster)[cluster]
    else:
        score, weight = target_scores(evaluation, logged, draws, policy)
    at_hand = ScoreCells.of(evaluation.calibration.score, logged.judge_score[~logged.labelled], score, weight)
    if at_hand is None:
        return {}
    t = thresholds
    published = Limits(t.label_share_refuse, t.effective_labels_refuse)
    sound = Limits(t.label_share_caution, t.effective_labels_caution)
    near = Limits(sound.share, 0).hold(at_hand.mass, at_hand.labels + at_hand.left)  # supported by random base labels
    return {
        "refuse": at_hand.at_random(published) if near else None,
        "caution": at_hand.at_random(sound) if near or not at_scores else at_hand.at_scores(sound),
    }


def _is_supported(evaluation: Evaluation, draws: Draws, thresholds: Thresholds) -> bool:
    """Whether labels lie at the scores of fresh draws, as `direct` needs it."""
    score = draws.judge_score
    own = support.effective_labels(evaluation.calibration.score, score.reshape(-1), prompt_weights(score).reshape(-1))
    t = thresholds
    return own.share >= t.label_share_refuse and own.effective_labels >= t.effective_labels_refuse


def weights_reach(log_ratio: np.ndarray, thresholds: Thresholds) -> float:
    """The largest share of the log ratios (n,), in steps of .05, whose weights have overlap; NaN where there is none.

    A share a stands for the policy with probabilities proportional to base^(1 - a) target^a, for example the target at a
    temperature closer to the base's.
    """
    finite = log_ratio[np.isfinite(log_ratio)]
    if not len(finite):
        return math.nan
    steps = np.arange(1, 20) / 20
    enough = [share for share in steps if ess_share(hajek(share * finite)) >= thresholds.ess_caution]
    return float(max(enough, default=math.nan))
