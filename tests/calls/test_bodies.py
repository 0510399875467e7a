"""Reply bodies of extreme size or wrong form: a bounded part is read, and the result is one error sentence or one row."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest

from arena_cje.calls import bodies
from arena_cje.calls.errors import TransientError, UnreadableReply
from arena_cje.errors import UserError
from calls_process import ask_all, call_job, chat, chat_body, chats, endpoint, send
from fault_server import FaultServer

if TYPE_CHECKING:
    from arena_cje.calls.request import Reply

BOTH_APIS = pytest.mark.parametrize("api", ["openai", "fireworks"])
ANSWER = chat_body({"message": {"content": "Yes " * 300}})


def gzip_bomb(n_bytes: int) -> bytes:
    """Gzip of so many zero bytes, a thousandth of their size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(n_bytes // 2**20)) + packer.flush()


def reply_to_response(api, status, content, **headers) -> Reply:
    """What a client makes of one HTTP response."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    with FaultServer(responses=lambda body: (status, names, content)) as server:
        return send(chat("x"), endpoint(server.url, api=api, timeout=30))


@BOTH_APIS
@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", gzip.compress(ANSWER)),
        ("x-gzip", gzip.compress(ANSWER)),
        ("GZIP", gzip.compress(ANSWER)),
        ("deflate", zlib.compress(ANSWER)),
        ("deflate", zlib.compress(ANSWER)[2:-4]),  # without header and checksum, as some servers send it
        ("identity", ANSWER),
    ],
)
def test_compressed_replies_are_read(api, encoding, content):
    assert reply_to_response(api, 200, content, content_encoding=encoding).text == "Yes " * 300


@BOTH_APIS
@pytest.mark.parametrize(("status", "error"), [(400, UserError), (401, UserError), (500, TransientError)])
def test_only_the_beginning_of_a_compressed_error_is_unpacked(api, status, error):
    content = gzip_bomb(150 * 2**20)
    tracemalloc.start()
    with pytest.raises(error, match=f"\\b{status}\\b") as raised:
        reply_to_response(api, status, content, content_encoding="gzip")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 30 * 2**20
    assert len(str(raised.value)) < 1000


@BOTH_APIS
def test_a_reply_larger_than_the_largest_valid_size_is_unreadable(api, monkeypatch):
    monkeypatch.setattr(bodies, "MAX_REPLY", 2**20)
    for content, headers in ((gzip_bomb(64 * 2**20), {"content_encoding": "gzip"}), (b" " * (2**20 + 1), {})):
        with pytest.raises(
            UnreadableReply, match="it is larger than 1 MB, more than any valid answer; the rest is not read"
        ):
            reply_to_response(api, 200, content, **headers)
    assert reply_to_response(api, 200, ANSWER + b" " * (2**20 - len(ANSWER))).text == "Yes " * 300


@BOTH_APIS
@pytest.mark.parametrize(
    ("encoding", "content", "sentence"),
    [
        ("br", b"\x0b\x02", "not one that the request accepts"),
        ("gzip", b"no gzip", "is damaged"),
        ("gzip, gzip", b"", "not one"),
    ],
)
def test_a_reply_with_damaged_or_unknown_compression_is_unreadable(api, encoding, content, sentence):
    with pytest.raises(UnreadableReply, match=sentence):
        reply_to_response(api, 200, content, content_encoding=encoding)
    with pytest.raises(UserError, match="status 401, the key is not accepted;"):
        reply_to_response(api, 401, content, content_encoding=encoding)


def test_a_reply_that_stays_unreadable_is_recorded_and_not_requested_by_the_next_run(tmp_path):
    """The others are read; in the next run nothing is sent."""

    def responses(body):
        number = int(body["messages"][0]["content"].split()[1])
        return 200, {}, chat_body({"message": "text"} if number % 4 == 0 else {"message": {"content": str(number)}})

    with FaultServer(responses=responses) as server:
        first = ask_all(call_job(server.url, tmp_path), tmp_path, chats(0, 12))
        n_sent = server.sent.total()
        assert ask_all(call_job(server.url, tmp_path), tmp_path, chats(0, 12)) == first
        assert server.sent.total() == n_sent == 9 + 3 * 3
    assert [reply.error for reply in first] == ["unreadable" if k % 4 == 0 else None for k in range(12)]


def test_an_error_in_the_body_of_a_status_200_is_treated_as_that_error(tmp_path):
    cases = {
        '{"error": {"message": "Rate limited upstream", "code": 429}}': "rate limit \\(429\\): Rate limited upstream",
        '{"error": {"message": "busy \\ud83d"}}': "server error \\(502\\): busy \ufffd",
        '{"error": "overloaded", "choices": []}': "server error \\(502\\): overloaded",
    }
    for content, sentence in cases.items():
        with pytest.raises(TransientError, match=sentence):
            reply_to_response("openai", 200, content.encode())
    permanent = {"error": {"message": "No such model", "type": "invalid_request_error"}}
    with pytest.raises(UserError, match="status 400, .*No such model"):
        reply_to_response("openai", 200, json.dumps(permanent).encode())
    too_long = {"error": {"message": "maximum context length is 9 tokens", "code": 400}}
    assert reply_to_response("openai", 200, json.dumps(too_long).encode()).error == "too_long"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'{"a": "\\ud83d"}', {"a": "\ud83d"}),
        (
            b'{"a": [NaN, Infinity, -Infinity]}',
            {"a": [pytest.approx(float("nan"), nan_ok=True), float("inf"), -float("inf")]},
        ),
        (b"\xef\xbb\xbf[1]", [1]),
        (b'"half a \xe2\x82 character"', "half a \ufffd character"),
        (b'"a\nb"', "a\nb"),
    ],
)
def test_json_with_unambiguous_defects_is_read(content, value):
    assert bodies.parse_json(content) == value


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"<html>", b"[" * 200_000, b"9" * 5000 + b"}"])
def test_every_invalid_json_raises_the_same_error(content):
    with pytest.raises(ValueError, match="not valid JSON"):
        bodies.parse_json(content)


def test_unpaired_surrogates_become_the_replacement_character():
    assert bodies.valid_text("Nice \ud83d") == "Nice \ufffd"
    assert bodies.valid_text("\udc00\ud800 😀") == "\ufffd\ufffd 😀"
