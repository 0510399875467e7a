"""Impossible values are refused with their line, missing ones are counted, and labels are masked in every copy."""

import json
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from arena_cje.data.dataset import find_draws, find_probes, load_calibration, load_draws, load_logged
from arena_cje.data.reading import Reading
from arena_cje.data.rows import NO_TEXTS, mask_labels, read_responses
from arena_cje.data.schemas import LOGGED
from arena_cje.data.user_data import read_user_data
from arena_cje.data.write import write_calibration, write_draws, write_logged
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
def write_rows(tmp_path):
    """A function that writes rows without a check, after a blank first line."""

    def write(*rows, name="logged.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n" + "".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_arrays_keep_the_order_of_rows_and_of_declared_policies(write_rows):
    logged, dropped = load_logged(write_rows(logged_row("a"), logged_row("b", oracle_label=None, judge_score=1)))
    assert (logged.base_policy, logged.policies) == ("base", ("q", "p"))
    assert logged.prompt_id.tolist() == ["a", "b"]
    assert logged.log_ratio.tolist() == [[-2.0, 1.0], [-2.0, 1.0]]
    assert logged.judge_score.tolist() == [0.5, 1.0]
    assert logged.labelled.tolist() == [True, False]
    assert dropped == {"n_responses": 2, "n_rows": 2, "dropped": {}, "n_labels_dropped": 0}
    assert load_logged(write_rows(logged_row("a")), policies=("p", "q"))[0].log_ratio.tolist() == [[1.0, -2.0]]


def test_zero_and_the_empty_string_are_valid_prompt_ids(write_rows):
    rows = [logged_row(0), logged_row(""), without(logged_row("x", metadata={"prompt_id": 7}), "prompt_id")]
    assert load_logged(write_rows(*rows))[0].prompt_id.tolist() == ["0", "", "7"]


def test_rows_without_a_prompt_id_share_one_if_their_prompts_are_equal(write_rows):
    rows = [
        without(logged_row("a", response=r, prompt=p), "prompt_id") for r, p in (("x", "s"), ("y", "s"), ("x", "t"))
    ]
    names = load_logged(write_rows(*rows))[0].prompt_id
    assert names[0] == names[1] != names[2]


def test_score_and_label_may_be_in_metadata_and_must_agree_with_the_top_level(write_rows):
    older = without(
        without(logged_row(metadata={"judge_score": 0.25, "oracle_label": 0.5}), "judge_score"), "oracle_label"
    )
    logged, _ = load_logged(write_rows(older))
    assert (logged.judge_score[0], logged.oracle_label[0]) == (0.25, 0.5)
    load_logged(write_rows(logged_row(metadata={"judge_score": 0.5})))
    for stored, top in ((0.6, 0.75), (0.75, None)):
        with pytest.raises(UserError, match=r"logged\.jsonl:2: oracle_label .* make them agree"):
            load_logged(write_rows(logged_row(oracle_label=top, metadata={"oracle_label": stored})))


def test_a_row_without_a_score_is_dropped_and_counted(write_rows):
    logged, dropped = load_logged(write_rows(logged_row("a", judge_score=None), logged_row("b")))
    assert logged.prompt_id.tolist() == ["b"]
    assert dropped == {"n_responses": 2, "n_rows": 1, "dropped": {"no judge score": 1}, "n_labels_dropped": 1}


def test_a_missing_log_probability_leaves_its_row_out_for_that_policy_alone(write_rows):
    rows = [
        logged_row("a", target_policy_logprobs={"q": None, "p": 0.0}),
        logged_row("b", target_policy_logprobs={"p": -1.0}),
        logged_row("c", base_policy_logprob=None),
    ]
    ratio = load_logged(write_rows(logged_row("z"), *rows))[0].log_ratio[1:]
    np.testing.assert_array_equal(ratio, [[np.nan, 10.0], [np.nan, 9.0], [np.nan, np.nan]])


def test_a_response_outside_the_support_of_a_target_stays_so_in_a_file(tmp_path):
    row = logged_row(target_policy_logprobs={"q": -math.inf, "p": -10000.0})
    write_logged(tmp_path / "x.jsonl", [row])
    file_row = json.loads((tmp_path / "x.jsonl").read_text())
    assert file_row["target_policy_logprobs"] == {"q": -10000.0, "p": -10000.0}
    assert file_row["metadata"]["outside_support"] == ["q"]
    assert load_logged(tmp_path / "x.jsonl")[0].log_ratio.tolist() == [[-math.inf, -9990.0]]
    assert load_logged(pl.DataFrame([row]))[0].log_ratio.tolist() == [[-math.inf, -9990.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
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
def test_an_impossible_value_is_refused_with_its_line(write_rows, changes, message):
    path = write_rows(
        logged_row("a", base_policy="base", response="r"), logged_row("b", base_policy="base", response="r") | changes
    )
    with pytest.raises(UserError, match=message) as caught:
        load_logged(path)
    assert "logged.jsonl:3" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_policy_logprob": -math.inf}, "row 0: base_policy_logprob is -inf"),
        ({"base_policy_logprob": math.nan}, "row 0: base_policy_logprob is NaN"),
        ({"target_policy_logprobs": {"q": math.inf, "p": -1.0}}, r"row 0: target_policy_logprobs\.q is inf"),
        ({"judge_score": math.nan}, "row 0: judge_score is NaN"),
        ({"oracle_label": math.nan}, "row 0: oracle_label is NaN"),
    ],
)
def test_frames_are_checked_like_files(changes, message):
    with pytest.raises(UserError, match=message):
        load_logged(pl.DataFrame([logged_row() | changes]))


def test_a_frame_and_a_file_of_the_same_rows_give_the_same_arrays(write_rows):
    path = write_rows(*(logged_row(f"p{k}", oracle_label=None if k % 2 else 0.5) for k in range(6)))
    of_file, of_frame = load_logged(path)[0], load_logged(pl.read_ndjson(path))[0]
    for name in ("prompt_id", "log_ratio", "judge_score", "oracle_label"):
        np.testing.assert_array_equal(getattr(of_file, name), getattr(of_frame, name))


def test_the_base_policy_is_named_by_the_data_or_by_the_call(write_rows):
    path = write_rows(logged_row(base_policy="old"))
    assert load_logged(path)[0].base_policy == "old"
    assert load_logged(write_rows(logged_row()), base_policy="old")[0].base_policy == "old"
    with pytest.raises(UserError, match="more than one base policy"):
        load_logged(write_rows(logged_row(base_policy="old")), base_policy="new")
    with pytest.raises(UserError, match="target policy 'q' has the name of the base policy"):
        load_logged(write_rows(logged_row(base_policy="q")))


def test_an_empty_file_is_refused(write_rows):
    with pytest.raises(UserError, match="no rows"):
        load_logged(write_rows())


def test_draws_are_aligned_with_the_logged_prompts(write_rows):
    rows = [
        {"prompt_id": 2, "judge_score": 0.2, "draw_idx": 1},
        {"prompt_id": 1, "judge_score": 0.1, "oracle_label": 1.0},
        {"prompt_id": 2, "judge_score": 0.3, "draw_idx": 0},
        {"prompt_id": 9, "judge_score": 0.9},
        {"prompt_id": 3, "judge_score": None},
    ]
    draws, counts = load_draws(write_rows(*rows), "q", ["1", "2", "3", "2"])
    np.testing.assert_array_equal(draws.judge_score, [[0.1, np.nan], [0.3, 0.2], [np.nan, np.nan], [0.3, 0.2]])
    np.testing.assert_array_equal(draws.oracle_label[:, 0], [1.0, np.nan, np.nan, np.nan])
    assert counts["dropped"] == {"no judge score": 1}
    assert counts["not_logged"] == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"prompt_id": "b", "judge_score": 0.5}],
            r"no fresh draw for any of the 1 logged prompts with a judge score, such as 'a'",
        ),
        ([{"prompt_id": "a", "judge_score": 0.5, "draw_idx": 0}] * 2, r"draws\.jsonl:3: prompt_id 'a' with draw_idx 0"),
        ([{"prompt_id": "a", "judge_score": 0.5, "target_policy": "r"}], r"draws\.jsonl:2: target_policy is 'r'"),
        ([{"prompt_id": "a", "judge_score": 5}], r"draws\.jsonl:2: judge_score is 5"),
    ],
)
def test_impossible_draws_are_refused(write_rows, rows, message):
    with pytest.raises(UserError, match=message):
        load_draws(write_rows(*rows, name="draws.jsonl"), "q", ["a"])


def test_files_of_draws_are_found_by_policy(write_rows, tmp_path):
    draw = {"prompt_id": "a", "judge_score": 0.5}
    for name in ("fresh/q.jsonl", "fresh/q_responses.jsonl", "fresh/base.jsonl", "fresh/p_responses.jsonl"):
        write_rows(draw, name=name)
    paths = find_draws(tmp_path / "fresh", "base", ("q", "p"))
    assert list(paths) == ["base", "q", "p"]
    assert paths["q"].name == "q_responses.jsonl"
    assert list(find_draws(tmp_path / "fresh", "base", ("q", "p", "other"))) == ["base", "q", "p"]
    assert list(find_draws(tmp_path / "fresh", "base", ("q",))) == ["base", "q", "p"]
    write_rows(draw, name="fresh/premum.jsonl")
    with pytest.raises(UserError, match="fresh draws of 'premum', which is not .* .did you mean 'premium'"):
        find_draws(tmp_path / "fresh", "base", ("q", "premium"))
    with pytest.raises(UserError, match="no such folder; expected"):
        find_draws(tmp_path / "gone", "base", ("q",))


def test_mask_clears_labels_in_both_places():
    both = logged_row(metadata={"oracle_label": 0.75, "length": 3})
    older = without(logged_row(metadata={"oracle_label": 0.5}), "oracle_label")
    intact, cleared, cleared_older = mask_labels([both, both, older], [True, False, False])
    assert intact == both
    assert cleared["oracle_label"] is None
    assert cleared["metadata"] == {"oracle_label": None, "length": 3}
    assert cleared_older["metadata"]["oracle_label"] is None
    assert both["metadata"]["oracle_label"] == 0.75


@pytest.fixture
def user_files(write_rows, tmp_path):
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
    write_rows(*again, name="fresh/base.jsonl")
    for name in ("p", "q"):
        write_rows(*fresh, name=f"fresh/{name}.jsonl")
    return write_rows(*rows), tmp_path / "fresh"


@pytest.mark.parametrize(("coverage", "n_labels"), [(0.1, 4), (0.5, 20), (1.0, 29)])
def test_labels_are_masked_in_every_copy_of_a_response(user_files, tmp_path, coverage, n_labels):
    rows, fresh, _, summary = read_user_data(*user_files, coverage, 42, 0.0)
    write_logged(tmp_path / "out.jsonl", rows)
    logged, _ = load_logged(tmp_path / "out.jsonl")
    assert (len(list(rows)), summary["n_oracle"], int(logged.labelled.sum())) == (39, n_labels, n_labels)
    assert summary["dropped"] == {"no judge score": 1}
    assert (summary["n_labels_wanted"], summary["n_labels_found"]) == (round(coverage * 39), 29)
    for name, draws in fresh.items():
        write_draws(tmp_path / f"{name}.jsonl", draws)
    labels = {
        name: load_draws(tmp_path / f"{name}.jsonl", name, logged.prompt_id)[0].oracle_label[:, 0] for name in fresh
    }
    np.testing.assert_array_equal(labels["base"], logged.oracle_label)
    assert np.isnan(labels["q"]).all()


def test_a_share_of_the_targets_labels_is_kept(user_files):
    _, fresh, _, summary = read_user_data(*user_files, 0.5, 42, 0.25)
    assert sum(row["oracle_label"] is not None for row in fresh["q"]) == 10
    assert summary["fresh_draws"]["q"] == {
        "n_responses": 40,
        "n_labels_found": 40,
        "n_probes": 0,
        "n_labels": 10,
    }


def test_base_draws_that_contradict_the_logged_rows_are_refused(user_files, write_rows):
    path, folder = user_files
    write_rows({"prompt_id": "p2", "judge_score": 0.5, "oracle_label": 0.99}, name="fresh/base.jsonl")
    with pytest.raises(
        UserError, match=r"base\.jsonl:2: oracle_label is 0.99, but the logged row of prompt 'p2' has 0.05"
    ):
        read_user_data(path, folder, 1.0, 42, 0.0)


def test_user_data_may_lack_fresh_draws(user_files):
    rows, fresh, _, summary = read_user_data(user_files[0], None, 0.5, 42, 0.0)
    assert (fresh, summary["fresh_draws"], summary["target_policies"]) == ({}, {}, ["q", "p"])


def test_every_label_of_the_targets_is_kept_by_default(user_files):
    _, fresh, _, summary = read_user_data(*user_files, 0.5, 42)
    assert sum(row["oracle_label"] is not None for row in fresh["q"]) == 40
    assert summary["fresh_draws"]["p"]["n_labels"] == 40


def draw(name, **changes):
    return {"prompt_id": name, "judge_score": 0.5} | changes


def test_probes_are_labels_of_the_draws_they_name(write_rows):
    rows = [draw("a", draw_idx=0), draw("a", draw_idx=1, judge_score=0.25), draw("b", oracle_label=1.0), draw("c")]
    source = write_rows(*rows, name="draws.jsonl")
    probes = write_rows(
        {"prompt_id": "a", "draw_idx": 1, "judge_score": 0.25, "oracle_label": 0.125},
        {"prompt_id": "b", "judge_score": 0.5, "oracle_label": 1.0},
        {"prompt_id": "c", "metadata": {"judge_score": 0.5, "oracle_label": 0.0}},
        name="probes.jsonl",
    )
    draws, counts = load_draws(source, "q", ["c", "a", "b"], probes=probes)
    np.testing.assert_array_equal(draws.oracle_label, [[0.0, np.nan], [np.nan, 0.125], [1.0, np.nan]])
    assert counts["n_probes"] == 3
    without_probes, counts = load_draws(source, "q", ["c", "a", "b"])
    np.testing.assert_array_equal(draws.judge_score, without_probes.judge_score)
    assert "n_probes" not in counts


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ({"prompt_id": "z"}, r"draws\.jsonl has no draw 0 of prompt 'z'"),
        ({"draw_idx": 1}, r"draws\.jsonl has no draw 1 of prompt 'a'"),
        ({"judge_score": 0.6}, r"judge_score is 0\.6, but its draw \(.*draws\.jsonl:2\) has 0\.5"),
        ({"response": "other"}, r"response is 'other', but its draw \(.*draws\.jsonl:2\) is 'this'"),
        ({"oracle_label": 0.7}, r"oracle_label is 0\.7, but its draw \(.*draws\.jsonl:2\) has 0\.75"),
        ({"oracle_label": None}, "oracle_label is missing or null"),
        ({"judge_score": None}, "judge_score is missing or null"),
        ({"oracle_label": 2}, "oracle_label is 2, expected at most 1"),
        ({"policy": "r"}, "policy is 'r' among the probes of 'q'"),
    ],
)
def test_a_probe_that_does_not_fit_its_draw_is_refused(write_rows, probe, message):
    source = write_rows(draw("a", response="this", oracle_label=0.75), name="draws.jsonl")
    probes = write_rows(draw("a", oracle_label=0.75) | probe, name="probes.jsonl")
    with pytest.raises(UserError, match=message) as caught:
        load_draws(source, "q", ["a"], probes=probes)
    assert "probes.jsonl:2: " in str(caught.value)


def test_a_probe_of_an_unscored_draw_and_a_second_probe_of_one_draw_are_refused(write_rows):
    unjudged = write_rows(draw("a", judge_score=None), name="draws.jsonl")
    probe = draw("a", oracle_label=0.75)
    with pytest.raises(UserError, match=r"probes\.jsonl:2: judge_score is 0\.5, but its draw .* has none"):
        load_draws(unjudged, "q", ["a"], probes=write_rows(probe, name="probes.jsonl"))
    with pytest.raises(UserError, match=r"probes\.jsonl:3: prompt_id 'a' with draw_idx 0 appears again"):
        load_draws(write_rows(draw("a")), "q", ["a"], probes=write_rows(probe, probe, name="probes.jsonl"))


def test_probes_are_found_by_policy_and_some_policies_may_have_none(write_rows, tmp_path):
    for name in ("probes/q.jsonl", "probes/p_responses.jsonl"):
        write_rows(draw("a", oracle_label=1.0), name=name)
    paths = find_probes(tmp_path / "probes", ("r", "p", "q"))
    assert {policy: path.name for policy, path in paths.items()} == {"p": "p_responses.jsonl", "q": "q.jsonl"}
    assert find_probes(None, ("q",)) == {}
    assert list(find_probes({"q": "here.jsonl", "p": "there.jsonl"}, ("p", "q")).items()) == [
        ("p", "there.jsonl"),
        ("q", "here.jsonl"),
    ]
    with pytest.raises(UserError, match="probes of 'p', which has no fresh draws as a target policy"):
        find_probes(tmp_path / "probes", ("q",))
    with pytest.raises(UserError, match="expected a folder of probes"):
        find_probes(tmp_path / "gone", ("q",))


def test_a_probe_is_never_masked(user_files, write_rows, tmp_path):
    write_rows(
        *({"prompt_id": f"p{k}", "judge_score": 0.4, "oracle_label": 0.3} for k in (7, 8)), name="probes/q.jsonl"
    )
    for share, of_q, of_p in ((0.0, 2, 0), (None, 40, 40)):
        _, fresh, _, summary = read_user_data(*user_files, 0.5, 42, share, probes=tmp_path / "probes")
        labelled = {name: [r["prompt_id"] for r in fresh[name] if r["oracle_label"] is not None] for name in fresh}
        assert (len(labelled["q"]), len(labelled["p"])) == (of_q, of_p)
        assert {"p7", "p8"} <= set(labelled["q"])
        assert summary["fresh_draws"]["q"]["n_probes"] == 2
        assert summary["fresh_draws"]["q"]["n_labels"] == of_q
    write_draws(tmp_path / "out.jsonl", fresh["q"])


def test_each_row_has_its_own_covariates(write_rows):
    rows = [
        logged_row("a", response="one two  three", metadata={"depth": 3}),
        logged_row("b", response="", depth=4.5),
        logged_row("c", response=None, judge_score=None),
    ]
    names = ("response_length", "depth")
    logged, _ = load_logged(write_rows(*rows), reading=Reading(names))
    assert logged.covariates.tolist() == [[3.0, 3.0], [0.0, 4.5]]
    assert load_logged(write_rows(*rows))[0].covariates is None
    fresh = [
        draw("b", draw_idx=1, response="x", depth=1),
        draw("b", draw_idx=0, response="x y", depth=2),
        draw("a", response="x y z", metadata={"depth": 5}),
    ]
    draws, _ = load_draws(write_rows(*fresh), "q", ["a", "b"], reading=Reading(names))
    np.testing.assert_array_equal(draws.covariates, [[[3, 5], [np.nan, np.nan]], [[2, 2], [1, 1]]])
    assert draws.judged.covariates.shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"response": None}, "covariate response_length counts the words of `response`, which this row lacks"),
        ({"metadata": {"dpeth": 1}}, r"covariate 'depth' is missing \(did you mean 'dpeth'\?\)"),
        ({"metadata": {"depth": None}}, "covariate 'depth' is missing"),
        ({"metadata": {"depth": "3"}}, "covariate 'depth' is '3', expected a finite number"),
        ({"metadata": {"depth": True}}, "covariate 'depth' is True, expected a finite number"),
        ({"metadata": {"depth": 3}, "depth": 4}, "covariate 'depth' is 4 at the top level but 3 under metadata"),
    ],
)
def test_a_judged_row_without_a_covariate_is_refused(write_rows, changes, message):
    path = write_rows(logged_row("a", metadata={"depth": 1}), logged_row("b", metadata={"depth": 1}) | changes)
    with pytest.raises(UserError, match=message) as caught:
        load_logged(path, reading=Reading(("response_length", "depth")))
    assert "logged.jsonl:3: " in str(caught.value)
    with pytest.raises(UserError, match="covariate"):
        load_draws(path, "q", ["a", "b"], reading=Reading(("response_length", "depth")))


@pytest.mark.parametrize("depth", [math.nan, math.inf])
def test_a_covariate_of_a_frame_that_is_not_finite_is_refused(depth):
    with pytest.raises(UserError, match="row 0: covariate 'depth' is (nan|inf), expected a finite number"):
        load_logged(pl.DataFrame([logged_row(depth=depth)]), reading=Reading(("depth",)))


def test_a_judge_distribution_is_read_as_points_and_masses(write_rows):
    rows = [
        without(logged_row("a", judge_distribution=[[1.0, 0.25], [0.0, 0.5], [0.5, 0.25]]), "judge_score"),
        logged_row("b", judge_score=0.25),
        logged_row("c", judge_score=0.75, metadata={"judge_scores": [0.5, 1, 1, 0.5]}),
    ]
    path = write_rows(*rows)
    for source in (path, pl.read_ndjson(path)):
        logged, _ = load_logged(source)
        assert logged.judge_score.tolist() == [0.375, 0.25, 0.75]
        assert logged.judge_points.tolist() == [[0, 0.5, 1], [0.25, 0.25, 0.25], [0.5, 1, 0.75]]
        assert logged.judge_mass.tolist() == [[0.5, 0.25, 0.25], [1, 0, 0], [0.5, 0.5, 0]]
        np.testing.assert_allclose(logged.judged.score, logged.judge_score, atol=1e-15)
    certain, _ = load_logged(write_rows(logged_row("a")))
    assert certain.judge_points is None
    assert certain.judge_mass is None


def test_judge_distributions_stay_with_their_draws(write_rows):
    rows = [
        draw("a", judge_distribution=[[0.4, 0.5], [0.6, 0.5]]),
        draw("b", judge_score=0.1),
        draw("b", judge_score=None),
    ]
    draws, _ = load_draws(write_rows(*rows), "q", ["b", "a"])
    np.testing.assert_array_equal(draws.judge_points, [[[0.1, 0.1], [np.nan] * 2], [[0.4, 0.6], [np.nan] * 2]])
    np.testing.assert_array_equal(draws.judge_mass, [[[1, 0], [1, 0]], [[0.5, 0.5], [1, 0]]])
    np.testing.assert_allclose(draws.judged.score, draws.judge_score)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"judge_distribution": [[0.5, 0.5], [1.5, 0.5]]},
            "judge_distribution has a score that is 1.5, expected at most 1",
        ),
        ({"judge_distribution": [[0.5, 0.5], [None, 0.5]]}, "has a score that is missing or null"),
        ({"judge_distribution": [[0.5, 1.5], [0.7, -0.5]]}, "has the mass -0.5, expected a number above 0"),
        ({"judge_distribution": [[0.5, 1.0], [0.7, 0]]}, "has the mass 0, expected a number above 0"),
        ({"judge_distribution": [[0.5, 0.9]]}, "has masses with the sum 0.9, expected 1"),
        ({"judge_distribution": [[0.5, 0.5, 0.5]]}, r"has the element \[0.5, 0.5, 0.5\], expected a pair"),
        ({"judge_distribution": [0.5]}, r"elements of type float, expected a list of \[score, mass\] pairs"),
        ({"judge_distribution": []}, "judge_distribution is empty"),
        ({"judge_distribution": [[0.4, 1]]}, "judge_score is 0.5, but the judge's distribution has mean 0.4"),
        ({"judge_scores": [0.5, 1.5]}, "judge_scores has a score that is 1.5"),
        ({"judge_scores": "many"}, "judge_scores is 'many', expected a list of numbers"),
        ({"metadata": {"judge_scores": [0.5, "x"]}}, "judge_scores has elements of type str"),
        ({"judge_scores": [0.5], "judge_distribution": [[0.5, 1]]}, "both set; keep one of the two"),
    ],
)
def test_an_impossible_judge_distribution_is_refused_with_its_line(write_rows, changes, message):
    path = write_rows(logged_row("a"), logged_row("b") | changes)
    with pytest.raises(UserError, match=message) as caught:
        load_logged(path)
    assert "logged.jsonl:3: " in str(caught.value)
    with pytest.raises(UserError, match=message):
        load_draws(path, "q", ["a"])
    with pytest.raises(UserError, match=message):
        load_calibration(path, logged=write_rows(logged_row("z"), name="other.jsonl"))


def test_masses_whose_sum_differs_from_one_by_rounding_are_accepted(write_rows):
    near = [[0.0, 0.3333333], [0.5, 0.3333333], [1.0, 0.3333333]]
    logged, _ = load_logged(write_rows(logged_row("a", judge_distribution=near)))
    assert logged.judge_mass.sum() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("scale", [(0, 100), (-1, 1), (1, 5)])
def test_data_on_another_declared_scale_give_the_same_arrays(write_rows, scale):
    low, high = scale

    def stretched(row):
        moved = {name: low + (high - low) * row[name] for name in ("judge_score", "oracle_label")}
        points = [[low + (high - low) * point, mass] for point, mass in row["judge_distribution"]]
        return row | moved | {"judge_distribution": points}

    rows = [
        logged_row(f"p{k}", judge_score=k / 8, oracle_label=1 - k / 8, judge_distribution=[[k / 8, 1.0]])
        for k in range(9)
    ]
    rows[3] |= {"judge_distribution": [[0.0, 0.625], [1.0, 0.375]]}
    unit, moved = write_rows(*rows), write_rows(*(stretched(row) for row in rows), name="moved.jsonl")
    one = logged_row("z", judge_distribution=[[0.5, 1.0]])
    other, other_moved = write_rows(one, name="z.jsonl"), write_rows(stretched(one), name="z_moved.jsonl")

    def load_all(path, beside, scale):
        reading = Reading(scale=scale)
        logged, _ = load_logged(path, reading=reading)
        draws, _ = load_draws(path, "q", logged.prompt_id, reading=reading, probes=path)
        return logged, draws, load_calibration(path, logged=beside, reading=reading)[0]

    for expected, actual in zip(load_all(unit, other, None), load_all(moved, other_moved, scale), strict=True):
        np.testing.assert_allclose(actual.oracle_label, expected.oracle_label, atol=1e-15)
        np.testing.assert_allclose(actual.judged.score, expected.judged.score, atol=1e-15)
        np.testing.assert_allclose(actual.judged.points, expected.judged.points, atol=1e-15)
    assert load_logged(moved, reading=Reading(scale=scale))[1]["label_scale"] == list(scale)
    with pytest.raises(UserError, match=r"moved\.jsonl:\d+: .* expected at (most|least)"):
        load_logged(moved)


def test_a_value_outside_the_declared_scale_is_refused(write_rows):
    for name, value in (("judge_score", 101), ("oracle_label", -1), ("judge_scores", [50, 101])):
        path = write_rows(without(logged_row("a") | {name: value}, "judge_score" if name == "judge_scores" else "none"))
        with pytest.raises(UserError, match=rf"logged\.jsonl:2: {name} .* on the declared scale"):
            load_logged(path, reading=Reading(scale=(0, 100)))
    with pytest.raises(
        UserError,
        match="judge_score is 50, expected at most 1; set the ranges of your data: `judge_scale` .* `label_scale`",
    ):
        load_logged(write_rows(logged_row("a", judge_score=50)))
    for scale in ((1, 0), (0, 0), (0, math.inf)):
        with pytest.raises(UserError, match="lowest, highest"):
            Reading(scale=scale)


def labelled_row(name="x", **changes):
    return {"prompt_id": name, "judge_score": 0.5, "oracle_label": 0.75} | changes


def test_calibration_data_have_one_row_per_response_and_not_per_prompt(write_rows):
    policies = ("q", "p", "r")
    rows = [labelled_row("x", policy=p, judge_score=k / 4) for k, p in enumerate(policies)]
    rows += [labelled_row("x", policy="q", draw_idx=1), labelled_row("x", target_policy="s"), labelled_row("y")]
    labelled, counts = load_calibration(write_rows(*rows), logged=write_rows(logged_row("a"), name="own.jsonl"))
    assert labelled.question.tolist() == ["x"] * 5 + ["y"]
    assert labelled.judged.score.tolist() == [0.0, 0.25, 0.5, 0.5, 0.5, 0.5]
    assert labelled.oracle_label.tolist() == [0.75] * 6
    assert counts == {"n_responses": 6, "n_rows": 6, "dropped": {}, "n_labels_dropped": 0}


def test_calibration_data_count_each_response_once(write_rows):
    rows = [
        labelled_row("x", policy="q"),
        labelled_row("x", policy="q"),
        labelled_row("y", oracle_label=None),
        labelled_row("y", judge_score=None),
        labelled_row("a"),
        labelled_row("a", policy="base", response="response a"),
        labelled_row("a", policy="q"),
        labelled_row("a", response="another response"),
        labelled_row("a", draw_idx=1),
        labelled_row("b"),
    ]
    own = write_rows(logged_row("a"), logged_row("b", oracle_label=None), name="own.jsonl")
    labelled, counts = load_calibration(write_rows(*rows), logged=own)
    assert labelled.question.tolist() == ["x", "a", "a", "a", "b"]
    assert counts["dropped"] == {
        "repeated": 1,
        "no oracle label": 1,
        "no judge score": 1,
        "labelled in the logged data": 2,
    }
    assert (counts["n_responses"], counts["n_rows"], counts["n_labels_dropped"]) == (10, 5, 4)


def test_calibration_rows_that_repeat_labelled_logged_rows_are_dropped(write_rows):
    """Whether the text or the number of a response identifies it among those of a prompt."""
    texts = [logged_row("a", response=text, judge_score=s, oracle_label=s) for text, s in (("u", 0.5), ("v", 0.25))]
    numbered = [logged_row("a", draw_idx=k, judge_score=s, oracle_label=s) for k, s in enumerate((0.5, 0.25))]
    for rows in (texts, numbered):
        own = write_rows(*rows, name="own.jsonl")
        labelled, counts = load_calibration(write_rows(*rows, labelled_row("z")), logged=own)
        assert labelled.question.tolist() == ["z"]
        assert counts["dropped"] == {"labelled in the logged data": 2}
        with pytest.raises(UserError, match=r"no rows for the calibration \(2 labelled in the logged data\)"):
            load_calibration(own, logged=own)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (labelled_row("x", oracle_label=0.5), r"'x' appears again with other values \(first at .*more\.jsonl:2\)"),
        (labelled_row("x", judge_score=0.25), "'x' appears again with other values"),
        (labelled_row("a", oracle_label=0.6), r"oracle_label .* differs by more than 0\.05 .*own\.jsonl:2"),
        (labelled_row("a", policy="base", judge_score=0.25), r"judge_score of the base policy's .*own\.jsonl:2"),
        (labelled_row("y", policy="q", target_policy="p"), "policy is 'q' but target_policy is 'p'"),
    ],
)
def test_contradictory_calibration_data_are_refused_with_their_line(write_rows, row, message):
    own = write_rows(logged_row("a"), name="own.jsonl")
    with pytest.raises(UserError, match=message) as caught:
        load_calibration(write_rows(labelled_row("x"), row, name="more.jsonl"), logged=own)
    assert "more.jsonl:3: " in str(caught.value)


def test_calibration_data_have_their_own_covariates_and_distributions(write_rows):
    rows = [labelled_row("x", response="two words"), labelled_row("y", response="one", judge_scores=[0.25, 0.75])]
    own = write_rows(logged_row("a"), name="own.jsonl")
    labelled, _ = load_calibration(write_rows(*rows), logged=own, reading=Reading(("response_length",)))
    assert labelled.judged.covariates.tolist() == [[2.0], [1.0]]
    assert labelled.judged.points.tolist() == [[0.5, 0.5], [0.25, 0.75]]
    with pytest.raises(UserError, match="counts the words of `response`, which this row lacks"):
        load_calibration(write_rows(labelled_row("x")), logged=own, reading=Reading(("response_length",)))


def test_a_masked_label_does_not_come_back_from_the_calibration_data(user_files, write_rows, tmp_path):
    logged = [json.loads(line) for line in user_files[0].read_text().splitlines() if line]
    own = [row for row in logged if (row.get("oracle_label") or row["metadata"].get("oracle_label")) is not None]
    more = write_rows(*own, *(labelled_row(f"new{k}") for k in range(3)), name="more.jsonl")
    rows, _, calibration, summary = read_user_data(*user_files, 0.1, 42, calibration_data=more)
    assert [row["prompt_id"] for row in calibration] == ["new0", "new1", "new2"]
    assert summary["calibration_data"]["n_rows"] == 3
    write_logged(tmp_path / "out.jsonl", rows)
    write_calibration(tmp_path / "beside.jsonl", calibration)
    labelled, counts = load_calibration(tmp_path / "beside.jsonl", logged=tmp_path / "out.jsonl")
    assert (len(labelled.oracle_label), counts["dropped"]) == (3, {})
    assert read_user_data(*user_files, 0.1, 42).calibration is None


def test_imported_user_data_stay_on_their_declared_scale(write_rows, tmp_path):
    rows = [logged_row(f"p{k}", judge_score=10 * k, oracle_label=50) for k in range(10)]
    write_rows(*(draw(f"p{k}", judge_score=70, oracle_label=20) for k in range(10)), name="fresh/q.jsonl")
    write_rows(*(draw(f"p{k}", judge_score=70) for k in range(10)), name="fresh/p.jsonl")
    write_rows(draw("p1", judge_score=70, oracle_label=30), name="probes/p.jsonl")
    more = write_rows(labelled_row("x", judge_score=40, oracle_label=10), name="more.jsonl")
    percent = Reading(scale=(0, 100))
    user_data = read_user_data(
        write_rows(*rows),
        tmp_path / "fresh",
        1.0,
        42,
        probes=tmp_path / "probes",
        calibration_data=more,
        reading=percent,
    )
    assert user_data.summary["judge_scale"] == user_data.summary["label_scale"] == [0, 100]
    assert [row.get("oracle_label") for row in user_data.fresh["p"]].count(30) == 1
    write_logged(tmp_path / "out.jsonl", user_data.logged, percent)
    write_draws(tmp_path / "q.jsonl", user_data.fresh["q"], percent)
    write_calibration(tmp_path / "beside.jsonl", user_data.calibration, percent)
    logged, _ = load_logged(tmp_path / "out.jsonl", reading=percent)
    np.testing.assert_allclose(logged.judge_score, np.arange(10) / 10)
    draws, _ = load_draws(tmp_path / "q.jsonl", "q", logged.prompt_id, reading=percent)
    assert set(draws.oracle_label.ravel()) == {0.2}
    beside, _ = load_calibration(tmp_path / "beside.jsonl", logged=tmp_path / "out.jsonl", reading=percent)
    assert beside.oracle_label.tolist() == [0.1]


@pytest.mark.parametrize("table", ["draws", "probes", "calibration"])
def test_a_label_of_nan_is_refused_in_draws_probes_and_calibration_data(write_rows, table):
    """JSON has no NaN, and in a frame its meaning is ambiguous: only null means unlabelled."""
    frame = pl.DataFrame([draw("a", oracle_label=math.nan)])
    with pytest.raises(UserError, match="row 0: oracle_label is NaN; write null where the value is missing"):
        if table == "draws":
            load_draws(frame, "q", ["a"])
        elif table == "probes":
            load_draws(write_rows(draw("a")), "q", ["a"], probes=frame)
        else:
            load_calibration(frame, logged=write_rows(logged_row("a")))


def test_rows_read_without_texts_have_the_same_numbers(write_rows):
    rows = [logged_row(f"p{k}", response="word " * k, metadata={"turn": k}) for k in range(3)]
    whole = read_responses(LOGGED, write_rows(*rows))
    numbers = read_responses(LOGGED, write_rows(*rows), texts=NO_TEXTS)
    some = read_responses(LOGGED, write_rows(*rows), texts={"p1"})
    assert [("response" in one.row, one.row["metadata"]) for one in some] == [
        (one.prompt_id == "p1", {"turn": k}) for k, one in enumerate(whole)
    ]
    assert [replace(one, row={}) for one in numbers] == [replace(one, row={}) for one in whole]
    assert [(one.n_words, one.n_characters) for one in numbers] == [(k, 5 * k) for k in range(3)]


def test_responses_of_one_prompt_are_compared_although_their_texts_are_not_kept(write_rows):
    twice = [logged_row(response="same"), logged_row(response="same")]
    other = [logged_row(response="one"), logged_row(response="other")]
    assert len(load_logged(write_rows(*other))[0].prompt_id) == 2
    with pytest.raises(UserError, match="appears again with the same response"):
        load_logged(write_rows(*twice))
