"""Labels of a transport audit: the formula, its limits, and audits of simulated data that pass with the planned power."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from arena_cje.diagnostics.audit_size import chance_to_pass, labels_of_both_to_pass, labels_to_pass
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.diagnostics.transport import audit
from arena_cje.estimation.records import Options
from arena_cje.evaluation.evaluate import evaluate
from arena_cje.simulate import Target, World, draw

THRESHOLDS = Thresholds()


def test_labels_to_pass_equals_the_formula_computed_by_hand():
    """(1.960 + 1.282)^2 (.165 / .05)^2 = 114.4; with 250 labels of the base 1 / (1/114.4 - 1/250) = 211.03."""
    assert labels_to_pass(THRESHOLDS, family=1) == 115
    assert labels_to_pass(THRESHOLDS, family=1, base_labels=250) == 212


def test_no_number_of_own_labels_suffices_with_too_few_base_labels():
    assert labels_to_pass(THRESHOLDS, family=1, base_labels=114) is None
    assert labels_to_pass(THRESHOLDS, family=1, base_labels=116) > 5000


def test_equal_numbers_of_base_and_own_labels_are_the_smallest_that_pass():
    """Twice 114.4, as 1/m + 1/m is 1/114.4."""
    both = labels_of_both_to_pass(THRESHOLDS, family=1)
    assert both == 229
    assert labels_to_pass(THRESHOLDS, family=1, base_labels=both) <= both
    assert labels_to_pass(THRESHOLDS, family=1, base_labels=both - 1) > both - 1


def test_a_pass_needs_the_minimum_number_of_prompts_even_with_small_residuals():
    assert labels_to_pass(THRESHOLDS, family=1, residual_sd=0.01) == THRESHOLDS.transport_prompts
    assert chance_to_pass(19, THRESHOLDS, family=1, residual_sd=0.01) == 0
    assert chance_to_pass(20, THRESHOLDS, family=1, residual_sd=0.01) == pytest.approx(1)


@given(st.floats(0.05, 0.4), st.integers(1, 8), st.floats(0.5, 0.99), st.floats(100, 1e6))
def test_the_number_of_labels_is_the_smallest_with_the_requested_power(residual_sd, family, power, base_labels):
    facts = {"family": family, "residual_sd": residual_sd, "base_labels": base_labels}
    needed = labels_to_pass(THRESHOLDS, power=power, **facts)
    assume(needed is not None and needed < 1e9)
    assert chance_to_pass(needed, THRESHOLDS, **facts) >= power - 1e-6
    assume(needed > THRESHOLDS.transport_prompts)
    assert chance_to_pass(needed - 1, THRESHOLDS, **facts) <= power + 1e-6


def test_fifty_labels_pass_with_a_probability_below_one_fifth():
    assert chance_to_pass(50, THRESHOLDS, family=1) < 0.2


def test_audits_pass_as_often_as_planned():
    """A calibration that holds, and the labels for a power of .8: 60 audits, Monte Carlo error .05."""
    world = World({"clone": Target()}, noise=0.35)
    logged, draws, _ = draw(replace(world, coverage=1000), 1000, 0)
    fitted = evaluate("direct", logged, draws, Options()).calibration
    residual_sd = float(np.std(fitted.label - fitted.held_out(fitted.slice.judged, fitted.slice_fold)))
    needed = labels_to_pass(THRESHOLDS, family=1, residual_sd=residual_sd, base_labels=300)
    statuses = []
    for seed in range(1, 61):
        logged, draws, _ = draw(replace(world, coverage=300, target_labels=needed), 1000, seed)
        evaluation = evaluate("direct", logged, draws, Options())
        statuses.append(audit(evaluation, logged, draws["clone"], THRESHOLDS, family=1).status)
    assert np.mean(np.array(statuses) == "PASS") == pytest.approx(0.8, abs=0.13)


def test_labels_without_spread_of_residuals_always_pass():
    assert chance_to_pass(60, Thresholds(), family=2, residual_sd=0.0) == 1.0
