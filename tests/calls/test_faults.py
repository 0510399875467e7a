"""Calls under faults, kills, limits and budgets: the same replies as without, nothing twice, nothing lost, nothing too fast."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest

from arena_cje.calls.client import read
from arena_cje.calls.errors import RATE_LIMIT
from arena_cje.calls.ledger import Ledger
from arena_cje.calls.request import Reply, Request
from arena_cje.calls.runner import HOPELESS, journaled_ask, run
from arena_cje.errors import UserError
from arena_cje.journal import Journal
from arena_cje.journal import read as read_journal
from calls_process import chat, chats, endpoint, usd, work
from fault_server import PASSING, FaultServer, respond, scripted, seeded
from workflow_run import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "workflow"), str(ROOT / "tests" / "support")])}


def ask_all(job, folder, requests, name="0000"):
    """What a job gets, through its journal."""
    with Journal(folder / "calls" / f"{name}.jsonl") as journal:
        return journaled_ask(job, journal)(requests)


def expected(request: Request) -> Reply:
    """The reply when nothing goes wrong."""
    path = "/v1/chat/completions" if request.kind == "chat" else "/v1/completions"
    return read(request, respond(path, request.body, None, "", 0)[2])


def start(url, folder, name="0000", items=(0, 40), **more):
    """A job in a process of its own."""
    asked = {"url": url, "folder": str(folder), "name": name, "items": items, **more}
    script = str(ROOT / "tests" / "support" / "calls_process.py")
    return subprocess.Popen(
        [sys.executable, script, json.dumps(asked)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """What a job that ended well said."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def journaled(folder):
    """Every line of all journals."""
    return [key for path in sorted((folder / "calls").glob("*.jsonl")) for key, _ in read_journal(path)]


# Faults


@pytest.mark.parametrize("api", ["openai", "fireworks"])
def test_faults_change_no_reply_and_nothing_is_lost_or_kept_twice(tmp_path, api, caplog):
    caplog.set_level(logging.INFO)
    requests = [
        *chats(0, 60),
        *(chat(f"sure {i}", logprobs=True, top_logprobs=3) for i in range(20)),
        *(
            Request("completion", {"model": "m", "prompt": f"a b {i}", "max_tokens": 1, "echo": True, "logprobs": 1})
            for i in range(20)
        ),
    ]
    with FaultServer(faults=seeded(0.3, seed=5), latency=0.01, hang=1, retry_after=0.05) as server:
        job = work(server.url, tmp_path, api=api, timeout=0.4)
        replies = ask_all(job, tmp_path, requests + requests[:10])
        wrong = server.sent.total() - server.answered.total()
    without_usage = [(vars(reply) | {"usage": None}) for reply in replies]
    assert without_usage == [(vars(expected(request)) | {"usage": None}) for request in requests + requests[:10]]
    assert set(server.answered.values()) == {1}
    assert len(server.answered) == len(requests)
    assert sorted(journaled(tmp_path)) == sorted(request.key(job.endpoint) for request in requests)
    assert wrong == job.totals.retries.total() > 25
    assert job.totals.calls == server.sent.total()
    assert len(job.totals.retries) >= 5
    # All that was read and may have been paid is in the file, and only numbers that cannot be are estimates.
    spent = [json.loads(line) for line in (tmp_path / "spending.jsonl").read_text().splitlines()]
    assert len(spent) == len(requests) + job.totals.retries["unreadable answer"]
    doubtful = sum(reply.usage is None for reply in replies[: len(requests)]) + job.totals.retries["unreadable answer"]
    assert sum(line["estimated"] for line in spent) == doubtful
    assert all(line["prompt_tokens"] > 0 and line["usd"] == 0.01 for line in spent)
    assert job.totals.usd == pytest.approx(0.01 * len(spent))
    total = caplog.messages[-2]
    assert all(f"{count} {kind}" in total for kind, count in job.totals.retries.items())


def test_every_kind_of_fault_is_among_those_tried():
    drawn = Counter(seeded(0.3, seed=5)(request.body, k) for request in chats(0, 400) for k in range(2))
    assert set(PASSING) | {"wrong usage"} == drawn.keys() - {None}
    assert 0.25 < 1 - drawn[None] / drawn.total() < 0.35


def test_what_has_no_answer_is_left_and_the_others_go_on(tmp_path, caplog):
    requests = chats(0, 30)
    bad = {request.body["messages"][0]["content"] for request in requests[3:9]}

    def faults(body, earlier):
        return {0: "500", 1: "dropped"}.get(earlier % 2) if body["messages"][0]["content"] in bad else None

    with FaultServer(faults=faults) as server:
        job = work(server.url, tmp_path, max_attempts=2)
        with pytest.raises(
            UserError, match=r"6 of 30 calls have no answer after 2 attempts each \(6 connection lost"
        ) as told:
            ask_all(job, tmp_path, requests)
        assert "the same command again" in str(told.value)
        assert len(journaled(tmp_path)) == 24
        server.faults = scripted()
        before = server.sent.total()
        replies = ask_all(job, tmp_path, requests)
        assert server.sent.total() - before == 6
    assert replies == [expected(request) for request in requests]


def test_a_few_calls_to_nobody_say_to_look_at_the_address(tmp_path):
    job = work("http://127.0.0.1:9", tmp_path, max_attempts=1)
    with pytest.raises(UserError, match=r"2 of 2 calls .*; see that it runs and that `base_url` is right, and start"):
        ask_all(job, tmp_path, chats(0, 2))


def test_many_without_an_answer_among_others_stop_nothing(tmp_path):
    def faults(body, _):
        return "500" if int(body["messages"][0]["content"].split()[1]) % 2 else None

    with FaultServer(faults=faults) as server:
        job = work(server.url, tmp_path, max_attempts=1, max_concurrency=4)
        with pytest.raises(UserError, match="40 of 80 calls have no answer after 1 attempts"):
            ask_all(job, tmp_path, chats(0, 80))
    assert len(journaled(tmp_path)) == 40 > HOPELESS + 4


def test_the_same_replies_come_from_the_journal_without_a_key_or_a_server(tmp_path):
    requests = [*chats(0, 8), chat("sure", logprobs=True, top_logprobs=2)]
    with FaultServer() as server:
        first = ask_all(work(server.url, tmp_path), tmp_path, requests)
        url, sent = server.url, server.sent.total()
    job = work(url, tmp_path, api_key_env=None, budget_usd=0.0001)
    assert ask_all(job, tmp_path, requests) == first
    assert (sent, job.totals.calls) == (9, 0)
    assert "GONE_KEY" not in os.environ
    needs_key = work(url, tmp_path, api_key_env="GONE_KEY")
    assert ask_all(needs_key, tmp_path, requests) == first
    with pytest.raises(UserError, match="no key in the environment variable GONE_KEY"):
        ask_all(needs_key, tmp_path, chats(8, 9))


@pytest.mark.parametrize("fault", ["401", "404", "quota", "400"])
def test_what_cannot_pass_stops_within_the_requests_in_flight(tmp_path, fault):
    requests = chats(0, 200)
    good = {request.body["messages"][0]["content"] for request in requests[:20]}
    with FaultServer(
        faults=lambda body, _: None if body["messages"][0]["content"] in good else fault, latency=0.01
    ) as server:
        job = work(server.url, tmp_path)
        with pytest.raises(UserError, match="status 4"):
            ask_all(job, tmp_path, requests)
        assert server.sent.total() <= 20 + 8
        assert len(journaled(tmp_path)) == server.answered.total() == 20


def test_what_is_in_flight_when_one_cannot_pass_is_kept(tmp_path):
    def faults(body, _):
        return "quota" if body["messages"][0]["content"] == "question 7" else None

    with FaultServer(faults=faults, latency=0.3) as server:
        with pytest.raises(UserError, match="quota"):
            ask_all(work(server.url, tmp_path), tmp_path, chats(0, 100))
        assert len(journaled(tmp_path)) == server.answered.total() >= 7


def test_nobody_there_ends_it_before_all_have_been_tried(tmp_path):
    job = work("http://127.0.0.1:1", tmp_path, max_attempts=2, max_concurrency=4)
    with pytest.raises(UserError, match="does not answer: the last 24 calls failed 2 times each .*connection lost"):
        ask_all(job, tmp_path, chats(0, 400))
    assert HOPELESS + 4 == 24
    assert job.totals.calls < 400


def test_one_who_stops_reading_ends_the_sending(tmp_path):
    with FaultServer(latency=0.05) as server:
        requests = {str(k): request for k, request in enumerate(chats(0, 500))}
        replies = run(requests, work(server.url, tmp_path))
        next(replies)
        replies.close()
        sent = server.sent.total()
        assert sent <= 30
        time.sleep(0.2)
        assert server.sent.total() == sent
    assert not any(thread.name.startswith("calls to") for thread in threading.enumerate())


def test_a_bug_in_a_reply_is_no_retry(tmp_path):
    def broken(*_):
        raise ZeroDivisionError("in the table of prices")

    with FaultServer() as server:
        job = work(server.url, tmp_path)
        job.ledger.usd = broken
        with pytest.raises(ZeroDivisionError):
            ask_all(job, tmp_path, chats(0, 50))
        assert server.sent.total() <= 8


# Kills


def test_after_kill_9_nothing_that_is_journaled_is_asked_again(tmp_path):
    with FaultServer(latency=0.05, faults=seeded(0.1, seed=2, kinds=("503", "truncated"))) as server:
        kept: list[str] = []
        for at_least in (20, 60):
            process = start(server.url, tmp_path, items=(0, 100))
            while len(kept) < at_least:
                time.sleep(0.01)
                kept = journaled(tmp_path) if (tmp_path / "calls/0000.jsonl").exists() else []
            process.send_signal(signal.SIGKILL)
            process.wait()
            kept = journaled(tmp_path)
        assert len(kept) < 100
        time.sleep(0.2)
        before = Counter(server.answered)
        said = finish(start(server.url, tmp_path, items=(0, 100)))
        asked = [name for name, count in server.answered.items() if count > before[name]]
        keys = [Request("chat", json.loads(name)).key(endpoint(server.url)) for name in asked]
        assert not set(keys) & set(kept)
        assert len(asked) == 100 - len(kept)
        # What was in flight or not yet written when the process was killed, twice.
        assert server.answered.total() <= 100 + 2 * 2 * 8
    assert len(journaled(tmp_path)) == len(set(journaled(tmp_path))) == 100
    assert said["replies"] == {r.body["messages"][0]["content"]: expected(r).text for r in chats(0, 100)}


# Limits over processes


def test_eight_slots_hold_over_three_processes(tmp_path):
    with FaultServer(latency=0.1) as server:
        jobs = [start(server.url, tmp_path, f"{k:04}", (60 * k, 60 * k + 60)) for k in range(3)]
        said = [finish(job) for job in jobs]
        assert server.most == 8
        # They were at work together: had one waited for another to end, it would show in its seconds alone.
        assert server.times[-1] - server.times[0] < sum(job["seconds"] for job in said)
    assert sum(job["calls"] for job in said) == 180


def ask_side_by_side(works, folder, each):
    """Jobs that share nothing but files, in threads of their own."""
    threads = [
        threading.Thread(target=ask_all, args=(job, folder, chats(each * k, each * k + each), f"{k:04}"))
        for k, job in enumerate(works)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def test_the_pace_holds_for_two_jobs(tmp_path):
    with FaultServer() as server:
        ask_side_by_side([work(server.url, tmp_path, requests_per_minute=1800) for _ in range(2)], tmp_path, 25)
        times = sorted(server.times)
    assert len(times) == 50
    # One each 1/30 s, whoever it is from. What was sent at its time may come late, by far less than this.
    assert times[-1] - times[0] >= 49 / 30 - 0.3
    assert all(times[i + 25] - times[i] >= 25 / 30 - 0.3 for i in range(25))


def test_retry_after_is_honoured_by_all_jobs(tmp_path):
    def faults(body, earlier):
        return "429 with Retry-After" if body["messages"][0]["content"] == "question 20" and not earlier else None

    with FaultServer(faults=faults, retry_after=0.8, latency=0.01) as server:
        ask_side_by_side([work(server.url, tmp_path) for _ in range(2)], tmp_path, 150)
        times = sorted(server.times)
        assert server.sent.total() == 301
    silent = max(range(300), key=lambda i: times[i + 1] - times[i])
    assert times[silent + 1] - times[silent] >= 0.7
    assert 20 <= silent < 280  # in the middle of the work of both


def test_a_long_retry_after_is_waited_for(tmp_path, caplog):
    with FaultServer(faults=scripted("429 with Retry-After"), retry_after=300) as server:
        job = work(server.url, tmp_path)
        replies = run({"0": chat("x")}, job)

        def read_on() -> None:
            with suppress(UserError):  # the server goes away while it waits
                list(replies)

        reading = threading.Thread(target=read_on, daemon=True)
        reading.start()
        deadline = time.monotonic() + 5
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)
        state = json.loads(next(tmp_path.glob("pools/*/pace.json")).read_text())
        assert 290 < state["paused_until"] - time.time() <= 300
        assert f"1 retry: 1 rate limit ({RATE_LIMIT}); waiting 300 s" in caplog.messages
        assert server.sent.total() == 1


def test_fewer_at_a_time_after_too_many(tmp_path):
    """A server that takes three at once, as 429 says: the job finds that out and gets everything."""
    with FaultServer(latency=0.02) as server:
        server.faults = lambda body, earlier: "429" if server.now > 3 else None
        job = work(server.url, tmp_path, max_attempts=30)
        replies = ask_all(job, tmp_path, chats(0, 120))
        assert len(replies) == 120
        assert job.totals.retries["rate limit (429)"] < 60


# Budget


def test_a_budget_stops_all_jobs_within_what_is_in_flight(tmp_path):
    with FaultServer(latency=0.05) as server:
        jobs = [start(server.url, tmp_path, f"{k:04}", (200 * k, 200 * k + 200), budget_usd=0.5) for k in range(2)]
        for job in jobs:
            _, err = job.communicate(timeout=60)
            assert job.returncode == 1
            assert "the budget is spent: 0.5" in err
        assert 50 <= server.answered.total() <= 50 + 8
        assert len(journaled(tmp_path)) == server.answered.total()
        assert Ledger(tmp_path / "spending.jsonl", usd).spent() == pytest.approx(0.01 * server.answered.total())
        # Nothing more is sent under it, and all of the rest under a larger one.
        before = server.sent.total()
        with pytest.raises(UserError, match="raise it"):
            ask_all(work(server.url, tmp_path, budget_usd=0.5), tmp_path, chats(0, 200))
        assert server.sent.total() == before
        ask_all(work(server.url, tmp_path, budget_usd=5), tmp_path, chats(0, 200))
        assert set(server.answered.values()) == {1}


def test_a_budget_without_a_price_sends_nothing(tmp_path):
    with FaultServer() as server:
        requests = [chat("x"), Request("chat", dict(chat("y").body) | {"model": "unpriced"})]
        with pytest.raises(UserError, match="the price of model 'unpriced' is unknown"):
            ask_all(work(server.url, tmp_path, budget_usd=5), tmp_path, requests)
        assert server.sent.total() == 0
        job = work(server.url, tmp_path)
        ask_all(job, tmp_path, requests)
        assert job.totals.usd is None


def test_jobs_that_need_the_same_replies_at_the_same_time_ask_once(tmp_path):
    with FaultServer(latency=0.05) as server:
        jobs = [start(server.url, tmp_path, name, (0, 30)) for name in ("a-0000", "b-0000", "c-0000")]
        for job in jobs:
            finish(job)
        assert server.answered.total() == len(server.answered) == 30
    kept = [dict(read_journal(tmp_path / "calls" / f"{name}-0000.jsonl")) for name in "abc"]
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) == 30
