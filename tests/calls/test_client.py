"""One call: the request that is sent, and the kinds of failure."""

from __future__ import annotations

import json
import logging
from email.utils import formatdate

import pytest

from arena_cje.calls import apis, transport
from arena_cje.calls.client import Client
from arena_cje.calls.errors import OutputLimit, TransientError, classify_status, seconds_to_wait
from arena_cje.calls.request import Request
from arena_cje.errors import UserError
from calls_job import KEY
from calls_process import chat, endpoint, send
from fault_server import UNFINISHED, FaultServer, scripted

BOTH_APIS = pytest.mark.parametrize("api", ["openai", "fireworks"])


# Requests


@BOTH_APIS
@pytest.mark.parametrize("spelling", ["", "/", "/v1", "/v1/"])
def test_every_spelling_of_a_base_url_reaches_the_server(server, api, spelling):
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


@BOTH_APIS
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


@BOTH_APIS
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


@BOTH_APIS
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


@BOTH_APIS
@pytest.mark.parametrize("log", ["OPENAI_LOG", "FIREWORKS_LOG"])
def test_no_variable_makes_the_client_log_prompts(server, api, log, monkeypatch, caplog):
    monkeypatch.setenv(log, "debug")
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "fireworks"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    send(chat("a private question"), endpoint(server.url, api=api))
    assert "private" not in caplog.text


@BOTH_APIS
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
def test_an_unusable_proxy_or_certificate_is_refused_without_repeating_its_value(api, name, value, monkeypatch):
    for variable in (*transport.PROXIES, *transport.CERTIFICATES):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"cannot be sent with {name} of the environment .*; correct or unset") as error:
        Client(endpoint("https://api.example.org", api=api))
    assert "secret" not in str(error.value)


@BOTH_APIS
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


@BOTH_APIS
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
def test_an_api_key_with_invalid_characters_is_refused_without_repeating_it(wrong, monkeypatch):
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


# Failures


@BOTH_APIS
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


@BOTH_APIS
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
def test_status_message_and_headers_of_an_error_decide_its_kind(status, message, code, headers, meaning):
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


def test_a_retry_after_date_is_compared_with_the_date_of_the_server():
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
