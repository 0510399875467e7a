"""The benchmark of the workflow: counted jobs, the processor time of a command and its children, overheads as shares."""

from __future__ import annotations

import sys

import pytest

from arena_cje.errors import UserError
from benchmarks import workflow


def test_the_default_experiment_has_at_most_120_jobs(tmp_path):
    n_jobs = workflow.count_jobs(workflow.snakemake(tmp_path / "run", "--dry-run").text)
    assert 64 < n_jobs <= 120  # 64 of them run the model


def test_the_cost_of_a_command_counts_its_children(tmp_path):
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}]); print('done')"
    cost = workflow._called([sys.executable, "-c", parent], tmp_path)
    assert 0.3 <= cost.cpu < 3
    assert cost.wall >= 0.3
    assert cost.text == "done\n"


def test_a_command_that_fails_is_named_with_its_last_line(tmp_path):
    with pytest.raises(UserError, match="failed in .*: no model"):
        workflow._called([sys.executable, "-c", "import sys; sys.exit('no model')"], tmp_path)


def test_work_is_summed_over_the_jobs_that_run_a_model(tmp_path):
    for name, seconds, cpu in (
        ("generate/base/0000", 10, 4),
        ("score/small-helpful/0000", 6, 2),
        ("judge/base/0000", 4, 1),
        ("oracle/base/coverage_0.1", 100, 50),
    ):
        path = tmp_path / f"{name}.tsv"
        path.parent.mkdir(parents=True)
        path.write_text(f"s\titems\tcpu_time\n{seconds}\t3\t{cpu}\n")
    assert workflow.model_work(tmp_path) == workflow.Work(20.0, 7.0, 3)


def test_overheads_are_the_shares_of_the_whole_outside_the_model(monkeypatch):
    whole, work = workflow.Cost(wall=100.0, cpu=80.0, text=""), workflow.Work(wall=150.0, cpu=60.0, n_jobs=64)
    monkeypatch.setattr(workflow, "cores", lambda: 2)
    time, cpu = workflow._overheads(whole, work)
    assert (time.value, time.met) == (pytest.approx(0.25), False)
    assert (cpu.value, cpu.met) == (pytest.approx(0.25), False)
    assert "64 jobs with a model together 150 s" in time.detail
    monkeypatch.setattr(workflow, "cores", lambda: 1)
    assert next(workflow._overheads(whole, work)).value is None
