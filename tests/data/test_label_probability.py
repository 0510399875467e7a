"""Known label probabilities in user data: they are read, checked, and masked together with their labels."""

from __future__ import annotations

import json

import numpy as np
import pytest

import arena_cje
from arena_cje.data.dataset import load_dataset, load_draws
from arena_cje.data.user_data import read_user_data
from arena_cje.errors import UserError

N = 60


def logged(**changes) -> list[dict]:
    """Rows with a label on every third; changes: fields of the first row."""
    rows = [
        {"prompt_id": f"q{i}", "judge_score": i % 10 / 10, "oracle_label": float(i % 10 > 4) if i % 3 == 0 else None}
        for i in range(N)
    ]
    for i, row in enumerate(rows):
        if row["oracle_label"] is not None:
            row["label_probability"] = 0.2 if i % 2 else 0.5
    rows[0] |= changes
    return rows


def draws(probability: float | None = None) -> list[dict]:
    own = [{"prompt_id": f"q{i}", "draw_idx": 0, "judge_score": i % 7 / 7, "oracle_label": i % 2} for i in range(N)]
    return [row | ({} if probability is None else {"label_probability": probability}) for row in own]


def test_label_probabilities_become_label_weights_of_mean_one():
    rows = load_dataset(logged()).logged
    weight = rows.label_weight
    assert weight[rows.labelled].mean() == pytest.approx(1) and (weight[~rows.labelled] == 0).all()
    assert weight[3] / weight[0] == pytest.approx(0.5 / 0.2)
    assert load_dataset([row | {"label_probability": 0.3} for row in logged()]).logged.label_weight is None
    own, _ = load_draws(draws(0.25), "other", [f"q{i}" for i in range(N)])
    assert own.label_probability.shape == (N, 1) and own.label_weight is None


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (0, "label_probability is 0, expected at least 1e-06; it is the known probability, above 0 and up to 1"),
        (-0.5, "label_probability is -0.5, expected at least 1e-06"),
        (1.5, "label_probability is 1.5, expected at most 1; it is the known probability"),
        (float("nan"), "label_probability is NaN; write null where the value is missing"),
        ("half", "label_probability is 'half', expected a number"),
        (
            None,
            r"row 0.*label_probability is missing or null on this labelled row \(and on 1 of 20 in total\), but present",
        ),
    ],
)
def test_a_wrong_label_probability_is_refused(value, sentence):
    with pytest.raises(UserError, match=sentence):
        load_dataset(logged(label_probability=value))


def test_a_label_probability_may_be_in_metadata_and_must_agree_with_the_top_level():
    rows = logged()
    moved = [
        {k: v for k, v in row.items() if k != "label_probability"}
        | {"metadata": {"label_probability": row.get("label_probability")}}
        for row in rows
    ]
    assert load_dataset(moved).logged.label_weight == pytest.approx(load_dataset(rows).logged.label_weight)
    with pytest.raises(UserError, match=r"label_probability is 0\.5 at the top level but 0\.1 under metadata"):
        load_dataset(logged(metadata={"label_probability": 0.1}))
    with pytest.raises(UserError, match=r"metadata\.label_probability is 2, expected at most 1"):
        load_dataset(logged(metadata={"label_probability": 2}))


def test_label_probabilities_of_probes_are_read_with_their_labels():
    unlabelled = [row | {"oracle_label": None} for row in draws()]
    probes = [row | {"label_probability": 0.1 if i < 20 else 0.4} for i, row in enumerate(draws())]
    own, _ = load_draws(unlabelled, "other", [f"q{i}" for i in range(N)], probes=probes)
    assert own.label_probability[:, 0] == pytest.approx([0.1] * 20 + [0.4] * (N - 20))
    half_labelled = [row | ({"oracle_label": None} if i % 2 else {}) for i, row in enumerate(draws())]
    with pytest.raises(UserError, match="label_probability is missing or null on this labelled row"):
        load_draws(half_labelled, "other", [f"q{i}" for i in range(N)], probes=probes[1::2])


def test_labels_that_stay_at_a_lower_coverage_keep_their_probabilities(tmp_path):
    path = tmp_path / "logged.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in logged()))
    (tmp_path / "draws").mkdir()
    (tmp_path / "draws" / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in draws(0.3)))
    data = read_user_data(path, tmp_path / "draws", 0.2, 0, 0.1)
    labelled_rows = [row for row in data.logged if row["oracle_label"] is not None]
    assert len(labelled_rows) == 12 and all(row["label_probability"] in (0.2, 0.5) for row in labelled_rows)
    assert sum(row["oracle_label"] is not None for row in data.fresh["other"]) == 6


def test_label_weights_correct_for_labels_chosen_by_their_value():
    """At equal scores, a label of 1 is four times as likely as a label of 0: the weighted mean is that of all rows."""
    rows = []
    for i in range(400):
        label = float(i % 2)
        is_labelled = label == 1 or i % 8 == 0  # every 1, and a quarter of the 0
        rows.append({"prompt_id": f"q{i}", "judge_score": 0.5, "oracle_label": label if is_labelled else None})
        rows[-1]["label_probability"] = 1.0 if label else 0.25
    other = [{"prompt_id": f"q{i}", "judge_score": 0.5} for i in range(400)]
    result = arena_cje.analyze(rows, {"other": other}, "direct", rewards="calibrated")
    plain = arena_cje.analyze(
        [{k: v for k, v in row.items() if k != "label_probability"} for row in rows], {"other": other}, "direct"
    )
    assert result.estimate("base").value == pytest.approx(0.5)
    assert plain.estimate("base").value == pytest.approx(0.8)
    assert np.isfinite(result.estimate("base").se)
