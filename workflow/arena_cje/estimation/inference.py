"""Variances over prompts, their degrees of freedom, and critical values.

    Var(mean) = G/(G-1) sum_c (T_c - mean T)^2 / n^2,   T_c = sum of the values of prompt c
    df = 2 G / (kurtosis of T - (G-3)/(G-1)),   at most G - 1

G is the number of prompts that have a row: prompts are independent, the rows of one prompt are not. With one row for each
prompt this is the sample variance divided by n. The degrees of freedom match the first two moments of the variance to
those of a chi-squared: G - 1 for normal values, fewer where a few prompts have most of the variance, as under heavy
weights or few labels.

Liang & Zeger (1986), "Longitudinal data analysis using generalized linear models", Biometrika; Satterthwaite (1946),
"An approximate distribution of estimates of variance components", Biometrics; Armstrong & Kolesar (2020), "Simple and
honest confidence intervals in nonparametric regression", Quantitative Economics, for the critical value under bias.
"""

from __future__ import annotations

import numpy as np


def prompt_totals(values: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Sum of the values (u,) of each prompt, (G,), over the codes (u,) that occur."""
    totals, rows = np.bincount(cluster, weights=values), np.bincount(cluster)
    return totals[rows > 0]


def clustered_variance(values: np.ndarray, cluster: np.ndarray, n: int) -> float:
    """Variance of sum(values) / n for values (u,) with prompt codes (u,); NaN with fewer than two prompts."""
    return variance_of_totals(prompt_totals(values, cluster), n)


def variance_of_totals(totals: np.ndarray, n: int) -> float:
    """Variance of sum(totals) / n from the sums of the prompts (G,); NaN with fewer than two."""
    if len(totals) < 2:
        return float("nan")
    return float(len(totals) / (len(totals) - 1) * np.sum((totals - totals.mean()) ** 2) / n**2)


def kurtosis_df(totals: np.ndarray) -> float:
    """Degrees of freedom of the variance of the prompts' sums (G,), between 1 and G - 1."""
    count = len(totals)
    spread = totals.std()
    if count < 4 or not spread > 0:
        return float(max(count - 1, 1))
    kurtosis = np.mean(((totals - totals.mean()) / spread) ** 4)
    return float(np.clip(2 * count / (kurtosis - (count - 3) / (count - 1)), 1.0, count - 1))


def critical_value(bias: float, df: float, alpha: float) -> float:
    """c with P(|T + bias| <= c) = 1 - alpha for Student's T; without a bias the two-sided t quantile.

    bias: the known bias of the value, in standard errors.
    """
    if np.isnan(df) or np.isnan(bias):
        return float("nan")
    from scipy.special import stdtr, stdtrit  # scipy.stats takes longer to import than the rest of an analysis

    quantile = float(stdtrit(df, 1 - alpha / 2))
    bias = abs(bias)
    if bias == 0:
        return quantile

    def excess(c: float) -> float:
        return float(stdtr(df, c - bias) - stdtr(df, -c - bias)) - (1 - alpha)

    from scipy.optimize import brentq

    return float(brentq(excess, 0.0, bias + quantile + 1.0))


def normal_quantile(alpha: float) -> float:
    """The two-sided normal quantile of level 1 - alpha."""
    from scipy.special import ndtri

    return float(ndtri(1 - alpha / 2))
