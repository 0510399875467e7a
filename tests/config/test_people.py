"""The configuration of people as the oracle: valid ones, and the one-sentence error of others."""

from __future__ import annotations

import re

import pytest
import yaml

from arena_cje.config import parse, targets
from arena_cje.errors import UserError
from workflow_run import ROOT

SHIPPED = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
PAGE = (ROOT / "docs" / "labeling.md").read_text()
PEOPLE = {"oracle": {"provider": "human"}, "labeling": {"batches": {"first": {"coverage": 0.1}}}}


def configuration(changes: dict) -> dict:
    """The shipped configuration with people as its oracle, and some blocks changed key by key."""
    merged = dict(SHIPPED)
    for own in (PEOPLE, changes):
        merged |= {name: {**(merged.get(name) or {}), **block} for name, block in own.items()}
    return merged


def test_people_label_the_base_and_a_share_of_the_targets():
    config = parse.parse(configuration({}))
    assert config.human_shares == {"base": 1.0}
    assert config.oracle.truth_coverage is None
    with_target_labels = parse.parse(configuration({"oracle": {"target_labels": 0.2}}))
    assert with_target_labels.human_shares == {"base": 1.0} | dict.fromkeys(with_target_labels.targets, 0.2)
    assert not with_target_labels.oracle.hosted


def test_labels_above_the_highest_coverage_of_estimates_are_for_validation():
    """A quarter of the labelled prompts calibrates, three quarters validate: the split of the field guide."""
    batches = {"first": {"coverage": 0.05}, "rest": {"coverage": 0.2}}
    changes = {"oracle": {"truth": 0.2, "target_labels": 0.01}, "labeling": {"batches": batches}}
    config = parse.parse(configuration(changes) | {"coverages": ["0.02", "0.05"]})
    assert config.validation_span == (0.05, 0.2)
    assert parse.parse(configuration({})).validation_span is None
    targets.check(["results/oracle/base/validation.jsonl", "results/coverage_0.05/validation.csv"], config)
    with pytest.raises(UserError, match="people's labels above coverage 0.05 are for validation"):
        targets.check(["results/coverage_0.1/direct.json"], config)
    with pytest.raises(UserError, match="there is no such target"):
        targets.check(["results/oracle/base/validation.jsonl"], parse.parse(configuration({})))


def test_targets_without_labels_for_estimates_are_labelled_for_validation():
    batches = {"all": {"coverage": 1.0}}
    changes = configuration({"oracle": {"truth": "all"}, "labeling": {"batches": batches}})
    config = parse.parse(changes | {"coverages": ["0.25"]})
    assert config.human_shares == {"base": 1.0} | dict.fromkeys(config.targets, 0.0)
    with pytest.raises(UserError, match="`oracle.truth` needs labels beyond 0.25 of the prompts, .* ends at 0.25"):
        parse.parse(changes | {"coverages": ["0.25"], "labeling": {"batches": {"a": {"coverage": 0.25}}}})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labeling": {"batches": {}}}, "`oracle.provider` is 'human' and `labeling.batches` is empty; name a batch"),
        ({"labeling": {"batches": {"a": {}}}}, "`labeling.batches.a`: give exactly one of `coverage`, `labels` and `usd`"),
        ({"labeling": {"batches": {"a": {"labels": 9, "usd": 3}}}}, "give exactly one of"),
        ({"labeling": {"batches": {"a": {"usd": 3}}}}, "`labeling.batches.a.usd` needs the price of a vote"),
        ({"labeling": {"scale": [5, 1]}}, r"`labeling.scale` is \[5, 1\] with `step` 1, expected a scale"),
        ({"labeling": {"scale": [0, 1], "step": 0.3}}, "expected a scale that is a whole number of steps"),
        ({"labeling": {"vote_per_item": 3}}, r"unknown key `labeling.vote_per_item` \(did you mean 'votes_per_item'\?\)"),
        ({"labeling": {"duplicates": 0.9}}, "`labeling.duplicates`: input should be less than or equal to 0.5"),
        ({"oracle": {"truth": 0.1}}, r"`oracle.truth` is 0.1, but the labels on up to 1 .* set smaller `coverages`"),
        ({"oracle": {"votes": ["a.csv"]}, "labeling": {"batches": {}}}, "`oracle.votes` is set without `labeling.batches`"),
        ({"judge": {"provider": "human"}}, "`judge.provider` is 'human', .*; only the oracle may be `human`"),
        ({"providers": {"human": {}}}, "`providers.human` has a name that is reserved for a provider without an API"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_of_people_as_the_oracle_is_refused_with_one_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        parse.parse(configuration(changes))


def test_files_of_labelling_batches_are_targets_and_those_of_unknown_batches_are_not():
    config = parse.parse(configuration({}))
    targets.check(["results/labeling/first/label.html", "results/labeling/agreement.json"], config)
    with pytest.raises(UserError, match=r"did you mean 'results/labeling/first/label.html'"):
        targets.check(["results/labeling/firts/label.html"], config)
    with pytest.raises(UserError, match="there is no such target"):
        targets.check(["results/labeling/first/label.html"], parse.parse(SHIPPED))
    with pytest.raises(UserError, match="with `logged_data` it generates none; label the responses in your own files"):
        targets.check(["results/labeling/first/label.html"], parse.parse({"logged_data": "mine.jsonl"}))


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_configurations_on_the_labeling_page_are_valid(block):
    changes = yaml.safe_load(block)
    coverages = {"coverages": changes.pop("coverages", SHIPPED["coverages"])}
    config = parse.parse(configuration(changes) | coverages)
    assert config.labeling.batches
    assert config.validation_span == ((0.05, 0.2) if "truth" in changes.get("oracle", {}) else None)


def test_the_shipped_study_with_human_labels_is_valid():
    study = yaml.safe_load((ROOT / "config" / "experiments" / "human-oracle.yaml").read_text())
    fireworks = {**SHIPPED["providers"]["fireworks"], **study["providers"]["fireworks"]}
    merged = {**SHIPPED, **study, "providers": {**SHIPPED["providers"], "fireworks": fireworks}}
    config = parse.parse(merged, user_keys=study)
    assert config.targets == ("hot", "cot", "concise")
    assert [config.policies[name].temperature for name in ("base", "hot", "cot", "concise")] == [0.5, 0.9, 0.5, 0.3]
    assert list(config.labeling.batches) == ["pilot", "main"]
    assert config.labeling.votes_per_item == 3
