"""Tables are checked when written and when read, no file is half written, and NaN and infinity are never written as null."""

import json
import math

import polars as pl
import pytest

from arena_cje import files
from arena_cje.data.schemas import (
    CALIBRATION,
    DRAWS,
    GRADES,
    LOGGED,
    LOGPROBS,
    PROBES,
    PROMPTS,
    RESPONSES,
    SCORES,
    read_jsonl,
    write_jsonl,
)
from arena_cje.errors import UserError

GRADE = {"prompt_id": "a", "draw_idx": 0, "score": 0.5, "reason": None, "reply": "5"}
GRADE |= {"distribution": [[0.5, 1.0]], "choice_mass": 0.9, "model": "m-1", "system_fingerprint": "f"}
GRADE |= {"label_probability": 0.2, "item": "h"}
SCORED = {
    "prompt_id": "a",
    "logprob": -3.5,
    "n_tokens": 2,
    "token_logprobs": [-1.5, -2.0],
    "n_boundary": 0,
    "status": "ok",
}
RESPONSE = {
    "prompt_id": "a",
    "policy": "base",
    "draw_idx": 0,
    "prompt": "hello",
    "response": "",
    "token_ids": [1, 2],
    "finish_reason": "stop",
    "status": "ok",
    "seed": 2**63,
    "model_sha256": "00",
    "item": "h",
}


def test_rows_written_to_jsonl_are_read_back_unchanged(tmp_path):
    rows = [{"b": 1, "a": [0.1, None, {"c": "\u2028 é"}]}, {"a": 2**53, "b": -0.0}]
    write_jsonl(tmp_path / "new" / "x.jsonl", rows)
    assert read_jsonl(tmp_path / "new" / "x.jsonl") == rows
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.jsonl"]


@pytest.mark.parametrize(("row", "name"), [({"a": math.nan}, "a"), ({"a": {"b": [1.0, -math.inf]}}, r"a\.b\.1")])
def test_a_number_that_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path, row, name):
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [{"a": 1}])
    with pytest.raises(UserError, match=rf"row 1\): {name} is not a finite number"):
        write_jsonl(path, [{"a": 2}, row])
    assert read_jsonl(path) == [{"a": 1}]


def test_a_failed_write_leaves_no_file(tmp_path):
    def fail(handle):
        handle.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.replace(tmp_path / "x", fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops}", "not valid JSON"),
        ("[1]", "expected one JSON object per line, got list"),
        ('{"a": NaN}', "write null"),
    ],
)
def test_a_malformed_line_is_refused_with_its_file_and_line_number(tmp_path, line, message):
    path = tmp_path / "x.jsonl"
    path.write_text(f'{{"a": 1}}\n\n{line}\n')
    with pytest.raises(UserError, match=rf"x\.jsonl:3: .*{message}"):
        read_jsonl(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="gone.jsonl: no such file"):
        PROMPTS.read(tmp_path / "gone.jsonl")
    with pytest.raises(UserError, match="gone.parquet: no such file"):
        LOGPROBS.read(tmp_path / "gone.parquet")


def test_prompt_ids_become_strings_and_both_lines_of_a_duplicate_are_named(tmp_path):
    path = tmp_path / "prompts.jsonl"
    write_jsonl(path, [{"prompt_id": 0, "prompt": "x", "topic": "kept"}, {"prompt_id": "", "prompt": "y"}])
    assert PROMPTS.read(path) == [{"prompt_id": "0", "prompt": "x", "topic": "kept"}, {"prompt_id": "", "prompt": "y"}]
    write_jsonl(
        path, [{"prompt_id": 0, "prompt": "x"}, {"prompt_id": "1", "prompt": "y"}, {"prompt_id": "0", "prompt": "z"}]
    )
    with pytest.raises(
        UserError, match=r"prompts\.jsonl:3: prompt_id '0' appears again \(first at .*prompts\.jsonl:1\)"
    ):
        PROMPTS.read(path)


def test_columns_are_written_in_declared_order(tmp_path):
    path = tmp_path / "g.jsonl"
    GRADES.write(path, [dict(reversed(GRADE.items()))])
    assert list(GRADES.read(path)[0]) == list(GRADES.columns)


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        (PROMPTS, {"prompt_id": "a", "prompt": ""}, "prompt is empty"),
        (PROMPTS, {"prompt": "x"}, "prompt_id is missing"),
        (PROMPTS, {"prompt_id": True, "prompt": "x"}, "prompt_id is True"),
        (PROMPTS, {"prompt_id": "a", "prompt": "x", "reference": "y"}, "reference is 'y', expected an object"),
        (RESPONSES, RESPONSE | {"draw_idx": -1}, "draw_idx is -1, expected at least 0"),
        (RESPONSES, RESPONSE | {"finish_reason": "stopp"}, "did you mean 'stop'"),
        (RESPONSES, RESPONSE | {"token_ids": [1, "2"]}, "elements of type str"),
        (RESPONSES, RESPONSE | {"polcy": "x"}, "unknown field 'polcy' in the responses.*did you mean 'policy'"),
        (GRADES, GRADE | {"score": 1.01}, "score is 1.01, expected at most 1"),
        (GRADES, GRADE | {"score": math.nan}, "score is NaN"),
        (GRADES, GRADE | {"score": None}, "without a reason"),
        (
            LOGGED,
            {"judge_score": 85},
            "judge_score is 85, expected at most 1; set the ranges of your data: `judge_scale`",
        ),
        (DRAWS, {"judge_distribution": [0.5]}, r"elements of type float, expected a list of \[score, mass\] pairs"),
        (PROBES, {"draw_idx": -1}, "draw_idx is -1, expected at least 0"),
        (
            CALIBRATION,
            {"judge_scores": [0.5, "high"]},
            "judge_scores has elements of type str, expected a list of numbers",
        ),
        (LOGPROBS, SCORED | {"logprob": 0.1}, "logprob is 0.1, expected at most 0"),
        (LOGPROBS, SCORED | {"logprob": None}, "status 'ok', expected too_long"),
        (LOGPROBS, SCORED | {"logprob": -math.inf}, "status 'ok', expected outside_support"),
        (LOGPROBS, SCORED | {"token_logprobs": [math.nan]}, "has a NaN in it"),
    ],
)
def test_a_row_that_contradicts_its_declared_columns_is_refused(tmp_path, table, row, message):
    with pytest.raises(UserError, match=message):
        table.write(tmp_path / "x", [row])
    assert not (tmp_path / "x").exists()


def test_responses_are_read_back_unchanged(tmp_path):
    rows = [RESPONSE, RESPONSE | {"draw_idx": 1, "finish_reason": None, "status": "too_long", "token_ids": []}]
    RESPONSES.write(tmp_path / "r.jsonl", rows)
    assert RESPONSES.read(tmp_path / "r.jsonl") == rows


def test_log_probabilities_keep_minus_infinity_and_null_in_parquet(tmp_path):
    rows = [
        SCORED,
        SCORED
        | {"prompt_id": "b", "logprob": -math.inf, "token_logprobs": [-1.0, -math.inf], "status": "outside_support"},
        SCORED | {"prompt_id": "c", "logprob": None, "token_logprobs": None, "status": "too_long"},
    ]
    LOGPROBS.write(tmp_path / "l.parquet", rows)
    frame = LOGPROBS.read(tmp_path / "l.parquet")
    assert frame.to_dicts() == rows
    assert frame.schema["n_tokens"] == pl.Int32
    with pytest.raises(UserError, match="appears again"):
        LOGPROBS.write(tmp_path / "l.parquet", [SCORED, SCORED])


def test_scores_of_a_context_have_one_row_per_prompt_and_sampling(tmp_path):
    rows = [SCORED | {"temperature": t, "top_p": 0.9} for t in (0.5, 1.0)]
    SCORES.write(tmp_path / "s.parquet", rows)
    assert SCORES.read(tmp_path / "s.parquet").height == 2
    with pytest.raises(UserError, match=r"prompt_id 'a', temperature 1\.0, top_p 0\.9 appears again"):
        SCORES.write(tmp_path / "s.parquet", [rows[1], rows[1]])


def test_a_parquet_file_without_a_column_is_refused(tmp_path):
    pl.DataFrame({"prompt_id": ["a"]}).write_parquet(tmp_path / "l.parquet")
    with pytest.raises(UserError, match="n_tokens is missing"):
        LOGPROBS.read(tmp_path / "l.parquet")
    (tmp_path / "l.parquet").write_bytes(b"not parquet")
    with pytest.raises(UserError, match="not a readable parquet file"):
        LOGPROBS.read(tmp_path / "l.parquet")


def test_columns_that_are_not_requested_are_checked_and_left_out(tmp_path):
    path = tmp_path / "grades.jsonl"
    row = {"prompt_id": 7, "draw_idx": 0, "score": 0.5, "reason": None, "item": "a"}
    path.write_text(json.dumps(row) + "\n")
    assert GRADES.read(path, ("prompt_id", "score", "model")) == [{"prompt_id": "7", "score": 0.5}]
    path.write_text(json.dumps(row | {"item": None}) + "\n")
    with pytest.raises(UserError, match="item is missing or null"):
        GRADES.read(path, ("prompt_id", "score"))


def test_only_the_requested_columns_of_a_parquet_file_are_read(tmp_path):
    rows = [
        {
            "prompt_id": "a",
            "logprob": -2.0,
            "n_tokens": 2,
            "token_logprobs": [-1.0, -1.0],
            "n_boundary": 0,
            "status": "ok",
        }
    ]
    LOGPROBS.write(tmp_path / "l.parquet", rows)
    frame = LOGPROBS.read(tmp_path / "l.parquet", ("prompt_id", "logprob", "status"))
    assert frame.rows() == [("a", -2.0, "ok")]
    assert LOGPROBS.read(tmp_path / "l.parquet").columns == list(LOGPROBS.columns)
    with pytest.raises(UserError, match=r"l\.parquet \(row 0\): temperature is missing"):
        SCORES.read(tmp_path / "l.parquet", ("prompt_id", "temperature", "logprob", "status"))
