"""One call: request, reply or failure; limits of concurrency and rate; the ledger; API keys in no message."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena_cje.calls import apis, errors
from arena_cje.calls.client import Client, estimate_usage
from arena_cje.calls.errors import (
    OutputLimit,
    TransientError,
    UnreadableReply,
    classify_status,
    one_line,
    redact,
    seconds_to_wait,
)
from arena_cje.calls.ledger import Ledger
from arena_cje.calls.limits import SUCCESSES_TO_GROW, JobSlots, RateLimit
from arena_cje.calls.reading import MAX_ADDED_TOKENS, parse_reply, plausible_usage
from arena_cje.calls.request import Reply, Request, Usage
from arena_cje.errors import UserError
from arena_cje.stages import jobs
from calls_job import KEY, snakemake
from calls_process import call_price, chat, endpoint
from fault_server import UNFINISHED, FaultServer, scripted
from workflow_run import ROOT

BOTH = pytest.mark.parametrize("api", ["openai", "fireworks"])


def send(request, to):
    """The reply that a client receives for one request."""

    async def once():
        async with Client(to) as client:
            return await client.send(request)

    return asyncio.run(once())


@pytest.fixture(scope="module")
def server():
    with FaultServer() as running:
        yield running


# Requests


@BOTH
@pytest.mark.parametrize("spelling", ["", "/", "/v1", "/v1/"])
def test_every_spelling_of_an_address_finds_the_server(server, api, spelling):
    for request in (chat("x"), Request("completion", {"model": "m", "prompt": "a b", "max_tokens": 1})):
        assert send(request, endpoint(server.url + spelling, api=api)).error is None


@pytest.mark.parametrize(
    ("api", "base_url", "address"),
    [
        ("openai", None, "https://api.openai.com/v1/chat/completions"),
        ("openai", "https://api.example.org/openai/v1", "https://api.example.org/openai/v1/chat/completions"),
        ("fireworks", None, "https://api.fireworks.ai/inference/v1/chat/completions"),
        ("fireworks", "https://api.example.org/inference/v1", "https://api.example.org/inference/v1/chat/completions"),
    ],
)
def test_addresses_come_from_the_configuration_and_not_from_the_environment(api, base_url, address, monkeypatch):
    for name in ("OPENAI_BASE_URL", "FIREWORKS_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/elsewhere")
    sdk = Client(endpoint(base_url, api=api))._sdk
    path = "/v1/chat/completions" if api == "fireworks" else "/chat/completions"
    assert str(sdk._prepare_url(path)) == address


@BOTH
def test_the_body_of_a_request_arrives_unchanged(server, api):
    bodies = {
        "chat": {
            "model": "some/model",
            "messages": [{"role": "system", "content": "Ü"}, {"role": "user", "content": "x\u2028y"}],
            "max_completion_tokens": 5,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 3,
            "reasoning_effort": "low",
            "anything": {"else": [1, None]},
            "response_format": {"type": "json_object"},
        },
        "completion": {"model": "m", "prompt": "a b", "max_tokens": 0, "echo": True, "logprobs": 1, "seed": 7},
    }
    for kind, body in bodies.items():
        send(Request(kind, body), endpoint(server.url, api=api))
        assert server.bodies[-1] == body


@BOTH
def test_the_configured_key_is_sent_and_the_word_none_without_one(server, api, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "not this one")
    monkeypatch.setenv("FIREWORKS_API_KEY", "nor this one")
    monkeypatch.setenv("MY_KEY", KEY + "\n")
    send(chat("x"), endpoint(server.url, api=api, api_key_env="MY_KEY"))
    send(chat("x"), endpoint(server.url, api=api))
    assert list(server.keys)[-2:] == [KEY, "none"] or set(server.keys) == {KEY, "none"}


@pytest.mark.parametrize("wrong", ["two words", "new\nline", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_without_repeating_it(wrong, monkeypatch):
    monkeypatch.setenv("MY_KEY", wrong)
    with pytest.raises(UserError, match="MY_KEY holds characters that an API key cannot have") as error:
        Client(endpoint("http://127.0.0.1:1", api_key_env="MY_KEY"))
    assert wrong not in str(error.value)


@pytest.mark.parametrize("api", apis.NAMES)
def test_an_api_module_has_all_attributes(api):
    module = apis.get(api)
    assert isinstance(module.ECHOES_LOGPROBS, bool)
    assert module.ECHO_MAX_TOKENS in (0, 1)
    assert module.TOP_LOGPROBS > 0
    assert module.token_limit(None) in ("max_tokens", "max_completion_tokens")
    assert module.token_limit("http://127.0.0.1:8000") == "max_tokens"
    assert module.address(None).startswith("https://")


# Replies


def chat_body(choice=None, **rest):
    """The body of an HTTP response to a chat."""
    choice = {"message": {"content": "Yes"}, "finish_reason": "stop"} | (choice or {})
    return orjson.dumps({"choices": [choice], "model": "m-1", **rest})


def test_a_reply_has_all_fields_of_the_body():
    content = [
        {
            "token": "Ye",
            "logprob": -0.5,
            "top_logprobs": [{"token": "Ye", "logprob": -0.5}, {"token": "N", "logprob": -2}],
        },
        {"token": "s", "logprob": -0.25, "top_logprobs": []},
    ]
    body = chat_body(
        {"logprobs": {"content": content}},
        system_fingerprint="fp",
        usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    )
    reply = parse_reply(chat("x"), body)
    assert reply == Reply(
        text="Yes",
        finish_reason="stop",
        tokens=("Ye", "s"),
        token_logprobs=(-0.5, -0.25),
        top_logprobs=({"Ye": -0.5, "N": -2.0}, {}),
        usage=Usage(3, 2),
        model="m-1",
        system_fingerprint="fp",
    )
    assert Reply.from_record(orjson.loads(orjson.dumps(reply.record()))) == reply


def test_both_forms_of_log_probabilities_are_read_alike():
    request = Request("completion", {"model": "m", "prompt": "a", "max_tokens": 1, "echo": True, "logprobs": 1})
    legacy = {"tokens": ["a", " b"], "token_logprobs": [-0.5, -1], "top_logprobs": [None, {" b": -1, " c": -2}]}
    other = {
        "content": [
            {"token": "a", "logprob": -0.5, "top_logprobs": None},
            {
                "token": " b",
                "logprob": -1,
                "top_logprobs": [{"token": t, "logprob": v} for t, v in ((" b", -1), (" c", -2))],
            },
        ]
    }
    one, two = (
        parse_reply(request, orjson.dumps({"choices": [{"text": "a b", "logprobs": form}]})) for form in (legacy, other)
    )
    assert one == two
    assert one.token_logprobs == (-0.5, -1.0)


def test_of_two_tokens_with_one_text_the_likelier_counts():
    tops = [{"token": "\ufffd", "logprob": value} for value in (-1, -3)]
    one = {"logprobs": {"content": [{"token": "\ufffd", "logprob": -3, "top_logprobs": tops}]}}
    assert parse_reply(chat("x"), chat_body(one)).top_logprobs == ({"\ufffd": -1.0},)


def test_the_first_echoed_token_may_have_no_log_probability():
    logprobs = {"tokens": ["a", "b"], "token_logprobs": [None, -1.0], "top_logprobs": None}
    reply = parse_reply(
        Request("completion", {"model": "m", "prompt": "ab"}),
        orjson.dumps({"choices": [{"text": "", "logprobs": logprobs}]}),
    )
    assert reply.token_logprobs == (None, -1.0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        chat_body()[:-20],
        b"[]",
        b"null",
        b"{}",
        b'{"choices": []}',
        b'{"choices": null}',
        b'{"choices": [null]}',
        b'{"choices": [5]}',
        b'{"error": {"message": "busy", "code": 429}}',
        chat_body({"message": "text"}),
        chat_body({"message": ["text"]}),
        chat_body({"message": None, "text": 7}),
        chat_body({"finish_reason": "abort"}),
        chat_body({"error": {"code": 502, "message": "upstream"}}),
    ],
    ids=lambda content: content.decode()[-60:] or "nothing",
)
def test_a_malformed_body_is_an_unreadable_reply(content):
    with pytest.raises(UnreadableReply) as error:
        parse_reply(chat("x"), content)
    assert error.value.kind == "unreadable reply"
    assert error.value.length == len(content)


@pytest.mark.parametrize(
    ("choice", "text", "error"),
    [
        ({"message": {"content": ""}}, "", None),
        ({"message": {"content": None}}, "", None),
        ({"message": {"reasoning": "..."}, "finish_reason": "length"}, "", None),
        ({"message": {"content": "No", "refusal": None}}, "No", None),
        ({"message": {"content": None, "refusal": "I will not."}}, "I will not.", "refused"),
        ({"message": {"content": "I th"}, "finish_reason": "content_filter"}, "I th", "refused"),
    ],
)
def test_an_empty_text_is_a_reply_and_a_refusal_has_an_error(choice, text, error):
    reply = parse_reply(chat("x"), chat_body(choice))
    assert (reply.text, reply.error) == (text, error)


@pytest.mark.parametrize(
    ("reported", "plausible"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 9}, True),
        ({"prompt_tokens": 3, "completion_tokens": 0}, True),
        ({"prompt_tokens": 3, "completion_tokens": 10}, False),
        ({"prompt_tokens": 0, "completion_tokens": 1}, False),
        ({"prompt_tokens": -3, "completion_tokens": 1}, False),
        ({"prompt_tokens": 3, "completion_tokens": -1}, False),
        ({"prompt_tokens": 3.0, "completion_tokens": 1}, False),
        ({"prompt_tokens": "3", "completion_tokens": 1}, False),
        ({"prompt_tokens": True, "completion_tokens": 1}, False),
        ({"prompt_tokens": 3}, False),
        ({"prompt_tokens": 10**9, "completion_tokens": 1}, False),
        (None, False),
        ([], False),
    ],
)
def test_only_possible_numbers_of_tokens_count(reported, plausible):
    assert (plausible_usage(chat("x"), reported) is not None) == plausible


def test_a_long_prompt_may_have_as_many_tokens_as_bytes():
    assert plausible_usage(chat("é" * 9000), {"prompt_tokens": 18000, "completion_tokens": 1}) == Usage(18000, 1)
    assert (
        plausible_usage(chat("é" * 9000), {"prompt_tokens": 18200 + MAX_ADDED_TOKENS, "completion_tokens": 1}) is None
    )


def test_estimated_tokens_grow_with_the_text_and_are_at_least_one():
    assert estimate_usage(chat(""), 0) == Usage(1, 0)
    assert estimate_usage(chat("x" * 4000), 41) == Usage(1000, 11)
    assert estimate_usage(Request("completion", {"model": "m", "prompt": "ä" * 10}), 4) == Usage(5, 1)


# Failures


@BOTH
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("429", "rate limit (429)"),
        ("500", "server error (500)"),
        ("503", "server error (503)"),
        ("timeout", "timeout"),
        ("drip", "timeout"),
        ("dropped", "connection lost"),
        ("truncated", "unreadable reply"),
        ("not JSON", "unreadable reply"),
        ("empty choices", "unreadable reply"),
        ("wrong types", "unreadable reply"),
    ],
)
def test_a_transient_failure_has_its_kind_and_is_not_retried_by_the_client(api, fault, kind, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with FaultServer(faults=scripted(*[fault] * 9), hang=2) as server:
        with pytest.raises(TransientError) as error:
            send(
                chat("x"), endpoint(server.url, api=api, api_key_env="MY_KEY", timeout=0.3 if kind == "timeout" else 5)
            )
        assert error.value.kind == kind
        assert error.value.rate_limited == (fault == "429")
        assert server.sent.total() == 1
        assert KEY[:8] not in str(error.value)


def test_a_closed_port_is_a_lost_connection():
    with pytest.raises(TransientError, match="connection lost"):
        send(chat("x"), endpoint("http://127.0.0.1:1"))


@BOTH
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("401", "status 401, the key is not accepted (the server says: Incorrect API key provided."),
        ("402", "status 402, the account has no credit left"),
        ("403", "status 403, the key has no right to use this model"),
        ("404", "status 404, the model or the address does not exist"),
        ("400", "status 400, the request is not accepted (the server says: Unsupported parameter: 'temperature'."),
        ("quota", "status 429, the quota is exhausted"),
        ("429 for long", "the server asks to wait 24.0 hours"),
    ],
)
def test_a_permanent_failure_is_one_sentence_without_the_key(api, fault, sentence, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with FaultServer(faults=scripted(fault)) as server, pytest.raises(UserError) as error:
        send(chat("x"), endpoint(server.url, api=api, api_key_env="MY_KEY"))
    message = str(error.value)
    assert message.startswith("provider 'local', model 'm': ")
    assert sentence in message
    assert "finished items are kept" in message
    assert "\n" not in message
    assert not any(KEY[i : i + 8] in message for i in range(len(KEY) - 7))


@pytest.mark.parametrize(
    ("fault", "error"),
    [("too long", "too_long"), ("content policy", "refused"), ("refusal", "refused"), ("content filter", "refused")],
)
def test_a_declined_request_is_a_reply_with_an_error(fault, error):
    with FaultServer(faults=scripted(fault)) as server:
        assert send(chat("x"), endpoint(server.url)).error == error


@pytest.mark.parametrize(
    ("status", "message", "code", "headers", "meaning"),
    [
        (400, "prompt is too long: 210000 tokens > 200000 maximum", "invalid_request_error", {}, "too_long"),
        (400, "The prompt is too long: 9000, model maximum context length: 8192", None, {}, "too_long"),
        (422, "Requested tokens exceed context window of 512", None, {}, "too_long"),
        (413, "Payload too large", None, {}, "too_long"),
        (
            400,
            "max_tokens is too large: 99999. This model supports at most 16384 completion tokens",
            None,
            {},
            UserError,
        ),
        (400, "The response was filtered due to Azure's content management policy", "content_filter", {}, "refused"),
        (400, "Invalid prompt: it violates our usage policy", "invalid_prompt", {}, "refused"),
        (403, "Country not supported", None, {}, UserError),
        (
            429,
            "Rate limit reached. Add a payment method: https://x/account/billing",
            "rate_limit_exceeded",
            {},
            TransientError,
        ),
        (429, "You exceeded your current quota, check your plan", None, {}, UserError),
        (429, "You exceeded your current quota, retry soon", None, {"retry-after": "20"}, TransientError),
        (429, "You exceeded your current quota of requests a minute", "rate_limit_exceeded", {}, TransientError),
        (429, "", "billing_hard_limit_reached", {"retry-after": "20"}, UserError),
        (408, "", None, {}, TransientError),
        (409, "", None, {}, TransientError),
        (529, "overloaded_error", None, {}, TransientError),
        (405, "", None, {}, UserError),
        (400, UNFINISHED, "invalid_request_error", {}, OutputLimit),
        (
            400,
            "max completion tokens reached before generating a valid document",
            "json_validate_failed",
            {},
            OutputLimit,
        ),
        (400, "Failed to generate JSON. Please adjust your prompt.", "json_validate_failed", {}, "unreadable"),
    ],
)
def test_the_meaning_of_a_status(status, message, code, headers, meaning):
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    result = classify_status(endpoint("http://x"), "m", status, headers, body)
    assert result == meaning if isinstance(meaning, str) else isinstance(result, meaning)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"5", b'{"error": "text"}', b'{"detail": [1]}', b'{"error": null}', b"\xff"]
)
def test_an_error_body_of_any_form_is_read(body):
    assert isinstance(classify_status(endpoint("http://x"), "m", 500, {}, body), TransientError)
    assert isinstance(classify_status(endpoint("http://x"), "m", 401, {}, body), UserError)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "300"}, 300.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": formatdate(1_000_300, usegmt=True)}, 300.0),
        ({"retry-after": formatdate(999_000, usegmt=True)}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_every_form_of_retry_after_is_read(headers, seconds):
    assert seconds_to_wait(headers, now=1_000_000) == seconds


# Keys


@given(st.text("abc-1", min_size=8, max_size=30), st.lists(st.text("abc-1xyz ", max_size=20)), st.data())
def test_no_piece_of_a_key_remains(key, around, data):
    parts = []
    for words in around:
        start = data.draw(st.integers(0, len(key)))
        parts += [words, key[start:], key]
    out = redact("".join(parts), [key])
    assert not any(key[i : i + 8] in out for i in range(len(key) - 7))


def test_text_without_a_key_is_unchanged():
    assert redact("some other text", [KEY, "", "short"]) == "some other text"
    assert redact(f"key={KEY}; {KEY[3:12]} {KEY[:7]}", [KEY]) == f"key=***; *** {KEY[:7]}"
    assert redact("a short key", ["short"]) == "a *** key"


def test_a_key_is_removed_before_a_long_message_is_cut():
    message = "x" * (errors.MAX_MESSAGE - 6) + KEY
    assert not any(KEY[i : i + 4] in one_line(message, [KEY]) for i in range(len(KEY) - 3))


# Limits


def test_two_jobs_share_the_slots(tmp_path):
    in_flight = max_in_flight = 0

    async def use(slots):
        nonlocal in_flight, max_in_flight
        async with slots.slot():
            in_flight += 1
            max_in_flight = max(max_in_flight, in_flight)
            await asyncio.sleep(0.005)
            in_flight -= 1

    async def all_of_them():
        jobs = [JobSlots(tmp_path, 3), JobSlots(tmp_path, 3)]
        await asyncio.gather(*(use(slots) for slots in jobs for _ in range(40)))

    asyncio.run(all_of_them())
    assert max_in_flight == 3


def test_concurrency_is_reduced_once_for_all_requests_in_flight_and_recovers(tmp_path):
    async def play():
        slots = JobSlots(tmp_path, 8)
        files = [await slots._acquire() for _ in range(8)]
        for _ in range(8):
            slots.reduce_concurrency(0)
        assert slots.max_held == 4
        for file in files:
            slots._release(file)
        files = [file for _ in range(8) if (file := slots._try_lock_slot()) is not None]
        assert len(files) == 4
        waiting = [asyncio.create_task(slots._acquire()) for _ in range(4)]
        await asyncio.sleep(0)
        slots.reduce_concurrency(1)
        assert slots.max_held == 2
        for file in files:
            slots._release(file)
        await asyncio.sleep(0)
        assert sum(task.done() for task in waiting) == 2  # two of the four slots are given up
        slots.reduce_concurrency(2)
        slots.reduce_concurrency(3)
        assert slots.max_held == 1
        for _ in range(3 * SUCCESSES_TO_GROW):
            slots.count_success()
        assert slots.max_held == 4
        for _ in range(50 * SUCCESSES_TO_GROW):
            slots.count_success()
        assert slots.max_held == 8

    asyncio.run(play())


def test_a_cancelled_request_releases_its_slot(tmp_path):
    async def play():
        slots, other = JobSlots(tmp_path, 1), JobSlots(tmp_path, 1)
        file = await slots._acquire()
        waiting = [asyncio.create_task(slots._acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        slots._release(file)  # the first waiting task is given the slot, and has not resumed yet
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await asyncio.wait_for(other._acquire(), 1) is not None

    asyncio.run(play())


HOLD = """
import asyncio, sys, time
from pathlib import Path
from arena_cje.calls.limits import JobSlots
slots = JobSlots(Path(sys.argv[1]), 2)
files = [slots._try_lock_slot(), slots._try_lock_slot()]
print(files, flush=True)
time.sleep(60)
"""


def test_the_slots_of_a_killed_process_are_free(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, env=environment())
    try:
        assert b"None" not in holder.stdout.readline()
        assert JobSlots(tmp_path, 2)._try_lock_slot() is None
    finally:
        holder.kill()
        holder.wait()
    slots = JobSlots(tmp_path, 2)
    assert None not in (slots._try_lock_slot(), slots._try_lock_slot())


def environment(**variables):
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "workflow"), str(ROOT / "tests" / "support")]),
        **variables,
    }


def test_the_rate_limit_holds_for_all_that_share_it(tmp_path):
    async def turn_time(limit):
        await limit.wait_turn()
        return time.monotonic()

    async def all_of_them():
        limits = [RateLimit(tmp_path, 3000), RateLimit(tmp_path, 3000)]  # a turn each 20 ms
        return sorted(await asyncio.gather(*(turn_time(limit) for limit in limits for _ in range(15))))

    times = asyncio.run(all_of_them())
    assert times[-1] - times[0] >= 29 * 0.020 - 0.005
    assert times[-1] - times[0] < 29 * 0.020 + 0.5
    assert all(times[i + 10] - times[i] >= 0.15 for i in range(20))


def test_a_pause_holds_for_all_and_the_turns_after_it_are_spaced(tmp_path):
    async def all_of_them():
        limit, other = RateLimit(tmp_path, 3000), RateLimit(tmp_path, 3000)
        waiting = [asyncio.create_task(other.wait_turn()) for _ in range(10)]
        await asyncio.sleep(0)
        began = time.monotonic()
        limit.pause(0.4)
        limit.pause(0.1)  # the longer pause stays
        times = []
        for task in waiting:
            task.add_done_callback(lambda _: times.append(time.monotonic() - began))
        await asyncio.gather(*waiting)
        await asyncio.sleep(0)
        return sorted(times)

    times = asyncio.run(all_of_them())
    after = [seconds for seconds in times if seconds > 0.05]
    assert len(after) >= 8  # one or two turns came before the pause
    assert after[0] >= 0.4
    assert after[-1] - after[0] >= (len(after) - 1) * 0.02 - 0.06


@pytest.mark.parametrize("content", ["", "{", '{"next": 1e99, "paused_until": 1e99}', "null"])
def test_a_damaged_rate_file_stops_no_request(tmp_path, content):
    (tmp_path / "pace.json").write_text(content)
    for rate in (None, 600):
        asyncio.run(asyncio.wait_for(RateLimit(tmp_path, rate).wait_turn(), 1))


# Ledger


def record_calls(ledger, n=1, model="m"):
    for _ in range(n):
        ledger.record(
            endpoint("http://x"),
            model,
            stage="judge",
            policy="base",
            usage=Usage(12, 3),
            estimated=False,
        )


def test_a_line_of_the_ledger_has_all_fields(tmp_path):
    ledger = Ledger(tmp_path / "spending.jsonl", lambda *call: 0.5 if call == ("openai", "m", 12, 3) else None)
    record_calls(ledger)
    record_calls(ledger, model="other")
    first, second = map(json.loads, ledger.path.read_text().splitlines())
    assert abs(first.pop("time") - time.time()) < 60
    assert first == {
        "stage": "judge",
        "policy": "base",
        "provider": "local",
        "model": "m",
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "usd": 0.5,
        "estimated": False,
    }
    assert second["usd"] is None


def test_the_budget_counts_the_calls_of_all_jobs(tmp_path):
    one, two = (Ledger(tmp_path / "spending.jsonl", call_price, budget_usd=0.05) for _ in range(2))
    record_calls(one, 2)
    record_calls(two, 2, model="unpriced")
    assert one.total_usd() == two.total_usd() == pytest.approx(0.02)
    two.check_budget()
    record_calls(two, 3)
    assert one.total_usd() == pytest.approx(0.05)
    with pytest.raises(UserError, match=r"the budget is spent: 0\.0500 of `budget_usd` 0\.05 .*raise it"):
        one.check_budget()


def test_a_damaged_line_leaves_the_others_readable(tmp_path, caplog):
    ledger = Ledger(tmp_path / "spending.jsonl", call_price)
    record_calls(ledger, 2)
    ledger.path.write_bytes(ledger.path.read_bytes()[:-9])
    record_calls(ledger)
    assert Ledger(ledger.path, call_price).total_usd() == pytest.approx(0.02)
    assert "damaged" in caplog.text


def test_a_budget_needs_prices(tmp_path):
    ledger = Ledger(tmp_path / "spending.jsonl", call_price, budget_usd=1.0)
    ledger.check_price(endpoint(None), "m")
    with pytest.raises(UserError, match=r"model 'unpriced' is unknown.*`prices`"):
        ledger.check_price(endpoint(None), "unpriced")
    Ledger(tmp_path / "spending.jsonl", call_price).check_price(endpoint(None), "unpriced")


# Jobs


JOB = """
import json, logging, sys
from pathlib import Path
from arena_cje.stages import jobs
from calls_job import KEY, snakemake
from calls_process import chat

made = snakemake(Path.cwd(), sys.argv[1])
with jobs.job(made) as log:
    config = jobs.configuration(made)
    with jobs.calls(made, config.endpoint(config.judge), "judges/other", "base-0000", "base") as ask:
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


def leaks(folder: Path, *texts: str) -> list[str]:
    """Files and texts that hold a piece of the key."""
    pieces = [KEY[i : i + 8] for i in range(len(KEY) - 7)]
    files = {str(path): path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()}
    return [name for name, text in (files | dict(enumerate(texts))).items() if any(piece in text for piece in pieces)]


def test_a_job_sends_journals_and_counts_requests_without_repeating_the_key(tmp_path, server):
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
    assert leaks(tmp_path, process.stdout, process.stderr) == []
    assert "one *** two ***" in process.stderr

    again = run_job(tmp_path, server.url)
    assert json.loads(again.stdout) == texts
    assert server.sent.total() - before == 3


@pytest.mark.parametrize(("fault", "ending"), [("401", "success"), (None, "bug")])
def test_the_key_is_in_no_log_error_or_file(tmp_path, fault, ending):
    with FaultServer(faults=lambda *_: fault) as server:
        process = run_job(tmp_path, server.url, ending)
    assert process.returncode == 1
    assert {"401": "not accepted", None: "a bug that knows ***"}[fault] in process.stderr
    assert leaks(tmp_path, process.stdout, process.stderr) == []


def test_a_job_without_calls_has_none_in_its_benchmark(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = snakemake(tmp_path, "http://127.0.0.1:1")
    made.wildcards = SimpleNamespace(shard="0000")
    with jobs.journal(made, "judge/base"):
        pass
    keys, values = (line.split("\t") for line in Path(made.log.benchmark).read_text().splitlines())
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
