"""The workflow on a real Slurm: `bash tests/cluster/run.sh` starts it and runs this file.

In one run jobs are killed, run out of time and lose their node; it must end with the bytes of an undisturbed run on one machine.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

PLUGINS = os.environ.get("ARENA_SLURM_PLUGINS")
pytestmark = pytest.mark.skipif(PLUGINS is None, reason="no Slurm: `bash tests/cluster/run.sh` brings one up")

ROOT = Path(__file__).parents[2]
TARGET = "results/coverage_0.5/direct.json"
MAX_SECONDS = 900  # seconds for one run


def snakemake(folder: Path, *arguments: str) -> subprocess.Popen:
    paths = os.pathsep.join([str(ROOT / "workflow"), *([PLUGINS] if "--workflow-profile" in arguments else [])])
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--directory", str(folder), *arguments]
    # Jobs call `snakemake` and `python` of this environment.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with (folder / "snakemake.log").open("w") as log:
        return subprocess.Popen(
            [*command, "--", TARGET], env=os.environ | {"PYTHONPATH": paths, "PATH": path}, stdout=log, stderr=log
        )


@pytest.fixture
def folders(tmp_path):
    paths = []
    for name in ("local", "slurm"):
        shutil.copytree(ROOT / ".test", tmp_path / name)
        paths.append(tmp_path / name)
    return paths


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout


class Disturbance:
    """Faults of jobs while a run goes on, each once, in the first job that can have it."""

    def __init__(self):
        self.affected_jobs: dict[str, str] = {}  # fault -> id of the job

    def step(self) -> None:
        for line in slurm("squeue", "--noheader", "--states=RUNNING", "--format=%i|%N|%k").splitlines():
            job, node, comment = line.strip().split("|")
            if job in self.affected_jobs.values():
                continue
            if "generate" in comment:
                if "killed" not in self.affected_jobs and slurm("scontrol", "listpids", job).count("\n") > 2:
                    slurm("scancel", "--signal=KILL", "--full", job)
                    self.affected_jobs["killed"] = job
                elif "out of time" not in self.affected_jobs and self._stop(job):
                    self.affected_jobs["out of time"] = job
            elif "rule_score" in comment and "node down" not in self.affected_jobs:
                slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
                self.affected_jobs["node down"] = job
                time.sleep(2)
                slurm("scontrol", "update", f"nodename={node}", "state=resume")

    @staticmethod
    def _stop(job: str) -> bool:
        """Stop a process of the job, so that its time runs out; whether there was one."""
        pids = [int(line.split()[0]) for line in slurm("scontrol", "listpids", job).splitlines()[1:]]
        for pid in pids:
            try:
                if "generate.py" in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, signal.SIGSTOP)
                    return True
            except OSError:
                continue
        return False


def test_a_disturbed_run_on_two_nodes_has_the_same_results_as_a_run_on_one_machine(folders):
    local, cluster = folders
    start = time.monotonic()
    assert snakemake(local, "--cores", "2").wait(MAX_SECONDS) == 0, (local / "snakemake.log").read_text()[-3000:]
    local_seconds = time.monotonic() - start
    start, disturbance = time.monotonic(), Disturbance()
    run = snakemake(
        cluster,
        *("--workflow-profile", str(ROOT / "profiles" / "slurm"), "--latency-wait", "5"),
        *("--slurm-init-seconds-before-status-checks", "2"),
        *("--set-resources", "judge:mem_mb=40 if attempt == 1 else 1000", "generate:runtime=1 if attempt == 1 else 20"),
    )
    while run.poll() is None:
        assert time.monotonic() - start < MAX_SECONDS, (cluster / "snakemake.log").read_text()[-3000:]
        disturbance.step()
        time.sleep(0.3)
    assert run.returncode == 0, (cluster / "snakemake.log").read_text()[-3000:]

    lines = slurm("squeue", "--noheader", "--states=all", "--format=%i|%N|%T|%k").splitlines()
    jobs = [line.split("|") for line in lines]
    completed = [job for job in jobs if job[2] == "COMPLETED"]
    cluster_seconds = time.monotonic() - start
    print(
        f"\n{len(jobs)} submissions, {len(completed)} completed, on {', '.join(sorted({job[1] for job in completed}))}; "
        f"{cluster_seconds:.0f} s, on one machine {local_seconds:.0f} s, "
        f"{(cluster_seconds - local_seconds) / len(jobs):.1f} s more a submission; "
        f"disturbed: {json.dumps(disturbance.affected_jobs)}"
    )
    waits, lengths = zip(*(queue_and_run_seconds(job[0]) for job in completed), strict=True)
    scripts = [seconds(path) for path in (cluster / "logs" / "benchmarks").rglob("*.tsv")]
    print(
        f"a completed job waited {statistics.mean(waits):.1f} s and lasted {statistics.mean(lengths):.1f} s, "
        f"its script {statistics.mean(scripts):.1f} s"
    )
    assert disturbance.affected_jobs.keys() == {"killed", "out of time", "node down"}
    assert {job[1] for job in completed} == {"node1", "node2"}
    # Every judge job ran out of memory once, and disturbed jobs did not complete.
    ends = {job[0]: job[2] for job in jobs}
    assert all(ends[job] != "COMPLETED" for job in disturbance.affected_jobs.values())
    assert sum(job[2] != "COMPLETED" and "judge" in job[3] for job in jobs) >= 1
    files = sorted(path.relative_to(local) for path in (local / "results").rglob("*") if comparable(path))
    assert [path for path in files if (local / path).read_bytes() != (cluster / path).read_bytes()] == []
    assert len(files) > 20


def queue_and_run_seconds(job: str) -> tuple[float, float]:
    """Seconds that a job waited in the queue, and that it ran."""
    times = slurm("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%V|%S|%e").strip()
    submit_time, start_time, end_time = map(datetime.fromisoformat, times.split("|"))
    return (start_time - submit_time).total_seconds(), (end_time - start_time).total_seconds()


def seconds(benchmark: Path) -> float:
    """Seconds that the script of a job took, from the table that Snakemake writes."""
    with benchmark.open() as file:
        return float(next(csv.DictReader(file, delimiter="\t"))["s"])


N_SUBMITTED = 20


def test_an_array_is_submitted_faster_than_single_jobs_and_all_its_jobs_complete(tmp_path):
    """The jobs do nothing, and Slurm runs them without Snakemake."""
    times = {}
    for name, calls in {"single jobs": [()] * N_SUBMITTED, "an array": [(f"--array=1-{N_SUBMITTED}",)]}.items():
        start, ids = time.monotonic(), []
        for arguments in calls:
            output = slurm("sbatch", "--parsable", f"--output={tmp_path}/%j.log", *arguments, "--mem=50", "--wrap=true")
            ids.append(output.strip())
        submitted = time.monotonic() - start
        command = ("squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(ids)}", "--format=%T")
        while (states := slurm(*command).split()) != ["COMPLETED"] * N_SUBMITTED:
            assert time.monotonic() - start < MAX_SECONDS / 4, states
            time.sleep(0.2)
        times[name] = (submitted, time.monotonic() - start)
    for name, (submitted, ended) in times.items():
        print(
            f"\n{N_SUBMITTED} jobs as {name}: {submitted:.2f} s to submit, {ended:.1f} s until the last has ended",
            end="",
        )
    print()
    assert times["an array"][0] < times["single jobs"][0]


def comparable(path: Path) -> bool:
    """Whether a file has the same bytes in every run; a journal has not, as its lines are in the order of the work."""
    return path.is_file() and "journal" not in path.parts
