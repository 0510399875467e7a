"""The status of a run, compared with values worked out by hand from the files that a test writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from arena_cje import __main__ as command
from arena_cje.config.parse import parse
from arena_cje.errors import UserError
from arena_cje.stages import run_record, status
from workflow_run import ROOT

MODELS = {"models": {"small": {"path": "small.gguf"}}, "judge": {"model": "small"}}
POLICIES = {"base": {"model": "small", "system_prompt": "helpful.txt"}, "other": {"like": "base"}}
START = 1_700_000_000.0  # seconds since the epoch


def experiment(**keys):
    return parse({"n_prompts": 25, "shard_size": 10, "policies": POLICIES, "draws_per_prompt": 2} | MODELS | keys)


class RunFolder:
    """A folder with the files of a run that is not finished; times are seconds after its start."""

    def __init__(self, folder):
        self.folder, self.jobs = folder, []

    def job(self, stage: str, name: str, shard: int, items: int, *, needed: bool = True, journal_bytes: int = 0):
        """A job of the run that has no files yet."""
        place = f"{stage}/{name}/{shard:04d}"
        suffix = "parquet" if stage == "score" else "jsonl"
        job = run_record.PlannedJob(
            (f"results/{place}.{suffix}",),
            needed,
            stage,
            name,
            f"{shard:04d}",
            items,
            f"logs/{place}.log",
            f"logs/benchmarks/{place}.tsv",
            f"results/journal/{place}.jsonl",
            journal_bytes,
        )
        self.jobs.append(job)
        return job

    def join(self, output: str):
        self.jobs.append(run_record.PlannedJob((output,), True, log=f"logs/{output}.log"))

    def write(self, path: str, text: str, at: float) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        os.utime(file, (START + at, START + at))

    def finish(self, job, rows, *, at: float, seconds: float, items: int) -> None:
        """The output and the benchmark of a job."""
        self.write(job.benchmark, f"s\th:m:s\titems\n{seconds}\t0:00:00\t{items}\n", at)
        self.write(job.outputs[0], "".join(json.dumps(row) + "\n" for row in rows), at)

    def log(self, job, lines, *, at: float, began: float = 0.0) -> None:
        stamps = [began] + [at] * (len(lines) - 1)
        text = "".join(f"{stamp_of(START + stamp)} {line}\n" for stamp, line in zip(stamps, lines, strict=True))
        self.write(job.log, text, at)

    def status(self, **keys):
        """The status, as read from the files."""
        record = {"started": START, "process": os.getpid(), "host": "elsewhere", "jobs": self.jobs} | keys
        jobs = [vars(job) for job in record["jobs"]]
        self.write(".arena-cje/run.json", json.dumps(record | {"jobs": jobs}), 0)
        return status.read_status(self.folder)


def stamp_of(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    return f"{whole},{round(seconds % 1 * 1000):03d}"


@pytest.fixture
def run_folder(tmp_path):
    return RunFolder(tmp_path)


def ok(n):
    return [{"status": "ok"}] * n


def test_jobs_items_rates_and_reasons_add_up(run_folder):
    first, second, third, failed = (run_folder.job("generate", "base", shard, 10) for shard in range(4))
    judged = run_folder.job("judge", "base", 0, 10)
    run_folder.join("results/done.json")
    run_folder.join("results/missing.json")
    run_folder.finish(first, ok(8) + [{"status": "too_long"}] * 2, at=20, seconds=20, items=10)
    run_folder.log(second, ["INFO 10 responses: 2 in the journal, 8 to do"], began=20, at=20)
    run_folder.write(second.journal, "a\nb\nc\nhalf", at=32)  # 3 of the 8, in 12 seconds
    run_folder.log(
        failed, ["INFO 10 responses: 0 in the journal, 10 to do", "ERROR the server said no"], began=10, at=18
    )
    run_folder.write(failed.journal, "a\nb\n", at=18)
    run_folder.write("results/done.json", "{}", at=30)
    run_folder.write("logs/results/missing.json.log", f"{stamp_of(START + 39)} ERROR no file\n", at=39)
    run_folder.finish(
        judged, [{"score": 0.5}] * 9 + [{"score": None, "reason": "not JSON"}], at=40, seconds=2, items=10
    )
    run_status = run_folder.status(ended=START + 40, succeeded=False)

    base, judge = run_status.lines
    assert (base.items, base.items_done, base.jobs, base.jobs_done) == (40, 10 + 5 + 2, 4, 1)
    assert base.without_result == {"too_long": 2}
    assert judge.without_result == {"not JSON": 1}
    # The run is over, so that a job without its output has failed, whether its log has a reason or not.
    assert base.jobs_failed == 2
    assert sorted(base.errors) == [f"it ended without a reason in {second.log} (killed?)", "the server said no"]
    assert [state.state for state in run_status.other_jobs] == ["done", "failed"]
    assert run_status.elapsed == pytest.approx(40)
    assert run_status.items_per_second == pytest.approx((10 + 3 + 2 + 10) / 40)
    # 20 + 12 + 8 seconds for 10 + 3 + 2 responses; 42 seconds of jobs in 40 seconds.
    seconds_left, is_lower_bound = run_status.seconds_left
    assert seconds_left == pytest.approx(23 * 40 / 15 / (42 / 40))
    assert not is_lower_bound
    assert third.outputs[0] not in status.table(run_status)

    text = status.table(run_status)
    assert "ended with failed jobs; the same command goes on" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["generate", "base", "17", "23", "2", "2"] in rows
    assert ["all", "27", "23", "2"] in rows
    assert "generate base: 2 without a result: too_long" in text
    assert "generate base: 1 job failed: the server said no" in text
    assert "judge base: 1 without a result: not JSON" in text
    assert "27 of 50 items (54%), 1 of 2 other jobs done, 0.62 a second, 3 jobs failed" in text
    assert "other jobs: 1 job failed: no file" in text


def test_a_stage_that_has_not_begun_makes_the_time_left_a_lower_bound(run_folder):
    run_folder.finish(run_folder.job("generate", "base", 0, 100), ok(100), at=50, seconds=50, items=100)
    run_folder.job("generate", "other", 0, 7200 * 2)
    run_folder.job("judge", "base", 0, 10)
    run_status = run_folder.status(ended=START + 50, succeeded=False)
    assert run_status.items_per_second == pytest.approx(2)
    assert run_status.seconds_left == (pytest.approx(14400 / 2), True)
    now = time.time()
    running = replace(run_status, record=replace(run_status.record, ended=None, started=now - 50), now=now)
    assert "2 a second, at least 2.0 h left" in running.progress()


def test_outputs_of_an_earlier_run_count_where_they_are_up_to_date(run_folder):
    current = run_folder.job("generate", "base", 0, 10, needed=False)
    stale = run_folder.job("generate", "base", 1, 10)
    run_folder.finish(current, ok(10), at=-500, seconds=9, items=10)
    run_folder.finish(stale, ok(10), at=-500, seconds=9, items=10)
    run_folder.log(stale, ["INFO 10 responses: 0 in the journal, 10 to do"], began=-520, at=-500)
    run_status = run_folder.status()
    assert (run_status.total.items_done, run_status.total.jobs_done) == (10, 1)
    assert run_status.items_per_second == 0
    assert run_status.seconds_left is None
    assert "time left not known yet" in run_status.progress()


def test_journal_entries_from_before_the_run_are_counted_once(run_folder):
    job = run_folder.job("score", "small", 0, 10, journal_bytes=6)
    run_folder.log(job, ["INFO 20 scores: 4 in the journal, 16 to do"], at=1)  # two samplings of each response
    run_folder.write(job.journal, "x\ny\nz\n" + "new\n" * 6, at=4)
    line = run_folder.status().total
    assert line.items_done == 5  # (4 + 6) of 20 entries
    run_folder.write(job.journal, "new\n", at=5)  # a new journal, because of `fresh`
    assert run_folder.status().total.items_done == 2  # (4 + 1) / 2 = 2.5


def test_scores_without_a_log_probability_are_counted_by_response(run_folder):
    import polars as pl

    job = run_folder.job("score", "small", 0, 3)
    run_folder.finish(job, [], at=1, seconds=1, items=3)
    statuses = ["ok", "ok", "too_long", "too_long", "outside_support", "ok"]
    frame = pl.DataFrame({"prompt_id": ["a", "a", "b", "b", "c", "c"], "status": statuses})
    frame.write_parquet(run_folder.folder / job.outputs[0])
    assert run_folder.status().lines[0].without_result == {"too_long": 1}


def test_a_run_is_running_killed_finished_interrupted_or_unknown(run_folder):
    assert run_folder.status().state == "unknown"  # another machine
    machine = {"host": run_record.socket.gethostname(), "started": time.time()}
    assert run_folder.status(**machine).state == "running"
    process = subprocess.Popen([sys.executable, "-c", ""])
    machine["started"] = time.time()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert run_folder.status(**machine, process=process.pid).state == "killed"  # nobody has read its exit status yet
    process.wait()
    assert run_folder.status(**machine, process=process.pid).state == "killed"
    # The number of the process belongs to another one now.
    assert run_folder.status(host=machine["host"], started=time.time() - 1e6).state == "killed"
    assert run_folder.status(**machine, ended=time.time(), succeeded=True).state == "finished"
    assert run_folder.status(**machine, ended=time.time(), succeeded=False, interrupted=True).state == "interrupted"


def test_jobs_without_items_count_in_the_time_left(run_folder):
    for k, seconds in enumerate((10, 30)):
        run_folder.join(f"results/{k}.json")
        run_folder.log(run_folder.jobs[-1], ["INFO begins"], began=5, at=5)
        run_folder.write(f"results/{k}.json", "{}", at=5 + seconds)
    run_folder.join("results/2.json")
    assert run_folder.status(ended=START + 40, succeeded=False).seconds_left == (pytest.approx(20), False)
    run_folder.job("generate", "base", 0, 10)
    assert run_folder.status(ended=START + 40, succeeded=False).seconds_left is None  # no item is done yet


def test_a_job_that_was_interrupted_has_not_failed(run_folder):
    job, failed = run_folder.job("generate", "base", 0, 10), run_folder.job("generate", "base", 1, 10)
    run_folder.log(job, ["INFO 10 responses: 0 in the journal, 10 to do", "WARNING interrupted"], at=1)
    run_folder.log(failed, ["INFO 10 responses: 0 in the journal, 10 to do", "ERROR the disk is full"], at=1)
    states = [state.state for state in run_folder.status(ended=START + 2, succeeded=False, interrupted=True).jobs]
    assert states == ["started", "failed"]


def test_the_items_of_jobs_follow_from_the_configuration():
    config = experiment(
        coverages=["0.1", "0.5"], oracle={"provider": "llama_cpp", "model": "small", "rubric": "rating.yaml"}
    )

    def items(output):
        return run_record.planned_job(config, [output], ["log", "benchmark"], needed=True).items

    assert items("results/responses/base/0000.jsonl") == 10
    assert items("results/responses/other/0001.jsonl") == 20
    assert items("results/responses/other/0002.jsonl") == 10  # of five prompts
    assert items("results/judge/other/0000.jsonl") == 20
    assert items("results/logprobs/small-helpful/0002.parquet") == 5
    labels = [items(f"results/oracle/base/coverage_{c}/{k:04d}.jsonl") for c in ("0.1", "0.5", "1.0") for k in range(3)]
    assert sum(labels) == 25  # each response once, at the lowest coverage that has it
    assert sum(labels[:3]) == pytest.approx(2.5, abs=1)
    assert run_record.planned_job(config, ["results/archive.zip"], ["log"], needed=True).stage is None


def test_the_command_prints_the_table_and_refuses_a_folder_without_a_run(run_folder, capsys):
    assert command.main(["status", str(run_folder.folder)]) == 1
    assert "no run has been started in this folder" in capsys.readouterr().err
    run_folder.finish(run_folder.job("generate", "base", 0, 1000), ok(1000), at=50, seconds=50, items=1000)
    run_folder.status(ended=START + 60, succeeded=True)
    assert command.main(["status", str(run_folder.folder)]) == 0
    printed = capsys.readouterr().out
    assert "finished" in printed and "1 000 of 1 000 items (100%), 0 of 0 other jobs done" in printed


def test_the_status_of_a_run_without_items_counts_only_its_other_jobs(run_folder):
    """The analysis of a user's own data."""
    run_folder.join("results/coverage_1.0/direct.json")
    text = status.table(run_folder.status())
    assert "stage" not in text
    assert "0 of 1 jobs done" in text


def test_the_status_imports_neither_snakemake_nor_large_libraries():
    """It is printed at once, also where the workflow could not start."""
    code = "import sys; import arena_cje.stages.status; sys.exit(any(m in sys.modules for m in ('snakemake', 'polars', 'scipy')))"
    process = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "workflow")})
    assert process.returncode == 0


def test_a_local_job_has_a_journal_of_items_and_a_hosted_one_of_replies():
    hosted = {"provider": "api", "model": "m", "template": "chatml.yaml"}
    config = experiment(
        providers={"api": {"base_url": "http://127.0.0.1:1", "completions": True}},
        policies=POLICIES | {"base": hosted, "far": hosted},
        judges={"api": {"provider": "api", "model": "m", "rubric": "rating.yaml"}},
    )

    def journal(output):
        return run_record.planned_job(config, [output], ["log", "benchmark"], needed=True).journal

    assert journal("results/responses/far/0001.jsonl") == "results/journal/calls/generate/far/0001.jsonl"
    assert journal("results/logprobs/api-m-none/0000.parquet") == "results/journal/calls/score/api-m-none/0000.jsonl"
    assert journal("results/judge/far/0000.jsonl") == "results/journal/judge/far/0000.jsonl"
    assert journal("results/judges/api/far/0000.jsonl") == "results/journal/calls/judges/api/far/0000.jsonl"
    # An output of an outer workflow, and one without a benchmark.
    assert journal("results/responses/stranger/0000.jsonl") is None
    assert run_record.planned_job(config, ["results/judge/far/0000.jsonl"], ["log"], needed=True).journal is None


@pytest.mark.parametrize("content", [[1], {"jobs": []}, {"started": 1, "jobs": {}}, {"jobs": [7]}, None, "text"])
def test_a_file_that_is_no_record_of_a_run_is_refused_with_one_sentence(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"run.json: is not the record of a run; remove it"):
        run_record.read(path)


def test_further_fields_of_another_version_are_ignored(tmp_path):
    path = tmp_path / "run.json"
    run_record.write_start([run_record.PlannedJob(("results/a.json",), True)], path)
    record = run_record.read(path)
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"later": 1, "jobs": [values["jobs"][0] | {"later": 2}]}))
    assert run_record.read(path) == record


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.7, "1 min"), (3569, "59 min"), (3599, "1.0 h"), (5400, "1.5 h")],
)
def test_a_duration_is_rounded_before_its_unit_is_chosen(seconds, text):
    assert status.duration(seconds) == text


def test_a_damaged_benchmark_file_counts_nothing(tmp_path):
    path = tmp_path / "benchmark.tsv"
    for content, expected in (("items\ts\n3\t1.5\n", (3, 1.5)), ("items\ts\n\t\n", (0, 0.0)), ("", (0, 0.0))):
        path.write_text(content)
        assert status._benchmark(path) == expected
