"""Calls with faults, kills, limits and budgets: replies are those without faults, none is lost or paid for twice, limits hold."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress

import pytest

from arena_cje.calls import runner
from arena_cje.calls.errors import RATE_LIMIT
from arena_cje.calls.ledger import Ledger
from arena_cje.calls.reading import parse_reply
from arena_cje.calls.request import Reply, Request
from arena_cje.calls.runner import MAX_FAILURES_IN_A_ROW, Backoff, journaled_ask, run
from arena_cje.errors import UserError
from arena_cje.journal import Journal
from arena_cje.journal import read as read_journal
from calls_process import call_job, call_price, chat, chats, endpoint, environment
from fault_server import TRANSIENT, FaultServer, respond, scripted, seeded
from workflow_run import ROOT


def ask_all(job, folder, requests, name="0000"):
    """Replies that a job gets through its journal."""
    with Journal(folder / "calls" / f"{name}.jsonl") as journal:
        return journaled_ask(job, journal)(requests)


def expected_reply(request: Request) -> Reply:
    """The reply without faults."""
    path = "/v1/chat/completions" if request.kind == "chat" else "/v1/completions"
    return parse_reply(request, respond(path, request.body, None, "", 0)[2])


def start_job(url, folder, name="0000", items=(0, 40), **changes):
    """A job in a process of its own."""
    arguments = {"url": url, "folder": str(folder), "name": name, "items": items, **changes}
    script = str(ROOT / "tests" / "support" / "calls_process.py")
    return subprocess.Popen(
        [sys.executable, script, json.dumps(arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish_job(process):
    """The JSON that a successful job printed."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def journal_keys(folder):
    """Keys of all lines of all journals."""
    return [key for path in sorted((folder / "calls").glob("*.jsonl")) for key, _ in read_journal(path)]


# Faults


@pytest.mark.parametrize("api", ["openai", "fireworks"])
def test_faults_change_no_reply_and_every_reply_is_journaled_once(tmp_path, api, caplog):
    caplog.set_level(logging.INFO, logger="arena_cje")  # a benchmark may have set another level
    requests = [
        *chats(0, 60),
        *(chat(f"sure {i}", logprobs=True, top_logprobs=3) for i in range(20)),
        *(
            Request("completion", {"model": "m", "prompt": f"a b {i}", "max_tokens": 1, "echo": True, "logprobs": 1})
            for i in range(20)
        ),
    ]
    with FaultServer(faults=seeded(0.3, seed=5), latency=0.01, retry_after=0.05) as server:
        # A reply that is late on a slow machine must not count as missing.
        job = call_job(server.url, tmp_path, api=api, timeout=5)
        replies = ask_all(job, tmp_path, requests + requests[:10])
        n_faults = server.sent.total() - server.answered.total()
    without_usage = [(vars(reply) | {"usage": None}) for reply in replies]
    assert without_usage == [(vars(expected_reply(request)) | {"usage": None}) for request in requests + requests[:10]]
    assert set(server.answered.values()) == {1}
    assert len(server.answered) == len(requests)
    assert sorted(journal_keys(tmp_path)) == sorted(request.key(job.endpoint) for request in requests)
    assert n_faults == job.totals.retries.total() > 25
    assert job.totals.calls == server.sent.total()
    assert len(job.totals.retries) >= 5
    # The ledger has every call that may have been paid for; only impossible numbers of tokens are replaced by estimates.
    spent = [json.loads(line) for line in (tmp_path / "spending.jsonl").read_text().splitlines()]
    assert len(spent) == len(requests) + job.totals.retries["unreadable reply"]
    n_estimated = (
        sum(reply.usage is None for reply in replies[: len(requests)]) + job.totals.retries["unreadable reply"]
    )
    assert sum(line["estimated"] for line in spent) == n_estimated
    assert all(line["prompt_tokens"] > 0 and line["usd"] == 0.01 for line in spent)
    assert job.totals.usd == pytest.approx(0.01 * len(spent))
    total = caplog.messages[-2]
    assert all(f"{count} {kind}" in total for kind, count in job.totals.retries.items())


def test_seeded_faults_are_of_every_kind():
    counts = Counter(seeded(0.3, seed=5)(request.body, k) for request in chats(0, 400) for k in range(2))
    assert set(TRANSIENT) | {"wrong usage"} == counts.keys() - {None}
    assert 0.25 < 1 - counts[None] / counts.total() < 0.35


def test_requests_without_a_reply_are_reported_and_sent_again_by_the_next_run(tmp_path, caplog):
    requests = chats(0, 30)
    bad = {request.body["messages"][0]["content"] for request in requests[3:9]}

    def faults(body, earlier):
        return {0: "500", 1: "dropped"}.get(earlier % 2) if body["messages"][0]["content"] in bad else None

    with FaultServer(faults=faults) as server:
        job = call_job(server.url, tmp_path, max_attempts=2)
        with pytest.raises(
            UserError, match=r"6 of 30 requests got no reply after 2 attempts each \(6 connection lost"
        ) as error:
            ask_all(job, tmp_path, requests)
        assert "run the same command again, which sends only these" in str(error.value)
        assert len(journal_keys(tmp_path)) == 24
        server.faults = scripted()
        before = server.sent.total()
        replies = ask_all(job, tmp_path, requests)
        assert server.sent.total() - before == 6
    assert replies == [expected_reply(request) for request in requests]


def test_an_unreachable_server_advises_to_check_the_address(tmp_path):
    job = call_job("http://127.0.0.1:9", tmp_path, max_attempts=1)
    with pytest.raises(
        UserError, match=r"2 of 2 requests .*; check that the server is running and that `base_url` is right"
    ):
        ask_all(job, tmp_path, chats(0, 2))


def test_a_server_that_answers_nothing_but_429_ends_the_run(tmp_path):
    with FaultServer(faults=lambda *_: "429") as server:
        with pytest.raises(
            UserError, match=r"answers no request: after 3 pauses .* last reply was rate limit \(429\): Rate limit"
        ):
            ask_all(call_job(server.url, tmp_path, max_attempts=3), tmp_path, chats(0, 400))
        assert server.sent.total() < 100


def test_many_failures_between_replies_do_not_stop_the_sending(tmp_path):
    def faults(body, _):
        return "500" if int(body["messages"][0]["content"].split()[1]) % 2 else None

    with FaultServer(faults=faults) as server:
        job = call_job(server.url, tmp_path, max_attempts=1, max_concurrency=4)
        with pytest.raises(UserError, match="40 of 80 requests got no reply after 1 attempts"):
            ask_all(job, tmp_path, chats(0, 80))
    assert len(journal_keys(tmp_path)) == 40 > MAX_FAILURES_IN_A_ROW + 4


def test_journaled_replies_need_neither_key_nor_server(tmp_path):
    requests = [*chats(0, 8), chat("sure", logprobs=True, top_logprobs=2)]
    with FaultServer() as server:
        first = ask_all(call_job(server.url, tmp_path), tmp_path, requests)
        url, n_sent = server.url, server.sent.total()
    job = call_job(url, tmp_path, api_key_env=None, budget_usd=0.0001)
    assert ask_all(job, tmp_path, requests) == first
    assert (n_sent, job.totals.calls) == (9, 0)
    assert "GONE_KEY" not in os.environ
    needs_key = call_job(url, tmp_path, api_key_env="GONE_KEY")
    assert ask_all(needs_key, tmp_path, requests) == first
    with pytest.raises(UserError, match="the environment variable GONE_KEY contains no API key"):
        ask_all(needs_key, tmp_path, chats(8, 9))


@pytest.mark.parametrize("fault", ["401", "404", "quota", "400"])
def test_a_permanent_failure_stops_the_sending(tmp_path, fault):
    requests = chats(0, 200)
    good = {request.body["messages"][0]["content"] for request in requests[:20]}
    with FaultServer(
        faults=lambda body, _: None if body["messages"][0]["content"] in good else fault, latency=0.01
    ) as server:
        job = call_job(server.url, tmp_path)
        with pytest.raises(UserError, match="status 4"):
            ask_all(job, tmp_path, requests)
        assert server.sent.total() <= 20 + 8
        # On a slow machine the failure may arrive before the last good requests have been sent.
        assert 20 - 8 <= len(journal_keys(tmp_path)) == server.answered.total() <= 20


def test_requests_in_flight_at_a_permanent_failure_are_journaled(tmp_path):
    def faults(body, _):
        return "quota" if body["messages"][0]["content"] == "question 7" else None

    with FaultServer(faults=faults, latency=0.3) as server:
        with pytest.raises(UserError, match="quota"):
            ask_all(call_job(server.url, tmp_path), tmp_path, chats(0, 100))
        assert len(journal_keys(tmp_path)) == server.answered.total() >= 7


def test_an_unreachable_server_ends_the_run_early(tmp_path):
    job = call_job("http://127.0.0.1:1", tmp_path, max_attempts=2, max_concurrency=4)
    with pytest.raises(
        UserError, match="cannot be reached: the last 24 requests failed 2 times each .*connection lost"
    ):
        ask_all(job, tmp_path, chats(0, 400))
    assert MAX_FAILURES_IN_A_ROW + 4 == 24
    assert job.totals.calls < 400


def test_closing_the_generator_stops_the_sending(tmp_path):
    with FaultServer(latency=0.05) as server:
        requests = {str(k): request for k, request in enumerate(chats(0, 500))}
        replies = run(requests, call_job(server.url, tmp_path))
        next(replies)
        replies.close()
        n_sent = server.sent.total()
        assert n_sent <= 30
        time.sleep(0.2)
        assert server.sent.total() == n_sent
    assert not any(thread.name.startswith("calls to") for thread in threading.enumerate())


def test_a_bug_is_not_retried(tmp_path):
    def broken(*_):
        raise ZeroDivisionError("in the table of prices")

    with FaultServer() as server:
        job = call_job(server.url, tmp_path)
        job.ledger.call_price = broken
        with pytest.raises(ZeroDivisionError):
            ask_all(job, tmp_path, chats(0, 50))
        assert server.sent.total() <= 8


# Kills


def test_after_kill_9_no_journaled_request_is_sent_again(tmp_path):
    with FaultServer(latency=0.05, faults=seeded(0.1, seed=2, kinds=("503", "truncated"))) as server:
        in_journal: list[str] = []
        for at_least in (20, 60):
            process = start_job(server.url, tmp_path, items=(0, 100))
            while len(in_journal) < at_least:
                time.sleep(0.01)
                in_journal = journal_keys(tmp_path) if (tmp_path / "calls/0000.jsonl").exists() else []
            process.send_signal(signal.SIGKILL)
            process.wait()
            in_journal = journal_keys(tmp_path)
        assert len(in_journal) < 100
        time.sleep(0.2)
        before = Counter(server.answered)
        job = finish_job(start_job(server.url, tmp_path, items=(0, 100)))
        new_names = [name for name, count in server.answered.items() if count > before[name]]
        keys = [Request("chat", json.loads(name)).key(endpoint(server.url)) for name in new_names]
        assert not set(keys) & set(in_journal)
        assert len(new_names) == 100 - len(in_journal)
        # Two kills; each may lose the requests in flight and the replies that were not yet written.
        assert server.answered.total() <= 100 + 2 * 2 * 8
    assert len(journal_keys(tmp_path)) == len(set(journal_keys(tmp_path))) == 100
    assert job["replies"] == {r.body["messages"][0]["content"]: expected_reply(r).text for r in chats(0, 100)}


@pytest.mark.parametrize("sync_seconds", [0.0, 0.1])
def test_kill_9_costs_no_more_replies_than_were_in_flight(tmp_path, sync_seconds):
    limit = 32
    with FaultServer(latency=0.005) as server:
        changes = {"endpoint": {"max_concurrency": limit}, "sync_seconds": sync_seconds}
        process = start_job(server.url, tmp_path, items=(0, 1500), **changes)
        while server.answered.total() < 300:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.1)
        assert 300 <= server.answered.total() < 1500
        assert server.answered.total() - len(journal_keys(tmp_path)) <= limit


@contextmanager
def interrupted_job(server, folder, number):
    """A job with eight requests in flight that has received a signal and waits for its replies."""
    server.holds_replies = True
    process = start_job(server.url, folder, items=(0, 400))
    while server.in_flight < 8:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    for line in process.stderr:
        if "interrupted: waiting for 8 replies" in line:
            break
    try:
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_waits_for_requests_in_flight_and_sends_no_more(tmp_path, number):
    with FaultServer() as server, interrupted_job(server, tmp_path, number) as process:
        server.holds_replies = False
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in err
        assert server.sent.total() == server.answered.total() == len(journal_keys(tmp_path)) == 8


def test_a_second_interrupt_ends_the_job_at_once(tmp_path):
    with FaultServer() as server, interrupted_job(server, tmp_path, signal.SIGINT) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130  # no reply has come
    assert journal_keys(tmp_path) == []


def test_the_wait_after_an_interrupt_has_a_bound(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(runner, "DRAIN_SECONDS", 0.3)
    with FaultServer() as server:
        server.holds_replies = True

        def interrupt() -> None:
            while server.in_flight < 8:
                time.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            ask_all(call_job(server.url, tmp_path), tmp_path, chats(0, 20))
        assert server.answered.total() == 0
    assert "waiting for 8 replies, at most 0 s" in caplog.text
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# Limits over processes


def test_three_processes_together_have_at_most_eight_requests_in_flight(tmp_path):
    with FaultServer(latency=0.1) as server:
        jobs = [start_job(server.url, tmp_path, f"{k:04}", (60 * k, 60 * k + 60)) for k in range(3)]
        results = [finish_job(job) for job in jobs]
        assert server.max_in_flight == 8
        # The jobs ran together: a job that waited for another one to end would show in its own seconds alone.
        assert server.times[-1] - server.times[0] < sum(job["seconds"] for job in results)
    assert sum(job["calls"] for job in results) == 180


def ask_side_by_side(jobs, folder, each):
    """Run jobs in threads; they share nothing but files."""
    threads = [
        threading.Thread(target=ask_all, args=(job, folder, chats(each * k, each * k + each), f"{k:04}"))
        for k, job in enumerate(jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def test_the_rate_limit_holds_for_two_jobs(tmp_path):
    with FaultServer() as server:
        ask_side_by_side([call_job(server.url, tmp_path, requests_per_minute=1800) for _ in range(2)], tmp_path, 25)
        times = sorted(server.times)
    assert len(times) == 50
    # One request each 1/30 s over both jobs. The first one may arrive late, by far less than 0.3 s.
    assert all(arrival - times[0] >= i / 30 - 0.3 for i, arrival in enumerate(times))


def test_runs_in_two_folders_together_have_at_most_eight_requests_in_flight(tmp_path):
    """Neither of two runs in different folders waits for the end of the other one."""
    with FaultServer(latency=0.1) as server:
        jobs = [start_job(server.url, tmp_path / name, items=(200 * k, 200 * k + 200)) for k, name in enumerate("ab")]
        results = [finish_job(job) for job in jobs]
        assert server.max_in_flight == 8
        assert server.answered.total() == 400
        # Which of the two each of the server's requests came from, in the order of their arrival.
        sides = [int(body["messages"][0]["content"].split()[1]) // 200 for body in server.bodies]
    assert sum(sides[100:200]) not in (0, 100)
    assert 400 * 0.1 / 8 * 0.9 < server.times[-1] - server.times[0] < sum(job["seconds"] for job in results)


def test_the_rate_limit_holds_over_two_folders(tmp_path):
    with FaultServer() as server:
        jobs = [call_job(server.url, tmp_path / name, requests_per_minute=1800) for name in "ab"]
        threads = [
            threading.Thread(target=ask_all, args=(job, job.folder, chats(20 * k, 20 * k + 20)))
            for k, job in enumerate(jobs)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        times = sorted(server.times)
    assert len(times) == 40
    assert times[-1] - times[0] >= 39 / 30 - 0.3


def test_a_single_retry_after_delays_only_its_own_request(tmp_path):
    def faults(body, earlier):
        return "429 with Retry-After" if body["messages"][0]["content"] == "question 20" and not earlier else None

    with FaultServer(faults=faults, retry_after=1.0, latency=0.01) as server:
        ask_all(call_job(server.url, tmp_path), tmp_path, chats(0, 300))
        questions = [body["messages"][0]["content"] for body in server.bodies]
        first, again = (place for place, text in enumerate(questions) if text == "question 20")
        assert server.times[again] - server.times[first] >= 0.95
        assert sum(sent < server.times[first] + 0.9 for sent in server.times[first:]) > 2 * 8


def test_all_jobs_wait_for_retry_after_while_no_request_gets_a_reply(tmp_path):
    closed_at = None

    def faults(body, earlier):
        nonlocal closed_at
        if closed_at is None and body["messages"][0]["content"] == "question 20":
            closed_at = time.monotonic()
        is_closed = closed_at is not None and time.monotonic() < closed_at + 1.0
        return "429 with Retry-After" if is_closed else None

    with FaultServer(faults=faults, retry_after=1.0, latency=0.01) as server:
        ask_side_by_side([call_job(server.url, tmp_path) for _ in range(2)], tmp_path, 150)
        assert server.answered.total() == 300
        times = sorted(server.times)
        n_rejected = server.sent.total() - 300
    silent = max(range(len(times) - 1), key=lambda i: times[i + 1] - times[i])
    assert times[silent + 1] - times[silent] >= 0.7
    assert n_rejected < 40


def test_a_long_retry_after_is_waited_for(tmp_path, caplog):
    with FaultServer(faults=scripted("429 with Retry-After"), retry_after=300) as server:
        job = call_job(server.url, tmp_path)
        replies = run({"0": chat("x")}, job)

        def read_on() -> None:
            with suppress(UserError):  # the server stops during the wait
                list(replies)

        reading = threading.Thread(target=read_on, daemon=True)
        reading.start()
        deadline = time.monotonic() + 60
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)
        assert f"1 retry: 1 rate limit ({RATE_LIMIT}); waiting 300 s" in caplog.messages
        assert server.sent.total() == 1


@pytest.mark.parametrize("fault", ["429", "429 with Retry-After"])
def test_other_requests_are_sent_meanwhile_if_a_tenth_of_the_replies_are_429s(tmp_path, fault):
    """Those 429s concern single requests: each waits for its next attempt, and the others do not."""
    with FaultServer(faults=seeded(0.1, seed=3, kinds=(fault,)), retry_after=1.0, latency=0.05) as server:
        job = call_job(server.url, tmp_path)
        ask_all(dataclasses.replace(job, backoff=Backoff()), tmp_path, chats(0, 300))
        requests = list(zip(server.bodies, server.times, strict=True))
    assert job.totals.retries.total() > 10
    rejected = [sent for k, (body, sent) in enumerate(requests) if any(body == again for again, _ in requests[k + 1 :])]
    n_meanwhile = [sum(at < sent < at + 0.9 for _, sent in requests) for at in rejected]
    # A pause of all requests lets through only those in flight, at most 8.
    assert statistics.median(n_meanwhile) > 2 * 8


def test_status_429_reduces_the_pace(tmp_path):
    """A server that answers 429 to more than three requests at once: the job adapts and gets all replies."""
    with FaultServer(latency=0.02) as server:
        server.faults = lambda body, earlier: "429" if server.in_flight > 3 else None
        job = call_job(server.url, tmp_path, max_attempts=30)
        replies = ask_all(job, tmp_path, chats(0, 120))
        assert len(replies) == 120
        assert job.totals.retries["rate limit (429)"] < 60


# Budget


def test_a_spent_budget_stops_all_jobs(tmp_path):
    with FaultServer(latency=0.05) as server:
        jobs = [start_job(server.url, tmp_path, f"{k:04}", (200 * k, 200 * k + 200), budget_usd=0.5) for k in range(2)]
        for job in jobs:
            _, err = job.communicate(timeout=60)
            assert job.returncode == 1
            assert "the budget is used up: 0.5" in err
        assert 50 <= server.answered.total() <= 50 + 8
        assert len(journal_keys(tmp_path)) == server.answered.total()
        assert Ledger(tmp_path / "spending.jsonl", call_price).total_usd() == pytest.approx(
            0.01 * server.answered.total()
        )
        # With the same budget no further request is sent; with a larger one all remaining ones are.
        before = server.sent.total()
        with pytest.raises(UserError, match="raise it"):
            ask_all(call_job(server.url, tmp_path, budget_usd=0.5), tmp_path, chats(0, 200))
        assert server.sent.total() == before
        ask_all(call_job(server.url, tmp_path, budget_usd=5), tmp_path, chats(0, 200))
        assert set(server.answered.values()) == {1}


def test_a_budget_without_a_price_sends_nothing(tmp_path):
    with FaultServer() as server:
        requests = [chat("x"), Request("chat", dict(chat("y").body) | {"model": "unpriced"})]
        with pytest.raises(UserError, match="the price of model 'unpriced' is unknown"):
            ask_all(call_job(server.url, tmp_path, budget_usd=5), tmp_path, requests)
        assert server.sent.total() == 0
        job = call_job(server.url, tmp_path)
        ask_all(job, tmp_path, requests)
        assert job.totals.usd is None


def test_jobs_that_need_the_same_replies_send_each_request_once(tmp_path):
    with FaultServer(latency=0.05) as server:
        jobs = [start_job(server.url, tmp_path, name, (0, 30)) for name in ("a-0000", "b-0000", "c-0000")]
        for job in jobs:
            finish_job(job)
        assert server.answered.total() == len(server.answered) == 30
    records = [dict(read_journal(tmp_path / "calls" / f"{name}-0000.jsonl")) for name in "abc"]
    assert records[0] == records[1] == records[2]
    assert len(records[0]) == 30
