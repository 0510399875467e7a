"""The mean reward of fresh draws, mended by labels of the target's own draws where there are enough of them.

    g_i = mean_j f(S'_ij),   V = mean_i g_i + c,   c = sum_{labelled} (Y_ij - f^(-k)(S'_ij)) / m_i / N
    influence_i = g_i - mean g + sum_{j labelled} (Y_ij - f^(-k)(S'_ij) - c) / m_i n / N,   N = sum_{labelled} 1 / m_i

over the labelled draws, a random share of all, of which prompt i has m_i: prompts count equally in both parts. The
correction takes out whatever is wrong with the calibrator for this policy's responses, at the price of the residuals'
noise. A policy with a label on every draw has the mean label itself. Without labels of its own c = 0.

Robins, Rotnitzky & Zhao (1994), "Estimation of regression coefficients when some regressors are not always observed",
JASA; Angelopoulos et al. (2023), "Prediction-powered inference", Science.
"""

from __future__ import annotations

import numpy as np

MIN_OWN = 10  # labelled prompts of the target: fewer leave the correction's own variance to chance


def fresh_mean(
    reward: np.ndarray, held_out: np.ndarray, label: np.ndarray, cluster: np.ndarray
) -> tuple[float, np.ndarray]:
    """Mean reward of fresh draws and its influence function (u,), centred.

    Rewards, held-out rewards and labels of the target's own draws are (u, m), NaN where missing; clusters (u,) are prompts.
    """
    labelled = ~np.isnan(label)
    if labelled.any() and labelled[~np.isnan(reward)].all():
        own = prompt_mean(label)
        return float(own.mean()), own - own.mean()
    drawn = prompt_mean(held_out)  # (u,)
    value, influence = float(prompt_mean(reward).mean()), drawn - drawn.mean()
    if labelled_prompts(label, cluster) < MIN_OWN:
        return value, influence
    share = own_share(reward, label)  # (u, m)
    residual = np.where(share > 0, label - held_out, 0.0)
    correction = float(np.sum(share * residual))
    own = (share * (residual - correction)).sum(axis=1) * len(drawn)  # (u,)
    return value + correction, influence + own


def own_share(reward: np.ndarray, label: np.ndarray) -> np.ndarray:
    """What each labelled draw weighs in the mean of all, (u, m): one over the draws of its prompt; they sum to one."""
    share = np.where(
        np.isnan(label) | np.isnan(reward), 0.0, 1 / np.maximum((~np.isnan(reward)).sum(axis=1, keepdims=True), 1)
    )
    return share / share.sum()


def labelled_prompts(label: np.ndarray, cluster: np.ndarray) -> int:
    """Prompts, by their codes (u,), with a label (u, m) of the target's own draws."""
    return len(np.unique(cluster[(~np.isnan(label)).any(axis=1)]))


def prompt_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the draws of each prompt (u, m) -> (u,); NaN marks missing draws."""
    if values.shape[1] == 1:
        return values[:, 0]
    return np.nanmean(values, axis=1)
