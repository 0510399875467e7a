"""Generation: a response depends on its own prompt, sampling and stream alone, bit for bit."""

from __future__ import annotations

import os

import numpy as np
import pytest

import tiny_gguf
from arena_cje.llama import generator
from arena_cje.llama.chat import end_of_turn
from arena_cje.llama.distribution import Sampling, log_probs, sample, stream
from arena_cje.llama.generator import MAX_SLOTS, Request, generate, text_of
from arena_cje.llama.library import library
from arena_cje.llama.model import GROUP, LEAST_ROWS, Context, open_model
from arena_cje.llama.scorer import Item, score

MAX_TOKENS = 24
# Tokens of a prompt: around the bounds of the blocks it is read in (prefill.LEAST, prefill.BLOCK) and elsewhere.
N_READ = (1, 20, 64, 150, 511, 512, 513, 575, 576, 577, 900)


@pytest.fixture(scope="module")
def prompts(model, opening):
    rng = np.random.default_rng(5)
    lengths = (*N_READ[:4] * 3, *N_READ[4:])
    prompts = [(*opening, *rng.integers(0, model.n_vocab, 1000).tolist())[:length] for length in lengths]
    return {str(i): prompt for i, prompt in enumerate(prompts)}


def draw(model, prompts, keys, sampling=Sampling(), n_slots=16, max_tokens=MAX_TOKENS, shared=()):  # noqa: B008
    requests = [Request(key, prompts[key], stream(42, "base", key, 0)) for key in keys]
    return {r.key: r for r in generate(model, requests, sampling, max_tokens, n_slots, shared=shared)}


@pytest.fixture(scope="module")
def responses(model, prompts):
    return draw(model, prompts, prompts)


@pytest.mark.parametrize("n_slots", [1, 2, 3, 5, 32])
def test_a_response_does_not_depend_on_the_number_of_slots_or_the_order(model, prompts, responses, n_slots):
    assert draw(model, prompts, reversed(list(prompts)), n_slots=n_slots) == responses


def test_a_response_is_the_same_alone_and_after_resumption(model, prompts, responses):
    keys = list(prompts)
    for key in keys[::3]:
        assert draw(model, prompts, [key]) == {key: responses[key]}
    rest = keys[7:]
    assert draw(model, prompts, keys[:7]) | draw(model, prompts, rest, n_slots=4) == responses


def test_a_response_does_not_depend_on_the_number_of_threads(model, prompts, responses, monkeypatch):
    monkeypatch.setattr(model, "n_threads", 3)
    few = list(prompts)[::3]
    assert draw(model, prompts, few) == {key: responses[key] for key in few}


@pytest.mark.parametrize("n_shared", [10, 100])
def test_a_response_after_a_shared_prefix_does_not_depend_on_slots_or_other_requests(model, opening, prompts, n_shared):
    together = draw(model, prompts, prompts, shared=opening[:n_shared])
    assert draw(model, prompts, reversed(list(prompts)), n_slots=2, shared=opening[:n_shared]) == together
    for key in list(prompts)[::4]:
        assert draw(model, prompts, [key], shared=opening[:n_shared]) == {key: together[key]}


def test_a_long_response_does_not_depend_on_slots_or_other_requests(model, prompts):
    """It grows past the lengths at which llama.cpp changes its kernels and caches."""
    longest_prompt = max(prompts.values(), key=len)
    start = {str(i): longest_prompt[:480] for i in range(6)}

    def long(keys, n_slots):
        return draw(model, start, keys, Sampling(1.0, 0.6), n_slots, max_tokens=300)

    together = long(start, 16)
    longest = max(start, key=lambda key: len(together[key].token_ids))
    assert 480 + len(together[longest].token_ids) > 600
    assert long([*start][::-1], 3) == together
    assert long([longest], 16) == {longest: together[longest]}


class FixedStream:
    """A random stream that returns the numbers of a list."""

    def __init__(self, *numbers: float):
        self.random = iter(numbers).__next__


def second_token_edges(model, prompt) -> np.ndarray:
    """Where the distribution function of a response's second token jumps, given a first draw of 0, (V,)."""
    n = model.n_rows(2)
    with Context(model, n_tokens=200, n_batch=len(prompt), n_outputs=n, n_seq=n) as context:
        first = [
            sample(context.decode(prompt, range(len(prompt)), i, 2)[1:], Sampling(), np.zeros(1))[0] for i in range(n)
        ]
        logits = context.decode(first, [len(prompt)] * n, range(n), n)
        return np.cumsum(np.exp(log_probs(logits[:1], Sampling())[0]))


def test_a_draw_on_the_edge_between_two_tokens_is_the_same_alone_and_among_others(model, prompts):
    """The last digit of a logit decides here, so a single row computed by another kernel would show."""
    prompt = next(prompt for prompt in prompts.values() if len(prompt) == 64)
    edges = second_token_edges(model, prompt)[10:250:3]

    def token_ids(chosen):
        requests = [Request(edge, prompt, FixedStream(0.0, edge)) for edge in chosen]
        return {r.key: r.token_ids for r in generate(model, requests, Sampling(), 2)}

    together = token_ids(edges)
    assert {edge: ids for chosen in edges for edge, ids in token_ids([chosen]).items()} == together


@pytest.fixture
def row_counts(monkeypatch):
    """A list of the number of rows of each step."""
    row_counts = []

    class RecordingContext(Context):
        def decode(self, tokens, positions, sequences, n_wanted):
            if not isinstance(sequences, int):  # no prompt
                row_counts.append(len(tokens))
            return super().decode(tokens, positions, sequences, n_wanted)

    monkeypatch.setattr(generator, "Context", RecordingContext)
    return row_counts


def test_no_step_has_a_single_row(model, prompts, row_counts, monkeypatch):
    """Whether a single row is computed by another kernel depends on the processor, so results alone cannot show it."""
    monkeypatch.setattr(model, "row_step", 1)
    draw(model, prompts, list(prompts)[:3], n_slots=3)
    draw(model, prompts, ["0"])
    assert {max(LEAST_ROWS, n) for n in (1, 2, 3)} == set(row_counts)


def test_steps_that_are_filled_up_to_groups_of_rows_give_the_same_responses(
    model, opening, prompts, responses, row_counts, monkeypatch
):
    """Also with the largest number of slots and a shared prefix in a sequence of its own."""
    monkeypatch.setattr(model, "row_step", GROUP)
    short = {key: prompt for key, prompt in prompts.items() if len(prompt) < 200}
    assert draw(model, short, short, n_slots=11) == {key: responses[key] for key in short}
    assert set(row_counts) == {8, 16}
    short = {str(i): opening[: 20 + i % 3] for i in range(MAX_SLOTS)}
    requests = [Request(key, short[key], stream(42, "base", key, 0)) for key in short]
    slot_responses = list(generate(model, requests, Sampling(), 2, MAX_SLOTS, cache_tokens=10**6, shared=opening[:10]))
    assert len(slot_responses) == MAX_SLOTS == max(row_counts)


def test_groups_of_rows_use_at_least_eight_caches_and_no_more_than_cache_tokens_allow(model, prompts, monkeypatch):
    monkeypatch.setattr(model, "row_step", GROUP)
    context_sizes = []
    monkeypatch.setattr(
        generator, "Context", lambda *args, **sizes: context_sizes.append(sizes) or Context(*args, **sizes)
    )
    short = {key: prompt[:20] for key, prompt in prompts.items()}
    for cache_tokens in (512, 15 * 256, 16 * 256):
        requests = [Request(key, short[key], stream(42, "base", key, 0)) for key in short]
        list(generate(model, requests, Sampling(), 2, cache_tokens=cache_tokens))
    assert [sizes["n_seq"] for sizes in context_sizes] == [8, 8, 16]


@pytest.fixture(scope="module", params=["Q8_0", "Q4_0", "Q4_K_M", "Q6_K"])
def quantised_model(request, tmp_path_factory):
    """An open model whose matrices have 256 columns, as most kinds of quantised weights need."""
    folder = tmp_path_factory.mktemp("quantised")
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {"WIDTH": 256, "HEADS": 4, "HIDDEN": 512}.items():
            patch.setattr(tiny_gguf, name, size)
        whole = tiny_gguf.write(folder / "whole.gguf")
    params = library().llama_model_quantize_default_params()
    params.ftype = getattr(library(), f"LLAMA_FTYPE_MOSTLY_{request.param}")
    path = folder / "quantised.gguf"
    assert library().llama_model_quantize(os.fsencode(whole), os.fsencode(path), params) == 0
    with open_model(path, n_ctx=256) as model:
        yield model


def test_a_response_of_quantised_weights_does_not_depend_on_order_or_other_requests(quantised_model):
    """Kernels for quantised weights take rows in groups. The last digit of a logit decides, as above."""
    prompt = np.random.default_rng(5).integers(0, quantised_model.n_vocab, 64).tolist()
    edges = second_token_edges(quantised_model, prompt)[10:250:5]

    def token_ids(chosen, **slots):
        requests = [Request(edge, prompt, FixedStream(0.0, edge)) for edge in chosen]
        return {r.key: r.token_ids for r in generate(quantised_model, requests, Sampling(), 2, **slots)}

    together = token_ids(edges)
    assert token_ids(edges[::-1], n_slots=13) == together
    for n in (1, 2, 7):
        assert {
            edge: ids for i in range(0, len(edges), n) for edge, ids in token_ids(edges[i : i + n]).items()
        } == together


def test_responses_differ_between_streams(model, prompts, responses):
    ids = [r.token_ids for r in responses.values() if len(r.token_ids) > 4]
    assert len(set(ids)) == len(ids) > 5


def test_responses_end_with_the_end_token_or_at_the_limit(model, prompts):
    """The nucleus and the limit are such that several of 19 responses end by themselves on every processor."""
    nucleus_responses = draw(model, prompts, prompts, Sampling(1.0, 0.6), max_tokens=60).values()
    assert {r.finish_reason for r in nucleus_responses} == {
        "stop",
        "length",
    }  # both kinds must occur for this test to show anything
    for response in nucleus_responses:
        ends = [token in model.eog_ids for token in response.token_ids]
        assert response.status == "ok" and not any(ends[:-1])
        assert ends[-1] == (response.finish_reason == "stop")
        assert ends[-1] or len(ends) == 60


def test_the_text_of_a_response_has_no_end_token(model):
    ids = model.tokenize("hello there")
    assert text_of(model, (*ids, end_of_turn(model))) == text_of(model, ids) == "hello there"
    assert text_of(model, (end_of_turn(model),)) == text_of(model, ()) == ""


def test_a_request_that_does_not_fit_the_context_has_the_status_too_long(model, prompts, responses):
    long = {"long": (65,) * (model.n_ctx - MAX_TOKENS + 1), "fits": (65,) * (model.n_ctx - MAX_TOKENS)}
    by_key = draw(model, prompts | long, [*long, "0"])
    assert (by_key["long"].token_ids, by_key["long"].finish_reason, by_key["long"].status) == ((), None, "too_long")
    assert by_key["fits"].status == "ok" and by_key["0"] == responses["0"]
    assert draw(model, long, ["long"])["long"].status == "too_long"


@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(1.0, 0.7), Sampling(0.6, 0.9)], ids=str)
def test_every_drawn_response_has_a_positive_probability(model, prompts, sampling):
    by_key = draw(model, prompts, prompts, sampling)
    items = [Item(key, prompts[key], r.token_ids) for key, r in by_key.items()]
    scored = [s for _, [s] in score(model, items, [sampling], drawn_from=sampling)]
    assert {s.status for s in scored} == {"ok"}
    assert sampling.temperature > 0 or {s.total for s in scored} == {0.0}


@pytest.mark.parametrize(("max_tokens", "n_slots"), [(0, 4), (4, 0), (4, MAX_SLOTS + 1)])
def test_impossible_sizes_are_refused(model, prompts, max_tokens, n_slots):
    with pytest.raises(ValueError, match="max_tokens must be"):
        draw(model, prompts, ["0"], max_tokens=max_tokens, n_slots=n_slots)


def test_an_empty_prompt_is_refused(model):
    with pytest.raises(ValueError, match="empty prompt"):
        draw(model, {"x": ()}, ["x"])


def test_no_requests_give_no_responses(model):
    assert draw(model, {}, []) == {}
