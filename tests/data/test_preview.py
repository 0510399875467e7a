"""What a plan reads of a user's data: all rows of small data, as the import does, and the first rows of large ones."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from arena_cje.data import preview
from arena_cje.data.preview import OwnFiles
from arena_cje.data.reading import Reading
from arena_cje.data.units import differing_units
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N = 40


def row(k: int) -> dict:
    return {
        "prompt_id": f"p{k}",
        "response": f'They wrote {{"oracle_label": 0.{k}}}',
        "base_policy_logprob": -5.0,
        "target_policy_logprobs": {"clone": -5.0, "other": -6.0},
        "judge_score": 0.5,
        "oracle_label": 1.0 if k % 4 == 0 else None,
    }


def write(path: Path, rows: list[dict]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


def write_own_files(folder: Path, change: Callable[[dict], dict] = dict, **more) -> OwnFiles:
    logged = write(folder / "logged.jsonl", [change(row(k)) for k in range(N)])
    draws = {"clone": folder / "draws" / "clone.jsonl"}
    write(draws["clone"], [{"prompt_id": f"p{k}", "judge_score": 0.5} for k in range(N)])
    return OwnFiles(logged, str(folder / "draws"), draws, **more)


@pytest.fixture(params=["whole", "first rows"])
def size(request, monkeypatch):
    """Runs the test with small data, which are read as a whole, and with the same data treated as large."""
    if request.param == "first rows":
        monkeypatch.setattr(preview, "WHOLE", 0)
    return request.param


def test_policies_and_labels_are_those_of_the_data(tmp_path, size):
    data = preview.preview(write_own_files(tmp_path), Reading())
    assert (data.base_policy, data.with_logprobs, data.with_draws) == ("base", ("clone", "other"), ("clone",))
    assert data.policies == ("base", "clone", "other")
    assert data.has_labels and data.notes == ()
    assert (data.n_rows, data.n_labels) == ((N, N // 4) if size == "whole" else (None, None))


def test_a_misspelled_field_of_labels_is_named(tmp_path, size):
    data = preview.preview(
        write_own_files(tmp_path, lambda one: one | {"oracle_label": None, "oracle_lable": 1}), Reading()
    )
    assert (data.has_labels, data.label_hint) == (False, " (did you mean 'oracle_lable'?)")
    assert (
        preview.preview(write_own_files(tmp_path, lambda one: one | {"oracle_label": None}), Reading()).label_hint == ""
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"judge_score": 7}, "logged.jsonl:1: judge_score is 7, expected at most 1; set the ranges of your data"),
        ({"judge_score": None}, "logged.jsonl: none of 40 rows has a judge_score$"),
        (
            {"judge_score": None, "judge_scroe": 0.5},
            r"none of 40 rows has a judge_score \(did you mean 'judge_scroe'\?\)",
        ),
        ({"prompt_id": None}, "logged.jsonl:1: has neither prompt_id nor prompt"),
        ({"metadata": {"response_token_count": "12"}}, "response_token_count is '12', expected a number"),
        ({"target_policy_logprobs": {"clown": 1.5}}, "logged.jsonl:1: target_policy_logprobs.clown is 1.5"),
    ],
)
def test_logged_rows_that_break_the_format_are_refused(tmp_path, size, change, sentence):
    with pytest.raises(UserError, match=sentence):
        preview.preview(write_own_files(tmp_path, lambda one: one | change), Reading())


def test_rows_of_draws_probes_and_calibration_data_are_checked(tmp_path, size):
    probe = write(tmp_path / "probes" / "clone.jsonl", [{"prompt_id": "p1", "policy": "clown", "judge_score": 0.5}])
    with pytest.raises(UserError, match="policy is 'clown' among the probes of 'clone'"):
        preview.preview(write_own_files(tmp_path, probes={"clone": tmp_path / probe}), Reading())
    more = write(tmp_path / "more.jsonl", [{"prompt_id": "x", "judge_score": 50, "oracle_label": 1}])
    with pytest.raises(UserError, match="more.jsonl:1: judge_score is 50"):
        preview.preview(write_own_files(tmp_path, calibration_data=more), Reading())


def test_the_text_oracle_label_in_a_response_is_not_a_label(tmp_path, size):
    without = write_own_files(tmp_path, lambda one: one | {"oracle_label": None})
    assert not preview.preview(without, Reading()).has_labels


def test_a_label_beyond_the_first_rows_of_large_data_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "WHOLE", 0)
    monkeypatch.setattr(preview, "ROWS", 5)
    late = write_own_files(tmp_path, lambda one: one | {"oracle_label": 1.0 if one["prompt_id"] == "p39" else None})
    assert preview.preview(late, Reading()).has_labels


def test_a_file_of_another_tool_is_refused_with_the_command_that_converts_it(tmp_path):
    rows = [
        {"doc_id": k, "doc": {"q": "x"}, "target": "1", "arguments": [], "resps": [["1"]], "exact_match": 1.0}
        for k in range(3)
    ]
    logged = write(tmp_path / "samples_task.jsonl", rows)
    with pytest.raises(UserError, match=r"is a file of the format lm-eval, .*arena-cje convert lm-eval") as caught:
        preview.preview(OwnFiles(logged), Reading())
    assert "\n" not in str(caught.value)


def test_a_note_warns_of_labels_on_a_smaller_scale_than_the_declared_one(tmp_path):
    def graded(one: dict) -> dict:
        k = int(one["prompt_id"][1:])
        return one | {"judge_score": 1 + k % 10, "oracle_label": 1 + k % 5}

    own = write_own_files(tmp_path, graded)
    (note,) = preview.preview(OwnFiles(own.logged), Reading(scale=(1, 10))).notes
    assert note.startswith("no oracle label exceeds 5 where judge scores reach 10, both on the scale from 1 to 10")


@pytest.mark.parametrize(
    ("labels", "scales", "differ"),
    [
        ([0.0, 0.25, 0.5], ((0, 10), (0, 10)), True),
        ([0.0, 0.25, 1.0], ((0, 10), (0, 10)), False),  # labels that reach the top are on this scale
        ([0.0, 0.25, 0.5], ((0, 10), (0, 5)), False),  # each column has its own
        ([0.0, 0.25, 0.5], (None, None), False),  # no scale was declared
    ],
)
def test_scores_and_labels_are_compared_only_on_one_declared_scale(labels, scales, differ):
    scores = np.linspace(0, 1, 30)
    assert (differing_units(scores, np.tile(labels, 10), *scales) is not None) == differ


def test_a_plan_reads_little_of_large_data(tmp_path):
    """100 000 rows: half of the file is never parsed, so that this takes a tenth of a second and not several."""
    line = json.dumps(row(1) | {"response": "word " * 40}) + "\n"
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for k in range(100_000):
            file.write(line.replace('"p1"', f'"p{k}"', 1))
    begin = time.process_time()
    data = preview.preview(OwnFiles(str(path)), Reading())
    assert time.process_time() - begin < 1
    assert data.n_rows is None and not data.has_labels
