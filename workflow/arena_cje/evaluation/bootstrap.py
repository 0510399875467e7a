"""Bootstrap of the direct method: random weights of the prompts, a new fit of the calibrator for each replicate.

    V_b = sum_i e_i g_b(i) / sum_i e_i + sum_{labelled} e_i (Y_ij - f_b(S'_ij)) / m_i / sum_{labelled} e_i / m_i

e_i ~ Exp(1) is the weight of prompt i in replicate b, the same for all its labels and draws and for all policies; m_i is
the number of its draws. The interval lies between percentiles of V_b. With few labels a monotone fit follows their noise,
and the residuals that are drawn again are too small: below about two hundred labels these intervals are too short, and
those of the jackknife have their level.

Rubin (1981), "The Bayesian bootstrap", Annals of Statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.calibration import calibrate, rewards
from arena_cje.estimation.fresh import MIN_OWN, labelled_prompts, own_share, prompt_mean

if TYPE_CHECKING:
    from arena_cje.estimation.records import Judged, Labelled


def replicates(
    oracle_slice: Labelled,
    mode: str,
    names: np.ndarray,
    prompt_id: np.ndarray,
    judged: Judged,
    label: np.ndarray,
    own_weight: np.ndarray | None = None,
    *,
    n: int,
    seed: int,
) -> np.ndarray:
    """Bootstrap values (n,) of one policy.

    oracle_slice, mode: the labelled responses and the kind of the calibrator.
    names: all prompts (G,) of the data, sorted; each has a weight, whether this policy has a row of it or not.
    prompt_id, judged, label: prompts (u,), judge scores (u, m) and labels (u, m) of the policy's draws.
    own_weight: weights (u, m) of these labels by their probabilities.
    """
    code, slice_code = np.searchsorted(names, prompt_id), np.searchsorted(names, oracle_slice.question)
    labelled = ~np.isnan(label)
    all_labelled = labelled.any() and labelled[~np.isnan(judged.score)].all()
    corrected = labelled_prompts(label, code) >= MIN_OWN
    share = own_share(judged.score, label, own_weight) if corrected else np.zeros_like(label)
    rng = np.random.default_rng(seed)
    values = np.empty(n)
    for b in range(n):
        weight = rng.standard_exponential(len(names))
        row_weight, label_weight = weight[code], weight[slice_code]
        if all_labelled:
            values[b] = row_weight @ prompt_mean(label) / row_weight.sum()
            continue
        if oracle_slice.weight is not None:
            label_weight = label_weight * oracle_slice.weight
        calibrator = calibrate(oracle_slice.judged, oracle_slice.oracle_label, mode, label_weight)
        reward = rewards(calibrator, judged)  # (u, m)
        values[b] = row_weight @ prompt_mean(reward) / row_weight.sum()
        if corrected:
            residual = np.where(share > 0, label - reward, 0.0)
            values[b] += row_weight @ (share * residual).sum(axis=1) / (row_weight @ share.sum(axis=1))
    return values
