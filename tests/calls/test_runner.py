"""A call sends what was asked and reads what came, or says what is wrong; limits, spendings and keys are kept."""

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
from arena_cje.calls.client import MARKUP, Client, estimated, read, usage
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
from arena_cje.calls.limits import SUCCESSES, Crew, Pace
from arena_cje.calls.request import Reply, Request, Usage
from arena_cje.errors import UserError
from arena_cje.stages import jobs
from calls_job import KEY, snakemake
from calls_process import chat, endpoint, usd
from fault_server import UNFINISHED, FaultServer, scripted
from workflow_run import ROOT

BOTH = pytest.mark.parametrize("api", ["openai", "fireworks"])


def ask(request, to):
    """What a client gets for one request."""

    async def once():
        async with Client(to) as client:
            return await client.send(request)

    return asyncio.run(once())


@pytest.fixture(scope="module")
def server():
    with FaultServer() as running:
        yield running


# What is sent


@BOTH
@pytest.mark.parametrize("spelling", ["", "/", "/v1", "/v1/"])
def test_every_spelling_of_an_address_finds_the_server(server, api, spelling):
    for request in (chat("x"), Request("completion", {"model": "m", "prompt": "a b", "max_tokens": 1})):
        assert ask(request, endpoint(server.url + spelling, api=api)).error is None


@pytest.mark.parametrize(
    ("api", "base_url", "address"),
    [
        ("openai", None, "https://api.openai.com/v1/chat/completions"),
        ("openai", "https://api.example.org/openai/v1", "https://api.example.org/openai/v1/chat/completions"),
        ("fireworks", None, "https://api.fireworks.ai/inference/v1/chat/completions"),
        ("fireworks", "https://api.example.org/inference/v1", "https://api.example.org/inference/v1/chat/completions"),
    ],
)
def test_addresses_are_those_of_the_configuration_whatever_the_environment_says(api, base_url, address, monkeypatch):
    for name in ("OPENAI_BASE_URL", "FIREWORKS_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/elsewhere")
    sdk = Client(endpoint(base_url, api=api))._sdk
    path = "/v1/chat/completions" if api == "fireworks" else "/chat/completions"
    assert str(sdk._prepare_url(path)) == address


@BOTH
def test_a_body_arrives_as_it_was_given(server, api):
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
        ask(Request(kind, body), endpoint(server.url, api=api))
        assert server.bodies[-1] == body


@BOTH
def test_the_key_that_is_named_is_sent_and_the_word_none_where_none_is(server, api, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "not this one")
    monkeypatch.setenv("FIREWORKS_API_KEY", "nor this one")
    monkeypatch.setenv("MY_KEY", KEY + "\n")
    ask(chat("x"), endpoint(server.url, api=api, api_key_env="MY_KEY"))
    ask(chat("x"), endpoint(server.url, api=api))
    assert list(server.keys)[-2:] == [KEY, "none"] or set(server.keys) == {KEY, "none"}


@pytest.mark.parametrize("wrong", ["two words", "new\nline", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_without_repeating_it(wrong, monkeypatch):
    monkeypatch.setenv("MY_KEY", wrong)
    with pytest.raises(UserError, match="MY_KEY holds characters that no key has") as told:
        Client(endpoint("http://127.0.0.1:1", api_key_env="MY_KEY"))
    assert wrong not in str(told.value)


@pytest.mark.parametrize("api", apis.NAMES)
def test_an_api_declares_all_that_is_read_of_it(api):
    module = apis.get(api)
    assert isinstance(module.SCORES_TEXT, bool)
    assert module.ECHO_MAX_TOKENS in (0, 1)
    assert module.TOP_LOGPROBS > 0
    assert module.token_limit(None) in ("max_tokens", "max_completion_tokens")
    assert module.token_limit("http://127.0.0.1:8000") == "max_tokens"
    assert module.address(None).startswith("https://")


# What comes back


def answer(choice=None, **rest):
    """An answer to a chat, as bytes."""
    choice = {"message": {"content": "Yes"}, "finish_reason": "stop"} | (choice or {})
    return orjson.dumps({"choices": [choice], "model": "m-1", **rest})


def test_a_reply_has_all_that_the_answer_had():
    content = [
        {
            "token": "Ye",
            "logprob": -0.5,
            "top_logprobs": [{"token": "Ye", "logprob": -0.5}, {"token": "N", "logprob": -2}],
        },
        {"token": "s", "logprob": -0.25, "top_logprobs": []},
    ]
    told = answer(
        {"logprobs": {"content": content}},
        system_fingerprint="fp",
        usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    )
    reply = read(chat("x"), told)
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
    assert Reply.of(orjson.loads(orjson.dumps(reply.record()))) == reply


def test_both_forms_of_log_probabilities_say_the_same():
    asked = Request("completion", {"model": "m", "prompt": "a", "max_tokens": 1, "echo": True, "logprobs": 1})
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
    one, two = (read(asked, orjson.dumps({"choices": [{"text": "a b", "logprobs": form}]})) for form in (legacy, other))
    assert one == two
    assert one.token_logprobs == (-0.5, -1.0)


def test_of_two_tokens_with_the_same_text_the_likelier_stays():
    tops = [{"token": "\ufffd", "logprob": value} for value in (-1, -3)]
    one = {"logprobs": {"content": [{"token": "\ufffd", "logprob": -3, "top_logprobs": tops}]}}
    assert read(chat("x"), answer(one)).top_logprobs == ({"\ufffd": -1.0},)


def test_an_echoed_first_token_without_a_log_probability_stays_without():
    said = {"tokens": ["a", "b"], "token_logprobs": [None, -1.0], "top_logprobs": None}
    reply = read(
        Request("completion", {"model": "m", "prompt": "ab"}),
        orjson.dumps({"choices": [{"text": "", "logprobs": said}]}),
    )
    assert reply.token_logprobs == (None, -1.0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        answer()[:-20],
        b'{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"token": "a", "logprob": NaN}]}}]}',
        b"[]",
        b"null",
        b"{}",
        b'{"choices": []}',
        b'{"choices": null}',
        b'{"choices": [null]}',
        b'{"choices": [{}]}',
        b'{"error": {"message": "busy", "code": 429}}',
        answer({"message": {}}),
        answer({"message": {"content": 5}}),
        answer({"message": {"content": ["x"]}}),
        answer({"finish_reason": 5}),
        answer({"logprobs": []}),
        answer({"logprobs": {"content": [{"token": "a"}]}}),
        answer({"logprobs": {"content": [{"token": "a", "logprob": "-1"}]}}),
        answer({"logprobs": {"content": 5}}),
        answer({"logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1.0]}}),
        answer({"logprobs": {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{}, {}]}}),
        answer(model=5),
    ],
    ids=lambda content: content.decode()[-60:] or "nothing",
)
def test_what_is_no_answer_is_unreadable_and_no_reply(content):
    with pytest.raises(UnreadableReply) as told:
        read(chat("x"), content)
    assert told.value.kind == "unreadable answer"
    assert told.value.length == len(content)


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
def test_silence_is_a_reply_and_a_refusal_is_told_apart(choice, text, error):
    reply = read(chat("x"), answer(choice))
    assert (reply.text, reply.error) == (text, error)


@pytest.mark.parametrize(
    ("said", "usable"),
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
def test_only_numbers_of_tokens_that_can_be_count(said, usable):
    assert (usage(chat("x"), said) is not None) == usable


def test_a_long_prompt_may_have_as_many_tokens_as_bytes():
    assert usage(chat("é" * 9000), {"prompt_tokens": 18000, "completion_tokens": 1}) == Usage(18000, 1)
    assert usage(chat("é" * 9000), {"prompt_tokens": 18200 + MARKUP, "completion_tokens": 1}) is None


def test_estimated_tokens_grow_with_the_text_and_are_never_none():
    assert estimated(chat(""), 0) == Usage(1, 0)
    assert estimated(chat("x" * 4000), 41) == Usage(1000, 11)
    assert estimated(Request("completion", {"model": "m", "prompt": "ä" * 10}), 4) == Usage(5, 1)


# What goes wrong


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
        ("truncated", "unreadable answer"),
        ("not JSON", "unreadable answer"),
        ("empty choices", "unreadable answer"),
        ("wrong types", "unreadable answer"),
    ],
)
def test_failures_that_pass_are_told_apart_and_tried_once(api, fault, kind, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with FaultServer(faults=scripted(*[fault] * 9), hang=2) as server:
        with pytest.raises(TransientError) as told:
            ask(chat("x"), endpoint(server.url, api=api, api_key_env="MY_KEY", timeout=0.3 if kind == "timeout" else 5))
        assert told.value.kind == kind
        assert told.value.limited == (fault == "429")
        assert server.sent.total() == 1
        assert KEY[:8] not in str(told.value)


def test_nobody_there_is_a_lost_connection():
    with pytest.raises(TransientError, match="connection lost"):
        ask(chat("x"), endpoint("http://127.0.0.1:1"))


@BOTH
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("401", "status 401, the key is not accepted (it says: Incorrect API key provided."),
        ("402", "status 402, the account has no credit left"),
        ("403", "status 403, the key may not use this model"),
        ("404", "status 404, no such model or address"),
        ("400", "status 400, the request is not accepted (it says: Unsupported parameter: 'temperature'."),
        ("quota", "status 429, the quota is used up"),
        ("429 for long", "it asks to wait 24.0 hours"),
    ],
)
def test_what_cannot_pass_is_one_sentence_without_the_key(api, fault, sentence, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with FaultServer(faults=scripted(fault)) as server, pytest.raises(UserError) as told:
        ask(chat("x"), endpoint(server.url, api=api, api_key_env="MY_KEY"))
    said = str(told.value)
    assert said.startswith("provider 'local', model 'm': ")
    assert sentence in said
    assert "what is finished is kept" in said
    assert "\n" not in said
    assert not any(KEY[i : i + 8] in said for i in range(len(KEY) - 7))


@pytest.mark.parametrize(
    ("fault", "error"),
    [("too long", "too_long"), ("content policy", "refused"), ("refusal", "refused"), ("content filter", "refused")],
)
def test_what_a_provider_declines_is_a_reply(fault, error):
    with FaultServer(faults=scripted(fault)) as server:
        assert ask(chat("x"), endpoint(server.url)).error == error


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
    ],
)
def test_statuses_mean_what_providers_mean_by_them(status, message, code, headers, meaning):
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    found = classify_status(endpoint("http://x"), "m", status, headers, body)
    assert found == meaning if isinstance(meaning, str) else isinstance(found, meaning)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"5", b'{"error": "text"}', b'{"detail": [1]}', b'{"error": null}', b"\xff"]
)
def test_an_error_of_any_form_is_understood(body):
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
def test_how_long_to_wait_is_read_in_every_form(headers, seconds):
    assert seconds_to_wait(headers, now=1_000_000) == seconds


# Keys


@given(st.text("abc-1", min_size=8, max_size=30), st.lists(st.text("abc-1xyz ", max_size=20)), st.data())
def test_no_piece_of_a_key_is_left(key, around, data):
    parts = []
    for words in around:
        start = data.draw(st.integers(0, len(key)))
        parts += [words, key[start:], key]
    out = redact("".join(parts), [key])
    assert not any(key[i : i + 8] in out for i in range(len(key) - 7))


def test_what_is_no_key_stays():
    assert redact("the words of others", [KEY, "", "short"]) == "the words of others"
    assert redact(f"key={KEY}; {KEY[3:12]} {KEY[:7]}", [KEY]) == f"key=***; *** {KEY[:7]}"
    assert redact("a short key", ["short"]) == "a *** key"


def test_a_key_at_the_end_of_long_words_is_taken_out_before_they_are_cut():
    words = "x" * (errors.LONGEST - 6) + KEY
    assert not any(KEY[i : i + 4] in one_line(words, [KEY]) for i in range(len(KEY) - 3))


# Limits


def test_two_jobs_share_the_slots(tmp_path):
    at_once = most = 0

    async def use(crew):
        nonlocal at_once, most
        async with crew.slot():
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.005)
            at_once -= 1

    async def all_of_them():
        crews = [Crew(tmp_path, 3), Crew(tmp_path, 3)]
        await asyncio.gather(*(use(crew) for crew in crews for _ in range(40)))

    asyncio.run(all_of_them())
    assert most == 3


def test_a_job_slows_down_once_for_all_that_was_in_flight_and_recovers(tmp_path):
    async def play():
        crew = Crew(tmp_path, 8)
        files = [await crew._acquire() for _ in range(8)]
        for _ in range(8):
            crew.slower(0)
        assert crew.allowed == 4
        for file in files:
            crew._release(file)
        files = [file for _ in range(8) if (file := crew._take()) is not None]
        assert len(files) == 4
        waiting = [asyncio.create_task(crew._acquire()) for _ in range(4)]
        await asyncio.sleep(0)
        crew.slower(1)
        assert crew.allowed == 2
        for file in files:
            crew._release(file)
        await asyncio.sleep(0)
        assert sum(task.done() for task in waiting) == 2  # not all four slots go on
        crew.slower(2)
        crew.slower(3)
        assert crew.allowed == 1
        for _ in range(3 * SUCCESSES):
            crew.succeeded()
        assert crew.allowed == 4
        for _ in range(50 * SUCCESSES):
            crew.succeeded()
        assert crew.allowed == 8

    asyncio.run(play())


def test_one_who_is_cancelled_leaves_no_slot_behind(tmp_path):
    async def play():
        crew, other = Crew(tmp_path, 1), Crew(tmp_path, 1)
        file = await crew._acquire()
        waiting = [asyncio.create_task(crew._acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        crew._release(file)  # the first has it now, and does not know yet
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await asyncio.wait_for(other._acquire(), 1) is not None

    asyncio.run(play())


HOLD = """
import asyncio, sys, time
from pathlib import Path
from arena_cje.calls.limits import Crew
crew = Crew(Path(sys.argv[1]), 2)
files = [crew._take(), crew._take()]
print(files, flush=True)
time.sleep(60)
"""


def test_slots_of_a_process_that_is_killed_are_free(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, env=environment())
    try:
        assert b"None" not in holder.stdout.readline()
        assert Crew(tmp_path, 2)._take() is None
    finally:
        holder.kill()
        holder.wait()
    crew = Crew(tmp_path, 2)
    assert None not in (crew._take(), crew._take())


def environment(**more):
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "workflow"), str(ROOT / "tests" / "support")]),
        **more,
    }


def test_the_pace_holds_for_all_who_share_it(tmp_path):
    async def go(pace):
        await pace.turn()
        return time.monotonic()

    async def all_of_them():
        paces = [Pace(tmp_path, 3000), Pace(tmp_path, 3000)]  # 20 ms apart
        return sorted(await asyncio.gather(*(go(pace) for pace in paces for _ in range(15))))

    times = asyncio.run(all_of_them())
    assert times[-1] - times[0] >= 29 * 0.020 - 0.005
    assert times[-1] - times[0] < 29 * 0.020 + 0.5
    assert all(times[i + 10] - times[i] >= 0.15 for i in range(20))


def test_a_pause_holds_for_all_and_what_was_reserved_comes_after_it_one_by_one(tmp_path):
    async def all_of_them():
        pace, other = Pace(tmp_path, 3000), Pace(tmp_path, 3000)
        waiting = [asyncio.create_task(other.turn()) for _ in range(10)]
        await asyncio.sleep(0)
        began = time.monotonic()
        pace.pause(0.4)
        pace.pause(0.1)  # a longer one holds already
        times = []
        for task in waiting:
            task.add_done_callback(lambda _: times.append(time.monotonic() - began))
        await asyncio.gather(*waiting)
        await asyncio.sleep(0)
        return sorted(times)

    times = asyncio.run(all_of_them())
    after = [seconds for seconds in times if seconds > 0.05]
    assert len(after) >= 8  # one or two went out before
    assert after[0] >= 0.4
    assert after[-1] - after[0] >= (len(after) - 1) * 0.02 - 0.06


@pytest.mark.parametrize("content", ["", "{", '{"next": 1e99, "paused_until": 1e99}', "null"])
def test_a_damaged_file_of_the_pace_stops_nobody(tmp_path, content):
    (tmp_path / "pace.json").write_text(content)
    for rate in (None, 600):
        asyncio.run(asyncio.wait_for(Pace(tmp_path, rate).turn(), 1))


# Spendings


def spend(ledger, n=1, model="m", **usage):
    for _ in range(n):
        ledger.record(
            endpoint("http://x"),
            model,
            stage="judge",
            policy="base",
            usage=Usage(12, 3),
            estimated=False,
        )


def test_a_line_says_who_asked_what_for_how_much(tmp_path):
    ledger = Ledger(tmp_path / "spending.jsonl", lambda *call: 0.5 if call == ("openai", "m", 12, 3) else None)
    spend(ledger)
    spend(ledger, model="other")
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


def test_all_jobs_see_what_all_have_spent(tmp_path):
    one, two = (Ledger(tmp_path / "spending.jsonl", usd, budget_usd=0.05) for _ in range(2))
    spend(one, 2)
    spend(two, 2, model="unpriced")
    assert one.spent() == two.spent() == pytest.approx(0.02)
    two.check()
    spend(two, 3)
    assert one.spent() == pytest.approx(0.05)
    with pytest.raises(UserError, match=r"the budget is spent: 0\.0500 of `budget_usd` 0\.05 .*raise it"):
        one.check()


def test_a_damaged_line_costs_no_other(tmp_path, caplog):
    ledger = Ledger(tmp_path / "spending.jsonl", usd)
    spend(ledger, 2)
    ledger.path.write_bytes(ledger.path.read_bytes()[:-9])
    spend(ledger)
    assert Ledger(ledger.path, usd).spent() == pytest.approx(0.02)
    assert "damaged" in caplog.text


def test_a_budget_needs_prices(tmp_path):
    told = Ledger(tmp_path / "spending.jsonl", usd, budget_usd=1.0)
    told.check_price(endpoint(None), "m")
    with pytest.raises(UserError, match=r"model 'unpriced' is unknown.*`prices`"):
        told.check_price(endpoint(None), "unpriced")
    Ledger(tmp_path / "spending.jsonl", usd).check_price(endpoint(None), "unpriced")


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


def run_job(folder, url, how="well"):
    return subprocess.run(
        [sys.executable, "-c", JOB, url, how], cwd=folder, env=environment(MY_KEY=KEY), capture_output=True, text=True
    )


def leaks(folder: Path, *texts: str) -> list[str]:
    """Where a piece of the key is."""
    pieces = [KEY[i : i + 8] for i in range(len(KEY) - 7)]
    files = {str(path): path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()}
    return [name for name, text in (files | dict(enumerate(texts))).items() if any(piece in text for piece in pieces)]


def test_a_job_asks_keeps_and_counts_and_never_says_the_key(tmp_path, server):
    before = server.sent.total()
    done = run_job(tmp_path, server.url)
    assert done.returncode == 0, done.stderr
    texts = json.loads(done.stdout)
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
    assert leaks(tmp_path, done.stdout, done.stderr) == []
    assert "one *** two ***" in done.stderr

    again = run_job(tmp_path, server.url)
    assert json.loads(again.stdout) == texts
    assert server.sent.total() - before == 3


@pytest.mark.parametrize(("fault", "how"), [("401", "well"), (None, "bug")])
def test_the_key_is_in_no_log_error_or_file(tmp_path, fault, how):
    with FaultServer(faults=lambda *_: fault) as server:
        done = run_job(tmp_path, server.url, how)
    assert done.returncode == 1
    assert {"401": "not accepted", None: "a bug that knows ***"}[fault] in done.stderr
    assert leaks(tmp_path, done.stdout, done.stderr) == []


def test_a_job_without_calls_has_none_in_its_benchmark(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = snakemake(tmp_path, "http://127.0.0.1:1")
    made.wildcards = SimpleNamespace(shard="0000")
    with jobs.journal(made, "judge/base"):
        pass
    keys, values = (line.split("\t") for line in Path(made.log.benchmark).read_text().splitlines())
    assert dict(zip(keys, values, strict=True)).items() >= {"calls": "NA", "retries": "NA", "cost_usd": "NA"}.items()


def test_keys_of_all_blocks_are_known_to_the_log(monkeypatch):
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
