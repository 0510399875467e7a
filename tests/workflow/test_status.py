"""The status of real runs: while one runs, after it was killed, after a failure and at the end."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time

import pytest

from arena_cje.stages import status
from workflow_run import CONFIG, ROOT, Run, write_prompts

TARGET = "results/responses/base.jsonl"
N_PROMPTS = 300


@pytest.fixture
def run(tmp_path, tiny_model) -> Run:
    """Responses of one policy, in one shard that takes some seconds and one that does not."""
    config = copy.deepcopy(CONFIG) | {"n_prompts": N_PROMPTS, "shard_size": N_PROMPTS - 10, "progress_seconds": 0.5}
    config["policies"]["base"]["max_tokens"] = 40
    (tmp_path / "tiny.gguf").symlink_to(tiny_model)
    (tmp_path / "other.txt").write_text("Answer with other words.")
    write_prompts(tmp_path / "prompts.jsonl", N_PROMPTS)
    return Run(tmp_path, config)


def status_text(run: Run) -> str:
    """The output of `arena-cje status`."""
    command = [sys.executable, "-m", "arena_cje", "status", str(run.directory)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr
    return process.stdout


def wait_for_items(run: Run, count: int, process: subprocess.Popen) -> None:
    for _ in range(6000):
        if len(run.journal_keys("generate/base")) >= count:
            return
        assert process.poll() is None, f"the run ended before it had {count} items"
        time.sleep(0.01)
    raise AssertionError(f"no {count} items after 60 s")


def test_the_status_follows_a_run_that_is_killed_and_continued(run):
    process = run.start(TARGET)
    wait_for_items(run, 20, process)
    os.killpg(process.pid, signal.SIGSTOP)  # so that the status stays the same while it is read
    during = status.read_status(run.directory)
    assert (during.state, during.total.items) == ("running", N_PROMPTS)
    assert 20 <= during.total.items_done < N_PROMPTS
    assert "running as process" in status_text(run)
    # Snakemake's target `status` prints it, too, while the other Snakemake has the folder.
    assert "running as process" in run.snakemake("status")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)

    killed = status.read_status(run.directory)
    n_done = len(run.journal_keys("generate/base"))
    assert (killed.state, killed.total.items_done, killed.total.jobs_failed) == ("killed", n_done, 0)
    assert "killed before its end; the same command goes on" in status_text(run)

    run.snakemake("--unlock")
    output = run.snakemake(TARGET)
    finished = status.read_status(run.directory)
    assert (finished.state, finished.total.items_done) == ("finished", N_PROMPTS)
    assert {state.state for state in finished.other_jobs} == {"done"}
    assert sum(state.fresh_items for state in finished.jobs) == N_PROMPTS - n_done
    assert f"{N_PROMPTS} of {N_PROMPTS} items (100%)" in status_text(run)
    assert f"all: {N_PROMPTS} of {N_PROMPTS} items (100%), 4 of 4 other jobs done; took " in output
    # A command that only prints, or has nothing to do, does not count as a run.
    run.snakemake("status")
    run.snakemake("-n", TARGET)
    assert "Nothing to be done" in run.snakemake(TARGET)
    assert status.read_status(run.directory).record == finished.record


def test_the_status_reports_the_failed_job_of_a_run(run):
    run.config["models"]["smollm2"]["n_ctx"] = 2048
    run.snakemake(TARGET, ok=False)
    failed = status.read_status(run.directory)
    assert (failed.state, failed.total.items_done, failed.total.items) == ("failed", 0, N_PROMPTS)
    text = status_text(run)
    assert "ended with failed jobs; the same command goes on" in text
    assert (
        "other jobs: 1 job failed: model file tiny.gguf cannot be used: n_ctx is 2048, but the model was trained"
        in text
    )
    assert f"0 of {N_PROMPTS} items (0%), 2 of 4 other jobs done, 1 job failed" in text


def test_the_status_of_a_folder_without_a_run_says_so_and_reads_no_prompts(run):
    (run.directory / "prompts.jsonl").unlink()
    output = run.snakemake("status", ok=False)
    assert "ERROR .: no run has been started in this folder" in output
    assert "no file 'prompts.jsonl'" not in output
