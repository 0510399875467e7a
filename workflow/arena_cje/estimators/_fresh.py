"""The mean reward of fresh draws, mended by labels of the target's own draws where there are enough of them.

    g_i = mean_j f(S'_ij),   V = mean_i g_i + c,   c = sum_{labelled} (Y_ij - f^(-k)(S'_ij)) / N
    influence_i = g_i - mean g + sum_{j labelled} (Y_ij - f^(-k)(S'_ij) - c) n / N

over the N labelled draws, a random share of all. The correction takes out whatever is wrong with the calibrator for
this policy's responses, at the price of the residuals' noise. A policy with a label on every draw has the mean label
itself. Without labels of its own c = 0.

Robins, Rotnitzky & Zhao (1994), "Estimation of regression coefficients when some regressors are not always observed",
JASA; Angelopoulos et al. (2023), "Prediction-powered inference", Science.
"""

from __future__ import annotations

import numpy as np

MIN_OWN = 10  # labelled prompts of the target: fewer leave the correction's own variance to chance


def fresh_mean(reward: np.ndarray, held_out: np.ndarray, label: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean reward of fresh draws and its influence function (u,), centred.

    Rewards, held-out rewards and labels of the target's own draws are (u, m), NaN where missing.
    """
    labelled = ~np.isnan(label)
    if labelled.any() and labelled[~np.isnan(reward)].all():
        own = prompt_mean(label)
        return float(own.mean()), own - own.mean()
    drawn = prompt_mean(held_out)  # (u,)
    value, influence = float(prompt_mean(reward).mean()), drawn - drawn.mean()
    if not uses_own_labels(label):
        return value, influence
    residual = np.where(labelled, label - held_out, 0.0)  # (u, m)
    count = labelled.sum()
    correction = float(residual.sum() / count)
    own = (residual - correction * labelled).sum(axis=1) * len(drawn) / count  # (u,)
    return value + correction, influence + own


def uses_own_labels(label: np.ndarray) -> bool:
    """Are there enough labels (u, m) of the target's own draws for the correction?"""
    return bool((~np.isnan(label)).any(axis=1).sum() >= MIN_OWN)


def prompt_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the draws of each prompt (u, m) -> (u,); NaN marks missing draws."""
    if values.shape[1] == 1:
        return values[:, 0]
    return np.nanmean(values, axis=1)
