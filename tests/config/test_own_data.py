"""A configuration beside a user's own data: keys that the data cannot serve are refused, and missing parts are noted."""

from __future__ import annotations

import pytest

from arena_cje.config import own_data, parse
from arena_cje.data import convert
from arena_cje.data.preview import Preview
from arena_cje.errors import UserError
from workflow_run import CONFIG

DATA = Preview("base", ("clone", "shift"), ("clone",), has_labels=True, n_rows=200, n_labels=50)


def config(**keys):
    keys = {"logged_data": "mine.jsonl", "fresh_draws": "draws"} | keys
    return parse.parse(CONFIG | keys, user_keys=keys)


@pytest.mark.parametrize(
    ("keys", "changes", "sentence"),
    [
        ({"decision": {"against": "shft"}}, {}, r"`decision.against` is 'shft', .* \(did you mean 'shift'\?\)"),
        ({}, {"with_logprobs": ()}, "no row has target_policy_logprobs, needed by snips"),
        ({}, {"has_labels": False}, "no row has an oracle_label, needed to calibrate the judge for snips, direct"),
        (
            {},
            {"has_labels": False, "label_hint": " (did you mean 'x'?)"},
            r"an oracle_label \(did you mean 'x'\?\), needed",
        ),
    ],
)
def test_a_configuration_that_the_data_cannot_serve_is_refused(keys, changes, sentence):
    data = Preview(**vars(DATA) | changes)
    with pytest.raises(UserError, match=sentence):
        own_data.check(config(**keys), data, ["snips", "direct"])


def test_missing_columns_that_no_estimator_needs_are_not_refused():
    data = Preview(**vars(DATA) | {"with_logprobs": (), "has_labels": False})
    judged = config(variants={"judged": {"estimator": "direct", "rewards": "judge"}})
    own_data.check(judged, data, ["judged"])
    own_data.check(config(decision={"against": "clone"}), DATA, ["snips", "direct"])


def test_notes_name_what_the_data_lack_and_what_is_not_used():
    sentences = own_data.notes(config(), DATA, ["snips", "direct"], ["0.1", "0.5"], {"policies": {}})
    assert sentences == [
        "`policies` are not used beside `logged_data`; the policies are those of the data: base, clone, shift",
        "no fresh draws of shift, which estimators by draws therefore refuse",
        "mine.jsonl has labels on 50 of 200 rows, so that coverage 0.5 uses all of them, as coverage 0.25 would",
    ]
    assert own_data.notes(config(), DATA, ["snips"], ["0.1"], {}) == []


def test_several_columns_of_votes_may_be_a_list(tmp_path):
    file = tmp_path / "wide.csv"
    file.write_text("prompt,policy,response,judge_score,h1,h2\nhello,base,yes,0.5,0,1\n")
    foreign = {"format": "table", "file": str(file), "columns": {"oracle_label": ["h1", "h2"]}}
    data = config(logged_data=foreign, fresh_draws=None).logged_data
    choices = convert.Choices(**data.model_dump(exclude={"format", "file"}))
    (row,) = convert.convert(data.format, data.file, choices).logged
    assert row["oracle_label"] == 0.5
    with pytest.raises(UserError, match=r"logged_data.columns"):
        config(logged_data=foreign | {"columns": {"oracle_label": []}}, fresh_draws=None)


def test_a_note_names_the_estimators_that_are_left_out():
    alone = config(fresh_draws=None)
    (note,) = own_data.notes(
        alone, Preview(**vars(DATA) | {"with_draws": ()}), ["calibrated-ips", "snips"], ["0.1"], {}
    )
    assert note == "left out because there are no fresh draws: direct (fresh_draws=DIR)"
