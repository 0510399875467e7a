"""How far raters agree, with each other, with themselves, and with a judge.

Krippendorff's alpha, from the coincidences o_ck of values within items and their totals n_c:

    alpha = 1 - (n - 1) sum_ck o_ck d_ck / sum_ck n_c n_k d_ck
    d_ck = [c != k] (nominal),   (c - k)^2 (interval),   (sum_{g=c..k} n_g - (n_c + n_k) / 2)^2 (ordinal)

Intraclass correlation, from the mean squares between items (B) and within (W) of a one-way analysis of variance; raters vary
from item to item, and k0 is the effective number of votes of an item:

    ICC(1,1) = (B - W) / (B + (k0 - 1) W),      ICC(1,k) = k ICC(1,1) / (1 + (k - 1) ICC(1,1))

1 - ICC(1,k) is the share of the variance of labels, means of k votes, that is noise of raters.
Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability". Shrout and Fleiss (1979), "Intraclass Correlations",
Psychological Bulletin 86. Cohen (1968), "Weighted Kappa", Psychological Bulletin 70.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.files import Row
    from arena_cje.labeling.records import Scale, Vote

MIN_VOTES = 8  # of a rater whose votes are looked at one by one
MIN_SECONDS = 3.0  # median time of a vote below which nobody reads
MIN_COPIES = 3
MOST_APART = 20


@dataclass(frozen=True)
class Ratings:
    """Votes as labels in [0, 1]."""

    items: tuple[str, ...]
    raters: tuple[str, ...]
    item: np.ndarray  # (m,) index
    rater: np.ndarray  # (m,) index
    value: np.ndarray  # (m,) in [0, 1]

    @property
    def n_votes(self) -> np.ndarray:
        """(n,) votes of each item."""
        return np.bincount(self.item, minlength=len(self.items))

    @property
    def mean(self) -> np.ndarray:
        """(n,) mean vote of each item."""
        return np.bincount(self.item, self.value, len(self.items)) / self.n_votes


def ratings(votes: Sequence[Vote], scale: Scale) -> Ratings:
    """The votes as arrays; items and raters are sorted."""
    items, item = np.unique([vote.item_id for vote in votes], return_inverse=True)
    raters, rater = np.unique([vote.annotator_id for vote in votes], return_inverse=True)
    value = np.array([scale.label(vote.score) for vote in votes])
    return Ratings(tuple(items.tolist()), tuple(raters.tolist()), item, rater, value)


def alpha(of: Ratings, level: Literal["nominal", "ordinal", "interval"]) -> float | None:
    """Krippendorff's alpha; None where no item has two votes, or all votes are alike."""
    points, category = np.unique(of.value.round(12), return_inverse=True)
    counts = np.zeros((len(of.items), len(points)))  # (items, values)
    np.add.at(counts, (of.item, category), 1)
    counts = counts[counts.sum(axis=1) > 1]
    if not len(counts):
        return None
    pairs = counts / (counts.sum(axis=1, keepdims=True) - 1)
    coincidences = pairs.T @ counts - np.diag(pairs.sum(axis=0))
    total = coincidences.sum(axis=1)
    distance = _distance(points, total, level)
    expected = total @ distance @ total
    return float(1 - (total.sum() - 1) * (coincidences * distance).sum() / expected) if expected > 0 else None


def _distance(points: np.ndarray, total: np.ndarray, level: str) -> np.ndarray:
    if level == "nominal":
        return 1.0 - np.eye(len(points))
    if level == "interval":
        return np.subtract.outer(points, points) ** 2
    middle = np.cumsum(total) - total / 2
    return np.subtract.outer(middle, middle) ** 2


@dataclass(frozen=True)
class Variances:
    """Variance of votes between items and within; `between` may be negative by chance."""

    between: float
    within: float

    def icc(self, k: float = 1.0) -> float | None:
        """ICC(1,k), the reliability of the mean of k votes; None where votes do not vary."""
        total = self.between + self.within / k
        return self.between / total if total > 0 else None


def variances(of: Ratings) -> Variances | None:
    """Variance components of a one-way random effects model; None without two items of which one has two votes."""
    n, m, counts = len(of.items), len(of.value), of.n_votes
    if n < 2 or m <= n:
        return None
    within = float(((of.value - of.mean[of.item]) ** 2).sum() / (m - n))
    between = float((counts * (of.mean - of.value.mean()) ** 2).sum() / (n - 1))
    k0 = (m - (counts**2).sum() / m) / (n - 1)
    return Variances(float((between - within) / k0), within)


def by_rater(of: Ratings, votes: Sequence[Vote], copies: Sequence[Vote], scale: Scale) -> list[Row]:
    """One row a rater: votes, difference from the others on the same items, spread, time, consistency, and warnings.

    votes: those of `of`; copies: votes on items that came twice, under the item's id.
    """
    first = {(vote.item_id, vote.annotator_id): scale.label(vote.score) for vote in votes}
    twice = defaultdict(list)
    for vote in copies:
        if (before := first.get((vote.item_id, vote.annotator_id))) is not None:
            twice[vote.annotator_id].append(abs(before - scale.label(vote.score)))
    seconds = defaultdict(list)
    for vote in votes:
        if vote.duration_s is not None:
            seconds[vote.annotator_id].append(vote.duration_s)
    n_votes, total = of.n_votes[of.item], (of.mean * of.n_votes)[of.item]
    shared = n_votes > 1
    difference = np.full(len(of.value), np.nan)
    difference[shared] = of.value[shared] - (total[shared] - of.value[shared]) / (n_votes[shared] - 1)
    pairs = _pairs(of)
    rows = []
    for index, name in enumerate(of.raters):
        own = of.rater == index
        values, differences = of.value[own], difference[own & shared]
        row = {
            "annotator_id": name,
            "n_votes": len(values),
            "mean": float(values.mean()),
            "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
            "n_shared": len(differences),
            "bias": float(differences.mean()) if len(differences) else None,
            "bias_se": float(differences.std(ddof=1) / np.sqrt(len(differences))) if len(differences) > 1 else None,
            "n_copies": len(twice[name]),
            "self_difference": float(np.mean(twice[name])) if twice[name] else None,
            "difference_of_others": _mean_without(pairs, index),
            "median_seconds": float(np.median(seconds[name])) if seconds[name] else None,
        }
        rows.append(row | {"odd": _odd(row, twice[name])})
    return rows


def _pairs(of: Ratings) -> np.ndarray:
    """(pairs, 3) for each two votes on an item: their raters and their absolute difference."""
    order = np.argsort(of.item, kind="stable")
    groups = np.split(order, np.cumsum(of.n_votes)[:-1])
    both = np.array([pair for group in groups for pair in combinations(group, 2)], dtype=int).reshape(-1, 2)
    first, second = both.T
    return np.column_stack([of.rater[first], of.rater[second], np.abs(of.value[first] - of.value[second])])


def _mean_without(pairs: np.ndarray, rater: int) -> float | None:
    """Mean difference of two votes on one item by raters other than this one; by any where there are no such."""
    others = pairs[(pairs[:, :2] != rater).all(axis=1), 2]
    differences = others if len(others) else pairs[:, 2]
    return float(differences.mean()) if len(differences) else None


def _odd(row: Row, twice: Sequence[float]) -> str:
    """Why the votes of a rater deserve a look; empty where nothing is odd. twice: differences of two votes on one text."""
    reasons = []
    if row["n_votes"] >= MIN_VOTES and row["sd"] == 0:
        reasons.append("constant: all votes are equal")
    if row["n_votes"] >= MIN_VOTES and row["median_seconds"] is not None and row["median_seconds"] < MIN_SECONDS:
        reasons.append(f"too fast: {row['median_seconds']:.3g} seconds per vote (median)")
    if row["n_copies"] >= MIN_COPIES and row["difference_of_others"] is not None:
        # Two standard errors above what chance does to a rater who is as sure as the others.
        least = row["self_difference"] - 2 * np.std(twice, ddof=1) / np.sqrt(len(twice))
        if least > row["difference_of_others"]:
            reasons.append(
                "inconsistent: this rater's two votes on the same text differ more than votes of different raters"
            )
    return "; ".join(reasons)


def by_item(of: Ratings) -> list[Row]:
    """One row an item: votes, mean, spread and range."""
    rows = []
    for index, name in enumerate(of.items):
        values = of.value[of.item == index]
        rows.append(
            {
                "item_id": name,
                "n_votes": len(values),
                "mean": float(values.mean()),
                "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
                "lowest": float(values.min()),
                "highest": float(values.max()),
            }
        )
    return rows


def further_votes(parts: Variances, most: int = 5) -> list[Row]:
    """Reliability for k = 1 ... votes per item, share of noise, and the labels' variance relative to that of one vote."""
    between, rows = max(parts.between, 0.0), []
    for k in range(1, most + 1):
        variance = between + parts.within / k
        noise = parts.within / k / variance if variance > 0 else None
        rows.append(
            {
                "votes": k,
                "reliability": None if noise is None else 1 - noise,
                "noise_share": noise,
                "relative_variance": variance / (between + parts.within) if variance > 0 else None,
            }
        )
    return rows


def weighted_kappa(first: np.ndarray, second: np.ndarray) -> float | None:
    """Cohen's kappa with quadratic weights of two ratings of the same items; None where neither varies."""
    by_chance = np.mean(np.subtract.outer(first, second) ** 2)
    return float(1 - np.mean((first - second) ** 2) / by_chance) if by_chance > 0 else None


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Rank correlation of two labels of the same items; None for fewer than three, or where one does not vary."""
    from scipy.stats import spearmanr

    varies = len(first) > 2 and np.ptp(first) > 0 and np.ptp(second) > 0
    return float(spearmanr(first, second).statistic) if varies else None


def most_apart(labels: Mapping[str, float], scores: Mapping[str, float]) -> list[Row]:
    """The items on which people and a judge differ most, the largest difference first."""
    items = sorted(labels.keys() & scores.keys(), key=lambda item: (-abs(scores[item] - labels[item]), item))
    return [
        {"item_id": item, "label": labels[item], "judge": scores[item], "difference": scores[item] - labels[item]}
        for item in items[:MOST_APART]
    ]


def with_judge(labels: Mapping[str, float], scores: Mapping[str, float], scale: Scale) -> dict[str, Any]:
    """A judge against people on the items that both have: rank correlation, kappa on the raters' scale, and where they part.

    labels, scores: in [0, 1], by item.
    """
    items = sorted(labels.keys() & scores.keys())
    label, score = (np.array([of[item] for item in items]) for of in (labels, scores))
    points = scale.n_points - 1
    return {
        "n_items": len(items),
        "spearman": spearman(label, score),
        "kappa": weighted_kappa(np.rint(label * points), np.rint(score * points)) if items else None,
        "mean_difference": float((score - label).mean()) if items else None,
        "most_apart": most_apart(labels, scores),
    }


def summary(of: Ratings, votes: Sequence[Vote], copies: Sequence[Vote], scale: Scale) -> dict[str, Any]:
    """All of the agreement in one record."""
    parts = variances(of)
    votes_per_item = float(of.n_votes.mean())
    k0 = float(len(of.items) / (1 / of.n_votes).sum())  # harmonic: the mean label has the noise of so many votes
    return {
        "n_items": len(of.items),
        "n_votes": len(of.value),
        "n_raters": len(of.raters),
        "votes_per_item": votes_per_item,
        "alpha": {level: alpha(of, level) for level in ("nominal", "ordinal", "interval")},
        "icc_1_1": None if parts is None else parts.icc(),
        "icc_1_k": None if parts is None else parts.icc(k0),
        "k": k0,
        "noise_share": _noise_share(parts, k0),
        "further_votes": [] if parts is None else further_votes(parts),
        "raters": by_rater(of, votes, copies, scale),
        "items": by_item(of),
    }


def _noise_share(parts: Variances | None, k: float) -> float | None:
    reliability = None if parts is None else parts.icc(k)
    return None if reliability is None else min(1.0, 1 - reliability)
