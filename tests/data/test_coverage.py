"""Labels are nested, evenly spread and chosen by a hash; a coverage has one spelling."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena_cje.data.coverage import GOLDEN, coverage_name, first_labels, has_label
from arena_cje.errors import UserError

COVERAGES = (0.001, 0.05, 0.1, 0.25, 1 / 3, 0.5, 0.9, 0.999)


def test_every_position_is_labelled_at_full_coverage():
    assert all(has_label(i, 1.0) for i in (*range(2000), 10**6, 10**12))


@given(st.integers(0, 10**9), st.floats(1e-6, 1.0), st.floats(1e-6, 1.0))
def test_a_larger_coverage_only_adds_labels(position, one, other):
    low, high = sorted((one, other))
    assert has_label(position, low) <= has_label(position, high)


@pytest.mark.parametrize("coverage", COVERAGES)
def test_the_number_of_labels_stays_within_five_of_its_share_up_to_a_million_rows(coverage):
    n = 1_000_000
    turned = np.arange(n, dtype=np.uint64) * np.uint64(GOLDEN)  # wraps at one whole turn, as has_label does
    labelled = turned < np.uint64(int(coverage * 2**64))
    assert [has_label(i, coverage) for i in range(500)] == labelled[:500].tolist()
    count = np.cumsum(labelled)
    assert np.abs(count - coverage * np.arange(1, n + 1)).max() < 5


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_first_draws_are_labelled_before_second_ones(draws):
    """And in the same order of prompts for every policy, so that labels of two policies lie on the same prompts."""
    n = 3000
    for coverage in (0.1, 0.25, 0.5, 1.0):
        labels = np.array([[has_label(i, coverage, draw=d, draws=draws) for d in range(draws)] for i in range(n)])
        assert abs(labels.sum() - coverage * n * draws) <= 5 * draws
        assert (labels[:, 1:] <= labels[:, :-1]).all()
        if coverage * draws <= 1:
            assert not labels[:, 1:].any()
        base = np.array([has_label(i, coverage) for i in range(n)])
        assert labels[base, 0].all()  # each labelled prompt of the base is one of the target


def test_a_larger_coverage_only_adds_labels_of_several_draws():
    for low, high in itertools.pairwise(COVERAGES):
        for i, d in itertools.product(range(200), range(3)):
            assert has_label(i, low, draw=d, draws=3) <= has_label(i, high, draw=d, draws=3)


def test_the_constant_golden_is_the_golden_ratio():
    assert pytest.approx((5**0.5 - 1) / 2, abs=1e-15) == GOLDEN / 2**64


def test_first_labels_have_the_requested_number_and_are_nested():
    names = [f"p{k}" for k in range(200)]
    labelled = np.arange(200) % 2 == 0
    choices = [first_labels(names, 42, c, labelled) for c in (0.05, 0.2, 0.4, 0.8)]
    assert [int(choice.mask.sum()) for choice in choices] == [10, 40, 80, 100]
    assert [(choice.requested, choice.available) for choice in choices] == [(10, 100), (40, 100), (80, 100), (160, 100)]
    for small, large in zip(choices, choices[1:], strict=False):
        assert not (small.mask & ~large.mask).any()
    assert not (choices[-1].mask & ~labelled).any()


def test_first_labels_depend_on_prompt_and_seed_and_not_on_row_order():
    names = [f"p{k}" for k in range(100)]
    labelled = np.ones(100, dtype=bool)
    mask = first_labels(names, 1, 0.3, labelled).mask
    backwards = first_labels(names[::-1], 1, 0.3, labelled).mask
    assert (mask == backwards[::-1]).all()
    assert (mask != first_labels(names, 2, 0.3, labelled).mask).any()


def test_the_first_label_of_each_prompt_comes_before_second_ones():
    names = [f"p{k // 3}" for k in range(90)]
    labelled = np.arange(90) % 3 > 0  # the first draw of a prompt has none: its second is its first label
    mask = first_labels(names, 1, 20 / 90, labelled, prompts_first=True).mask.reshape(30, 3)
    assert mask.sum(axis=0).tolist() == [0, 20, 0]
    one_draw = first_labels(names[::3], 1, 20 / 30, np.ones(30, dtype=bool)).mask
    assert (mask.any(axis=1) == one_draw).all()  # the prompts that another policy with one draw has labels on
    more = first_labels(names, 1, 40 / 90, labelled, prompts_first=True).mask.reshape(30, 3)
    assert more.sum(axis=0).tolist() == [0, 30, 10]
    assert (more | ~mask).all()


def test_no_labels_are_kept_at_coverage_zero():
    assert not first_labels(["a", "b"], 0, 0.0, np.array([True, True])).mask.any()


@pytest.mark.parametrize(
    ("coverage", "name"),
    [("0.1", "0.1"), (0.1, "0.1"), (1, "1.0"), (1.0, "1.0"), ("1.0", "1.0"), (1e-5, "0.00001"), (0.25, "0.25")],
)
def test_a_coverage_has_one_name_however_it_is_typed(coverage, name):
    assert coverage_name(coverage) == name


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("0.10", "0.1"), (".1", "0.1"), ("10%", "0.1"), ("1e-1", "0.1"), ("1", "1.0"), (" 0.5", "0.5"), ("100%", "1.0")],
)
def test_another_spelling_of_a_coverage_is_refused_with_the_correct_one(spelling, name):
    with pytest.raises(UserError, match=rf"write coverage_{name}$"):
        coverage_name(spelling)


@pytest.mark.parametrize("share", ["0", "1.5", "nan", "-0.1", "inf", "", "half", "150%", 0, 0.0, 2, float("nan"), True])
def test_a_coverage_outside_zero_to_one_is_refused(share):
    with pytest.raises(UserError, match=r"\(0, 1\]"):
        coverage_name(share)
