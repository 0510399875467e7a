"""Doubly robust estimation: unbiased if the calibrator or the weights are right, direct where policies are equal."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit

from arena_cje import estimators
from arena_cje.estimation import outcome, robust
from arena_cje.estimation.isotonic import isotonic
from arena_cje.estimation.records import Draws, Logged, Point, Sample
from arena_cje.estimators import mrdr, stacked_dr, tmle
from arena_cje.evaluation.evaluate import Options, evaluate, evaluate_all
from arena_cje.simulate import WORLDS, Target, World, draw
from worlds import healthy, take, take_draws

ROBUST = [name for name in estimators.NAMES if set(estimators.get(name).NEEDS) == {"log_ratio", "fresh_score"}]
NO_LABEL_TERM = [name for name in ROBUST if name != "tr-cpo"]  # unless the option `label_term` is set
REPLICATES = 40


def sample_of(seed: int = 0, n: int = 300, m: int = 2, **changes) -> Sample:
    """A policy whose rewards are no function of the calibrated score, so that an outcome model differs from it."""
    rng = np.random.default_rng(seed)
    index, fresh = rng.random(n), rng.random((n, m)) ** 0.7
    label = np.clip(index**2 + 0.1 * rng.standard_normal(n), 0, 1)
    fields = {
        "log_ratio": 0.8 * index + 0.4 * rng.standard_normal(n),
        "cluster": np.arange(n),
        "fold": np.arange(n) % 5,
        "label": label,
        "reward": label,
        "held_out": label,
        "index": index,
        "fresh": fresh,
        "fresh_held_out": fresh,
        "fresh_label": np.full((n, m), np.nan),
        "weight_variance": 1.0,
    }
    return Sample(**fields | changes)


def same_policy(n: int = 400, **changes) -> tuple[Logged, dict[str, Draws]]:
    """A target that is the base: equal log probabilities, and the logged responses as its draws."""
    logged, _, _ = healthy(n=n, **changes)
    logged = replace(logged, policies=("clone",), log_ratio=np.zeros((n, 1)))
    score = logged.judge_score[:, None]
    return logged, {"clone": Draws("clone", score, np.full(score.shape, np.nan))}


@pytest.mark.parametrize("coverage", [0.25, 1.0])
@pytest.mark.parametrize("name", ROBUST)
def test_a_policy_equal_to_the_base_has_the_value_and_error_of_the_direct_method(name, coverage):
    """With weights of one and logged responses as draws g and q cancel, in the jackknife too (trap T12).

    The calibrator changes the estimate once, through g. If the jackknife did not fit q again, the calibrator would count
    twice and the oracle variance would be fourfold. With a label on every row the estimate is the mean label itself.
    """
    logged, draws = same_policy(coverage=coverage)
    # The label term estimates the calibrator's bias, and has an error of its own below full coverage.
    names = [name, "direct"]
    estimates = {
        key: evaluation.estimates["clone"] for key, evaluation in evaluate_all(names, logged, draws, Options()).items()
    }
    if coverage == 1:
        assert estimates[name].value == pytest.approx(logged.oracle_label.mean(), abs=1e-12)
        return
    if name == "tr-cpo":
        assert estimates[name].value == pytest.approx(estimates["direct"].value, abs=0.02)
        return
    assert estimates[name].value == pytest.approx(estimates["direct"].value, abs=1e-9)
    assert estimates[name].sampling_variance == pytest.approx(estimates["direct"].sampling_variance, rel=1e-6)
    assert estimates[name].jackknife == pytest.approx(estimates["direct"].jackknife, abs=1e-9)
    assert estimates[name].oracle_variance == pytest.approx(estimates["direct"].oracle_variance, rel=1e-6)


@pytest.mark.parametrize("name", ROBUST)
def test_the_estimate_of_a_clone_is_near_that_of_the_direct_method(name):
    """For equal policies the weighted residuals are those of the cross-fitting alone, which are small."""
    logged, draws, _ = healthy()
    evaluations = evaluate_all([name, "direct"], logged, draws, Options())
    gap = evaluations[name].estimates["clone"] - evaluations["direct"].estimates["clone"]
    assert abs(gap.value) < (0.025 if name == "tr-cpo" else 0.005)


@cache
def errors(world: str, *, wrong: bool = False, coverage: float = 0.25, **options) -> dict[str, np.ndarray]:
    """Errors (replicates,) by estimator; wrong weights are those of a policy that is the base."""
    worlds = WORLDS | {"plain": World({"better": Target(0.4, 0.3)})}
    errors_by_name = {name: [] for name in (*ROBUST, "direct")}
    for seed in range(REPLICATES):
        logged, draws, values = draw(replace(worlds[world], coverage=coverage), 1000, seed)
        if wrong:
            logged = replace(logged, log_ratio=np.zeros_like(logged.log_ratio))
        policy = logged.policies[0]
        evaluations = evaluate_all(list(errors_by_name), logged, draws, Options(jackknife_folds=2, **options))
        for name, evaluation in evaluations.items():
            errors_by_name[name].append(evaluation.estimates[policy].value - values[policy])
    return {name: np.array(row) for name, row in errors_by_name.items()}


def unbiased(error: np.ndarray) -> bool:
    """Is the mean within three of its Monte Carlo errors of zero?"""
    return bool(abs(error.mean()) < 3 * error.std(ddof=1) / np.sqrt(len(error)))


def test_with_the_label_term_a_right_calibrator_or_right_weights_make_the_estimate_unbiased():
    """Style moves labels and not scores, so that only the weights are right; in the other case only the calibrator is."""
    assert unbiased(errors("style_matters")["tr-cpo"])
    assert unbiased(errors("plain", wrong=True)["tr-cpo"])
    assert errors("style_matters", wrong=True)["tr-cpo"].mean() > 0.06  # neither is right


@pytest.mark.parametrize("name", NO_LABEL_TERM)
def test_without_a_label_term_the_bias_of_a_calibrator_that_does_not_transport_remains(name):
    assert errors("style_matters")[name].mean() > 0.06
    assert unbiased(errors("style_matters", label_term=True)[name])
    assert unbiased(errors("plain")[name])


@pytest.mark.parametrize("name", NO_LABEL_TERM)
def test_at_full_coverage_raw_weights_remove_the_bias_and_weights_fitted_to_the_score_do_not(name):
    """A weight that is a function of the score cannot undo what style does at the same score."""
    assert unbiased(errors("style_matters", coverage=1.0, weights="raw")[name])
    assert errors("style_matters", coverage=1.0)[name].mean() > 0.06
    assert errors("style_matters", coverage=1.0, weights="raw", wrong=True)[name].mean() > 0.06


@pytest.mark.parametrize("name", NO_LABEL_TERM)
def test_at_full_coverage_the_label_term_still_removes_the_bias(name):
    """With a label on every row the residual is the label term, and has raw weights."""
    assert unbiased(errors("style_matters", coverage=1.0, label_term=True)[name])


def test_the_base_policy_has_the_label_term_as_well():
    """With weights of one, so that the noise of labels cancels where policies are equal."""
    logged, draws = same_policy()
    evaluation = evaluate("tr-cpo", logged, draws, Options())
    contrast = evaluation.estimates["clone"] - evaluation.base
    assert (contrast.value, contrast.se) == pytest.approx((0, 0), abs=1e-9)
    fitted = evaluation.calibration
    held_out = fitted.held_out(logged.judged, fitted.fold)
    expected = fitted.full(logged.judge_score).mean() + np.nanmean(logged.oracle_label - held_out)
    assert evaluation.base.value == pytest.approx(expected, abs=1e-12)
    assert evaluation.base.value == pytest.approx(np.nanmean(logged.oracle_label), abs=0.05)


def test_the_label_term_changes_nothing_at_full_coverage():
    """The rewards are the labels there, so that the term is zero."""
    logged, draws, _ = healthy(coverage=1.0)
    evaluations = evaluate_all(["dr-cpo", "tr-cpo"], logged, draws, Options(weights="raw"))
    one, other = (evaluations[name].estimates["better"] for name in evaluations)
    assert (one.value, one.se, one.df) == pytest.approx((other.value, other.se, other.df), rel=1e-12)


def test_the_label_term_by_hand():
    sample = sample_of(reward=np.full(300, 0.5), held_out=np.linspace(0, 1, 300))
    label = np.where(np.arange(300) % 4 == 0, sample.label, np.nan)
    sample = replace(sample, label=label)
    weight = np.exp(sample.log_ratio) / np.exp(sample.log_ratio).mean()
    expected = [0.0 if np.isnan(y) else 4 * w * (y - r) for y, w, r in zip(label, weight, sample.held_out, strict=True)]
    assert robust.label_residual(label, sample.held_out, sample.raw) == pytest.approx(expected)
    assert (robust.label_residual(np.full(300, np.nan), sample.held_out, sample.raw) == 0).all()


@pytest.mark.parametrize("name", NO_LABEL_TERM)
def test_the_label_term_is_an_option_of_every_doubly_robust_estimator(name):
    """It adds the mean weighted label residual, and its own part of the influence function."""
    logged, draws, _ = healthy()
    plain, with_term = (
        evaluate(name, logged, draws, Options(weights="raw", label_term=on)).estimates["better"] for on in (False, True)
    )
    fitted = evaluate(name, logged, draws, Options()).calibration
    weight = np.exp(logged.log_ratio[:, 0])
    residual = logged.oracle_label - fitted.held_out(logged.judged, fitted.fold)
    term = np.where(logged.labelled, weight / weight.mean() * residual, 0) / logged.labelled.mean()
    tolerance = {"abs": 2e-3} if name == "stacked-dr" else {"abs": 1e-12}  # stacking weighs its members anew
    assert with_term.value - plain.value == pytest.approx(term.mean(), **tolerance)
    if name != "stacked-dr":
        assert with_term.influence - plain.influence == pytest.approx(term - term.mean(), abs=1e-12)


def test_dr_cpo_with_raw_weights_and_the_label_term_is_tr_cpo():
    logged, draws, _ = healthy()
    one = evaluate("dr-cpo", logged, draws, Options(weights="raw", label_term=True)).estimates["better"]
    other = evaluate("tr-cpo", logged, draws, Options()).estimates["better"]
    assert (one.value, one.se) == (other.value, other.se)
    assert (one.jackknife == other.jackknife).all()


@pytest.mark.parametrize("name", ROBUST)
def test_the_weights_are_those_that_the_options_name(name):
    logged, draws, _ = healthy()
    raw, calibrated = (
        evaluate(name, logged, draws, Options(weights=weights)).weights["better"] for weights in ("raw", "calibrated")
    )
    assert (raw.stabilised == raw.raw).all()
    assert (calibrated.raw == raw.raw).all()
    assert (calibrated.stabilised.var() < 0.5 * raw.raw.var()) == (name != "tr-cpo")


@pytest.mark.parametrize("name", ROBUST)
def test_rows_without_a_log_ratio_or_without_a_draw_are_left_out_for_their_policy(name):
    logged, draws, _ = healthy()
    log_ratio, score = logged.log_ratio.copy(), draws["better"].judge_score.copy()
    log_ratio[:30, 0], score[20:60] = np.nan, np.nan
    fewer = draws | {"better": replace(draws["better"], judge_score=score)}
    evaluation = evaluate(name, replace(logged, log_ratio=log_ratio), fewer, Options())
    assert evaluation.n_used == {"better": 340, "clone": 400, "worse": 400}
    better = evaluation.estimates["better"]
    assert (better.influence[:60] == 0).all() and not better.used[:60].any()
    assert np.isnan(evaluation.weights["better"].stabilised[:60]).all()
    assert np.nanmean(evaluation.weights["better"].stabilised) == pytest.approx(1)
    # The other rows alone, calibrated by the labels of all of them, are about the same.
    whole = evaluate(name, logged, draws, Options())
    assert better.value == pytest.approx(whole.estimates["better"].value, abs=0.03)
    assert evaluation.estimates["worse"].value == whole.estimates["worse"].value


@pytest.mark.parametrize("name", ROBUST)
def test_policies_keep_their_order_and_do_not_change_each_others_estimates(name):
    """Estimates are in the declared order of policies, not in alphabetical order (trap T39)."""
    logged, draws, _ = healthy()
    reverse = replace(logged, policies=logged.policies[::-1], log_ratio=logged.log_ratio[:, ::-1])
    one, other = evaluate(name, logged, draws, Options()), evaluate(name, reverse, draws, Options())
    assert tuple(other.estimates) == ("worse", "clone", "better")
    for policy in logged.policies:
        assert one.estimates[policy].value == other.estimates[policy].value
        assert one.estimates[policy].se == other.estimates[policy].se


@pytest.mark.parametrize("name", ROBUST)
def test_the_influence_function_predicts_the_effect_of_a_repeated_prompt(name):
    """A repeated prompt moves the value by its influence over n, but for folds, fits and terms of order 1/n^2.

    An error made smaller by smoothing the influence function, without a change of the estimate, fails here (trap T48).
    """
    logged, draws, _ = healthy(coverage=1.0)
    evaluation = evaluate(name, logged, draws, Options(jackknife_folds=2, weights="raw"))
    influence = evaluation.estimates["better"].influence
    moved = []
    rows = np.argsort(influence)[[0, 20, 200, 380, 399]]
    for row in rows:
        again = np.append(np.arange(400), np.full(4, row))
        more = evaluate(name, take(logged, again), take_draws(draws, again), Options(jackknife_folds=2, weights="raw"))
        moved.append((more.estimates["better"].value - evaluation.estimates["better"].value) * 404 / 4)
    assert np.corrcoef(moved, influence[rows])[0, 1] > 0.99
    assert np.polyfit(influence[rows], moved, 1)[0] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("name", ["direct", *ROBUST])
def test_equal_influence_gives_equal_errors_throughout_the_family(name):
    """With judge scores as rewards outcome models add nothing: one phi, one se, one df for the whole family (trap T8)."""
    logged, draws, _ = healthy()
    coarse = {p: replace(d, judge_score=np.round(10 * d.judge_score) / 10) for p, d in draws.items()}
    logged = replace(logged, judge_score=np.round(10 * logged.judge_score) / 10, oracle_label=np.full(400, np.nan))
    evaluations = evaluate_all(["direct", name], logged, coarse, Options(rewards="judge"))
    one, other = (evaluations[key].estimates["better"] for key in ("direct", name))
    assert other.influence == pytest.approx(one.influence, abs=1e-6)
    assert (other.value, other.se, other.df) == pytest.approx((one.value, one.se, one.df), rel=1e-6)
    assert other.interval() == pytest.approx(one.interval(), rel=1e-6)


def test_the_outcome_model_of_a_fold_is_fitted_on_the_other_folds():
    sample = sample_of()
    weight = np.linspace(0.2, 1.8, 300)
    before, before_fresh = outcome.outcome(sample, weight)
    in_fold = sample.fold == 2
    moved = replace(sample, reward=np.where(in_fold, 1 - sample.reward, sample.reward))
    after, after_fresh = outcome.outcome(moved, np.where(in_fold, 3.0, weight))
    assert (after[in_fold] == before[in_fold]).all() and (after_fresh[in_fold] == before_fresh[in_fold]).all()
    assert (after[~in_fold] != before[~in_fold]).any()
    by_hand = isotonic(sample.index[~in_fold], sample.reward[~in_fold], weight[~in_fold])
    assert before[in_fold] == pytest.approx(by_hand(sample.index[in_fold]))
    assert before_fresh[in_fold] == pytest.approx(by_hand(sample.fresh[in_fold]))


def test_mrdr_by_hand():
    sample = sample_of()
    weight = sample.raw
    at_logged, at_fresh = outcome.outcome(sample, weight)
    point = mrdr.estimate(sample, Options(weights="raw"))
    assert point.value == pytest.approx(at_fresh.mean() + np.mean(weight * (sample.reward - at_logged)), abs=1e-12)
    unweighted, _ = outcome.outcome(sample)
    assert np.mean(weight * (sample.reward - at_logged) ** 2) != pytest.approx(
        np.mean(weight * (sample.reward - unweighted) ** 2), rel=1e-6
    )


@pytest.mark.parametrize("offset", [-0.3, 0.0, 0.25])
def test_the_fluctuation_solves_its_score_equation(offset):
    rng = np.random.default_rng(0)
    predicted, clever = 0.3 + 0.4 * rng.random(500), rng.exponential(size=500)
    reward = np.clip(predicted + offset + 0.1 * rng.standard_normal(500), 0, 1)
    step = tmle.fluctuation(reward, predicted, clever)
    moved = expit(np.log(predicted / (1 - predicted)) + step * clever)
    assert clever @ (reward - moved) == pytest.approx(0, abs=1e-6)
    assert np.sign(step) == np.sign(offset) if offset else abs(step) < 0.1


def test_the_fluctuation_of_exact_predictions_is_zero():
    predicted = np.linspace(0.1, 0.9, 50)
    assert tmle.fluctuation(predicted, predicted, np.ones(50)) == pytest.approx(0, abs=1e-9)
    assert np.isfinite(tmle.fluctuation(np.ones(50), np.zeros(50), np.ones(50)))  # as far off as can be


def test_targeting_corrects_a_constant_outcome_model():
    """With a constant outcome model TMLE is close to IPS and far from the plug-in (trap T6)."""
    sample = sample_of(index=np.full(300, 0.5), fresh_held_out=np.full((300, 2), 0.5))
    point = tmle.estimate(sample, Options(weights="raw"))
    ips = np.average(sample.reward, weights=np.exp(sample.log_ratio))
    assert point.value == pytest.approx(ips, abs=1e-3)
    assert abs(ips - sample.reward.mean()) > 0.03  # the plug-in's value


def test_targeting_moves_fresh_draws_and_logged_responses_alike(monkeypatch):
    """The fluctuation also moves the fresh draws; without it there a constant model gives the plug-in (trap T6)."""
    rng = np.random.default_rng(1)
    n = 4000
    index = rng.random(n)
    ratio = 1.5 * index + 0.2 * rng.standard_normal(n)
    fresh = rng.choice(index, n, p=np.exp(ratio) / np.exp(ratio).sum())[:, None]
    wide = {"fresh": fresh, "fresh_held_out": fresh, "fresh_label": np.full((n, 1), np.nan)}
    wide |= {"fold": np.arange(n) % 5, "label": np.full(n, np.nan), "log_ratio": ratio, "cluster": np.arange(n)}
    sample = sample_of(index=index, reward=index, held_out=index, **wide)
    monkeypatch.setattr(tmle, "outcome", lambda sample: (np.full(n, 0.5), np.full((n, 1), 0.5)))
    point = tmle.estimate(sample, Options(weights="raw"))
    clever, clever_fresh = tmle.mean_weight(sample, sample.raw)
    step = tmle.fluctuation(sample.reward, np.full(n, 0.5), clever)
    expected = expit(step * clever_fresh).mean() + np.mean(sample.raw * (sample.reward - expit(step * clever)))
    assert point.value == pytest.approx(expected, abs=1e-12)
    assert point.value == pytest.approx(np.average(index, weights=sample.raw), abs=0.01)
    assert expit(step * clever_fresh).mean() - 0.5 > 0.05


def test_the_clever_covariate_is_the_mean_weight_at_a_score_in_the_other_folds():
    index = np.tile([0.1, 0.5, 0.9], 100)
    fresh = np.tile([0.1, 0.3, 1.0], 100)[:, None]
    sample = sample_of(m=1, index=index, fresh_held_out=fresh)
    weight = sample.raw
    at_logged, at_fresh = tmle.mean_weight(sample, weight)
    in_fold = sample.fold == 1
    level = [weight[~in_fold & (index == score)].mean() for score in (0.1, 0.5, 0.9)]
    assert at_logged[in_fold & (index == 0.5)] == pytest.approx(level[1])
    assert at_fresh[in_fold & (fresh[:, 0] == 0.3), 0] == pytest.approx((level[0] + level[1]) / 2)
    assert at_fresh[in_fold & (fresh[:, 0] == 1.0), 0] == pytest.approx(level[2])


def stack(monkeypatch, influence: np.ndarray, values: tuple[float, ...] = (0.1, 0.4, 0.7)) -> Point:
    """The stacked estimate of members with these values and influence functions (c, u)."""
    points = [Point(value, row) for value, row in zip(values, influence, strict=True)]
    members = [SimpleNamespace(estimate=lambda sample, options, point=point: point) for point in points]
    monkeypatch.setattr(stacked_dr, "COMPONENTS", tuple(members))
    return stacked_dr.estimate(None, Options())


def test_equal_members_have_equal_shares(monkeypatch):
    """Equal members have equal shares whatever their noise, none included (trap T9)."""
    row = np.random.default_rng(0).standard_normal(500)
    assert stack(monkeypatch, np.tile(row, (3, 1))).value == pytest.approx(0.4, abs=1e-6)
    assert stack(monkeypatch, np.zeros((3, 500))).value == pytest.approx(0.4, abs=1e-9)


def test_shares_do_not_depend_on_the_unit_of_the_reward(monkeypatch):
    """Ten times the influence gives the same shares (trap T46), which combine the influence functions as well."""
    rng = np.random.default_rng(1)
    influence = 0.02 * rng.standard_normal((3, 500)) * np.array([[1.0], [1.5], [2.0]])
    once, large, small = (stack(monkeypatch, unit * influence) for unit in (1.0, 10.0, 1e-3))
    assert once.value == pytest.approx(large.value, abs=1e-9)
    assert once.value == pytest.approx(small.value, abs=1e-9)
    assert 0.1 < once.value < 0.38  # the quietest member counts most
    assert once.influence.var() < influence.var(axis=1).min()


def test_a_stack_is_no_noisier_than_its_members():
    logged, draws, _ = healthy(coverage=1.0)
    options = Options(jackknife_folds=2, weights="raw")
    names = ("dr-cpo", "tmle", "mrdr")
    estimates = {
        name: evaluation.estimates["better"]
        for name, evaluation in evaluate_all(ROBUST, logged, draws, options).items()
    }
    least = min(estimates[name].sampling_variance for name in names)
    assert estimates["stacked-dr"].sampling_variance <= least * (1 + 1e-6)
    values = [estimates[name].value for name in names]
    assert min(values) - 1e-12 <= estimates["stacked-dr"].value <= max(values) + 1e-12
