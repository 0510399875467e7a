"""Notes before a run: whether the targets' labels that it will buy can pass the transport audit."""

from __future__ import annotations

import pytest

from arena_cje.config import audits, parse

MODEL = {"provider": "openai", "model": "m"}


def config(target_labels: float | None, *, n_prompts: int = 500, **oracle):
    return parse.parse(
        {
            "n_prompts": n_prompts,
            "draws_per_prompt": 10,
            "providers": {"openai": {"api": "openai", "api_key_env": "KEY"}},
            "policies": {"base": MODEL, "one": MODEL | {"temperature": 0.5}, "two": MODEL | {"temperature": 0.7}},
            "judge": MODEL | {"rubric": "rating.yaml"},
            "oracle": {"rubric": "expert.yaml", **MODEL, "target_labels": target_labels, **oracle},
            "coverages": ["0.1", "0.8"],
            "estimators": ["direct"],
        }
    )


def test_a_note_says_that_fifty_labels_of_a_target_cannot_pass_the_transport_audit():
    (note,) = audits.notes(config(0.01))
    assert "buys 50 labels of each target" in note
    assert "205 labels (`oracle.target_labels: 0.041`) give 80 %" in note
    assert "`direct` and the doubly robust estimators are corrected by these labels" in note


def test_with_too_few_labels_to_correct_an_estimate_the_note_gives_the_number_needed():
    (note,) = audits.notes(config(0.004))
    assert "With 50 labels, `direct`" in note


def test_with_too_few_base_labels_the_note_says_that_no_number_of_target_labels_is_enough():
    (note,) = audits.notes(config(0.1, n_prompts=100))
    assert "with the 81 base labels of coverage 0.8, no number is enough" in note


@pytest.mark.parametrize("target_labels", [None, 0.06])
def test_there_is_no_note_if_no_target_labels_or_enough_of_them_are_bought(target_labels):
    assert audits.notes(config(target_labels)) == []


def test_a_wider_transport_margin_needs_fewer_labels():
    wide = config(0.01).model_copy(update={"verdict": {"transport_margin": 0.2}})
    assert audits.notes(wide) == []
