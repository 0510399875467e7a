"""Planned looks in a run: each look buys only the labels that it needs, and none is bought twice."""

from __future__ import annotations

import base64
import copy
import json
import os
import signal
import time
from typing import TYPE_CHECKING

from arena_cje.simulate import Target, World
from small_results import write_data
from workflow_run import CONFIG, Run, write_prompts

if TYPE_CHECKING:
    from pathlib import Path

TARGET = "results/coverage_auto/direct.json"
COVERAGES = ["0.25", "0.5", "1.0"]


def new_run(folder: Path, tiny_model: Path, **looks) -> Run:
    """A folder with a small study whose targets have their labels on the prompts of the base."""
    folder.mkdir()
    (folder / "tiny.gguf").symlink_to(tiny_model)
    write_prompts(folder / "prompts.jsonl", 120)
    config = copy.deepcopy(CONFIG) | {"n_prompts": 120, "shard_size": 120}
    del config["policies"]["other"], config["policies"]["cool"]
    config["oracle"] = {"target_labels": "coverage", "truth": "none"}
    config["coverages"] = ["0.1"]
    config["looks"] = {"coverages": COVERAGES, "min_labels": 20} | looks
    return Run(folder, config)


def result_document(run: Run) -> dict:
    return json.loads((run.directory / TARGET).read_text())


def labelled_coverages(run: Run) -> set[str]:
    """Coverages at which there are labels."""
    return {path.stem.removeprefix("coverage_") for path in run.path("oracle").glob("*/*.jsonl")}


def test_each_look_buys_only_the_labels_that_it_needs_and_none_is_bought_twice(tmp_path, tiny_model):
    run = new_run(tmp_path / "run", tiny_model, max_labels=130)
    output = run.snakemake(TARGET)
    assert result_document(run)["stop"] == {"coverage": "0.5", "reason": "max_labels"}
    assert [look["labels"] for look in result_document(run)["looks"]] == [62, 120]
    assert labelled_coverages(run) == {"0.25", "0.5"}  # nothing was bought for the look that is too expensive
    assert "Planned looks of direct, until every policy has a decision (margin 0.02)" in output  # the table at the end
    assert run.jobs(TARGET) == set()

    run.config["looks"]["max_labels"] = None
    before = {policy: run.journal_keys(f"oracle/{policy}") for policy in ("base", "clone")}
    process = run.start(TARGET)
    last = run.path("oracle/base/coverage_1.0.jsonl")
    while not last.exists():
        assert process.poll() is None, "the run ended before the last look"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert not (run.directory / TARGET).exists()  # the result of the earlier configuration is removed

    run.snakemake("--unlock")
    run.snakemake(TARGET)
    assert result_document(run)["stop"] == {"coverage": "1.0", "reason": "last_look"}
    assert [look["labels"] for look in result_document(run)["looks"]] == [62, 120, 240]
    for policy, keys in before.items():
        after = run.journal_keys(f"oracle/{policy}")
        assert after[: len(keys)] == keys
        assert len(after) == len(set(after)) > len(keys)  # every label once, over three looks, two runs and a kill


def test_labels_of_a_later_look_whose_job_was_killed_are_made_again(tmp_path, tiny_model):
    """Snakemake knows of them only after the earlier look, when it no longer checks for incomplete outputs."""
    run = new_run(tmp_path / "run", tiny_model)
    run.snakemake(TARGET)
    results = run.outputs()
    labels, seal = (
        run.path(f"{folder}oracle/base/coverage_1.0.jsonl{end}") for folder, end in (("", ""), ("seals/", ".json"))
    )
    seal.write_bytes(json.dumps(json.loads(seal.read_text()) | {"sha256": None}).encode())
    labels.write_bytes(labels.read_bytes()[:-20])
    marker = base64.urlsafe_b64encode(str(labels.relative_to(run.directory)).encode()).decode()
    (run.directory / ".snakemake" / "metadata" / marker).unlink()
    (run.directory / ".snakemake" / "incomplete" / marker).write_text("{}")
    for path in [
        *run.path("coverage_1.0").rglob("*.*"),
        *run.path("coverage_auto").rglob("*1.0*"),
        run.directory / TARGET,
    ]:
        path.unlink()

    run.snakemake("-n", TARGET)
    run.snakemake("status")
    assert labels.exists()  # a dry run and a target that prints remove nothing
    assert "coverage_1.0.jsonl: its job was killed before the file was complete" in run.snakemake(TARGET)
    assert run.outputs() == results


def test_planned_looks_at_own_data_stop_when_every_policy_has_a_decision(tmp_path):
    world = World(
        {"same": Target(), "better": Target(0.9)}, coverage=1.0, target_labels=1.0, paired=True, strictness=0.5
    )
    write_data(tmp_path, 200, world)
    config = {
        "logged_data": "logged.jsonl",
        "fresh_draws": "draws",
        "oracle": {"target_labels": "coverage"},
        "looks": {"coverages": COVERAGES, "spending": "pocock"},
        "decision": {"margin": 0.1},
    }
    run = Run(tmp_path, config)
    output = run.snakemake(TARGET)
    result = result_document(run)
    # Labels of the base and two targets, on the same prompts.
    assert [look["labels"] for look in result["looks"]] == [150, 300]
    statuses = {policy: entry["status"] for policy, entry in result["decision"]["policies"].items()}
    assert statuses == {"same": "equivalent", "better": "better_by_margin"}
    assert result["decision"]["policies"]["better"]["decided_at"] == "0.25"
    assert result["stop"] == {"coverage": "0.5", "reason": "decided"}
    assert not run.path("coverage_1.0").exists()
    assert result["sentence"] in " ".join(output.split())
