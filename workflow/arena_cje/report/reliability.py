"""Reliability of a judge: mean labels of groups of like judge score, with 95 % intervals.

    ones and zeros    Wilson's interval of a share
    other labels      mean +- t_{n-1} s / sqrt(n), within [0, 1]
    all the same      Wilson's with the mean for the share: s = 0 says only that the spread is unknown, and labels in [0, 1]
                      with mean m have at most the variance m (1 - m) of ones and zeros

Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA; Bhatia and Davis (2000), "A better
bound on the variance", American Mathematical Monthly.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

GROUPS, LEAST = 10, 5  # at most so many, and labels that each of them wants


class Group(NamedTuple):
    """Labelled responses of like score."""

    score: float  # mean
    label: float  # mean
    low: float  # interval of the mean label
    high: float
    n: int


def reliability(score: np.ndarray, label: np.ndarray) -> list[Group]:
    """Up to ten groups of labels (m,) in the order of their judge scores (m,); equal scores stay together."""
    if not len(score):
        return []
    _, code, count = np.unique(score, return_inverse=True, return_counts=True)
    groups = min(GROUPS, max(1, len(score) // LEAST))
    middle = (np.cumsum(count) - count / 2) / len(score)  # of each distinct score, as a share of the responses
    group = np.minimum((middle * groups).astype(int), groups - 1)[code.reshape(-1)]
    binary = bool(np.isin(label, (0, 1)).all())
    return [_group(score[group == k], label[group == k], binary) for k in np.unique(group)]


def _group(score: np.ndarray, label: np.ndarray, binary: bool) -> Group:
    interval = _wilson if binary or np.ptp(label) == 0 else _student
    return Group(float(score.mean()), float(label.mean()), *interval(label), len(label))


def _wilson(label: np.ndarray) -> tuple[float, float]:
    share, n, z = label.mean(), len(label), ndtri(0.975)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _student(label: np.ndarray) -> tuple[float, float]:
    half = stdtrit(len(label) - 1, 0.975) * label.std(ddof=1) / math.sqrt(len(label))
    return max(0.0, float(label.mean() - half)), min(1.0, float(label.mean() + half))
