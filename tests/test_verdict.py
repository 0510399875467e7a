"""Every line of the verdict, on the side where it speaks and on the side where it is silent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arena_cje import estimators
from arena_cje.diagnostics import overlap, verdict
from arena_cje.diagnostics.calibration import CalibrationDiagnostics
from arena_cje.diagnostics.overlap import Overlap, describe
from arena_cje.diagnostics.support import Support, boundary_card, effective_labels
from arena_cje.diagnostics.verdict import Thresholds
from arena_cje.estimation.calibration import isotonic
from arena_cje.estimation.estimate import Options, evaluate
from arena_cje.estimation.records import Draws, Estimate, Reason, Verdict, Weights
from arena_cje.estimation.weights import hajek
from arena_cje.simulate import draw
from worlds import UNHELPFUL, healthy, take, take_draws

T = Thresholds()
GOOD_OVERLAP = Overlap(describe(np.ones(100)), describe(np.ones(100)), 1.0, 0.0, 0.0)
GOOD_SUPPORT = Support(0.0, 0.9, 90.0)
GOOD_CALIBRATION = CalibrationDiagnostics(100, 5, 0, 1, 0, 1, 0.1, 0.02, 0.8, 0.7, 0.01, ())


def judged(name, logged, draws):
    found = evaluate(name, logged, draws, Options())
    return verdict.judge(estimators.get(name), found, logged, draws, T), found


def levels(reasons: tuple[Reason, ...]) -> dict[str, str]:
    return {reason.code: reason.level for reason in reasons}


def test_the_worst_reason_gives_the_level():
    reasons = (Reason("a", "A."), Reason("b", "B.", "refuse"), Reason("c", "C.", "caution"))
    assert Verdict(reasons).level == "refuse" and not Verdict(reasons).ok
    assert Verdict().level == Verdict(reasons[:1]).level == "ok"


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, {}),
        ({"ess_share": 0.30}, {}),
        ({"ess_share": 0.29}, {"low_ess": "caution"}),
        ({"ess_share": 0.10}, {"low_ess": "caution"}),
        ({"ess_share": 0.09}, {"low_ess": "refuse"}),
        ({"near_zero_share": 0.85}, {}),
        ({"near_zero_share": 0.86}, {"near_zero_weights": "refuse"}),
        ({"tail_index": 1.0}, {}),
        ({"tail_index": 0.99}, {"heavy_tail": "caution"}),
        ({"tail_index": float("nan")}, {}),
        ({"top5_mass": 0.31, "cv": 2.0}, {}),
        ({"top5_mass": 0.30, "cv": 2.1}, {}),
        ({"top5_mass": 0.31, "cv": 2.1}, {"concentrated_weights": "caution"}),
    ],
)
def test_lines_about_raw_weights(figures, expected):
    found = replace(GOOD_OVERLAP, raw=replace(GOOD_OVERLAP.raw, **figures))
    assert levels(verdict.overlap_reasons(found, T)) == expected
    stabilised = replace(GOOD_OVERLAP, stabilised=replace(GOOD_OVERLAP.raw, **figures))
    assert verdict.overlap_reasons(stabilised, T) == ()


@pytest.mark.parametrize(("z", "expected"), [(4.0, {}), (4.1, {"mean_weight_off": "caution"}), (-4.1, None)])
def test_line_about_the_mean_weight(z, expected):
    found = levels(verdict.overlap_reasons(replace(GOOD_OVERLAP, mean_weight_z=z), T))
    assert found == ({"mean_weight_off": "caution"} if expected is None else expected)


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    [
        (0.5, 30, {}),
        (0.49, 30, {"unsupported_labels": "caution"}),
        (0.25, 30, {"unsupported_labels": "caution"}),
        (0.24, 30, {"unsupported_labels": "refuse"}),
        (0.9, 29, {"few_effective_labels": "caution"}),
        (0.9, 9.9, {"few_effective_labels": "refuse"}),
        (float("nan"), float("nan"), {"unsupported_labels": "caution", "few_effective_labels": "caution"}),
    ],
)
def test_lines_about_support(share, count, expected):
    assert levels(verdict.support_reasons(Support(0.0, share, count), T)) == expected


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, {}),
        ({"n_labels": 30}, {}),
        ({"n_labels": 29}, {"few_labels": "caution"}),
        ({"n_labels": 9}, {"few_labels": "refuse"}),
        ({"spearman": 0.3}, {}),
        ({"spearman": 0.29}, {"weak_judge": "caution"}),
        ({"spearman": float("nan")}, {"weak_judge": "caution"}),
        ({"reasons": (Reason("inverted_judge", ".", "caution"),)}, {"inverted_judge": "caution"}),
    ],
)
def test_lines_about_labels_and_judge(figures, expected):
    assert levels(verdict.calibration_reasons(replace(GOOD_CALIBRATION, **figures), T)) == expected


def test_thresholds_can_be_moved():
    strict = Thresholds(ess_caution=1.1)
    assert levels(verdict.overlap_reasons(GOOD_OVERLAP, strict)) == {"low_ess": "caution"}


@pytest.mark.parametrize("name", estimators.NAMES)
def test_a_healthy_world_is_published_with_transport_unverified(name):
    logged, draws, _ = healthy(n=1000)
    found, _ = judged(name, logged, draws)
    assert tuple(found) == logged.policies
    assert found["better"].level == "ok"
    assert levels(found["better"].reasons) == {"transport_unverified": "ok"}
    # The clone's weighted responses are the base's own, its fresh draws are not.
    assert levels(found["clone"].reasons) == ({"transport_unverified": "ok"} if name == "direct" else {})


@pytest.mark.parametrize("name", estimators.NAMES)
def test_an_unhelpful_policy_is_refused_although_no_label_lies_out_of_range(name):
    """Its responses are the base's worst: what little data there is near them must not be published as its value."""
    logged, draws, values = draw(UNHELPFUL, 1000, seed=0)
    found, evaluation = judged(name, logged, draws)
    assert found["unhelpful"].level == "refuse"
    codes = levels(found["unhelpful"].reasons)
    assert codes["unsupported_labels"] == "refuse"
    if name != "direct":
        assert codes["low_ess"] == "refuse"
    if name == "calibrated-ips":
        raw, stabilised = evaluation.weights["unhelpful"].raw, evaluation.weights["unhelpful"].stabilised
        assert overlap.ess_share(raw) < 0.02 and overlap.ess_share(stabilised) > 0.49
        assert abs(evaluation.estimates["unhelpful"].value - values["unhelpful"]) > 0.1


def test_style_alone_costs_overlap_and_not_support():
    logged, draws, _ = healthy(n=1000)
    stretched = replace(logged, log_ratio=np.where(logged.log_ratio == 0, 0, 8 * logged.log_ratio))
    weighted, _ = judged("snips", stretched, draws)
    direct, _ = judged("direct", stretched, draws)
    assert weighted["better"].level == "refuse"
    assert direct["better"].level == "ok"


def test_no_overlap_and_no_rows_are_refused_with_their_own_reason():
    logged, draws, _ = healthy()
    log_ratio = logged.log_ratio.copy()
    log_ratio[:, 0], log_ratio[:, 1], log_ratio[:7, 2] = -np.inf, np.nan, np.nan
    found, _ = judged("snips", replace(logged, log_ratio=log_ratio), draws)
    assert levels(found["better"].reasons)["no_overlap"] == "refuse"
    assert levels(found["clone"].reasons)["no_rows"] == "refuse"
    assert levels(found["worse"].reasons)["rows_left_out"] == "ok"
    assert "7 of 400 rows" in found["worse"].reasons[0].sentence


def test_a_single_usable_row_is_refused():
    logged, draws, _ = healthy()
    log_ratio = logged.log_ratio.copy()
    log_ratio[1:, 0] = np.nan
    found, evaluation = judged("snips", replace(logged, log_ratio=log_ratio), draws)
    assert np.isfinite(evaluation.estimates["better"].value)
    assert levels(found["better"].reasons)["too_few_rows"] == "refuse"


def test_rows_of_a_single_prompt_are_refused():
    logged, draws, _ = healthy()
    rows = np.append(np.arange(400), [0, 0])
    logged, draws = take(logged, rows), take_draws(draws, rows)
    log_ratio = logged.log_ratio.copy()
    log_ratio[1:400, 0] = np.nan
    found, evaluation = judged("snips", replace(logged, log_ratio=log_ratio), draws)
    assert evaluation.n_used["better"] == 3
    assert "there are 3 of one prompt" in found["better"].reasons[0].sentence
    assert levels(found["better"].reasons)["too_few_rows"] == "refuse"


def test_the_base_policy_answers_for_labels_and_judge_alone():
    logged, draws, _ = healthy(n=60, coverage=0.1)
    _, evaluation = judged("snips", logged, draws)
    found = verdict.judge_base(evaluation, logged, T)
    assert found.level == "refuse" and levels(found.reasons)["few_labels"] == "refuse"
    logged, draws, _ = healthy()
    _, evaluation = judged("snips", logged, draws)
    assert verdict.judge_base(evaluation, logged, T).reasons == ()


def test_the_base_policy_is_refused_where_labels_were_chosen_by_score():
    """Labels on the best tenth alone: nine tenths of the base's own responses have none near them."""
    logged, draws, _ = healthy(n=1000, coverage=1.0)
    best = logged.judge_score > np.quantile(logged.judge_score, 0.9)
    chosen = replace(logged, oracle_label=np.where(best, logged.oracle_label, np.nan))
    _, evaluation = judged("snips", chosen, draws)
    found = verdict.judge_base(evaluation, chosen, T)
    assert levels(found.reasons)["unsupported_labels"] == "refuse"
    assert verdict.base_support(evaluation, chosen).unsupported > 0.6


def test_the_base_policys_prompts_count_once_however_many_rows_they_have():
    logged, draws, _ = healthy(n=200)
    rows = np.append(np.arange(200), np.full(500, 7))
    repeated = take(logged, rows)
    _, once = judged("snips", logged, draws)
    _, often = judged("snips", repeated, take_draws(draws, rows))
    often = replace(often, calibration=once.calibration)
    expected = verdict.base_support(once, logged)
    assert verdict.base_support(often, repeated).share == pytest.approx(expected.share)


def test_directs_support_counts_prompts_not_draws():
    """One prompt with fifty draws where no label lies is one prompt in four hundred."""
    logged, draws, _ = healthy()
    label = np.where(logged.judge_score > 0.2, logged.oracle_label, np.nan)
    logged = replace(logged, oracle_label=label)
    score = np.full((400, 50), np.nan)
    score[:, 0] = 0.5 + logged.judge_score / 2
    score[0] = 0.0
    unequal = draws | {"better": Draws("better", score, np.full(score.shape, np.nan))}
    _, evaluation = judged("direct", logged, unequal)
    found = verdict.target_support(estimators.get("direct"), evaluation, logged, unequal, "better")
    assert found.unsupported == pytest.approx(1 / 400)


@pytest.mark.parametrize(
    ("needs", "log_ratio", "said"),
    [
        (("log_ratio",), [0.0, 0.0, 0.0], False),
        (("log_ratio",), [0.0, 0.0, 1e-9], True),
        (("log_ratio",), [0.0, 0.0, np.nan], True),
        (("log_ratio",), [np.nan] * 3, True),
        (("fresh_score",), [0.0, 0.0, 0.0], True),
        (("log_ratio", "fresh_score"), [0.0, 0.0, 0.0], True),
    ],
)
def test_transport_is_open_unless_every_response_is_known_to_be_the_bases_own(needs, log_ratio, said):
    assert bool(verdict.transport_reasons(needs, np.array(log_ratio))) == said


@pytest.mark.parametrize(("bias", "level"), [(0.0, None), (0.024, "ok"), (-0.024, "ok"), (-0.026, "caution")])
def test_line_about_capped_weights(bias, level):
    logged, draws, _ = healthy()
    _, evaluation = judged("calibrated-ips", logged, draws)
    influence = np.resize([2.0, -2.0], 400) * np.sqrt(399 / 400)  # standard error .1
    estimate = Estimate(0.5, influence, np.arange(400), np.empty(0), np.ones(400, bool), bias)
    found = verdict.cap_reasons(estimate, T)
    assert levels(found) == ({} if level is None else {"variance_capped": level})
    assert all(f"by {bias:+.3f}" in reason.sentence and "is 0.100 without" in reason.sentence for reason in found)
    changed = replace(evaluation, estimates=evaluation.estimates | {"better": estimate})
    told = verdict.judge(estimators.get("calibrated-ips"), changed, logged, draws, T)["better"]
    assert ("variance_capped" in levels(told.reasons)) == (level is not None)


def test_unequal_log_probabilities_show_in_the_mean_weight():
    logged, draws, _ = healthy(n=1000)
    found, _ = judged("snips", replace(logged, log_ratio=logged.log_ratio - 1.0), draws)
    assert levels(found["better"].reasons)["mean_weight_off"] == "caution"


def test_overlap_is_described_before_and_after():
    log_ratio = np.append(np.random.default_rng(0).normal(0, 2, 999), np.nan)
    raw = np.append(hajek(log_ratio[:-1]), np.nan)
    found = overlap.diagnose(Weights(raw, np.where(np.isnan(raw), np.nan, 1.0)), log_ratio, np.arange(1000))
    assert found.raw.n == found.stabilised.n == 999
    assert found.raw.ess_share < 0.2 and found.stabilised.ess_share == 1
    assert found.raw.hellinger_affinity < found.stabilised.hellinger_affinity == 1


def test_effective_labels_of_equal_distributions_are_all_labels():
    score = np.repeat([0.0, 0.5, 1.0], 10)
    found = effective_labels(score, np.tile(score, 3), np.ones(90))
    assert (found.unsupported, found.share, found.effective_labels) == pytest.approx((0, 1, 30))


def test_effective_labels_by_hand():
    """Labels 3, 1, 0 in three cells; target mass .2, .6, .2: weights .2/3 (three times) and .6."""
    label = np.array([0.1, 0.1, 0.1, 0.5])
    target = np.array([0.1, 0.5, 0.5, 0.5, 0.9])
    found = effective_labels(label, target, np.ones(5))
    share = 0.8 * 0.8**2 / (4 * (3 * (0.2 / 3) ** 2 + 0.6**2))
    assert (found.unsupported, found.share, found.effective_labels) == pytest.approx((0.2, share, 4 * share))


def test_effective_labels_bin_many_scores_and_skip_missing_ones():
    rng = np.random.default_rng(0)
    label, target = rng.random(200), np.append(rng.random(500), np.nan)
    assert effective_labels(label, target, np.ones(501)).share > 0.8
    beyond = effective_labels(0.5 * label, 0.5 + 0.5 * target, np.ones(501))
    assert beyond.unsupported > 0.9 and beyond.share < 0.1
    assert np.isnan(effective_labels(label, target, np.zeros(501)).share)


def test_effective_labels_follow_the_weights():
    label = np.repeat([0.0, 1.0], [90, 10])
    even = effective_labels(label, label, np.ones(100))
    tilted = effective_labels(label, label, np.where(label == 1, 81.0, 1.0))
    assert even.share == pytest.approx(1)
    assert tilted.share == pytest.approx(1 / (100 * (0.1**2 / 90 + 0.9**2 / 10)))


def test_boundary_card_turns_with_what_lies_outside():
    label_score = np.linspace(0.3, 0.7, 50)
    calibrator = isotonic(label_score, np.linspace(0.2, 0.9, 50))
    inside = np.linspace(0.4, 0.6, 100)
    ones = np.ones(100)
    assert boundary_card(calibrator, label_score, inside, ones).status == "ok"
    low = boundary_card(calibrator, label_score, np.where(np.arange(100) < 10, 0.1, inside), ones)
    assert (low.status, low.out_of_range, low.partial_id_width) == ("refuse", pytest.approx(0.1), pytest.approx(0.02))
    edge = boundary_card(calibrator, label_score, np.where(np.arange(100) < 30, 0.3, inside), ones)
    assert (edge.status, edge.saturation) == ("caution", pytest.approx(0.3))
    assert boundary_card(calibrator, label_score, np.full(3, np.nan), np.ones(3)).status == "inconclusive"
