"""Reading in blocks after a shared prefix: no token twice, memory within its limit, all requested logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_gguf
from arena_cje.llama import chat, generator, prefill
from arena_cje.llama import model as model_module
from arena_cje.llama.distribution import Sampling, stream
from arena_cje.llama.generator import Request, generate
from arena_cje.llama.model import LEAST_ROWS, Context, open_model
from arena_cje.llama.prefill import BLOCK, LEAST, WORTH, Reader, n_from_prefix
from arena_cje.llama.scorer import Item, score

SYSTEM = "you never hurry and say what you think " * 10  # some 400 tokens of the byte vocabulary


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with open_model(tiny_gguf.write(tmp_path_factory.mktemp("models") / "tiny.gguf"), n_ctx=1024) as model:
        yield model


@pytest.fixture(scope="module")
def shared(model):
    return chat.shared(model, SYSTEM)


@pytest.fixture(scope="module")
def prompts(model):
    users = ["why?", "tell me about trains " * 5, "", "a", "well " * 60]
    return {str(i): chat.render(model, SYSTEM, user) for i, user in enumerate(users)}


def one_pass(model, tokens) -> np.ndarray:
    with Context(model, n_tokens=len(tokens), n_batch=len(tokens), n_outputs=len(tokens)) as context:
        return context.decode(tokens, range(len(tokens)), 0, len(tokens)).copy()


@given(st.integers(0, 2000), st.integers(0, 3000))
def test_blocks_cover_a_text_in_order_and_none_of_several_is_short(start, length):
    blocks = list(prefill._blocks(start, start + length))
    assert [position for begin, end in blocks for position in range(begin, end)] == list(range(start, start + length))
    sizes = [end - begin for begin, end in blocks]
    assert max(sizes, default=0) <= BLOCK
    assert len(blocks) == 1 or min(sizes, default=LEAST) >= LEAST


@pytest.mark.parametrize("length", [1, 63, BLOCK, BLOCK + 1, BLOCK + LEAST, 900])
def test_blocks_have_the_bits_of_one_pass(model, length):
    tokens = np.random.default_rng(length).integers(0, model.n_vocab, length).tolist()
    with Context(model, n_tokens=length, n_batch=BLOCK, n_outputs=BLOCK) as context:
        rows = np.concatenate([logits.copy() for logits in Reader(context).read(tokens, 0, length)])
    assert np.array_equal(rows, one_pass(model, tokens))


def test_only_the_requested_rows_are_returned(model):
    """The last 189 of 700 rows are all of the second block and one row of the first."""
    tokens = np.random.default_rng(1).integers(0, model.n_vocab, 700).tolist()
    expected = one_pass(model, tokens)
    with Context(model, n_tokens=700, n_batch=BLOCK, n_outputs=BLOCK) as context:
        reader = Reader(context)
        for n_wanted in (1, 2, 3, 7, 8, 189, 190, 200, 600):
            rows = np.concatenate([logits.copy() for logits in reader.read(tokens, 0, n_wanted)])
            assert np.array_equal(rows, expected[-n_wanted:])


def test_the_row_after_a_text_has_the_bits_of_one_pass(model):
    """For many texts, since a row of another kernel is often the same after rounding to 16 bits."""
    rng = np.random.default_rng(2)
    with Context(model, n_tokens=80, n_batch=80, n_outputs=1) as context:
        reader = Reader(context)
        for length in range(1, 81, 2):
            tokens = rng.integers(0, model.n_vocab, length).tolist()
            (row,) = reader.read(tokens, 0, 1)
            assert np.array_equal(row, one_pass(model, tokens)[-1:])


def test_no_text_of_several_tokens_is_read_for_a_single_row(model, shared, monkeypatch):
    """Whether few rows are computed by another kernel depends on the processor, so results alone cannot show it."""
    passes = []
    decode = Context.decode
    monkeypatch.setattr(
        Context,
        "decode",
        lambda self, tokens, positions, sequences, n_wanted: (
            passes.append((len(tokens), n_wanted)) or decode(self, tokens, positions, sequences, n_wanted)
        ),
    )
    texts = [(*shared, *(65,) * n) for n in (1, 2, 60, 700 - len(shared))]
    for start in ((), shared):
        list(score(model, [Item(n, text, (65,) * n) for n in (1, 189) for text in texts], [Sampling()], shared=start))
        requests = [Request(n, text, stream(7, "base", str(n), 0)) for n, text in enumerate(texts)]
        list(generate(model, requests, Sampling(), 3, shared=start))
    assert {n_wanted for _, n_wanted in passes} > {0, LEAST_ROWS}
    assert [one for one in passes if 0 < one[1] < min(LEAST_ROWS, one[0])] == []
    assert min(n_tokens for n_tokens, _ in passes) > 1


def test_all_prompts_of_a_context_begin_with_the_shared_prefix(model, shared, prompts):
    assert len(shared) > 300
    assert all(ids[: len(shared)] == shared for ids in prompts.values())
    text = model.detokenize(shared)
    assert SYSTEM.strip() in text and "why" not in text


def test_a_shared_prefix_is_read_once(model, shared, prompts, monkeypatch):
    read = []
    decode = Context.decode
    monkeypatch.setattr(
        Context, "decode", lambda self, tokens, *rest: read.append(len(tokens)) or decode(self, tokens, *rest)
    )
    items = [Item(key, ids, (65, 66)) for key, ids in prompts.items()]
    list(score(model, items, [Sampling()], shared=shared))
    lengths = [len(item.prompt_ids) + 1 for item in items]
    assert sum(read) == len(shared) + sum(length - n_from_prefix(len(shared), length, 2) for length in lengths)
    assert sum(read) < len(shared) + (len(items) + 1) * LEAST + sum(lengths) - len(items) * len(shared)


@given(st.integers(0, 3000), st.integers(1, 3000), st.integers(1, 3000))
def test_tokens_taken_from_a_prefix_are_common_and_their_logits_are_not_requested(n_common, n_tokens, n_wanted):
    n_wanted = min(n_wanted, n_tokens)
    start = n_from_prefix(n_common, n_tokens, n_wanted)
    assert 0 <= start <= min(n_common, n_tokens - n_wanted)
    assert n_tokens - start > 1 or n_tokens == 1


@pytest.mark.parametrize(
    ("n_common", "n_tokens", "start"),
    [(14, 58, 14), (37, 80, 37), (100, 151, 87), (800, 830, 766), (800, 900, 800), (0, 90, 0), (60, 63, 60)],
)
def test_a_part_of_a_prefix_is_read_again_where_that_allows_the_fast_kernel(n_common, n_tokens, start):
    assert n_from_prefix(n_common, n_tokens, 1) == start


def test_no_prefix_is_shared_if_it_is_short_or_the_model_cannot_rewind(model, monkeypatch):
    assert prefill.usable(model, range(WORTH - 1)) == ()
    assert prefill.usable(model, range(WORTH)) == tuple(range(WORTH))
    monkeypatch.setattr(model, "can_rewind", False)
    assert prefill.usable(model, range(WORTH)) == ()


@pytest.mark.parametrize(
    ("cache_tokens", "with_shared", "n_caches"),
    [(512, False, 2), (512, True, 3), (2048, False, 4), (2048, True, 4), (100_000, False, 5), (100_000, True, 6)],
)
def test_the_number_of_caches_is_limited_by_cache_tokens(
    model, prompts, shared, monkeypatch, cache_tokens, with_shared, n_caches
):
    """Five requests of up to 512 tokens: two caches at least, and one for the shared prefix."""
    for module in (model_module, prefill):
        monkeypatch.setattr(module, "LEAST_ROWS", 2)
    monkeypatch.setattr(model, "row_step", 1)
    context_sizes = []
    monkeypatch.setattr(
        generator, "Context", lambda *args, **sizes: context_sizes.append(sizes) or Context(*args, **sizes)
    )
    requests = [Request(i, prompts["0"], stream(7, "base", "0", i)) for i in range(5)]
    list(generate(model, requests, Sampling(), 4, cache_tokens=cache_tokens, shared=shared if with_shared else ()))
    assert [sizes["n_seq"] for sizes in context_sizes] == [n_caches]
