"""Variances over prompts, their degrees of freedom, and critical values.

    Var(mean) = G/(G-1) sum_c (T_c - mean T)^2 / n^2,   T_c = sum of the values of prompt c
    df = 2 G / (kurtosis of T - (G-3)/(G-1)),   at most G - 1

G is the number of prompts that have a row: rows of one prompt are not independent, prompts are. With one row a prompt
this is the sample variance over n. The degrees of freedom match the first two moments of the variance to those of a
chi-squared: G - 1 for normal values, fewer where a few prompts carry most of it, as under heavy weights or few labels.

Liang & Zeger (1986), "Longitudinal data analysis using generalized linear models", Biometrika; Satterthwaite (1946),
"An approximate distribution of estimates of variance components", Biometrics; Armstrong & Kolesar (2020), "Simple and
honest confidence intervals in nonparametric regression", Quantitative Economics, for the critical value under bias.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize, stats


def prompt_totals(values: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Sums (G,) of the values (u,) of every prompt code (u,) that occurs."""
    totals, rows = np.bincount(cluster, weights=values), np.bincount(cluster)
    return totals[rows > 0]


def clustered_variance(values: np.ndarray, cluster: np.ndarray, n: int) -> float:
    """Variance of sum(values) / n for rows (u,) with cluster codes (u,); NaN with fewer than two clusters."""
    return variance_of_totals(prompt_totals(values, cluster), n)


def variance_of_totals(totals: np.ndarray, n: int) -> float:
    """The same from the prompts' sums (G,)."""
    if len(totals) < 2:
        return float("nan")
    return float(len(totals) / (len(totals) - 1) * np.sum((totals - totals.mean()) ** 2) / n**2)


def kurtosis_df(totals: np.ndarray) -> float:
    """Degrees of freedom of the variance of prompts' sums (G,); 1 at least."""
    count = len(totals)
    spread = totals.std()
    if count < 4 or not spread > 0:
        return float(max(count - 1, 1))
    kurtosis = np.mean(((totals - totals.mean()) / spread) ** 4)
    return float(np.clip(2 * count / (kurtosis - (count - 3) / (count - 1)), 1.0, count - 1))


def critical_value(bias: float, df: float, alpha: float) -> float:
    """c with P(|T + bias| <= c) = 1 - alpha for Student's T; the two-sided t quantile where there is no bias.

    bias: distance in standard errors that the value is known to be off.
    """
    if np.isnan(df) or np.isnan(bias):
        return float("nan")
    quantile = float(stats.t.ppf(1 - alpha / 2, df))
    bias = abs(bias)
    if bias == 0:
        return quantile

    def missing(c: float) -> float:
        return float(stats.t.cdf(c - bias, df) - stats.t.cdf(-c - bias, df)) - (1 - alpha)

    return float(optimize.brentq(missing, 0.0, bias + quantile + 1.0))
