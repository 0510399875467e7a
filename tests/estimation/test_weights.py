"""Importance weights: mean one, unchanged by a constant on the log ratios, capped where an option sets a cap."""

from __future__ import annotations

import numpy as np
import pytest

from arena_cje.diagnostics.overlap import describe, ess_share, mean_raw_weight, tail_index
from arena_cje.estimation.isotonic import isotonic
from arena_cje.estimation.records import Options
from arena_cje.estimation.weights import (
    MANY_ROWS,
    RESOLUTION,
    Cells,
    candidates,
    capped_variance,
    clipped,
    hajek,
    mixture,
    simcal,
    smallest_on_simplex,
)

N = 600


def problem(seed: int = 0, shift: float = 0.8, style: float = 0.5):
    rng = np.random.default_rng(seed)
    quality, noise = rng.standard_normal(N), rng.standard_normal(N)
    weight = hajek(shift * quality + style * noise)
    index = np.round(1 / (1 + np.exp(-quality)), 2)
    reward = np.clip(index + 0.1 * rng.standard_normal(N), 0, 1)
    return weight, index, reward, rng.integers(0, 5, N)


def stabilised(weight, index, reward, fold, cap=1.0):
    return simcal(weight, index, reward, fold, cap=cap)[0]


def test_hajek_weights_have_mean_one_and_ignore_a_constant_on_the_log_ratios():
    log_ratio = np.random.default_rng(0).normal(0, 100, 500)
    assert hajek(log_ratio).mean() == pytest.approx(1)
    assert hajek(log_ratio - 700) == pytest.approx(hajek(log_ratio))


def test_weights_of_equal_policies_are_exactly_one():
    """Where log probabilities are equal every weight is exactly one (trap T23)."""
    assert (hajek(np.zeros(7)) == 1).all()


def test_rows_with_a_log_ratio_of_minus_infinity_have_weight_zero():
    assert hajek(np.array([0.0, -np.inf, 0.0])).tolist() == [1.5, 0, 1.5]
    assert np.isnan(hajek(np.full(3, -np.inf))).all()


def test_clipping_cuts_then_rescales():
    """The largest weight may exceed the clip after rescaling, as documented (trap T47)."""
    weight = np.array([8.0, 0.0, 0.0, 0.0])
    assert clipped(weight, np.inf) == pytest.approx(4 * weight / 8)
    assert clipped(np.array([3.0, 0.5, 0.5]), 1.0) == pytest.approx(np.array([1.0, 0.5, 0.5]) * 1.5)


@pytest.mark.parametrize("shift", [0.0, 0.8, -0.8, 3.0])
def test_simcal_is_mean_one_positive_and_keeps_half_of_the_sample(shift):
    weight = stabilised(*problem(shift=shift, style=2.0))
    assert weight.mean() == pytest.approx(1)
    assert weight.min() > 0
    assert weight.var() <= 1 + 1e-9
    assert ess_share(weight) >= 0.5 - 1e-9


@pytest.mark.parametrize(("var_cap", "ess_floor", "cap"), [(0.3, 0.2, 0.3), (1.0, 0.8, 0.25)])
def test_the_tighter_of_the_two_caps_applies(var_cap, ess_floor, cap):
    assert Options(var_cap=var_cap, ess_floor=ess_floor).weight_variance == pytest.approx(cap)
    weight = stabilised(*problem(shift=2.0), cap=cap)
    assert weight.var() <= cap + 1e-9
    assert ess_share(weight) >= 1 / (1 + cap) - 1e-9


def test_a_cap_that_does_not_bind_changes_nothing():
    capped, uncapped = simcal(*problem(shift=0.4), cap=1.0)
    assert (capped == uncapped).all() and capped.var() < 1
    capped, uncapped = simcal(*problem(shift=2.0), cap=1.0)
    assert uncapped.var() > 1.5 > capped.var()
    assert (simcal(*problem(shift=2.0), cap=np.inf) == uncapped).all()


def test_weights_of_a_fold_are_fitted_on_the_other_folds_and_have_mean_one():
    weight, index, reward, fold = problem()
    cells = Cells.of(weight, index, reward, fold)
    fitted, centre = candidates(cells)
    for k in range(5):
        in_fold = fold == k
        assert np.average(fitted[:, :, k], axis=1, weights=cells.count[:, k]) == pytest.approx(1)
        changed = Cells.of(np.where(in_fold, 9 * weight[::-1], weight), index, reward, fold)
        moved, _ = candidates(changed)
        assert moved[:, :, k] == pytest.approx(fitted[:, :, k], rel=1e-12)
        assert np.delete(moved, k, axis=2) != pytest.approx(np.delete(fitted, k, axis=2), rel=1e-3)


def test_candidates_by_hand():
    """A rising fit on the other fold, evaluated by interpolation, with mean one in its own fold."""
    weight, index, reward, fold = problem()
    cells = Cells.of(weight, index, reward, np.minimum(fold, 1))
    fitted, centre = candidates(cells)
    in_fold = fold == 0
    by_hand = isotonic(index[~in_fold], weight[~in_fold])(index)
    assert fitted[0].ravel()[cells.cell[in_fold]] == pytest.approx(by_hand[in_fold] / by_hand[in_fold].mean())
    typical = np.average(reward, weights=weight)
    assert centre[0, 0] == pytest.approx(np.average(reward[~in_fold] - typical, weights=by_hand[~in_fold]))


def test_mixture_shares_from_cells_equal_those_from_rows():
    """The shares of the two fits, computed from sums by cell, equal those computed from rows."""
    weight, index, reward, fold = problem(shift=0.3)
    cells = Cells.of(weight, index, reward, fold)
    fitted, centre = candidates(cells)
    rows = fitted.reshape(2, -1)[:, cells.cell]
    influence = rows * (reward - np.average(reward, weights=weight) - centre[:, fold])
    bias = np.mean(rows * (reward - np.average(reward, weights=weight)), axis=1)
    by_hand = smallest_on_simplex(np.cov(influence) / N + np.outer(bias, bias))
    assert mixture(cells, fitted, centre) == pytest.approx(by_hand, rel=1e-9)


def test_simcal_leaves_weights_of_one_unchanged():
    _, index, reward, fold = problem()
    assert stabilised(np.ones(N), index, reward, fold) == pytest.approx(np.ones(N), abs=1e-12)


def test_ties_in_the_index_get_equal_weights():
    """Rows with equal index weigh the same, whatever their order (trap T43)."""
    weight, index, reward, fold = problem()
    fitted = stabilised(weight, index, reward, fold)
    for k in range(5):
        for level in np.unique(index[fold == k]):
            assert np.ptp(fitted[(fold == k) & (index == level)]) < 1e-12


def test_ties_get_equal_weights_among_many_rows_as_well():
    """Beyond MANY_ROWS the index is rounded to steps, and ties in a step have equal weights, too (trap T43)."""
    rows = MANY_ROWS + 1
    rng = np.random.default_rng(0)
    index = rng.integers(0, 50, rows) / 50 + 1e-6 * rng.random(rows)  # less than half a step apart
    weight = hajek(0.8 * index + 0.3 * rng.standard_normal(rows))
    fold, reward = rng.integers(0, 5, rows), index
    rounded = simcal(weight, index, reward, fold, cap=1.0)[0]
    level = np.rint(index * RESOLUTION).astype(int)
    for k in range(5):
        in_fold = fold == k
        low, high = np.full(RESOLUTION + 2, np.inf), np.zeros(RESOLUTION + 2)
        np.minimum.at(low, level[in_fold], rounded[in_fold])
        np.maximum.at(high, level[in_fold], rounded[in_fold])
        assert np.max(high[high > 0] - low[high > 0]) < 1e-12
    assert len(np.unique(rounded)) <= 5 * 51
    few = simcal(weight[:-1], np.round(index[:-1], 4), reward[:-1], fold[:-1], cap=1.0)[0]
    assert rounded[:-1] == pytest.approx(few, rel=1e-3)


@pytest.mark.parametrize(("shift", "direction"), [(0.8, 1), (-0.8, -1)])
def test_fitted_weights_rise_or_fall_with_the_index_as_the_raw_weights_do(shift, direction):
    """The fit follows the direction of the target, not the one with the smaller variance."""
    weight, index, reward, fold = problem(shift=shift, style=0.0)
    fitted = stabilised(weight, index, reward, fold)
    assert direction * np.corrcoef(fitted, index)[0, 1] > 0.6
    assert shares(weight, index, reward, fold)[0 if direction > 0 else 1] > 0.8


def shares(weight, index, reward, fold):
    cells = Cells.of(weight, index, reward, fold)
    return mixture(cells, *candidates(cells))


def test_the_mixture_does_not_depend_on_the_origin_or_unit_of_rewards():
    """Shares do not change if a constant is added to the rewards (trap T7) or their unit is ten times larger (trap T46)."""
    weight, index, reward, fold = problem(shift=0.3)
    share = shares(weight, index, reward, fold)
    assert share.min() > 0.01  # both fits take part
    assert shares(weight, index, reward + 3, fold) == pytest.approx(share, abs=1e-9)
    assert shares(weight, index, 10 * reward, fold) == pytest.approx(share, abs=1e-9)


def test_order_of_rows_does_not_matter():
    parts = problem()
    order = np.random.default_rng(9).permutation(N)
    assert stabilised(*(part[order] for part in parts)) == pytest.approx(stabilised(*parts)[order])


def test_few_rows_keep_their_raw_weights():
    weight = hajek(np.linspace(-0.5, 0.5, 8))
    fitted = stabilised(weight, np.linspace(0, 1, 8), np.linspace(0, 1, 8), np.arange(8) % 5)
    assert fitted == pytest.approx(weight)


def test_one_row_with_all_the_weight_stays_finite():
    _, index, reward, fold = problem()
    weight = np.zeros(N)
    weight[0] = N
    fitted = stabilised(weight, index, reward, fold)
    assert np.isfinite(fitted).all() and fitted.mean() == pytest.approx(1)


def test_capped_variance_changes_only_variances_above_the_cap():
    weight = np.array([0.9, 1.1])
    assert (capped_variance(weight, 1.0) == weight).all()
    assert capped_variance(np.array([0.0, 0, 0, 4]), 1.0).var() == pytest.approx(1)


def test_smallest_on_simplex_minimises_the_quadratic_form():
    assert smallest_on_simplex(np.diag([1.0, 3.0])) == pytest.approx([0.75, 0.25])
    assert smallest_on_simplex(np.array([[1.0, 2.0], [2.0, 5.0]])) == pytest.approx([1, 0])
    assert smallest_on_simplex(np.ones((3, 3))) == pytest.approx(np.ones(3) / 3)
    assert smallest_on_simplex(np.zeros((2, 2))) == pytest.approx([0.5, 0.5])
    quadratic = np.array([[2.0, 0.5], [0.5, 1.0]])
    assert smallest_on_simplex(1e6 * quadratic) == pytest.approx(smallest_on_simplex(quadratic))


@pytest.mark.parametrize("rows", range(1, 400, 7))
def test_equal_weights_have_an_ess_share_of_at_most_one(rows):
    """Rounding must not raise it above one."""
    assert 1 - 1e-12 < ess_share(np.full(rows, 1 / 3)) <= 1


def test_ess_share_of_known_weights():
    assert ess_share(np.ones(5)) == 1
    assert ess_share(np.array([5.0, 0, 0, 0, 0])) == pytest.approx(0.2)
    weight = np.random.default_rng(0).exponential(size=1000)
    weight /= weight.mean()
    assert ess_share(weight) == pytest.approx(1 / (1 + weight.var()))


def test_tail_index_recovers_a_pareto():
    uniform = (np.arange(1, 20001) - 0.5) / 20000
    for alpha in (0.8, 1.5, 3.0):
        assert tail_index(uniform ** (-1 / alpha)) == pytest.approx(alpha, rel=0.02)


def test_the_tail_index_is_unknown_with_too_few_positive_weights():
    """With 96 % of the weights zero the tail index is unknown, not infinite (trap T20)."""
    mostly_zero = np.zeros(1000)
    mostly_zero[:40] = 25
    assert np.isnan(tail_index(mostly_zero))
    assert np.isnan(tail_index(np.ones(9)))
    assert tail_index(np.ones(100)) == np.inf


def test_mean_raw_weight_survives_overflow_and_equal_policies():
    assert mean_raw_weight(np.zeros(10), np.arange(10)) == (1, 0, 0)
    _, _, z = mean_raw_weight(np.array([600.0, 601.0, 599.0]), np.arange(3))
    assert z > 0 and np.isfinite(z)
    mean, se, z = mean_raw_weight(np.log(np.array([1.5, 0.5])), np.arange(2))
    assert (mean, se, z) == pytest.approx((1, 0.5, 0), abs=1e-12)


def test_a_mean_weight_of_one_up_to_rounding_is_one():
    rounding = 1e-12 * np.ones(10)
    assert mean_raw_weight(rounding, np.arange(10))[2] == 0
    assert mean_raw_weight(-rounding, np.arange(10))[2] == 0
    assert mean_raw_weight(1e6 * rounding, np.arange(10))[2] > 1e3


def test_the_standard_error_of_the_mean_weight_counts_prompts_not_rows():
    log_ratio = np.random.default_rng(0).normal(0.3, 0.5, 40)
    once = mean_raw_weight(log_ratio, np.arange(40))
    assert once[1] == pytest.approx(np.exp(log_ratio).std(ddof=1) / np.sqrt(40))
    assert mean_raw_weight(np.repeat(log_ratio, 3), np.repeat(np.arange(40), 3)) == pytest.approx(once)
    assert np.isnan(mean_raw_weight(log_ratio, np.zeros(40, int))).all()


@pytest.mark.parametrize(("weight", "share"), [(1.1e-10, 0.0), (0.9e-10, 0.5)])
def test_a_weight_of_a_ten_billionth_is_near_zero(weight, share):
    assert describe(np.array([weight, 2.0] * 20)).near_zero_share == share


def test_describe_counts_extreme_weights():
    weight = np.concatenate([np.full(10, 0.0), np.full(10, 0.0005), np.full(10, 0.005), np.full(968, 1.0), [150, 1500]])
    diagnostics = describe(np.append(weight, np.nan))
    assert diagnostics.n == 1000
    assert (diagnostics.n_zero, diagnostics.n_below_0_001, diagnostics.n_below_0_01) == (10, 20, 30)
    assert (diagnostics.n_above_100, diagnostics.n_above_1000, diagnostics.max_weight) == (2, 1, 1500)
    assert diagnostics.near_zero_share == pytest.approx(0.01)
    assert diagnostics.top5_mass == pytest.approx((1650 + 48) / weight.sum())
