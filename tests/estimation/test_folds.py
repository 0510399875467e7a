"""Folds belong to prompts: balanced, stable, independent of the order of rows."""

from __future__ import annotations

import numpy as np
import pytest

from arena_cje.estimation.folds import Prompts, affordable, clusters, deal

IDS = np.array([f"p{i}" for i in range(103)])
CHOSEN = np.arange(103) % 4 == 0  # 26 of them


def test_labelled_prompts_are_spread_evenly_over_the_folds():
    fold = deal(IDS, CHOSEN, 5, seed=42)
    sizes = np.bincount(fold[CHOSEN], minlength=5)
    assert sizes.max() - sizes.min() <= 1
    assert set(fold) == set(range(5))


def test_the_fold_of_a_prompt_is_its_rank_by_key_modulo_the_number_of_folds():
    prompts = Prompts.of(IDS, 42)
    key, fold = prompts.keys[prompts.code], deal(IDS, CHOSEN, 5, seed=42)
    ranked = np.flatnonzero(CHOSEN)[np.argsort(key[CHOSEN])]
    assert fold[ranked].tolist() == [rank % 5 for rank in range(len(ranked))]


def test_rows_of_a_prompt_share_its_fold():
    ids = np.repeat(IDS, 3)
    chosen = np.arange(len(ids)) % 7 == 0
    fold = deal(ids, chosen, 5, seed=1).reshape(-1, 3)
    assert (fold == fold[:, :1]).all()


def test_order_of_rows_and_type_of_array_do_not_matter():
    order = np.random.default_rng(0).permutation(len(IDS))
    expected = deal(IDS, CHOSEN, 5, seed=3)[order]
    assert (deal(IDS[order], CHOSEN[order], 5, seed=3) == expected).all()
    assert (deal(IDS[order].astype(object), CHOSEN[order], 5, seed=3) == expected).all()


def test_an_unlabelled_prompt_keeps_its_fold_when_other_prompts_are_removed():
    fold = deal(IDS, CHOSEN, 5, seed=42)
    keep = ~CHOSEN & (np.arange(103) < 60)
    assert (deal(IDS[keep], np.zeros(keep.sum(), bool), 5, seed=42) == fold[keep]).all()


def test_folds_change_with_the_seed():
    """The user's seed sets the folds (trap T40)."""
    assert (deal(IDS, CHOSEN, 5, seed=1) != deal(IDS, CHOSEN, 5, seed=2)).any()


@pytest.mark.parametrize(("prompts", "folds"), [(4, 2), (5, 2), (6, 3), (9, 4), (10, 5), (39, 5), (1000, 5)])
def test_few_labelled_prompts_allow_fewer_folds(prompts, folds):
    assert affordable(5, prompts) == folds


def test_another_salt_gives_other_folds_that_are_as_even():
    """Models that are fitted to logged rows must not share the folds of the oracle slice."""
    prompts = Prompts.of(IDS, 42)
    one, other = (prompts.deal(CHOSEN, 5, salt=salt) for salt in (0, 2))
    assert 0.6 < np.mean(one != other) < 1
    sizes = np.bincount(other[CHOSEN], minlength=5)
    assert sizes.max() - sizes.min() <= 1


def test_a_prompt_has_the_same_key_in_every_table():
    whole, part = Prompts.of(IDS, 7), Prompts.of(IDS[40:], 7)
    assert (part.keys[part.code] == whole.keys[whole.code][40:]).all()
    assert len(set(whole.keys.tolist())) == len(IDS)


def test_clusters_are_prompts():
    assert clusters(np.array(["b", "a", "b"])).tolist() == [1, 0, 1]
