"""Planned looks in a run: labels are bought look after look, no more than are needed, and none twice."""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from typing import TYPE_CHECKING

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
    config = copy.deepcopy(CONFIG) | {"n_prompts": 120, "shard_size": 60}
    del config["policies"]["other"], config["policies"]["cool"]
    config["oracle"] = {"target_labels": "coverage", "truth": "none"}
    config["coverages"] = ["0.1"]
    config["looks"] = {"coverages": COVERAGES, "min_labels": 20} | looks
    return Run(folder, config)


def account(run: Run) -> dict:
    return json.loads((run.directory / TARGET).read_text())


def labelled(run: Run) -> set[str]:
    """Coverages at which there are labels."""
    return {path.stem.removeprefix("coverage_") for path in run.path("oracle").glob("*/*.jsonl")}


def test_labels_are_bought_look_after_look_no_more_than_needed_and_none_twice(tmp_path, tiny_model):
    run = new_run(tmp_path / "run", tiny_model, max_labels=130)
    output = run.snakemake(TARGET)
    assert account(run)["stop"] == {"coverage": "0.5", "reason": "max_labels"}
    assert [look["labels"] for look in account(run)["looks"]] == [62, 120]
    assert labelled(run) == {"0.25", "0.5"}  # nothing was bought for the look that was too dear
    assert "Planned looks of direct, until every policy is decided with margin 0.02" in output  # the table at the end
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
    assert account(run)["stop"]["reason"] == "max_labels"

    run.snakemake("--unlock")
    run.snakemake(TARGET)
    assert account(run)["stop"] == {"coverage": "1.0", "reason": "last_look"}
    assert [look["labels"] for look in account(run)["looks"]] == [62, 120, 240]
    for policy, keys in before.items():
        after = run.journal_keys(f"oracle/{policy}")
        assert after[: len(keys)] == keys
        assert len(after) == len(set(after)) == 120  # every label once, over three looks, two runs and a kill
