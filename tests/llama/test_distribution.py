"""The token distribution: sums to one, the nucleus is the smallest set, sampling and scoring agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from arena_cje.llama.distribution import BOUNDARY, Sampling, log_probs, sample, stream, token_log_probs

SAMPLINGS = [Sampling(t, p) for t in (0.0, 0.3, 0.5, 1.0, 1.4) for p in (0.1, 0.8, 0.95, 1.0)]


def logits_of(*probabilities: float) -> np.ndarray:
    return np.log(np.array([probabilities])).astype(np.float32)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_probabilities_sum_to_one(sampling):
    logits = np.random.default_rng(1).normal(scale=4, size=(5, 1000)).astype(np.float32)
    assert np.exp(log_probs(logits, sampling)).sum(axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_one_token_has_the_same_log_probability_as_in_the_whole_row(sampling):
    row = np.random.default_rng(2).normal(scale=2, size=300).astype(np.float32)
    row[10:20] = row[5]
    logits = np.broadcast_to(row, (300, 300))
    single, _ = token_log_probs(logits, np.arange(300), sampling)
    assert single == pytest.approx(log_probs(row[None], sampling)[0], abs=1e-9)


def test_without_a_nucleus_the_distribution_is_the_softmax_of_the_scaled_logits():
    logits = np.random.default_rng(3).normal(scale=6, size=(4, 500)).astype(np.float32)
    expected = special.log_softmax(logits.astype(np.float64) / 0.7, axis=1)
    assert log_probs(logits, Sampling(0.7)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("top_p", "nucleus"),
    [(0.4, [0]), (0.5, [0]), (0.51, [0, 1]), (0.75, [0, 1]), (0.8, [0, 1, 2]), (0.875, [0, 1, 2]), (0.9, [0, 1, 2, 3])],
)
def test_the_nucleus_is_the_smallest_set_that_reaches_its_mass(top_p, nucleus):
    """A mass of exactly top_p has reached it, and among equally likely tokens those with the lowest ids come first."""
    logprobs = log_probs(logits_of(0.5, 0.25, 0.125, 0.125), Sampling(1.0, top_p))[0]
    assert np.flatnonzero(np.isfinite(logprobs)).tolist() == nucleus


def test_a_mass_that_misses_top_p_by_rounding_alone_has_reached_it():
    """0.55 * 100 is 55.00000000000001 in floating point; 55 of 100 equal tokens have that mass all the same."""
    logprobs = log_probs(np.zeros((1, 100), dtype=np.float32), Sampling(1.0, 0.55))[0]
    assert np.flatnonzero(np.isfinite(logprobs)).tolist() == list(range(55))


@given(st.integers(0, 2**32), st.floats(0.05, 0.99), st.floats(0.2, 2.0))
@settings(max_examples=60, deadline=None)
def test_the_nucleus_is_no_larger_than_needed(seed, top_p, temperature):
    logits = np.random.default_rng(seed).normal(scale=3, size=(1, 200)).astype(np.float32)
    inside = np.isfinite(log_probs(logits, Sampling(temperature, top_p))[0])
    p = special.softmax(logits[0].astype(np.float64) / temperature)
    assert p[inside].sum() >= top_p - 1e-5
    assert p[inside].sum() - p[inside].min() < top_p + 1e-5
    assert p[inside].min() >= p[~inside].max(initial=0) - 1e-9


def test_at_temperature_0_the_best_token_is_certain_and_top_p_is_ignored():
    logits = logits_of(0.2, 0.5, 0.3)
    assert log_probs(logits, Sampling(0.0, 0.1))[0].tolist() == [-np.inf, 0.0, -np.inf]
    assert sample(logits, Sampling(0.0), np.array([0.999])).tolist() == [1]


@pytest.mark.parametrize("top_p", [0.8, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.4])
def test_draws_follow_the_scored_probabilities(temperature, top_p):
    rng = np.random.default_rng(4)
    row = rng.normal(scale=1.5, size=40).astype(np.float32)
    sampling = Sampling(temperature, top_p)
    samples = sample(np.broadcast_to(row, (20_000, 40)), sampling, rng.random(20_000))
    p = np.exp(log_probs(row[None], sampling)[0])
    counts = np.bincount(samples, minlength=40)
    assert counts[p == 0].sum() == 0
    inside = p > 0
    assert stats.chisquare(counts[inside], p[inside] / p[inside].sum() * 20_000).pvalue > 1e-3


def test_uniform_numbers_at_the_ends_of_the_unit_interval_draw_possible_tokens():
    logits = np.array([[-200.0, 0.0, 1.0, -200.0]], dtype=np.float32)
    ends = [0.0, np.nextafter(1.0, 0.0)]
    assert [sample(logits, Sampling(), np.array([u]))[0] for u in ends] == [1, 2]


def test_a_boundary_token_is_counted_and_is_possible_only_for_the_policy_that_drew_it():
    logits = logits_of(0.5, 0.3, 0.2)
    sampling = Sampling(1.0, 0.8 - BOUNDARY / 2)  # token 2 misses the nucleus by half the tolerance
    strict, n_strict = token_log_probs(logits, np.array([2]), sampling)
    inclusive, n_inclusive = token_log_probs(logits, np.array([2]), sampling, is_sampled=True)
    assert strict[0] == -np.inf and n_strict == n_inclusive == 1
    assert inclusive[0] == pytest.approx(np.log(0.2 / 0.8))


def test_a_token_far_outside_the_nucleus_is_impossible_even_if_it_was_drawn():
    logits = logits_of(0.5, 0.3, 0.2)
    logprobs, n_boundary = token_log_probs(logits, np.array([2]), Sampling(1.0, 0.6), is_sampled=True)
    assert logprobs[0] == -np.inf and n_boundary == 0


def test_tokens_nearly_as_likely_as_the_best_are_boundary_tokens_at_temperature_0():
    logits = np.array([[3.0, 2.9, 0.0]] * 3, dtype=np.float32)
    assert token_log_probs(logits, np.arange(3), Sampling(0.0))[0].tolist() == [0.0, -np.inf, -np.inf]
    logprobs, n_boundary = token_log_probs(logits, np.arange(3), Sampling(0.0), is_sampled=True)
    assert logprobs.tolist() == [0.0, 0.0, -np.inf] and n_boundary == 2


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        sample(np.full((1, 4), np.nan, dtype=np.float32), Sampling(), np.array([0.5]))


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"temperature": 1e-9}, {"temperature": np.nan}])
def test_a_wrong_temperature_is_refused(wrong):
    with pytest.raises(ValueError, match="temperature must be"):
        Sampling(**wrong)


@pytest.mark.parametrize("top_p", [0.0, 1.1, np.nan])
def test_a_wrong_nucleus_is_refused(top_p):
    with pytest.raises(ValueError, match=r"top_p must be in \(0, 1\]"):
        Sampling(top_p=top_p)


def test_streams_are_reproducible_and_differ_from_one_another():
    names = [
        (1, "a", "b", 0),
        (2, "a", "b", 0),
        (1, "c", "b", 0),
        (1, "a", "c", 0),
        (1, "a", "b", 1),
        (1, "a/b", "", 0),
    ]
    first = [stream(*name).random() for name in names]
    assert first == [stream(*name).random() for name in names]
    assert len(set(first)) == len(names)
