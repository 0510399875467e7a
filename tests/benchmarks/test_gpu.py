"""The measurements on a GPU, tested on a processor: no score depends on its place in the batch or on the other items."""

from __future__ import annotations

import numpy as np
import pytest

import tiny_gguf
from arena_cje.llama.distribution import Sampling
from arena_cje.llama.model import open_model
from arena_cje.llama.scorer import Item, score
from benchmarks import gpu


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tiny_gguf.write(tmp_path_factory.mktemp("gpu") / "tiny.gguf", **tiny_gguf.KINDS["gpt2-bytes"])
    with open_model(path, n_ctx=512) as model:
        yield model


@pytest.fixture(scope="module")
def items(model):
    rng = np.random.default_rng(0)
    ids = [token for token in range(model.n_vocab) if token not in model.eog_ids]
    return [
        Item(i, tuple(rng.choice(ids, 20 + i).tolist()), tuple(rng.choice(ids, 1 + 3 * i).tolist())) for i in range(10)
    ]


def test_packed_scores_equal_those_of_the_scorer(model, items):
    with gpu.PackedContext(model, 4) as context:
        packed_logprobs = context.scores(items)
    scorer_logprobs = {key: one.token_logprobs for key, (one,) in score(model, items, [Sampling()])}
    assert packed_logprobs.keys() == scorer_logprobs.keys()
    for key, logprobs in scorer_logprobs.items():
        assert packed_logprobs[key].shape == logprobs.shape
        assert np.abs(packed_logprobs[key] - logprobs).max() < 1e-2  # 16-bit caches, batches of other sizes


def test_a_packed_score_does_not_depend_on_its_place_or_on_the_other_items(model, items):
    with gpu.PackedContext(model, 4) as context:
        first = context.scores(items)
        assert gpu._apart(first, context.scores(items[::-1])) == 0
        assert gpu._apart(first, context.scores(items[3:4])) == 0


def test_without_a_gpu_the_result_names_the_build_script(monkeypatch):
    monkeypatch.setattr(gpu, "has_gpu", lambda: False)
    (result,) = gpu.run()
    assert result.value is None
    assert "gpu.sh" in result.detail
