"""The measures of an ablation against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau, norm

from arena_cje.ablation import metrics

TRUTH = np.array([0.1, 0.4, 0.4, 0.8])
EXACT = np.zeros(4)


def test_the_rmse_subtracts_the_error_of_the_truth():
    rng = np.random.default_rng(0)
    error = rng.normal(0, 0.03, 100_000)
    assert metrics.rmse(error) == pytest.approx(0.03, rel=0.01)
    assert metrics.rmse(error, 0.05) == 0
    assert metrics.rmse(np.hypot(0.03, 0.04) * np.array([1, -1]), np.array([0.04, 0.04])) == pytest.approx(0.03)


def test_missing_numbers_are_left_out_of_errors():
    assert metrics.rmse(np.array([3.0, np.nan, -4.0])) == pytest.approx(np.sqrt(12.5))
    assert np.isnan(metrics.rmse(np.full(3, np.nan)))


def test_the_distance_of_the_truth_to_an_interval_by_hand():
    distance = metrics.missed_by(np.full(4, 0.5), np.full(4, 0.4), np.full(4, 0.6), np.array([0.3, 0.4, 0.55, np.nan]))
    np.testing.assert_allclose(distance, [0.1, 0, 0, np.nan], atol=1e-12)


def test_intervals_cover_a_truth_with_an_error_of_its_own_at_the_nominal_rate():
    rng = np.random.default_rng(1)
    estimate, truth = rng.normal(0, 0.03, 50_000), rng.normal(0, 0.04, 50_000)
    half = norm.ppf(0.975) * 0.03
    distance = metrics.missed_by(estimate, estimate - half, estimate + half, truth, 0.04)
    assert np.mean(distance == 0) == pytest.approx(0.95, abs=0.004)


def test_the_interval_between_the_quantiles_has_the_smallest_score():
    truth = np.random.default_rng(2).standard_normal(200_000)
    widths = norm.ppf(0.975) * np.array([0.8, 0.9, 1.0, 1.1, 1.2])
    scores = [
        metrics.interval_score(2 * half, metrics.missed_by(np.zeros(1), -half, half, truth), 0.05).mean()
        for half in widths
    ]
    assert np.argmin(scores) == 2
    assert scores[2] == pytest.approx(2 / 0.05 * 2 * norm.pdf(norm.ppf(0.975)), rel=0.01)


def test_pairs_have_the_better_policy_first_and_leave_out_ties():
    pairs = metrics.pairs(TRUTH, EXACT)
    assert {tuple(pair) for pair in pairs.tolist()} == {(1, 0), (2, 0), (3, 0), (3, 1), (3, 2)}


def test_policies_whose_true_values_differ_less_than_their_errors_are_no_pair():
    assert metrics.pairs(np.array([0.5, 0.6]), np.array([0.04, 0.04])).tolist() == []
    assert metrics.pairs(np.array([0.5, 0.6]), np.array([0.03, 0.03])).tolist() == [[1, 0]]


def test_kendalls_tau_is_twice_the_pairwise_accuracy_less_one():
    rng = np.random.default_rng(3)
    truth = np.sort(rng.random(6))
    estimates = rng.random((40, 6))
    right = metrics.in_order(estimates, metrics.pairs(truth, np.zeros(6))).mean(axis=1)
    tau = [kendalltau(row, truth).statistic for row in estimates]
    np.testing.assert_allclose(2 * right - 1, tau, atol=1e-12)


def test_any_increasing_map_of_the_truth_ranks_perfectly_and_its_reverse_never():
    pairs = metrics.pairs(TRUTH, EXACT)
    assert (metrics.in_order(np.exp(TRUTH)[None], pairs) == 1).all()
    assert (metrics.in_order(-TRUTH[None], pairs) == 0).all()
    assert (metrics.in_order(np.full((1, 4), 0.3), pairs) == 0.5).all()


def test_the_choice_is_the_policy_with_the_highest_known_estimate():
    estimates = np.array([[0.2, 0.3, np.nan, 0.1], [np.nan] * 4])
    assert metrics.chosen(estimates).tolist() == [1, -1]
    np.testing.assert_allclose(metrics.regret(estimates, TRUTH), [0.4, np.nan])
    np.testing.assert_allclose(metrics.top_1(estimates, TRUTH, EXACT), [0, np.nan])


def test_either_of_two_best_policies_is_a_right_choice():
    truth = np.array([0.4, 0.8, 0.8])
    estimates = np.array([[0.1, 0.9, 0.2], [0.1, 0.2, 0.9], [0.9, 0.1, 0.2]])
    assert metrics.top_1(estimates, truth, np.zeros(3)).tolist() == [1, 1, 0]
    assert metrics.regret(estimates, truth).tolist() == pytest.approx([0, 0, 0.4])


def test_a_geometric_mean_of_equal_values_is_the_value():
    assert metrics.geometric_mean(np.array([[0.2, 0.2], [np.nan, 0.2]])) == pytest.approx(0.2)
    assert metrics.geometric_mean(np.array([0.1, 0.4])) == pytest.approx(0.2)
