"""Hashes of the shards of prompts, which make a shard stale when they change; they are stored between runs."""

from __future__ import annotations

import json

import pytest

from arena_cje.config.parse import parse
from arena_cje.data import prompts
from arena_cje.data.prompt_sets.pool import Pool
from arena_cje.errors import UserError
from arena_cje.stages import doctor, plan


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


def fingerprints(config, source):
    """The hashes, through the files in which the workflow stores them."""
    folder = source.parent / "kept"
    return plan.shard_fingerprints(config, plan.prompt_pool(config, source, folder), folder / "shards.json")


def test_a_shard_has_the_hash_of_its_prompts(source, tmp_path):
    lines = plan.prompt_pool(experiment(), source, tmp_path).lines(10)
    expected = {name: prompts.fingerprint(prompts.cut(lines, name, 4)) for name in ("0000", "0001", "0002")}
    assert fingerprints(experiment(), source) == expected
    assert len(set(expected.values())) == 3


DAMAGE = {
    "prompts are missing": lambda content: b"".join(content.splitlines(keepends=True)[:6]),
    "a prompt is another": lambda content: content.replace(b"Say", b"Sav", 1),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_prompts_are_refused_and_written_again_after_a_redo(source, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    pool = plan.prompt_pool(experiment(), source, doctor.PROMPTS)
    hashes = plan.shard_fingerprints(experiment(), pool, doctor.SHARDS)
    assert doctor.examine() == []
    before = [plan.shard_rows(pool.path, 4 * k, min(4 * k + 4, 10), hash) for k, hash in enumerate(hashes.values())]
    whole = pool.path.read_bytes()
    pool.path.write_bytes(DAMAGE[what](whole))
    with pytest.raises(UserError, match=f"^{doctor.PROMPTS}/prompts.jsonl: is damaged: .*arena-cje doctor --redo"):
        for k, hash in enumerate(hashes.values()):
            plan.shard_rows(pool.path, 4 * k, min(4 * k + 4, 10), hash)
    doctor.redo(doctor.examine())
    again = plan.prompt_pool(experiment(), source, doctor.PROMPTS)
    assert again.path.read_bytes() == whole
    assert [row for rows in before for row in rows] == again.rows(10)


def test_a_plan_from_a_cut_file_of_prompts_is_refused_with_the_remaining_number(source, tmp_path):
    pool = plan.prompt_pool(experiment(), source, tmp_path)
    pool.path.write_bytes(DAMAGE["prompts are missing"](pool.path.read_bytes()))
    with pytest.raises(UserError, match="is damaged: 6 prompts are left of 12"):
        plan.shard_fingerprints(experiment(), pool, tmp_path / "shards.json")


def test_a_changed_prompt_changes_only_the_hash_of_its_shard(source, tmp_path):
    before = fingerprints(experiment(), source)
    last = plan.prompt_pool(experiment(), source, tmp_path).rows(12)[-1]["prompt_id"]
    first = plan.prompt_pool(experiment(), source, tmp_path).rows(12)[0]["prompt_id"]
    write(source, ["Another text." if f"q{k}" == last else f"Say {k}." for k in range(12)])
    assert fingerprints(experiment(), source) == before  # it is not among the ten
    write(source, ["Another text." if f"q{k}" == first else f"Say {k}." for k in range(12)])
    after = fingerprints(experiment(), source)
    assert [name for name in before if before[name] != after[name]] == ["0000"]


def test_more_prompts_leave_the_hashes_of_full_shards_unchanged(source):
    before, after = fingerprints(experiment(n_prompts=8), source), fingerprints(experiment(n_prompts=12), source)
    assert {name: after[name] for name in before} == before
    assert list(after) == ["0000", "0001", "0002"]


def test_stored_hashes_are_reused_until_their_inputs_change(source, monkeypatch):
    first = fingerprints(experiment(), source)
    reads = []
    monkeypatch.setattr(Pool, "lines", lambda pool, n, lines=Pool.lines: reads.append(n) or lines(pool, n))
    assert fingerprints(experiment(), source) == first
    assert reads == []
    for keys in ({"n_prompts": 11}, {"seed": 1}, {"shard_size": 5}):
        reads.clear()
        assert fingerprints(experiment(**keys), source) != first
        assert reads
    (source.parent / "kept" / "shards.json").write_text("{")  # as after a crash of the machine
    assert fingerprints(experiment(), source) == first


def test_references_are_checked_only_where_the_oracle_uses_them(source):
    source.write_text(source.read_text().replace('"pattern"', '"patern"'))
    for _ in range(2):  # refused prompts leave no stored hashes
        with pytest.raises(UserError, match="did you mean 'pattern'"):
            fingerprints(experiment(), source)
    oracle = {"provider": "llama_cpp", "model": "small", "rubric": "rating.yaml"}
    assert fingerprints(experiment(oracle=oracle), source)


def test_the_selection_of_prompts_is_recorded_with_the_results(source, tmp_path):
    config = experiment(prompts={"source": str(source), "max_chars": 6}, n_prompts=9)
    pool = plan.prompt_pool(config, source, tmp_path)
    graders = plan_graders(config)
    recorded = plan.dataset_provenance(config, graders, pool)["prompts"]
    assert recorded["source"] == "prompts.jsonl"  # no folder of this machine
    assert recorded["max_chars"] == 6
    assert (recorded["n_rows"], recorded["n_eligible"], recorded["dropped"]) == (12, 10, {"too_long": 2})


def plan_graders(config):
    from arena_cje.grading import plan as grading_plan
    from workflow_run import ROOT

    return grading_plan.graders(config, lambda name, kind: str(ROOT / "resources" / kind / name))
