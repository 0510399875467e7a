"""A model in several files: its identity is the hash of all of them, wherever they lie."""

from __future__ import annotations

import copy
import json

import tiny_gguf
from workflow_run import CONFIG, Run, write_prompts

TARGETS = ("results/models/smollm2.json", "results/responses/base/0000.jsonl")


def test_a_change_of_the_second_part_changes_the_hash_of_the_model(tmp_path):
    folder = tmp_path / "models {v1} <new>"
    folder.mkdir()
    parts = tiny_gguf.write_parts(folder / "tiny.gguf", 2)
    write_prompts(tmp_path / "prompts.jsonl", 8)
    (tmp_path / "other.txt").write_text("Answer with other words.")
    models = {"smollm2": {"file": None, "path": str(parts[0]), "n_ctx": 512}}
    run = Run(tmp_path, copy.deepcopy(CONFIG) | {"n_prompts": 8, "models": models})
    run.snakemake(*TARGETS)
    before = json.loads(run.path("models/smollm2.json").read_text())
    assert run.jobs(*TARGETS) == set()
    parts[1].write_bytes(parts[1].read_bytes() + b"\0")
    run.snakemake(*TARGETS)
    after = json.loads(run.path("models/smollm2.json").read_text())
    assert before["sha256"] != after["sha256"]
    responses = run.path("responses/base/0000.jsonl").read_text().splitlines()
    assert {json.loads(line)["model_sha256"] for line in responses} == {after["sha256"]}
