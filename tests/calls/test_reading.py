"""Replies as servers send them: forms of text, finish reason and log probabilities; unpaired surrogates; unreadable bodies."""

from __future__ import annotations

import json
import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena_cje.calls.client import estimate_usage
from arena_cje.calls.errors import UnreadableReply
from arena_cje.calls.reading import MAX_ADDED_TOKENS, parse_reply, plausible_usage
from arena_cje.calls.request import Reply, Request, Usage
from calls_process import ask_all, call_job, chat, chat_body
from fault_server import FaultServer, correct_reply

FIELDS = st.sampled_from(
    ["choices", "message", "content", "text", "type", "refusal", "error", "token", "logprob", "tokens"]
)
LONE_SURROGATE = "\ud83d"


def read(choice, **rest) -> Reply:
    """The reply of a chat's body, written as a server writes it: unpaired surrogates escaped, NaN as NaN."""
    reply = parse_reply(chat("x"), chat_body(choice, **rest))
    assert Reply.from_record(orjson.loads(orjson.dumps(reply.record()))) == reply  # the journal can hold it
    return reply


# The whole reply


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


def test_of_two_alternatives_with_the_same_text_the_more_probable_one_is_kept():
    alternatives = [{"token": "\ufffd", "logprob": value} for value in (-1, -3)]
    one = {"logprobs": {"content": [{"token": "\ufffd", "logprob": -3, "top_logprobs": alternatives}]}}
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
def test_impossible_token_counts_are_not_used(reported, plausible):
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


# The text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "Yes"}], "Yes"),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Yes"}], "Yes"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Yes"}], "Yes"),
        ([{"type": "text", "text": "Y"}, {"type": "reasoning", "text": "hm"}, {"type": "text", "text": "es"}], "Yes"),
        ([{"type": "reasoning_text", "text": "hm"}, {"type": "output_text", "text": "Yes", "annotations": []}], "Yes"),
        ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, {"text": "Yes"}], "Yes"),
        ([{"text": "hm", "thought": True}, {"text": "Yes"}], "Yes"),
        ([{"type": "redacted_thinking", "data": "x"}, "Yes"], "Yes"),
        ([{"reasoning_content": {"text": "hm"}}, {"type": "text", "text": "Yes"}], "Yes"),
        ([{"channel": "analysis", "text": "hm"}, {"channel": "final", "text": "Yes"}], "Yes"),
        ([{"type": "text", "text": {"value": "Yes", "annotations": []}}, None], "Yes"),
        ([{"type": "text", "content": "Yes"}, {"type": "image_url", "image_url": {"url": "x"}}], "Yes"),
        ([{"type": "message", "content": [{"type": "output_text", "text": "Yes"}]}], "Yes"),
        ({"type": "text", "text": "Yes"}, "Yes"),
        ({"parts": [{"text": "Y"}, {"text": "es"}], "role": "model"}, "Yes"),
        (["Y", "es"], "Yes"),
        ([{"type": "thinking", "thinking": "hm"}], ""),
        ([{"type": "text", "text": None}], ""),
        ([], ""),
        (None, ""),
        (f"Yes{LONE_SURROGATE}", "Yes\ufffd"),
        ([{"type": "text", "text": f"{LONE_SURROGATE}{LONE_SURROGATE}😀"}], "\ufffd\ufffd😀"),
    ],
)
def test_the_text_of_a_reply_is_joined_from_its_text_parts_without_reasoning(content, text):
    reply = read({"message": {"content": content}})
    assert (reply.text, reply.error) == (text, None)


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {}},
        {"message": {"role": "assistant", "reasoning_content": "hm"}},
        {"message": {"content": 5}},
        {"message": {"content": True}},
        {"message": {"content": {"score": 7}}},
        {"message": {"content": [7]}},
        {"message": {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}},
        {"message": {"content": [{"type": "text"}]}},
        {"message": {"content": [{"type": "tool_use", "text": "x"}]}},
        {"message": None},
        {"message": None, "text": None},
    ],
)
def test_a_reply_without_text_is_unreadable_unless_it_was_cut(choice):
    assert (read(choice).error, read(choice).text) == ("unreadable", "")
    cut = read(choice | {"finish_reason": "length"})
    assert (cut.error, cut.text, cut.ending) == (None, "", "cut")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None, "refusal": "No."}, "No."),
        ({"refusal": f"No{LONE_SURROGATE}"}, "No\ufffd"),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, "No."),
        ({"content": "x", "refusal": True}, ""),
        ({"content": None, "refusal": {"reason": "x"}}, ""),
    ],
)
def test_a_refusal_is_recognised_in_every_form(message, text):
    assert (read({"message": message}).text, read({"message": message}).error) == (text, "refused")


def test_a_chat_may_have_the_form_of_a_completion_and_the_reverse():
    assert read({"message": None, "text": "Yes"}).text == "Yes"
    assert parse_reply(Request("completion", {"model": "m", "prompt": "x"}), chat_body()).text == "Yes"


@given(st.text(st.characters(categories=["Cs", "L"]), max_size=20))
def test_any_text_of_a_server_can_be_written_to_a_file(text):
    logprobs = {"content": [{"token": text, "logprob": -1, "top_logprobs": [{"token": text, "logprob": -1}]}]}
    body = {"logprobs": logprobs, "message": {"content": text, "refusal": text}}
    reply = read(body, model=text, system_fingerprint=text)
    texts = [reply.text, *reply.tokens, *reply.top_logprobs[0], reply.model or "", reply.system_fingerprint or ""]
    assert "".join(texts).encode().decode() == "".join(texts)


def test_deeply_nested_parts_are_read_or_reported_as_unreadable():
    nested = b'{"text":' * 900 + b'"x"' + b"}" * 900
    body = b'{"choices": [{"message": {"content": ' + nested + b'}, "finish_reason": "stop"}]}'
    try:
        assert parse_reply(chat("x"), body).text == "x"
    except UnreadableReply as error:
        assert error.lasting == Reply(error="unreadable")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(FIELDS, x)
    )
)
def test_any_body_is_a_reply_or_unreadable(value):
    for body in (value, {"choices": value}, {"choices": [value]}, {"choices": [{"message": value, "logprobs": value}]}):
        for fields in (body, {"choices": [{"message": {"content": value}, "finish_reason": value}], "usage": value}):
            try:
                reply = parse_reply(chat("x"), json.dumps(fields).encode())
            except UnreadableReply:
                continue
            assert Reply.from_record(orjson.loads(orjson.dumps(reply.record()))) == reply


# How a reply ends


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        (("stop", "eos", "end_turn", "STOP", "stop_sequence", "tool_calls", "COMPLETE", None), "complete"),
        (
            ("length", "max_tokens", "MAX_TOKENS", "model_length", "token_limit", "max_output_tokens", "incomplete"),
            "cut",
        ),
        (("content_filter", "SAFETY", "RECITATION", "sensitive", "refusal", "PROHIBITED_CONTENT"), "declined"),
        (("abort", "error", "cancelled", "insufficient_system_resource", "network_error", "timeout"), "broken off"),
    ],
)
def test_every_finish_reason_has_one_of_four_endings(words, ending):
    assert {Reply(finish_reason=word).ending for word in words} == {ending}


@pytest.mark.parametrize(
    ("finish_reason", "n_tokens", "ending"), [(None, 9, "cut"), (None, 8, "complete"), ("stop", 9, "complete")]
)
def test_an_answer_of_maximal_length_without_a_finish_reason_counts_as_cut(finish_reason, n_tokens, ending):
    usage = {"prompt_tokens": 3, "completion_tokens": n_tokens}
    assert read({"finish_reason": finish_reason}, usage=usage).ending == ending


def test_a_finish_reason_of_another_type_is_unknown_unless_an_object_names_it():
    assert read({"finish_reason": {"type": "length", "length": 9}}).ending == "cut"
    for odd in (5, ["stop"], {}, None):
        assert read({"finish_reason": odd}).finish_reason is None
    assert read({"finish_reason": "SAFETY"}).error == "refused"


# Log probabilities


def alternatives(*pairs):
    """The alternatives that are read from pairs of token and value."""
    entries = [{"token": token, "logprob": value} for token, value in pairs]
    content = [{"token": "a", "logprob": -0.1, "top_logprobs": entries}]
    (chat_form,) = read({"logprobs": {"content": content}}).top_logprobs
    return chat_form


@pytest.mark.parametrize("value", [None, math.nan, -math.inf, "NaN", "-Infinity", "", [], {}, True])
def test_an_alternative_without_a_log_probability_is_left_out(value):
    assert alternatives(("no", value), ("yes", -0.5)) == {"yes": -0.5}
    legacy = {"tokens": ["yes"], "token_logprobs": [-0.5], "top_logprobs": [{"yes": -0.5, "no": value}]}
    assert read({"logprobs": legacy}).top_logprobs == ({"yes": -0.5},)
    assert alternatives(("no", value)) == {}


@pytest.mark.parametrize("value", [0.5, 100, math.inf, "Infinity", 1e300])
def test_no_alternative_is_read_beside_an_impossible_log_probability(value):
    assert alternatives(("no", value), ("yes", -0.5)) == {}


def test_malformed_alternatives_are_left_out():
    content = [{"token": "a", "logprob": -0.1, "top_logprobs": [None, math.nan, {}, {"token": None, "logprob": -1}]}]
    assert read({"logprobs": {"content": content}}).top_logprobs == ({},)
    assert alternatives(("yes", "-0.5"), ("no", 1e-7)) == {"yes": -0.5, "no": 0.0}
    assert alternatives((LONE_SURROGATE, -1.0), ("\udc00", -0.5)) == {"\ufffd": -0.5}


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "x"])
def test_a_token_without_a_finite_log_probability_has_none(value):
    assert read({"logprobs": {"content": [{"token": "a", "logprob": value}]}}).token_logprobs == (None,)


@pytest.mark.parametrize(
    "logprobs",
    [
        [],
        "x",
        {"content": 5},
        {"content": [{"logprob": -1}]},
        {"content": [None]},
        {"tokens": ["a", "b"], "token_logprobs": [-1.0]},
        {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{}, {}]},
        {"tokens": "a", "token_logprobs": [-1.0]},
    ],
)
def test_inconsistent_log_probabilities_are_dropped_and_the_text_is_read(logprobs):
    reply = read({"logprobs": logprobs})
    assert (reply.text, reply.tokens, reply.token_logprobs, reply.top_logprobs) == ("Yes", (), (), ())


def test_fields_beside_the_text_may_have_any_type():
    reply = read({"finish_reason": 5}, model=5, system_fingerprint=[], usage="x")
    assert (reply.text, reply.model, reply.system_fingerprint, reply.usage) == ("Yes", None, None, None)


# Over the network, with the journal


def test_each_request_with_an_unusual_reply_is_sent_once_and_recorded_once(tmp_path):
    choices = [
        {"message": {"content": f"Nice {LONE_SURROGATE}"}},
        {"message": {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "7"}]}},
        {
            "message": {"content": "7"},
            "logprobs": {"content": [{"token": "7", "logprob": math.nan, "top_logprobs": [None]}]},
        },
        {"message": {}},
        {"message": {"content": [{"type": "audio"}]}},
        {"message": {"content": None, "refusal": "No."}},
    ]

    def responses(body):
        return 200, {}, chat_body(choices[int(body["messages"][0]["content"])])

    requests = [chat(str(k)) for k in range(len(choices))]
    with FaultServer(responses=responses) as server:
        first = ask_all(call_job(server.url, tmp_path), tmp_path, requests)
        assert ask_all(call_job(server.url, tmp_path), tmp_path, requests) == first
        assert server.sent.total() == len(choices)
    assert [(reply.text, reply.error) for reply in first] == [
        ("Nice \ufffd", None),
        ("7", None),
        ("7", None),
        ("", "unreadable"),
        ("", "unreadable"),
        ("No.", "refused"),
    ]
    spent = [json.loads(line) for line in (tmp_path / "spending.jsonl").read_text().splitlines()]
    assert len(spent) == len(choices)


def test_an_error_about_an_unfinished_answer_becomes_a_cut_reply(tmp_path):
    with FaultServer(faults=lambda body, earlier: "unfinished" if "2" in str(body) else None) as server:
        replies = ask_all(call_job(server.url, tmp_path), tmp_path, [chat("1"), chat("2")])
    assert [reply.ending for reply in replies] == ["complete", "cut"]
    assert replies[0].text == correct_reply("/chat/completions", chat("1").body)["choices"][0]["message"]["content"]
