"""On a labelled sample of Arena prompts, in ARENA_SAMPLE_DIR, results agree with closed forms written out by hand."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import arena_cje
from arena_cje.estimation.calibration import isotonic

FOLDER = Path(os.environ.get("ARENA_SAMPLE_DIR", "."))
pytestmark = pytest.mark.skipif("ARENA_SAMPLE_DIR" not in os.environ, reason="ARENA_SAMPLE_DIR is not set")


@pytest.fixture(scope="module")
def rows():
    return [json.loads(line) for line in (FOLDER / "logged.jsonl").read_text().splitlines()]


def weights(rows, policy):
    ratio = np.array([row["target_policy_logprobs"][policy] - row["base_policy_logprob"] for row in rows])
    weight = np.exp(ratio - ratio.max())
    return weight / weight.mean()


def calibrator(rows):
    labelled = [row for row in rows if row.get("oracle_label") is not None]
    return isotonic(
        np.array([row["judge_score"] for row in labelled]), np.array([row["oracle_label"] for row in labelled])
    )


def scores(rows):
    return np.array([row["judge_score"] for row in rows])


def analyze(estimator, **options):
    return arena_cje.analyze(FOLDER / "logged.jsonl", FOLDER / "fresh_draws", estimator, **options)


def test_snips_is_the_weighted_mean_of_calibrated_scores(rows):
    result = analyze("snips")
    weight = weights(rows, "clone")
    assert result.document["metadata"]["n_samples"] == 1000
    assert result.summary("clone")["estimate"] == pytest.approx(np.mean(weight * calibrator(rows)(scores(rows))))
    share = 1 / np.mean(weight**2)
    assert share == pytest.approx(0.21, abs=0.01)
    assert result.document["metadata"]["diagnostics"]["clone"]["ess_raw"] == pytest.approx(share)


def test_direct_is_the_mean_calibrated_score_of_fresh_draws(rows):
    result = analyze("direct")
    for policy in result.policies:
        fresh = [json.loads(line) for line in (FOLDER / "fresh_draws" / f"{policy}.jsonl").read_text().splitlines()]
        assert result.summary(policy)["estimate"] == pytest.approx(calibrator(rows)(scores(fresh)).mean())


def test_the_base_value_is_the_mean_calibrated_score_and_near_the_mean_label(rows):
    base = analyze("calibrated-ips").summary("base")
    labels = [row["oracle_label"] for row in rows if row.get("oracle_label") is not None]
    assert base["estimate"] == pytest.approx(calibrator(rows)(scores(rows)).mean())
    assert abs(base["estimate"] - np.mean(labels)) < 2 * base["se"]


@pytest.mark.parametrize("estimator", ["snips", "raw-ips", "calibrated-ips"])
def test_the_unhelpful_policy_is_refused_by_its_raw_weights(estimator):
    result = analyze(estimator)
    refused = {reason.code for reason in result.verdicts["unhelpful"].reasons if reason.level == "refuse"}
    assert "low_ess" in refused
    assert np.isnan(result.estimates[result.policies.index("unhelpful")])


def test_coverage_masks_labels():
    few, many = analyze("calibrated-ips", oracle_coverage=0.05), analyze("calibrated-ips", oracle_coverage=0.4)
    for result, n_labels in ((few, 50), (many, 400)):
        assert result.document["metadata"]["n_oracle"] == result.document["calibration"]["n_labels"] == n_labels
    assert few.summary("clone")["estimate"] != many.summary("clone")["estimate"]
    assert few.summary("base")["se"] > many.summary("base")["se"]


@pytest.mark.parametrize("estimator", ["snips", "raw-ips", "calibrated-ips", "direct"])
def test_intervals_contain_their_estimates(estimator):
    result = analyze(estimator, oracle_coverage=0.25)
    for policy in ("base", *result.policies):
        summary = result.summary(policy)
        assert summary["ci_lower"] < summary["estimate"] < summary["ci_upper"]
