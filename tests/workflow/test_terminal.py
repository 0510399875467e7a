"""The terminal output of real runs: of a success, a plan, failures, Ctrl-C and a lock."""

from __future__ import annotations

import copy
import os
import pty
import signal
import subprocess
import time

import pytest

from arena_cje.stages import status
from workflow_run import CONFIG, Run, write_prompts

TARGET = "results/responses/base.jsonl"
N_PROMPTS = 300
PROFILE = "Using workflow specific profile"


@pytest.fixture
def run(tmp_path, tiny_model, monkeypatch) -> Run:
    """Responses of two policies, in jobs that take some seconds."""
    monkeypatch.delenv("VERBOSE")
    config = copy.deepcopy(CONFIG) | {"n_prompts": N_PROMPTS, "shard_size": N_PROMPTS}
    config["policies"]["base"]["max_tokens"] = 40
    (tmp_path / "tiny.gguf").symlink_to(tiny_model)
    (tmp_path / "other.txt").write_text("Answer with other words.")
    write_prompts(tmp_path / "prompts.jsonl", N_PROMPTS)
    return Run(tmp_path, config)


def lines_of(output: str) -> list[str]:
    """The lines of the output without the one in which Snakemake names its profile."""
    return [line for line in output.splitlines() if not line.startswith(PROFILE)]


def start(run: Run, **streams) -> subprocess.Popen:
    return subprocess.Popen(run.command(TARGET), cwd=run.directory, start_new_session=True, **streams)


def wait_for_items(run: Run, process: subprocess.Popen) -> None:
    for _ in range(6000):
        if run.journal_keys("generate/base"):
            return
        assert process.poll() is None
        time.sleep(0.01)
    raise AssertionError("no item after 60 s")


def test_the_output_of_a_run_that_is_planned_interrupted_locked_and_continued(run):
    plan = lines_of(run.snakemake("-n", TARGET))
    assert any(line.split() == ["generate", "1"] for line in plan)
    assert "This was a dry run: nothing was made. VERBOSE=1 shows every job." in plan
    assert not any(line.startswith(("rule ", "localrule ", "[")) for line in plan) and len(plan) < 25

    process = start(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_items(run, process)
    os.killpg(process.pid, signal.SIGINT)
    output = lines_of(process.communicate(timeout=60)[0])
    n_done = len(run.journal_keys("generate/base"))
    assert process.returncode == 1 and 0 < n_done < N_PROMPTS
    assert output[-2].startswith(f"Interrupted. What is finished stays: {n_done} of {N_PROMPTS} items (")
    command = f"snakemake -s {run.root / 'Snakefile'} --configfile my.yaml --cores 2 {TARGET}"
    assert output[-1] == f"The same command goes on from here: {command}"
    assert not any("Traceback" in line or line.startswith("ERROR") for line in output)
    assert status.read_status(run.directory).state == "interrupted"

    lock = run.directory / ".snakemake" / "locks" / "0.output.lock"  # as a Snakemake that was killed leaves it
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(f"{TARGET}\n")
    (locked,) = [line for line in lines_of(run.snakemake(TARGET, ok=False)) if line]
    assert locked.startswith(
        "ERROR this folder has the lock of a Snakemake that was killed; `arena-cje unlock` removes it"
    )
    lock.unlink()

    # On a terminal the progress rows are redrawn in place.
    terminal, stream = pty.openpty()
    process = start(run, stdout=stream, stderr=stream, env=os.environ | {"TERM": "xterm"})
    os.close(stream)
    screen_output = read_all(terminal)
    assert process.wait(timeout=60) == 0
    last = screen_output.rpartition("\x1b[J")[2].splitlines()
    assert [line.split()[0] for line in last] == ["generate", "other", "all"]
    assert last[-1].split(";")[0].split() == f"all {N_PROMPTS} of {N_PROMPTS} items (100%)".split()
    assert "[generate base 0000] INFO" in (run.directory / "logs" / "jobs.log").read_text()
    assert lines_of(run.snakemake(TARGET)) == ["Nothing to be done (all requested files are present and up to date)."]


def read_all(terminal: int) -> str:
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            part = b""
        if not part:
            return b"".join(parts).decode()
        parts.append(part)


def test_each_failure_is_printed_once_at_the_end(run):
    run.config |= {"n_prompts": 8, "shard_size": 8}
    run.config["models"]["big"] = run.config["models"]["smollm2"] | {"n_ctx": 4096}
    run.config["models"]["smollm2"]["n_ctx"] = 2048
    run.config["policies"]["other"]["model"] = "big"
    output = lines_of(run.snakemake(TARGET, "results/responses/other.jsonl", ok=False))
    first, second, last = output[-3:]
    for line, size, name in zip(sorted((first, second)), (2048, 4096), ("smollm2", "big"), strict=True):
        assert line.startswith(f"ERROR model file tiny.gguf cannot be used: n_ctx is {size}, but ")
        assert line.endswith(f" (logs/models/{name}.log)")
    assert last.startswith("The same command goes on from here: snakemake ")
    assert sum(line.count("n_ctx is 2048") for line in output) == 1
    assert not any("Traceback" in line or "RuleException" in line for line in output)
    assert len(output) < 10
    assert "rule register_model:" in next((run.directory / ".snakemake" / "log").iterdir()).read_text()

    run.config["n_prompt"] = 8
    assert lines_of(run.snakemake(TARGET, ok=False))[-1].startswith("ERROR config: unknown key `n_prompt`")
