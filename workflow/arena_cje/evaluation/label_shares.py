"""How much of each value rests on which oracle labels, as `arena_cje.estimation.label_floor` needs it.

    labels of the policy's own draws    as they enter the correction of the fresh-draw mean
    labels under weights                W_i / sum W over the labelled rows: label terms, and rewards that are labels
    labels behind a calibrator          by cells of judge scores, with the policy's share of responses in each

An estimate has the first of these that applies to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.fresh import MIN_OWN, labelled_prompts, own_share
from arena_cje.estimation.label_floor import Cells, LabelShares, event_size

if TYPE_CHECKING:
    from arena_cje.estimation.calibration import Calibration
    from arena_cje.estimation.records import Logged
    from arena_cje.evaluation.joint import Joint


NO_LABELS = np.empty(0)


@dataclass(frozen=True)
class SliceLabels:
    """The labels of the oracle slice, by cells of judge scores and by prompts."""

    cells: Cells
    cell_labels: np.ndarray  # (b,) labelled prompts in each cell; those with several labels are divided among cells
    event: float  # size of a rare label
    cluster: np.ndarray  # (n,) prompt code of each logged row
    n_prompts: int  # G, with the prompts of the calibration data

    @classmethod
    def of(cls, logged: Logged, calibration: Calibration) -> SliceLabels:
        """The cells span the scores of all logged responses and of the slice; without a calibrator no label counts."""
        judged, prompts = calibration.slice.judged, calibration.prompts
        n = len(logged.prompt_id)
        in_slice = np.concatenate([logged.labelled, np.ones(len(prompts.code) - n, dtype=bool)])
        code = prompts.code[in_slice]
        cells = Cells.of(np.concatenate([judged.score, logged.judge_score]))
        per_prompt = np.bincount(code, minlength=len(prompts.names))
        event = 0.0
        if calibration.mode != "none" and len(calibration.label):
            event = event_size(
                calibration.label - calibration.held_out(judged, calibration.slice_fold), calibration.label
            )
        labels = cells.effective_numbers(judged.score, 1 / per_prompt[code], calibration.slice.weight)
        return cls(cells, labels, event, prompts.code[:n], len(prompts.names))

    def behind_calibrator(self, score: np.ndarray, weight: np.ndarray) -> LabelShares:
        """Shares of a value that is the mean calibrated score of responses with scores and weights (...)."""
        mass = self.cells.mass(score, weight)
        return LabelShares(mass / mass.sum(), self.cell_labels, NO_LABELS, NO_LABELS, self.event)

    def under_weights(self, weight: np.ndarray) -> LabelShares:
        """Shares of a value that is the weighted mean of labels; weight (n,) is zero in rows without one."""
        share = np.bincount(self.cluster, weights=weight / weight.sum(), minlength=self.n_prompts)
        return LabelShares(np.zeros(len(self.cell_labels)), self.cell_labels, share, NO_LABELS, self.event)

    def with_label_term(self, mean_reward: LabelShares, score: np.ndarray, weight: np.ndarray) -> LabelShares:
        """Shares of a mean calibrated score with a term of weighted labels minus their calibrated scores.

        score, weight: judge scores and weights (n,) of the logged rows; the weight is zero in rows without a label.
        """
        cell = mean_reward.cell - self.cells.mass(score, weight / weight.sum())
        return replace(self.under_weights(weight), cell=cell)

    def of_own_draws(
        self, label: np.ndarray, reward: np.ndarray, used: np.ndarray, label_weight: np.ndarray | None
    ) -> LabelShares:
        """Shares of a value that labels of the policy's own draws correct.

        label, reward: labels and held-out rewards (u, m) of its draws for the used rows, NaN where missing.
        label_weight: weights of the labels (u, m) by their probabilities.
        """
        share = own_share(reward, label, label_weight).sum(axis=1)  # (u,)
        labelled = ~np.isnan(label) & ~np.isnan(reward)
        labels = label[labelled]
        is_mean = bool(labelled[~np.isnan(reward)].all())  # with all draws labelled, the value is the mean label
        event = event_size(labels - (labels.mean() if is_mean else reward[labelled]), labels)
        by_prompt = np.bincount(self.cluster[used], weights=share, minlength=self.n_prompts)
        return LabelShares(np.zeros(len(self.cell_labels)), self.cell_labels, NO_LABELS, by_prompt, event)

    def of_joint(self, own: Joint, policy: str, *, is_base: bool) -> LabelShares:
        """Shares of a value of the joint estimate, which rests on the labels of the policy's own responses."""
        by_prompt = np.bincount(self.cluster, weights=own.share[policy], minlength=self.n_prompts)
        base, target = (by_prompt, NO_LABELS) if is_base else (NO_LABELS, by_prompt)
        residual, label = own.values[policy].residual, own.label[policy]
        labelled = ~np.isnan(label)
        event = event_size(residual[labelled], label[labelled])
        return LabelShares(np.zeros(len(self.cell_labels)), self.cell_labels, base, target, event)


def has_own_labels(label: np.ndarray, cluster: np.ndarray) -> bool:
    """Whether labels (u, m) of the policy's own draws, with prompt codes (u,), correct the fresh-draw mean."""
    return labelled_prompts(label, cluster) >= MIN_OWN
