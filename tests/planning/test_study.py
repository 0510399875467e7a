"""Planned studies: the least sizes that reach a goal, budgets that hold, margins for noisy pilots, pilots from data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from arena_cje.errors import UserError
from arena_cje.estimation.records import Estimate, Floor, Options
from arena_cje.evaluation.evaluate import evaluate
from arena_cje.planning.pilots import pilot_of_data
from arena_cje.planning.sample_size import Costs, Variance
from arena_cje.planning.study import (
    MAX_PROMPTS,
    Difference,
    Goal,
    Pilot,
    Size,
    best_for_budget,
    cheapest,
    cost,
    fewest_labels,
    fewest_prompts,
    precision,
)
from arena_cje.simulate import Target, World, draw

WORLD = World(
    {"clone": Target(), "better": Target(0.3)}, prompt_share=0.7, strictness=0.7, judge_style=0.8, paired=True
)


def pilot(*parts: tuple[float, float], labels: dict[str, int] | None = None, df: float = 1e6) -> Pilot:
    """A pilot of 400 prompts and 60 labelled ones with these s_e and s_c, a difference each."""
    differences = {f"t{k}": Difference(Variance(*part), df, df) for k, part in enumerate(parts)}
    return Pilot("base", "direct", 400, labels or dict.fromkeys(("base", *differences), 60), differences)


def data(world: World, n: int, seed: int):
    logged, draws, _ = draw(world, n, seed)
    return replace(logged, covariates=None), {p: replace(d, covariates=None) for p, d in draws.items()}


PARTS = st.tuples(st.floats(0.0, 0.2), st.floats(0.001, 0.2))
PILOTS = st.builds(lambda parts, df: pilot(*parts, df=df), st.lists(PARTS, min_size=1, max_size=3), st.floats(5, 500))
COSTS = st.builds(Costs, st.floats(1e-3, 1), st.floats(1e-3, 1))


def test_precision_agrees_with_a_computation_by_hand():
    """V = .09 / 400 + .04 / 60; the label part of a study has 19 degrees of freedom."""
    one = pilot((0.09, 0.04))
    by_prompts, by_labels = 0.09 / 400, 0.04 / 60
    variance = by_prompts + by_labels
    df = variance**2 / (by_prompts**2 / 1e6 + by_labels**2 / 19)
    at = precision(one, 400, 60, margin=False)
    assert at.half_width[0] == pytest.approx(stats.t.isf(0.025, df) * np.sqrt(variance))
    assert at.detectable[0] == pytest.approx((stats.t.isf(0.025, df) + stats.t.ppf(0.8, df)) * np.sqrt(variance))


def test_several_differences_are_corrected_where_they_are_detected_alone():
    one, two = (precision(pilot(*[(0.09, 0.04)] * count), 400, 60, margin=False) for count in (1, 2))
    assert two.half_width[0] == one.half_width[0]
    df = 19 * ((0.09 / 400 + 0.04 / 60) / (0.04 / 60)) ** 2
    ratio = (stats.t.isf(0.0125, df) + stats.t.ppf(0.8, df)) / (stats.t.isf(0.025, df) + stats.t.ppf(0.8, df))
    assert two.detectable[0] / one.detectable[0] == pytest.approx(ratio, rel=1e-4)


def test_the_margin_is_for_noisy_variances_alone():
    """With 20 degrees of freedom in the pilot and many in the study F_.9 is 20 / chi^2_.1(20) = 1.607."""
    known, noisy = (precision(pilot((0.09, 1e-9), df=df), 10**6, 10**6) for df in (1e9, 20))
    bare = precision(pilot((0.09, 1e-9), df=20), 10**6, 10**6, margin=False)
    assert known.half_width == pytest.approx(bare.half_width, rel=1e-3)
    assert (noisy.half_width / bare.half_width)[0] == pytest.approx(
        np.sqrt(20 / stats.chi2.ppf(0.1, 20)) / 1.1, rel=0.01
    )


@settings(deadline=None, max_examples=25)
@given(PILOTS, COSTS, st.floats(0.01, 0.1), st.booleans())
def test_the_cheapest_study_reaches_its_goal_and_no_cheaper_neighbour_does(one, costs, target, is_width):
    goal = Goal(half_width=target) if is_width else Goal(difference=target)
    size = cheapest(one, costs, goal)
    assert size.n >= size.m >= one.least_m
    assert goal.reached(precision(one, size.n, size.m))
    if size.n > size.m:
        assert not goal.reached(precision(one, size.n - 1, size.m))
    for factor in (0.7, 0.95, 1.05, 1.5):
        m = np.array([max(one.least_m, round(size.m * factor))])
        other = Size(int(fewest_prompts(one, goal, m)[0]), int(m[0]))
        assert other.n == 0 or cost(one, costs, other) >= cost(one, costs, size) * (1 - 0.02)


@settings(deadline=None, max_examples=50)
@given(PILOTS, COSTS, st.floats(1.0, 200.0))
def test_no_study_costs_more_than_its_budget_and_none_for_it_is_much_better(one, costs, times):
    budget = cost(one, costs, Size(one.least_m, one.least_m)) * times * (1 + 1e-9)
    size = best_for_budget(one, costs, budget)
    assert size.n >= size.m >= one.least_m
    assert cost(one, costs, size) <= budget * (1 + 1e-9)
    widest = precision(one, size.n, size.m).detectable.max()
    for m in np.unique(np.geomspace(one.least_m, size.n, 20).round().astype(int)):
        n = min((budget - cost(one, costs, Size(0, int(m)))) / costs.judge, MAX_PROMPTS)
        if n >= m:
            assert precision(one, n, m).detectable.max() >= widest * (1 - 0.03)


@settings(deadline=None, max_examples=30)
@given(PILOTS, st.floats(0.02, 0.2), st.integers(60, 5000))
def test_the_fewest_labels_are_enough_and_one_fewer_is_not(one, difference, n):
    goal = Goal(difference=difference)
    m = fewest_labels(one, goal, n)
    if m is None:
        assert not goal.reached(precision(one, n, n))
    else:
        assert goal.reached(precision(one, n, m))
        assert m == one.least_m or not goal.reached(precision(one, n, m - 1))


def test_a_difference_that_prompts_alone_are_too_few_for_has_no_number_of_labels():
    assert fewest_labels(pilot((0.2, 0.01)), Goal(half_width=0.01), 100) is None


def test_labels_stay_in_the_proportions_of_the_pilot():
    one = pilot((0.09, 0.04), labels={"base": 120, "t0": 60})
    assert one.least_m == 60  # 30 of the target
    assert one.labels_at(200) == {"base": 200, "t0": 100}
    assert cost(one, Costs(1, 2), Size(300, 200)) == 300 + 2 * 300


def test_a_pilot_read_from_its_document_is_unchanged():
    one = pilot((0.09, 0.04), (0.01, 0.2))
    assert Pilot.from_document(one.document()) == one


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [({"difference": 0.0}, "difference must lie in"), ({"half_width": np.nan}, "half_width must lie in"),
     ({"power": 1.0}, r"power must lie in \[0.5, 1\), got 1.0")],
)  # fmt: skip
def test_goals_out_of_range_are_refused(fields, sentence):
    with pytest.raises(UserError, match=sentence):
        Goal(**fields)


def test_a_budget_for_less_than_the_fewest_labels_is_refused():
    with pytest.raises(
        UserError, match="a budget of 10 does not pay for 30 prompts with judged responses and 60 labels"
    ):
        best_for_budget(pilot((0.09, 0.04)), Costs(1, 1), 10)


def test_components_of_a_pilot_predict_the_standard_error_of_a_study():
    """From 400 prompts and 80 labels to 1500 and 300, means over ten data sets each."""
    small, large = replace(WORLD, coverage=80, target_labels=80), replace(WORLD, coverage=300, target_labels=300)
    predicted, actual = [], []
    for seed in range(10):
        one = pilot_of_data(*data(small, 400, seed), None, Options(seed=seed)).differences["better"]
        predicted.append(one.variance.at(1500, 300))
        evaluation = evaluate("direct", *data(large, 1500, 100 + seed), Options(seed=seed))
        actual.append((evaluation.estimates["better"] - evaluation.base).se ** 2)
    assert np.mean(predicted) == pytest.approx(np.mean(actual), rel=0.2)


def test_a_pilot_from_data_has_as_many_labels_of_the_base_as_of_the_targets():
    """Labels of the base on prompts without a label of a target are left out first."""
    logged, draws = data(replace(WORLD, coverage=0.5, target_labels=60), 400, 1)
    one = pilot_of_data(logged, draws, None, Options())
    assert one.labels == {"base": 60, "clone": 60, "better": 60}
    same = pilot_of_data(*data(replace(WORLD, coverage=60, target_labels=60), 400, 1), None, Options())
    assert one.differences["better"].variance.calibration == pytest.approx(
        same.differences["better"].variance.calibration
    )


def test_where_every_prompt_has_labels_half_of_them_are_left_out():
    one = pilot_of_data(*data(replace(WORLD, coverage=1.0, target_labels=1.0), 200, 1), None, Options())
    assert one.labels == {"base": 100, "clone": 100, "better": 100}
    assert one.differences["better"].variance.calibration > 0


def test_targets_without_enough_labels_have_no_plan_and_a_reason():
    logged, draws = data(replace(WORLD, coverage=0.5, target_labels=30), 400, 1)
    few = draws["clone"].oracle_label.copy()
    few[np.flatnonzero(~np.isnan(few[:, 0]))[15:]] = np.nan
    none = np.full_like(few, np.nan)
    draws = {"clone": replace(draws["clone"], oracle_label=few), "better": draws["better"]}
    one = pilot_of_data(logged, draws, None, Options())
    assert list(one.differences) == ["better"]
    assert one.omitted == {"clone": "its responses have labels on 15 prompts, and a plan needs 20"}
    unlabelled = replace(logged, oracle_label=np.full(400, np.nan))
    assert set(pilot_of_data(unlabelled, draws, None, Options()).omitted.values()) >= {
        "base responses have labels on 0 prompts, and a plan needs 20"
    }
    empty = pilot_of_data(logged, {p: replace(d, oracle_label=none) for p, d in draws.items()}, None, Options())
    assert empty.differences == {} and set(empty.omitted) == {"clone", "better"}


def test_a_difference_without_variance_is_none():
    zeros = np.zeros(50)
    assert Difference.of(Estimate(0.0, zeros, np.arange(50), np.zeros(20), np.ones(50, bool)), 30) is None


def test_a_floor_of_the_standard_error_belongs_to_the_labels():
    """Where labels hardly vary, the floor is larger than their sample variance and replaces it."""
    flat = Estimate(0.0, np.zeros(50), np.arange(50), np.zeros(20), np.ones(50, bool), floor=Floor(value=0.1))
    variance = Difference.of(flat, 30).variance
    assert (variance.sampling, variance.calibration) == (0.0, pytest.approx(30 * 0.01))
