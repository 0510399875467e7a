"""One call: request, reply or failure; limits of concurrency and rate; the ledger; API keys in no message."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena_cje.calls import apis, errors, limits, pace, transport
from arena_cje.calls.client import Client, estimate_usage
from arena_cje.calls.errors import (
    OutputLimit,
    TransientError,
    UnreadableReply,
    classify_status,
    one_line,
    redact,
    redact_reply,
    seconds_to_wait,
)
from arena_cje.calls.ledger import Ledger
from arena_cje.calls.limits import JobSlots, RateLimit, clock, endpoint_folder, machine_folder
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


EXPECTED_HEADERS = {
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "user-agent",
}


@BOTH
@pytest.mark.parametrize("value", ["from the environment", "Zürich", "\udcff"])
def test_no_header_comes_from_the_environment(server, api, value, monkeypatch):
    for name in (
        "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID",
        "OPENAI_ADMIN_KEY",
        "OPENAI_WEBHOOK_SECRET",
        "FIREWORKS_ACCOUNT_ID",
    ):
        monkeypatch.setenv(name, value)
    for name in ("OPENAI_CUSTOM_HEADERS", "FIREWORKS_CUSTOM_HEADERS"):
        monkeypatch.setenv(
            name, f"Authorization: Bearer other\nX-Own: {value}\nUser-Agent: other\nHost: elsewhere.example"
        )
    monkeypatch.setenv("MY_KEY", KEY)
    for request in (chat("headers"), Request("completion", {"model": "m", "prompt": "a b", "max_tokens": 1})):
        send(request, endpoint(server.url, api=api, api_key_env="MY_KEY"))
        headers = server.headers[-1]
        assert {name for name in headers if not name.startswith("x-stainless-")} == EXPECTED_HEADERS
        assert headers["authorization"] == f"Bearer {KEY}"
        assert headers["host"] == server.url.removeprefix("http://")
        assert "other" not in headers["user-agent"]


@BOTH
@pytest.mark.parametrize("log", ["OPENAI_LOG", "FIREWORKS_LOG"])
def test_no_variable_makes_the_client_log_prompts(server, api, log, monkeypatch, caplog):
    monkeypatch.setenv(log, "debug")
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "fireworks"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    send(chat("a private question"), endpoint(server.url, api=api))
    assert "private" not in caplog.text


@BOTH
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("all_proxy", "socks5://user:secret@127.0.0.1:9"),
        ("HTTPS_PROXY", "ftp://secret@127.0.0.1:9"),
        ("HTTP_PROXY", "http://[::secret"),
        ("HTTP_PROXY", "http://secret:port"),
        ("SSL_CERT_FILE", "/nowhere/secret.pem"),
    ],
)
def test_a_proxy_or_certificate_that_cannot_be_used_is_one_sentence(api, name, value, monkeypatch):
    for variable in (*transport.PROXIES, *transport.CERTIFICATES):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"cannot be sent with {name} of the environment .*; correct or unset") as error:
        Client(endpoint("https://api.example.org", api=api))
    assert "secret" not in str(error.value)


@BOTH
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:{other}/v1/chat/completions", "//localhost:{port}/x", "https://127.0.0.1:{port}/"]
)
def test_a_redirect_to_another_server_is_refused(api, status, location):
    with FaultServer() as other, FaultServer() as server:
        target = location.format(other=other.port, port=server.port)
        server.faults = lambda *_: f"redirect {status} {target}"
        with pytest.raises(UserError, match=rf"answers with status {status}, a redirect to .*set `base_url` to it"):
            send(chat("x"), endpoint(server.url, api=api))
        assert (server.sent.total(), other.sent.total()) == (1, 0)


@BOTH
@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_on_the_same_server_keeps_the_request(api, status):
    with FaultServer() as server:
        server.faults = lambda _, earlier: None if earlier else f"redirect {status} /other/v1/chat/completions"
        assert send(chat("x"), endpoint(server.url, api=api)).text.startswith("Score: ")
        assert list(server.paths) == ["/v1/chat/completions", "/other/v1/chat/completions"]
        assert len(server.bodies) == 2
        assert server.bodies[0] == server.bodies[1]


def test_a_redirect_of_a_post_that_would_lose_its_body_is_refused():
    with FaultServer(faults=lambda *_: "redirect 302 /login?\x1b[31m") as server:
        with pytest.raises(UserError, match="status 302, a redirect to ") as error:
            send(chat("x"), endpoint(server.url))
        assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("wrong", ["two words", "new\nline", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_without_repeating_it(wrong, monkeypatch):
    monkeypatch.setenv("MY_KEY", wrong)
    with pytest.raises(UserError, match="MY_KEY contains characters that an API key cannot have") as error:
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
    changes = {"timeout": 0.3} if kind == "timeout" else {}
    with FaultServer(faults=scripted(*[fault] * 9)) as server:
        with pytest.raises(TransientError) as error:
            send(chat("x"), endpoint(server.url, api=api, api_key_env="MY_KEY", **changes))
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
        ("429 for long", "the server asks for a pause of 24.0 hours"),
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


def test_a_wrong_clock_changes_no_wait_for_a_date():
    headers = {"date": formatdate(1_000_000, usegmt=True), "retry-after": formatdate(1_000_007, usegmt=True)}
    assert [seconds_to_wait(headers, now=now) for now in (0, 1_000_000, 2_000_000)] == [7.0, 7.0, 7.0]


@pytest.mark.parametrize(
    "control", ["\x1b[2J\x1b]0;owned\x07", "\r50 %", "\x9b31m", "\u202etxt", "\x00", "\u2028", "\ud800"]
)
def test_no_control_character_of_an_error_reaches_a_message(control):
    body = json.dumps({"error": {"message": f"Bad {control} request"}}).encode()
    for status in (400, 401, 429, 500):
        message = str(classify_status(endpoint("http://x"), "m", status, {}, body))
        assert control not in message
        assert all(char.isprintable() for char in message)


# Keys


@given(st.text("abc-1", min_size=8, max_size=30), st.lists(st.text("abc-1xyz ", max_size=20)), st.data())
def test_no_piece_of_a_key_remains(key, around, data):
    parts = []
    for words in around:
        start = data.draw(st.integers(0, len(key)))
        parts += [words, key[start:], key]
    out = redact("".join(parts), [key])
    assert not any(key[i : i + 8] in out for i in range(len(key) - 7))


@given(st.text("abc123", min_size=16, max_size=30), st.lists(st.text("abc-1xyz ", max_size=5), max_size=20), st.data())
def test_no_piece_of_a_key_remains_across_tokens(key, around, data):
    start = data.draw(st.integers(0, len(around)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(key)), max_size=6)))
    pieces = [key[a:b] for a, b in zip([0, *cuts], [*cuts, len(key)], strict=True)]
    out = redact_reply([*around[:start], *pieces, *around[start:]], [key])
    assert len(out) == len(around) + len(pieces)
    assert not any(key[i : i + 16] in "".join(out) for i in range(len(key) - 15))


@pytest.mark.parametrize("key", ["x", "1", "EMPTY", "none", "placeholder", "sk-no-key-required", "password123"])
def test_a_reply_keeps_its_words_where_a_key_is_made_of_words(key):
    text = (
        "The dummy placeholder of 12345 x 1 is required: EMPTY, none, no-key or a password, as placeholder for a key."
    )
    assert redact_reply([text], [key]) == [text]
    assert redact_reply(text.split(" "), [key]) == text.split(" ")


@pytest.mark.parametrize("key", ["secret-key", "token-abc123", "correct-horse-battery-staple", KEY])
def test_a_whole_key_is_taken_out_of_a_reply(key):
    assert redact_reply([f"It is {key}.", f"({key})"], [key]) == ["It is ***.", "(***)"]


def test_a_key_that_a_reply_repeats_is_in_no_field_of_it(monkeypatch):
    """Whether in its text, one token, several tokens, or the server's fields about itself."""
    monkeypatch.setenv("MY_KEY", KEY)
    tokens = ["Your", " key ", "is", KEY[:5], KEY[5:11], KEY[11:], "."]

    def reply(path, body):
        top = [{"token": KEY, "logprob": -1.0}, {"token": "x", "logprob": -2.0}]
        content = [{"token": token, "logprob": -0.5, "top_logprobs": top} for token in tokens]
        return {
            "model": f"m {KEY}",
            "system_fingerprint": KEY,
            "choices": [
                {
                    "message": {"content": f"{''.join(tokens)} {KEY[3:12]} again"},
                    "finish_reason": KEY,
                    "logprobs": {"content": content},
                }
            ],
        }

    with FaultServer(replies=reply) as server:
        answer = send(chat("x"), endpoint(server.url, api_key_env="MY_KEY"))
    assert answer.text == "Your key is***. *** again"
    assert len(answer.tokens) == len(tokens)
    for text in (orjson.dumps(answer.record()).decode(), "".join(answer.tokens)):
        assert not any(KEY[i : i + 8] in text for i in range(len(KEY) - 7))


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
        assert await asyncio.wait_for(other._acquire(), 60) is not None

    asyncio.run(play())


def test_a_job_leaves_slots_to_another_one_that_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "TURN", 0.1)
    users = []

    async def use(slots, name):
        async with slots.slot():
            users.append(name)
            await asyncio.sleep(0.02)

    async def all_of_them():
        first, second = JobSlots(tmp_path, 2), JobSlots(tmp_path, 2)
        tasks = [asyncio.create_task(use(first, "first")) for _ in range(100)]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(use(second, "second")) for _ in range(20)]
        await asyncio.gather(*tasks)

    asyncio.run(all_of_them())
    assert users.count("first") == 100
    assert users.count("second") == 20
    assert "second" in users[:60]
    assert users[-1] == "first"  # the second one has not waited for the end of the first one


def test_the_folder_of_limits_is_the_same_for_an_address_and_key_and_the_users_own(monkeypatch):
    monkeypatch.setenv("ONE", KEY)
    monkeypatch.setenv("SAME", KEY + "\n")
    monkeypatch.setenv("OTHER", KEY + "2")
    folder = endpoint_folder(endpoint("https://x.example/v1/", api_key_env="ONE"))
    assert endpoint_folder(endpoint("https://X.example", api_key_env="SAME", provider="another", timeout=1.0)) == folder
    assert endpoint_folder(endpoint("https://x.example", api_key_env="OTHER")) != folder
    assert endpoint_folder(endpoint("https://y.example", api_key_env="ONE")) != folder
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
    assert KEY not in str(folder)


def test_a_folder_of_limits_that_others_can_open_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"arena-cje-{os.getuid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with pytest.raises(UserError, match="that only its owner can open .*TMPDIR"):
        machine_folder()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(UserError, match="that only its owner can open"):
        machine_folder()
    folder.unlink()
    folder.write_text("")
    with pytest.raises(UserError, match="cannot be created"):
        machine_folder()


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
    assert all(later - times[0] >= i * 0.020 - 0.005 for i, later in enumerate(times))


def test_a_pause_holds_for_all_and_the_turns_after_it_are_spaced(tmp_path):
    async def all_of_them():
        limit, other = RateLimit(tmp_path, 3000), RateLimit(tmp_path, 3000)
        waiting = [asyncio.create_task(other.wait_turn()) for _ in range(10)]
        await asyncio.sleep(0)
        began = time.monotonic()
        for retry_after in (0.4,) * pace.IN_A_ROW + (0.1,):  # the longer pause stays
            limit.count_rejection(clock(), retry_after, (1.0, 60.0))
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


def state_file(**values):
    return json.dumps({"boot": limits.boot(), **dataclasses.asdict(pace.Pace()), **values})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        '{"next": 1e99, "paused_until": 1e99}',
        state_file(next=1e99),
        state_file(paused_until=1e12),
        state_file(paused_until="soon"),
        state_file(boot="another start of the machine", paused_until=clock() + 1000),
    ],
)
def test_a_damaged_or_outdated_state_stops_no_request(tmp_path, content):
    (tmp_path / "pace.json").write_text(content)
    for rate in (None, 600):
        asyncio.run(asyncio.wait_for(RateLimit(tmp_path, rate).wait_turn(), 60))


def test_the_time_of_day_has_no_part_in_limits(tmp_path, monkeypatch):
    """A clock that is set back by a day, or forward, delays no request."""
    times = iter([2e9, 1e9, 3e9])
    for _ in range(3):
        now = next(times)
        monkeypatch.setattr(time, "time", lambda now=now: now)
        limit = RateLimit(tmp_path, 6000)
        for _ in range(3):
            asyncio.run(asyncio.wait_for(limit.wait_turn(), 60))
        limit.count_rejection(clock(), None, (1.0, 60.0))
    assert json.loads((tmp_path / "pace.json").read_text())["next"] < clock() + 1


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
    with pytest.raises(UserError, match=r"the budget is used up: 0\.0500 of `budget_usd` 0\.05 .*raise it"):
        one.check_budget()


def test_what_was_paid_is_on_disk_with_the_name_of_its_file(tmp_path, monkeypatch):
    synced, sync = [], os.fsync

    def record(file):
        sync(file)
        synced.append(os.fstat(file).st_ino)

    monkeypatch.setattr(os, "fsync", record)
    ledger = Ledger(tmp_path / "spending.jsonl", call_price)
    record_calls(ledger)
    ledger.sync()
    assert synced == [ledger.path.stat().st_ino, tmp_path.stat().st_ino]


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


def test_a_key_that_replies_repeat_is_in_no_file(tmp_path):
    """Neither in journals and spendings, nor in logs."""

    def reply(path, body):
        text = f"I was called with {KEY}, that is {KEY[2:14]}."
        return {"model": f"m-{KEY}", "choices": [{"message": {"content": text}, "finish_reason": "stop"}]}

    with FaultServer(replies=reply) as server:
        process = run_job(tmp_path, server.url)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)[0] == "I was called with ***, that is ***."
    assert leaks(tmp_path, process.stdout, process.stderr) == []


@pytest.mark.parametrize(("fault", "ending"), [("401", "success"), (None, "bug")])
def test_the_key_is_in_no_log_error_or_file(tmp_path, fault, ending):
    with FaultServer(faults=lambda *_: fault) as server:
        process = run_job(tmp_path, server.url, ending)
    assert process.returncode == 1
    assert {"401": "not accepted", None: "a bug that knows ***"}[fault] in process.stderr
    assert leaks(tmp_path, process.stdout, process.stderr) == []


def test_a_job_without_calls_has_none_in_its_benchmark(tmp_path, monkeypatch):
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
