"""Labels with known probabilities in every estimate: weights 1 / pi, without effect where the probabilities are equal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arena_cje import estimators
from arena_cje.diagnostics.evidence import gather
from arena_cje.diagnostics.support import effective_labels
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.estimation import label_design
from arena_cje.estimation.fresh import fresh_mean
from arena_cje.estimation.joint import Column, joint_values
from arena_cje.estimation.records import Labelled, Options, design_weight, effective_number
from arena_cje.estimation.robust import label_residual
from arena_cje.evaluation.evaluate import evaluate, evaluate_all
from arena_cje.simulate import WORLDS, Target, World, draw

NAN = float("nan")
OPTIONS = (
    Options(),
    Options(correction="plain"),
    Options(label_term=True),
    Options(calibration="auto", covariates=("style",)),
)
PAIRED = World(
    {"better": Target(0.4), "far": Target(-2.0)}, strictness=0.5, paired=True, coverage=1.0, target_labels=1.0
)


def with_probabilities(logged, draws, base: float, own: float):
    logged = replace(logged, label_probability=np.full(len(logged.prompt_id), base))
    return logged, {p: replace(one, label_probability=np.full(one.oracle_label.shape, own)) for p, one in draws.items()}


def numbers(logged, draws, options) -> list:
    figures = []
    for name, evaluation in evaluate_all(estimators.NAMES, logged, draws, options).items():
        evidence = gather(evaluation, logged, draws, Thresholds())
        for policy, one in ({"base": evaluation.base} | evaluation.estimates).items():
            difference = one - evaluation.base
            figures.append((name, policy, one.value, one.se, one.df, *one.interval(), difference.value, difference.se))
            figures.append(repr((evidence[policy].support, evidence[policy].audit, evidence[policy].weighted_labels)))
    return figures


@pytest.mark.parametrize("options", OPTIONS, ids=["joint", "plain", "label term", "two-stage"])
def test_equal_probabilities_change_no_result(options):
    logged, draws, _ = draw(replace(WORLDS["covariate_bias"], target_labels=30), 150, 1)
    if not options.covariates:
        logged, draws = replace(logged, covariates=None), {p: replace(d, covariates=None) for p, d in draws.items()}
    assert numbers(logged, draws, options) == numbers(*with_probabilities(logged, draws, 0.3, 0.07), options)


def test_label_weights_are_inverse_probabilities_with_mean_one():
    labelled = np.array([True, True, False, True])
    weight = design_weight(np.array([0.5, 0.25, NAN, 0.5]), labelled)
    assert weight == pytest.approx(np.array([3, 6, 0, 3]) / 4)
    assert design_weight(np.array([0.5, 0.5, 0.9, 0.5]), labelled) is None
    assert design_weight(None, labelled) is None and design_weight(np.ones(4), np.zeros(4, dtype=bool)) is None
    assert effective_number(weight[labelled]) == pytest.approx(4**2 / 6)


def test_a_label_of_half_the_probability_counts_as_two_in_corrections_and_label_terms():
    rng = np.random.default_rng(0)
    held_out, label = rng.random(40), rng.random(40)
    label[30:] = NAN
    weight = design_weight(np.where(np.arange(40) < 10, 0.2, 0.4), ~np.isnan(label))
    repeated = np.concatenate([np.arange(10), np.arange(30)])  # the first ten twice
    residual = (label - held_out)[repeated].mean()
    value, influence = fresh_mean(held_out[:, None], held_out[:, None], label[:, None], np.arange(40), weight[:, None])
    assert value == pytest.approx(held_out.mean() + residual)
    assert influence.mean() == pytest.approx(0, abs=1e-12)
    assert label_residual(label, held_out, np.ones(40), weight).mean() == pytest.approx(residual)


def test_the_joint_estimate_of_weighted_labels_by_hand():
    rng = np.random.default_rng(0)
    score, labelled = rng.random(200), np.arange(200) < 15
    label = np.where(labelled, score + 0.1 * rng.standard_normal(200), NAN)
    weight = design_weight(np.where(np.arange(200) < 5, 0.3, 0.1), labelled)
    one = Column(score, np.where(labelled, score, NAN), label, labelled * 1.0, weight)
    expected = np.average((label - score)[:15], weights=weight[:15]) + score.mean()
    assert joint_values([one], [15])[0].value == pytest.approx(expected)
    twice = replace(one, weight=None, share=np.where(weight > weight[:15].min(), 3.0, 1.0) * labelled)
    assert joint_values([twice], [15])[0].value == pytest.approx(expected)


def test_effective_labels_follow_the_formula_of_kish():
    score = np.repeat([0.1, 0.9], [5, 10])
    weight = np.concatenate([np.ones(5), np.repeat([1.0, 3.0], 5)])
    plain = effective_labels(score, np.full(20, 0.9), np.ones(20))
    weighted = effective_labels(score, np.full(20, 0.9), np.ones(20), weight)
    assert plain.effective_labels == pytest.approx(10)
    assert weighted.effective_labels == pytest.approx(effective_number(weight[5:])) and weighted.effective_labels < 10


def chosen_by_score(seed: int, n: int = 500, labels: int = 100, own: bool = True):
    """Labels of prompts chosen by the targets' scores, with their probabilities; `own`: on the targets' draws, too."""
    logged, draws, truth = draw(PAIRED, n, seed)
    density = label_design.densities(logged.judge_score, [one.judge_score for one in draws.values()])
    is_chosen = label_design.chosen(density, np.random.default_rng(seed).random(n), labels)
    probability = label_design.probabilities(density, labels)
    logged = replace(logged, oracle_label=np.where(is_chosen, logged.oracle_label, NAN), label_probability=probability)
    own_mask = is_chosen[:, None] if own else np.zeros((n, 1), dtype=bool)
    draws = {
        p: replace(one, oracle_label=np.where(own_mask, one.oracle_label, NAN), label_probability=probability[:, None])
        for p, one in draws.items()
    }
    return logged, draws, truth


@pytest.mark.parametrize("correction", ["joint", "plain"])
def test_estimates_from_labels_chosen_by_score_have_no_bias(correction):
    errors, covered = [], []
    for seed in range(40):
        logged, draws, truth = chosen_by_score(seed)
        evaluation = evaluate("direct", logged, draws, Options(correction=correction))
        for policy, one in ({"base": evaluation.base} | evaluation.estimates).items():
            low, high = one.interval()
            errors.append(one.value - truth[policy])
            covered.append(low <= truth[policy] <= high)
    assert abs(np.mean(errors)) < 0.005 and np.mean(covered) > 0.9


def test_label_weights_are_used_in_the_bootstrap_and_in_calibration_data():
    logged, draws, _ = chosen_by_score(0, own=False)
    jackknife, bootstrap = (
        evaluate("direct", logged, draws, Options(inference=inference, n_bootstrap=200)).estimates["far"]
        for inference in ("jackknife", "bootstrap")
    )
    assert bootstrap.replicates.mean() == pytest.approx(jackknife.value, abs=2 * jackknife.se)
    half = np.arange(500) < 250
    first = replace(logged, oracle_label=np.where(half, logged.oracle_label, NAN))
    rest = ~half & logged.labelled
    beside = Labelled(logged.prompt_id[rest], logged.judged[rest], logged.oracle_label[rest])
    weight = design_weight(logged.label_probability[rest], np.ones(rest.sum(), dtype=bool))
    known, unknown = (
        evaluate("direct", first, draws, Options(), replace(beside, weight=one)).base.value for one in (weight, None)
    )
    whole = evaluate("direct", logged, draws, Options()).base.value
    assert abs(known - whole) < abs(unknown - whole)
