"""Teacher forcing: equal to a reference softmax, reproducible bit for bit, with a status for what it cannot score."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
from scipy import special

import tiny_gguf
from arena_cje.llama import chat
from arena_cje.llama.distribution import Sampling, log_probs
from arena_cje.llama.model import Context, open_model
from arena_cje.llama.scorer import Item, score

TEMPERATURE_1 = Sampling()
# Tokens read for an item: around the bounds of the blocks it is read in (prefill.LEAST, prefill.BLOCK) and elsewhere.
N_READ = (1, 20, 63, 64, 65, 150, 511, 512, 513, 575, 576, 577, 900)


@pytest.fixture(scope="module")
def items(model, opening):
    """Long prompts with short responses and short ones with long; the last token of a response is not read."""
    ids = (*opening, *np.random.default_rng(5).integers(0, model.n_vocab, 1000).tolist())
    return [
        Item(f"{n_read}-{n_prompt}", ids[:n_prompt], ids[n_prompt : n_read + 1])
        for n_read in N_READ
        for n_prompt in sorted({max(1, n_read - 40), max(1, n_read - 530)})
    ]


def forward(model, tokens) -> np.ndarray:
    """Logits after every token, (t, V)."""
    with Context(model, n_tokens=len(tokens), n_batch=len(tokens), n_outputs=len(tokens)) as context:
        return context.decode(tokens, range(len(tokens)), 0, len(tokens)).copy()


def bits(scored) -> dict:
    return {key: [s.token_logprobs.tobytes() for s in each] for key, each in scored}


@pytest.fixture(scope="module")
def first_bits(model, items):
    return bits(score(model, items, [TEMPERATURE_1]))


def test_scores_equal_a_reference_softmax_of_all_logits(model, items):
    temperatures = (1.0, 0.6)
    scores = score(model, items, [Sampling(temperature) for temperature in temperatures])
    for item, (key, each) in zip(items, scores, strict=True):
        assert key == item.key
        logits = forward(model, [*item.prompt_ids, *item.response_ids[:-1]]).astype(np.float64)
        for temperature, scored in zip(temperatures, each, strict=True):
            reference = special.log_softmax(logits / temperature, axis=1)[len(item.prompt_ids) - 1 :]
            expected = [row[token] for row, token in zip(reference, item.response_ids, strict=True)]
            assert scored.status == "ok"
            assert scored.token_logprobs == pytest.approx(expected, abs=1e-5)
            assert scored.total == pytest.approx(math.fsum(expected), abs=1e-5 * len(expected))


def test_log_probabilities_of_the_parts_of_a_response_add_up_to_that_of_the_whole(model, items):
    """log p(ab | x) = log p(a | x) + log p(b | xa), but for the last digits of differently cut sums of 530 tokens: up to
    0.015 nats by processor and seed."""
    whole = max(items, key=lambda item: len(item.response_ids))
    prompt, response = whole.prompt_ids, whole.response_ids
    parts = [Item("a", prompt, response[:10]), Item("b", (*prompt, *response[:10]), response[10:])]
    totals = {key: scored.total for key, [scored] in score(model, [whole, *parts], [TEMPERATURE_1])}
    assert totals["a"] + totals["b"] == pytest.approx(totals[whole.key], abs=0.1)


@pytest.mark.parametrize("n_shared", [0, 10, 100])
def test_bits_do_not_depend_on_order_or_shard(model, opening, items, n_shared):
    shared = opening[:n_shared]
    expected = bits(score(model, items, [TEMPERATURE_1], shared=shared))
    backwards = items[::-1]
    for size in (1, 4, 1000):
        shards = [backwards[i : i + size] for i in range(0, len(items), size)]
        scores = [bits(score(model, shard, [TEMPERATURE_1], shared=shared)) for shard in shards]
        assert {key: value for shard in scores for key, value in shard.items()} == expected


@pytest.mark.parametrize("n_shared", [0, 100, 600])
def test_bits_do_not_depend_on_the_number_of_threads(model, items, n_shared, monkeypatch):
    """Nor do those of a text with one token more than the shared prefix, whose attention llama.cpp would split by threads."""
    ids = max(items, key=lambda item: len(item.prompt_ids)).prompt_ids
    some = [*items[::3], *(Item(length, ids[:length], (65,)) for length in (1, 2, 101, 601))]
    expected = bits(score(model, some, [TEMPERATURE_1], shared=ids[:n_shared]))
    monkeypatch.setattr(model, "n_threads", 3)
    assert bits(score(model, some, [TEMPERATURE_1], shared=ids[:n_shared])) == expected


@pytest.mark.parametrize("n_shared", [10, 100])
def test_a_shared_prefix_changes_only_the_last_digits(model, opening, items, n_shared):
    """Up to 0.012 nats a token by processor and seed."""
    scores = score(model, items, [TEMPERATURE_1], shared=opening[:n_shared])
    for (_, [shared]), (_, [plain]) in zip(scores, score(model, items, [TEMPERATURE_1]), strict=True):
        assert shared.token_logprobs == pytest.approx(plain.token_logprobs, abs=0.05)


def test_a_second_pass_has_the_same_bits_so_a_clone_has_log_ratios_of_exactly_zero(model, items, first_bits, tmp_path):
    assert bits(score(model, items, [TEMPERATURE_1])) == first_bits
    few = items[::3]
    totals = {key: scored.total for key, [scored] in score(model, few, [TEMPERATURE_1])}
    copy = shutil.copy(model.path, tmp_path / "copy.gguf")
    with open_model(copy, n_ctx=1000) as clone:
        ratios = {key: scored.total - totals[key] for key, [scored] in score(clone, few, [TEMPERATURE_1])}
    assert ratios == dict.fromkeys(totals, 0.0)


def test_several_samplings_in_one_pass_give_the_bits_of_separate_passes(model, items):
    few = items[::4]
    samplings = [TEMPERATURE_1, Sampling(0.5), Sampling(1.0, 0.8), Sampling(0.0)]
    together = bits(score(model, few, samplings))
    for i, sampling in enumerate(samplings):
        assert bits(score(model, few, [sampling])) == {key: [each[i]] for key, each in together.items()}


def test_an_item_that_cannot_be_scored_has_a_status_and_keeps_its_place(model):
    prompt = chat.render(model, None, "hi")
    items = [
        Item("long", prompt, (65,) * model.n_ctx),
        Item("fine", prompt, (65, 66)),
        Item("empty", prompt, ()),
        Item("full", prompt, (65,) * (model.n_ctx - len(prompt))),
    ]
    scored = [(key, each[0]) for key, each in score(model, items, [TEMPERATURE_1])]
    expected = [("long", "too_long"), ("fine", "ok"), ("empty", "empty"), ("full", "ok")]
    assert [(key, each.status) for key, each in scored] == expected
    assert [math.isnan(each.total) for _, each in scored] == [True, False, True, False]


def test_a_pass_of_which_all_items_are_too_long_returns_their_status(model):
    [(key, [scored])] = score(model, [Item("long", (65,) * model.n_ctx, (65,))], [TEMPERATURE_1])
    assert (key, scored.status) == ("long", "too_long")


def test_a_token_outside_the_support_has_log_probability_minus_infinity(model):
    prompt = chat.render(model, None, "hi")
    worst = int(forward(model, prompt)[-1].argmin())
    for sampling in (Sampling(0.0), Sampling(1.0, 0.5)):
        [(_, [scored])] = score(model, [Item(0, prompt, (worst,))], [sampling], drawn_from=sampling)
        assert scored.status == "outside_support" and scored.total == -math.inf


def test_only_the_policy_that_drew_a_response_gets_its_boundary_tokens(model):
    prompt = chat.render(model, None, "hi")
    p = np.exp(log_probs(forward(model, prompt)[-1:], TEMPERATURE_1)[0])
    order = np.argsort(-p)
    missing = Sampling(1.0, p[order[:5]].sum() - 0.001)  # the sixth token misses the nucleus by this mass
    items = [Item(0, prompt, (int(order[5]),))]
    results = [
        list(score(model, items, [missing], drawn_from=source))[0][1][0] for source in (None, TEMPERATURE_1, missing)
    ]
    assert [result.status for result in results] == ["outside_support", "outside_support", "ok"]
    assert [result.n_boundary for result in results] == [1, 1, 1]


def test_scoring_on_after_the_model_is_closed_is_an_error(tmp_path):
    with open_model(tiny_gguf.write(tmp_path / "tiny.gguf"), n_ctx=64) as model:
        scores = score(model, [Item(i, (1, 2), (3,)) for i in range(3)], [TEMPERATURE_1])
        next(scores)
    with pytest.raises(RuntimeError, match="closed"):
        next(scores)


def test_an_empty_prompt_is_refused(model):
    with pytest.raises(ValueError, match="empty prompt"):
        list(score(model, [Item("x", (), (65,))], [TEMPERATURE_1]))
