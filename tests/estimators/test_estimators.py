"""Properties of every estimator: exact values for the base policy, invariance, a result for each row, clear errors."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from arena_cje import estimators
from arena_cje.errors import UserError
from arena_cje.estimation.folds import Prompts
from arena_cje.estimation.records import Draws, Sample
from arena_cje.estimation.weights import hajek
from arena_cje.evaluation.evaluate import ROWS, Options, evaluate, evaluate_all
from arena_cje.simulate import Target, World, draw, truth
from worlds import healthy, take, take_draws

WEIGHTED = [name for name in estimators.NAMES if estimators.get(name).NEEDS == ("log_ratio",)]
NORMALISED = [name for name in WEIGHTED if name != "ips"]
ROBUST = [name for name in estimators.NAMES if set(estimators.get(name).NEEDS) == {"log_ratio", "fresh_score"}]
OPTIONS = Options()


def test_every_estimator_declares_its_needs_and_formula():
    assert set(WEIGHTED) == {"calibrated-ips", "ips", "raw-ips", "snips"}
    assert set(ROBUST) == {"dr-cpo", "mrdr", "stacked-dr", "tmle", "tr-cpo"}
    assert set(estimators.NAMES) == {*WEIGHTED, *ROBUST, "direct"}
    for name in estimators.NAMES:
        module = estimators.get(name)
        assert set(module.NEEDS) <= {"log_ratio", "fresh_score"} and module.NEEDS
        assert estimators.needs(name) == module.NEEDS  # read from the source
        assert "V = " in module.__doc__


def test_an_unknown_estimator_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="unknown estimator 'calibrated_ips'.*did you mean 'calibrated-ips'"):
        estimators.get("calibrated_ips")


@pytest.mark.parametrize("coverage", [0.25, 1.0])
@pytest.mark.parametrize("name", WEIGHTED)
def test_the_base_policy_as_target_gives_the_base_value(name, coverage):
    """A target with the log probabilities of the base has weights of exactly one (trap T23)."""
    logged, draws, _ = healthy(coverage=coverage)
    evaluation = evaluate(name, logged, draws, OPTIONS)
    clone = evaluation.estimates["clone"]
    assert clone.value == pytest.approx(evaluation.base.value, abs=1e-12)
    assert clone.se == pytest.approx(evaluation.base.se, abs=1e-12)
    assert (evaluation.weights["clone"].raw == 1).all()
    contrast = clone - evaluation.base
    assert (contrast.value, contrast.se) == pytest.approx((0, 0), abs=1e-12)


def test_direct_on_the_logged_responses_gives_the_base_value():
    logged, _, _ = healthy()
    score = logged.judge_score[:, None]
    same = {p: Draws(p, score, np.full(score.shape, np.nan)) for p in logged.policies}
    evaluation = evaluate("direct", logged, same, OPTIONS)
    assert evaluation.estimates["clone"].value == pytest.approx(evaluation.base.value, abs=1e-12)
    assert evaluation.estimates["clone"].se == pytest.approx(evaluation.base.se, abs=1e-12)


def test_calibration_preserves_the_mean_label_where_scores_repeat_those_of_the_slice():
    logged, _, _ = healthy()
    labelled = logged.oracle_label[logged.labelled]
    score = logged.judge_score[logged.labelled][np.arange(len(logged.prompt_id)) % len(labelled)]
    repeated = {p: Draws(p, score[:, None], np.full((len(score), 1), np.nan)) for p in logged.policies}
    evaluation = evaluate("direct", logged, repeated, OPTIONS)
    assert evaluation.estimates["better"].value == pytest.approx(labelled.mean(), abs=1e-12)


@pytest.mark.parametrize("name", estimators.NAMES)
def test_estimates_keep_the_declared_order(name):
    """Estimates are in the declared order of policies, not in alphabetical order (trap T39)."""
    logged, draws, _ = healthy()
    evaluation = evaluate(name, logged, draws, OPTIONS)
    assert tuple(evaluation.estimates) == tuple(evaluation.n_used) == logged.policies == ("better", "clone", "worse")


@pytest.mark.parametrize("name", estimators.NAMES)
def test_order_of_rows_changes_nothing_but_the_order(name):
    """Labels, weights and draws move with their row (trap T16)."""
    logged, draws, _ = healthy()
    order = np.random.default_rng(5).permutation(len(logged.prompt_id))
    estimate = evaluate(name, logged, draws, OPTIONS).estimates["better"]
    permuted = evaluate(name, take(logged, order), take_draws(draws, order), OPTIONS).estimates["better"]
    assert permuted.value == pytest.approx(estimate.value, abs=1e-12)
    assert permuted.se == pytest.approx(estimate.se, abs=1e-12)
    assert permuted.jackknife == pytest.approx(estimate.jackknife, abs=1e-12)
    assert permuted.influence == pytest.approx(estimate.influence[order], abs=1e-9)


@pytest.mark.parametrize("name", NORMALISED + ROBUST)
def test_a_constant_on_the_log_ratios_changes_nothing(name):
    logged, draws, _ = healthy()
    estimate = evaluate(name, logged, draws, OPTIONS).estimates["better"]
    shifted = evaluate(name, replace(logged, log_ratio=logged.log_ratio + 400), draws, OPTIONS).estimates["better"]
    assert (shifted.value, shifted.se) == pytest.approx((estimate.value, estimate.se), abs=1e-10)


def test_raw_ips_with_an_infinite_clip_equals_snips():
    logged, _, _ = healthy()
    snips = evaluate("snips", logged, None, OPTIONS).estimates["better"]
    raw = evaluate("raw-ips", logged, None, Options(clip=np.inf)).estimates["better"]
    cut = evaluate("raw-ips", logged, None, Options(clip=1.2)).estimates["better"]
    assert (raw.value, raw.se) == pytest.approx((snips.value, snips.se), abs=1e-12)
    assert cut.value != pytest.approx(snips.value, abs=1e-3)


def test_snips_by_hand():
    logged, _, _ = healthy(coverage=1.0)
    weight = np.exp(logged.log_ratio[:, 0])
    estimate = evaluate("snips", logged, None, OPTIONS).estimates["better"]
    assert estimate.value == pytest.approx(weight @ logged.oracle_label / weight.sum())
    residual = weight * (logged.oracle_label - estimate.value) / weight.mean()
    assert estimate.se == pytest.approx(residual.std(ddof=1) / np.sqrt(len(residual)))


def test_raw_ips_clips_weights_at_a_hundred_by_default():
    logged, _, _ = healthy(n=1000)
    log_ratio = logged.log_ratio.copy()
    log_ratio[:, 0] = 0
    log_ratio[0, 0] = np.log(999)  # half of the total: mean-one weights of 500 and 1/2
    evaluation = evaluate("raw-ips", replace(logged, log_ratio=log_ratio), None, OPTIONS)
    weight = evaluation.weights["better"].stabilised
    assert weight[0] / weight[1] == pytest.approx(100 / (1000 / 1998))


def held_out_by_hand(evaluation, logged):
    """Calibrated scores (n,), each from a calibrator that did not see the row's fold."""
    fitted = evaluation.calibration
    return np.array([fitted.cross_fitted[k](s) for k, s in zip(fitted.fold, logged.judge_score, strict=True)])


def test_influence_functions_use_held_out_rewards():
    logged, draws, _ = healthy()
    weight = hajek(logged.log_ratio[:, 0])
    for name in ("snips", "raw-ips"):
        evaluation = evaluate(name, logged, None, OPTIONS)
        reward = held_out_by_hand(evaluation, logged)
        expected = weight * (reward - np.mean(weight * reward))
        assert evaluation.estimates["better"].influence == pytest.approx(expected, abs=1e-12)
        assert evaluation.base.influence == pytest.approx(reward - reward.mean(), abs=1e-12)
    evaluation = evaluate("direct", logged, draws, OPTIONS)
    reward = held_out_by_hand(evaluation, replace(logged, judge_score=draws["better"].judge_score[:, 0]))
    assert evaluation.estimates["better"].influence == pytest.approx(reward - reward.mean(), abs=1e-12)


@pytest.mark.parametrize("coverage", [0.25, 1.0])
def test_influence_of_calibrated_ips_by_hand(coverage):
    """Fitted weights times the reward, and raw less fitted weights times the calibrated score."""
    logged, _, _ = healthy(coverage=coverage)
    evaluation = evaluate("calibrated-ips", logged, None, OPTIONS)
    estimate, weights = evaluation.estimates["better"], evaluation.weights["better"]
    score = held_out_by_hand(evaluation, logged)
    reward = logged.oracle_label if coverage == 1 else score
    centred = weights.stabilised * (reward - np.mean(weights.stabilised * reward))
    influence = centred + (weights.raw - weights.stabilised) * (score - estimate.value)
    assert estimate.influence == pytest.approx(influence - influence.mean(), abs=1e-12)


def test_the_jackknife_refits_the_weights():
    """Without a fold of labels the calibrated score is another one, and so are weights that are monotone in it."""
    logged, _, _ = healthy()
    evaluation = evaluate("calibrated-ips", logged, None, OPTIONS)
    n = len(logged.prompt_id)
    fold = Prompts.of(logged.prompt_id, 42).deal(np.ones(n, bool), 5, salt=ROWS)
    nothing = np.empty((n, 0))
    for k, calibrator in enumerate(evaluation.calibration.jackknife):
        reward = calibrator(logged.judge_score)
        sample = Sample(
            log_ratio=logged.log_ratio[:, 0],
            cluster=np.arange(n),
            fold=fold,
            label=logged.oracle_label,
            reward=reward,
            held_out=reward,
            index=reward,
            fresh=nothing,
            fresh_held_out=nothing,
            fresh_label=nothing,
            weight_variance=OPTIONS.weight_variance,
        )
        expected = estimators.get("calibrated-ips").estimate(sample, OPTIONS).value
        assert evaluation.estimates["better"].jackknife[k] == pytest.approx(expected, abs=1e-12)


def test_the_bias_of_capped_weights_is_the_difference_to_uncapped_ones():
    logged, _, values = draw(World(targets={"far": Target(1.2)}, prompt_share=0.0), 2000, seed=0)
    evaluation = evaluate("calibrated-ips", logged, None, OPTIONS)
    free = evaluate("calibrated-ips", logged, None, Options(var_cap=np.inf, ess_floor=1e-9)).estimates["far"]
    far = evaluation.estimates["far"]
    assert far.bias == pytest.approx(far.value - free.value, abs=1e-12)
    assert far.bias < -0.03 and abs(far.bias) > 0.7 * abs(far.value - values["far"])
    assert free.bias == evaluation.base.bias == 0
    assert far.jackknife != pytest.approx(free.jackknife, abs=0.01)


@pytest.mark.parametrize("name", estimators.NAMES)
def test_the_bias_is_zero_where_no_cap_binds(name):
    logged, draws, _ = healthy()
    evaluation = evaluate(name, logged, draws, OPTIONS)
    assert [estimate.bias for estimate in (evaluation.base, *evaluation.estimates.values())] == [0, 0, 0, 0]


@pytest.mark.parametrize("name", WEIGHTED)
def test_rows_outside_the_target_support_have_raw_weight_zero(name):
    logged, _, _ = healthy()
    log_ratio = logged.log_ratio.copy()
    log_ratio[:50, 0] = -np.inf
    evaluation = evaluate(name, replace(logged, log_ratio=log_ratio), None, OPTIONS)
    assert (evaluation.weights["better"].raw[:50] == 0).all()
    assert evaluation.n_used["better"] == len(logged.prompt_id)
    assert np.isfinite(evaluation.estimates["better"].value)


@pytest.mark.parametrize("name", WEIGHTED)
def test_unscored_rows_are_left_out_for_that_policy_alone(name):
    """The full n carries the same value, spread and degrees of freedom as the scored rows alone do."""
    logged, _, _ = healthy(coverage=1.0)
    log_ratio = logged.log_ratio.copy()
    log_ratio[::4, 0] = np.nan
    evaluation = evaluate(name, replace(logged, log_ratio=log_ratio), None, OPTIONS)
    whole = evaluate(name, logged, None, OPTIONS)
    better = evaluation.estimates["better"]
    assert (evaluation.n_used["better"], evaluation.n_used["worse"]) == (300, 400)
    assert evaluation.estimates["worse"].value == whole.estimates["worse"].value
    assert (better.influence[::4] == 0).all() and len(better.influence) == 400
    assert np.isnan(evaluation.weights["better"].raw[::4]).all()
    alone = evaluate(name, take(logged, np.flatnonzero(~np.isnan(log_ratio[:, 0]))), None, OPTIONS).estimates["better"]
    # Folds of all prompts and of those that are scored differ, and with them stabilised weights.
    near = {"abs": 1e-3, "rel": 5e-2} if name == "calibrated-ips" else {"rel": 1e-12}
    assert (better.value, better.se, better.df) == pytest.approx((alone.value, alone.se, alone.df), **near)
    assert better.df <= 299


def test_missing_draws_are_left_out_row_by_row():
    logged, draws, _ = healthy(draws_per_prompt=2)
    score = draws["better"].judge_score.copy()
    score[:40] = np.nan  # no draw at all
    score[40:80, 1] = np.nan  # one of two
    evaluation = evaluate("direct", logged, draws | {"better": replace(draws["better"], judge_score=score)}, OPTIONS)
    reward = evaluation.calibration.full(score)
    expected = np.mean([np.nanmean(row) for row in reward[40:]])
    assert evaluation.n_used["better"] == 360
    assert evaluation.estimates["better"].value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", WEIGHTED)
def test_without_overlap_value_and_error_are_unknown(name):
    logged, _, _ = healthy()
    log_ratio = logged.log_ratio.copy()
    log_ratio[:, 0], log_ratio[:, 1] = -np.inf, np.nan
    evaluation = evaluate(name, replace(logged, log_ratio=log_ratio), None, OPTIONS)
    for policy, used in (("better", 400), ("clone", 0)):
        estimate = evaluation.estimates[policy]
        assert np.isnan([estimate.value, estimate.se, *estimate.interval()]).all()
        assert evaluation.n_used[policy] == used
    assert np.isfinite(evaluation.estimates["worse"].value)
    assert "clone" not in evaluation.weights


@pytest.mark.parametrize("name", estimators.NAMES)
def test_six_labels_are_enough_for_a_finite_answer(name):
    """With few labels there are fewer folds, and none is empty (trap T30)."""
    logged, draws, _ = healthy(n=60, coverage=0.1)
    for estimate in evaluate(name, logged, draws, OPTIONS).estimates.values():
        assert np.isfinite([estimate.value, estimate.se, *estimate.interval()]).all()
        assert len(estimate.jackknife) == 3


@pytest.mark.parametrize("name", estimators.NAMES)
def test_the_seed_determines_the_folds(name):
    """Another seed gives other folds, and the same seed the same (trap T40)."""
    logged, draws, _ = healthy()
    one, two = (evaluate(name, logged, draws, Options(seed=seed)).estimates["better"] for seed in (1, 2))
    assert (one.jackknife != two.jackknife).any()
    again = evaluate(name, logged, draws, Options(seed=1)).estimates["better"]
    assert again.value == one.value and (again.jackknife == one.jackknife).all()


@pytest.mark.parametrize("name", estimators.NAMES)
def test_an_estimator_has_the_same_result_alone_and_among_others(name):
    logged, draws, _ = healthy()
    log_ratio = logged.log_ratio.copy()
    log_ratio[:20, 0] = np.nan
    logged = replace(logged, log_ratio=log_ratio)
    alone = evaluate(name, logged, draws, OPTIONS)
    company = evaluate_all(estimators.NAMES, logged, draws, OPTIONS)[name]
    for policy in logged.policies:
        one, other = alone.estimates[policy], company.estimates[policy]
        assert (one.value, one.se, one.bias, one.df) == (other.value, other.se, other.bias, other.df)
        assert (one.influence == other.influence).all() and (one.jackknife == other.jackknife).all()
    assert alone.n_used == company.n_used
    assert alone.base.value == company.base.value


def test_ips_by_hand():
    """Weights are neither normalised nor cut, so that a constant on the log ratios scales the value."""
    logged, _, _ = healthy(coverage=1.0)
    weight = np.exp(logged.log_ratio[:, 0])
    weighted_labels = weight * logged.oracle_label
    estimate = evaluate("ips", logged, None, OPTIONS).estimates["better"]
    assert estimate.value == pytest.approx(weighted_labels.mean(), abs=1e-12)
    assert estimate.se == pytest.approx(weighted_labels.std(ddof=1) / np.sqrt(400), rel=1e-9)
    twice = evaluate("ips", replace(logged, log_ratio=logged.log_ratio + np.log(2)), None, OPTIONS).estimates["better"]
    assert (twice.value, twice.se) == pytest.approx((2 * estimate.value, 2 * estimate.se))
    beyond = evaluate("ips", replace(logged, log_ratio=logged.log_ratio + 1e4), None, OPTIONS).estimates["better"]
    assert np.isfinite(beyond.value)


def test_normalised_weights_have_mean_one_and_those_of_ips_do_not():
    logged, draws, _ = healthy()
    for name, evaluation in evaluate_all(estimators.NAMES, logged, draws, OPTIONS).items():
        raw, used = evaluation.weights["better"].raw, evaluation.weights["better"].stabilised
        assert raw.mean() == pytest.approx(1)
        assert (used.mean() == pytest.approx(1)) == (name != "ips")
        assert estimators.normalised(name) == (name != "ips")


def test_ten_thousand_rows_take_less_than_five_seconds():
    """A doubly robust estimate with fresh draws and jackknife needs no search for each row (trap T51)."""
    logged, draws, _ = healthy(n=10_000)
    began = time.process_time()
    evaluation = evaluate("dr-cpo", logged, draws, OPTIONS)
    assert time.process_time() - began < 5
    assert evaluation.n_used["better"] == 10_000


def test_missing_fresh_draws_or_log_probabilities_are_refused():
    logged, draws, _ = healthy()
    with pytest.raises(
        UserError, match="'direct' needs fresh draws of every target policy; there are none for 'clone', 'worse'"
    ):
        evaluate("direct", logged, {"better": draws["better"]}, OPTIONS)
    unscored = replace(logged, log_ratio=np.full_like(logged.log_ratio, np.nan))
    with pytest.raises(UserError, match="'snips' needs log probabilities"):
        evaluate("snips", unscored, draws, OPTIONS)
    assert evaluate("direct", unscored, draws, OPTIONS).weights == {}


def test_impossible_inputs_are_refused():
    logged, _, _ = healthy()
    with pytest.raises(UserError, match=r"1 of 400 judge scores are outside \[0, 1\] or missing"):
        evaluate("snips", replace(logged, judge_score=np.append(logged.judge_score[1:], np.nan)), None, OPTIONS)
    with pytest.raises(UserError, match="oracle labels are outside"):
        evaluate("snips", replace(logged, oracle_label=100 * logged.oracle_label), None, OPTIONS)
    with pytest.raises(UserError, match=r"\+inf"):
        evaluate("snips", replace(logged, log_ratio=np.full_like(logged.log_ratio, np.inf)), None, OPTIONS)
    with pytest.raises(ValueError, match=r"shape \(400, 3\)"):
        evaluate("snips", replace(logged, log_ratio=logged.log_ratio[:, 0]), None, OPTIONS)


@pytest.mark.parametrize(
    ("options", "field"), [({"n_folds": 1}, "n_folds"), ({"clip": 0.0}, "clip"), ({"ess_floor": 1.5}, "ess_floor")]
)
def test_options_outside_their_range_are_refused(options, field):
    with pytest.raises(UserError, match=field):
        Options(**options)


def test_the_simulated_truth_is_the_mean_label():
    world = World(targets={"up": Target(0.7, 0.4), "down": Target(-0.7)}, coverage=1.0)
    logged, draws, values = draw(world, 200_000, seed=0)
    assert values == truth(world)
    assert logged.oracle_label.mean() == pytest.approx(values["base"], abs=0.002)
    weight = np.exp(logged.log_ratio)
    assert weight.mean(axis=0) == pytest.approx(np.ones(2), abs=0.02)
    weighted = (weight * logged.oracle_label[:, None]).mean(axis=0)
    assert weighted == pytest.approx([values["up"], values["down"]], abs=0.01)
    assert draws["up"].judge_score.mean() > logged.judge_score.mean() > draws["down"].judge_score.mean()
