"""No part of an API key remains in a message or a reply, and words that are not part of a key remain."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena_cje.calls import errors
from arena_cje.calls.errors import one_line, redact, redact_reply
from calls_job import KEY
from calls_process import chat, endpoint, send
from fault_server import FaultServer


@given(st.text("abc-1", min_size=8, max_size=30), st.lists(st.text("abc-1xyz ", max_size=20)), st.data())
def test_no_part_of_an_api_key_remains_in_a_message(key, around, data):
    parts = []
    for words in around:
        start = data.draw(st.integers(0, len(key)))
        parts += [words, key[start:], key]
    out = redact("".join(parts), [key])
    assert not any(key[i : i + 8] in out for i in range(len(key) - 7))


@given(st.text("abc123", min_size=16, max_size=30), st.lists(st.text("abc-1xyz ", max_size=5), max_size=20), st.data())
def test_no_part_of_an_api_key_remains_across_the_tokens_of_a_reply(key, around, data):
    start = data.draw(st.integers(0, len(around)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(key)), max_size=6)))
    pieces = [key[a:b] for a, b in zip([0, *cuts], [*cuts, len(key)], strict=True)]
    out = redact_reply([*around[:start], *pieces, *around[start:]], [key])
    assert len(out) == len(around) + len(pieces)
    assert not any(key[i : i + 16] in "".join(out) for i in range(len(key) - 15))


@pytest.mark.parametrize("key", ["x", "1", "EMPTY", "none", "placeholder", "sk-no-key-required", "password123"])
def test_a_reply_keeps_words_that_also_occur_in_a_placeholder_key(key):
    text = (
        "The dummy placeholder of 12345 x 1 is required: EMPTY, none, no-key or a password, as placeholder for a key."
    )
    assert redact_reply([text], [key]) == [text]
    assert redact_reply(text.split(" "), [key]) == text.split(" ")


@pytest.mark.parametrize("key", ["secret-key", "token-abc123", "correct-horse-battery-staple", KEY])
def test_a_complete_api_key_is_removed_from_a_reply(key):
    assert redact_reply([f"It is {key}.", f"({key})"], [key]) == ["It is ***.", "(***)"]


def test_an_api_key_that_a_reply_repeats_is_removed_from_all_its_fields(monkeypatch):
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


def test_text_beside_an_api_key_is_unchanged():
    assert redact("some other text", [KEY, "", "short"]) == "some other text"
    assert redact(f"key={KEY}; {KEY[3:12]} {KEY[:7]}", [KEY]) == f"key=***; *** {KEY[:7]}"
    assert redact("a short key", ["short"]) == "a *** key"


def test_a_key_is_removed_before_a_long_message_is_cut():
    message = "x" * (errors.MAX_MESSAGE - 6) + KEY
    assert not any(KEY[i : i + 4] in one_line(message, [KEY]) for i in range(len(KEY) - 3))
