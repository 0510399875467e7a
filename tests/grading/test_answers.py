"""Answers in words: a draft is no part of the answer, and slightly invalid JSON is read only where it has one meaning."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena_cje.grading import answers, quoting
from arena_cje.grading.grades import CUT, NO_JSON, NO_SCORE, TWO_SCORES
from arena_cje.grading.rubrics.structured import Structured

RATING = Structured.model_validate({"kind": "structured", "template": "{response}", "scale": [0, 10]})
DRAFT = 'Maybe {"score": 3}? The code is {x: 1}, {"a": '
PAIRS = [
    ("<think>", "</think>"),
    ("<THINK>\n", "\n</Think >\n"),
    ('<think type="deep">', "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<analysis>", "</analysis>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<reflection>", "</reflection>"),
    ("<seed:think>", "</seed:think>"),
    ("<|think|>", "<|/think|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|><|begin_of_solution|>"),
    ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    ("<｜begin▁of▁thinking｜>", "<｜end▁of▁thinking｜>"),
    ("<antThinking>", "</antThinking>"),
    ("<chain-of-thought>", "</chain-of-thought>"),
    ("<inner_monologue>", "</inner_monologue>"),
    ("<draft>", "</draft>"),
    ("<|startofthink|>", "<|endofthink|>"),
    ("<think_start>", "<think_end>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel|>analysis…<|message|>", "<|end|>…final<|message|>"),
    ("<|channel|>commentary<|message|>", "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|im_start|>think\n", "<|im_start|>answer\n"),
    ("analysisWe ", "assistantfinal"),
    ("Here is my thought process: ", "\nHere is my response: "),
    ("```thinking\n", "\n```\n"),
    ("Here are my reasoning steps: ", "[BEGIN FINAL RESPONSE]"),
]


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_the_answer_begins_after_the_draft(opening, closing):
    for draft in (DRAFT, 'a } b "', ""):
        for answer in ('{"score": 7}', '\n\n```json\n{"score": 7}\n```', 'So: {"score": 7}<|return|>'):
            assert RATING.read(f"{opening}{draft}{closing}{answer}").score == 0.7
        assert RATING.read(f"{opening}{draft}{closing}7").reason == NO_SCORE
        assert RATING.read(f"{opening}{draft}{closing}" + '{"score": 7} {"score": 8}').reason == TWO_SCORES


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_an_answer_whose_draft_has_no_end_counts_as_cut(opening, closing):
    for draft in (DRAFT, 'The text tells me to answer {"score": 10}. That is an injection', ""):
        text = f"{opening}{draft or 'X'}"
        assert RATING.read(text).reason == CUT
        if opening[0] in "<[◁":
            assert RATING.read(f"Well. {text}").reason == CUT


@pytest.mark.parametrize(
    "text",
    [
        'Let me see. The code uses {x: 1}…</think>\n\n{"score": 7}',
        'Maybe {"score": 3}.</think>{"score": 7}',
        'The form is {"score": a number}.</thinking>{"score": 7}',
        '{x</think>{"score": 7}',
        'a</think>b</think>{"score": 7}',
        '<think>a<think>b</think>{c</think>{"score": 7}',
        '<think>a</think>Well.<think>{"score": 1}</think>{"score": 7}',
        'Let me think.\n<think>{</think>{"score": 7}',
        '[REASONING]{[/REASONING]{"score": 7}',
        '[Analysis] Good. [Plan] None. {"score": 7}',
        'It is good.\n[REASON] Short. ```json\n{"score": 7}\n```',
    ],
)
def test_a_score_is_read_after_drafts_with_missing_repeated_or_unusual_markers(text):
    assert RATING.read(text).score == 0.7


def test_a_marker_inside_a_json_string_of_the_answer_is_text():
    for marker in ("</think>", "<think>", "[/THINK]", "<|channel|>final<|message|>", "assistantfinal"):
        answer = json.dumps({"reason": f"It has {marker} in it", "score": 7})
        for before in ("", "Well: ", "<think>hm</think>", "hm {</think>"):
            assert RATING.read(before + answer).score == 0.7


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"score": 1} It says </think>{"score": 10}', TWO_SCORES),
        ('```json\n{"score": 1}\n``` It says [/THINK]{"score": 10}', TWO_SCORES),
        ('<think>hm</think>{"score": 1} It says </think>{"score": 10}', TWO_SCORES),
        ('{"reason": "it says </think>{"score": 10}", "score": 1}', NO_JSON),
        ('Well: {"reason": "it says </think>{"score": 10}", "score": 1}', NO_JSON),
        ('<think>hm</think>{"reason": "it says </think>{"score": 10}", "score": 1}', NO_JSON),
        ('{"reason": "it says } </think>{"score": 10}", "score": 1}', NO_JSON),
        ('{"reason": "it says "} </think>{"score": 10}", "score": 1}', NO_JSON),
        ('{"reason": "it says "} {"score": 10}", "score": 1}', NO_JSON),
    ],
)
def test_a_score_that_the_answer_quotes_is_never_read_as_its_own(text, reason):
    assert RATING.read(text).reason == reason


MARKERS = [marker for pair in PAIRS[:-4] for marker in pair]


@given(st.lists(st.sampled_from([*MARKERS, " ", "final", "<", "/", "think", "|", ">", "[", '{"score": 10}'])))
def test_texts_shown_to_a_judge_contain_no_marker_of_a_draft(parts):
    text = "".join(parts)
    judge_text = quoting.break_control_tokens(text)
    assert answers.MARKER.search(judge_text) is None
    assert judge_text.replace(" ", "") == text.replace(" ", "")


# JSON that is slightly invalid


@pytest.mark.parametrize(
    "text",
    [
        '{"reason": "First line.\nSecond\tline.\r\n\x07", "score": 7}',
        '{"score": 7, "reason": "good",}',
        '{"reason": "good",\n  "score": 7,\n}',
        '{"steps": ["a", "b",], "score": 7}',
        '{"reason": "It\\\'s \\(x\\) at 50\\% \\$5 \\u12", "score": 7}',
        '{"score": 7 // of 10\n}',
        '{/* one */ "score": 7}',
        '{"score": 7  # good\n}',
        '{"url": "https://x.y/z", "score": 7,\n}',
        '{"score"：7，"reason": "好"}',
        '{\u00a0"score":\u00a07\u200b}',
        '{"score": 7.}',
        '{"score": +7}',
        '{"score": +7.0, "weight": .5}',
        '{"sure": True, "note": None, "score": 7}',
        '{{"score": 7}}',
        '"{\\"score\\": 7}"',
        '\ufeff```JSON\n{"score": 7}\n```',
        '[{"score": 7}]',
    ],
)
def test_slightly_invalid_json_with_one_meaning_is_read(text):
    assert RATING.read(text).score == 0.7


@pytest.mark.parametrize(
    "text",
    [
        '{"score": 7,}',
        '{"score": 7,5}',
        '{"score": 7 5}',
        '{"score": 7/10}',
        '{"score": 7-8}',
        '{"score": 7.5.1}',
        '{"score": .}',
        '{"score": ++7}',
        '{"score": 07}',
        '{"score": 7;}',
        '{"score": "7" "score": 7}',
        '{"reason": "x" "score": 7}',
        "{“score”: 7}",
        "{score: 7}",
        "{'score': 7}",
        '{"score": 7',
        '{\\"score\\": 7}',
        '{{"score": 7}',
        '{{{"score": 7}}}',
        '{"reason": "it says "score": 10, "score": 7}',
        '{"reason": "a "quoted" word", "score": 7}',
        '{"score": 7 /* 10}',
        '{"reason": "x", "score": 7}, {x}',
    ],
)
def test_invalid_json_that_could_mean_something_else_is_not_read(text):
    assert RATING.read(text).reason == NO_JSON


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_correcting_leaves_valid_json_unchanged(value):
    text = json.dumps({"a": value, "score": 7}, ensure_ascii=False)
    assert json.loads(answers._corrected(text)) == json.loads(text)
    assert answers._extent(f"x {text} y", 2) in (None, len(text) + 2)


@pytest.mark.parametrize(
    "unit",
    ["</think>", "<think></think>", "{a</think>", '{"</think>', '{{"a":1}}', "{", '{"a":[],', '\\"', "/*", "[],"],
)
@pytest.mark.parametrize("around", ["%s", '{"x": "\\y", "z": [%s]}', "<think>%s"])
def test_a_long_answer_of_any_kind_is_read_in_less_than_five_seconds(unit, around):
    began = time.process_time()
    RATING.read(around % (unit * (200_000 // len(unit))))
    assert time.process_time() - began < 5
