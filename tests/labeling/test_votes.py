"""Votes are read from the files of every labelling tool, and an error in a file is reported with its rows."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest

from arena_cje.errors import UserError
from arena_cje.labeling import tasks, votes
from labeling_study import SCALE, make, simulated_votes

BATCH = make()
KEY = BATCH.key
ITEMS = sorted({row.item_id for row in KEY})
TEXTS = {task.item_id: task for task in BATCH.tasks}
EXPECTED = {item: int(item[:4], 16) / 0xFFFF for item in ITEMS}
BIAS = {"ann": 0.05, "bob": 0.0, "cy": -0.05}
VOTES = simulated_votes(BATCH, EXPECTED, BIAS, 0.1)


def write(path, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def canonical(all_votes=VOTES):
    return [
        {
            "item_id": vote.item_id,
            "batch": "first",
            "annotator_id": vote.annotator_id,
            "score": "" if vote.score is None else f"{vote.score:g}",
            "skipped": "1" if vote.score is None else "",
            "comment": vote.comment,
            "submitted_at": vote.submitted_at,
            "duration_s": "" if vote.duration_s is None else f"{vote.duration_s:g}",
        }
        for vote in all_votes
    ]


def collect(*files, key=KEY, n_votes=3):
    rows = [row for file in files for row in votes.read(*(file if isinstance(file, tuple) else (file,)))]
    return votes.collect(rows, key, SCALE, votes=n_votes)


def scores(ballot):
    return {(vote.item_id, vote.annotator_id): vote.score for vote in ballot.votes}


@pytest.fixture
def ballot(tmp_path):
    return collect(write(tmp_path / "canonical.csv", canonical()))


def test_all_votes_and_repeated_votes_are_read_from_a_file(ballot):
    item_of_copy = {row.copy_id: row.item_id for row in KEY}
    score_of = {(vote.item_id, vote.annotator_id): vote.score for vote in VOTES}
    assert scores(ballot) == {pair: score for pair, score in score_of.items() if pair[0] not in item_of_copy}
    copy_scores = {
        (item_of_copy[item], rater): score for (item, rater), score in score_of.items() if item in item_of_copy
    }
    assert {(vote.item_id, vote.annotator_id): vote.score for vote in ballot.copies} == copy_scores
    assert len(copy_scores) == 3 * sum(row.repeated for row in {row.item_id: row for row in KEY}.values()) > 0
    assert (ballot.notes, ballot.n_open, ballot.n_items) == ((), 0, len(ITEMS))


# ---- formats -----------------------------------------------------------------------------------------------------------


def label_studio_json(path):
    rows = []
    for task in tasks.label_studio(BATCH):
        annotations = [
            {
                "completed_by": {"id": 7, "email": vote.annotator_id} if vote.annotator_id == "ann" else vote.annotator_id,
                "was_cancelled": False,
                "lead_time": vote.duration_s,
                "created_at": vote.submitted_at,
                "result": [
                    {"from_name": "score", "to_name": "response", "type": kind, "value": {kind: value}}
                    for kind, value in [{"ann": ("rating", int(vote.score)), "bob": ("number", vote.score)}.get(
                        vote.annotator_id, ("choices", [str(int(vote.score))])
                    )]
                ],
            }
            for vote in VOTES
            if vote.item_id == task["data"]["item_id"]
        ]  # fmt: skip
        rows.append(task | {"id": len(rows), "annotations": annotations})
    path.write_text(json.dumps(rows))
    return str(path)


def label_studio_csv(path):
    rows = [
        {
            "annotation_id": k, "annotator": vote.annotator_id, "batch": "first", "created_at": vote.submitted_at, "id": k,
            "item_id": vote.item_id, "lead_time": vote.duration_s, "prompt": TEXTS[vote.item_id].prompt,
            "response": TEXTS[vote.item_id].response, "score": int(vote.score), "updated_at": "",
        }
        for k, vote in enumerate(VOTES)
    ]  # fmt: skip
    return write(path, rows)


def mturk_csv(path):
    rows = [
        {
            "HITId": TEXTS[vote.item_id].item_id.upper(), "AssignmentId": k, "WorkerId": vote.annotator_id,
            "AssignmentStatus": "Approved", "SubmitTime": vote.submitted_at, "WorkTimeInSeconds": int(vote.duration_s),
            "Input.item_id": vote.item_id, "Input.batch": "first", "Input.prompt": TEXTS[vote.item_id].prompt,
            "Input.response": TEXTS[vote.item_id].response, "Answer.score": f"{vote.score:g}", "Approve": "", "Reject": "",
        }
        for k, vote in enumerate(VOTES)
    ]  # fmt: skip
    rejected = rows[0] | {"WorkerId": "bot", "AssignmentStatus": "Rejected", "Answer.score": "99"}
    return write(path, [*rows, rejected])


def own_columns(path):
    rows = [
        {"Task": vote.item_id, "Worker ID": vote.annotator_id, "How good?": f"{vote.score:g}", "Secs": vote.duration_s,
         "When": vote.submitted_at}
        for vote in VOTES
    ]  # fmt: skip
    columns = {
        "item_id": "Task",
        "annotator_id": "Worker ID",
        "score": "How good?",
        "duration_s": "Secs",
        "submitted_at": "When",
    }
    return write(path, rows, delimiter=";"), columns


@pytest.mark.parametrize(
    ("make_file", "name"),
    [(label_studio_json, "a.json"), (label_studio_csv, "a.csv"), (mturk_csv, "a.csv"), (own_columns, "a.csv")],
)
def test_the_files_of_every_tool_give_the_same_votes(tmp_path, ballot, make_file, name):
    other = collect(make_file(tmp_path / name))
    assert scores(other) == scores(ballot)
    assert len(other.copies) == len(ballot.copies)
    assert {(v.duration_s, v.submitted_at) for v in other.votes} == {
        (v.duration_s, v.submitted_at) for v in ballot.votes
    }


def test_task_sheets_that_raters_have_filled_in_are_files_of_votes(tmp_path, ballot):
    files = []
    for name in BIAS:
        content = tasks.tasks_csv(BATCH, byte_order_mark=True).decode("utf-8-sig")
        rows = list(csv.DictReader(content.splitlines()))
        score_of = {vote.item_id: f"{vote.score:g}" for vote in VOTES if vote.annotator_id == name}
        files.append(write(tmp_path / f"{name}.csv", [row | {"score": score_of[row["item_id"]]} for row in rows]))
    assert scores(collect(*files)) == scores(ballot)


def test_a_sheet_may_be_half_filled(tmp_path):
    content = tasks.tasks_csv(BATCH).decode()
    rows = list(csv.DictReader(content.splitlines()))
    half = [row | {"score": "4" if k < 10 else ""} for k, row in enumerate(rows)]
    ballot = collect(write(tmp_path / "ann.csv", half))
    assert len(ballot.votes) + len(ballot.copies) == 10


# ---- missing and repeated votes -----------------------------------------------------------------------------------------


def test_votes_of_an_unfinished_study_are_used_and_missing_votes_are_counted(tmp_path):
    some = [vote for vote in VOTES if vote.item_id in ITEMS[:7] and vote.annotator_id != "cy"]
    ballot = collect(write(tmp_path / "some.csv", canonical(some)))
    assert ballot.n_labelled == 7
    assert ballot.n_open == 3 * len(ITEMS) - 14
    assert ballot.notes == (
        f"{ballot.n_open} votes are missing: {len(ITEMS) - 7} items have no vote, 7 have fewer than 3",
    )


def test_a_file_that_is_read_twice_changes_nothing(tmp_path, ballot):
    path = write(tmp_path / "a.csv", canonical())
    twice = collect(path, path)
    assert scores(twice) == scores(ballot)
    assert twice.notes[0].startswith(f"{len(VOTES)} votes appear twice unchanged and count once: {path} (row 2), ")


def test_the_order_of_rows_does_not_matter(tmp_path, ballot):
    other = collect(write(tmp_path / "a.csv", canonical()[::-1]))
    assert scores(other) == scores(ballot)


def test_a_skipped_item_has_no_score_and_stays_open(tmp_path):
    skipped = [replace(VOTES[0], score=None), *VOTES[1:]]
    ballot = collect(write(tmp_path / "a.csv", canonical(skipped)))
    assert [(vote.item_id, vote.annotator_id) for vote in ballot.skipped] == [(VOTES[0].item_id, VOTES[0].annotator_id)]
    assert ballot.n_open == 1


def test_votes_on_a_text_count_for_a_policy_that_joins_later(tmp_path, ballot):
    base = make(policies=("base",))
    second = make("second", earlier=base.key)
    shared_ids = {row.item_id for row in second.key} & {row.item_id for row in base.key}
    path = write(tmp_path / "a.csv", canonical(simulated_votes(base, EXPECTED, BIAS, 0.1)))
    later = collect(path, key=(*base.key, *second.key))
    assert shared_ids <= {vote.item_id for vote in later.votes}
    assert {row.batch for row in second.key if row.item_id in shared_ids} == {"first"}


# ---- refused files -----------------------------------------------------------------------------------------------------


def error_message(tmp_path, change, texts=False):
    """The error message about a file whose rows a function has changed."""
    rows = canonical()
    if texts:
        rows = [
            row | {"prompt": TEXTS[row["item_id"]].prompt, "response": TEXTS[row["item_id"]].response} for row in rows
        ]
    change(rows)
    with pytest.raises(UserError) as refusal:
        collect(write(tmp_path / "a.csv", rows))
    return str(refusal.value).replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("item_id", "0123456789abcdef0123", "an unknown item: the file belongs to another study, or the response"),
        ("batch", "second", "a wrong batch: 'second'; the item belongs to batch 'first'"),
        ("annotator_id", "", "no rater: annotator_id is empty"),
        ("score", "", "a missing vote: score is empty and the item not skipped"),
        ("score", "6", "score is 6, expected 1 to 5"),
        ("score", "0", "score is 0, expected 1 to 5"),
        ("score", "2.5", "score is 2.5, expected steps of 1"),
        ("score", "good", "score is not a number (scale 1 to 5)"),
        ("score", "nan", "score is not a number (scale 1 to 5)"),
        ("skipped", "maybe", "skipped is 'maybe', expected 1 or empty"),
    ],
)  # fmt: skip
def test_a_bad_row_is_refused_with_its_number(tmp_path, field, value, reason):
    def change(rows):
        rows[3][field] = value

    assert error_message(tmp_path, change).startswith(f"votes cannot be used: /a.csv (row 5): {reason}")


def test_all_bad_rows_are_named_at_once(tmp_path):
    def change(rows):
        rows[0]["score"] = "7"
        for row in rows[2:10]:
            row["item_id"] = "foreign"

    sentence = error_message(tmp_path, change)
    assert "/a.csv (row 2): score is 7" in sentence
    assert (
        "/a.csv (row 4), /a.csv (row 5), /a.csv (row 6), /a.csv (row 7), /a.csv (row 8) and 3 more: an unknown"
        in sentence
    )


def test_two_different_votes_of_one_rater_on_one_item_are_refused(tmp_path):
    def change(rows):
        rows.append(rows[0] | {"score": "1" if rows[0]["score"] != "1" else "2"})

    sentence = error_message(tmp_path, change)
    assert f"/a.csv (row {len(VOTES) + 2}): a second vote of one rater on one item" in sentence


def test_a_sheet_in_which_one_column_was_sorted_alone_is_refused(tmp_path):
    def change(rows):
        ids = sorted(row["item_id"] for row in rows)
        for row, item in zip(rows, ids, strict=True):
            row["item_id"] = item

    assert "a changed text: prompt and response differ from those of the item" in error_message(
        tmp_path, change, texts=True
    )


def test_a_changed_text_is_refused(tmp_path):
    def change(rows):
        rows[1]["response"] = rows[1]["response"][:-1]

    assert "/a.csv (row 3): a changed text" in error_message(tmp_path, change, texts=True)


def test_other_line_ends_and_spaces_are_not_a_changed_text(tmp_path):
    rows = [
        row | {"prompt": TEXTS[row["item_id"]].prompt + "\r\n", "response": f"  {TEXTS[row['item_id']].response} "}
        for row in canonical()
    ]
    assert collect(write(tmp_path / "a.csv", rows)).n_open == 0


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    path = write(tmp_path / "a.csv", canonical())
    content = (tmp_path / "a.csv").read_text()
    cut = content[: content.rindex(",", 0, content.rindex("first"))]
    (tmp_path / "a.csv").write_text(cut)
    with pytest.raises(
        UserError, match=r"a.csv \(row \d+\): has \d cells, the header has 8; the file is damaged or cut short"
    ):
        collect(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; expected CSV with a header"),
        (
            b"a,b\n1,2\n",
            "has no column 'item_id' for item_id; its columns are a, b: map them under `labeling.columns`",
        ),
        (b"item_id,score\nx,2\n", "has no column 'annotator_id' for annotator_id"),
        (b"item_id,score,score\nx,2,3\n", "has the column 'score' more than once"),
        (
            "item_id,annotator_id,score\nx,é,3\n".encode("latin-1"),
            "a.csv:2: is not valid UTF-8 text.*save the file as UTF-8",
        ),
    ],
)
def test_a_file_that_is_no_table_of_votes_is_refused(tmp_path, content, sentence):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        votes.read(str(tmp_path / "a.csv"))


@pytest.mark.parametrize("content", ["{}", '[{"data": {}}]', "[1]", '{"a": 1}'])
def test_json_that_is_no_label_studio_export_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match="is not a JSON export of Label Studio"):
        votes.read(str(tmp_path / "a.json"))


def test_a_configured_column_that_does_not_exist_is_refused_by_name(tmp_path):
    path = write(tmp_path / "a.csv", [{"Item": "x", "Who": "ann", "Score": "3"}])
    with pytest.raises(
        UserError, match=r"has no column 'Sore' for score \(did you mean 'Score'\?\); its columns are Item, Who, Score"
    ):
        votes.read(path, {"item_id": "Item", "annotator_id": "Who", "score": "Sore"})
    with pytest.raises(UserError, match=r"`columns` maps 'scor' \(did you mean 'score'\?\)"):
        votes.read(path, {"scor": "score"})


def test_configured_columns_are_not_used_for_files_of_known_kinds(tmp_path, ballot):
    path = write(tmp_path / "a.csv", canonical())
    assert scores(collect((path, {"item_id": "Task", "annotator_id": "Who", "score": "Sore"}))) == scores(ballot)
