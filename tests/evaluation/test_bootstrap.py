"""The bootstrap of the direct method: random weights of prompts, the calibrator fitted again, no replicate dropped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arena_cje import estimators
from arena_cje.errors import UserError
from arena_cje.estimation.calibration import oracle_slice
from arena_cje.estimation.isotonic import isotonic
from arena_cje.estimation.records import Labelled
from arena_cje.evaluation.bootstrap import replicates
from arena_cje.evaluation.evaluate import Options, evaluate
from arena_cje.simulate import WORLDS, World, draw
from worlds import healthy, take, take_draws

BOOTSTRAP = Options(inference="bootstrap", n_bootstrap=300)


def test_without_labels_of_the_targets_all_replicates_are_finite():
    """The bootstrap also works in the usual case of no label among the fresh draws (trap T14)."""
    logged, draws, _ = healthy()
    evaluation = evaluate("direct", logged, draws, BOOTSTRAP)
    for estimate in (*evaluation.estimates.values(), evaluation.base):
        assert len(estimate.replicates) == 300 and np.isfinite(estimate.replicates).all()
        low, high = estimate.interval()
        assert low < estimate.value < high
        assert estimate.se == pytest.approx(estimate.replicates.std(ddof=1))
        assert len(estimate.jackknife) == 0


@pytest.mark.parametrize("own", [False, True])
def test_every_replicate_by_hand(own):
    """Every draw of weights counts, and none is drawn again where few labels count (trap T33)."""
    logged, draws, _ = healthy(n=60, coverage=6, target_labels=20 if own else 0)
    replicate_values = evaluate("direct", logged, draws, replace(BOOTSTRAP, seed=5)).estimates["better"].replicates
    rng, labelled = np.random.default_rng(5), logged.labelled
    names, code = np.unique(logged.prompt_id, return_inverse=True)
    score, label = draws["better"].judge_score[:, 0], draws["better"].oracle_label[:, 0]
    for value in replicate_values:
        weight = rng.standard_exponential(len(names))[code]
        fitted = isotonic(logged.judge_score[labelled], logged.oracle_label[labelled], weight[labelled])(score)
        expected = np.average(fitted, weights=weight)
        if own:
            has_label = ~np.isnan(label)
            expected += np.average((label - fitted)[has_label], weights=weight[has_label])
        assert value == pytest.approx(expected, abs=1e-12)


def test_the_interval_ends_at_percentiles_of_the_replicates():
    logged, draws, _ = healthy()
    estimate = evaluate("direct", logged, draws, BOOTSTRAP).estimates["better"]
    assert estimate.interval() == pytest.approx(np.percentile(estimate.replicates, [2.5, 97.5]))
    assert estimate.interval(0.2) == pytest.approx(np.percentile(estimate.replicates, [10, 90]))


def test_policies_share_the_bootstrap_weights():
    """A difference is taken replicate by replicate, so that shared errors cancel."""
    logged, draws, _ = healthy()
    estimates = evaluate("direct", logged, draws, BOOTSTRAP).estimates
    contrast = estimates["better"] - estimates["worse"]
    assert contrast.replicates == pytest.approx(estimates["better"].replicates - estimates["worse"].replicates)
    independent_se = np.hypot(estimates["better"].se, estimates["worse"].se)
    assert contrast.se < 0.8 * independent_se
    same = {p: replace(draws["better"], policy=p) for p in logged.policies}
    estimates = evaluate("direct", logged, same, BOOTSTRAP).estimates
    assert (estimates["better"] - estimates["worse"]).se == 0


def test_a_difference_of_estimates_with_other_bootstrap_draws_is_refused():
    logged, draws, _ = healthy()
    one, other = (
        evaluate("direct", logged, draws, replace(BOOTSTRAP, n_bootstrap=n)).estimates["better"] for n in (50, 60)
    )
    with pytest.raises(ValueError, match="same bootstrap draws"):
        _ = one - other


@pytest.mark.parametrize("target_labels", [0.0, 0.3])
def test_standard_errors_agree_with_the_jackknife_in_a_healthy_world(target_labels):
    ratios = []
    for seed in range(6):
        logged, draws, _ = draw(replace(WORLDS["healthy"], target_labels=target_labels), 500, seed)
        one, other = (
            evaluate("direct", logged, draws, options) for options in (Options(correction="plain"), BOOTSTRAP)
        )
        for policy in logged.policies:
            assert one.estimates[policy].value == other.estimates[policy].value
            ratios.append(other.estimates[policy].se / one.estimates[policy].se)
    assert np.exp(np.mean(np.log(ratios))) == pytest.approx(1, abs=0.25)


def test_with_labels_on_every_draw_the_value_is_the_mean_label():
    """With a label on every draw the value is the mean label, with the error of a mean (trap T45)."""
    logged, draws, _ = draw(replace(WORLDS["no_transport_hidden"], target_labels=1.0), 300, 0)
    estimate = evaluate("direct", logged, draws, replace(BOOTSTRAP, n_bootstrap=2000)).estimates["worse"]
    label = draws["worse"].oracle_label[:, 0]
    assert estimate.value == pytest.approx(label.mean(), abs=1e-12)
    assert estimate.replicates.mean() == pytest.approx(label.mean(), abs=4 * label.std() / np.sqrt(300 * 2000))
    assert estimate.se == pytest.approx(label.std(ddof=1) / np.sqrt(300), rel=0.1)


def test_rows_of_a_prompt_share_its_bootstrap_weight():
    """Every row twice under its prompt adds no information: each replicate is the same."""
    logged, draws, _ = healthy(n=200)
    rows = np.repeat(np.arange(200), 2)
    once = evaluate("direct", logged, draws, BOOTSTRAP).estimates["better"]
    twice = evaluate("direct", take(logged, rows), take_draws(draws, rows), BOOTSTRAP).estimates["better"]
    assert twice.replicates == pytest.approx(once.replicates, abs=1e-9)


def all_prompts(logged, known):
    return np.unique(np.concatenate([logged.prompt_id, known.question]))


def test_a_missing_draw_does_not_move_the_weights_of_other_prompts():
    """Weights belong to prompts, not to the rows that a policy happens to have."""
    logged, draws, _ = healthy(n=200)
    known = oracle_slice(logged)
    judged, label = draws["better"].judged, np.full((200, 1), np.nan)
    some = np.arange(200) != 17
    names = all_prompts(logged, known)
    whole = replicates(known, "monotone", names, logged.prompt_id, judged, label, n=200, seed=1)
    less = replicates(known, "monotone", names, logged.prompt_id[some], judged[some], label[some], n=200, seed=1)
    assert np.std(whole - less) < 0.1 * np.std(whole)


def test_labels_of_calibration_data_have_the_weight_of_their_own_prompt():
    logged, draws, _ = healthy(n=80)
    judged, label = draws["better"].judged, np.full((80, 1), np.nan)
    other_prompts = Labelled(np.array([f"other-{i}" for i in range(30)]), logged.judged[:30], logged.judge_score[:30])
    same_prompts = replace(other_prompts, question=logged.prompt_id[:30])
    one, other = (
        replicates(known, "monotone", all_prompts(logged, known), logged.prompt_id, judged, label, n=400, seed=1)
        for known in (other_prompts, same_prompts)
    )
    assert np.isfinite([one, other]).all()
    assert one.mean() == pytest.approx(other.mean(), abs=0.02)
    rng = np.random.default_rng(1)
    weight = rng.standard_exponential(110)  # names in sorted order: other prompts come first
    by_hand = isotonic(
        other_prompts.judged.score, other_prompts.oracle_label, weight[np.argsort(np.argsort(other_prompts.question))]
    )
    names = np.unique(np.concatenate([logged.prompt_id, other_prompts.question]))
    at_row = weight[np.searchsorted(names, logged.prompt_id)]
    assert one[0] == pytest.approx(np.average(by_hand(judged.score[:, 0]), weights=at_row), abs=1e-12)


def test_replicates_are_finite_with_missing_draws_and_score_distributions():
    logged, draws, _ = draw(replace(WORLDS["judge_noise"], draws_per_prompt=2), 200, 0)
    score = draws["better"].judge_score.copy()
    points = draws["better"].judge_points.copy()
    score[:20], points[:20] = np.nan, np.nan
    fewer = draws | {"better": replace(draws["better"], judge_score=score, judge_points=points)}
    evaluation = evaluate("direct", logged, fewer, replace(BOOTSTRAP, n_bootstrap=50))
    assert evaluation.n_used["better"] == 180
    assert np.isfinite(evaluation.estimates["better"].replicates).all()
    assert (evaluation.estimates["better"].influence[:20] == 0).all()


def test_a_calibrator_with_covariates_is_refitted_in_each_replicate():
    logged, draws, values = draw(WORLDS["covariate_bias"], 300, 0)
    options = replace(BOOTSTRAP, calibration="two_stage", covariates=("length",), n_bootstrap=60)
    evaluation = evaluate("direct", logged, draws, options)
    assert evaluation.calibration.mode == "two_stage"
    estimate = evaluation.estimates["better"]
    assert estimate.replicates.mean() == pytest.approx(estimate.value, abs=0.02)
    assert abs(estimate.value - values["better"]) < 4 * estimate.se


@pytest.mark.parametrize("name", [name for name in estimators.NAMES if name != "direct"])
def test_estimators_other_than_direct_refuse_the_bootstrap(name):
    logged, draws, _ = healthy(n=60)
    with pytest.raises(
        UserError, match=f"{name!r} has no bootstrap; use inference 'jackknife', or the estimator 'direct'"
    ):
        evaluate(name, logged, draws, BOOTSTRAP)


def test_the_seed_of_the_options_determines_the_replicates():
    logged, draws, _ = healthy(n=100)
    one, other, again = (
        evaluate("direct", logged, draws, replace(BOOTSTRAP, seed=seed, n_bootstrap=20)).estimates["better"].replicates
        for seed in (1, 2, 1)
    )
    assert (one == again).all() and (one != other).all()


@pytest.mark.parametrize(("n", "target_labels", "seeds"), [(1000, 0.0, 60), (200, 0.3, 100)])
def test_intervals_cover_with_hundreds_of_labels_or_labels_of_the_target(n, target_labels, seeds):
    """Not with few labels and none of the target's: in-sample residuals of an isotonic fit are too small."""
    world = World({"better": WORLDS["healthy"].targets["better"]}, target_labels=target_labels)
    covered = []
    for seed in range(seeds):
        logged, draws, values = draw(world, n, seed)
        estimate = evaluate("direct", logged, draws, replace(BOOTSTRAP, n_bootstrap=120)).estimates["better"]
        low, high = estimate.interval()
        covered.append(low <= values["better"] <= high)
    assert np.mean(covered) >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / seeds)
