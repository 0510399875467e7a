"""Teacher forcing: equal to a reference softmax, equal to itself bit for bit, and a valid importance weight."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

import tiny_gguf
from arena_cje.llama import chat
from arena_cje.llama.distribution import Sampling, log_probs, sample
from arena_cje.llama.model import Context, open_model
from arena_cje.llama.scorer import Item, score

ONE = Sampling()


@pytest.fixture(scope="module", params=[False, True], ids=["no_bos", "bos"])
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    with open_model(tiny_gguf.write(path, add_bos=request.param), n_ctx=256) as model:
        yield model


@pytest.fixture(scope="module")
def items(model):
    rng = np.random.default_rng(5)
    prompts = [chat.render(model, "be brief", "why? " * n) for n in (1, 3, 9, 20, 30)]
    return [
        Item(f"{i}-{j}", prompt, tuple(rng.integers(0, model.n_vocab, length).tolist()))
        for i, prompt in enumerate(prompts)
        for j, length in enumerate((1, 2, 30))
    ]


def forward(model, tokens) -> np.ndarray:
    """Logits after every token, (t, V)."""
    with Context(model, n_tokens=len(tokens), n_batch=len(tokens), n_outputs=len(tokens)) as context:
        return context.decode(tokens, range(len(tokens)), 0, len(tokens)).copy()


def bits(scored) -> dict:
    return {key: [s.token_logprobs.tobytes() for s in each] for key, each in scored}


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_scores_equal_a_reference_softmax_of_all_logits(model, items, temperature):
    for item, (key, [scored]) in zip(items, score(model, items, [Sampling(temperature)]), strict=True):
        logits = forward(model, [*item.prompt_ids, *item.response_ids]).astype(np.float64)
        reference = special.log_softmax(logits / temperature, axis=1)
        start = len(item.prompt_ids) - 1
        expected = [reference[start + t, token] for t, token in enumerate(item.response_ids)]
        assert key == item.key and scored.status == "ok"
        assert scored.token_logprobs == pytest.approx(expected, abs=1e-5)
        assert scored.total == pytest.approx(math.fsum(expected), abs=1e-4)


def test_a_response_is_scored_in_parts_as_in_whole(model, items):
    """log p(ab | x) = log p(a | x) + log p(b | xa), but for the last digits of differently cut sums."""
    whole = items[-1]
    prompt, response = whole.prompt_ids, whole.response_ids
    parts = [Item("a", prompt, response[:10]), Item("b", (*prompt, *response[:10]), response[10:])]
    totals = {key: scored.total for key, [scored] in score(model, [whole, *parts], [ONE])}
    assert totals["a"] + totals["b"] == pytest.approx(totals[whole.key], abs=0.01)


def test_bits_do_not_depend_on_order_shard_or_run(model, items):
    first = bits(score(model, items, [ONE]))
    assert bits(score(model, items, [ONE])) == first
    assert bits(score(model, items[::-1], [ONE])) == first
    for size in (1, 4):
        shards = [items[i : i + size] for i in range(0, len(items), size)]
        assert {k: v for shard in shards for k, v in bits(score(model, shard, [ONE])).items()} == first


def test_an_independent_second_pass_gives_a_clone_the_ratio_zero(model, items, tmp_path):
    first = {key: scored.total for key, [scored] in score(model, items, [ONE])}
    copy = tiny_gguf.write(tmp_path / "copy.gguf", add_bos=model.add_bos)
    with open_model(copy, n_ctx=512) as clone:
        assert {key: scored.total - first[key] for key, [scored] in score(clone, items, [ONE])} == dict.fromkeys(
            first, 0.0
        )


def test_samplings_of_one_pass_equal_passes_of_their_own(model, items):
    samplings = [ONE, Sampling(0.5), Sampling(1.0, 0.8), Sampling(0.0)]
    together = bits(score(model, items, samplings))
    for i, sampling in enumerate(samplings):
        assert bits(score(model, items, [sampling])) == {key: [each[i]] for key, each in together.items()}


def test_what_cannot_be_scored_says_so_and_keeps_its_place(model):
    prompt = chat.render(model, None, "hi")
    items = [
        Item("long", prompt, (65,) * model.n_ctx),
        Item("fine", prompt, (65, 66)),
        Item("empty", prompt, ()),
        Item("full", prompt, (65,) * (model.n_ctx - len(prompt))),
    ]
    scored = [(key, each[0]) for key, each in score(model, items, [ONE])]
    expected = [("long", "too_long"), ("fine", "ok"), ("empty", "empty"), ("full", "ok")]
    assert [(key, each.status) for key, each in scored] == expected
    assert [math.isnan(each.total) for _, each in scored] == [True, False, True, False]


def test_all_items_too_long_is_no_accident(model):
    [(key, [scored])] = score(model, [Item("long", (65,) * 300, (65,))], [ONE])
    assert (key, scored.status) == ("long", "too_long")


def test_a_token_outside_the_support_has_log_probability_minus_infinity(model):
    prompt = chat.render(model, None, "hi")
    worst = int(forward(model, prompt)[-1].argmin())
    for sampling in (Sampling(0.0), Sampling(1.0, 0.5)):
        [(_, [scored])] = score(model, [Item(0, prompt, (worst,))], [sampling], drawn_from=sampling)
        assert scored.status == "outside_support" and scored.total == -math.inf


def test_only_the_policy_that_drew_a_response_gets_its_boundary_tokens(model):
    prompt = chat.render(model, None, "hi")
    p = np.exp(log_probs(forward(model, prompt)[-1:], ONE)[0])
    order = np.argsort(-p)
    missing = Sampling(1.0, p[order[:5]].sum() - 0.001)  # the sixth token misses the nucleus by this mass
    items = [Item(0, prompt, (int(order[5]),))]
    results = [list(score(model, items, [missing], drawn_from=drawn))[0][1][0] for drawn in (None, ONE, missing)]
    assert [result.status for result in results] == ["outside_support", "outside_support", "ok"]
    assert [result.n_boundary for result in results] == [1, 1, 1]


def test_leaving_the_loop_early_does_no_harm(tmp_path):
    with open_model(tiny_gguf.write(tmp_path / "tiny.gguf"), n_ctx=64) as model:
        scores = score(model, [Item(i, (1, 2), (3,)) for i in range(3)], [ONE])
        next(scores)
    with pytest.raises(RuntimeError, match="closed"):
        next(scores)


def test_an_empty_prompt_is_refused(model):
    with pytest.raises(ValueError, match="empty prompt"):
        list(score(model, [Item("x", (), (65,))], [ONE]))


@pytest.mark.parametrize("target", [Sampling(0.7), Sampling(1.4), Sampling(1.0, 0.8)], ids=str)
def test_importance_weighting_recovers_the_value_of_one_token_policies(model, target):
    """Value by enumeration and mean weight 1 both lie within 4 standard errors of what base draws give."""
    base_prompt = chat.render(model, "be brief", "why?")
    target_prompt = chat.render(model, "be brief!", "why?")
    rng = np.random.default_rng(6)
    n = 20_000
    drawn = sample(np.broadcast_to(forward(model, base_prompt)[-1], (n, model.n_vocab)), ONE, rng.random(n))
    seen = np.unique(drawn).tolist()
    base = {
        key: s.total for key, [s] in score(model, [Item(a, base_prompt, (a,)) for a in seen], [ONE], drawn_from=ONE)
    }
    other = {key: s.total for key, [s] in score(model, [Item(a, target_prompt, (a,)) for a in seen], [target])}
    weight = np.exp([other[a] - base[a] for a in drawn.tolist()])  # (n,)
    reward = np.cos(np.arange(model.n_vocab)) ** 2  # (V,) in [0, 1]
    value = np.exp(log_probs(forward(model, target_prompt)[-1:], target)[0]) @ reward
    for summand, truth in ((weight * reward[drawn], value), (weight, 1.0)):
        assert abs(summand.mean() - truth) < 4 * summand.std() / np.sqrt(n)
