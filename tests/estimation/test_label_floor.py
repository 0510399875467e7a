"""Intervals where labels hardly vary: their width, what cancels in a difference, and coverage at the edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arena_cje import estimators
from arena_cje.estimation.contrasts import p_value
from arena_cje.estimation.label_floor import Cells, LabelShares, event_size, floors, least_error
from arena_cje.estimation.records import Estimate, Floor, Options
from arena_cje.evaluation.evaluate import evaluate, evaluate_all
from arena_cje.simulate import draw, pass_rate_world, truth

Z2 = 1.959964**2
NAMES = ("direct", "calibrated-ips", "dr-cpo", "tr-cpo")


@pytest.mark.parametrize("m", [10, 40, 250])
def test_equal_labels_have_the_interval_of_wilson(m):
    """Wilson's interval for m of m ends at m / (m + z^2)."""
    floor = least_error(np.full(m, 1 / m), 1.0)
    assert 1 - np.sqrt(Z2) * floor == pytest.approx(m / (m + Z2))


def test_cells_with_equal_labels_per_share_have_the_floor_of_single_labels():
    cell, labels = np.array([0.25, 0.75]), np.array([10, 30])
    assert least_error(np.empty(0), 1.0, cell, labels) == pytest.approx(least_error(np.full(40, 1 / 40), 1.0))


def test_a_share_without_labels_is_added_in_full():
    supported = least_error(np.empty(0), 1.0, np.array([0.9, 0.0]), np.array([40, 0]))
    partly = least_error(np.empty(0), 1.0, np.array([0.9, 0.1]), np.array([40, 0]))
    assert np.sqrt(Z2) * (partly - supported) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("label", "low", "high"),
    [
        (np.ones(40), 1.0, 1.0),
        (np.full(40, 0.7), 1.0, 1.0),  # equal, whatever their value
        (np.r_[np.ones(38), 0.0, 0.0], 0.9, 1.0),
        (np.r_[np.ones(30), np.full(8, 0.75), 0.5, 0.5], 0.3, 0.8),  # five grades, most of them the best
        (np.resize([0.0, 1.0], 40), 0.1, 0.2),  # variation as of ten residuals
        (np.linspace(0.3, 0.9, 200), 0.0, 1e-4),  # finely graded: the sample variance is reliable
    ],
)
def test_the_event_size_is_large_where_labels_hardly_vary_and_small_where_they_do(label, low, high):
    assert low <= event_size(label - label.mean(), label) <= high


def test_without_labels_the_event_size_is_zero():
    assert event_size(np.empty(0), np.empty(0)) == 0


def label_shares(cell, own=(), event=1.0):
    own = np.asarray(own, dtype=float)
    return LabelShares(np.asarray(cell, dtype=float), np.array([20, 20]), np.zeros(len(own)), own, event)


def test_shares_that_two_policies_have_in_common_cancel_in_the_floor_of_their_difference():
    least = floors({"a": label_shares([0.5, 0.5]), "b": label_shares([0.5, 0.5]), "c": label_shares([0.4, 0.6])})
    assert least["a"].differences["b"] == 0
    assert least["a"].differences["c"] == least["c"].differences["a"] > 0
    assert least["a"].differences["c"] < least["a"].value


def test_labels_of_own_draws_do_not_cancel():
    """The labels of two policies are of different responses, even where they are of the same prompts."""
    own = np.full(30, 1 / 30)
    least = floors({"a": label_shares([0, 0], own), "b": label_shares([0, 0], own)})
    assert least["a"].differences["b"] == pytest.approx(least["a"].value)


def test_an_unknown_floor_of_a_difference_is_that_of_independent_estimates():
    assert (Floor("a", 3.0) - Floor("b", 4.0)).value == 5.0


def test_cells_are_the_distinct_scores_or_ten_parts():
    few = Cells.of(np.array([0.1, 0.5, 0.5, 0.9, np.nan]))
    assert few.mass(np.array([0.1, 0.5, 0.9, np.nan]), np.array([1.0, 2, 3, 4])).tolist() == [1, 2, 3]
    many = Cells.of(np.linspace(0, 1, 101))
    assert len(many.mass(np.array([2.0, -1.0]), np.ones(2))) == 10  # beyond the range: the outer cells


def constant_estimate(value, floor, n=50, bounds=(0.0, 1.0)):
    zeros = np.zeros(n)
    return Estimate(value, zeros, np.arange(n), np.empty(0), np.ones(n, bool), floor=floor, bounds=bounds)


def test_the_floor_is_a_standard_error_and_the_interval_stays_within_its_bounds():
    estimate = constant_estimate(1.0, Floor("a", 0.04))
    low, high = estimate.interval()
    assert estimate.se == 0.04 and high == 1.0
    assert low == pytest.approx(1 - 2.0096 * 0.04, abs=1e-4)  # t with 49 degrees of freedom
    assert (
        constant_estimate(1.2, Floor("a", 0.04)).interval()[1] == 1.2
    )  # a value may lie outside, its interval holds it


def test_a_larger_standard_error_is_left_as_it_is():
    influence = np.resize([1.0, -1.0], 50)
    plain = Estimate(0.5, influence, np.arange(50), np.empty(0), np.ones(50, bool))
    floored = replace(plain, floor=Floor("a", plain.se / 2))
    assert (floored.se, floored.df, floored.interval()) == (plain.se, plain.df, plain.interval())


def test_one_usable_prompt_has_no_standard_error_whatever_the_floor():
    used = np.array([True, False])
    estimate = Estimate(1.0, np.zeros(2), np.arange(2), np.empty(0), used, floor=Floor("a", 0.1))
    assert np.isnan(estimate.se) and np.isnan(estimate.interval()).all()


def test_p_values_and_intervals_agree_about_zero():
    first = constant_estimate(0.99, Floor("a", 0.04, {"b": 0.04}))
    for other, significant in ((0.98, False), (0.7, True)):
        difference = first - constant_estimate(other, Floor("b", 0.04, {"a": 0.04}))
        low, high = difference.interval()
        assert (p_value(difference) < 0.05) == significant == (not low < 0 < high)


def test_equal_replicates_still_have_an_interval_with_width():
    estimate = replace(constant_estimate(1.0, Floor("a", 0.04)), replicates=np.ones(100))
    assert estimate.se == 0.04 and estimate.interval() == (pytest.approx(1 - 0.04 * np.sqrt(Z2)), 1.0)
    difference = estimate - replace(constant_estimate(1.0, Floor("b", 0.04)), replicates=np.ones(100))
    assert p_value(difference) == 1.0


def test_a_target_that_equals_the_base_has_a_difference_and_an_interval_of_zero():
    logged, draws, _ = draw(replace(pass_rate_world(0.98), coverage=40), 200, 3)
    evaluation = evaluate("calibrated-ips", logged, draws, Options())
    difference = evaluation.estimates["clone"] - evaluation.base
    assert difference.interval() == pytest.approx((0, 0), abs=1e-12) and p_value(difference) == 1.0


@pytest.mark.parametrize("inference", ["jackknife", "bootstrap"])
@pytest.mark.parametrize("own", [0, 60])
def test_an_interval_from_labels_that_are_all_one_reaches_below_one(inference, own):
    logged, draws, _ = draw(replace(pass_rate_world(0.98), coverage=40, target_labels=own), 200, 0)
    logged = replace(logged, oracle_label=np.where(logged.labelled, 1.0, np.nan))
    draws = {p: replace(d, oracle_label=np.where(np.isnan(d.oracle_label), np.nan, 1.0)) for p, d in draws.items()}
    evaluation = evaluate("direct", logged, draws, Options(inference=inference, n_bootstrap=50))
    for name, estimate in {"base": evaluation.base, **evaluation.estimates}.items():
        low, high = estimate.interval()
        limit = 60 / (60 + Z2) if own and name != "base" else 40 / (40 + Z2)
        assert low <= limit + 1e-9 < high == 1.0
        assert low > limit - 0.08


@pytest.mark.parametrize("name", estimators.NAMES)
def test_no_estimator_has_an_interval_without_width(name):
    logged, draws, _ = draw(replace(pass_rate_world(0.98), coverage=40), 200, 0)
    logged = replace(logged, oracle_label=np.where(logged.labelled, 1.0, np.nan))
    evaluation = evaluate(name, logged, draws, Options())
    better, worse = (evaluation.estimates[policy] for policy in ("better", "worse"))
    for estimate in (evaluation.base, better, worse, better - evaluation.base, better - worse):
        assert np.diff(estimate.interval()) > 0.01


@pytest.mark.parametrize(
    ("rate", "sharp", "n", "labels", "own"),
    [(0.98, False, 200, 40, 0), (0.95, True, 400, 30, 0), (0.05, False, 200, 25, 0), (0.9, False, 200, 40, 20)],
)
def test_intervals_cover_at_pass_rates_near_zero_and_one(rate, sharp, n, labels, own):
    """Levels and differences; 60 draws of a world: 49 of 60 covered has probability .001 at a coverage of .93."""
    world = replace(pass_rate_world(rate, sharp=sharp), coverage=labels, target_labels=own)
    values, covered = truth(world), {}
    for seed in range(60):
        logged, draws, _ = draw(world, n, seed)
        for name, evaluation in evaluate_all(NAMES, logged, draws, Options(seed=seed)).items():
            estimates = {"base": evaluation.base, **evaluation.estimates}
            for policy, estimate in estimates.items():
                low, high = estimate.interval()
                covered.setdefault((name, policy), []).append(low <= values[policy] <= high)
                low, high = (estimate - evaluation.base).interval()
                covered.setdefault((name, policy, "base"), []).append(low <= values[policy] - values["base"] <= high)
    assert {claim: sum(hits) for claim, hits in covered.items() if sum(hits) < 50} == {}
