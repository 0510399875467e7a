"""Boundaries of alpha spending: published values, their error probability, and repeated intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from arena_cje.errors import UserError
from arena_cje.estimation import spending

FRACTIONS = (0.05, 0.1, 0.25, 0.5, 1.0)


def test_pocock_boundaries_equal_published_tables():
    assert spending.boundaries(FRACTIONS, FRACTIONS, 0.05, "pocock") == pytest.approx(
        [2.87, 2.83, 2.53, 2.39, 2.23], abs=0.006
    )


def test_obrien_fleming_boundaries_equal_published_tables():
    """The first boundary is z / sqrt(t) by definition, and those after it hardly differ while little is spent."""
    z = spending.boundaries(FRACTIONS, FRACTIONS, 0.05, "obrien_fleming")
    assert z[0] == pytest.approx(1.95996 / math.sqrt(0.05), abs=1e-3)
    assert z[1] > 6
    assert z[2:] == pytest.approx([3.92, 2.77, 1.98], abs=0.006)


def test_boundaries_of_equal_steps_equal_the_constants_of_lan_and_demets():
    """Pocock type at five equal steps, as in their tables of one-sided .025."""
    fractions = [0.2, 0.4, 0.6, 0.8, 1.0]
    pocock = spending.boundaries(fractions, fractions, 0.05, "pocock")
    assert pocock == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=2e-3)


@pytest.mark.parametrize("kind", ["obrien_fleming", "pocock"])
@pytest.mark.parametrize("information", [(0.3, 0.5, 1.0), (0.9, 0.905, 1.0), (0.4, 0.3, 0.8)])
def test_the_error_over_all_looks_is_alpha(kind, information):
    """Simulated, also where the information has a floor or seems to fall: the last look spends what is left."""
    fractions = (0.3, 0.6, 1.0)
    z = spending.boundaries(fractions, information, 0.05, kind)
    grown = np.maximum.accumulate([information[0], *information[1:]])
    for k in (1, 2):
        grown[k] = max(grown[k], grown[k - 1] * (1 + spending.LEAST_GROWTH))
    steps = np.sqrt(np.diff([0.0, *grown]))
    score = np.cumsum(np.random.default_rng(1).normal(size=(400_000, 3)) * steps, axis=1)
    crossed = (np.abs(score) / np.sqrt(grown) >= z).any(axis=1).mean()
    assert crossed == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 400_000))


def test_one_look_has_the_ordinary_critical_value():
    assert spending.boundaries([1.0], [7.0], 0.05, "obrien_fleming") == pytest.approx([norm.ppf(0.975)], abs=1e-6)
    assert spending.nominal_level(norm.ppf(0.975)) == pytest.approx(0.05)


def test_a_boundary_does_not_depend_on_later_looks():
    whole = spending.boundaries(FRACTIONS, FRACTIONS, 0.01, "pocock")
    assert spending.boundaries(FRACTIONS[:3], FRACTIONS[:3], 0.01, "pocock") == pytest.approx(whole[:3])


def test_a_look_with_no_alpha_to_spend_has_an_infinite_boundary():
    z = spending.boundaries([0.5, 0.5, 1.0], [1.0, 1.0, 2.0], 0.05, "obrien_fleming")
    assert math.isinf(z[1])
    assert np.isfinite(z[[0, 2]]).all()


def test_falling_fractions_and_fractions_above_one_are_refused():
    with pytest.raises(UserError, match="must not fall"):
        spending.boundaries([0.5, 0.4], [1.0, 2.0], 0.05, "pocock")
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        spending.spent(1.2, 0.05, "pocock")


def test_the_projected_fraction_counts_the_variance_from_labels_and_from_prompts():
    assert spending.projected_fraction(0.0, 1.0, 50, 200) == pytest.approx(0.25)
    assert spending.projected_fraction(1.0, 0.0, 50, 200) == 1.0
    assert spending.projected_fraction(1.0, 1.0, 50, 200) == pytest.approx(1.25 / 2)
