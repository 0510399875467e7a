"""Variance over prompts: rows of one prompt are not independent, prompts are.

    Var(mean) = G/(G-1) sum_c (T_c - mean T)^2 / n^2,   T_c = sum of the values of prompt c

G is the number of prompts that have a row. With one row a prompt this is the sample variance over n.

Liang & Zeger (1986), "Longitudinal data analysis using generalized linear models", Biometrika.
"""

from __future__ import annotations

import numpy as np


def clustered_variance(values: np.ndarray, cluster: np.ndarray, n: int) -> float:
    """Variance of sum(values) / n for rows (u,) with cluster codes (u,); NaN with fewer than two clusters."""
    groups, code = np.unique(cluster, return_inverse=True)
    if len(groups) < 2:
        return float("nan")
    totals = np.bincount(code.reshape(-1), weights=values)  # (G,)
    return float(len(totals) / (len(totals) - 1) * np.sum((totals - totals.mean()) ** 2) / n**2)
