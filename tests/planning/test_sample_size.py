"""Plans keep to the budget, reach the effect and are the cheapest; a pilot counts the prompts and labels of its samples."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from arena_cje.errors import UserError
from arena_cje.estimation.records import Options
from arena_cje.evaluation.evaluate import evaluate
from arena_cje.planning import sample_size
from arena_cje.planning.sample_size import (
    Costs,
    Variance,
    allocate,
    fit,
    for_effect,
    grid,
    mde,
    pilot,
    power,
    subsample,
)
from worlds import healthy

PARTS = st.one_of(st.just(0.0), st.floats(1e-4, 1e2))
VARIANCES = st.tuples(PARTS, PARTS).filter(any).map(lambda parts: Variance(*parts))
COSTS = st.builds(Costs, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
LABELS = st.integers(1, 60)
EVEN = Variance(1.0, 1.0)


def budget_of(costs: Costs, min_labels: int, times: float) -> float:
    return costs.total(min_labels, min_labels) * times


@settings(deadline=None)
@given(VARIANCES, COSTS, LABELS, st.floats(1, 1e3))
def test_a_plan_keeps_to_its_budget_and_bounds(variance, costs, min_labels, times):
    """A plan never costs more than its budget and has no fewer labels than the minimum (trap T35)."""
    budget = budget_of(costs, min_labels, times)
    plan = allocate(variance, costs, budget, min_labels=min_labels)
    assert isinstance(plan.n, int) and isinstance(plan.m, int)
    assert plan.n >= plan.m >= min_labels
    assert costs.total(plan.n, plan.m) == plan.cost <= budget
    assert plan.variance == variance.at(plan.n, plan.m)
    # The remaining budget is too small for a further pair, and for a further prompt unless every prompt has a label.
    assert costs.total(plan.n + 1, plan.m + 1) > budget
    assert plan.binding == "every_prompt_labelled" or costs.total(plan.n + 1, plan.m) > budget


@settings(deadline=None)
@given(VARIANCES, COSTS, st.floats(1, 30))
def test_no_affordable_allocation_is_much_better(variance, costs, times):
    """The optimum beats every other allocation, up to rounding by one part in the smallest number of labels (trap T35)."""
    budget = budget_of(costs, 30, times)
    plan = allocate(variance, costs, budget)
    m = np.arange(30, max(30, math.floor(budget / (costs.judge + costs.label))) + 1)
    n = np.maximum(np.floor((budget - costs.label * m) / costs.judge), m)
    best = np.min(variance.sampling / n + variance.calibration / m)
    assert plan.variance <= best * (1 + 1 / 30)


@pytest.mark.parametrize("costs", [Costs(1, 16), Costs(0.01, 0.16), Costs(3, 7)])
@pytest.mark.parametrize("variance", [Variance(0.09, 0.04), Variance(1, 0.1)])
def test_the_free_optimum_is_the_closed_form(variance, costs):
    """The optimum beats its neighbours on the budget line (trap T35)."""
    budget = costs.total(10**6, 10**5)
    plan = allocate(variance, costs, budget)
    root = math.sqrt(costs.judge * variance.sampling) + math.sqrt(costs.label * variance.calibration)
    assert plan.binding == "none"
    assert plan.m == math.floor(budget * math.sqrt(variance.calibration / costs.label) / root)
    assert plan.n == pytest.approx(budget * math.sqrt(variance.sampling / costs.judge) / root, abs=20)
    ratio = math.sqrt(costs.judge / costs.label * variance.calibration / variance.sampling)
    assert plan.m / plan.n == pytest.approx(ratio, rel=1e-3)
    assert plan.variance == pytest.approx(root**2 / budget, rel=1e-4)
    for m in (0.98 * plan.m, 1.02 * plan.m):
        assert variance.at((budget - costs.label * m) / costs.judge, m) > plan.variance


def test_a_plan_agrees_with_a_computation_by_hand():
    """c_S 1, c_Y 16, s_e .09, s_c .04: D = .3 + .8 = 1.1, n* = .3 B / 1.1, m* = .05 B / 1.1."""
    plan = allocate(Variance(0.09, 0.04), Costs(1, 16), 1100)
    assert (plan.n, plan.m, plan.cost, plan.binding) == (300, 50, 1100, "none")
    assert plan.variance == pytest.approx(0.0011)
    assert plan.se == pytest.approx(math.sqrt(0.0011))


def test_without_calibration_variance_the_least_labels_are_paid_first():
    """With s_c = 0 the budget pays the least labels first and is not overrun (trap T35)."""
    plan = allocate(Variance(0.09, 0), Costs(1, 16), 1000)
    assert (plan.n, plan.m, plan.cost, plan.binding) == (1000 - 16 * 30, 30, 1000, "min_labels")


def test_a_small_optimum_is_raised_to_the_least_labels():
    plan = allocate(Variance(0.09, 0.04), Costs(1, 16), 600)  # m* = 27.3
    assert (plan.n, plan.m, plan.binding) == (600 - 16 * 30, 30, "min_labels")
    assert allocate(Variance(0.09, 0.04), Costs(1, 16), 600, min_labels=20).m == 27


def test_no_more_labels_than_prompts():
    plan = allocate(Variance(0.01, 1.0), Costs(1, 1), 1001)
    assert (plan.n, plan.m, plan.binding) == (500, 500, "every_prompt_labelled")
    assert allocate(Variance(0, 1.0), Costs(1, 1), 1001).n == 500


def test_a_budget_of_exactly_the_least_plan_is_enough():
    """In floating point 30 (0.1 + 0.2) differs from 30 0.1 + 30 0.2: rounding must not cost a pair."""
    costs = Costs(0.1, 0.2)
    plan = allocate(EVEN, costs, costs.total(30, 30))
    assert (plan.n, plan.m) == (30, 30)


def test_rounding_never_leaves_a_label_without_its_prompt():
    """Here m* = n*, and a budget a hair below 185 pairs is rounded up to 185 labels."""
    costs = Costs(0.63, 0.52)
    plan = allocate(Variance(0.63, 0.52), costs, math.nextafter(costs.total(185, 185), 0))
    assert (plan.n, plan.m) == (185, 184)  # the money of the last label pays for a prompt


def test_a_budget_below_the_least_plan_is_refused():
    with pytest.raises(UserError, match=r"budget of 509 does not reach 30 judged and labelled prompts, which cost 510"):
        allocate(EVEN, Costs(1, 16), 509)
    for budget in (math.nan, math.inf, -1):
        with pytest.raises(UserError, match="budget"):
            allocate(EVEN, Costs(1, 16), budget)


@pytest.mark.parametrize("parts", [(0, 0), (-1, 1), (1, math.nan), (math.inf, 1)])
def test_components_that_are_none_are_refused(parts):
    with pytest.raises(UserError, match="component"):
        Variance(*parts)


@pytest.mark.parametrize("prices", [(0, 1), (1, 0), (-1, 1), (1, math.nan), (math.inf, 1)])
def test_prices_that_are_none_are_refused(prices):
    with pytest.raises(UserError, match=r"the cost `(judge|label)` must be a number above 0"):
        Costs(*prices)


def test_levels_that_are_none_are_refused():
    for levels in ({"alpha": 0}, {"power": 1}, {"alpha": 0.5, "power": 0.4}):
        with pytest.raises(UserError, match="0 < alpha < power < 1"):
            allocate(EVEN, Costs(1, 1), 1000, **levels)
    for effect in (0, -0.1, math.nan, math.inf):
        with pytest.raises(UserError, match="effect must be a number above 0"):
            for_effect(EVEN, Costs(1, 1), effect)
    for plan, target in ((allocate, 1000), (for_effect, 0.1)):
        with pytest.raises(UserError, match="min_labels must be at least 1"):
            plan(EVEN, Costs(1, 1), target, min_labels=0)


@settings(deadline=None)
@given(VARIANCES, COSTS, LABELS, st.floats(1e-3, 10), st.floats(0.01, 0.2), st.floats(0.5, 0.99))
def test_a_plan_reaches_its_effect_and_wastes_nothing(variance, costs, min_labels, effect, alpha, target_power):
    """A plan detects its effect also where the least number of labels is binding (trap T35)."""
    levels = {"alpha": alpha, "power": target_power, "min_labels": min_labels}
    plan = for_effect(variance, costs, effect, **levels)
    assert plan.n >= plan.m >= min_labels
    assert plan.mde <= effect * (1 + 1e-9)
    assert plan.cost == costs.total(plan.n, plan.m)
    assert power(effect, plan.se, alpha=alpha) >= target_power - 1e-9
    if plan.n > min_labels:
        fewer = variance.at(plan.n - 1, max(plan.m - 1, min_labels))
        assert mde(math.sqrt(fewer), alpha=alpha, power=target_power) >= effect * (1 - 1e-9)
    # The other way round: the same money reaches the same effect.
    assume(plan.m >= 30)
    assert allocate(variance, costs, plan.cost, **levels).mde <= 1.02 * effect


@settings(deadline=None)
@given(VARIANCES, COSTS, st.floats(1, 1e3))
def test_an_effect_that_a_budget_reaches_costs_no_more_than_it(variance, costs, times):
    """Whole numbers aside: one prompt and one label."""
    budget = budget_of(costs, 30, times)
    plan = for_effect(variance, costs, allocate(variance, costs, budget).mde)
    assert plan.cost <= budget + costs.total(1, 1) * (1 + 1e-9)


def test_the_inverse_with_the_least_labels_binding_by_hand():
    """V = .0011 needs n = .09 / (V - .0004 / 30) prompts, not the free optimum's (trap T35)."""
    needed = 0.0011
    effect = mde(math.sqrt(needed))
    plan = for_effect(Variance(0.09, 0.0004), Costs(1, 16), effect)
    assert (plan.n, plan.m, plan.binding) == (math.ceil(0.09 / (needed - 0.0004 / 30)), 30, "min_labels")


def test_a_large_effect_needs_the_least_plan():
    for variance in (Variance(0.09, 0.01), Variance(0.01, 0.09)):
        plan = for_effect(variance, Costs(1, 1), 1.0)
        assert (plan.n, plan.m) == (30, 30)
        assert plan.mde < 1


def test_known_power():
    """z_.975 + z_.8 = 1.960 + 0.842, times the square root of two."""
    assert mde(0.01) == pytest.approx(0.01 * 2.8015852 * math.sqrt(2))
    assert mde(0.01, alpha=0.1, power=0.9) == pytest.approx(0.01 * 2.9264054 * math.sqrt(2))


@settings(deadline=None)
@given(st.floats(1e-4, 10), st.floats(0.001, 0.3), st.floats(0, 10))
def test_power_is_two_tailed(se, alpha, distance):
    """Power at no effect is alpha, not half of it (trap T35)."""
    assert power(0, se, alpha=alpha) == pytest.approx(alpha)
    effect = distance * se
    assert power(-effect, se, alpha=alpha) == pytest.approx(power(effect, se, alpha=alpha))
    assert alpha * (1 - 1e-9) <= power(effect, se, alpha=alpha) <= power(1.1 * effect, se, alpha=alpha) + 1e-12


def test_power_is_the_share_of_tests_that_reject():
    rng = np.random.default_rng(0)
    difference = rng.normal(0.03, 0.02, 400_000) - rng.normal(0, 0.02, 400_000)
    rejected = np.abs(difference / (0.02 * math.sqrt(2))) > stats.norm.isf(0.025)
    assert power(0.03, 0.02) == pytest.approx(rejected.mean(), abs=0.003)
    with pytest.raises(ValueError, match="se must be above 0"):
        power(0.1, 0)


N, M = np.repeat([50, 100, 150, 200], 3), np.tile([15, 25, 40], 4)


@settings(deadline=None)
@given(VARIANCES, st.floats(1e-8, 1e4))
def test_a_fit_finds_the_components_in_any_unit(variance, unit):
    fitted = fit([unit * variance.at(n, m) for n, m in zip(N, M, strict=True)], N, M)
    largest = unit * max(variance.sampling, variance.calibration)
    assert fitted.variance.sampling == pytest.approx(unit * variance.sampling, abs=1e-9 * largest)
    assert fitted.variance.calibration == pytest.approx(unit * variance.calibration, abs=1e-9 * largest)
    assert fitted.r_squared == pytest.approx(1)
    assert fitted.warning is None


def test_components_are_never_negative():
    """Variances that rise with the number of labels leave calibration no share."""
    fitted = fit(1 / N - 0.05 / M, N, M)
    assert fitted.variance.calibration == 0
    assert fitted.variance.sampling > 0


def test_a_fit_that_explains_little_says_so():
    noise = np.random.default_rng(0).uniform(0.5, 1.5, len(N))
    fitted = fit(noise, N, M)
    expected = np.array([fitted.variance.at(n, m) for n, m in zip(N, M, strict=True)])
    assert fitted.r_squared == pytest.approx(1 - np.sum((noise - expected) ** 2) / np.sum((noise - noise.mean()) ** 2))
    assert fitted.r_squared < 0.5
    assert "too little" in fitted.warning
    assert fit(np.ones(len(N)), N, M).warning is not None  # equal variances explain nothing


def test_cells_that_tell_nothing_apart_are_refused():
    for n, m in (([100], [25]), ([100, 200], [25, 50])):
        with pytest.raises(UserError, match="differ in the share of labelled prompts"):
            fit(np.ones(len(n)), n, m)
    for bad in ([math.nan, 1], [-1, 1]):
        with pytest.raises(UserError, match="finite variance"):
            fit(bad, [100, 100], [25, 50])
    with pytest.raises(UserError, match="n >= m > 0"):
        fit([1, 1], [100, 100], [25, 101])
    with pytest.raises(ValueError, match="equally long"):
        fit([1, 1], [100], [25, 50])
    with pytest.raises(UserError, match="component"):
        fit(np.zeros(len(N)), N, M)


@settings(deadline=None)
@given(st.integers(51, 5000), st.floats(0, 1))
def test_a_grid_has_fewer_labels_than_prompts(prompts, share):
    """No cell asks for more labels than prompts, nor for more of either than the pilot has (trap T35)."""
    labels = round(share * prompts)
    assume(labels >= 27)
    cells = grid(prompts, labels)
    assert all(4 <= m <= 0.9 * n and m <= labels and n <= prompts for n, m in cells)
    assert len({n for n, _ in cells}) >= 2
    fit([EVEN.at(n, m) for n, m in cells], *zip(*cells, strict=True))  # raises if the components are not identified


def test_a_grid_by_hand():
    assert grid(1000, 250) == [(n, m) for n in (150, 300, 450, 600) for m in (38, 62, 100)]
    assert grid(1000, 1000) == [(n, m) for n in (150, 300, 450, 600) for m in (90, 135)]
    assert grid(300, 100) == [(n, m) for n in (50, 100, 150, 200) for m in (15, 25, 40)]
    assert grid(120, 30) == [(n, m) for n in (50, 100, 120) for m in (4, 8, 12)]


def test_a_pilot_that_is_too_small_is_refused():
    with pytest.raises(UserError, match="more than 50 prompts, got 50"):
        grid(50, 50)
    with pytest.raises(UserError, match="at least 27 prompts, got 10"):
        grid(1000, 10)


def test_a_subsample_has_the_numbers_asked_for():
    with_label = np.arange(100) % 3 == 0
    keep, keep_label = subsample(with_label, 50, 20, np.random.default_rng(0))
    assert (keep.sum(), keep_label.sum()) == (50, 20)
    assert not (keep_label & ~keep).any()
    assert not (keep_label & ~with_label).any()


def test_prompts_of_a_subsample_are_a_random_sample():
    """Beyond the labelled ones of a subsample, every prompt is equally likely to be in it."""
    with_label = np.arange(100) < 40
    samples = [subsample(with_label, 50, 20, np.random.default_rng(seed))[0] for seed in range(400)]
    assert np.mean(samples, axis=0)[~with_label] == pytest.approx(np.full(60, 30 / 80), abs=0.1)
    assert np.mean(samples, axis=0)[with_label] == pytest.approx(np.full(40, 20 / 40 + 20 / 40 * 30 / 80), abs=0.1)


class Recorder:
    """An evaluation with a known variance, which records its calls."""

    def __init__(self, variance: Variance):
        self.variance, self.calls = variance, []

    def __call__(self, name, logged, draws, options):
        self.calls.append((name, logged, draws, options))
        n = len(np.unique(logged.prompt_id))
        m = len(np.unique(logged.prompt_id[logged.labelled]))
        se = math.sqrt(self.variance.at(n, m))
        return SimpleNamespace(estimates={policy: SimpleNamespace(se=se) for policy in logged.policies})

    @property
    def sizes(self) -> set[tuple[int, int]]:
        return {(len(set(part.prompt_id)), len(set(part.prompt_id[part.labelled]))) for _, part, _, _ in self.calls}


@pytest.mark.parametrize("rows_per_prompt", [(1,), (2, 3, 4)])
def test_a_pilot_finds_known_components_at_actual_sizes(rows_per_prompt):
    """The fit uses each sample's numbers of prompts and labels, not rows, nor sizes beyond the pilot's (trap T35)."""
    logged, draws, _ = healthy(n=400, rows_per_prompt=rows_per_prompt)
    recorder = Recorder(Variance(0.2, 0.05))
    fitted = pilot(logged, draws, "direct", "clone", Options(), replicates=3, evaluate=recorder)
    assert fitted.variance.sampling == pytest.approx(0.2)
    assert fitted.variance.calibration == pytest.approx(0.05)
    assert set(zip(fitted.n, fitted.m, strict=True)) == recorder.sizes
    prompts = len(np.unique(logged.prompt_id))
    labelled = len(np.unique(logged.prompt_id[logged.labelled]))
    assert recorder.sizes == set(grid(prompts, labelled))
    assert len(recorder.calls) == 3 * len(recorder.sizes)


def test_a_pilot_counts_the_actual_prompts_and_labels_of_each_subsample(monkeypatch):
    """If a subsample is smaller than its cell of the grid, the fit uses its actual size (trap T35)."""
    logged, draws, _ = healthy(n=400)

    def smaller_subsample(with_label, n, m, rng):
        return subsample(with_label, n - 7, m - 3, rng)

    monkeypatch.setattr(sample_size, "subsample", smaller_subsample)
    recorder = Recorder(Variance(0.2, 0.05))
    fitted = pilot(logged, draws, "direct", "clone", Options(), replicates=1, evaluate=recorder)
    assert set(zip(fitted.n, fitted.m, strict=True)) == {(n - 7, m - 3) for n, m in grid(400, 100)}
    assert fitted.variance.calibration == pytest.approx(0.05)


def test_a_pilot_evaluates_one_policy_analytically_on_rows_that_belong_together():
    logged, draws, _ = healthy(n=400, rows_per_prompt=(1, 2), target_labels=0.5)
    before = logged.oracle_label.copy()
    options = Options(inference="bootstrap", seed=7)
    recorder = Recorder(EVEN)
    pilot(logged, draws, "direct", "worse", options, replicates=1, evaluate=recorder)
    score = {s: (p, r) for s, p, r in zip(logged.judge_score, logged.prompt_id, logged.log_ratio[:, 2], strict=True)}
    fresh = dict(zip(logged.judge_score, draws["worse"].judge_score, strict=True))
    for name, part, part_draws, part_options in recorder.calls:
        assert name == "direct"
        assert part_options == replace(options, inference="jackknife")
        assert part.policies == ("worse",) and list(part_draws) == ["worse"]
        rows = zip(part.judge_score, part.prompt_id, part.log_ratio[:, 0], strict=True)
        assert all(score[s] == (p, r) for s, p, r in rows)
        assert all(fresh[s] == f for s, f in zip(part.judge_score, part_draws["worse"].judge_score, strict=True))
        for prompt in np.unique(part.prompt_id):  # a sample has all rows of a prompt, or none
            assert (part.prompt_id == prompt).sum() == (logged.prompt_id == prompt).sum()
    assert np.array_equal(logged.oracle_label, before, equal_nan=True)


def test_a_prompt_that_is_not_labelled_loses_the_labels_of_its_draws():
    logged, draws, _ = healthy(n=400, coverage=0.5, target_labels=0.5)
    recorder = Recorder(EVEN)
    fitted = pilot(logged, draws, "direct", "clone", Options(), replicates=1, evaluate=recorder)
    for (_, part, part_draws, _), m in zip(recorder.calls, fitted.m, strict=True):
        either = part.labelled | ~np.isnan(part_draws["clone"].oracle_label).all(axis=1)
        assert len(np.unique(part.prompt_id[either])) == m
        assert (either & ~part.labelled).any()  # a label of a draw alone is a label


def test_a_pilot_is_the_same_for_the_same_seed_and_differs_between_seeds():
    logged, _, _ = healthy(n=120)

    def sampled_prompts(seed: int) -> list[list[str]]:
        recorder = Recorder(EVEN)
        pilot(logged, None, "calibrated-ips", "clone", Options(seed=seed), replicates=2, evaluate=recorder)
        return [part.prompt_id.tolist() for _, part, _, _ in recorder.calls]

    assert sampled_prompts(1) == sampled_prompts(1)
    assert sampled_prompts(1) != sampled_prompts(2)
    assert sampled_prompts(1)[0] != sampled_prompts(1)[1]  # replicates differ


def test_components_of_a_pilot_predict_the_whole_pilots_variance():
    """With the real estimator, four cells' worth of extrapolation."""
    logged, draws, _ = healthy(n=500)
    options = Options(jackknife_folds=10)
    fitted = pilot(logged, draws, "direct", "clone", options, replicates=4)
    whole = evaluate("direct", logged, draws, options).estimates["clone"].se ** 2
    assert fitted.variance.at(500, 125) == pytest.approx(whole, rel=0.5)
    assert fitted.warning is None
    plan = allocate(fitted.variance, Costs(1, 16), 2000)
    assert plan.cost <= 2000 and plan.mde < 0.2


def test_a_pilot_refuses_what_it_cannot_measure():
    logged, draws, _ = healthy(n=200)
    with pytest.raises(UserError, match=r"unknown policy 'clones' \(did you mean 'clone'\?\)"):
        pilot(logged, draws, "direct", "clones", Options())
    with pytest.raises(UserError, match="replicates must be at least 1"):
        pilot(logged, draws, "direct", "clone", Options(), replicates=0)
