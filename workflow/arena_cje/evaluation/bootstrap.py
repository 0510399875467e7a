"""Bootstrap of the direct method: prompts are weighed at random, the calibrator is fitted again.

    V_b = sum_i e_i g_b(i) / sum_i e_i + sum_{labelled} e_i (Y_ij - f_b(S'_ij)) / m_i / sum_{labelled} e_i / m_i

with e ~ Exp(1) a prompt and m_i its draws.

Every label and every draw of a prompt has its prompt's weight e, all policies share the weights of a draw b, and no draw
is left out. The interval runs between percentiles. Where labels are few a monotone fit follows their noise, so that what is
left to draw again is too small: below some two hundred labels the jackknife's intervals are honest and these are short.

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
    known: Labelled,
    mode: str,
    names: np.ndarray,
    prompt_id: np.ndarray,
    judged: Judged,
    label: np.ndarray,
    *,
    n: int,
    seed: int,
) -> np.ndarray:
    """Values (n,) of a policy with draws judged (u, m), labels (u, m) of its own, and prompts (u,); `known` calibrates.

    names: all prompts (G,) of the data, sorted, which draw their weights whether this policy has a row of them or not.
    """
    rows, slice_code = np.searchsorted(names, prompt_id), np.searchsorted(names, known.prompt_id)
    labelled = ~np.isnan(label)
    complete = labelled.any() and labelled[~np.isnan(judged.score)].all()
    own = labelled_prompts(label, rows) >= MIN_OWN
    share = own_share(judged.score, label) if own else np.zeros_like(label)
    rng = np.random.default_rng(seed)
    values = np.empty(n)
    for b in range(n):
        weight = rng.standard_exponential(len(names))
        at_row, at_label = weight[rows], weight[slice_code]
        if complete:
            values[b] = at_row @ prompt_mean(label) / at_row.sum()
            continue
        reward = rewards(calibrate(known.judged, known.oracle_label, mode, at_label), judged)  # (u, m)
        values[b] = at_row @ prompt_mean(reward) / at_row.sum()
        if own:
            residual = np.where(share > 0, label - reward, 0.0)
            values[b] += at_row @ (share * residual).sum(axis=1) / (at_row @ share.sum(axis=1))
    return values
