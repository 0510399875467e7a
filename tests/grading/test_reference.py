"""The reference oracle: its scores by hand, its definition of a word, and the references that it refuses."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena_cje.errors import UserError
from arena_cje.grading import reference
from arena_cje.grading.grades import Item
from arena_cje.grading.reference import FIELDS, Oracle, grade, parse, words

WHERE = "prompts.jsonl:3"


def score(checks: dict, response: str) -> float:
    return grade(parse(checks, where=WHERE), response).score


def item(response: str, reference: dict | None) -> Item:
    return Item(prompt_id="p1", draw_idx=0, prompt="?", response=response, token_ids=(1,), reference=reference)


@pytest.mark.parametrize(
    ("phrase", "response", "is_match"),
    [
        ("Paris", "The capital is PARIS!", True),
        ("art", "Let us start.", False),
        ("4", "14", False),
        ("4", "The answer is 4.", True),
        ("4", "It is 3.4", False),
        ("3.5", "about 3.5, I think", True),
        ("1000", "1,000 grams", True),
        ("1000", "1000.", True),
        ("Sao Paulo", "São Paulo", True),
        ("é", "e\u0301", True),
        ("don't", "I don\u2019t know", True),
        ("dont", "I don't know", True),
        ("New Delhi", "It is New\n Delhi.", True),
        ("New Delhi", "Delhi is new", False),
        ("twenty one", "twenty-one", True),
        ("strasse", "Straße", True),
        ("CO2", "CO₂", True),
        ("snake case", "snake_case", True),
    ],
)
def test_phrases_are_found_as_whole_words_whatever_case_accents_and_punctuation(phrase, response, is_match):
    assert score({"any_of": [phrase]}, response) == float(is_match)


@given(st.text(), st.text())
def test_splitting_into_words_is_idempotent_and_additive(first, second):
    assert words(" ".join(words(first))) == words(first)
    assert words(f"{first}\n{second}") == words(first) + words(second)


@given(st.lists(st.sampled_from(["red", "green", "blue", "or", "sky"])), st.booleans())
def test_case_spacing_and_punctuation_never_change_a_score(tokens, shout):
    checks = {"all_of": [["red"], ["green", "blue"]], "forbidden": ["sky"], "max_words": 4}
    plain, dressed = " ".join(tokens), "...  ".join(tokens) + "!"
    assert score(checks, dressed.upper() if shout else dressed) == score(checks, plain)


@pytest.mark.parametrize("response", ["", "   \n", "...!?", "🙂"])
@pytest.mark.parametrize("checks", [{"any_of": ["Paris"]}, {"pattern": ".*"}, {"all_of": [["a"]], "max_words": 3}])
def test_a_response_without_words_scores_zero(checks, response):
    assert score(checks, response) == 0.0


def test_all_of_scores_the_share_of_groups_that_match():
    checks = {"all_of": [["red"], ["gray", "grey"], ["blue"]]}
    assert [score(checks, r) for r in ("pink", "red", "red and grey", "blue, gray, red, grey")] == pytest.approx(
        [0, 1 / 3, 2 / 3, 1]
    )


def test_a_forbidden_phrase_sets_the_score_to_zero():
    checks = {"any_of": ["positive"], "forbidden": ["negative"]}
    assert score(checks, "Positive.") == 1.0
    assert score(checks, "Positive, or perhaps negative.") == 0.0


def test_each_unmet_one_of_k_form_checks_lowers_the_score_by_one_over_k_plus_one():
    checks = {"any_of": ["yes"], "starts_with": "Yes", "max_words": 2, "min_words": 2}
    assert score(checks, "yes indeed") == 1.0
    assert score(checks, "yes") == pytest.approx(3 / 4)
    assert score(checks, "oh yes indeed") == pytest.approx(2 / 4)
    assert score({"any_of": ["yes"], "max_words": 1}, "yes indeed") == pytest.approx(1 / 2)


def test_form_checks_score_zero_where_the_content_is_wrong():
    assert score({"any_of": ["Paris"], "max_words": 1}, "London") == 0.0


def test_scores_of_content_checks_are_multiplied():
    checks = {"any_of": ["loop"], "all_of": [["for"], ["while"]], "pattern": r"\bfor\b.*:"}
    assert score(checks, "A loop: for x in y:") == pytest.approx(1 / 2)
    assert score(checks, "A loop for you") == 0.0


def test_a_pattern_is_searched_in_the_response_with_its_punctuation():
    assert score({"pattern": r"\bO2?\b"}, "It is o2.") == 1.0
    assert score({"pattern": r"-5\b"}, "minus five: -5") == 1.0
    assert score({"pattern": r"-5\b"}, "5") == 0.0


@given(st.text(alphabet="ab4 .,'é", max_size=30))
def test_scores_lie_between_zero_and_one(response):
    checks = {"all_of": [["a"], ["b", "4"]], "forbidden": ["ab"], "starts_with": "a", "min_words": 2, "max_words": 5}
    assert 0.0 <= score(checks, response) <= 1.0


def test_every_item_has_a_grade_and_one_without_a_reference_has_no_score():
    items = {"x": item("Paris", {"any_of": ["Paris"]}), "y": item("Paris", None), "z": item("", {"any_of": ["Paris"]})}
    grades = dict(Oracle().grade(items))
    assert [grades[key].score for key in "xyz"] == [1.0, None, 0.0]
    assert grades["y"].reason == "the prompt has no reference"


def test_the_identity_of_a_label_depends_on_the_response_and_the_reference():
    first = Oracle().identity(item("Paris", {"any_of": ["Paris"]}))
    assert first == Oracle().identity(item("Paris", {"any_of": ["Paris"]}))
    assert first != Oracle().identity(item("London", {"any_of": ["Paris"]}))
    assert first != Oracle().identity(item("Paris", {"any_of": ["Rome"]}))


@pytest.mark.parametrize(
    ("checks", "sentence"),
    [
        ({"any_off": ["Paris"]}, "unknown check 'any_off' in reference.*did you mean 'any_of'"),
        ("Paris", "reference must be an object of checks"),
        ({}, "checks no content"),
        ({"max_words": 3}, "checks no content"),
        ({"any_of": "Paris"}, "any_of must be a list of phrases"),
        ({"any_of": ["+"]}, "at least one letter or digit, got '\\+'"),
        ({"any_of": [4]}, "at least one letter or digit, got 4"),
        ({"all_of": ["red", "blue"]}, "all_of must be a list of groups"),
        ({"all_of": [[]]}, "all_of must be a list of groups"),
        ({"any_of": ["a"], "starts_with": "!"}, "starts_with must contain text"),
        ({"any_of": ["a"], "max_words": 0}, "max_words must be a whole number of words, at least 1, got 0"),
        ({"any_of": ["a"], "min_words": True}, "min_words must be a whole number"),
        ({"any_of": ["a"], "min_words": 5, "max_words": 4}, "min_words 5 above max_words 4"),
        ({"pattern": "(", "any_of": ["a"]}, "pattern must be a regular expression"),
        ({"pattern": 4}, "pattern must be a regular expression"),
    ],
)
def test_a_reference_that_cannot_be_read_is_refused_with_its_place(checks, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        parse(checks, where=WHERE)
    assert str(error.value).startswith(WHERE)


def test_all_checks_can_be_combined_in_one_reference():
    checks = {
        "any_of": ["yes"],
        "all_of": [["yes"]],
        "pattern": "y",
        "forbidden": ["no"],
        "starts_with": "yes",
        "max_words": 1,
        "min_words": 1,
    }
    assert set(checks) == set(FIELDS)
    assert score(checks, "Yes.") == 1.0


@pytest.mark.parametrize(
    ("pattern", "response"), [("^(a+)+$", "a" * 40 + "b"), (r"(x+x+)+y", "x" * 4000), (r"(\w+\s?)*!", "word " * 200)]
)
def test_a_pattern_that_backtracks_too_long_is_refused_with_one_sentence(pattern, response, monkeypatch):
    monkeypatch.setattr(reference, "MAX_SEARCH", 0.2)
    began = time.process_time()
    with pytest.raises(
        UserError, match=r"prompt 'p1': `reference.pattern` .* did not finish on a response of \d+ characters"
    ):
        list(Oracle().grade({"k": item(response, {"pattern": pattern})}))
    assert time.process_time() - began < 3
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert score({"pattern": "b$"}, "a" * 40 + "b") == 1.0


def test_patterns_can_be_searched_in_another_thread():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(score, {"pattern": "a+b"}, "aab").result() == 1.0


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", 5])
def test_an_invalid_pattern_is_refused_with_its_place(pattern):
    with pytest.raises(UserError, match=f"{WHERE}: pattern must be a regular expression"):
        parse({"pattern": pattern}, where=WHERE)
