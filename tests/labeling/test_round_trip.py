"""From tasks to labels and back with raters of known bias and noise: agreement is the closed form, labels recover the truth."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from arena_cje.labeling import agreement, labels, sentences, tasks, votes
from arena_cje.labeling.records import Scale
from labeling_study import make

SCALE = Scale(0, 1000)  # fine enough that rounding is no part of the closed forms
NOISE = 0.08
BIAS = {"ann": 0.06, "bob": 0.0, "cy": -0.06}


def expected(item: str) -> float:
    """The expected label of an item without bias, in [.3, .7], as a function of its id, which is as good as random."""
    return 0.3 + 0.4 * int(item[:8], 16) / 0xFFFFFFFF


def labels_of_filled_sheets(batch: tasks.Batch, bias: dict[str, float], tmp_path, seed: int = 1) -> labels.Labelled:
    """Labels of a batch whose tasks.csv each rater has filled in."""
    rng = np.random.default_rng(seed)
    item_of_copy = {row.copy_id: row.item_id for row in batch.key}
    ballot_rows = []
    for rater, shift in bias.items():
        rows = list(csv.DictReader(io.StringIO(tasks.tasks_csv(batch).decode(), newline="")))
        for row in rows:
            label = expected(item_of_copy.get(row["item_id"], row["item_id"])) + shift + rng.normal(0, NOISE)
            row["score"] = f"{round(1000 * min(1, max(0, label)))}"
        path = tmp_path / f"{rater}.csv"
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rng.permutation(np.array(rows, dtype=object)))
        ballot_rows += votes.read(path)
    return labels.make(votes.collect(ballot_rows, batch.key, SCALE, votes=len(bias)), SCALE)


@pytest.fixture(scope="module")
def batch() -> tasks.Batch:
    return make(n=800, limit=tasks.Limit(coverage=0.5))


def errors(labelled: labels.Labelled) -> np.ndarray:
    return np.array([row["label"] - expected(row["item_id"]) for row in labelled.rows])


def test_labels_recover_the_truth_within_their_error(batch, tmp_path):
    labelled = labels_of_filled_sheets(batch, dict.fromkeys(BIAS, 0.0), tmp_path)
    assert len(labelled.rows) == batch.n_items
    assert labelled.report["aggregation"]["model"] == "mean"
    error = errors(labelled)
    assert error.mean() == pytest.approx(0, abs=3 * NOISE / (3 * len(error)) ** 0.5)
    assert error.std() == pytest.approx(NOISE / 3**0.5, rel=0.06)


def test_raters_who_agree_by_chance_alone_are_reported(batch, tmp_path):
    report = labels_of_filled_sheets(batch, dict.fromkeys(BIAS, 0.0), tmp_path).report
    by_chance = report | {"alpha": dict.fromkeys(report["alpha"], -0.1)}
    for one, count in ((report, 0), (by_chance, 1)):
        lines = sentences.of_votes(one)
        assert sum(line.startswith("the raters agree no more than by chance") for line in lines) == count


def test_agreement_is_the_closed_form(batch, tmp_path):
    report = labels_of_filled_sheets(batch, dict.fromkeys(BIAS, 0.0), tmp_path).report
    between, within = 0.4**2 / 12, NOISE**2
    assert report["icc_1_1"] == pytest.approx(between / (between + within), abs=0.03)
    assert report["noise_share"] == pytest.approx(within / 3 / (between + within / 3), abs=0.02)
    # With interval distances alpha is the intraclass correlation, but for the number of votes.
    assert report["alpha"]["interval"] == pytest.approx(report["icc_1_1"], abs=0.005)
    for row in report["raters"]:
        # The mean absolute difference of two votes with this noise.
        assert row["self_difference"] == pytest.approx(2 * NOISE / np.pi**0.5, rel=0.2)
        assert row["odd"] == ""


def test_biases_of_raters_are_reported_and_removed_relative_to_the_panel_mean(batch, tmp_path):
    labelled = labels_of_filled_sheets(batch, BIAS, tmp_path)
    aggregation = labelled.report["aggregation"]
    assert aggregation["model"] == "two_way"
    assert aggregation["biases"] == pytest.approx(BIAS, abs=4 * NOISE / batch.n_items**0.5)
    assert aggregation["panel_error"] == pytest.approx(0.06 / 3**0.5, rel=0.1)
    assert errors(labelled).std() == pytest.approx(NOISE / 3**0.5, rel=0.06)
    rows = {row["annotator_id"]: row for row in labelled.report["raters"]}
    assert rows["ann"]["bias"] == pytest.approx(0.09, abs=0.01)  # against the mean of the other two


def test_two_batches_label_the_same_items_as_one_large_batch(tmp_path):
    first = make(n=400, limit=tasks.Limit(coverage=0.1))
    second = make("second", n=400, limit=tasks.Limit(coverage=0.2), earlier=first.key)
    whole = make("whole", n=400, limit=tasks.Limit(coverage=0.2))
    rows = [row["item_id"] for part in (first, second) for row in labels_of_filled_sheets(part, BIAS, tmp_path).rows]
    assert sorted(rows) == [row["item_id"] for row in labels_of_filled_sheets(whole, BIAS, tmp_path).rows]


def test_without_votes_there_are_no_labels_and_all_votes_are_open():
    labelled = labels.make(votes.collect([], make().key, SCALE, votes=3), SCALE)
    assert labelled.rows == ()
    assert labelled.report["n_votes"] == 0
    assert labelled.report["n_open"] == 3 * labelled.report["n_known"]


def test_one_vote_for_each_item_gives_no_measure_of_agreement(tmp_path):
    report = labels_of_filled_sheets(make(), {"ann": 0.0}, tmp_path).report
    assert report["alpha"] == dict.fromkeys(("nominal", "ordinal", "interval"))
    assert (report["icc_1_1"], report["noise_share"], report["further_votes"]) == (None, None, [])
    assert report["n_votes"] > agreement.MIN_VOTES
