"""Labels of a target's own draws: they correct the calibrator's bias, at the price of their noise."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from arena_cje import estimators
from arena_cje.estimation.fresh import MIN_OWN, fresh_mean, labelled_prompts
from arena_cje.estimation.records import Draws, Labelled
from arena_cje.evaluation.evaluate import Options, evaluate, evaluate_all
from arena_cje.simulate import WORLDS, World, draw
from worlds import healthy

NAN = float("nan")
WITH_DRAWS = [name for name in estimators.NAMES if estimators.needs_draws(name)]
AUGMENTED = [name for name in WITH_DRAWS if name != "tr-cpo"]  # its label term corrects the same bias
REPLICATES = 200
PLAIN = Options(correction="plain")


def with_labels(draws: Draws, rows, offset: float = 0.0) -> Draws:
    """The draws with labels on these rows: the score itself, and an offset."""
    label = np.full(draws.judge_score.shape, NAN)
    label[rows] = np.clip(draws.judge_score[rows] + offset, 0, 1)
    return replace(draws, oracle_label=label)


@pytest.mark.parametrize("draws_per_prompt", [1, 3])
@pytest.mark.parametrize("name", AUGMENTED)
def test_with_labels_on_every_draw_the_estimate_is_the_mean_label(name, draws_per_prompt):
    """The value is exactly the mean label, with the textbook error, whatever the calibrated scores (trap T45)."""
    world = replace(WORLDS["no_transport_hidden"], target_labels=1.0, draws_per_prompt=draws_per_prompt)
    logged, draws, _ = draw(world, 300, seed=0)
    label = draws["worse"].oracle_label
    assert not np.isnan(label).any()
    estimate = evaluate(name, logged, draws, Options()).estimates["worse"]
    if name == "direct":
        assert estimate.value == pytest.approx(label.mean(), abs=1e-12)
        assert estimate.se == pytest.approx(label.mean(axis=1).std(ddof=1) / np.sqrt(300), rel=1e-9)
        assert estimate.oracle_variance == pytest.approx(0, abs=1e-20)
    else:
        # What the weights add compares rewards of logged responses with an outcome model, and is small.
        assert estimate.value == pytest.approx(label.mean(), abs=0.01)


def test_with_labels_on_all_existing_draws_the_value_is_their_mean():
    """If all draws that exist have labels, the value is exactly their mean, prompt by prompt (trap T45)."""
    reward = np.array([[0.2, 0.4], [0.6, NAN], [0.9, 0.7]])
    label = np.array([[0.0, 1.0], [0.3, NAN], [0.8, 0.6]])
    value, influence = fresh_mean(reward, reward, label, np.arange(len(label)))
    assert value == pytest.approx((0.5 + 0.3 + 0.7) / 3)
    assert influence == pytest.approx(np.array([0.5, 0.3, 0.7]) - 0.5)


def test_the_correction_by_hand():
    """Mean calibrated score and mean labelled residual; labels count one by one, prompts by the mean of their draws."""
    rng = np.random.default_rng(0)
    reward, held_out = rng.random((40, 2)), rng.random((40, 2))
    label = np.where(rng.random((40, 2)) < 0.5, rng.random((40, 2)), NAN)
    value, influence = fresh_mean(reward, held_out, label, np.arange(len(label)))
    residual = (label - held_out)[~np.isnan(label)]
    assert value == pytest.approx(reward.mean() + residual.mean())
    by_hand = held_out.mean(axis=1) - held_out.mean()
    for i in range(40):
        for j in range(2):
            if not np.isnan(label[i, j]):
                by_hand[i] += (label[i, j] - held_out[i, j] - residual.mean()) * 40 / len(residual)
    assert influence == pytest.approx(by_hand)
    assert influence.mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", WITH_DRAWS)
@pytest.mark.parametrize(("labels", "moves"), [(MIN_OWN - 1, False), (MIN_OWN, True)])
def test_fewer_than_ten_labelled_prompts_leave_the_estimate_unchanged(name, labels, moves):
    """An estimator with a label term uses none of them, however many there are."""
    logged, draws, _ = healthy()
    plain = evaluate(name, logged, draws, Options()).estimates["better"]
    labelled_draws = draws | {"better": with_labels(draws["better"], np.arange(labels), offset=-0.3)}
    estimate = evaluate(name, logged, labelled_draws, Options()).estimates["better"]
    assert (abs(estimate.value - plain.value) > 0.05) == (moves and name != "tr-cpo")
    if not moves:
        assert (estimate.value, estimate.se) == (plain.value, plain.se)


def test_many_labels_of_two_prompts_leave_the_estimate_unchanged():
    logged, draws, _ = healthy(draws_per_prompt=12)
    plain = evaluate("direct", logged, draws, Options()).estimates["better"]
    labelled_draws = draws | {"better": with_labels(draws["better"], np.arange(2), offset=-0.3)}
    assert evaluate("direct", logged, labelled_draws, Options()).estimates["better"].value == plain.value


@pytest.mark.parametrize("correction", ["joint", "plain"])
@pytest.mark.parametrize("name", AUGMENTED)
def test_labels_of_one_target_leave_differences_of_targets_without_labels_unchanged(name, correction):
    """The joint estimate moves the base, and with it the targets without labels; the plain one moves neither."""
    logged, draws, _ = healthy()
    labelled_draws = draws | {"better": with_labels(draws["better"], np.arange(200))}
    one, other = (evaluate(name, logged, d, Options(correction=correction)) for d in (draws, labelled_draws))
    assert one.estimates["better"].value != other.estimates["better"].value
    for policy in ("clone", "worse"):
        before, after = (evaluation.estimates[policy] - evaluation.base for evaluation in (one, other))
        assert (after.value, after.se) == pytest.approx((before.value, before.se), abs=1e-12)
        assert after.floor.value == pytest.approx(before.floor.value, rel=0.01)
        moved = other.estimates[policy].value - one.estimates[policy].value
        assert moved == pytest.approx(other.base.value - one.base.value, abs=1e-12)
    assert (one.base.value == other.base.value) == (correction == "plain")


@cache
def hidden_drop() -> dict[str, np.ndarray]:
    """Errors and coverage where labels drop equally at every score, without labels of the target and with some."""
    figures = {key: [] for key in ("without", "error", "covered", "se")}
    world = replace(WORLDS["no_transport_hidden"], target_labels=0.15)
    for seed in range(REPLICATES):
        logged, draws, values = draw(world, 400, seed)
        unlabelled = {p: replace(d, oracle_label=np.full_like(d.oracle_label, NAN)) for p, d in draws.items()}
        figures["without"].append(
            evaluate("direct", logged, unlabelled, Options(jackknife_folds=2)).estimates["worse"].value
            - values["worse"]
        )
        estimate = evaluate("direct", logged, draws, Options()).estimates["worse"]
        low, high = estimate.interval()
        figures["error"].append(estimate.value - values["worse"])
        figures["covered"].append(low <= values["worse"] <= high)
        figures["se"].append(estimate.se)
    return {key: np.array(value) for key, value in figures.items()}


def test_a_share_of_own_labels_corrects_a_calibrator_that_does_not_transport():
    figures = hidden_drop()
    assert figures["without"].mean() > 0.1
    assert abs(figures["error"].mean()) < 0.3 * figures["error"].std()
    assert figures["covered"].mean() >= 0.90
    ratio = np.sqrt(np.mean(figures["se"] ** 2)) / figures["error"].std(ddof=1)
    assert 0.85 < ratio < 1.2


def test_the_error_of_a_difference_contains_the_noise_of_both_corrections():
    """Under the plain correction equal scores cancel in a difference, but residuals do not (trap T34)."""
    logged, draws, _ = healthy()
    rng = np.random.default_rng(0)
    score = draws["better"].judge_score
    labelled_draws = {}
    for policy in logged.policies:
        label = np.where(
            rng.permutation(400)[:, None] < 100, np.clip(score + 0.2 * rng.standard_normal((400, 1)), 0, 1), NAN
        )
        labelled_draws[policy] = Draws(policy, score, label)
    estimates = evaluate("direct", logged, labelled_draws, PLAIN).estimates
    contrast = estimates["better"] - estimates["worse"]
    fitted = evaluate("direct", logged, labelled_draws, PLAIN).calibration
    predicted = fitted.held_out(labelled_draws["better"].judged, fitted.fold)
    noise = [np.nanvar(labelled_draws[p].oracle_label - predicted, ddof=1) / 100 for p in ("better", "worse")]
    assert contrast.sampling_variance == pytest.approx(sum(noise), rel=0.15)
    plain = evaluate(
        "direct", logged, {p: Draws(p, score, np.full_like(score, NAN)) for p in labelled_draws}, Options()
    ).estimates
    assert (plain["better"] - plain["worse"]).se == pytest.approx(0, abs=1e-12)


def test_intervals_cover_the_difference_of_two_augmented_estimates():
    """Intervals cover the difference of two policies of one truth, each with labels of its own (trap T34)."""
    world = World(targets={"one": WORLDS["healthy"].targets["better"], "two": WORLDS["healthy"].targets["better"]})
    covered = []
    for seed in range(120):
        logged, draws, _ = draw(replace(world, target_labels=0.2), 200, seed)
        estimates = evaluate("direct", logged, draws, Options(jackknife_folds=5)).estimates
        low, high = (estimates["one"] - estimates["two"]).interval()
        covered.append(low <= 0 <= high)
    assert np.mean(covered) >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 120)


@pytest.mark.parametrize("draws_per_prompt", [1, 4])
def test_the_noise_of_draws_is_counted_once(draws_per_prompt):
    """The error is that of the prompts' means, and nothing is added for the draws (trap T5)."""
    logged, draws, _ = healthy(draws_per_prompt=draws_per_prompt)
    evaluation = evaluate("direct", logged, draws, Options())
    fitted = evaluation.calibration
    mean = fitted.held_out(draws["better"].judged, fitted.fold).mean(axis=1)
    estimate = evaluation.estimates["better"]
    assert estimate.sampling_variance == pytest.approx(mean.var(ddof=1) / 400, rel=1e-12)
    assert estimate.se**2 == pytest.approx(mean.var(ddof=1) / 400 + estimate.oracle_variance, rel=1e-12)


@pytest.mark.parametrize("name", AUGMENTED)
def test_own_labels_correct_a_hidden_drop_in_every_augmented_estimator(name):
    """Labels of the target's own responses correct a hidden drop in every estimator that uses them."""
    world = replace(WORLDS["no_transport_hidden"], target_labels=0.5)
    errors = []
    for seed in range(8):
        logged, draws, values = draw(world, 1000, seed)
        errors.append(
            evaluate(name, logged, draws, Options(jackknife_folds=2)).estimates["worse"].value - values["worse"]
        )
    assert abs(np.mean(errors)) < 0.015


def test_estimates_with_a_label_term_ignore_own_labels():
    """Both correct the same bias: with both it would be corrected twice."""
    logged, draws, _ = draw(replace(WORLDS["no_transport_hidden"], target_labels=0.5), 400, 0)
    unlabelled = {p: replace(d, oracle_label=np.full_like(d.oracle_label, NAN)) for p, d in draws.items()}
    for options in (Options(label_term=True), Options(label_term=True, weights="raw")):
        one = evaluate_all(["dr-cpo", "mrdr", "tr-cpo"], logged, draws, options)
        other = evaluate_all(["dr-cpo", "mrdr", "tr-cpo"], logged, unlabelled, options)
        for name in one:
            assert one[name].estimates["worse"].value == other[name].estimates["worse"].value


@pytest.mark.parametrize("name", ["dr-cpo", "mrdr", "tmle", "stacked-dr"])
def test_own_labels_and_raw_weights_do_not_correct_the_same_bias_twice(name):
    """With a label on every row the residual under raw weights corrects the bias already."""
    world = replace(WORLDS["style_matters"], coverage=1.0, target_labels=200)
    errors = []
    for seed in range(8):
        logged, draws, values = draw(world, 1000, seed)
        logged, draws = plain(logged), {policy: plain(of_policy) for policy, of_policy in draws.items()}
        errors.append(evaluate(name, logged, draws, Options(weights="raw")).estimates["worse"].value - values["worse"])
    assert abs(np.mean(errors)) < 0.02


def plain(record):
    return replace(record, covariates=None)


def test_a_prompt_with_many_draws_counts_as_one():
    """Residuals differ between prompts with nine draws and prompts with one: the mean over prompts is corrected."""
    rng = np.random.default_rng(0)
    many = np.arange(4000) % 2 == 0
    reward = np.where(many[:, None] | (np.arange(9) == 0), 0.6, np.nan)
    truth = np.where(many[:, None], reward - 0.3, reward)
    label = np.where(rng.random(reward.shape) < 0.3, truth, np.nan)
    value, influence = fresh_mean(reward, reward, label, np.arange(4000))
    assert value == pytest.approx(0.45, abs=0.01)
    assert influence.mean() == pytest.approx(0, abs=1e-9)


def test_rows_of_one_prompt_are_one_labelled_prompt():
    label = np.full((40, 1), np.nan)
    label[:12] = 0.5
    assert labelled_prompts(label, np.arange(40) // 4) == 3
    reward = np.full((40, 1), 0.7)
    assert fresh_mean(reward, reward, label, np.arange(40) // 4)[0] == pytest.approx(0.7)  # three are too few


def test_without_logged_labels_own_labels_replace_the_label_term():
    logged, draws, values = draw(replace(WORLDS["no_transport_hidden"], target_labels=100), 600, 0)
    labelled = logged.labelled
    calibration_data = Labelled(logged.prompt_id[labelled], logged.judged[labelled], logged.oracle_label[labelled])
    bare = replace(logged, oracle_label=np.full(600, np.nan))
    estimate = evaluate("tr-cpo", bare, draws, Options(), calibration_data).estimates["worse"]
    low, high = estimate.interval()
    assert low < values["worse"] < high
