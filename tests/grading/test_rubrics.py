"""Judges that answer in words, hosted or local: which answers have a score, which are asked for again, and the rows of grades."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from arena_cje.calls.endpoint import Endpoint
from arena_cje.calls.request import Reply, Request
from arena_cje.config.records.grading import Judge as JudgeBlock
from arena_cje.config.records.grading import Oracle as OracleBlock
from arena_cje.data import schemas
from arena_cje.errors import UserError
from arena_cje.estimation.records import Judged
from arena_cje.grading import grades as grading_grades
from arena_cje.grading import hosted as grading_hosted
from arena_cje.grading import quoting, reference, unscored
from arena_cje.grading.grades import Grade, Item
from arena_cje.grading.hosted import HostedJudge
from arena_cje.grading.local import ReplyJudge
from arena_cje.grading.rubrics import NAMES, get, load_rubric
from arena_cje.grading.rubrics import choices as grading_choices
from arena_cje.grading.rubrics.choices import Choices
from arena_cje.grading.rubrics.likelihood import Likelihood
from arena_cje.grading.rubrics.structured import Structured
from arena_cje.journal import Journal
from arena_cje.llama import chat, generator
from arena_cje.provenance import digest
from arena_cje.stages import local as stages_local
from workflow_run import ROOT

RAW = {"kind": "structured", "template": "Rate this.\n{prompt}\n{response}\nHow good?", "scale": [0, 10]}
RATING = Structured.model_validate(RAW)
CHOICES = Choices.model_validate(
    {"kind": "choices", "template": "{prompt}\n{response}\nYes or no?", "choices": {"yes": 1.0, "no": 0.0, "so": 0.5}}
)


def endpoint(**changes) -> Endpoint:
    plain = {
        "provider": "any",
        "api": "openai",
        "base_url": "http://127.0.0.1:1/v1",
        "api_key_env": None,
        "max_concurrency": 8,
        "requests_per_minute": None,
        "timeout": 10.0,
        "max_attempts": 3,
        "completions": False,
        "echo_max_tokens": 1,
        "json_reply": "schema",
    }
    return Endpoint(**plain | changes)


def hosted(rubric=RATING, *, at=None, system_prompt=None, **block) -> HostedJudge:
    block = JudgeBlock.model_validate({"provider": "any", "model": "m"} | block)
    return HostedJudge.of(at or endpoint(), block, rubric, system_prompt)


def items(*responses: str) -> list[Item]:
    return [Item(f"q{k}", 0, f"prompt {k}", text) for k, text in enumerate(responses)]


class RecordingAsk:
    """Answers each request with a function of the request, and records the requests."""

    def __init__(self, answer):
        self.answer = answer
        self.requests: list[Request] = []

    def __call__(self, requests):
        self.requests += requests
        return [self.answer(request) for request in requests]


def reply_with(text, **more) -> Reply:
    return Reply(text=text, finish_reason="stop", **more)


def question_of(request: Request) -> str:
    return request.body["messages"][-1]["content"]


# Reading an answer


@pytest.mark.parametrize(
    "text",
    [
        '{"score": 7}',
        '  {"score":7.0}\n',
        '{"score": 7, "reason": "good"}',
        '{"reason": "it says {\\"score\\": 1}, which is not mine", "score": 7}',
        '```json\n{"score": 7}\n```',
        'I would say: {"score": 7}. Hope this helps!',
        '{"score": 7}\n{"score": 7.0}',
        '{"steps": [{"score": 1}], "score": 7}',
        '{"score": 7} and no more',
        '<think>maybe {"score": 2}? no {</think>\n{"score": 7}',
        '{"note": "first"} {"score": 7e0}',
    ],
)
def test_an_answer_with_exactly_one_score_is_read(text):
    assert RATING.read(text) == Grade(0.7, reply=text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", grading_grades.NO_SCORE),
        ("7", grading_grades.NO_SCORE),
        ("The score is 7.", grading_grades.NO_SCORE),
        ('{"rating": 7}', grading_grades.NO_SCORE),
        ('{"result": {"score": 7}}', grading_grades.NO_SCORE),
        ('["score", 7]', grading_grades.NO_SCORE),
        ('{"Score": 7}', grading_grades.NO_SCORE),
        ('{"score": 7', grading_grades.NO_JSON),
        ("{'score': 7}", grading_grades.NO_JSON),
        ('{"score": 7,}', grading_grades.NO_JSON),
        ('{score} {"score": 7}', grading_grades.NO_JSON),
        ('{"reason": "it says {"score": 10}", "score": 7}', grading_grades.NO_JSON),
        ('{"a":' * 100_000, grading_grades.NO_JSON),
        ('{"score": ' + "9" * 5000 + "}", grading_grades.NO_JSON),
        ('{"score": 7} {"score": 8}', grading_grades.TWO_SCORES),
        ('{"score": 7, "score": 8}', grading_grades.TWO_SCORES),
        ('{"score": "7"} {"score": 7}', grading_grades.TWO_SCORES),
        ('{"score": "7"}', grading_grades.NO_NUMBER),
        ('{"score": true}', grading_grades.NO_NUMBER),
        ('{"score": null}', grading_grades.NO_NUMBER),
        ('{"score": [7]}', grading_grades.NO_NUMBER),
        ('{"score": {"value": 7}}', grading_grades.NO_NUMBER),
        ('{"score": NaN}', grading_grades.NO_NUMBER),
        ('{"score": Infinity}', grading_grades.OFF_SCALE),
        ('{"score": 1e999}', grading_grades.OFF_SCALE),
        ('{"score": 11}', grading_grades.OFF_SCALE),
        ('{"score": -0.001}', grading_grades.OFF_SCALE),
    ],
)
def test_an_answer_without_exactly_one_number_on_the_scale_has_no_score_but_a_reason(text, reason):
    assert RATING.read(text) == Grade(None, reason, text)


@pytest.mark.parametrize(
    "text",
    [
        '{"reason": "because',
        "",
        '{"score": 7}',
        '{"score": 7} and furthermore',
        '{"score": 12}',
        '<think>The text tells me to answer {"score": 10}. That is an injection',
        'The text tells me to answer {"score": 10}. That is an injection',
        '<think>hm</think>{"score": 10}',
    ],
)
def test_a_cut_answer_has_no_score_even_if_it_contains_one(text):
    assert RATING.read(text, cut=True) == Grade(None, grading_grades.CUT, text)
    for word in ("length", "max_tokens", "MAX_TOKENS", "abort", "error", "content_filter"):
        assert hosted().read(Reply(text, word)).score is None
        assert hosted().read(Reply(text, word, "refused" if word == "content_filter" else None)).reason == (
            grading_grades.CUT if text or word != "content_filter" else grading_grades.DECLINED
        )


@given(
    st.floats(-1e6, 1e6),
    st.floats(0.001, 1e6),
    st.floats(0, 1),
    st.text(st.characters(exclude_characters="{")),
    st.text(),
)
def test_any_number_on_any_scale_is_read_whatever_text_surrounds_it(low, width, share, before, reason):
    rubric = Structured.model_validate(RAW | {"scale": [low, low + width], "reasoning": True})
    number = min(low + share * width, low + width)
    read = rubric.read("x" + before + json.dumps({"reason": reason, "score": number}) + before)
    assert read.score == pytest.approx((number - low) / width, abs=1e-6)
    assert 0 <= read.score <= 1


@given(st.text() | st.text(st.sampled_from('{}[]":, score0123456789eE+-.\\tfn`')))
def test_any_text_is_read_as_either_a_score_or_a_reason(text):
    read = RATING.read(text)
    assert (read.score is None) == (read.reason is not None)
    assert read.reply == text
    assert read.score is None or 0 <= read.score <= 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scale": [5, 5]}, "two numbers that rise"),
        ({"scale": [5, 1]}, "two numbers that rise"),
        ({"scale": [0, math.inf]}, "two numbers that rise"),
        ({"scale": [1]}, "scale"),
        ({"scale": None}, "scale"),
        ({"samples": 0}, "samples: Input should be greater than or equal to 1"),
        ({"temperature": -1}, "temperature"),
        ({"template": "{prompt}"}, r"\{response\} is not in it"),
        ({"template": "{response} {reference}"}, r"unknown placeholder \{reference\}"),
        ({"choices": {"a": 0, "b": 1}}, "choices: Extra inputs are not permitted"),
    ],
)
def test_an_invalid_rubric_is_refused_with_the_name_of_its_file(tmp_path, changes, sentence):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(RAW | changes))
    with pytest.raises(UserError, match=sentence) as error:
        load_rubric(path)
    assert str(error.value).startswith(f"{path}: not a rubric")
    assert "\n" not in str(error.value)


def test_shipped_rubrics_are_valid_and_described_in_the_readme():
    folder = ROOT / "resources" / "judges"
    rubrics = {path.name: load_rubric(path) for path in folder.glob("*.yaml")}
    assert {rubric.kind for rubric in rubrics.values()} == set(NAMES)
    for name, rubric in rubrics.items():
        assert f"`{name}` | `{rubric.kind}`" in (folder / "README.md").read_text()
        assert rubric.description


def test_the_readme_describes_every_key_of_every_rubric_kind():
    text = (ROOT / "resources" / "judges" / "README.md").read_text()
    for kind in NAMES:
        for key in get(kind).model_fields:
            assert f"`{key}`" in text, key


# Requests


def test_a_request_contains_all_configured_parameters():
    judge = hosted(
        at=endpoint(),
        system_prompt="Be strict.",
        temperature=0.25,
        max_tokens=99,
        extra={"reasoning_effort": "low"},
    )
    body = judge.request(items("so")[0]).body
    assert body["model"] == "m"
    assert body["messages"] == [
        {"role": "system", "content": "Be strict."},
        {"role": "user", "content": RATING.question("prompt 0", "so")},
    ]
    assert (body["temperature"], body["max_tokens"], body["reasoning_effort"]) == (0.25, 99, "low")
    assert "seed" not in body
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["required"] == ["score"]


@pytest.mark.parametrize(
    ("api", "base_url", "name"),
    [
        ("openai", None, "max_completion_tokens"),
        ("openai", "http://x/v1", "max_tokens"),
        ("fireworks", None, "max_tokens"),
    ],
)
def test_the_token_limit_has_the_parameter_name_of_the_api(api, base_url, name):
    body = hosted(at=endpoint(api=api, base_url=base_url), max_tokens=7).request(items("so")[0]).body
    assert {key: value for key, value in body.items() if "tokens" in key} == {name: 7}


def test_the_response_format_of_a_request_is_that_of_the_endpoint():
    reasoned = Structured.model_validate(RAW | {"reasoning": True})
    formats = {
        kind: hosted(reasoned, at=endpoint(json_reply=kind)).request(items("so")[0]).body.get("response_format")
        for kind in ("schema", "object", "text")
    }
    assert formats["text"] is None
    assert formats["schema"]["json_schema"]["schema"] == formats["object"]["schema"] == reasoned.schema
    assert list(reasoned.schema["properties"]) == ["reason", "score"]  # the reason precedes the number
    assert '"reason": one or two sentences, "score": a number from 0 to 10' in reasoned.question("a", "b")


def test_instructions_of_the_rubric_replace_the_default_sentence():
    own = Structured.model_validate(RAW | {"instructions": "Give JSON."})
    assert own.question("a", "b").endswith("How good?\n\nGive JSON.")
    assert "Answer with one JSON object" not in own.question("a", "b")


def test_the_temperature_is_that_of_the_rubric_else_of_the_configuration_else_not_sent():
    warm = Structured.model_validate(RAW | {"temperature": 0.7})
    assert hosted(warm, temperature=0.1).request(items("so")[0]).body["temperature"] == 0.7
    assert hosted(temperature=0.1).request(items("so")[0]).body["temperature"] == 0.1
    assert "temperature" not in hosted(temperature=None).request(items("so")[0]).body


# One grade for each item, also where answers are unusable


def length_of(request: Request) -> Reply:
    """A judge whose score is the number of letters of the response."""
    text = question_of(request).split("<response-")[1].split(">\n", 1)[1].split("\n</response-")[0]
    return reply_with(json.dumps({"score": len(text)}), model="m-1", system_fingerprint="fp")


def test_grades_are_in_the_order_of_their_items():
    ask = RecordingAsk(length_of)
    grades = hosted().grade(items("aaa", "", "aaaaaaaa"), ask)
    assert [grade.score for grade in grades] == [0.3, 0.0, 0.8]
    assert {(grade.model, grade.system_fingerprint) for grade in grades} == {("m-1", "fp")}
    assert [grade.reply for grade in grades] == ['{"score": 3}', '{"score": 0}', '{"score": 8}']
    assert len(ask.requests) == 3


def test_an_item_without_a_response_is_not_sent_to_the_judge():
    ask = RecordingAsk(length_of)
    missing = Item("q", 0, "x", "", answered=False)
    assert hosted().grade([missing], ask) == [Grade(None, grading_grades.NO_RESPONSE)]
    one, other = hosted().grade([missing, *items("aa")], ask)
    assert (one.score, other.score) == (None, 0.2)
    assert len(ask.requests) == 1


def is_repeated(request: Request) -> bool:
    return quoting.RETRY_INTRODUCTION.strip() in question_of(request)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (reply_with("well"), grading_grades.NO_SCORE),
        (reply_with('{"score": 12}'), grading_grades.OFF_SCALE),
        (Reply(text="I cannot", error="refused"), grading_grades.DECLINED),
        (Reply(text="", error="refused"), grading_grades.DECLINED),
        (Reply(text='{"reason": "I th', finish_reason="length"), grading_grades.CUT),
        (Reply(finish_reason="length"), grading_grades.CUT),
    ],
)
def test_an_unusable_answer_is_asked_for_once_more_and_then_has_no_score(first, reason):
    ask_usable_on_retry = RecordingAsk(lambda request: reply_with('{"score": 4}') if is_repeated(request) else first)
    (grade,) = hosted().grade(items("a"), ask_usable_on_retry)
    assert (grade.score, grade.reason, grade.reply) == (0.4, None, '{"score": 4}')
    assert [is_repeated(request) for request in ask_usable_on_retry.requests] == [False, True]

    ask_unusable = RecordingAsk(lambda request: first)
    (grade,) = hosted().grade(items("a"), ask_unusable)
    assert (grade.score, grade.reason, grade.reply) == (None, reason, first.text or (None if first.error else ""))
    assert len(ask_unusable.requests) == 2


def test_only_items_with_an_unusable_answer_are_asked_for_again():
    ask = RecordingAsk(
        lambda request: (
            reply_with("hm") if "\nbad\n" in question_of(request) and not is_repeated(request) else length_of(request)
        )
    )
    grades = hosted().grade(items("aa", "bad", "a"), ask)
    assert [grade.score for grade in grades] == [0.2, 0.3, 0.1]
    assert [question_of(request) for request in ask.requests if is_repeated(request)] == [
        RATING.question("prompt 1", "bad", again=True)
    ]


def test_an_unreadable_reply_of_the_server_is_not_asked_for_again():
    ask = RecordingAsk(lambda request: Reply(error="unreadable"))
    for rubric in (RATING, CHOICES):
        assert hosted(rubric).grade(items("a"), ask)[0] == Grade(None, grading_grades.UNREADABLE)
    assert len(ask.requests) == 2 + 1  # the first question of `choices` also checks for log probabilities
    rows = [{"prompt_id": "a", "score": None, "reason": grading_grades.UNREADABLE}]
    with pytest.raises(UserError, match=f"1 x {grading_grades.UNREADABLE}"):
        unscored.check_unscored(rows, 0.5, "judge", "here")


def test_a_question_that_is_too_long_is_not_asked_again():
    ask = RecordingAsk(lambda request: Reply(error="too_long"))
    assert hosted().grade(items("a"), ask)[0].reason == grading_grades.TOO_LONG
    assert len(ask.requests) == 1
    ask_too_long_on_retry = RecordingAsk(
        lambda request: Reply(error="too_long") if is_repeated(request) else reply_with("hm")
    )
    assert hosted().grade(items("a"), ask_too_long_on_retry)[0] == Grade(None, grading_grades.NO_SCORE, "hm")


def test_the_repeated_question_has_the_form_of_the_answer_again():
    assert (
        'a number from 0 to 10 as "score"' in RATING.question("a", "b", again=True).split(quoting.RETRY_INTRODUCTION)[1]
    )
    assert "nothing else: yes, no, so." in CHOICES.question("a", "b", again=True).split(quoting.RETRY_INTRODUCTION)[1]


# Several samples for one question


def sampling_rubric(**more) -> Structured:
    return Structured.model_validate(RAW | {"samples": 4, "temperature": 1.0} | more)


def by_seed(*numbers):
    """An answer for each seed; it is unusable where its number is None."""

    def answer(request: Request) -> Reply:
        number = numbers[request.body["seed"] - 1]
        return reply_with("?" if number is None else json.dumps({"score": number}))

    return answer


def test_samples_have_seeds_of_their_own_and_give_a_distribution():
    ask = RecordingAsk(by_seed(2, 8, 8, 10))
    (grade,) = hosted(sampling_rubric()).grade(items("a"), ask)
    assert len({request.key(endpoint()) for request in ask.requests}) == 4
    assert grade.distribution == ((0.2, 0.25), (0.8, 0.5), (1.0, 0.25))
    assert grade.score == pytest.approx(0.7)
    assert json.loads(grade.reply) == ['{"score": 2}', '{"score": 8}', '{"score": 8}', '{"score": 10}']
    assert grade.choice_mass is None


def test_an_unusable_sample_is_missing_and_not_zero():
    ask = RecordingAsk(by_seed(2, None, 8, None))
    (grade,) = hosted(sampling_rubric()).grade(items("a"), ask)
    assert grade.distribution == ((0.2, 0.5), (0.8, 0.5))
    assert len(ask.requests) == 6
    (grade,) = hosted(sampling_rubric()).grade(items("a"), RecordingAsk(by_seed(*[None] * 4)))
    assert (grade.score, grade.distribution, grade.reason) == (None, None, grading_grades.NO_SCORE)
    assert json.loads(grade.reply) == ["?"] * 4


@given(st.lists(st.integers(0, 10) | st.none(), min_size=2, max_size=9))
def test_the_score_is_the_mean_of_the_usable_samples(numbers):
    (grade,) = hosted(sampling_rubric(samples=len(numbers))).grade(items("a"), RecordingAsk(by_seed(*numbers)))
    read = [number / 10 for number in numbers if number is not None]
    if not read:
        assert grade.score is None
        return
    assert grade.score == pytest.approx(np.mean(read))
    assert sum(mass for _, mass in grade.distribution) == pytest.approx(1)
    points, masses = (np.array([column]) for column in zip(*grade.distribution, strict=True))
    assert Judged.of(np.array([grade.score]), points=points, mass=masses).score[0] == pytest.approx(grade.score)


# Choices, whose distribution comes from the first token's log probabilities


def with_probabilities(**probabilities: float):
    tops = {name.replace("_", " "): math.log(value) for name, value in probabilities.items()}
    return lambda request: Reply(text="yes", tokens=("yes",), token_logprobs=(-0.1,), top_logprobs=(tops,), model="m-1")


def test_masses_are_the_renormalized_probabilities_of_the_choices():
    ask = RecordingAsk(with_probabilities(yes=0.2, _yes=0.1, no=0.3, Yes=0.15, other=0.2))
    (grade,) = hosted(CHOICES).grade(items("a"), ask)
    assert [point for point, _ in grade.distribution] == [0.0, 1.0]
    assert [mass for _, mass in grade.distribution] == pytest.approx([0.5, 0.5])
    assert grade.choice_mass == pytest.approx(
        0.6
    )  # tokens that differ only by a space are the same answer, other words are not
    assert grade.score == pytest.approx(0.5)
    body = ask.requests[0].body
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"], body["temperature"]) == (True, 20, 1, 0)
    assert "response_format" not in body
    assert hosted(CHOICES, at=endpoint(api="fireworks")).request(items("a")[0]).body["top_logprobs"] == 5


def test_a_choice_with_zero_probability_is_not_in_the_distribution():
    tops = {"yes": 0.0, "no": -math.inf, "so": -9999.0}
    reply = Reply(text="yes", top_logprobs=(tops,))
    (grade,) = hosted(CHOICES).grade(items("a"), lambda requests: [reply] * len(requests))
    assert (grade.score, grade.distribution, grade.choice_mass) == (1.0, ((1.0, 1.0),), 1.0)


def test_improbable_choices_are_asked_for_once_more_and_then_have_no_score():
    ask = RecordingAsk(lambda request: with_probabilities(yes=0.5 if is_repeated(request) else 0.005, I=0.4)(request))
    assert hosted(CHOICES).grade(items("a"), ask)[0].score == 1.0
    (grade,) = hosted(CHOICES).grade(items("a"), RecordingAsk(with_probabilities(yes=0.009, I=0.9)))
    assert (grade.score, grade.distribution, grade.reason) == (None, None, grading_choices.NO_CHOICE)
    assert grade.choice_mass == pytest.approx(0.009)


def test_a_server_without_log_probabilities_is_refused_after_one_call():
    ask = RecordingAsk(lambda request: reply_with("yes"))
    with pytest.raises(UserError, match="provider 'any', model 'm': its answers contain no log probabilities") as error:
        hosted(CHOICES).grade(items(*"abcdef"), ask)
    assert len(ask.requests) == 1
    assert "\n" not in str(error.value)


def test_one_empty_first_answer_is_no_error_and_several_are_refused():
    """A reply that ends at once has no token, so it cannot have log probabilities."""

    def first_is_empty(request):
        return (
            Reply(finish_reason="stop")
            if "\na\n" in request.body["messages"][-1]["content"]
            else with_probabilities(yes=0.9)(request)
        )

    grades = hosted(CHOICES).grade(items(*"abc"), RecordingAsk(first_is_empty))
    assert [grade.score for grade in grades] == [None, 1.0, 1.0]
    ask = RecordingAsk(lambda request: Reply(finish_reason="length"))
    with pytest.raises(UserError, match="contain no log probabilities"):
        hosted(CHOICES).grade(items(*"abcdef"), ask)
    assert len(ask.requests) == grading_hosted.TRIED


def test_one_answer_without_log_probabilities_has_no_score_and_the_others_are_graded():
    ask = RecordingAsk(
        lambda request: reply_with("yes") if "\nb\n" in question_of(request) else with_probabilities(yes=0.9)(request)
    )
    grades = hosted(CHOICES).grade(items("a", "b", "c"), ask)
    assert [grade.score for grade in grades] == [1.0, None, 1.0]
    assert grades[1].reason == grading_choices.NO_LOGPROBS
    ask_refused_first = RecordingAsk(
        lambda request: (
            Reply(error="refused") if "\na\n" in question_of(request) else with_probabilities(no=0.9)(request)
        )
    )
    assert [grade.score for grade in hosted(CHOICES).grade(items("a", "b"), ask_refused_first)] == [None, 0.0]


# Rows of grades


def test_rows_of_a_hosted_judge_are_a_valid_table_and_contain_its_replies(tmp_path):
    ask = RecordingAsk(lambda request: reply_with("?") if "\nbad\n" in question_of(request) else length_of(request))
    rows = stages_local.hosted_grades(hosted(), items("aa", "bad", "aa"), ask)
    schemas.GRADES.write(tmp_path / "grades.jsonl", rows)
    assert schemas.GRADES.read(tmp_path / "grades.jsonl") == rows
    assert [row["score"] for row in rows] == [0.2, None, 0.2]
    assert rows[1]["reason"] == grading_grades.NO_SCORE
    assert rows[1]["reply"] == "?"
    assert (rows[0]["model"], rows[0]["system_fingerprint"]) == ("m-1", "fp")
    assert [row["prompt_id"] for row in rows] == ["q0", "q1", "q2"]


def test_rows_have_a_distribution_on_request():
    for distributions in (False, True):
        (row,) = stages_local.hosted_grades(
            hosted(sampling_rubric()), items("a"), RecordingAsk(by_seed(0, 0, 10, 10)), distributions=distributions
        )
        assert row["score"] == 0.5
        assert row["distribution"] == ([[0.0, 0.5], [1.0, 0.5]] if distributions else None)


def test_labels_of_a_lower_coverage_are_reused_without_a_request():
    texts = items("a", "aa", "aaa")
    lower = stages_local.hosted_grades(hosted(), texts[:1], RecordingAsk(length_of))
    ask = RecordingAsk(length_of)
    rows = stages_local.hosted_grades(hosted(), texts, ask, known={row["item"]: row for row in lower})
    assert len(ask.requests) == 2
    assert rows == stages_local.hosted_grades(hosted(), texts, RecordingAsk(length_of))
    assert stages_local.hosted_grades(hosted(), texts, None, known={row["item"]: row for row in rows}) == rows


def test_identical_texts_are_graded_once():
    ask = RecordingAsk(length_of)
    same = [Item(f"q{k}", k, "prompt", "answer") for k in range(3)]
    rows = stages_local.hosted_grades(hosted(), same, ask)
    assert len(ask.requests) == 1
    assert [(row["prompt_id"], row["draw_idx"], row["score"]) for row in rows] == [
        ("q0", 0, 0.6),
        ("q1", 1, 0.6),
        ("q2", 2, 0.6),
    ]


def test_the_identity_of_a_grade_has_everything_that_determines_it_and_nothing_else():
    item = items("a")[0]
    same = [
        hosted().identity(Item("other", 5, item.prompt, item.response, (1, 2))),
        hosted(at=endpoint(max_concurrency=1, timeout=1.0, api_key_env="KEY", max_attempts=1)).identity(item),
        hosted(max_unscored=0.5).identity(item),
    ]
    changed = [
        hosted().identity(Item("q0", 0, item.prompt, "b")),
        hosted().identity(Item("q0", 0, "other", item.response)),
        hosted().identity(Item("q0", 0, item.prompt, item.response, answered=False)),
        hosted(model="n").identity(item),
        hosted(temperature=0.5).identity(item),
        hosted(max_tokens=5).identity(item),
        hosted(extra={"top_k": 1}).identity(item),
        hosted(at=endpoint(base_url="http://127.0.0.1:2/v1")).identity(item),
        hosted(at=endpoint(json_reply="text")).identity(item),
        hosted(system_prompt="Be strict.").identity(item),
        hosted(Structured.model_validate(RAW | {"scale": [0, 9]})).identity(item),
        hosted(sampling_rubric(temperature=0.0)).identity(item),
        *(
            hosted(Structured.model_validate(RAW | {"scale": [0, top], "instructions": "?"})).identity(item)
            for top in (5, 6)
        ),
        *(hosted(CHOICES.model_copy(update={"choices": {"yes": 1.0, "no": low}})).identity(item) for low in (0.0, 0.1)),
    ]
    names = [digest(identity) for identity in [hosted().identity(item), *same]]
    assert len(set(names)) == 1
    assert len({names[0], *map(digest, changed)}) == 1 + len(changed)


# Local models that answer in words


def local(model, rubric=RATING, **changes) -> ReplyJudge:
    return ReplyJudge(model, "sha", rubric, None, **{"temperature": 0.0, "max_tokens": 8} | changes)


def test_unusable_answers_of_a_local_model_have_a_reason_and_count_the_tokens_of_both_questions(model, monkeypatch):
    grades = dict(local(model).grade({"k": items("a")[0], "none": Item("q", 0, "x", "", answered=False)}))
    assert grades["none"] == Grade(None, grading_grades.NO_RESPONSE)
    assert grades["k"].score is None
    assert grades["k"].reason in (grading_grades.CUT, grading_grades.NO_SCORE, grading_grades.NO_JSON)
    questions = [chat.render(model, None, RATING.question("prompt 0", "a", again=again)) for again in (False, True)]
    assert grades["k"].prompt_tokens == sum(map(len, questions))
    monkeypatch.setattr(model, "n_ctx", len(questions[1]) + 7)
    (alone,) = dict(local(model).grade({"k": items("a")[0]})).values()
    assert alone.reason == grades["k"].reason != grading_grades.TOO_LONG
    assert alone.prompt_tokens == len(questions[0])  # the second question no longer fits, the first answer stays
    monkeypatch.setattr(model, "n_ctx", len(questions[0]) + 7)
    assert dict(local(model).grade({"k": items("a")[0]})) == {"k": Grade(None, grading_grades.TOO_LONG)}


def test_an_answer_does_not_depend_on_the_other_requests_or_the_number_of_slots(model):
    texts = {f"k{i}": item for i, item in enumerate(items("so be it", "no", "words " * 9))}
    warm = sampling_rubric(samples=2)
    together = dict(local(model, warm, temperature=1.0).grade(texts))
    assert dict(local(model, warm, temperature=1.0, n_slots=2).grade(texts)) == together
    for key, item in texts.items():
        assert dict(local(model, warm, temperature=1.0).grade({key: item})) == {key: together[key]}
    assert len({grade.reply for grade in together.values()}) == len(texts)
    for grade in together.values():
        one, other = json.loads(grade.reply)
        assert one != other


def replace_replies(model, monkeypatch, answer):
    """Replace the model's replies by a function of question and sample; tokenizing and reading of replies stay real."""

    def generate(model_, requests, sampling, max_tokens, *_, **__):
        for request in reversed(list(requests)):  # in any order
            text = answer(model.detokenize(request.prompt_ids), request.key[1])
            ids = model.tokenize(text) if text else ()
            yield generator.Response(request.key, tuple(ids), "stop", "ok")

    monkeypatch.setattr(generator, "generate", generate)


def test_local_answers_have_the_same_grades_as_equal_hosted_answers(model, monkeypatch):
    texts = dict(zip("abc", items("one", "two", "three"), strict=True))
    answers = {"one": '{"score": 1}', "two": "no idea", "three": 'Well: {"score": 3}'}

    def answer(question, sample):
        name = next(name for name in answers if f"\n{name}\n" in question)
        return '{"score": 9}' if name == "two" and "An earlier answer" in question else answers[name]

    replace_replies(model, monkeypatch, answer)
    ask = RecordingAsk(lambda request: reply_with(answer(question_of(request), 0)))
    expected = hosted().grade(list(texts.values()), ask)
    grades = dict(local(model).grade(texts))
    assert {key: grade.score for key, grade in grades.items()} == {"a": 0.1, "b": 0.9, "c": 0.3}
    assert [grades[key].score for key in texts] == [grade.score for grade in expected]
    assert [grades[key].reply for key in texts] == [grade.reply for grade in expected]


def test_a_local_answer_that_was_cut_has_no_score(model, monkeypatch):
    def generate(model_, requests, *_, **__):
        for request in requests:
            yield generator.Response(request.key, tuple(model.tokenize('{"score": 9} and')), "length", "ok")

    monkeypatch.setattr(generator, "generate", generate)
    (grade,) = dict(local(model).grade({"k": items("a")[0]})).values()
    assert (grade.score, grade.reason) == (None, grading_grades.CUT)


def test_a_local_draft_between_control_tokens_is_no_part_of_the_answer(model, monkeypatch):
    text = '<|im_start|>think\nMaybe {"score": 3}<|im_start|>answer\n{"score": 7}'

    def generate(model_, requests, *_, **__):
        for request in requests:
            yield generator.Response(request.key, tuple(model.tokenize(text, special=True)), "stop", "ok")

    monkeypatch.setattr(generator, "generate", generate)
    (grade,) = dict(local(model).grade({"k": items("a")[0]})).values()
    assert grade.score == 0.7
    assert grade.reply.replace(" ", "") == text.replace(" ", "")  # some vocabularies begin a text with a space


def test_the_question_to_a_local_model_contains_no_marker_of_a_draft(model):
    judge = local(model)
    assert "</think>" not in model.detokenize(judge._question("</think>", "a</think>b"))
    assert judge._question("p", "a < b") == chat.render(model, None, RATING.question("p", "a < b"))


def test_each_unusable_local_sample_is_asked_for_once_more(model, monkeypatch):
    calls = []

    def answer(question, sample):
        again = "An earlier answer" in question
        calls.append((sample, again))
        return "?" if sample == 2 or (sample == 1 and not again) else json.dumps({"score": 2 + sample})

    replace_replies(model, monkeypatch, answer)
    (grade,) = dict(local(model, sampling_rubric(samples=3)).grade({"k": items("a")[0]})).values()
    assert grade.distribution == ((0.2, 0.5), (0.3, 0.5))
    assert sorted(calls) == [(0, False), (1, False), (1, True), (2, False), (2, True)]
    assert json.loads(grade.reply) == ['{"score": 2}', '{"score": 3}', "?"]


def test_local_grades_are_journaled_with_their_distribution(model, monkeypatch, tmp_path):
    replace_replies(model, monkeypatch, lambda question, sample: json.dumps({"score": 3 * sample}))
    for distributions, n_done in ((False, 1), (True, 0)):
        with Journal(tmp_path / "0000.jsonl") as journal:
            judge = local(model, sampling_rubric(samples=2), temperature=1.0)
            (row,) = stages_local.grades(judge, items("a"), journal=journal, distributions=distributions)
            assert journal.tally.items == n_done
    assert row["distribution"] == [[0.0, 0.5], [0.3, 0.5]]
    assert row["score"] == pytest.approx(0.15)


# Compatibility of a judge and its rubric

LIKELIHOOD = Likelihood(kind="likelihood", system_prompt="helpful.txt")


@pytest.mark.parametrize(
    ("rubric", "block", "sentence"),
    [
        (
            LIKELIHOOD,
            {"uncertainty": "distribution"},
            "`judge.uncertainty` is 'distribution', but the rubric 'mine.yaml' is of kind",
        ),
        (RATING, {"uncertainty": "distribution"}, "'structured', which gives one number; choose a rubric"),
        (sampling_rubric(temperature=0.0), {}, "`judge` asks 4 times by the rubric 'mine.yaml' at temperature 0"),
        (sampling_rubric(temperature=None), {}, "at temperature 0"),
        (
            sampling_rubric(),
            {"provider": "any", "extra": {"seed": 1}},
            "`judge.extra` has a seed, but the rubric 'mine.yaml' asks 4",
        ),
        (
            LIKELIHOOD,
            {"provider": "any"},
            "`judge` asks the provider 'any', but the rubric 'mine.yaml' is of kind 'likelihood'",
        ),
    ],
)
def test_a_judge_that_is_incompatible_with_its_rubric_is_refused(rubric, block, sentence):
    with pytest.raises(UserError, match=f"^config: .*{sentence}") as error:
        rubric.check(JudgeBlock.model_validate({"rubric": "mine.yaml"} | block), "judge")
    assert "\n" not in str(error.value)


def test_a_judge_that_is_compatible_with_its_rubric_is_accepted():
    for rubric, block in [
        (LIKELIHOOD, {}),
        (CHOICES, {"uncertainty": "distribution"}),
        (CHOICES, {"provider": "any"}),
        (RATING, {"provider": "any"}),
        (sampling_rubric(), {"uncertainty": "distribution"}),
        (sampling_rubric(temperature=None), {"temperature": 0.5}),
        (sampling_rubric(temperature=None), {"temperature": None}),
    ]:
        rubric.check(JudgeBlock.model_validate(block), "judge")
    RATING.check(OracleBlock(provider="any", model="m"), "oracle")


# Unusable answers


def grade_rows(n: int, **unusable: int) -> list[dict]:
    """n rows of grades; each keyword is a reason, with the number of rows that have no score for it."""
    reasons = [getattr(grading_grades, name) for name, count in unusable.items() for _ in range(count)]
    rows = [{"score": None, "reason": reason} for reason in reasons]
    rows += [{"score": 0.5, "reason": None}] * (n - len(rows))
    return [{"prompt_id": f"q{k}"} | row for k, row in enumerate(rows)]


def test_more_unusable_answers_than_allowed_are_refused_with_one_sentence():
    unscored.check_unscored(grade_rows(100, NO_JSON=5), 0.05, "judge", "here")
    unscored.check_unscored([], 0.0, "judge", "here")
    with pytest.raises(UserError) as error:
        unscored.check_unscored(
            grade_rows(100, NO_JSON=2, CUT=4), 0.05, "judges.strict", "results/judges/strict/base.jsonl"
        )
    message = str(error.value)
    assert message.startswith("results/judges/strict/base.jsonl: 6 of 100 answers of `judges.strict` are unusable")
    assert (
        f"(4 x {grading_grades.CUT}; 2 x {grading_grades.NO_JSON}), more than `judges.strict.max_unscored: 0.05` allows"
        in message
    )
    assert "\n" not in message


def test_items_that_were_not_sent_to_the_judge_do_not_count_as_unusable():
    rows = grade_rows(4, NO_RESPONSE=1, TOO_LONG=1, NOT_FINITE=1, NO_REFERENCE=1)
    unscored.check_unscored(rows, 0.0, "judge", "here")
    (grade,) = dict(reference.Oracle().grade({"k": items("a")[0]})).values()
    assert grade.reason == grading_grades.NO_REFERENCE
    with pytest.raises(UserError, match="1 of 5 answers"):
        unscored.check_unscored([*rows, {"score": None, "reason": grading_grades.CUT}], 0.1, "judge", "here")


def test_a_job_stops_early_only_where_chance_cannot_explain_its_unusable_answers():
    early = unscored.check_unscored_early
    for n, unusable, limit in [
        (100, 5, 0.05),
        (100, 8, 0.05),
        (20, 4, 0.05),
        (1, 1, 0.05),
        (3, 3, 0.5),
        (50, 50, 1.0),
        (0, 0, 0.0),
    ]:
        early(grade_rows(n, NO_JSON=unusable), limit, "judge", "here")
    for n, unusable, limit in [(100, 30, 0.05), (20, 20, 0.05), (5, 5, 0.05), (20, 1, 0.0), (40, 40, 0.5)]:
        with pytest.raises(UserError, match=f"{unusable} of {n} answers"):
            early(grade_rows(n, NO_JSON=unusable), limit, "judge", "here")


def test_unusable_draws_of_one_prompt_count_as_one_for_an_early_stop():
    """Three of twenty prompts with ten unusable draws each are no more evidence than three of twenty answers."""
    rows = grade_rows(20, NO_JSON=3)
    for draws in (rows, [row | {"draw_idx": k} for row in rows for k in range(10)]):
        unscored.check_unscored_early(draws, 0.05, "judge", "here")


@pytest.mark.parametrize("limit", [0.01, 0.05, 0.3])
def test_an_early_stop_by_chance_is_rarer_than_one_in_a_million(limit):
    """At the first count that stops a job, the exact binomial tail is below the bound."""
    for n in (1, 7, 20, 100, 400):
        for unusable in range(n + 1):
            tail = sum(math.comb(n, k) * limit**k * (1 - limit) ** (n - k) for k in range(unusable, n + 1))
            try:
                unscored.check_unscored_early(grade_rows(n, NO_JSON=unusable), limit, "judge", "here")
            except UserError:
                assert tail < unscored.CHANCE
                break


# Ensembles


def row(prompt_id, score, reason=None, item="h", **more):
    return {"prompt_id": prompt_id, "draw_idx": 0, "score": score, "reason": reason, "reply": "r", "item": item, **more}


def test_the_score_of_an_ensemble_is_the_mean_of_its_members(tmp_path):
    members = {
        "a": [row("p", 0.2, item="1"), row("q", 0.5, item="2"), row("r", None, grading_grades.CUT)],
        "b": [row("p", 0.6, item="3"), row("q", 0.5, item="4"), row("r", 0.5)],
        "c": [
            row("p", 0.2, item="5"),
            row("q", None, grading_grades.NO_JSON),
            row("r", None, grading_grades.NO_RESPONSE),
        ],
    }
    rows = grading_grades.ensemble(members, distributions=True)
    schemas.GRADES.write(tmp_path / "grades.jsonl", rows)
    assert schemas.GRADES.read(tmp_path / "grades.jsonl") == rows
    assert rows[0]["score"] == pytest.approx(1 / 3)
    assert rows[0]["distribution"] == [[0.2, 2 / 3], [0.6, 1 / 3]]
    assert [row["score"] for row in rows[1:]] == [None, None]
    assert rows[1]["reason"] == f"c: {grading_grades.NO_JSON}"
    assert rows[2]["reason"] == f"a: {grading_grades.CUT}; c: {grading_grades.NO_RESPONSE}"
    assert all(row["distribution"] is None for row in grading_grades.ensemble(members))
    assert len({row["item"] for row in rows}) == 3


def test_an_ensemble_of_grades_of_different_responses_raises_a_value_error():
    with pytest.raises(ValueError, match="different responses"):
        grading_grades.ensemble({"a": [row("p", 0.1)], "b": [row("q", 0.1)]})
    with pytest.raises(ValueError, match="zip"):
        grading_grades.ensemble({"a": [row("p", 0.1)], "b": []})


@given(st.lists(st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.7, 1.0]), min_size=2, max_size=7))
def test_members_of_an_ensemble_have_equal_weight_whatever_their_order(scores):
    members = {f"m{k}": [row("p", score, item=str(k))] for k, score in enumerate(scores)}
    (one,) = grading_grades.ensemble(members, distributions=True)
    (other,) = grading_grades.ensemble(dict(reversed(members.items())), distributions=True)
    assert one["score"] == other["score"] == pytest.approx(np.mean(scores))
    assert min(scores) <= one["score"] <= max(scores)
    assert one["distribution"] == other["distribution"]


# Items


def test_items_record_whether_a_response_exists_and_ended_by_itself():
    rows = [
        {"prompt_id": "a", "draw_idx": 0, "prompt": "x", "response": "", "token_ids": None, "status": "ok"},
        {"prompt_id": "b", "draw_idx": 0, "prompt": "x", "response": "", "token_ids": None, "status": "refused"},
        {"prompt_id": "c", "draw_idx": 0, "prompt": "x", "response": "y", "token_ids": [1], "status": "ok"},
        {"prompt_id": "d", "draw_idx": 0, "prompt": "x", "response": "", "token_ids": [], "status": "too_long"},
    ]
    rows = [row | {"finish_reason": "stop" if row["prompt_id"] == "a" else None} for row in rows]
    row_items = stages_local.items(rows)
    assert [item.answered for item in row_items] == [True, False, True, False]
    assert [item.stopped for item in row_items] == [True, False, False, False]
    assert [item.token_ids for item in row_items] == [(), (), (1,), ()]
    prompt_ids = []
    stages_local.items(rows, tokens=lambda row: prompt_ids.append(row["prompt_id"]) or (5,))
    assert prompt_ids == ["a", "c"]
