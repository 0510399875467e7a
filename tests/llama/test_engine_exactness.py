"""Draws follow the scored probabilities: exact probabilities, valid weights, and the token ids that were drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from arena_cje.llama import chat, generator
from arena_cje.llama.chat import end_of_turn
from arena_cje.llama.distribution import Sampling, sample
from arena_cje.llama.generator import Request, generate, text_of
from arena_cje.llama.scorer import Item, score

TEMPERATURE_1 = Sampling()
FLAT = Sampling(1e6)  # every token equally likely, whatever the logits: a uniform number determines the token
BASE, TARGET = (40, 41), (40, 42)  # prompts, short because thousands of draws read them
N = 20_000
N_GENERATED = 2_000


def one_token_logprobs(model, prompt, sampling) -> np.ndarray:
    """Scored log probability of every response of one token, (V,) nats."""
    items = [Item(token, prompt, (token,)) for token in range(model.n_vocab)]
    return np.array([scored.total for _, [scored] in score(model, items, [sampling])])


@pytest.fixture(scope="module")
def logits(model):
    """The logits from which the generator draws a first token after BASE, (V,)."""
    copies = []

    def spy(logits, *rest):
        copies.append(logits[0].copy())
        return sample(logits, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "sample", spy)
        list(generate(model, [Request("x", BASE, np.random.default_rng(0))], TEMPERATURE_1, 1))
    return copies[0]


@pytest.mark.parametrize("top_p", [0.8, 1.0])
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 1.4])
def test_scored_probabilities_sum_to_one(model, temperature, top_p):
    total = np.exp(one_token_logprobs(model, BASE, Sampling(temperature, top_p))).sum()
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("top_p", [0.8, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.4])
def test_first_tokens_follow_the_scored_probabilities(model, logits, temperature, top_p):
    """2000 draws through `generate`, and 20 000 by `sample` from the generator's own logits, since `generate` reads the
    prompt for every draw. The first 2000 of these are the generated ones, so the others would be, too.
    """
    sampling = Sampling(temperature, top_p)
    p = np.exp(one_token_logprobs(model, BASE, sampling))  # (V,)
    rng = np.random.default_rng(7)
    requests = [Request(i, BASE, rng) for i in range(N_GENERATED)]
    generated = [response.token_ids[0] for response in generate(model, requests, sampling, 1)]
    samples = sample(np.broadcast_to(logits, (N, model.n_vocab)), sampling, np.random.default_rng(7).random(N))
    assert generated == samples[:N_GENERATED].tolist()
    assert chi_square_p_value(generated, p) > 1e-3
    assert chi_square_p_value(samples, p) > 1e-3


def chi_square_p_value(samples, p) -> float:
    """Chi-square p value of draws under probabilities `p` (V,); 0 if one of them was impossible."""
    counts = np.bincount(samples, minlength=len(p))
    if counts[p == 0].any():
        return 0.0
    common = len(samples) * p >= 5  # the rest in one cell: the approximation needs counts of 5
    observed = np.array([*counts[common], counts[~common].sum()])
    expected = np.array([*p[common], p[~common].sum()]) / p.sum() * len(samples)
    possible = expected > 0
    return stats.chisquare(observed[possible], expected[possible]).pvalue


@pytest.mark.parametrize("target", [Sampling(0.7), Sampling(1.4), Sampling(1.0, 0.8)], ids=str)
def test_importance_weighting_recovers_the_value_of_one_token_policies(model, logits, target):
    """The value by enumeration and the mean weight 1 are within 4 standard errors of the estimates from draws of the base."""
    samples = sample(np.broadcast_to(logits, (N, model.n_vocab)), TEMPERATURE_1, np.random.default_rng(6).random(N))
    log_ratio = one_token_logprobs(model, TARGET, target) - one_token_logprobs(model, BASE, TEMPERATURE_1)  # (V,) nats
    weight = np.exp(log_ratio)[samples]  # (n,)
    reward = np.cos(np.arange(model.n_vocab)) ** 2  # (V,) in [0, 1]
    value = np.exp(one_token_logprobs(model, TARGET, target)) @ reward
    for summand, truth in ((weight * reward[samples], value), (weight, 1.0)):
        assert abs(summand.mean() - truth) < 4 * summand.std() / np.sqrt(N)


class TokenStream:
    """A stream of the uniform numbers that make FLAT draw the given tokens."""

    def __init__(self, model, ids):
        self.random = iter([(token + 0.5) / model.n_vocab for token in ids]).__next__


def generate_tokens(model, prompt, ids, max_tokens):
    """The generator's response if it draws the tokens `ids`."""
    [response] = generate(model, [Request("x", prompt, TokenStream(model, ids))], FLAT, max_tokens)
    return response


def token_logprobs(model, prompt, ids) -> np.ndarray:
    """Scored log probabilities of a response's tokens, (t,) nats."""
    [(_, [scored])] = score(model, [Item("x", prompt, ids)], [TEMPERATURE_1])
    return scored.token_logprobs


@pytest.fixture(scope="module")
def prompt(model):
    return chat.render(model, "be brief", "why?")


def test_a_response_has_the_end_token_if_it_was_drawn_and_not_if_the_response_was_cut(model, prompt):
    words, end = model.tokenize("hello"), end_of_turn(model)
    cut = generate_tokens(model, prompt, words, max_tokens=len(words))
    ended = generate_tokens(model, prompt, (*words, end), max_tokens=len(words) + 1)
    assert (cut.token_ids, cut.finish_reason) == (words, "length")
    assert (ended.token_ids, ended.finish_reason) == ((*words, end), "stop")
    assert text_of(model, cut.token_ids) == text_of(model, ended.token_ids) == "hello"
    [after_words] = token_logprobs(model, (*prompt, *words), (end,))
    total_cut, total_ended = (math.fsum(token_logprobs(model, prompt, r.token_ids)) for r in (cut, ended))
    assert total_ended - total_cut == pytest.approx(after_words, abs=0.01)


def test_an_empty_response_is_just_the_end_token(model):
    """Its probability is 1 minus the probabilities of all other first tokens."""
    end = end_of_turn(model)
    response = generate_tokens(model, BASE, (end,), max_tokens=5)
    assert (response.token_ids, response.finish_reason) == ((end,), "stop")
    assert text_of(model, response.token_ids) == ""
    others = np.delete(np.exp(one_token_logprobs(model, BASE, TEMPERATURE_1)), end)
    assert np.exp(token_logprobs(model, BASE, response.token_ids)) == pytest.approx(1 - others.sum(), abs=1e-6)


def test_a_response_keeps_the_token_ids_that_were_drawn_if_its_text_has_others(model, prompt):
    letters = tuple(model.tokenize(letter)[-1] for letter in "hello")
    response = generate_tokens(model, prompt, letters, max_tokens=len(letters))
    assert response.token_ids == letters
    again = model.tokenize(text_of(model, letters))
    assert text_of(model, again) == text_of(model, letters) == "hello" and again != letters
    one_by_one = [token_logprobs(model, (*prompt, *letters[:t]), letters[t : t + 1])[0] for t in range(len(letters))]
    assert token_logprobs(model, prompt, letters) == pytest.approx(one_by_one, abs=0.01)
    assert math.fsum(token_logprobs(model, prompt, again)) != pytest.approx(math.fsum(one_by_one), abs=1)
