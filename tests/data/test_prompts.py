"""The shipped prompts: readable, distinct, varied, each with a reference that a correct answer can meet."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from arena_cje.grading.reference import Reference, grade, parse, words

RESOURCES = Path(__file__).parents[2] / "resources"
PROMPTS = [json.loads(line) for line in (RESOURCES / "prompts" / "default.jsonl").read_text().splitlines()]
REFERENCES = {row["prompt_id"]: parse(row["reference"], where=row["prompt_id"]) for row in PROMPTS}


def answer_from_reference(reference: Reference) -> str:
    """A response built from the reference: its opening, a phrase of every group, and padding up to the minimum length."""
    phrases = [reference.starts_with] if reference.starts_with else []
    phrases += [group[0] for group in reference.all_of] + list(reference.any_of[:1])
    short = (reference.min_words or 0) - len(words(" ".join(phrases)))
    return " ".join(phrases + ["indeed"] * short)


def test_there_are_more_prompts_than_the_default_experiment_samples():
    assert len(PROMPTS) >= 480


def test_every_record_has_the_same_fields_and_no_empty_one():
    for row in PROMPTS:
        assert list(row) == ["prompt_id", "prompt", "category", "reference"]
        assert row["prompt"] == row["prompt"].strip() != ""
        assert row["category"] and row["reference"]


def test_ids_and_prompts_are_distinct():
    assert [row["prompt_id"] for row in PROMPTS] == [f"p{i:04d}" for i in range(1, len(PROMPTS) + 1)]
    assert len({words(row["prompt"]) for row in PROMPTS}) == len(PROMPTS)


def test_no_opening_is_shared_by_more_than_a_tenth_of_the_prompts():
    openings = Counter(words(row["prompt"])[:3] for row in PROMPTS)
    assert max(openings.values()) <= len(PROMPTS) / 10


def test_no_category_has_more_than_a_tenth_of_the_prompts():
    sizes = Counter(row["category"] for row in PROMPTS)
    assert len(sizes) >= 20
    assert max(sizes.values()) <= len(PROMPTS) / 10


def test_prompts_vary_in_capitals_politeness_and_length():
    texts = [row["prompt"] for row in PROMPTS]
    assert sum(text[0].islower() for text in texts) > 60
    assert sum("please" in text.lower() for text in texts) >= 5
    assert sum(len(words(text)) <= 4 for text in texts) > 40
    assert sum(len(words(text)) >= 10 for text in texts) > 40


def test_an_answer_built_from_its_reference_has_score_one():
    answerable = {id_: reference for id_, reference in REFERENCES.items() if reference.pattern is None}
    wrong = [
        id_ for id_, reference in answerable.items() if grade(reference, answer_from_reference(reference)).score != 1.0
    ]
    assert len(answerable) > 0.9 * len(PROMPTS)
    assert wrong == []


def test_an_irrelevant_answer_has_score_zero():
    scores = [grade(reference, "Marmalade doorbells hum quietly.").score for reference in REFERENCES.values()]
    assert max(scores) == 0.0


def test_the_base_system_prompt_is_you_are_a_helpful_assistant():
    assert (RESOURCES / "policies" / "helpful.txt").read_text().strip() == "You are a helpful assistant."


@pytest.mark.parametrize("name", ["helpful", "unhelpful", "parallel_universe", "concise"])
def test_system_prompts_are_one_paragraph_of_plain_text(name):
    text = (RESOURCES / "policies" / f"{name}.txt").read_text().strip()
    assert text and "\n" not in text
