"""Whether remedies work: refused policies get what their remedies name, and their verdicts are computed again.

The same world is simulated again with the same seed, which adds labels and changes nothing else. A refused policy gets the
further labels of its own, all policies get the further base labels, and the policy is estimated by the estimator that the
remedies name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from arena_cje.diagnostics.evidence import gather
from arena_cje.diagnostics.remedies import Remedy, remedies
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.diagnostics.verdict import judge
from arena_cje.estimation.records import Options
from arena_cje.evaluation.evaluate import evaluate_all
from arena_cje.simulate import WORLDS, World, draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.estimation.records import Draws, Logged, Verdict
    from arena_cje.evaluation.evaluate import Evaluation

ESTIMATORS = ("direct", "calibrated-ips", "ips", "dr-cpo", "tr-cpo")
KINDS = {"own_labels", "base_labels", "estimator"}  # what a simulation can give
NAMED = re.compile(r"the estimator `([\w-]+)`")
THRESHOLDS = Thresholds()

Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """A world in which policies are refused, with its sizes."""

    world: str
    n: int
    labels: int
    own_labels: int = 0

    def data(self, seed: int, more_labels: int = 0, more_own: int = 0) -> tuple[Logged, dict[str, Draws], dict]:
        """Data and true values with so many further labels; all policies are labelled on the same prompts."""
        sizes = {"coverage": self.labels + more_labels, "target_labels": self.own_labels + more_own}
        world: World = replace(WORLDS[self.world], paired=True, **sizes)
        logged, draws, values = draw(world, self.n, seed)
        # The judge of these worlds sees no covariate.
        without = {policy: replace(of_policy, covariates=None) for policy, of_policy in draws.items()}
        return replace(logged, covariates=None), without, values


STUDIES = (
    Study("no_transport", 250, 62),
    Study("no_transport_hidden", 250, 62, own_labels=20),
    Study("useless_judge", 250, 60),
    Study("poor_overlap", 250, 60),
    Study("healthy", 250, 8),
    Study("healthy", 1000, 15),
    Study("few_scores", 250, 12),
    Study("binary", 250, 12),
)


def outcomes(study: Study, seed: int) -> list[Row]:
    """One row for each estimator and refused policy: whether it is published once it has what its remedies name."""
    logged, draws, values = study.data(seed)
    rows = []
    for name, evaluation in evaluate_all(ESTIMATORS, logged, draws, Options(seed=seed)).items():
        verdicts = _verdicts(evaluation, logged, draws)
        evidence = gather(evaluation, logged, draws, THRESHOLDS)
        for policy, of_policy in remedies(evaluation, logged, draws, evidence, verdicts, THRESHOLDS).items():
            if not verdicts[policy].ok:
                refusals = {reason.code for reason in verdicts[policy].reasons if reason.level == "refuse"}
                lifting = [remedy for remedy in of_policy if remedy.reason in refusals]
                rows.append(
                    {"world": study.world, "policy": policy, "estimator": name}
                    | _followed(study, seed, policy, name, lifting, values)
                )
    return rows


def _followed(study: Study, seed: int, policy: str, estimator: str, lifting: Sequence[Remedy], values: dict) -> Row:
    """What becomes of a policy that gets what these remedies name."""
    if any(remedy.kind not in KINDS for remedy in lifting):
        return {"kinds": "other", "published": None, "wrong": None}
    amount = {
        kind: int(max((r.amount for r in lifting if r.kind == kind), default=0)) for kind in KINDS - {"estimator"}
    }
    new_estimator = next((match[1] for remedy in lifting if (match := NAMED.search(remedy.text))), estimator)
    logged, draws, _ = study.data(seed, amount["base_labels"])
    if policy in draws:
        _, own, _ = study.data(seed, amount["base_labels"], amount["own_labels"])
        draws = draws | {policy: own[policy]}
    (evaluation,) = evaluate_all([new_estimator], logged, draws, Options(seed=seed)).values()
    verdict = _verdicts(evaluation, logged, draws)[policy]
    estimate = evaluation.base if policy == logged.base_policy else evaluation.estimates[policy]
    low, high = estimate.interval()
    wrong = bool(values[policy] < low - estimate.se or values[policy] > high + estimate.se)
    kinds = "+".join(sorted({remedy.kind for remedy in lifting}))
    return {"kinds": kinds, "published": verdict.ok, "wrong": wrong and verdict.ok}


def _verdicts(evaluation: Evaluation, logged: Logged, draws: dict[str, Draws]) -> dict[str, Verdict]:
    return judge(evaluation, logged, gather(evaluation, logged, draws, THRESHOLDS), THRESHOLDS)


def study_outcomes(study: Study, seeds: range) -> list[Row]:
    """Rows of several draws."""
    return [row for seed in seeds for row in outcomes(study, seed)]
