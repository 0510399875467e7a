"""Hashes of the shards of prompts: what makes a shard stale, kept between starts of the workflow."""

from __future__ import annotations

import json

import pytest

from arena_cje.config.parse import parse
from arena_cje.data import prompts
from arena_cje.errors import UserError
from arena_cje.stages.plan import shard_fingerprints


def experiment(**keys):
    """A configuration of 10 prompts in shards of 4, with changed keys."""
    models = {"small": {"path": "small.gguf"}}
    policies = {"base": {"model": "small", "system_prompt": "helpful.txt"}, "other": {"like": "base"}}
    return parse(
        {"n_prompts": 10, "shard_size": 4, "models": models, "policies": policies, "judge": {"model": "small"}} | keys
    )


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "prompts.jsonl"
    write(path, [f"Say {k}." for k in range(12)])
    return path


def write(path, texts):
    rows = [{"prompt_id": f"q{k}", "prompt": text, "reference": {"pattern": "a"}} for k, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_shard_has_the_hash_of_its_prompts(source, tmp_path):
    found = shard_fingerprints(experiment(), source, tmp_path / "cache.json")
    rows = prompts.sample(source, n=10, seed=42)
    assert found == {name: prompts.fingerprint(prompts.cut(rows, name, 4)) for name in ("0000", "0001", "0002")}


def test_hashes_are_kept_while_nothing_changes_that_they_are_made_from(source, tmp_path, monkeypatch):
    cache = tmp_path / "cache.json"
    first = shard_fingerprints(experiment(), source, cache)
    read = []
    monkeypatch.setattr(
        prompts, "sample", lambda *given, sample=prompts.sample, **how: read.append(1) or sample(*given, **how)
    )
    assert shard_fingerprints(experiment(), source, cache) == first
    assert not read
    for keys in ({"n_prompts": 11}, {"seed": 1}, {"shard_size": 5}):
        assert shard_fingerprints(experiment(**keys), source, cache) != first
    write(source, ["Say it again.", *(f"Say {k}." for k in range(1, 12))])
    assert shard_fingerprints(experiment(n_prompts=12), source, cache)
    assert len(read) == 4
    cache.write_text("{")  # the machine crashed
    assert list(shard_fingerprints(experiment(), source, cache)) == list(first)
    assert len(read) == 5


def test_references_are_checked_where_the_oracle_reads_them(source, tmp_path):
    source.write_text(source.read_text().replace('"pattern"', '"patern"'))
    for _ in range(2):  # nothing is kept of prompts that are refused
        with pytest.raises(UserError, match="did you mean 'pattern'"):
            shard_fingerprints(experiment(), source, tmp_path / "cache.json")
    oracle = {"provider": "llama_cpp", "model": "small", "rubric": "rating.yaml"}
    assert shard_fingerprints(experiment(oracle=oracle), source, tmp_path / "cache.json")
