"""Files of other tools become data whose policy values are known by hand."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import arena_cje
import foreign_files
from arena_cje.__main__ import main
from arena_cje.data import convert
from arena_cje.errors import UserError

KINDS = list(foreign_files.WRITERS)


def convert_kind(kind: str, folder: Path) -> tuple[convert.Conversion, Path]:
    name, write = foreign_files.WRITERS[kind]
    source = folder / "source"
    source.mkdir(parents=True)
    files, choices = write(source)
    conversion = convert.convert(name, files, convert.Choices(**choices))
    convert.write(conversion, folder / "data")
    return conversion, folder / "data"


@pytest.mark.parametrize("kind", KINDS)
def test_converted_data_give_the_policy_values_computed_by_hand(kind, tmp_path):
    _, data = convert_kind(kind, tmp_path)
    result = arena_cje.analyze(data / "logged.jsonl", data / "fresh_draws", estimator="direct")
    assert result.policies == ("better-2",)
    assert result.document["base_policy"]["policy"] == "base-1"
    assert result.document["base_policy"]["estimate"] == pytest.approx(0.25)
    np.testing.assert_allclose(result.estimates, [0.5])


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_and_responses_are_converted(kind, tmp_path):
    conversion, _ = convert_kind(kind, tmp_path)
    assert len({row["prompt_id"] for row in conversion.logged}) == foreign_files.N
    assert all(row["response"] for row in conversion.logged)
    assert {row["prompt_id"] for row in conversion.fresh["better-2"]} == {row["prompt_id"] for row in conversion.logged}


@pytest.mark.parametrize("kind", KINDS)
def test_the_format_of_a_file_is_recognised(kind, tmp_path):
    name, write = foreign_files.WRITERS[kind]
    files, _ = write(tmp_path)
    path = Path(files[0])
    members = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    formats = {convert.recognise(file) for file in members}
    assert formats - {None} == ({name} - {"table"})


def test_every_format_has_a_file_in_these_tests():
    assert {name for name, _ in foreign_files.WRITERS.values()} == set(convert.NAMES)


def convert_rows(folder: Path, rows: list[dict], **choices) -> convert.Conversion:
    file = foreign_files.write_lines(folder / "table.jsonl", rows)
    return convert.convert("table", [file], convert.Choices(**choices))


def answer(**fields) -> dict:
    return {"prompt": "hello", "policy": "base", "response": "yes", "judge_score": 0.5} | fields


def test_missing_scores_stay_missing(tmp_path):
    scores = [0.2, None, float("nan"), "", "0.4", True]
    rows = [answer(prompt=f"p{k}", judge_score=score) for k, score in enumerate(scores)]
    conversion = convert_rows(tmp_path, rows)
    assert [row["judge_score"] for row in conversion.logged] == [0.2, None, None, None, 0.4, 1.0]
    assert conversion.summary["policies"]["base"]["without_score"] == 3


def test_ids_of_every_type_become_distinct_strings(tmp_path):
    ids = [1, "2", 2.5, {"a": 1}, [1, 2], "ü"]
    conversion = convert_rows(tmp_path, [answer(prompt_id=name) for name in ids])
    assert [row["prompt_id"] for row in conversion.logged] == ["1", "2", "2.5", '{"a":1}', "[1,2]", "ü"]


def test_a_row_without_an_id_gets_the_id_that_an_import_derives_from_its_prompt(tmp_path):
    conversion = convert_rows(tmp_path, [answer()])
    row = {"prompt": "hello", "judge_score": 0.5}
    plain = Path(foreign_files.write_lines(tmp_path / "plain.jsonl", [row]))
    from arena_cje.data.logged import read_logged

    assert conversion.logged[0]["prompt_id"] == read_logged(plain)[0][0].prompt_id


def test_different_responses_are_draws_and_equal_ones_are_votes(tmp_path):
    rows = [answer(response=text, judge_score=score) for text, score in (("a", 0.2), ("b", 0.4), ("a", 0.6))]
    first, second = convert_rows(tmp_path, rows).logged
    assert (first["draw_idx"], first["judge_score"], first["judge_scores"]) == (0, 0.4, [0.2, 0.6])
    assert (second["draw_idx"], second["judge_score"]) == (1, 0.4)
    assert "judge_scores" not in second


def test_equal_responses_with_different_draw_indices_are_draws(tmp_path):
    conversion = convert_rows(tmp_path, [answer(draw_idx=k) for k in (0, 1)])
    assert [row["draw_idx"] for row in conversion.logged] == [0, 1]


def test_rows_that_could_be_draws_or_votes_are_refused(tmp_path):
    with pytest.raises(UserError, match="row|:2: prompt .* appears again, without a response; name the column"):
        convert_rows(tmp_path, [answer(response=None), answer(response=None)])


def test_votes_of_the_oracle_are_averaged_and_kept(tmp_path):
    conversion = convert_rows(tmp_path, [answer(oracle_label=label) for label in (0, 1, 1, None)])
    assert conversion.logged[0]["oracle_label"] == pytest.approx(2 / 3)
    assert conversion.logged[0]["metadata"]["label_votes"] == [0.0, 1.0, 1.0]


def test_several_columns_of_a_score_are_votes_and_missing_votes_stay_missing(tmp_path):
    columns = {"oracle_label": ("h1", "h2", "h3")}
    rows = [
        answer(prompt="a", h1=0, h2=1, h3=1),
        answer(prompt="b", h1=None, h2=1, h3=""),
        answer(prompt="c", h1=None, h2=None, h3=None),
    ]
    conversion = convert_rows(tmp_path, rows, columns=columns)
    assert [row["oracle_label"] for row in conversion.logged] == [pytest.approx(2 / 3), 1.0, None]
    assert conversion.logged[0]["metadata"]["label_votes"] == [0.0, 1.0, 1.0]
    assert conversion.summary["not_carried"] == {}
    assert conversion.summary["policies"]["base"]["responses"] == 3
    judged = [answer(response=None, judge_score=0.2, other=0.6)]
    assert (
        convert_rows(tmp_path, judged, columns={"judge_score": ("judge_score", "other")}).logged[0]["judge_score"]
        == 0.4
    )


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"prompt": ("prompt", "response")}, r"2 columns for 'prompt' \(prompt, response\), expected one"),
        ({"oracle_label": ("h1", "h1")}, "'h1' twice for 'oracle_label'"),
        ({"oracle_label": ("h1", "h9")}, "no column 'h9' for oracle_label"),
    ],
)
def test_wrong_choices_of_several_columns_for_one_field_are_refused(tmp_path, columns, sentence):
    with pytest.raises(UserError, match=sentence):
        convert_rows(tmp_path, [answer(h1=0)], columns=columns)


def test_the_command_takes_a_field_several_times_and_a_scale_once(tmp_path, capsys):
    file = foreign_files.write_lines(tmp_path / "wide.jsonl", [answer(h1=1, h2=3), answer(prompt="b", h1=5, h2=None)])
    arguments = ["convert", "table", file, "--to", str(tmp_path / "data"), "--scale", "oracle_label=1,5"]
    assert main([*arguments, "--columns", "oracle_label=h1,oracle_label=h2"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "data" / "logged.jsonl").read_text().splitlines()]
    assert sorted(row["oracle_label"] for row in rows) == [0.25, 1.0]
    capsys.readouterr()
    assert main([*arguments, "--scale", "oracle_label=0,5"]) == 1
    assert "--scale: 'oracle_label' is there twice" in capsys.readouterr().err


def test_scores_of_several_judges_are_converted_and_the_named_one_is_the_judge_score(tmp_path):
    rows = [answer(judge_gpt=0.7, judge_llama=0.1) | {"judge_score": None}]
    row = convert_rows(tmp_path, rows, judge="gpt").logged[0]
    assert (row["judge_score"], row["judge_llama"]) == (0.7, 0.1)


def test_judge_and_oracle_have_a_scale_each(tmp_path):
    rows = [answer(judge_score=5.5, oracle_label=1)]
    row = convert_rows(tmp_path, rows, scales={"judge_score": (1, 10), "oracle_label": (-1, 1)}).logged[0]
    assert (row["judge_score"], row["oracle_label"]) == (0.5, 1.0)


def test_a_scale_belongs_to_its_scorer_however_the_name_is_spelled(tmp_path):
    rows = [answer(scorer="the judge", score=5.5) | {"judge_score": None}]
    assert convert_rows(tmp_path, rows, scales={"the judge": (1, 10)}).logged[0]["judge_score"] == 0.5


def test_a_scale_of_an_unknown_scorer_is_refused_with_the_scorers(tmp_path):
    sentence = (
        r"a scale is set for 'judge', which is not among the scorers \(did you mean 'judge_score'\?\): judge_score"
    )
    with pytest.raises(UserError, match=sentence):
        convert_rows(tmp_path, [answer(judge_score=7)], scales={"judge": (1, 10)})


def test_a_score_outside_its_scale_is_refused_with_its_row(tmp_path):
    with pytest.raises(
        UserError, match=r"table.jsonl:1: the score of judge_score is 7, expected 0 to 1; .* --scale judge_score="
    ):
        convert_rows(tmp_path, [answer(judge_score=7)])


def test_the_base_policy_must_be_named_if_there_are_several_policies(tmp_path):
    rows = [answer(policy=name) for name in ("gpt/4", "tuned")]
    with pytest.raises(UserError, match=r"table.jsonl: 2 policies \(gpt/4, tuned\) .* --base NAME"):
        convert_rows(tmp_path, rows)
    with pytest.raises(UserError, match="base policy 'tund' is not among the policies .did you mean 'tuned'"):
        convert_rows(tmp_path, rows, base="tund")
    conversion = convert_rows(tmp_path, rows, base="gpt/4")
    assert (conversion.logged[0]["base_policy"], conversion.logged[0]["metadata"]) == (
        "gpt_4",
        {"policy_name": "gpt/4"},
    )
    assert list(conversion.fresh) == ["tuned"]


def test_of_many_policies_an_error_names_ten(tmp_path):
    """A column of responses that was taken for the policies has as many names as rows, and long ones."""
    with pytest.raises(UserError, match=r"40 policies .* and 30 more; are these the names of policies\?") as error:
        convert_rows(tmp_path, [answer(policy=f"{'a long answer ' * 9}{k}") for k in range(40)])
    assert len(str(error.value)) < 900


def test_policies_that_would_share_a_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="policies 'a/b' and 'a:b' would both be named 'a_b'"):
        convert_rows(tmp_path, [answer(policy=name) for name in ("a/b", "a:b")])


def test_scores_of_several_scorers_are_refused_without_the_name_of_the_judge(tmp_path):
    with pytest.raises(UserError, match=r"scores by 2 scorers \(a, b\); say which one is the judge: --judge"):
        convert_rows(tmp_path, [answer(scorer=name, score=1) | {"judge_score": None} for name in "ab"])


def test_a_table_without_a_required_column_is_refused_with_its_name(tmp_path):
    rows = [{"question": "q", "grade": 1, "policy": "base"}]
    with pytest.raises(
        UserError, match="no column is the prompt; name it by --columns prompt=COLUMN .* question, grade, policy"
    ):
        convert_rows(tmp_path, rows)
    with pytest.raises(UserError, match="no column 'grad' for judge_score .did you mean 'grade'"):
        convert_rows(tmp_path, rows, columns={"prompt": "question", "judge_score": "grad"})
    with pytest.raises(UserError, match="no column is a score"):
        convert_rows(tmp_path, rows, columns={"prompt": "question"})


def test_log_probabilities_and_clusters_are_carried(tmp_path):
    logprobs = {"base_policy_logprob": -3.0, "target_policy_logprobs.new": -2.5}
    conversion = convert_rows(tmp_path, [answer(cluster="q1", **logprobs)])
    row = conversion.logged[0]
    assert (row["base_policy_logprob"], row["target_policy_logprobs"], row["cluster"]) == (-3.0, {"new": -2.5}, "q1")


def test_rows_of_a_precomputed_sampler_give_the_value_by_importance_weights(tmp_path):
    """Weight 2 where the label is 1 and 2/3 elsewhere: mean 1, value .5 from a base value of .25."""
    rows = [
        {
            "uid": k,
            "context": f"question {k}",
            "response": f"text {k}",
            "total_logprob": -10.0,
            "target_logps": {"shift": -10.0 + np.log(2 if k % 4 == 0 else 2 / 3)},
            "judge_score": 0.9 if k % 4 == 0 else 0.1,
            "oracle_label": float(k % 4 == 0),
            "token_logprobs": [-5.0, -5.0],
        }
        for k in range(200)
    ]
    file = foreign_files.write_lines(tmp_path / "sampler.jsonl", rows)
    conversion = convert.convert("cje-eval", [file])
    assert conversion.summary["not_carried"] == {"values of token_logprobs": 200}
    convert.write(conversion, tmp_path / "data")
    result = arena_cje.analyze(tmp_path / "data" / "logged.jsonl", estimator="ips")
    np.testing.assert_allclose(result.estimates, [0.5])


def test_files_of_a_folder_are_policies_by_their_names(tmp_path):
    rows = [{"prompt_id": "a", "response": "x", "judge_score": 0.5, "judge_strict": 0.25, "note": "n"}]
    for policy in ("base", "clone"):
        foreign_files.write_lines(tmp_path / "draws" / f"{policy}.jsonl", rows)
    conversion = convert.convert("cje-eval", [tmp_path / "draws"])
    assert conversion.fresh["clone"][0]["judge_strict"] == 0.25
    assert conversion.summary["not_carried"] == {"values of note": 2}


def test_records_that_cannot_be_converted_are_counted(tmp_path):
    conversion, _ = convert_kind("MT-bench", tmp_path)
    n = foreign_files.N
    assert conversion.summary["not_carried"] == {
        "answers to later turns": 2 * n,
        "judgments of later turns": 4 * n,
        "pairwise judgments": 1,
        "reference answers": 1,
    }
    conversion, _ = convert_kind("oaieval log", tmp_path / "2")
    assert conversion.summary["not_carried"] == {"samplings of a grader": 2 * n}


def test_a_promptfoo_rating_is_no_score_of_the_judge(tmp_path):
    """The viewer overwrites the score of a rated row by the rating; the judge's is that of the other assertions."""
    rows = foreign_files.promptfoo_rows()
    rows[1]["score"] = 1  # a good rating; the score by its assertions is .1
    file = foreign_files.write_lines(tmp_path / "rated.jsonl", rows)
    logged = convert.convert("promptfoo", [file], convert.Choices(base="base-1", oracle="human")).logged
    assert logged[1]["judge_score"] == 0.1


def test_policies_of_one_provider_are_told_apart_by_their_prompts(tmp_path):
    rows = foreign_files.promptfoo_rows()
    for row in rows:
        row |= {"provider": "openai:gpt", "prompt": {"raw": "x", "label": ("terse", "Long " * 20)[row["promptIdx"]]}}
    file = foreign_files.write_lines(tmp_path / "prompts.jsonl", rows)
    conversion = convert.convert("promptfoo", [file], convert.Choices(base="openai:gpt terse", oracle="human"))
    assert list(conversion.summary["policies"]) == ["openai_gpt_terse", "openai_gpt_prompt1"]


def test_old_promptfoo_results_without_scores_use_their_passes(tmp_path):
    rows = [
        {
            "prompt": {"raw": f"{label}: {body}", "display": f"{label}: {{{{body}}}}"},
            "vars": {"body": body, "__expected": "x"},
            "response": {"output": f"{label} {body}"},
            "success": body == "a",
        }
        for label in ("Plain", "Pirate")
        for body in ("a", "b")
    ]
    file = foreign_files.write_json(tmp_path / "old.json", {"results": rows, "stats": {}, "table": []})
    conversion = convert.convert("promptfoo", [file], convert.Choices(base="Plain: {{body}}"))
    assert [(row["prompt"], row["judge_score"]) for row in conversion.logged] == [("a", 1.0), ("b", 0.0)]
    assert len(conversion.fresh["Pirate_body"]) == 2


def test_a_failed_provider_leaves_a_row_without_a_score(tmp_path):
    rows = foreign_files.promptfoo_rows()
    rows[0] |= {"response": {}, "error": "429 Too Many Requests", "score": 0, "success": False, "gradingResult": None}
    file = foreign_files.write_lines(tmp_path / "failed.jsonl", rows)
    conversion = convert.convert("promptfoo", [file], convert.Choices(base="base-1", oracle="human"))
    assert (conversion.logged[0]["response"], conversion.logged[0]["judge_score"]) == (None, None)
    assert len(conversion.logged) == foreign_files.N
    assert conversion.summary["not_carried"] == {"error of the provider (the row has no score)": 1}


def test_repeated_test_cases_and_epochs_are_draws(tmp_path):
    rows = foreign_files.promptfoo_rows()
    file = foreign_files.write_lines(tmp_path / "repeated.jsonl", rows * 2)
    conversion = convert.convert("promptfoo", [file], convert.Choices(base="base-1", oracle="human"))
    assert sorted({row["draw_idx"] for row in conversion.fresh["better-2"]}) == [0, 1]
    log = foreign_files.inspect_log("base-1")
    log["samples"] += [sample | {"epoch": 2} for sample in log["samples"]]
    file = foreign_files.write_json(tmp_path / "log.json", log)
    conversion = convert.convert("inspect-ai", [file], convert.Choices(judge="people"))
    assert sorted({row["draw_idx"] for row in conversion.logged}) == [0, 1]


def test_two_logs_of_one_model_are_refused_unless_the_user_names_them(tmp_path):
    log = foreign_files.inspect_log("base-1")
    first = foreign_files.write_json(tmp_path / "a.json", log)
    for sample in log["samples"]:
        sample["output"]["choices"][0]["message"]["content"] = "another text"
    second = foreign_files.write_json(tmp_path / "b.json", log)
    with pytest.raises(UserError, match="b.json .* has another response to prompt '0' .* name them by NAME=FILE"):
        convert.convert("inspect-ai", [first, second], convert.Choices(judge="people"))
    named_files = [f"base={first}", f"concise={second}"]
    assert list(convert.convert("inspect-ai", named_files, convert.Choices(judge="people")).fresh) == ["concise"]


def test_the_mt_bench_score_of_an_unreadable_judgment_is_missing(tmp_path):
    row = {"question_id": 1, "model": "base", "judge": ["gpt-4", "single-v1"], "score": -1, "turn": 1}
    file = foreign_files.write_lines(tmp_path / "judged.jsonl", [row, row | {"question_id": 2, "score": 10}])
    assert [row["judge_score"] for row in convert.convert("mt-bench", [file]).logged] == [None, 1.0]


def test_lm_eval_metrics_that_are_no_numbers_are_counted(tmp_path):
    row = {
        "doc_id": 0,
        "doc": {},
        "resps": [["a", "b"]],
        "filtered_resps": ["a"],
        "metrics": ["f1"],
        "f1": ["x", ["y"]],
    }
    file = foreign_files.write_lines(tmp_path / "samples_ner_2026-01-16T15-23-47.285735.jsonl", [row])
    with pytest.raises(UserError, match=r"no scores in it \(1 x metric f1, which is no number, 1 x further responses"):
        convert.convert("lm-eval", [file])
    scored = row | {"metrics": ["f1", "acc"], "acc": 1}
    file = foreign_files.write_lines(tmp_path / "samples_ner_2026-01-16T15-23-47.285735.jsonl", [scored])
    (logged,) = convert.convert("lm-eval", [file]).logged
    assert (logged["base_policy"], logged["response"], logged["judge_score"]) == (tmp_path.name, "a", 1.0)


def test_gzip_byte_order_mark_and_carriage_returns_are_read(tmp_path):
    lines = "\r\n".join(json.dumps(answer(prompt=f"p{k}")) for k in range(3))
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b"\xef\xbb\xbf" + lines.encode()))
    assert len(convert.convert("table", [file]).logged) == 3


def archive(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("a.json", content)
    return file.getvalue()


def damaged(content: bytes) -> bytes:
    """Compressed bytes whose body begins with a block of an unknown type; of a zip archive, that of a.json."""
    start = 36 if content.startswith(b"PK") else 10
    return content[:start] + b"\xff" + content[start + 1 :]


BROKEN = {
    "empty.json": (b"", "is empty"),
    "cut.json": (b'{"results": [{"promptIdx": 0', "cut.json: not valid JSON .*; is the file complete"),
    "cut.jsonl": (b'{"prompt": "a"}\n{"prompt": ', "cut.jsonl:2: not valid JSON"),
    "mixed.jsonl": (b'{"prompt": "a"}\n[1, 2]', r"mixed.jsonl:2: is '\[1, 2\]', expected a JSON object"),
    "texts.json": (b'["a", "b"]', r"texts.json \(row 1\): is 'a', expected a JSON object"),
    "latin.csv": ("prompt,judge_score\nü,1\n".encode("latin-1"), "latin.csv:2: is not valid UTF-8 text"),
    "mark.csv": (b"\xef\xbb\xbf", "mark.csv: is empty"),
    "empty.gz": (gzip.compress(b""), "empty.gz: is empty"),
    "damaged.gz": (damaged(gzip.compress(b"prompt,judge_score\na,1\n")), "damaged.gz: its compression is damaged"),
    "damaged.eval": (damaged(archive(b'{"prompt": "a"}')), "damaged.eval: a.json is damaged .*; copy the file again"),
    "latin.eval": (archive('{"prompt": "ü"}'.encode("latin-1")), "latin.eval: a.json:1: is not valid UTF-8 text"),
    "cut.eval": (archive(b'{"prompt": "a"}')[:40], "cut.eval: the archive is damaged or cut off"),
    "deep.json": (b"[" * 9999, "deep.json: not valid JSON .nested too deeply"),
    "deep.jsonl": (b'{"prompt": "a"}\n{"prompt": ' + b"[" * 9999, "deep.jsonl:2: not valid JSON .nested too deeply"),
    "deep row.json": (b"[" * 999 + b"]" * 999, r"deep row.json .row 1.: is \[\[.*, expected a JSON object"),
    "deep score.jsonl": (
        b'{"prompt": "a", "policy": "b", "judge_score": %b1%b}' % (b"[" * 999, b"]" * 999),
        r"deep score.jsonl:1: judge_score is \[\[.*, expected a finite number",
    ),
    "digits.jsonl": (
        b'{"prompt": "a", "policy": "b", "judge_score": %b}' % (b"9" * 400),
        "digits.jsonl:1: judge_score is 9+[.9]+, expected a finite number",
    ),
    "digits.csv": (
        b"prompt,policy,judge_score\na,b,%b\n" % (b"9" * 400),
        r"digits.csv \(row 1\): judge_score is '9+[.9]+', expected a finite number",
    ),
    "half draw.csv": (
        b"prompt,policy,judge_score,draw_idx\na,b,1,0.5\n",
        r"half draw.csv \(row 1\): draw_idx is '0.5', expected a whole number from 0; number the responses",
    ),
    "short.csv": (b"prompt,judge_score\na,1\nb\n", r"short.csv \(row 2\): has 1 cells where the header has 2"),
    "open.csv": (b'prompt,judge_score\n"a,1\n', "open.csv: not a readable CSV file"),
    "cut.gz": (gzip.compress(b"prompt,judge_score\na,1\n" * 50)[:-20], "cut.gz: its compression is damaged or cut off"),
    "cut.parquet": (b"PAR1 and no more", "cut.parquet: not a readable Parquet file"),
    "words.csv": (
        b"prompt,policy,judge_score\na,base,good\n",
        r"words.csv \(row 1\): judge_score is 'good', expected a finite number",
    ),
    "columns.csv": (b"prompt,prompt,judge_score\na,b,1\n", "has more than one column 'prompt'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_place(name, tmp_path):
    content, sentence = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        convert.convert("table", [tmp_path / name])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", ["table.csv", "table.jsonl"])
def test_every_encoding_with_a_byte_order_mark_is_read(name, encoding, tmp_path):
    row = answer(prompt="ü")
    cells = [",".join(row), ",".join(map(str, row.values()))]
    text = "\r\n".join(cells if name == "table.csv" else [json.dumps(row, ensure_ascii=False)] * 2)
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert [row["prompt"] for row in convert.convert("table", [tmp_path / name]).logged] == ["ü"]


def test_a_target_log_probability_of_minus_infinity_is_carried(tmp_path):
    conversion = convert_rows(tmp_path, [answer(**{"target_policy_logprobs.new": "-inf"})])
    assert conversion.logged[0]["target_policy_logprobs"] == {"new": float("-inf")}
    convert.write(conversion, tmp_path / "data")


@pytest.mark.parametrize("index", [0.5, -1, "1.5"])
def test_a_draw_without_a_whole_number_is_refused(index, tmp_path):
    for name in ("table", "cje-eval"):
        file = foreign_files.write_lines(tmp_path / "rows.jsonl", [answer(draw_idx=index)])
        with pytest.raises(UserError, match=f"rows.jsonl:1: draw_idx is '?{index}'?, expected a whole number from 0"):
            convert.convert(name, [file])


@pytest.mark.parametrize("ends", [(-np.inf, np.inf), (0, np.inf), (0, np.nan), (1, 0)])
def test_a_scale_has_two_finite_ends(ends):
    with pytest.raises(UserError, match="the scale of [*] is .*, expected its two finite ends, the lower first"):
        convert.Choices(scales={"*": ends})


def test_a_row_of_another_shape_is_refused_with_its_place(tmp_path):
    row = {"question_id": 1, "model": "base", "judge": ["gpt-4", "single-v1"], "score": 5, "turn": 1}
    rows = [row, {"question_id": 2, "model_id": "base", "choices": "none"}]
    file = foreign_files.write_lines(tmp_path / "odd.jsonl", rows)
    with pytest.raises(UserError, match="odd.jsonl:1 is not as rows of the format mt-bench are .AttributeError"):
        convert.convert("mt-bench", [file])


def test_a_scorer_without_a_name_and_an_item_that_is_no_object_are_one_sentence(tmp_path):
    row = {"question_id": 1, "model": "base", "judge": None, "score": 5, "turn": 1}
    file = foreign_files.write_lines(tmp_path / "judged.jsonl", [row])
    with pytest.raises(UserError, match="judged.jsonl:1: a name among the scorers is None, expected text"):
        convert.convert("mt-bench", [file])
    file = foreign_files.write_json(tmp_path / "page.json", {"object": "list", "data": [None]})
    with pytest.raises(UserError, match=r"page.json .item 1.: is None, expected a JSON object"):
        convert.convert("openai-evals", [file])


def test_a_file_of_another_format_is_refused_with_its_likely_format(tmp_path):
    file = foreign_files.write_json(tmp_path / "log.json", foreign_files.inspect_log("base-1"))
    with pytest.raises(UserError, match="is not a file of the format promptfoo; it looks like inspect-ai"):
        convert.convert("promptfoo", [file])
    with pytest.raises(UserError, match="unknown format 'promptfo' .did you mean 'promptfoo'"):
        convert.get("promptfo")


def test_the_command_prints_the_converted_counts_and_the_next_commands(tmp_path, capsys):
    (file,), _ = foreign_files.promptfoo(tmp_path)
    assert main(["convert", "promptfoo", file, "--to", str(tmp_path / "data"), "--oracle", "human"]) == 1
    assert "--base NAME" in capsys.readouterr().err
    arguments = ["convert", "promptfoo", file, "--to", str(tmp_path / "data"), "--oracle", "human", "--base", "base-1"]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "base policy  base-1: 120 responses to 120 prompts, 120 labels" in output
    logged, draws = f"{tmp_path}/data/logged.jsonl", f"{tmp_path}/data/fresh_draws"
    assert f"next: arena-cje validate {logged} --fresh-draws {draws}\n" in output
    assert (
        f": snakemake --cores 2 --config logged_data={logged} fresh_draws={draws} --directory {tmp_path}/data/run "
        "results/coverage_1.0/direct.json\n"
    ) in output
    assert "NOTE" not in output
    assert json.loads((tmp_path / "data/conversion.json").read_text())["format"] == "promptfoo"


def test_the_command_prints_absolute_quoted_paths(tmp_path, monkeypatch, capsys):
    (file,), _ = foreign_files.promptfoo(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "promptfoo", file, "--to", "my data", "--oracle", "human", "--base", "base-1"]) == 0
    output = capsys.readouterr().out
    assert f"next: arena-cje validate '{tmp_path}/my data/logged.jsonl' --fresh-draws" in output
    assert f"--config 'logged_data={tmp_path}/my data/logged.jsonl'" in output


def test_a_conversion_without_labels_names_the_scorers_that_could_give_them(tmp_path, capsys):
    (file,), _ = foreign_files.promptfoo(tmp_path)
    assert main(["convert", "promptfoo", file, "--to", str(tmp_path / "data"), "--base", "base-1"]) == 0
    note = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("NOTE"))
    assert "no oracle labels were converted, and an analysis needs some" in note
    assert set(note.split("takes those of a scorer: ")[1].split(", ")) == {"human", "fluency"}
    foreign_files.write_lines(tmp_path / "table.jsonl", [answer()])
    assert main(["convert", "table", str(tmp_path / "table.jsonl"), "--to", str(tmp_path / "2")]) == 0
    output = capsys.readouterr().out
    assert "NOTE: no oracle labels were converted" in output and "no scores of a further scorer" in output
    assert "snakemake" not in output


def test_the_command_takes_columns_and_scales(tmp_path):
    (file,), choices = foreign_files.table_csv(tmp_path)
    columns = ",".join(f"{field}={column}" for field, column in choices["columns"].items())
    arguments = ["convert", "table", file, "--to", str(tmp_path / "data"), "--base", "base-1", "--columns", columns]
    assert main([*arguments, "--scale", "judge_score=0,100"]) == 0
    assert main([*arguments, "--scale", "judge_score=0;100"]) == 1


def test_an_archive_that_python_cannot_read_is_refused_with_the_command_that_converts_it(tmp_path):
    foreign_files.inspect_eval(tmp_path)
    path = tmp_path / "base-1.eval"
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02")  # the first entry of the directory; its method of compression is at 10
    content[start + 10] = 93
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"Zstandard.*inspect log convert base-1.eval --to json"):
        convert.convert("inspect-ai", [path])


def test_failed_samples_and_values_that_are_no_scores_are_counted(tmp_path):
    log = foreign_files.inspect_log("base-1")
    log["samples"] = log["samples"][:4]
    log["samples"][0] |= {"error": {"message": "timeout"}}
    log["samples"][1]["scores"]["people"]["value"] = "P"
    log["samples"][2]["scores"]["people"]["value"] = "see the explanation"
    log["samples"][3]["scores"]["people"]["value"] = float("nan")
    file = foreign_files.write_json(tmp_path / "log.json", log)
    conversion = convert.convert("inspect-ai", [file], convert.Choices(judge="people"))
    assert [row["judge_score"] for row in conversion.logged] == [None, 0.5, None, None]
    assert conversion.summary["not_carried"] == {
        "failed sample (it has no score)": 1,
        "value of people that is no score": 1,
    }


def test_alpaca_preferences_become_scores_and_a_missing_one_stays_missing(tmp_path):
    rows = [
        {"instruction": f"q{k}", "output_1": "r", "generator_1": "ref", "output_2": "o", "generator_2": "m"}
        | {"annotator": "gpt", "preference": preference}
        for k, preference in enumerate((0, 1.5, 2, None, 1.25))
    ]
    file = foreign_files.write_json(tmp_path / "annotations.json", rows)
    conversion = convert.convert("alpaca-eval", [file])
    assert [row["judge_score"] for row in conversion.logged] == [0.5, 0.5, 1.0, None, 0.25]
    assert conversion.summary["not_carried"] == {"outputs of the reference": 5}


def test_model_outputs_without_annotations_are_refused(tmp_path):
    rows = [{"instruction": "q", "output": "o", "generator": "m", "dataset": "x"}]
    file = foreign_files.write_json(tmp_path / "model_outputs.json", rows)
    with pytest.raises(UserError, match="no scores in it; add the file with the scores, annotations or judgments"):
        convert.convert("alpaca-eval", [file])


def test_one_scorer_may_be_judge_and_oracle(tmp_path):
    rows = [answer(prompt=f"p{k}", judge_score=k % 2) for k in range(4)]
    conversion = convert_rows(tmp_path, rows, judge="judge_score", oracle="judge_score")
    assert [row["oracle_label"] for row in conversion.logged] == [row["judge_score"] for row in conversion.logged]


def test_two_conversions_of_the_same_files_have_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        convert_kind("MT-bench", tmp_path / name)
    for file in ("logged.jsonl", "fresh_draws/better-2.jsonl", "conversion.json"):
        assert (tmp_path / "first/data" / file).read_bytes() == (tmp_path / "second/data" / file).read_bytes()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"judge_a b": 0.2, "judge_a_b": 0.8},
            "table.jsonl:1: scorers 'a b' and 'a_b' would both be named 'a_b'; rename",
        ),
        ({"judge_评分": 0.2, "judge_裁判": 0.8}, "scorers '评分' and '裁判' would both be named 'policy'; rename"),
        (
            {"target_policy_logprobs.a b": -2, "target_policy_logprobs.a_b": -3},
            "table.jsonl:1: target policies 'a b' and 'a_b' would both be named 'a_b'; rename",
        ),
    ],
)
def test_names_that_would_become_one_are_refused(tmp_path, fields, sentence):
    with pytest.raises(UserError, match=sentence):
        convert_rows(tmp_path, [answer(**fields)])


def test_two_columns_of_one_scorer_are_refused(tmp_path):
    with pytest.raises(
        UserError, match="columns 'judge_score' and 'judge_judge_score' are both scores of 'judge_score'"
    ):
        convert_rows(tmp_path, [answer(judge_judge_score=0.2)])
    with pytest.raises(
        UserError, match="table.jsonl:1: has two scores of 'judge_score', one in the column 'score' and"
    ):
        convert_rows(tmp_path, [answer(scorer="judge_score", score=0.2)])
    by_scorer = [answer(scorer="oracle_label", score=0.2)]
    assert convert_rows(tmp_path, by_scorer).logged[0]["oracle_label"] == 0.2


def test_scorers_of_different_rows_that_would_become_one_are_refused(tmp_path):
    rows = [{"prompt": "p", "policy": "base", "response": "r", "by": by, "grade": 0.5} for by in ("a b", "a_b")]
    with pytest.raises(UserError, match="table.jsonl:2: scorers 'a b' and 'a_b' would both be named 'a_b'"):
        convert_rows(tmp_path, rows, columns={"scorer": "by", "score": "grade"})
