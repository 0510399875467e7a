"""A reading checks its arguments, maps the scale of the data to [0, 1] and back, and can be restored from a summary."""

import math

import pytest

from arena_cje.data import schemas
from arena_cje.data.reading import Reading
from arena_cje.errors import UserError


def test_the_default_leaves_numbers_as_they_are():
    reading = Reading()
    assert reading.score_field == "judge_score"
    assert reading.summary() == {}
    for value in (0, 1, 0.25, None):
        assert reading.unit_score(value) is reading.unit_label(value) is reading.data_score(value) is value


@pytest.mark.parametrize("scale", [(0, 100), (-1, 1), [1, 5]])
def test_a_scale_is_mapped_to_the_unit_interval_and_back(scale):
    reading = Reading(scale=scale)
    low, high = scale
    for unit in (0.0, 0.25, 1.0):
        value = low + unit * (high - low)
        assert reading.unit_score(value) == reading.unit_label(value) == pytest.approx(unit)
        assert reading.data_score(unit) == reading.data_label(unit) == pytest.approx(value)
    assert reading.unit_label(None) is None
    column = reading.bounded(schemas.DRAWS).columns["oracle_label"]
    assert (column.low, column.high) == tuple(scale)


@pytest.mark.parametrize("scale", [(1, 0), (0, 0), (0, math.inf), (0,), (0, 1, 2), ("0", "1")])
def test_a_scale_is_refused_unless_it_is_a_lowest_and_a_highest_number(scale):
    with pytest.raises(UserError, match=r"expected \[lowest, highest\]"):
        Reading(scale=scale)


def test_a_repeated_covariate_and_one_with_the_name_of_another_field_are_refused():
    assert Reading(["depth"]).covariates == ("depth",)
    with pytest.raises(UserError, match="covariates list 'depth' more than once"):
        Reading(("depth", "depth"))
    with pytest.raises(UserError, match="covariate 'oracle_label' is another field of the CJE format"):
        Reading(("oracle_label",))


def test_scores_of_a_further_judge_have_the_declared_scale():
    reading = Reading(scale=(0, 10), judge="b")
    assert reading.score_field == "judge_b"
    assert reading.bounded(schemas.LOGGED).columns["judge_b"].high == 10


def test_a_reading_is_restored_from_its_summary():
    reading = Reading(scale=(0, 10), judge="b")
    assert reading.summary() == {"judge_scale": [0, 10], "label_scale": [0, 10], "judge": "b"}
    assert Reading.from_summary(reading.summary() | {"base_policy": "base"}) == reading
    assert Reading(("depth",), (0, 10), "b").without_covariates() == reading
