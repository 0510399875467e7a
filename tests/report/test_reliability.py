"""Mean labels of groups of similar scores: the groups, and intervals that are not too narrow where a few labels agree."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from arena_cje.report.reliability import reliability

Z = 1.959964


def interval_of(label) -> tuple[float, float]:
    """The interval of labels at one score."""
    (group,) = reliability(np.full(len(label), 0.3), np.array(label, dtype=float))
    return group.low, group.high


def test_equal_scores_are_one_group_and_binary_labels_have_wilson_intervals():
    score, label = np.repeat([0.2, 0.9], [30, 10]), np.repeat([0.0, 1.0], [30, 10])
    low, high = reliability(score, label)
    assert (low.score, high.score) == pytest.approx((0.2, 0.9)) and (low.n, high.n) == (30, 10)
    # Wilson's interval of 0 of 30 is [0, z^2 / (30 + z^2)].
    assert (low.low, low.high) == pytest.approx((0, Z**2 / (30 + Z**2)), abs=1e-6)
    assert (high.low, high.high) == pytest.approx((1 - Z**2 / (10 + Z**2), 1), abs=1e-6)


def test_graded_labels_have_t_intervals():
    labels = [0.1, 0.2, 0.3, 0.4]
    half = 3.182446 * np.std(labels, ddof=1) / 2
    assert interval_of(labels) == pytest.approx((0.25 - half, 0.25 + half), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_groups_of_equal_labels_have_the_interval_of_a_share(value):
    """Also for a single label, and where the labels of other groups are neither 0 nor 1."""
    for n in (1, 4, 20):
        score, label = np.repeat([0.1, 0.9], [20, n]), np.repeat([0.3, value], [20, n])
        label[:10] = 0.4
        group = reliability(score, label)[-1]
        centre, scale = (value + Z**2 / (2 * n)) / (1 + Z**2 / n), 1 / (1 + Z**2 / n)
        half = Z * scale * np.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
        assert (group.low, group.high) == pytest.approx((centre - half, centre + half), abs=1e-6)
        assert group.high - group.low > 0.15


def test_intervals_cover_the_mean_where_labels_mostly_agree():
    """Every outcome of five labels that are 1/2 nine times in ten and 1 else, with its probability."""
    share = 0.0
    for labels in product((0.5, 1.0), repeat=5):
        low, high = interval_of(labels)
        share += 0.9 ** labels.count(0.5) * 0.1 ** labels.count(1.0) * (low <= 0.55 <= high)
    assert share > 0.95


def test_the_number_of_groups_grows_with_the_number_of_labels_up_to_ten():
    assert reliability(np.empty(0), np.empty(0)) == []
    rng = np.random.default_rng(0)
    for m, groups in ((4, 1), (12, 2), (50, 10), (500, 10)):
        score_groups = reliability(rng.random(m), rng.random(m))
        assert len(score_groups) == groups and sum(group.n for group in score_groups) == m
