"""After a kill the same command continues: no item is done twice, and the results have the same bytes."""

from __future__ import annotations

import copy
import os
import re
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from workflow_run import CONFIG, Run, write_prompts

if TYPE_CHECKING:
    from pathlib import Path

TARGET = "results/coverage_0.25/snips.json"
N_PROMPTS = 320  # which take seconds, so that a job can be killed between the first and the last


def new_run(folder: Path, tiny_model: Path, n_prompts: int = N_PROMPTS, **changes) -> Run:
    """A folder with one shard that is long enough to be killed in the middle."""
    folder.mkdir()
    (folder / "tiny.gguf").symlink_to(tiny_model)
    write_prompts(folder / "prompts.jsonl", n_prompts)
    (folder / "other.txt").write_text("Answer with other words.")
    config = copy.deepcopy(CONFIG) | {"n_prompts": n_prompts, "shard_size": n_prompts} | changes
    config["policies"]["base"]["max_tokens"] = 40
    return Run(folder, config)


@pytest.fixture(scope="module")
def uninterrupted_run(tmp_path_factory, tiny_model) -> Run:
    run = new_run(tmp_path_factory.mktemp("resume") / "whole", tiny_model)
    run.snakemake(TARGET)
    return run


def different_files(one: Run, other: Run) -> list[str]:
    """Names of result files that are not the same bytes in both folders."""
    outputs, other_outputs = one.outputs(), other.outputs()
    return sorted(
        name for name in outputs.keys() | other_outputs.keys() if outputs.get(name) != other_outputs.get(name)
    )


def wait_for_job(run: Run, stage: str, process: psutil.Popen) -> psutil.Process:
    """The process that works on a stage, once it has opened its journal."""
    folder = str(run.directory / "results" / "journal" / stage)
    for _ in range(3000):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if any(file.path.startswith(folder) for file in child.open_files()):
                    return child
        assert process.poll() is None, f"the run ended without work on {stage}"
        time.sleep(0.005)
    raise AssertionError(f"no work on {stage} after 30 s")


def wait_for_items(run: Run, stage: str, count: int, process: psutil.Popen) -> None:
    """Wait until the journals of a stage hold some items, but not all."""
    folder = run.directory / "results" / "journal" / stage
    for _ in range(6000):
        lines = sum(path.read_bytes().count(b"\n") for path in folder.rglob("*.jsonl"))
        if lines >= count:
            return
        assert process.poll() is None, f"the run ended before {count} items were in {folder}"
        time.sleep(0.005)
    raise AssertionError(f"no {count} items in {folder} after 30 s")


@pytest.mark.parametrize("stage", ["generate/base", "score/smollm2-helpful"])
def test_a_killed_job_resumes(tmp_path, tiny_model, uninterrupted_run, stage):
    run = new_run(tmp_path / "run", tiny_model)
    process = run.start(TARGET)
    job = wait_for_job(run, stage, process)  # before the items: a job of so small a model ends soon after them
    wait_for_items(run, stage, 20, process)
    job.kill()
    assert process.wait(timeout=120) != 0
    keys_before = run.journal_keys(stage)
    total = len(uninterrupted_run.journal_keys(stage))
    assert 20 <= len(keys_before) < total

    run.snakemake(TARGET)
    keys = run.journal_keys(stage)
    assert keys[: len(keys_before)] == keys_before
    assert len(keys) == len(set(keys)) == total  # every item is done exactly once
    assert different_files(run, uninterrupted_run) == []


def test_a_killed_snakemake_continues_after_it_is_unlocked(tmp_path, tiny_model, uninterrupted_run):
    run = new_run(tmp_path / "run", tiny_model)
    process = run.start(TARGET)
    wait_for_items(run, "generate/base", 20, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)

    assert "`arena-cje unlock` removes it, then the same command goes on" in run.snakemake(TARGET, ok=False)
    run.snakemake("--unlock")
    run.snakemake(TARGET)
    keys = run.journal_keys("generate/base")
    assert len(keys) == len(set(keys)) == N_PROMPTS
    assert different_files(run, uninterrupted_run) == []


def test_an_interrupted_run_logs_one_line_and_the_same_command_continues(tmp_path, tiny_model, uninterrupted_run):
    run = new_run(tmp_path / "run", tiny_model)
    process = run.start(TARGET)
    wait_for_items(run, "generate/base", 1, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) != 0
    last = [text[-1] for log in run.directory.glob("logs/**/*.log") if (text := log.read_text().splitlines())]
    assert any(line.endswith("interrupted; the same command continues from here") for line in last), last
    run.snakemake(TARGET)
    assert different_files(run, uninterrupted_run) == []


def test_the_item_of_a_damaged_journal_line_is_done_again(tmp_path, tiny_model):
    run = new_run(tmp_path / "run", tiny_model, n_prompts=24)
    run.snakemake("results/responses/base.jsonl")
    whole = run.outputs()
    journal = run.path("journal/generate/base/0000.jsonl")
    journal.write_bytes(journal.read_bytes()[:-20])
    run.path("responses/base/0000.jsonl").unlink()
    run.path("responses/base.jsonl").unlink()
    output = run.snakemake("results/responses/base.jsonl")
    assert "1 damaged line(s) skipped" in output
    assert "23 in the journal, 1 to do" in output
    assert run.outputs() == whole


def test_another_shard_size_gives_the_same_bytes_without_new_work(tmp_path, tiny_model):
    run = new_run(tmp_path / "run", tiny_model, n_prompts=24, shard_size=8)
    run.snakemake(TARGET)
    before = {
        name: run.path(name).read_bytes()
        for name in ("responses/base.jsonl", "logprobs/cool.parquet", "judge/base.jsonl")
    }
    counts = {stage: len(run.journal_keys(stage)) for stage in ("generate", "score", "judge")}
    dataset = run.path("coverage_0.25/cje_dataset.jsonl").read_bytes()
    run.config["shard_size"] = 5
    run.snakemake(TARGET)
    assert {name: run.path(name).read_bytes() for name in before} == before
    assert {stage: len(run.journal_keys(stage)) for stage in counts} == counts
    assert run.path("coverage_0.25/cje_dataset.jsonl").read_bytes() == dataset


def test_a_separate_pass_over_the_same_system_prompt_gives_the_same_bits(tmp_path, tiny_model):
    """The clone's weights are 1 since it shares the base's pass; a pass of its own must not change that."""
    run = new_run(tmp_path / "run", tiny_model, n_prompts=24)
    run.config["policies"]["clone"]["system_prompt"] = "helpful_again.txt"
    (run.directory / "helpful_again.txt").write_text("You are a helpful assistant.\n")
    run.snakemake("results/logprobs/base.parquet", "results/logprobs/clone.parquet", "-j1")
    assert (
        len(set(run.journal_keys("score"))) == 24 * 3 - 24
    )  # a pass is named by its tokens: base and clone share keys
    assert len(run.journal_keys("score")) == 24 * 3
    assert run.path("logprobs/clone.parquet").read_bytes() == run.path("logprobs/base.parquet").read_bytes()


def test_the_oracle_labels_no_more_prompts_than_the_coverage_requires(tmp_path, tiny_model):
    run = new_run(tmp_path / "run", tiny_model, n_prompts=40, shard_size=16)
    run.snakemake("results/coverage_0.25/snips.json")
    first = run.journal_keys("oracle")
    labels = run.path("coverage_0.25/cje_dataset.jsonl").read_text().count('"oracle_label":null')
    assert len(first) == 40 - labels
    assert abs(len(first) - 10) <= 2
    output = run.snakemake("results/coverage_0.5/snips.json")
    both = run.journal_keys("oracle")
    assert len(both) == len(set(both))
    assert abs(len(both) - 20) <= 2
    assert set(first) < set(both)
    # The labels of the lower coverage are in the journal, so that the job has only the rest to do.
    assert re.findall(r"\[oracle base 0\.5\] INFO .*, (\d+) to do", output) == [str(len(both) - len(first))]


def test_the_default_number_of_model_processes_is_that_of_the_physical_cores(tmp_path, tiny_model):
    run = new_run(tmp_path / "run", tiny_model, n_prompts=24)
    output = run.snakemake("--cores", "64", "results/prompts.jsonl")
    assert f'model_slots=Resource("model_slots", {psutil.cpu_count(logical=False) or 1})' in output
    run.config["model_slots"] = 3
    run.path("prompts.jsonl").unlink()
    assert 'model_slots=Resource("model_slots", 3)' in run.snakemake("results/prompts.jsonl")
    run.path("prompts.jsonl").unlink()
    assert 'model_slots=Resource("model_slots", 5)' in run.snakemake(
        "--resources", "model_slots=5", "--", "results/prompts.jsonl"
    )


def test_the_key_fresh_makes_the_next_run_ignore_the_journal(tmp_path, tiny_model):
    run = new_run(tmp_path / "run", tiny_model, n_prompts=24)
    run.snakemake("results/responses/base.jsonl")
    whole = run.outputs()
    output = run.snakemake("--config", "fresh=true", "--forcerun", "generate", "--", "results/responses/base.jsonl")
    assert "0 in the journal, 24 to do" in output
    assert run.outputs() == whole
