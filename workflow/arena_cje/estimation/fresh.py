"""The mean reward of fresh draws, corrected by labels of the target's own draws where there are enough of them.

    g_i = mean_j f(S'_ij),   V = mean_i g_i + c,   c = sum_{labelled} (Y_ij - f^(-k)(S'_ij)) / m_i / N
    influence_i = g_i - mean g + sum_{j labelled} (Y_ij - f^(-k)(S'_ij) - c) / m_i n / N,   N = sum_{labelled} 1 / m_i

f^(-k) is the calibrator fitted without the fold of prompt i. The labelled draws are a random share of all draws, or each was
labelled with a known probability pi_ij, and 1 / (m_i pi_ij) takes the place of 1 / m_i in the sums over labels; m_i is
the number of draws of prompt i, so that all prompts have the same weight in both parts. The correction c removes the bias
of the calibrator on this policy's responses and adds the noise of the residuals. If every draw has a label, V is the mean
label; if none has, c = 0. Where several policies have labels on the same prompts, the joint estimate takes the place of
V (`arena_cje.estimation.joint`).

Robins, Rotnitzky & Zhao (1994), "Estimation of regression coefficients when some regressors are not always observed",
JASA; Angelopoulos et al. (2023), "Prediction-powered inference", Science.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from arena_cje.estimation.records import Sample

MIN_OWN = 10  # labelled prompts of the target; with fewer the variance of the correction is too uncertain


def corrected_mean(sample: Sample, reward: np.ndarray, held_out: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean reward of fresh draws with rewards (u, m), corrected by own labels, and its influence function (u,), centred."""
    if sample.joint is not None:
        return sample.joint
    return fresh_mean(reward, held_out, sample.fresh_label, sample.cluster, sample.fresh_label_weight)


def fresh_mean(
    reward: np.ndarray,
    held_out: np.ndarray,
    label: np.ndarray,
    cluster: np.ndarray,
    label_weight: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """Mean reward of fresh draws and its influence function (u,), centred.

    reward, held_out, label: rewards, held-out rewards and labels of the draws (u, m), NaN where missing.
    cluster: prompt codes (u,). label_weight: weights of the labels (u, m) by their probabilities.
    """
    labelled = ~np.isnan(label)
    if labelled.any() and labelled[~np.isnan(reward)].all():
        mean_label = prompt_mean(label)
        return float(mean_label.mean()), mean_label - mean_label.mean()
    mean_reward = prompt_mean(held_out)  # (u,)
    value, influence = float(prompt_mean(reward).mean()), mean_reward - mean_reward.mean()
    if labelled_prompts(label, cluster) < MIN_OWN:
        return value, influence
    share = own_share(reward, label, label_weight)  # (u, m)
    residual = np.where(share > 0, label - held_out, 0.0)
    correction = float(np.sum(share * residual))
    correction_influence = (share * (residual - correction)).sum(axis=1) * len(label)  # (u,)
    return value + correction, influence + correction_influence


def own_share(reward: np.ndarray, label: np.ndarray, label_weight: np.ndarray | None = None) -> np.ndarray:
    """Weights of the labelled draws in the correction, (u, m): proportional to 1/m_i, summing to one, 0 without a label.

    label_weight: weights of the labels (u, m) by their probabilities, None where these are equal.
    """
    missing = np.isnan(label) | np.isnan(reward)
    n_draws = (~np.isnan(reward)).sum(axis=1, keepdims=True)
    share = np.where(missing, 0.0, 1 / np.maximum(n_draws, 1))
    if label_weight is not None:
        share = share * label_weight
    return share / share.sum()


def labelled_prompts(label: np.ndarray, cluster: np.ndarray) -> int:
    """Number of distinct prompts, by their codes (u,), with a label on one of the target's own draws (u, m)."""
    return len(np.unique(cluster[(~np.isnan(label)).any(axis=1)]))


def prompt_weights(score: np.ndarray) -> np.ndarray:
    """Weights (n, m) of draws with scores (n, m): those of a prompt sum to one, missing draws weigh nothing."""
    scored = ~np.isnan(score)
    return scored / np.maximum(scored.sum(axis=1, keepdims=True), 1)


def prompt_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the draws of each row, (u, m) -> (u,); NaN marks missing draws."""
    if values.shape[1] == 1:
        return values[:, 0]
    return np.nanmean(values, axis=1)
