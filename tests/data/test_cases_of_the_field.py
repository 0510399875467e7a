"""Inputs as tools of this field write them: values with a clear meaning are read, others are refused in one sentence."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import polars as pl
import pytest

import arena_cje
from arena_cje import estimators, files
from arena_cje.data import names, schemas
from arena_cje.data.dataset import load_dataset
from arena_cje.data.draws import draw_paths, find_draws
from arena_cje.data.reading import Reading
from arena_cje.data.sources import placed_rows
from arena_cje.data.user_data import read_user_data
from arena_cje.errors import UserError
from arena_cje.results.result import write as write_result

if TYPE_CHECKING:
    from pathlib import Path

N = 80
TRUTH = {"clone": 0.25, "shift": 0.5}


def logged_rows() -> list[dict]:
    """Logged rows with a label of 1 on every fourth, twice as likely under `shift`: policy values of .25 and .5."""
    rows = []
    for k in range(N):
        good = k % 4 == 0
        rows.append(
            {
                "prompt_id": f"p{k}",
                "prompt": f"Question {k}?",
                "response": f"Answer {k}.",
                "base_policy_logprob": -20.0,
                "target_policy_logprobs": {"clone": -20.0, "shift": -20.0 + math.log(2 if good else 2 / 3)},
                "judge_score": 0.9 if good else 0.1,
                "oracle_label": float(good),
            }
        )
    return rows


def draws_of(rows: list[dict], policy: str) -> list[dict]:
    """Fresh draws of a policy, of which a share equal to its value is good."""
    good = {"clone": 4}.get(policy, 2)
    return [{"prompt_id": row["prompt_id"], "judge_score": 0.9 if k % good == 0 else 0.1} for k, row in enumerate(rows)]


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def values(result: arena_cje.Result) -> dict[str, float]:
    """The values of the target policies, those of refused ones too."""
    refused = {policy: entry["estimate"] for policy, entry in result.refused.items()}
    return dict(zip(result.policies, result.estimates.tolist(), strict=True)) | {
        policy: value for policy, value in refused.items() if policy in result.policies
    }


# Units


def on_other_scales(judge: float = 10.0, label: float = 1.0) -> list[dict]:
    return [
        row | {"judge_score": judge * row["judge_score"], "oracle_label": label * row["oracle_label"]}
        for row in logged_rows()
    ]


@pytest.mark.parametrize(
    ("judge", "label", "scales"),
    [
        (10, 1, {"judge_scale": (0, 10)}),
        (10, 1, {"judge_scale": [0, 10], "label_scale": [0, 1]}),
        (1, 100, {"label_scale": (0, 100)}),
        (5, 100, {"judge_scale": (0, 5), "label_scale": (0, 100)}),
        (10, 100, {"scale": (0, 100), "judge_scale": (0, 10)}),
    ],
)
def test_judge_scores_and_labels_may_have_different_scales(judge, label, scales):
    result = arena_cje.analyze(on_other_scales(judge, label), estimator="snips", **scales)
    assert values(result) == pytest.approx(TRUTH)
    assert result.reading == Reading(**scales)


@pytest.mark.parametrize("scale", [(0, 10), (0, 100), (0, 5), (0, 3), (-10, 10), (-10, 1)])
def test_labels_that_all_lie_in_a_small_part_of_their_scale_are_refused(scale):
    with pytest.raises(UserError, match=r"oracle_label: all 80 values lie between 0 and 1, .* by `label_scale`"):
        arena_cje.analyze(on_other_scales(), estimator="snips", judge_scale=(0, 10), label_scale=scale)


def test_scores_in_the_lowest_tenth_of_their_scale_are_refused():
    with pytest.raises(UserError, match=r"judge_score: all 80 values lie in the lowest tenth .* by `judge_scale`"):
        arena_cje.analyze(on_other_scales(judge=5), estimator="snips", judge_scale=(0, 100))


def test_labels_that_are_nearly_all_high_or_all_zero_are_accepted():
    """Data of users may have nearly all answers right, or all or none of them."""
    rows = on_other_scales(judge=1, label=100)
    for k, row in enumerate(rows):
        row["oracle_label"] = 100.0 if k % 8 else 92.0
    assert values(arena_cje.analyze(rows, estimator="snips", label_scale=(0, 100)))["clone"] == pytest.approx(0.99)
    for row in rows:
        row["oracle_label"] = 0
    assert values(arena_cje.analyze(rows, estimator="snips", label_scale=(0, 100)))["clone"] == 0


def test_an_outlier_does_not_hide_a_wrong_scale():
    rows = on_other_scales()
    rows[0]["oracle_label"] = 10.0
    result = arena_cje.analyze(rows, estimator="snips", scale=(0, 10))
    for verdict in result.verdicts.values():
        reason = next(reason for reason in verdict.reasons if reason.code == "unusual_units")
        assert (reason.level, "oracle labels" in reason.sentence) == ("caution", True)


def test_labels_on_half_of_their_scale_are_cautioned_about():
    """Labels of 0 and 1 on a scale of 0, 1 and 2: the highest may be absent by chance, or the scale wrong."""
    result = arena_cje.analyze(on_other_scales(), estimator="snips", judge_scale=(0, 10), label_scale=(0, 2))
    assert all("unusual_units" in {one.code for one in verdict.reasons} for verdict in result.verdicts.values())
    result = arena_cje.analyze(on_other_scales(label=2), estimator="snips", judge_scale=(0, 10), label_scale=(0, 2))
    assert not any("unusual_units" in {one.code for one in verdict.reasons} for verdict in result.verdicts.values())


def test_scores_and_labels_on_one_scale_that_only_one_of_them_fills_are_cautioned_about():
    """Scores from 1 to 10 and labels from 1 to 5, both read on (1, 10): labels of 5 would count as .44."""
    rows = [
        row | {"judge_score": 1 + 9 * row["judge_score"], "oracle_label": 1 + 4 * row["oracle_label"]}
        for row in logged_rows()
    ]
    one_scale = arena_cje.analyze(rows, estimator="snips", scale=(1, 10))
    for verdict in one_scale.verdicts.values():
        (reason,) = (reason for reason in verdict.reasons if reason.code == "unusual_units")
        assert reason.level == "caution" and "no oracle label exceeds 5" in reason.sentence
    own = arena_cje.analyze(rows, estimator="snips", judge_scale=(1, 10), label_scale=(1, 5))
    assert not any("unusual_units" in {one.code for one in verdict.reasons} for verdict in own.verdicts.values())
    assert values(own) == pytest.approx(TRUTH, abs=0.02)


def test_swapped_columns_of_scores_and_labels_are_a_caution_of_every_policy():
    """A judge scores all rows and labels are few; more labels than scores are the other way round."""
    rows = [row | {"oracle_label": row["oracle_label"] if k % 4 == 0 else None} for k, row in enumerate(logged_rows())]
    swapped = [row | {"judge_score": row["oracle_label"], "oracle_label": row["judge_score"]} for row in rows]
    for data, n_cautioned in ((rows, 0), (swapped, 3)):
        verdicts = arena_cje.analyze(data, estimator="snips").verdicts
        reasons = [reason for verdict in verdicts.values() for reason in verdict.reasons]
        sentences = [reason.sentence for reason in reasons if reason.code == "labels_without_scores"]
        assert len(sentences) == n_cautioned
    assert sentences[0].startswith(f"{3 * len(rows) // 4} logged rows have a label and no judge score, and only ")


def test_a_poor_policy_may_have_the_lowest_scores_and_is_cautioned_about():
    rows = on_other_scales(judge=10)
    poor = [{"prompt_id": row["prompt_id"], "judge_score": k % 2} for k, row in enumerate(rows)]
    draws = {"clone": draws_of(rows, "clone"), "shift": poor}
    draws["clone"] = [row | {"judge_score": 10 * row["judge_score"]} for row in draws["clone"]]
    result = arena_cje.analyze(rows, draws, "direct", judge_scale=(0, 10))
    cautioned = {
        policy
        for policy, verdict in result.verdicts.items()
        if "unusual_units" in {reason.code for reason in verdict.reasons}
    }
    assert cautioned == {"shift"}


def test_draws_with_all_scores_below_one_on_a_scale_up_to_ten_are_refused():
    rows = on_other_scales(judge=10)
    draws = {policy: draws_of(rows, policy) for policy in TRUTH}  # 0.1 and 0.9
    with pytest.raises(UserError, match=r"judge_score: all 80 values lie between 0 and 1"):
        arena_cje.analyze(rows, draws, "direct", judge_scale=(0, 10))


def test_values_outside_the_declared_scale_are_refused_with_the_keys_to_set():
    with pytest.raises(UserError, match=r"judge_score is 9\.0, .* `judge_scale` for judge scores and `label_scale`"):
        arena_cje.analyze(on_other_scales(), estimator="snips")
    with pytest.raises(
        UserError, match=r"oracle_label is 0\.0, .* set the range of each column by `judge_scale` and `label_scale`"
    ):
        arena_cje.analyze(on_other_scales(judge=100)[1:], estimator="snips", scale=(1, 100))


def test_a_further_judge_has_a_scale_of_its_own():
    rows = [row | {"judge_score": 77, "judge_b": 1 + 4 * row["judge_score"]} for row in logged_rows()]
    result = arena_cje.analyze(rows, estimator="snips", judge="b", judge_scale=(1, 5))
    assert values(result) == pytest.approx(TRUTH)


def test_an_import_keeps_the_scales(tmp_path):
    rows = on_other_scales(10, 100)
    draws = [row | {"judge_score": 10 * row["judge_score"]} for row in draws_of(rows, "clone")]
    for policy in TRUTH:
        write(tmp_path / "draws" / f"{policy}.jsonl", draws)
    reading = Reading(judge_scale=(0, 10), label_scale=(0, 100))
    data = read_user_data(write(tmp_path / "mine.jsonl", rows), tmp_path / "draws", 1.0, 1, reading=reading)
    assert Reading.from_summary(data.summary) == reading
    assert next(iter(data.logged))["oracle_label"] == 100


# Frames and other sources of data


class ArrowTable:
    """A table of another library, of which only the Arrow C interface is known."""

    def __init__(self, frame: pl.DataFrame):
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema=None):
        return self.frame.__arrow_c_stream__(requested_schema)


SOURCES = {
    "polars": lambda path: pl.read_ndjson(path),
    "polars, lazily": lambda path: pl.scan_ndjson(path),
    "pandas": lambda path: pd.read_json(path, lines=True),
    "pandas, of dicts": lambda path: pd.DataFrame(files.read_jsonl(path)),
    "arrow": lambda path: ArrowTable(pl.read_ndjson(path)),
    "dicts": lambda path: files.read_jsonl(path),
    "one by one": lambda path: iter(files.read_jsonl(path)),
    "text": str,
    "numpy": lambda path: [
        {k: np.array(v)[()] if k == "judge_score" else v for k, v in row.items()} for row in logged_rows()
    ],
}


@pytest.mark.parametrize("kind", SOURCES)
def test_data_may_come_as_a_frame_as_rows_or_as_a_path(kind, tmp_path):
    source = SOURCES[kind]
    logged = write(tmp_path / "mine.jsonl", logged_rows())
    paths = {policy: write(tmp_path / f"{policy}.jsonl", draws_of(logged_rows(), policy)) for policy in TRUTH}
    result = arena_cje.analyze(source(logged), {p: source(path) for p, path in paths.items()}, "direct")
    if kind != "numpy":
        assert values(result) == pytest.approx(TRUTH)
    assert values(arena_cje.analyze(source(logged), estimator="ips")) == pytest.approx(TRUTH)


def test_decimal_values_are_read_as_numbers():
    frame = pl.DataFrame(logged_rows()).with_columns(pl.col("judge_score", "oracle_label").cast(pl.Decimal(5, 2)))
    rows = [row | {"judge_score": Decimal(str(row["judge_score"]))} for row in logged_rows()]
    for source in (frame, ArrowTable(frame), rows, pd.DataFrame(rows)):
        assert values(arena_cje.analyze(source, estimator="ips")) == pytest.approx(TRUTH)


def test_a_polars_lazy_frame_that_fails_is_refused_with_one_sentence(tmp_path):
    for plan in (pl.scan_ndjson(tmp_path / "none.jsonl"), pl.LazyFrame({"a": [1]}).select("b")):
        with pytest.raises(UserError, match="the logged data cannot be read as a table by polars"):
            arena_cje.analyze(plan, estimator="ips")


def test_missing_values_of_a_pandas_frame_stay_missing():
    rows = [
        row | {"draw_idx": 0, "oracle_label": row["oracle_label"] if k % 2 else None}
        for k, row in enumerate(logged_rows())
    ]
    rows[3]["draw_idx"] = None
    frame = pd.DataFrame(rows)
    assert frame["draw_idx"].dtype == float and frame["oracle_label"].isna().sum() == N / 2
    frame_rows = [row for _, row in placed_rows(frame)]
    assert [row["oracle_label"] for row in frame_rows] == [row["oracle_label"] for row in rows]
    assert [row["draw_idx"] for row in frame_rows] == [row["draw_idx"] for row in rows]


def test_a_folder_holds_the_parts_of_one_data_set(tmp_path):
    rows = logged_rows()
    for part in range(12):
        write(tmp_path / "parts" / f"part-{part}.jsonl", rows[part::12])
    (tmp_path / "parts" / ".part-13.jsonl").write_text("hidden")
    placed = list(placed_rows(tmp_path / "parts"))
    assert [place.rpartition("/")[2] for place, _ in placed[:8]] == [f"part-0.jsonl:{k}" for k in range(1, 8)] + [
        "part-1.jsonl:1"
    ]
    assert values(arena_cje.analyze(tmp_path / "parts", estimator="ips")) == pytest.approx(TRUTH)
    write(tmp_path / "parts" / "draws.jsonl", rows)
    with pytest.raises(UserError, match="a folder of several data sets"):
        arena_cje.analyze(tmp_path / "parts", estimator="ips")
    with pytest.raises(UserError, match="a folder without JSONL files"):
        arena_cje.analyze(tmp_path, estimator="ips")


@pytest.mark.parametrize(
    "source",
    [None, 3, True, b"x", {"prompt_id": ["p"]}, [1], ["p"], [[]], [{1: 2}], object(), pd.Series([1]), "\0", "x" * 300],
)
def test_input_that_is_no_table_is_refused(source):
    with pytest.raises(UserError):
        arena_cje.analyze(source, estimator="ips")
    if source is not None and not isinstance(source, dict):
        with pytest.raises(UserError):
            arena_cje.analyze(logged_rows(), source, "direct")
    with pytest.raises(UserError):
        arena_cje.analyze(logged_rows(), {"clone": source, "shift": source}, "direct")


# Probability zero


@pytest.mark.parametrize("spelling", ["-Infinity", '"-inf"', '"-Infinity"', "-1e999", '"-INF"'])
def test_minus_infinity_is_probability_zero(spelling, tmp_path):
    rows = logged_rows()
    reference_rows = [
        row
        if k % 8
        else row
        | {
            "target_policy_logprobs": row["target_policy_logprobs"] | {"shift": -10000.0},
            "metadata": {"outside_support": ["shift"]},
        }
        for k, row in enumerate(rows)
    ]
    lines = [json.dumps(row) for row in rows]
    for k in range(0, N, 8):
        lines[k] = lines[k].replace(json.dumps(rows[k]["target_policy_logprobs"]["shift"]), spelling)
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(lines))
    result, expected = (arena_cje.analyze(source, estimator="ips") for source in (path, reference_rows))
    assert values(result) == values(expected) == pytest.approx({"clone": 0.25, "shift": 0.25})
    assert result.verdicts == expected.verdicts
    assert result.verdicts["shift"].level == "refuse"
    data = read_user_data(path, None, 1.0, 1)
    schemas.LOGGED.write(tmp_path / "out.jsonl", data.logged)
    again = [row.get("metadata") for row in files.read_jsonl(tmp_path / "out.jsonl")]
    assert again == [row.get("metadata") for row in reference_rows]


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("target_policy_logprobs", '{"clone": NaN, "shift": -3.0}', r"mine\.jsonl:1: not valid JSON .* write null"),
        ("target_policy_logprobs", '{"clone": Infinity, "shift": -3.0}', r"mine\.jsonl:1: not valid JSON"),
        (
            "target_policy_logprobs",
            '{"clone": 1e999, "shift": -3.0}',
            r"mine\.jsonl:1: target_policy_logprobs.clone is inf",
        ),
        ("target_policy_logprobs", '{"clone": "nan", "shift": -3.0}', r"mine\.jsonl:1: .*clone is 'nan'"),
        ("base_policy_logprob", "-Infinity", r"mine\.jsonl:1: base_policy_logprob is -inf, .* compute it again"),
        ("base_policy_logprob", '"-inf"', r"mine\.jsonl:1: base_policy_logprob is -inf, .* compute it again"),
        ("judge_score", "-Infinity", r"mine\.jsonl:1: judge_score is infinite; only the log probability"),
        ("metadata", '{"depth": -Infinity}', r"mine\.jsonl:1: metadata\.depth is infinite"),
    ],
)
def test_other_infinities_and_nan_are_refused_with_their_line(field, value, sentence, tmp_path):
    row = {name: json.dumps(part) for name, part in logged_rows()[0].items()} | {field: value}
    first = "{" + ", ".join(f'"{name}": {part}' for name, part in row.items()) + "}"
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join([first, *map(json.dumps, logged_rows()[1:])]))
    with pytest.raises(UserError, match=sentence):
        arena_cje.analyze(path, estimator="ips")


def test_minus_infinity_in_a_frame_is_probability_zero():
    rows = logged_rows()
    rows[0]["target_policy_logprobs"]["shift"] = -math.inf
    result = [arena_cje.analyze(source, estimator="ips") for source in (pl.DataFrame(rows), rows, pd.DataFrame(rows))]
    assert [values(result)["shift"] for result in result] == pytest.approx([0.5 - 2 / N] * 3)


# Names of policies and of files


UNUSUAL_NAMES = (
    "meta-llama/Llama-3.1-8B",
    "a/b/c",
    "../up",
    ".hidden",
    "{x} <y>",
    "50%",
    "%2F",
    'a:b*c?"|\\',
    "名前",
    "=1+1",
    "tab\there",
    "x_responses",
)


@pytest.mark.parametrize("policy", UNUSUAL_NAMES)
def test_every_policy_name_becomes_a_valid_file_name_and_back(policy):
    name = names.file_name(policy)
    assert names.policy_of(name) == policy
    assert not set(name) & set('/\\:*?"<>|{}\t') and not name.startswith(".")
    assert names.policy_spelled(name, UNUSUAL_NAMES, "here") == policy


def test_ordinary_policy_names_are_unchanged_as_file_names():
    for name in ("clone", "Llama-3.1-8B", "gpt-4o_2024", "名前"):
        assert names.file_name(name) == names.policy_of(name) == name


@pytest.mark.parametrize(
    "place",
    [
        "meta-llama/Llama-3.1-8B_responses.jsonl",
        "meta-llama/Llama-3.1-8B.jsonl",
        "meta-llama%2FLlama-3.1-8B.jsonl",
        "meta-llama__Llama-3.1-8B_responses.jsonl",
        "meta-llama--Llama-3.1-8B.jsonl",
        "meta-llama_Llama-3.1-8B.jsonl",
        "meta-llama-Llama-3.1-8B.jsonl",
        "Llama-3.1-8B_responses.jsonl",
        "meta-llama%2fLlama-3.1-8B.jsonl",
        "meta_llama_llama_3_1_8b_responses.jsonl",
        "llama-3.1-8b.jsonl",
    ],
)
def test_a_file_is_found_by_any_spelling_of_its_policy(place, tmp_path):
    policy = "meta-llama/Llama-3.1-8B"
    path = write(tmp_path / "draws" / place, draws_of(logged_rows(), policy))
    write(tmp_path / "draws" / "clone.jsonl", draws_of(logged_rows(), "clone"))
    assert find_draws(tmp_path / "draws", "base", ("clone", policy)) == {
        "clone": tmp_path / "draws" / "clone.jsonl",
        policy: path,
    }
    rows = logged_rows()
    for row in rows:
        row["target_policy_logprobs"] = {"clone": -20.0, policy: row["target_policy_logprobs"]["shift"]}
    result = arena_cje.analyze(rows, tmp_path / "draws", "direct")
    assert values(result) == pytest.approx({"clone": 0.25, policy: 0.5})


def test_draw_files_name_the_policies_if_the_data_do_not(tmp_path):
    write(tmp_path / "org" / "model_responses.jsonl", draws_of(logged_rows(), "shift"))
    row = draws_of(logged_rows(), "clone")
    write(tmp_path / "org__other.jsonl", [one | {"policy": "org/other"} for one in row])
    assert set(draw_paths(tmp_path)) == {"org/model", "org/other"}


def test_a_draw_file_for_two_policies_and_two_draw_files_for_one_policy_are_refused(tmp_path):
    write(tmp_path / "a_b.jsonl", draws_of(logged_rows(), "shift"))
    with pytest.raises(
        UserError, match=r"a_b\.jsonl: could belong to policy 'a/b' or 'a:b'; rename it to a%2Fb or a%3Ab"
    ):
        draw_paths(tmp_path, ("a/b", "a:b"))
    write(tmp_path / "a" / "b.jsonl", draws_of(logged_rows(), "shift"))
    with pytest.raises(UserError, match=r"belongs to policy 'a/b', and so does .*; keep one"):
        draw_paths(tmp_path, ("a/b", "c"))
    assert draw_paths(tmp_path, ("a/b", "a_b")) == {"a/b": tmp_path / "a" / "b.jsonl", "a_b": tmp_path / "a_b.jsonl"}


# Encodings of text files


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_text_is_read_without_its_byte_order_mark(encoding, tmp_path):
    path = tmp_path / "text"
    path.write_bytes("Sé brief.\r\nAlways.\n".encode(encoding))
    assert files.read_text(path) == "Sé brief.\nAlways.\n"
    write(tmp_path / "mine.jsonl", logged_rows())
    (tmp_path / "mine.jsonl").write_bytes((tmp_path / "mine.jsonl").read_text().encode(encoding))
    assert values(arena_cje.analyze(tmp_path / "mine.jsonl", estimator="ips")) == pytest.approx(TRUTH)
    (tmp_path / "x.json").write_bytes('{"a": 1}'.encode(encoding))
    assert files.read_json(tmp_path / "x.json") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "Sé brief.".encode("cp1252"),
            r"text:1: is not valid UTF-8 text: byte 0xe9 at position 1; save the file as UTF-8",
        ),
        ("One.\nSé brief.".encode("cp1252"), r"text:2: is not valid UTF-8 text: byte 0xe9 at position 6"),
        ("Sé brief.".encode("utf-16-le"), r"text: contains a NUL character at position 1"),
        (b"\xff\xfea", r"text:1: is not valid UTF-16 text"),
        (b"\x00\x01\x02", r"contains a NUL character"),
    ],
)
def test_a_file_that_is_no_text_is_refused_with_one_sentence(content, sentence, tmp_path):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        files.read_text(tmp_path / "text")
    with pytest.raises(UserError):
        files.read_jsonl(tmp_path / "text")
    for path in (tmp_path, tmp_path / "none", "\0"):
        with pytest.raises(UserError):
            files.read_text(path)


# Metadata, frames with nulls


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("response_token_count", "12", "is '12', expected a number"),
        ("response_token_count", -1, "is -1, expected at least 0"),
        ("response_token_count", [12], r"is \[12\], expected a number"),
        ("response_token_count", True, "is True, expected a number"),
        ("outside_support", 5, "is 5, expected a list of strings"),
        ("outside_support", "shift", "is 'shift', expected a list of strings"),
        ("outside_support", [5], "has elements of type int, expected a list of strings"),
        ("prompt_id", 1.5, "is 1.5, expected a string or a whole number"),
        ("draw_idx", "0", "is '0', expected a whole number"),
        ("judge_score", "0.5", "is '0.5', expected a number"),
        ("oracle_label", 7, "is 7, expected at most 1"),
        ("judge_scores", 0.5, "is 0.5, expected a list of numbers"),
    ],
)
def test_metadata_of_a_wrong_type_are_refused_with_their_line(field, value, sentence, tmp_path):
    rows = logged_rows()
    rows[1] = {name: part for name, part in rows[1].items() if name != field} | {"metadata": {field: value}}
    path = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(UserError, match=rf"mine\.jsonl:2: metadata\.{field} {sentence}"):
        read_user_data(path, None, 1.0, 1)
    draws = {policy: draws_of(logged_rows(), policy) for policy in TRUTH}
    draws["shift"][2] = draws["shift"][2] | {"metadata": {field: value}}
    with pytest.raises(UserError, match=rf"row 2: metadata\.{field} {sentence}"):
        arena_cje.analyze(logged_rows(), draws, "direct")


ODD_VALUES = (
    10**400,
    -(10**400),
    math.inf,
    math.nan,
    "x",
    "",
    [],
    {},
    [None],
    [[]],
    {"a": {}},
    True,
    1 + 2j,
    b"x",
    object(),
    None,
)
FIELDS = (
    *("prompt_id", "prompt", "response", "base_policy", "draw_idx", "base_policy_logprob", "target_policy_logprobs"),
    *("judge_score", "judge_distribution", "judge_scores", "oracle_label", "metadata", "response_token_count"),
    *("outside_support", "depth"),
)


@pytest.mark.parametrize("field", FIELDS)
def test_an_odd_value_of_any_field_is_read_or_refused_with_one_sentence(field):
    for odd in ODD_VALUES:
        whole, below, deep = ([row | {"depth": k % 3} for k, row in enumerate(logged_rows())] for _ in range(3))
        whole[1][field] = odd
        below[1]["metadata"] = {field: odd}
        deep[1]["target_policy_logprobs"] = {"clone": -20.0, "shift": odd}
        for rows in (whole, below, deep):
            for source in (rows, pd.DataFrame(rows)):
                try:
                    logged = load_dataset(source, reading=Reading(("depth",))).logged
                except UserError as error:
                    assert "\n" not in str(error)
                else:
                    assert np.all((logged.judge_score >= 0) & (logged.judge_score <= 1))
                    assert np.isfinite(logged.covariates).all()


@pytest.mark.parametrize("field", ["oracle_label", "judge_score", "prompt_id", "draw_idx"])
def test_a_field_under_metadata_is_read_like_one_at_the_top_level_from_files_and_frames(field, tmp_path):
    rows = [row | {"draw_idx": 0} for row in logged_rows()]
    for k in range(0, N, 2):
        rows[k]["metadata"] = {field: rows[k].pop(field), "depth": k}
    path = write(tmp_path / "mine.jsonl", rows)
    for source in (path, pl.read_ndjson(path, infer_schema_length=None), pd.read_json(path, lines=True)):
        assert values(arena_cje.analyze(source, estimator="ips")) == pytest.approx(TRUTH)


def test_a_label_masked_in_only_one_of_its_two_places_is_refused():
    """Where rows have a label in both places, null is the value of one of them, and contradicts the other."""
    frame = pl.DataFrame([row | {"metadata": {"oracle_label": row["oracle_label"]}} for row in logged_rows()])
    masked = frame.with_columns(oracle_label=pl.when(pl.int_range(pl.len()) < 40).then("oracle_label"))
    for source in (masked, frame.with_columns(oracle_label=pl.lit(None, pl.Float64))):
        with pytest.raises(UserError, match="oracle_label is None at the top level but .* make them agree"):
            arena_cje.analyze(source, estimator="ips")


# Extreme log ratios


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", estimators.NAMES)
@pytest.mark.parametrize(("base", "target"), [(-5000.0, 0.0), (-800.0, 0.0), (-360.0, -1.0), (-1e300, 0.0)])
def test_an_extreme_log_ratio_gives_a_refusal_and_no_numerical_warning(name, base, target):
    rows = logged_rows()
    rows[0] |= {"base_policy_logprob": base, "target_policy_logprobs": {"clone": base, "shift": target}}
    result = arena_cje.analyze(rows, {policy: draws_of(rows, policy) for policy in TRUTH}, name)
    assert "refused" not in result.details().splitlines()[4]  # clone
    assert max(map(len, result.details().splitlines()[:7])) <= 116
    codes = {reason.code for reason in result.verdicts["shift"].reasons if reason.level == "refuse"}
    if estimators.needs_weights(name) and not estimators.needs_draws(name):
        assert {"low_ess", "near_zero_weights"} <= codes


# Formulas in CSV files


FORMULAS = (
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\nx",
    " =1+1",
    "'=1+1",
    "''-x",
    "=cmd|' /C calc'!A0",
    "\uff1d1",
)
PLAIN = ("clone", "", "a=b", "'quoted'", "-0.5", "+1e-3", "1,5", "O'Neil", "名前")


def test_formulas_in_cells_are_written_as_text_and_read_back_unchanged(tmp_path):
    frame = pl.DataFrame({"=policy": [*FORMULAS, *PLAIN], "value": [-1.5] * (len(FORMULAS) + len(PLAIN))})
    files.write_csv(tmp_path / "x.csv", frame)
    raw_table = pl.read_csv(tmp_path / "x.csv")
    assert raw_table.columns == ["'=policy", "value"]
    cells = raw_table["'=policy"].to_list()
    assert [cell or "" for cell in cells] == [f"'{cell}" for cell in FORMULAS] + list(PLAIN)
    assert raw_table["value"].to_list() == frame["value"].to_list()
    table = files.read_csv(tmp_path / "x.csv")
    assert table.columns == frame.columns
    assert table["=policy"].fill_null("").to_list() == frame["=policy"].to_list()


def test_policy_names_that_are_formulas_are_written_as_text_in_tables_of_results(tmp_path):
    rows = logged_rows()
    for row in rows:
        row["target_policy_logprobs"] = {"=1+1": row["target_policy_logprobs"]["shift"], "@x": -20.0}
    result = arena_cje.analyze(rows, estimator="snips", variant="direct")
    write_result(result, *(tmp_path / f"x.{kind}" for kind in ("json", "csv", "influence.parquet")))
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines[1:3]] == ["'=1+1", "'@x"]
    assert files.read_csv(tmp_path / "x.csv")["policy"].to_list()[:2] == ["=1+1", "@x"]
    assert arena_cje.load(tmp_path / "x.json").policies == ("=1+1", "@x")


# Question files of other benchmarks


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"question_id": 81, "category": "writing", "turns": ["Write.", "Rewrite."]},
            r"rename question_id to prompt_id and turns to prompt \(its first element, as text\)",
        ),
        ({"uid": "328c", "category": "hard", "prompt": "Why?"}, "rename uid to prompt_id"),
        ({"instruction": "Why?", "dataset": "koala"}, "rename instruction to prompt"),
        (
            {"id": 1, "conversations": [{"from": "human", "value": "Why?"}]},
            "rename id to prompt_id and conversations to",
        ),
        ({"Question": "Why?", "Category": "x"}, "rename Question to prompt"),
        ({"task_id": "HumanEval/0", "prompt": "def f():"}, "rename task_id to prompt_id$"),
        ({"a": 1}, "the row has the fields a$"),
    ],
)
def test_a_question_file_of_another_benchmark_is_refused_with_the_fields_to_rename(row, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        schemas.PROMPTS.read(write(tmp_path / "questions.jsonl", [row]))
