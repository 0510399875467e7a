"""The calibrator: monotone, mean preserving, the same in any batch; diagnostics and errors where it fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena_cje.diagnostics.calibration import calibration_error, diagnose, rank_correlation
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.errors import UserError
from arena_cje.estimation import two_stage
from arena_cje.estimation.calibration import Calibration, calibrate, fit, isotonic, oracle_slice, rewards
from arena_cje.estimation.isotonic import KNOTS
from arena_cje.estimation.records import Judged, Labelled, Logged, Options
from arena_cje.evaluation.evaluate import evaluate, evaluate_all
from arena_cje.simulate import WORLDS, draw
from worlds import healthy

unit = st.floats(0, 1, allow_nan=False)


def slice_of(score, label, *, unlabelled: int = 0, n_folds: int = 5) -> Calibration:
    n = len(score) + unlabelled
    logged = Logged(
        "base",
        (),
        np.array([f"p{i}" for i in range(n)]),
        np.empty((n, 0)),
        np.concatenate([score, np.full(unlabelled, 0.5)]),
        np.concatenate([label, np.full(unlabelled, np.nan)]),
    )
    return fit(logged, Options(n_folds=n_folds))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), unit), min_size=1, max_size=60))
def test_the_calibrator_is_monotone_bounded_and_mean_preserving(pairs):
    score, label = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    calibrator = isotonic(score / 12, label)
    fitted = calibrator(score / 12)
    assert fitted.sum() == pytest.approx(label.sum(), abs=1e-9)
    assert (np.diff(calibrator.values) >= 0).all()
    assert fitted.min() >= 0 and fitted.max() <= 1 + 1e-12


def test_knots_by_hand():
    """Violators pool to their mean, tied scores to theirs; between knots it is linear, beyond them constant."""
    calibrator = isotonic(np.array([0.2, 0.4, 0.6, 0.8, 0.8]), np.array([0.1, 0.5, 0.3, 0.6, 1.0]))
    assert calibrator(np.array([0.2, 0.4, 0.6, 0.8])) == pytest.approx([0.1, 0.4, 0.4, 0.8])
    assert calibrator(np.array([0.0, 0.3, 0.5, 0.7, 1.0])) == pytest.approx([0.1, 0.25, 0.4, 0.6, 0.8])


def test_falling_fit_mirrors_the_rising_one():
    rng = np.random.default_rng(0)
    x, y = rng.random(50), rng.random(50)
    assert isotonic(x, y, increasing=False)(x) == pytest.approx(-isotonic(x, -y)(x))


def test_a_batch_does_not_change_a_prediction():
    """A prediction depends on its own row, not on the other rows of the batch (trap T41)."""
    rng = np.random.default_rng(1)
    calibrator = isotonic(rng.random(40), rng.random(40))
    score = rng.random(500)
    one_by_one = np.concatenate([calibrator(score[i : i + 1]) for i in range(500)])
    assert (calibrator(score) == one_by_one).all()
    assert (calibrator(score.reshape(50, 10)).reshape(-1) == one_by_one).all()


def test_a_missing_score_stays_missing():
    assert np.isnan(isotonic(np.array([0.0, 1.0]), np.array([0.0, 1.0]))(np.array([np.nan]))).all()


def test_a_cross_fitted_calibrator_is_fitted_on_the_other_folds():
    rng = np.random.default_rng(2)
    score, label = rng.random(30), rng.random(30)
    fitted = slice_of(score, label)
    assert len(fitted.cross_fitted) == 5
    for k, without in enumerate(fitted.cross_fitted):
        rest = fitted.slice_fold != k
        expected = isotonic(score[rest], label[rest])
        assert (rewards(without, Judged.of(score)) == expected(score)).all()


def test_shuffled_rows_give_the_same_fit():
    """Score and label of a row stay together, in whatever order rows come (trap T16)."""
    rng = np.random.default_rng(3)
    score, label = rng.integers(0, 9, 80) / 8, rng.random(80)
    order = rng.permutation(80)
    grid = np.linspace(0, 1, 101)
    one, other = (calibrate(Judged.of(score[o]), label[o], "monotone") for o in (order, slice(None)))
    assert one(grid, None) == pytest.approx(other(grid, None))


def test_a_held_out_reward_does_not_depend_on_the_label_of_its_row():
    logged, _, _ = healthy()
    fitted = fit(logged, Options())
    row = np.flatnonzero(logged.labelled)[0]
    label = logged.oracle_label.copy()
    label[row] = 1 - label[row]
    moved = fit(replace(logged, oracle_label=label), Options())
    before, after = (f.held_out(logged.judged, f.fold)[row] for f in (fitted, moved))
    assert before == after
    assert fitted.full(logged.judge_score[row]) != moved.full(logged.judge_score[row])


def test_an_unknown_fold_is_an_error():
    """A fold without a calibrator of its own gets neither zeros nor a constant (trap T17)."""
    fitted = slice_of(np.linspace(0, 1, 40), np.linspace(0, 1, 40))
    with pytest.raises(ValueError, match="without fold 9"):
        fitted.held_out(Judged.of(np.array([0.5])), np.array([9]))


@pytest.mark.parametrize(("labels", "crossing", "leaving"), [(4, 2, 2), (6, 3, 3), (10, 5, 5), (100, 5, 20)])
def test_folds_follow_the_number_of_labels(labels, crossing, leaving):
    """Few labels make few folds, none of them empty (trap T30)."""
    fitted = slice_of(np.linspace(0, 1, labels), np.linspace(0, 1, labels), unlabelled=50)
    assert (len(fitted.cross_fitted), len(fitted.jackknife)) == (crossing, leaving)
    codes = [reason.code for reason in diagnose(fitted, Thresholds()).reasons]
    assert ("few_folds" in codes) == (crossing < 5)


def test_three_labels_are_refused():
    with pytest.raises(UserError, match="at least 4 prompts, got 3 of 13"):
        slice_of(np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.2, 0.3]), unlabelled=10)


def test_an_inverted_judge_gets_cautions():
    """A rising fit turns the scores of an inverted judge into one constant reward; cautions name both (trap T31)."""
    score = np.linspace(0, 1, 50)
    diagnostics = diagnose(slice_of(score, 1 - score), Thresholds())
    assert diagnostics.spearman == pytest.approx(-1)
    assert diagnostics.f_min == pytest.approx(diagnostics.f_max)
    assert {"inverted_judge", "constant_calibration"} <= {reason.code for reason in diagnostics.reasons}
    assert {reason.level for reason in diagnostics.reasons} == {"caution"}


def test_a_perfect_judge_has_no_calibration_caution():
    score = np.linspace(0, 1, 200)
    diagnostics = diagnose(slice_of(score, score), Thresholds())
    assert (diagnostics.f_min, diagnostics.f_max, diagnostics.score_min, diagnostics.score_max) == pytest.approx(
        (0, 1, 0, 1)
    )
    assert diagnostics.rmse < 0.01 and diagnostics.calibration_error < 0.01 and diagnostics.instability < 0.01
    assert diagnostics.within_tenth == 1 and diagnostics.spearman == pytest.approx(1) and not diagnostics.reasons


def test_rmse_recovers_the_noise():
    rng = np.random.default_rng(4)
    score = rng.random(4000)
    label = np.clip(0.2 + 0.6 * score + rng.uniform(-0.1, 0.1, 4000), 0, 1)
    diagnostics = diagnose(slice_of(score, label), Thresholds())
    assert diagnostics.rmse == pytest.approx(0.2 / np.sqrt(12), rel=0.1)
    assert diagnostics.calibration_error < diagnostics.rmse / 3


def test_calibration_error_by_hand():
    assert calibration_error(np.array([0.2, 0.4]), np.array([0.1, 0.7])) == pytest.approx((0.1 + 0.3) / 2)


def test_rank_correlation_is_unknown_for_a_constant():
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5.0)))
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([1.0, 4, 9])) == pytest.approx(1)


def uncertain(n: int = 120, points: int = 3, seed: int = 0) -> Judged:
    """A judge that spreads its mass over several scores."""
    rng = np.random.default_rng(seed)
    mass = rng.random((n, points))
    return Judged(rng.random((n, points)), mass / mass.sum(axis=1, keepdims=True), np.empty((n, 0)))


def test_a_distribution_with_one_point_is_a_score():
    """All its mass is at one point, whatever the values of the padding points."""
    rng = np.random.default_rng(0)
    score, label = rng.random(80), rng.random(80)
    points = np.column_stack([rng.random(80), score, rng.random(80)])
    certain = Judged(points, np.tile([0.0, 1.0, 0.0], (80, 1)), np.empty((80, 0)))
    assert certain.score == pytest.approx(score)
    plain, spread = Judged.of(score), certain
    one, other = (calibrate(judged, label, "monotone") for judged in (plain, spread))
    assert rewards(other, spread) == pytest.approx(rewards(one, plain), abs=1e-12)
    weight = rng.exponential(size=80)
    one, other = (calibrate(judged, label, "monotone", weight) for judged in (plain, spread))
    assert rewards(other, spread) == pytest.approx(rewards(one, plain), abs=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_map_for_score_distributions_is_the_monotone_least_squares_fit(weighted):
    """No other monotone map through the same knots brings the mean rewards nearer to the labels."""
    judged, rng = uncertain(), np.random.default_rng(1)
    label = 0.3 + 0.4 * judged.score + 0.05 * rng.standard_normal(120)  # the bounds [0, 1] of a map do not bind
    weight = rng.exponential(size=120) if weighted else np.ones(120)
    calibrator = calibrate(judged, label, "monotone", weight if weighted else None)
    reward = rewards(calibrator, judged)
    assert (np.diff(calibrator.values) >= 0).all()
    # The fit preserves the mean label: sum_i sum_s p_i(s) f(s) = sum_i Y_i.
    assert np.average(reward, weights=weight) == pytest.approx(np.average(label, weights=weight), abs=1e-9)
    error = weight @ (label - reward) ** 2
    for _ in range(200):
        other = replace(
            calibrator, values=np.sort(calibrator.values + 0.02 * rng.standard_normal(len(calibrator.values)))
        )
        assert weight @ (label - rewards(other, judged)) ** 2 >= error


def test_the_map_that_made_the_mean_labels_is_recovered():
    """Labels that are the mean of a monotone map under the judge's distribution give that map, not a smoothed one."""
    rng = np.random.default_rng(2)
    points = np.broadcast_to(np.linspace(0, 1, 5), (200, 5))
    judged = Judged(points, rng.dirichlet(np.ones(5), 200), np.empty((200, 0)))
    truth = np.array([0.1, 0.1, 0.2, 0.8, 0.9])
    calibrator = calibrate(judged, judged.mass @ truth, "monotone")
    assert calibrator(points[0]) == pytest.approx(truth, abs=1e-6)


def test_the_number_of_knots_is_limited_when_score_points_are_many():
    judged = uncertain(2000)
    calibrator = calibrate(judged, judged.score, "monotone")
    assert len(calibrator.knots) <= KNOTS
    assert calibrator.knots[[0, -1]] == pytest.approx([judged.points.min(), judged.points.max()])
    assert rewards(calibrator, judged) == pytest.approx(judged.score, abs=0.02)


def test_the_reward_of_a_score_distribution_is_not_the_reward_of_its_mean_score():
    """The two differ where the calibrator is not linear."""
    calibrator = isotonic(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.0, 1.0]))
    judged = Judged(np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]]), np.empty((1, 0)))
    assert judged.score == pytest.approx([0.5])
    assert rewards(calibrator, judged) == pytest.approx([0.5]) and calibrator(0.5) == 0


def test_estimates_from_score_distributions_are_near_the_true_values():
    logged, draws, values = draw(WORLDS["judge_noise"], 600, 0)
    evaluations = evaluate_all(["direct", "snips"], logged, draws, Options())
    fitted = evaluations["direct"].calibration
    assert evaluations["direct"].estimates["better"].value == pytest.approx(
        rewards(fitted.full, draws["better"].judged).mean(), abs=1e-12
    )
    for evaluation in evaluations.values():
        for policy, estimate in evaluation.estimates.items():
            assert abs(estimate.value - values[policy]) < 4 * estimate.se


def test_labels_with_different_numbers_of_score_points_are_joined():
    """Labels from a judge with one score a response are joined with those from a judge with three."""
    logged, _, _ = draw(WORLDS["judge_noise"], 60, 0)
    beside = Labelled(np.array(["x", "y"]), Judged.of(np.array([0.2, 0.8])), np.array([0.1, 0.9]))
    known = oracle_slice(logged, beside)
    count = int(logged.labelled.sum())
    assert known.judged.points.shape == (count + 2, 3)
    assert known.judged.score[-2:] == pytest.approx([0.2, 0.8])
    assert known.judged.mass.sum(axis=1) == pytest.approx(1)
    assert known.question[-2:].tolist() == ["x", "y"] and known.oracle_label[-2:].tolist() == [0.1, 0.9]
    assert known.judged.score[:count] == pytest.approx(logged.judge_score[logged.labelled])
    plain = healthy(n=60)[0]
    wide = Labelled(np.array(["x"]), uncertain(1), np.array([0.5]))
    assert oracle_slice(plain, wide).judged.score[:-1] == pytest.approx(plain.judge_score[plain.labelled])


def test_calibration_data_calibrate_as_if_their_labels_were_on_logged_rows():
    logged, _, _ = healthy(n=200, coverage=1.0)
    half = np.arange(200) < 100
    masked = replace(logged, oracle_label=np.where(half, logged.oracle_label, np.nan))
    beside = Labelled(logged.prompt_id[~half], logged.judged[~half], logged.oracle_label[~half])
    one, other = fit(logged, Options()), fit(masked, Options(), beside)
    grid = np.linspace(0, 1, 101)
    assert other.full(grid) == pytest.approx(one.full(grid), abs=1e-12)
    # A prompt keeps its fold, whichever table has its label.
    assert (other.fold == one.fold).all()
    for other_map, one_map in zip(other.cross_fitted + other.jackknife, one.cross_fitted + one.jackknife, strict=True):
        assert other_map(grid) == pytest.approx(one_map(grid), abs=1e-12)


def test_each_fold_of_a_two_stage_calibrator_has_its_own_index_ranks_and_map():
    """Each fold has its own index, rank among its training rows, and monotone map of the rank (trap T4)."""
    logged, _, _ = draw(WORLDS["covariate_bias"], 300, 0)
    fitted = fit(logged, Options(calibration="two_stage", covariates=("style",)))
    known = fitted.slice
    for k, chain in enumerate(fitted.cross_fitted):
        train = fitted.slice_fold != k
        score, covariates, label = known.judged.score[train], known.judged.covariates[train], known.oracle_label[train]
        again = two_stage.fit(score, covariates, label)
        index = again.index(score, covariates)
        rank = np.array([np.mean(index < value) + np.mean(index == value) / 2 for value in index])
        held_out = logged.judged[fitted.fold == k]
        at = np.interp(again.index(held_out.score, held_out.covariates), np.sort(index), np.sort(rank))
        expected = isotonic(rank, label)(at)
        assert rewards(chain, held_out) == pytest.approx(expected, abs=1e-9)
        assert fitted.held_out(logged.judged, fitted.fold)[fitted.fold == k] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("most", "warns"), [(0.10, True), (1.0, False)])
def test_a_reward_that_falls_with_the_score_by_more_than_the_threshold_gets_a_caution(most, warns):
    score = np.linspace(0, 1, 200)
    names = np.array([f"p{i}" for i in range(200)])
    hump = Logged("base", (), names, np.empty((200, 0)), score, 1 - 4 * (score - 0.5) ** 2, np.ones((200, 1)))
    fitted = fit(hump, Options(calibration="two_stage", covariates=("style",)))
    reasons = [one for one in diagnose(fitted, Thresholds(fall_caution=most)).reasons if "falls by" in one.sentence]
    assert [(one.code, one.level) for one in reasons] == [("falling_calibration", "caution")] * warns


def test_each_fresh_draw_has_its_own_covariates():
    """A fresh draw is calibrated with its own covariates, never with those of the logged response (trap T42)."""
    logged, draws, values = draw(replace(WORLDS["covariate_bias"], coverage=1.0), 2000, 0)
    labelled = np.arange(2000) < 1000
    logged = replace(logged, oracle_label=np.where(labelled, logged.oracle_label, np.nan))
    options = Options(calibration="two_stage", covariates=("style",), jackknife_folds=2)
    evaluation = evaluate("direct", logged, draws, options)
    better = draws["better"]
    expected = evaluation.calibration.full(better.judge_score, better.covariates)
    assert evaluation.estimates["better"].value == pytest.approx(expected.mean(), abs=1e-12)
    borrowed = replace(better, covariates=logged.covariates[:, None])
    wrong = evaluate("direct", logged, draws | {"better": borrowed}, options).estimates["better"]
    assert abs(wrong.value - values["better"]) > 2 * abs(evaluation.estimates["better"].value - values["better"])
    unlabelled = np.where(logged.labelled[:, None], logged.covariates, 9.0)
    moved = evaluate("direct", replace(logged, covariates=unlabelled), draws, options).estimates["better"]
    assert moved.value == evaluation.estimates["better"].value


def test_auto_uses_covariates_where_they_matter_and_reports_the_errors_behind_its_choice():
    logged, _, _ = draw(replace(WORLDS["covariate_bias"], coverage=1.0), 600, 0)
    fitted = fit(logged, Options(calibration="auto", covariates=("style",)))
    assert fitted.mode == "two_stage"
    assert fitted.choice["rmse_two_stage"] < fitted.choice["rmse_monotone"] - fitted.choice["se"]
    plain, _, _ = healthy(n=600)
    fitted = fit(plain, Options(calibration="auto"))
    assert fitted.mode == "monotone" and set(fitted.choice) == {"rmse_monotone", "rmse_two_stage", "se"}
    with pytest.raises(UserError, match="uses the judge score alone, got covariates"):
        Options(covariates=("style",))


@pytest.mark.parametrize("labels", [0, 2, 60])
def test_judge_scores_as_rewards_need_no_label(labels):
    """Nothing is fitted, with or without labels, and the mode of the calibration is `none` (trap T29)."""
    logged, draws, _ = healthy(n=100, coverage=labels if labels else 0.0)
    evaluations = evaluate_all(["direct", "snips", "dr-cpo"], logged, draws, Options(rewards="judge"))
    assert evaluations["direct"].calibration.mode == "none"
    for evaluation in evaluations.values():
        assert evaluation.base.value == pytest.approx(logged.judge_score.mean(), abs=1e-12)
        assert evaluation.base.oracle_variance == 0
        assert all(
            np.isfinite(estimate.se) and not estimate.oracle_variance for estimate in evaluation.estimates.values()
        )
    better = evaluations["direct"].estimates["better"]
    assert better.value == pytest.approx(draws["better"].judge_score.mean(), abs=1e-12)
    assert better.se == pytest.approx(draws["better"].judge_score.std(ddof=1) / 10)
    weight = np.exp(logged.log_ratio[:, 0])
    assert evaluations["snips"].estimates["better"].value == pytest.approx(
        np.average(logged.judge_score, weights=weight)
    )
    diagnostics = diagnose(evaluations["direct"].calibration, Thresholds())
    assert (diagnostics.mode, diagnostics.n_labels) == ("none", labels) and not diagnostics.reasons


def test_without_labels_calibration_is_refused():
    with pytest.raises(
        UserError, match="at least 4 prompts, got 0 of 100; no row has an `oracle_label`; label a random sample"
    ):
        evaluate("direct", *healthy(n=100, coverage=0.0)[:2], Options())
