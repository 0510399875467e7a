"""What cannot be right is refused with its line, what is missing is counted, labels are masked in every copy."""

import json
import math

import numpy as np
import polars as pl
import pytest

from arena_cje.dataset import bring, find_draws, load_draws, load_logged, mask, write_draws, write_logged
from arena_cje.errors import UserError


def logged_row(name="a", **changes):
    row = {
        "prompt_id": name,
        "prompt": f"prompt {name}",
        "response": f"response {name}",
        "base_policy_logprob": -10.0,
        "target_policy_logprobs": {"q": -12.0, "p": -9.0},
        "judge_score": 0.5,
        "oracle_label": 0.75,
        "metadata": {},
    }
    return row | changes


def without(row, name):
    return {key: value for key, value in row.items() if key != name}


@pytest.fixture
def lines(tmp_path):
    """Rows written as they are, the first line blank."""

    def write(*rows, name="logged.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n" + "".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_arrays_keep_rows_and_declared_order(lines):
    logged, dropped = load_logged(lines(logged_row("a"), logged_row("b", oracle_label=None, judge_score=1)))
    assert (logged.base_policy, logged.policies) == ("base", ("q", "p"))
    assert logged.prompt_id.tolist() == ["a", "b"]
    assert logged.log_ratio.tolist() == [[-2.0, 1.0], [-2.0, 1.0]]
    assert logged.judge_score.tolist() == [0.5, 1.0]
    assert logged.labelled.tolist() == [True, False]
    assert dropped == {"n_responses": 2, "n_rows": 2, "dropped": {}, "n_labels_dropped": 0}
    assert load_logged(lines(logged_row("a")), policies=("p", "q"))[0].log_ratio.tolist() == [[1.0, -2.0]]


def test_zero_and_the_empty_string_are_ids(lines):
    rows = [logged_row(0), logged_row(""), without(logged_row("x", metadata={"prompt_id": 7}), "prompt_id")]
    assert load_logged(lines(*rows))[0].prompt_id.tolist() == ["0", "", "7"]


def test_without_an_id_equal_prompts_are_one_prompt(lines):
    rows = [
        without(logged_row("a", response=r, prompt=p), "prompt_id") for r, p in (("x", "s"), ("y", "s"), ("x", "t"))
    ]
    names = load_logged(lines(*rows))[0].prompt_id
    assert names[0] == names[1] != names[2]


def test_score_and_label_may_stand_under_metadata_but_not_disagree(lines):
    older = without(
        without(logged_row(metadata={"judge_score": 0.25, "oracle_label": 0.5}), "judge_score"), "oracle_label"
    )
    logged, _ = load_logged(lines(older))
    assert (logged.judge_score[0], logged.oracle_label[0]) == (0.25, 0.5)
    load_logged(lines(logged_row(metadata={"judge_score": 0.5})))
    for stored, top in ((0.6, 0.75), (0.75, None)):
        with pytest.raises(UserError, match=r"logged\.jsonl:2: oracle_label .* make them agree"):
            load_logged(lines(logged_row(oracle_label=top, metadata={"oracle_label": stored})))


def test_a_row_without_a_score_is_dropped_and_counted(lines):
    logged, dropped = load_logged(lines(logged_row("a", judge_score=None), logged_row("b")))
    assert logged.prompt_id.tolist() == ["b"]
    assert dropped == {"n_responses": 2, "n_rows": 1, "dropped": {"no judge score": 1}, "n_labels_dropped": 1}


def test_a_missing_log_probability_leaves_its_row_out_for_that_policy_alone(lines):
    rows = [
        logged_row("a", target_policy_logprobs={"q": None, "p": 0.0}),
        logged_row("b", target_policy_logprobs={"p": -1.0}),
        logged_row("c", base_policy_logprob=None),
    ]
    ratio = load_logged(lines(logged_row("z"), *rows))[0].log_ratio[1:]
    np.testing.assert_array_equal(ratio, [[np.nan, 10.0], [np.nan, 9.0], [np.nan, np.nan]])


def test_outside_the_support_survives_the_file(tmp_path):
    row = logged_row(target_policy_logprobs={"q": -math.inf, "p": -10000.0})
    write_logged(tmp_path / "x.jsonl", [row])
    written = json.loads((tmp_path / "x.jsonl").read_text())
    assert written["target_policy_logprobs"] == {"q": -10000.0, "p": -10000.0}
    assert written["metadata"]["outside_support"] == ["q"]
    assert load_logged(tmp_path / "x.jsonl")[0].log_ratio.tolist() == [[-math.inf, -9990.0]]
    assert load_logged(pl.DataFrame([row]))[0].log_ratio.tolist() == [[-math.inf, -9990.0]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base_policy_logprob": 0.1}, "base_policy_logprob is 0.1, expected at most 0"),
        ({"target_policy_logprobs": {"q": 3.0, "p": -1.0}}, r"target_policy_logprobs\.q is 3.0"),
        ({"target_policy_logprobs": {"q": "x", "p": -1.0}}, "expected a number"),
        ({"target_policy_logprobs": {"qq": -1.0}}, "unknown target policy 'qq'.*did you mean 'q'"),
        ({"target_policy_logprobs": [-1.0]}, "target_policy_logprobs is .* expected an object"),
        ({"judge_score": 1.2}, "judge_score is 1.2, expected at most 1"),
        ({"judge_score": True}, "judge_score is True, expected a number"),
        ({"oracle_label": -0.1}, "oracle_label is -0.1, expected at least 0"),
        ({"metadata": {"oracle_label": 7}, "oracle_label": 7}, "oracle_label is 7"),
        ({"metadata": {"outside_support": ["q"]}}, "outside_support names 'q', whose log probability is -12.0"),
        ({"metadata": {"outside_support": ["r"]}}, "unknown target policy 'r'"),
        ({"prompt_id": [1]}, "expected a string or a whole number"),
        ({"prompt_id": None, "prompt": None}, "neither prompt_id nor prompt"),
        ({"prompt_id": "a"}, r"appears again with the same response \(first at .*logged\.jsonl:2\)"),
        ({"prompt_id": "a", "response": "other", "draw_idx": 0}, "prompt_id 'a' with draw_idx 0 appears again"),
        ({"base_policy": "other"}, "more than one base policy"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_line(lines, changes, said):
    path = lines(
        logged_row("a", base_policy="base", response="r"), logged_row("b", base_policy="base", response="r") | changes
    )
    with pytest.raises(UserError, match=said) as caught:
        load_logged(path)
    assert "logged.jsonl:3" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base_policy_logprob": -math.inf}, "row 0: base_policy_logprob is -inf"),
        ({"base_policy_logprob": math.nan}, "row 0: base_policy_logprob is NaN"),
        ({"target_policy_logprobs": {"q": math.inf, "p": -1.0}}, r"row 0: target_policy_logprobs\.q is inf"),
        ({"judge_score": math.nan}, "row 0: judge_score is NaN"),
        ({"oracle_label": math.nan}, "row 0: oracle_label is NaN"),
    ],
)
def test_frames_are_checked_like_files(changes, said):
    with pytest.raises(UserError, match=said):
        load_logged(pl.DataFrame([logged_row() | changes]))


def test_a_frame_says_what_the_file_says(lines):
    path = lines(*(logged_row(f"p{k}", oracle_label=None if k % 2 else 0.5) for k in range(6)))
    of_file, of_frame = load_logged(path)[0], load_logged(pl.read_ndjson(path))[0]
    for name in ("prompt_id", "log_ratio", "judge_score", "oracle_label"):
        np.testing.assert_array_equal(getattr(of_file, name), getattr(of_frame, name))


def test_the_base_policy_is_named_by_the_data_or_by_the_call(lines):
    path = lines(logged_row(base_policy="old"))
    assert load_logged(path)[0].base_policy == "old"
    assert load_logged(lines(logged_row()), base_policy="old")[0].base_policy == "old"
    with pytest.raises(UserError, match="more than one base policy"):
        load_logged(lines(logged_row(base_policy="old")), base_policy="new")
    with pytest.raises(UserError, match="target policy 'q' has the base policy's name"):
        load_logged(lines(logged_row(base_policy="q")))


def test_an_empty_file_is_refused(lines):
    with pytest.raises(UserError, match="no rows"):
        load_logged(lines())


def test_draws_are_aligned_with_the_logged_prompts(lines):
    rows = [
        {"prompt_id": 2, "judge_score": 0.2, "draw_idx": 1},
        {"prompt_id": 1, "judge_score": 0.1, "oracle_label": 1.0},
        {"prompt_id": 2, "judge_score": 0.3, "draw_idx": 0},
        {"prompt_id": 9, "judge_score": 0.9},
        {"prompt_id": 3, "judge_score": None},
    ]
    draws, counts = load_draws(lines(*rows), "q", ["1", "2", "3", "2"])
    np.testing.assert_array_equal(draws.judge_score, [[0.1, np.nan], [0.3, 0.2], [np.nan, np.nan], [0.3, 0.2]])
    np.testing.assert_array_equal(draws.oracle_label[:, 0], [1.0, np.nan, np.nan, np.nan])
    assert counts["dropped"] == {"no judge score": 1}
    assert counts["not_logged"] == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt_id": "b", "judge_score": 0.5}], r"no fresh draw for 1 of the logged prompts, first 'a'"),
        ([{"prompt_id": "a", "judge_score": 0.5, "draw_idx": 0}] * 2, r"draws\.jsonl:3: prompt_id 'a' with draw_idx 0"),
        ([{"prompt_id": "a", "judge_score": 0.5, "target_policy": "r"}], r"draws\.jsonl:2: target_policy is 'r'"),
        ([{"prompt_id": "a", "judge_score": 5}], r"draws\.jsonl:2: judge_score is 5"),
    ],
)
def test_draws_that_cannot_be_right_are_refused(lines, rows, said):
    with pytest.raises(UserError, match=said):
        load_draws(lines(*rows, name="draws.jsonl"), "q", ["a"])


def test_files_of_draws_are_found_by_policy(lines, tmp_path):
    draw = {"prompt_id": "a", "judge_score": 0.5}
    for name in ("fresh/q.jsonl", "fresh/q_responses.jsonl", "fresh/base.jsonl", "fresh/p_responses.jsonl"):
        lines(draw, name=name)
    found = find_draws(tmp_path / "fresh", "base", ("q", "p"))
    assert list(found) == ["base", "q", "p"]
    assert found["q"].name == "q_responses.jsonl"
    with pytest.raises(UserError, match="fresh draws of 'p', which the logged data does not know"):
        find_draws(tmp_path / "fresh", "base", ("q",))
    with pytest.raises(UserError, match="no fresh draws of target policy 'r'"):
        find_draws(tmp_path / "fresh", "base", ("q", "p", "r"))
    with pytest.raises(UserError, match="no such folder"):
        find_draws(tmp_path / "gone", "base", ("q",))


def test_mask_clears_labels_in_both_places():
    both = logged_row(metadata={"oracle_label": 0.75, "length": 3})
    older = without(logged_row(metadata={"oracle_label": 0.5}), "oracle_label")
    kept, cleared, cleared_older = mask([both, both, older], [True, False, False])
    assert kept == both
    assert cleared["oracle_label"] is None
    assert cleared["metadata"] == {"oracle_label": None, "length": 3}
    assert cleared_older["metadata"]["oracle_label"] is None
    assert both["metadata"]["oracle_label"] == 0.75


@pytest.fixture
def brought(lines, tmp_path):
    """Forty logged rows, labels in three storage forms; the base's fresh draws repeat them."""
    rows, again, fresh = [], [], []
    for k in range(40):
        label = None if k % 4 == 0 else k / 40
        row = logged_row(f"p{k}", oracle_label=label, judge_score=None if k == 1 else 0.5)
        if k % 4 == 2:
            row = without(row, "oracle_label") | {"metadata": {"oracle_label": label}}
        if k % 4 == 3:
            row["metadata"] = {"oracle_label": label}
        rows.append(row)
        again.append({"prompt_id": f"p{k}", "judge_score": 0.5, "oracle_label": label, "draw_idx": 0})
        fresh.append({"prompt_id": f"p{k}", "judge_score": 0.4, "oracle_label": 0.3})
    lines(*again, name="fresh/base.jsonl")
    for name in ("p", "q"):
        lines(*fresh, name=f"fresh/{name}.jsonl")
    return lines(*rows), tmp_path / "fresh"


@pytest.mark.parametrize(("coverage", "kept"), [(0.1, 4), (0.5, 20), (1.0, 29)])
def test_bring_masks_every_copy_of_a_response(brought, tmp_path, coverage, kept):
    rows, fresh, summary = bring(*brought, coverage, 42, 0.0)
    write_logged(tmp_path / "out.jsonl", rows)
    logged, _ = load_logged(tmp_path / "out.jsonl")
    assert (len(rows), summary["n_oracle"], int(logged.labelled.sum())) == (39, kept, kept)
    assert summary["dropped"] == {"no judge score": 1}
    assert (summary["n_labels_wanted"], summary["n_labels_found"]) == (round(coverage * 39), 29)
    for name, draws in fresh.items():
        write_draws(tmp_path / f"{name}.jsonl", draws)
    labels = {
        name: load_draws(tmp_path / f"{name}.jsonl", name, logged.prompt_id)[0].oracle_label[:, 0] for name in fresh
    }
    np.testing.assert_array_equal(labels["base"], logged.oracle_label)
    assert np.isnan(labels["q"]).all()


def test_bring_keeps_a_share_of_the_targets_labels(brought):
    _, fresh, summary = bring(*brought, 0.5, 42, 0.25)
    assert sum(row["oracle_label"] is not None for row in fresh["q"]) == 10
    assert summary["fresh_draws"]["q"] == {"n_responses": 40, "n_labels_found": 40, "n_labels": 10}


def test_bring_refuses_base_draws_that_contradict_the_logged_rows(brought, lines):
    path, folder = brought
    lines({"prompt_id": "p2", "judge_score": 0.5, "oracle_label": 0.99}, name="fresh/base.jsonl")
    with pytest.raises(
        UserError, match=r"base\.jsonl:2: oracle_label is 0.99, but the logged row of prompt 'p2' has 0.05"
    ):
        bring(path, folder, 1.0, 42, 0.0)


def test_bring_works_without_fresh_draws(brought):
    rows, fresh, summary = bring(brought[0], None, 0.5, 42, 0.0)
    assert (fresh, summary["fresh_draws"], summary["target_policies"]) == ({}, {}, ["q", "p"])
