"""Standard errors: closed forms where they exist, coverage where they do not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from arena_cje import estimators
from arena_cje.estimation.inference import critical_value, kurtosis_df
from arena_cje.estimation.records import Draws, Estimate, Labelled, Logged
from arena_cje.evaluation.evaluate import Options, evaluate, evaluate_all
from arena_cje.simulate import Target, World, draw
from worlds import healthy, take, take_draws

WEIGHTED = [name for name in estimators.NAMES if estimators.get(name).NEEDS == ("log_ratio",)]
REPLICATES = 150
DOWN, UP = {"down": Target(-0.4, 0.3)}, {"up": Target(0.4, 0.3)}


def estimate_of(influence, jackknife=(), cluster=None, used=None, bias=0.0) -> Estimate:
    influence = np.array(influence, dtype=float)
    cluster = np.arange(len(influence)) if cluster is None else np.array(cluster)
    used = np.ones(len(influence), bool) if used is None else np.array(used)
    return Estimate(0.5, influence, cluster, np.array(jackknife, dtype=float), used, bias)


def test_jackknife_variance_in_closed_form():
    """The jackknife variance is summed over folds, not averaged (trap T1)."""
    assert estimate_of([0, 0], [0, 1, 2, 3, 4]).oracle_variance == pytest.approx(4 / 5 * 10)
    assert estimate_of([0, 0]).oracle_variance == 0


def test_prompts_are_the_unit_of_sampling():
    """The same rows twice under the same prompts add no information."""
    influence = np.random.default_rng(0).standard_normal(50)
    once = estimate_of(influence)
    twice = estimate_of(np.tile(influence, 2), cluster=np.tile(np.arange(50), 2))
    assert once.se == pytest.approx(influence.std(ddof=1) / np.sqrt(50))
    assert twice.se == pytest.approx(once.se)
    assert np.isnan(estimate_of([0.1, -0.1], cluster=[0, 0]).se)


def test_degrees_of_freedom_lie_between_the_two_sources():
    assert estimate_of(np.arange(50.0)).df == 49
    assert estimate_of(np.zeros(50), [0, 1, 2, 3, 4]).df == pytest.approx(4)
    assert 4 < estimate_of(np.linspace(-1, 1, 50), [0, 0.1, 0.2]).df < 51


def test_unused_rows_change_neither_the_standard_error_nor_the_degrees_of_freedom():
    """Two prompts among fifty, two rows each: the mean of four rows, one degree of freedom."""
    own = np.array([3.0, 1.0, -2.0, -2.0])
    cluster, used = np.repeat(np.arange(50), 2), np.arange(100) < 4
    influence = np.where(used, np.append(own, np.zeros(96)) * 100 / 4, 0)
    two = estimate_of(influence, cluster=cluster, used=used)
    alone = estimate_of(own, cluster=cluster[:4])
    assert (two.n_used, two.n_clusters, two.df) == (4, 2, 1)
    assert two.sampling_variance == pytest.approx(2 * (4**2 + 4**2) / 4**2)
    assert (two.se, two.df) == (pytest.approx(alone.se), alone.df)
    shifted = estimate_of(influence + np.where(used, 7, 0), cluster=cluster, used=used)
    assert shifted.se == pytest.approx(two.se)  # centred over the prompts that were used


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_single_prompt_has_no_standard_error(rows):
    """The standard error of one prompt is unknown, alone and in a difference (trap T38)."""
    cluster, used = np.repeat(np.arange(50), 2), np.arange(100) < rows
    one = estimate_of(np.zeros(100), jackknife=[0.4, 0.6], cluster=cluster, used=used)
    whole = estimate_of(np.linspace(-1, 1, 100), jackknife=[0.4, 0.6], cluster=cluster)
    for estimate in (one, one - whole, whole - one):
        assert np.isnan([estimate.se, estimate.df, *estimate.interval()]).all()


def test_a_difference_uses_the_prompts_of_either_estimate():
    first, second = np.arange(10) < 4, np.arange(10) >= 6
    one = estimate_of(np.where(first, [1, -1, 2, -2] + [0] * 6, 0), used=first)
    other = estimate_of(np.where(second, [0] * 6 + [1, -1, 3, -3], 0), used=second)
    contrast = one - other
    assert contrast.used.tolist() == (first | second).tolist() and contrast.df == 7
    assert contrast.sampling_variance == pytest.approx(8 / 7 * (1 + 1 + 4 + 4 + 1 + 1 + 9 + 9) / 10**2)


def test_an_interval_is_a_t_interval():
    five = estimate_of([-2, -1, 0, 1, 2])
    low, high = five.interval()
    assert (high - low) / 2 == pytest.approx(2.7764451 * np.sqrt(2.5 / 5))
    assert np.diff(five.interval(0.2))[0] / 2 == pytest.approx(stats.t.ppf(0.9, 4) * five.se)


def test_a_bias_widens_the_interval_and_leaves_the_degrees_of_freedom():
    plain, biased = (estimate_of([-2, -1, 0, 1, 2], [0.1, 0.2, 0.4], bias=bias) for bias in (0.0, -0.3))
    assert biased.se**2 == pytest.approx(plain.se**2 + 0.09)
    assert (biased.df, biased.value) == (plain.df, plain.value)
    assert (biased - biased).bias == 0
    assert (plain - biased).bias == pytest.approx(0.3)


def test_shared_errors_cancel_in_a_difference():
    one = estimate_of([1, -1, 0.5, -0.5], [0.4, 0.6])
    contrast = one - one
    assert (contrast.value, contrast.se) == (0, 0)
    against_labels = one - estimate_of([1, -1, 0.5, -0.5])
    assert against_labels.oracle_variance == pytest.approx(one.oracle_variance)
    with pytest.raises(ValueError, match="same rows"):
        _ = one - estimate_of([1, -1], [0.4, 0.6])


@pytest.mark.parametrize("name", WEIGHTED)
def test_full_coverage_and_equal_policies_give_the_textbook_standard_error(name):
    """Labels are the rewards, in the value and in its influence (trap T3, trap T45)."""
    logged, draws, _ = healthy(coverage=1.0)
    evaluation = evaluate(name, logged, draws, Options())
    label = logged.oracle_label
    for estimate in (evaluation.estimates["clone"], evaluation.base):
        assert estimate.value == pytest.approx(label.mean(), abs=1e-12)
        assert estimate.se == pytest.approx(label.std(ddof=1) / np.sqrt(len(label)), rel=1e-9)
        assert len(estimate.jackknife) == 0


def test_fresh_draws_keep_the_calibrator_uncertain_at_full_coverage():
    """Labels on all logged rows leave the calibrator uncertain on other responses (trap T13)."""
    logged, draws, _ = healthy(coverage=1.0)
    evaluation = evaluate("direct", logged, draws, Options())
    estimate = evaluation.estimates["better"]
    assert len(estimate.jackknife) == 20 and estimate.oracle_variance > 0
    assert np.isfinite((estimate - evaluation.base).se)


@pytest.mark.parametrize("name", estimators.NAMES)
def test_the_jackknife_evaluates_the_estimator_without_each_fold(name):
    """The jackknife refits every estimator, raw weights included (trap T44)."""
    logged, draws, _ = healthy()
    evaluation = evaluate(name, logged, draws, Options())
    for estimate in (*evaluation.estimates.values(), evaluation.base):
        assert len(estimate.jackknife) == 20
        assert abs(estimate.jackknife.mean() - estimate.value) < 0.01
        spread = estimate.sampling_variance + estimate.oracle_variance
        assert estimate.se**2 == pytest.approx(spread + estimate.bias**2)
    without = evaluation.calibration.jackknife[0](logged.judge_score)
    expected = without.mean()
    if name == "tr-cpo":  # the base has its label term, too, with weights of one
        expected += np.nanmean(logged.oracle_label - without)
    assert evaluation.base.jackknife[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", estimators.NAMES)
def test_every_interval_contains_its_estimate_and_influence_is_centred(name):
    """The interval is about the estimate, not about zero (trap T10)."""
    logged, draws, _ = healthy()
    for estimate in evaluate(name, logged, draws, Options()).estimates.values():
        low, high = estimate.interval()
        assert low < estimate.value < high
        assert estimate.influence.mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", estimators.NAMES)
def test_rows_that_share_prompts_widen_the_interval(name):
    """With every row twice under its prompt n doubles, but no estimator has more information (trap T44)."""
    logged, draws, _ = healthy(n=200, coverage=1.0)
    rows = np.repeat(np.arange(200), 2)
    once = evaluate(name, logged, draws, Options()).estimates["better"]
    twice = evaluate(name, take(logged, rows), take_draws(draws, rows), Options()).estimates["better"]
    assert np.sqrt(twice.sampling_variance) == pytest.approx(np.sqrt(once.sampling_variance), rel=0.1)
    assert twice.df <= once.df * 1.2


@pytest.mark.parametrize("name", ["direct", "dr-cpo", "snips"])
def test_complete_calibration_data_beside_the_logged_rows_keep_the_calibrator_uncertain(name):
    """Calibration data of which every row has a label are still few labels (trap T13)."""
    logged, draws, _ = healthy()
    beside = Labelled(
        logged.prompt_id[logged.labelled], logged.judged[logged.labelled], logged.oracle_label[logged.labelled]
    )
    unlabelled = replace(logged, oracle_label=np.full(400, np.nan))
    own, other = evaluate(name, logged, draws, Options()), evaluate(name, unlabelled, draws, Options(), beside)
    for policy in logged.policies:
        own_estimate, other_estimate = own.estimates[policy], other.estimates[policy]
        assert (other_estimate.value, other_estimate.se, other_estimate.oracle_variance) == pytest.approx(
            (own_estimate.value, own_estimate.se, own_estimate.oracle_variance)
        )
        assert other_estimate.se > 1.05 * np.sqrt(other_estimate.sampling_variance)


def test_calibration_data_never_replace_the_logged_rows():
    """Each policy keeps its own rows and draws, whatever data calibrate (trap T11)."""
    logged, draws, _ = healthy()
    more, _, _ = healthy(n=1000, seed=9)
    beside = Labelled(np.array([f"more-{i}" for i in range(1000)]), more.judged, np.round(more.judge_score, 2))
    for name, evaluation in evaluate_all(estimators.NAMES, logged, draws, Options(), beside).items():
        values = [estimate.value for estimate in evaluation.estimates.values()]
        assert len(set(np.round(values, 6))) == 3, name
        assert {len(estimate.influence) for estimate in evaluation.estimates.values()} == {400}
        assert evaluation.n_used == {"better": 400, "clone": 400, "worse": 400}
        assert len(evaluation.calibration.label) == 1100


def test_degrees_of_freedom_follow_the_kurtosis_of_the_prompts():
    """Normal values have G - 1; the more a few prompts carry, the fewer; in closed form for a single one."""
    uniform = (np.arange(1, 20001) - 0.5) / 20000
    assert kurtosis_df(stats.norm.ppf(uniform)) == pytest.approx(20000, rel=0.02)
    assert kurtosis_df(-np.log(uniform)) == pytest.approx(20000 * 2 / (9 - 1), rel=0.03)
    assert kurtosis_df(np.resize([-1.0, 1.0], 50)) == 49  # flatter than normal, and no more than the textbook
    spike = np.zeros(50)
    spike[7] = 3.0
    p = 1 / 50
    kurtosis = (1 - 3 * p * (1 - p)) / (p * (1 - p))
    assert kurtosis_df(spike) == pytest.approx(2 * 50 / (kurtosis - 47 / 49))
    assert kurtosis_df(spike) == pytest.approx(kurtosis_df(5 - 100 * spike))
    assert kurtosis_df(np.array([1.0, 2.0, 9.0])) == 2 and kurtosis_df(np.zeros(9)) == 8
    assert kurtosis_df(1e-90 * spike) == pytest.approx(kurtosis_df(spike))  # whatever the unit


def test_degrees_of_freedom_make_the_variance_estimate_a_chi_squared():
    """Two moments of s^2 over many samples of a heavy-tailed law: mean sigma^2, variance 2 sigma^4 / df."""
    values = np.random.default_rng(0).exponential(size=(4000, 40))
    s2 = values.var(axis=1, ddof=1)
    exact = 2 * 40 / (9 - 37 / 39)
    assert 2 * s2.mean() ** 2 / s2.var() == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("df", [3.0, 30.0, np.inf])
@pytest.mark.parametrize("bias", [0.0, 0.4, 1.0, 6.0])
def test_the_critical_value_has_exactly_the_nominal_coverage(df, bias):
    critical = critical_value(bias, df, 0.05)
    assert stats.t.cdf(critical - bias, df) - stats.t.cdf(-critical - bias, df) == pytest.approx(0.95, abs=1e-9)
    assert critical_value(-bias, df, 0.05) == pytest.approx(critical)


def test_critical_values_equal_published_ones():
    """Armstrong and Kolesar (2020), Table 1, 95 %: normal, biases of half and of one standard error."""
    assert critical_value(0.0, np.inf, 0.05) == pytest.approx(1.96, abs=0.005)
    assert critical_value(0.5, np.inf, 0.05) == pytest.approx(2.18, abs=0.005)
    assert critical_value(1.0, np.inf, 0.05) == pytest.approx(2.65, abs=0.005)
    assert critical_value(50.0, 20.0, 0.05) == pytest.approx(50 + stats.t.ppf(0.95, 20), abs=1e-6)
    assert np.isnan(critical_value(0.1, np.nan, 0.05)) and np.isnan(critical_value(np.nan, 9.0, 0.05))


def test_the_interval_under_bias_is_that_of_the_folded_t():
    estimate = estimate_of([-2, -1, 0, 1, 2], bias=-0.3)
    low, high = estimate.interval()
    assert (low + high) / 2 == pytest.approx(0.5)
    assert (high - low) / 2 == pytest.approx(critical_value(0.3 / estimate.spread, 4, 0.05) * estimate.spread)
    assert (high - low) / 2 < stats.t.ppf(0.975, 4) * estimate.spread + 0.3


def with_rounded_scores(logged: Logged, draws: dict[str, Draws]) -> tuple[Logged, dict[str, Draws]]:
    """The same with judge scores rounded to twenty-one levels."""
    coarse = {p: replace(d, judge_score=np.round(20 * d.judge_score) / 20) for p, d in draws.items()}
    return replace(logged, judge_score=np.round(20 * logged.judge_score) / 20), coarse


@cache
def replicates(scenario: str) -> dict[str, dict[str, np.ndarray]]:
    """Error, standard error and whether the interval covers, each (replicates, policies), by estimator."""
    world, rounded = SCENARIOS[scenario]
    rows = {name: {"error": [], "se": [], "covered": []} for name in estimators.NAMES}
    for seed in range(REPLICATES):
        logged, draws, values = draw(world, 400, seed)
        if rounded:
            logged, draws = with_rounded_scores(logged, draws)
        for name, evaluation in evaluate_all(estimators.NAMES, logged, draws, Options()).items():
            intervals = {policy: estimate.interval() for policy, estimate in evaluation.estimates.items()}
            rows[name]["error"].append([e.value - values[policy] for policy, e in evaluation.estimates.items()])
            rows[name]["se"].append([estimate.se for estimate in evaluation.estimates.values()])
            rows[name]["covered"].append([low <= values[p] <= high for p, (low, high) in intervals.items()])
    return {name: {key: np.array(value) for key, value in of.items()} for name, of in rows.items()}


SCENARIOS = {
    "quarter": (World(targets=UP), False),
    "few levels": (World(targets=UP, coverage=0.1), True),
    "full": (World(targets=UP | DOWN, coverage=1.0), False),
}
LEAST = 0.95 - 4 * np.sqrt(0.95 * 0.05 / REPLICATES)  # nominal coverage less four Monte Carlo errors


def assert_coverage_and_small_bias(outcomes: dict[str, np.ndarray]) -> None:
    """Coverage of 95 % up to Monte Carlo error; a bias that is small beside the spread."""
    assert (outcomes["covered"].mean(axis=0) >= LEAST).all()
    assert (np.abs(outcomes["error"].mean(axis=0)) < 0.3 * outcomes["error"].std(axis=0)).all()


@pytest.mark.parametrize("name", estimators.NAMES)
def test_intervals_cover_with_a_quarter_of_the_labels(name):
    assert_coverage_and_small_bias(replicates("quarter")[name])


@pytest.mark.parametrize("name", estimators.NAMES)
def test_intervals_cover_with_a_tenth_of_the_labels_and_a_judge_of_few_levels(name):
    assert_coverage_and_small_bias(replicates("few levels")[name])


def test_intervals_cover_where_the_cap_on_weights_binds():
    """Capped weights move the value towards the base's by several standard errors; the interval is as much wider."""
    world = World(targets={"far": Target(1.2)}, prompt_share=0.0)
    errors, covered = [], []
    for seed in range(REPLICATES):
        logged, _, values = draw(world, 400, seed)
        estimate = evaluate("calibrated-ips", logged, None, Options()).estimates["far"]
        low, high = estimate.interval()
        errors.append(estimate.value - values["far"])
        covered.append(low <= values["far"] <= high)
    assert np.mean(covered) >= LEAST
    assert np.mean(errors) < -2 * np.std(errors)


@pytest.mark.parametrize("name", estimators.NAMES)
def test_at_full_coverage_intervals_cover_and_standard_errors_match_the_spread(name):
    """The error counts nothing twice and leaves nothing out (trap T2), and is not made smaller than it is (trap T48)."""
    outcomes = replicates("full")[name]
    assert_coverage_and_small_bias(outcomes)
    ratio = np.sqrt(np.mean(outcomes["se"] ** 2, axis=0)) / outcomes["error"].std(axis=0, ddof=1)
    assert ((ratio > 0.85) & (ratio < 1.15)).all()


@pytest.mark.parametrize("name", estimators.NAMES)
def test_with_few_labels_standard_errors_match_the_spread_of_the_errors(name):
    """The calibrator's variance is neither divided by the folds nor counted twice (trap T1, trap T12)."""
    outcomes = replicates("quarter")[name]
    ratio = np.sqrt(np.mean(outcomes["se"] ** 2)) / outcomes["error"].std(ddof=1)
    assert 0.85 < ratio < 1.35
