"""Statuses of differences: closed forms, the error rate over targets, and the labels needed to decide one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from arena_cje.errors import UserError
from arena_cje.estimation.decision import DecisionRule, Parts, level_of_each, need, status

MARGIN = 0.02


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.021, 0.09, "better_by_margin"),
        (0.02, 0.09, "better_by_margin"),
        (0.001, 0.09, "better"),  # a difference of 0.02 or more is not shown
        (0.001, 0.019, "equivalent"),
        (-0.019, 0.019, "equivalent"),
        (-0.019, -0.001, "equivalent"),  # worse, by less than what matters
        (0.0, 0.0, "equivalent"),  # a policy equal to the base
        (-0.09, -0.001, "worse"),
        (-0.001, 0.09, "not_yet_known"),
        (-0.02, 0.019, "not_yet_known"),
        (-0.09, 0.09, "not_yet_known"),
        (math.nan, math.nan, "not_yet_known"),
    ],
)
def test_the_status_is_the_one_that_holds_for_all_values_of_the_interval(low, high, expected):
    assert status(low, high, MARGIN) == expected


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.0, math.nan])
def test_a_margin_outside_zero_to_one_is_refused(margin):
    with pytest.raises(UserError, match=r"margin must lie in \(0, 1\)"):
        DecisionRule(margin=margin)


@pytest.mark.parametrize("truth", [0.0, MARGIN, -MARGIN, 0.5 * MARGIN], ids=str)
@pytest.mark.parametrize("se", [0.002, 0.008, 0.03])
def test_the_probability_of_a_false_status_over_all_targets_is_at_most_alpha(truth, se):
    """Four correlated differences, 4000 studies; a status is false where the truth is not a value that it allows."""
    rng, targets, studies = np.random.default_rng(1), 4, 4000
    error = se * (math.sqrt(0.5) * rng.normal(size=(studies, 1)) + math.sqrt(0.5) * rng.normal(size=(studies, targets)))
    half = norm.ppf(1 - level_of_each(0.05, targets) / 2) * se
    true_of = {
        "better_by_margin": truth >= MARGIN,
        "better": truth > 0,
        "equivalent": abs(truth) < MARGIN,
        "worse": truth < 0,
        "not_yet_known": True,
    }
    wrong = [any(not true_of[status(d - half, d + half, MARGIN)] for d in study) for study in truth + error]
    assert np.mean(wrong) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / studies)


def test_without_the_correction_for_several_targets_more_than_alpha_of_studies_err():
    """Without the correction, one study in six finds a difference between the base and one of four equal policies."""
    half = {count: norm.ppf(1 - level_of_each(0.05, count) / 2) for count in (1, 4)}
    d = np.random.default_rng(2).normal(size=(4000, 4))
    error_rate = {count: np.mean((np.abs(d) > reach).any(axis=1)) for count, reach in half.items()}
    assert error_rate[1] > 0.15
    assert error_rate[4] < 0.06


@pytest.mark.parametrize("value", [0.0, 0.004, 0.013, 0.05, -0.05])
def test_the_stated_number_of_labels_decides_four_of_five_studies(value):
    """With that factor of labels, four of five intervals decide, if the true difference is the estimated one."""
    parts, critical = Parts(labels=4e-4, prompts=1e-6), 2.0
    growth = need(value, parts, critical, MARGIN).labels
    se = math.sqrt(parts.labels / growth + parts.prompts)
    d = value + se * np.random.default_rng(3).normal(size=20000)
    decided = np.mean([status(one - critical * se, one + critical * se, MARGIN) != "not_yet_known" for one in d])
    assert decided == pytest.approx(0.8, abs=0.02)


def test_the_outcome_is_the_one_that_needs_the_fewest_labels():
    parts = Parts(labels=4e-4, prompts=0.0)
    outcomes = [need(value, parts, 2.0, MARGIN).outcome for value in (0.0, 0.009, 0.012, -0.012)]
    assert outcomes == ["equivalent", "equivalent", "better", "worse"]


def test_no_number_of_labels_is_stated_where_the_variance_from_prompts_is_too_large():
    requirement = need(0.05, Parts(labels=1e-3, prompts=1e-3), 2.0, MARGIN)
    assert requirement.labels is None
    needed = (0.05 / (2 + norm.ppf(0.8))) ** 2  # far from the margin the one test of a difference
    assert requirement.prompts == pytest.approx(2e-3 / needed, rel=1e-3)


def test_an_interval_of_half_the_margin_on_each_side_always_decides():
    values = np.linspace(-0.05, 0.05, 401)
    assert "not_yet_known" not in {status(d - 0.0099, d + 0.0099, MARGIN) for d in values}


def test_no_labels_or_prompts_are_stated_where_the_bias_of_capped_weights_is_too_large():
    requirement = need(0.01, Parts(labels=1e-4, prompts=1e-4, bias=0.02), 2.0, MARGIN)
    assert (requirement.labels, requirement.prompts) == (None, None)


def test_an_unknown_variance_leaves_the_needed_labels_and_prompts_unknown():
    requirement = need(0.01, Parts(labels=math.nan, prompts=0.0), 2.0, MARGIN)
    assert (requirement.labels, requirement.prompts) == (None, None)


@pytest.mark.parametrize("critical", [0.1, 1.0, 60.0])
@pytest.mark.parametrize("value", [0.0, 1e-9, 0.3])
def test_the_needed_labels_are_a_number_for_any_critical_value(value, critical):
    assert need(value, Parts(labels=1e-3, prompts=0.0), critical, MARGIN).labels >= 1
