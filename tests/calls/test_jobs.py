"""A job with calls: its journal, its counts, and no key in any file."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from arena_cje.stages import jobs
from calls_job import KEY, snakemake
from calls_process import environment
from fault_server import FaultServer

JOB = """
import json, logging, sys
from pathlib import Path
from arena_cje.stages import jobs
from calls_job import KEY, snakemake
from calls_process import chat

snakemake_object = snakemake(Path.cwd(), sys.argv[1])
with jobs.job(snakemake_object) as log:
    config = jobs.configuration(snakemake_object)
    with jobs.calls(snakemake_object, config.endpoint(config.judge), "judges/other", "base-0000", "base") as ask:
        log.info("one %s two %s", KEY, KEY[4:13])
        replies = ask([chat("a b"), chat("a b"), chat("c")]) + ask([chat("d")])
        print(json.dumps([reply.text for reply in replies]))
        if sys.argv[2] == "bug":
            raise RuntimeError(f"a bug that knows {KEY}") from ValueError(KEY)
"""


def run_job(folder, url, ending="success"):
    return subprocess.run(
        [sys.executable, "-c", JOB, url, ending],
        cwd=folder,
        env=environment(MY_KEY=KEY),
        capture_output=True,
        text=True,
    )


def places_with_key(folder: Path, *texts: str) -> list[str]:
    """Files and texts that contain a part of the key."""
    pieces = [KEY[i : i + 8] for i in range(len(KEY) - 7)]
    files = {str(path): path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()}
    return [name for name, text in (files | dict(enumerate(texts))).items() if any(piece in text for piece in pieces)]


def test_a_job_sends_records_and_counts_its_requests_without_repeating_the_key(tmp_path, server):
    before = server.sent.total()
    process = run_job(tmp_path, server.url)
    assert process.returncode == 0, process.stderr
    texts = json.loads(process.stdout)
    assert texts[0] == texts[1]
    assert server.sent.total() - before == 3
    keys, values = (line.split("\t") for line in (tmp_path / "logs/job.tsv").read_text().splitlines())
    row = dict(zip(keys, values, strict=True))
    assert {name: row[name] for name in ("items", "calls", "retries", "prompt_tokens")} == {
        "items": "3",
        "calls": "3",
        "retries": "0",
        "prompt_tokens": "4",
    }
    assert float(row["cost_usd"]) == pytest.approx(4 * 1000 / 1e6)
    assert (tmp_path / "results/journal/calls/judges/other/base-0000.jsonl").exists()
    spent = [json.loads(line) for line in (tmp_path / "results/journal/spending.jsonl").read_text().splitlines()]
    assert {(line["stage"], line["policy"]) for line in spent} == {("judges/other", "base")}
    assert places_with_key(tmp_path, process.stdout, process.stderr) == []
    assert "one *** two ***" in process.stderr

    again = run_job(tmp_path, server.url)
    assert json.loads(again.stdout) == texts
    assert server.sent.total() - before == 3


def test_a_key_that_replies_repeat_is_in_no_file(tmp_path):
    """Neither in journals and spendings, nor in logs."""

    def reply(path, body):
        text = f"I was called with {KEY}, that is {KEY[2:14]}."
        return {"model": f"m-{KEY}", "choices": [{"message": {"content": text}, "finish_reason": "stop"}]}

    with FaultServer(replies=reply) as server:
        process = run_job(tmp_path, server.url)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)[0] == "I was called with ***, that is ***."
    assert places_with_key(tmp_path, process.stdout, process.stderr) == []


@pytest.mark.parametrize(("fault", "ending"), [("401", "success"), (None, "bug")])
def test_the_key_is_in_no_log_error_or_file(tmp_path, fault, ending):
    with FaultServer(faults=lambda *_: fault) as server:
        process = run_job(tmp_path, server.url, ending)
    assert process.returncode == 1
    assert {"401": "not accepted", None: "a bug that knows ***"}[fault] in process.stderr
    assert places_with_key(tmp_path, process.stdout, process.stderr) == []


def test_a_job_without_calls_has_no_call_counts_in_its_benchmark(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snakemake_object = snakemake(tmp_path, "http://127.0.0.1:1")
    snakemake_object.wildcards = SimpleNamespace(shard="0000")
    with jobs.journal(snakemake_object, "judge/base"):
        pass
    keys, values = (line.split("\t") for line in Path(snakemake_object.log.benchmark).read_text().splitlines())
    assert dict(zip(keys, values, strict=True)).items() >= {"calls": "NA", "retries": "NA", "cost_usd": "NA"}.items()


def test_the_keys_of_all_blocks_are_redacted_in_the_log(monkeypatch):
    monkeypatch.setenv("ONE", "1" * 9)
    monkeypatch.setenv("TWO", "2" * 9)
    settings = {
        "providers": {"a": {"api_key_env": "ONE"}},
        "judges": {"b": {"api_key_env": "TWO"}},
        "list": [{"api_key_env": "GONE"}],
    }
    assert jobs._keys(settings) == {"1" * 9, "2" * 9}
    formatter = jobs._Redacting("%(message)s", jobs._keys(settings))
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", ("1" * 9,), None)
    assert formatter.format(record) == "***"
