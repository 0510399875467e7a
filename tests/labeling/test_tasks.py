"""Blind tasks: only their texts distinguish policies, batches grow, and the cost is known before any money is spent."""

from __future__ import annotations

import csv
import io
import json
import stat
from collections import Counter

import numpy as np
import pytest

from arena_cje.data.coverage import entry, has_label
from arena_cje.errors import UserError
from arena_cje.labeling import cells, tasks
from labeling_study import POLICIES, SECRET, TERMS, answers, make


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_a_batch_is_the_oracle_slice_of_every_policy():
    batch = make(limit=tasks.Limit(coverage=0.2))
    expected = {(f"q{i}", policy) for i in range(200) for policy in POLICIES if has_label(i, 0.2)}
    assert {(row.prompt_id, row.policy) for row in batch.key} == expected
    n_prompts = len(expected) / len(POLICIES)
    assert {row.inclusion_probability for row in batch.key} == {n_prompts / 200}


def test_targets_are_labelled_on_a_share_of_the_same_prompts():
    batch = make(limit=tasks.Limit(coverage=0.2), shares={"base": 1.0, "other": 0.05})
    prompts = {policy: {row.prompt_id for row in batch.key if row.policy == policy} for policy in POLICIES}
    assert prompts["other"] == {f"q{i}" for i in range(200) if has_label(i, 0.05)} < prompts["base"]
    assert prompts["clone"] == set()
    assert {row.inclusion_probability for row in batch.key if row.policy == "other"} == {0.05}


def test_equal_texts_are_one_item_of_all_their_policies():
    batch = make(limit=tasks.Limit(coverage=1.0))
    owners = {}
    for row in batch.key:
        owners.setdefault(row.item_id, set()).add(row.policy)
    assert Counter(map(frozenset, owners.values())) == {
        frozenset({"base", "clone"}): 50,
        frozenset({"base"}): 150,
        frozenset({"clone"}): 150,
        frozenset({"other"}): 200,
    }
    assert batch.n_items == 550


def test_a_second_batch_has_only_items_that_the_first_lacks():
    first = make(limit=tasks.Limit(coverage=0.1))
    second = make("second", limit=tasks.Limit(coverage=0.2), earlier=first.key)
    whole = make("whole", limit=tasks.Limit(coverage=0.2))
    item_ids = [{row.item_id for row in batch.key} for batch in (first, second, whole)]
    assert item_ids[0] | item_ids[1] == item_ids[2]
    assert not item_ids[0] & item_ids[1]
    assert second.coverage == whole.coverage


def test_a_policy_that_joins_later_is_labelled_where_its_text_is_new():
    first = make(policies=("base",))
    second = make("second", earlier=first.key)
    assert {row.policy for row in second.key} == {"clone", "other"}
    task_ids = {task.item_id for task in second.tasks}
    shared_ids = {row.item_id for row in second.key} & {row.item_id for row in first.key}
    assert shared_ids
    assert not shared_ids & task_ids


@pytest.mark.parametrize("limit", [tasks.Limit(labels=200), tasks.Limit(usd=16.0)])
def test_a_budget_is_spent_on_whole_prompts_and_never_exceeded(limit):
    batch = make(limit=limit)
    assert batch.n_votes <= 200
    assert batch.n_votes > 200 - 3 * 3 * 2  # another prompt has at most three texts
    assert batch.usd == pytest.approx(0.08 * batch.n_votes)
    assert batch.n_votes == 3 * len(batch.tasks)
    prompts = Counter(row.prompt_id for row in batch.key)
    assert set(prompts.values()) == {3}
    assert set(prompts) == {f"q{i}" for i in sorted(range(200), key=entry)[: len(prompts)]}
    assert batch.coverage == len(prompts) / 200


def test_a_batch_limited_by_money_needs_the_price_of_a_vote():
    with pytest.raises(UserError, match="the price of a vote is unknown; set `price`"):
        make(limit=tasks.Limit(usd=5.0), terms=tasks.Terms(price=None))


@pytest.mark.parametrize("limit", [{}, {"labels": 3, "usd": 2.0}])
def test_a_batch_without_a_limit_or_with_two_is_refused(limit):
    with pytest.raises(UserError, match="exactly one of"):
        tasks.Limit(**limit)


def test_the_cost_of_18_items_is_the_price_of_54_votes():
    # 18 items, 3 votes, 0.08 dollars each: 4.32 dollars for 54 votes.
    assert tasks.Terms(votes=3, price=0.08, duplicates=0).cost(18) == (54, pytest.approx(4.32))


def test_repeated_items_come_at_least_a_third_of_the_list_later_with_the_same_texts():
    batch = make(limit=tasks.Limit(coverage=1.0))
    places = {task.item_id: place for place, task in enumerate(batch.tasks)}
    copy_of = {row.item_id: row.copy_id for row in batch.key if row.repeated}
    assert len(copy_of) == TERMS.n_copies(batch.n_items) == 55
    assert len(places) == len(batch.tasks) == batch.n_items + 55
    distance = [places[copy] - places[item] for item, copy in copy_of.items()]
    assert min(distance) > len(batch.tasks) / 3
    texts = {task.item_id: (task.prompt, task.response) for task in batch.tasks}
    assert all(texts[item] == texts[copy] for item, copy in copy_of.items())


def test_every_hundred_tasks_have_about_the_same_share_of_each_policy():
    batch = make(n=400, limit=tasks.Limit(coverage=1.0), terms=tasks.Terms(duplicates=0))
    policy = {row.item_id: row.policy for row in reversed(batch.key)}
    share = Counter(policy[task.item_id] for task in batch.tasks)
    for start in range(0, len(batch.tasks) - 100, 100):
        stretch = Counter(policy[task.item_id] for task in batch.tasks[start : start + 100])
        for name in POLICIES:
            assert abs(stretch[name] - 100 * share[name] / len(batch.tasks)) <= 4


def test_ids_and_positions_of_tasks_do_not_reveal_the_policy():
    batch = make(n=2000, limit=tasks.Limit(coverage=1.0), terms=tasks.Terms(duplicates=0))
    rows, policy = rows_of(tasks.tasks_csv(batch)), {row.item_id: row.policy for row in reversed(batch.key)}
    assert list(rows[0]) == ["item_id", "batch", "position", "prompt", "response", "score", "comment"]
    is_other = np.array([policy[row["item_id"]] == "other" for row in rows])
    ids = np.array([[int(digit, 16) for digit in row["item_id"]] for row in rows])
    clues = np.column_stack([ids, np.arange(len(rows)) % 2, np.arange(len(rows)) % 3, np.arange(len(rows))])
    for clue in clues.T:
        z = (clue[is_other].mean() - clue[~is_other].mean()) / np.sqrt(
            clue[is_other].var() / is_other.sum() + clue[~is_other].var() / (~is_other).sum()
        )
        assert abs(z) < 4  # 23 clues
    assert {(row["batch"], row["score"], row["comment"]) for row in rows} == {("first", "", "")}
    assert [int(row["position"]) for row in rows] == list(range(1, len(rows) + 1))


def test_files_for_platforms_contain_only_what_raters_may_see():
    batch = make()
    assert {frozenset(task["data"]) for task in tasks.label_studio(batch)} == {
        frozenset({"item_id", "batch", "prompt", "response"})
    }
    assert list(rows_of(tasks.mturk_csv(batch))[0]) == ["item_id", "batch", "prompt", "response"]
    for content in (tasks.tasks_csv(batch), json.dumps(tasks.label_studio(batch)).encode(), tasks.mturk_csv(batch)):
        for word in (b"base", b"clone", b"other", b"policy", b"q0"):
            assert word not in content


def test_item_ids_depend_on_the_secret_and_are_reproducible():
    ids = [[task.item_id for task in make(secret=secret).tasks] for secret in (SECRET, SECRET, b"x" * 32)]
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])


def test_a_study_has_one_secret_file_that_only_its_owner_can_read(tmp_path):
    path = tmp_path / "secret.key"
    secret = tasks.study_secret(path)
    assert len(secret) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert tasks.study_secret(path) == secret
    assert [file.name for file in tmp_path.iterdir()] == ["secret.key"]
    path.write_bytes(b"")
    with pytest.raises(UserError, match="is not the secret file of this labelling study"):
        tasks.study_secret(path)


def test_the_key_is_unchanged_after_writing_and_reading(tmp_path):
    batch = make()
    path = tmp_path / "key.csv"
    cells.write_private(path, tasks.key_csv(batch))
    assert tuple(tasks.read_key([path])) == batch.key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_texts_that_spreadsheets_read_as_formulas_are_escaped_and_read_back(tmp_path):
    harmful = [
        "=1+1",
        "@SUM(A1)",
        "-2 apples",
        "+cmd|' /C calc'!A0",
        " =x",
        "'quoted'",
        "'=y",
        "\t=z",
        "a\r\nb",
        'say "hi", ok; no',
        "né 名前",
        "nul\0 sign",
    ]
    batch = tasks.make(
        [tasks.Answer(i, f"q{i}", text, text, "base") for i, text in enumerate(harmful)],
        name="odd", limit=tasks.Limit(coverage=1.0), terms=tasks.Terms(duplicates=0), n_prompts=len(harmful), seed=1,
        secret=SECRET, shares={"base": 1.0},
    )  # fmt: skip
    for mark in (False, True):
        content = tasks.tasks_csv(batch, byte_order_mark=mark)
        assert content.startswith(b"\xef\xbb\xbf") == mark
        for row in rows_of(content):
            assert row["response"][0] not in "=+-@\t\r" and not row["response"].lstrip().startswith("=")
        path = tmp_path / "tasks.csv"
        path.write_bytes(content)
        key = {row.item_id: row.text_id for row in batch.key}
        read_rows = [row for _, row in cells.read_csv(path)]
        assert sorted(row["response"] for row in read_rows) == sorted(text.replace("\0", "\ufffd") for text in harmful)
        assert all(tasks.text_id(row["prompt"], row["response"]) == key[row["item_id"]] for row in read_rows)


def test_more_prompts_leave_item_ids_unchanged(tmp_path):
    small, large = make(n=200), make(n=400)
    assert {row.item_id for row in small.key} < {row.item_id for row in large.key}


def test_draws_beyond_the_first_are_not_labelled():
    more = [*answers(20), *(tasks.Answer(i, f"q{i}", "?", "again", "other", 1) for i in range(20))]
    batch = tasks.make(
        more, name="a", limit=tasks.Limit(coverage=1.0), terms=TERMS, n_prompts=20, seed=1, secret=SECRET,
        shares=dict.fromkeys(POLICIES, 1.0),
    )  # fmt: skip
    assert {row.draw_idx for row in batch.key} == {0}


def test_prompts_for_validation_have_the_responses_of_all_policies():
    """Labels of the targets enter estimates on a twentieth of the prompts; those between a tenth and two fifths validate."""
    shares = {"base": 1.0, "clone": 0.05, "other": 0.0}
    batch = make(limit=tasks.Limit(coverage=0.3), shares=shares, validation=(0.1, 0.4))
    places = {policy: {int(row.prompt_id[1:]) for row in batch.key if row.policy == policy} for policy in POLICIES}
    labelled_places = {coverage: {i for i in range(200) if has_label(i, coverage)} for coverage in (0.05, 0.1, 0.3)}
    validation = labelled_places[0.3] - labelled_places[0.1]
    assert places == {"base": labelled_places[0.3], "clone": labelled_places[0.05] | validation, "other": validation}
    probability = {row.policy: row.inclusion_probability for row in batch.key}
    assert probability == {"base": 0.3, "clone": pytest.approx(0.25), "other": pytest.approx(0.2)}


def test_validation_that_is_added_later_leaves_the_first_batch_unchanged():
    """The first batch is the same without the split, so that its labels stay of use when validation is added later."""
    shares = {"base": 1.0, "other": 0.05}
    before = make(shares=shares)
    after = make(shares=shares, validation=(0.1, 0.4))
    assert [task.item_id for task in after.tasks] == [task.item_id for task in before.tasks]
    more = make("more", limit=tasks.Limit(coverage=0.2), shares=shares, validation=(0.1, 0.4), earlier=before.key)
    assert not {task.item_id for task in more.tasks} & {task.item_id for task in before.tasks}
    assert {row.policy for row in more.key} == {"base", "other"}
