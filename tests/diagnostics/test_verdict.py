"""Every threshold of the verdict: a reason on one side of it, none on the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arena_cje import estimators
from arena_cje.diagnostics import overlap, verdict
from arena_cje.diagnostics.calibration import CalibrationDiagnostics
from arena_cje.diagnostics.evidence import Evidence, base_support, gather
from arena_cje.diagnostics.overlap import Overlap, describe
from arena_cje.diagnostics.support import Support, affinity, boundary_card, effective_labels
from arena_cje.diagnostics.thresholds import Thresholds, with_overrides
from arena_cje.diagnostics.transport import Audit
from arena_cje.errors import UserError
from arena_cje.estimation.calibration import isotonic
from arena_cje.estimation.records import Draws, Estimate, Judged, Labelled, Reason, Verdict, Weights
from arena_cje.estimation.weights import hajek
from arena_cje.evaluation.evaluate import Options, evaluate
from arena_cje.simulate import draw
from worlds import UNHELPFUL, healthy, take, take_draws

T = Thresholds()
GOOD_OVERLAP = Overlap(describe(np.ones(100)), describe(np.ones(100)), 1.0, 0.0, 0.0)
GOOD_SUPPORT = Support(0.0, 0.9, 90.0)
GOOD_CALIBRATION = CalibrationDiagnostics("monotone", 100, 5, 0, 1, 0, 1, 0.1, 0.02, 0.8, 0.7, 0.01, ())

WEIGHTED = [name for name in estimators.NAMES if estimators.get(name).NEEDS == ("log_ratio",)]
ROBUST = [name for name in estimators.NAMES if set(estimators.get(name).NEEDS) == {"log_ratio", "fresh_score"}]


def verdicts_of(evaluation, logged, draws, thresholds=T):
    return verdict.judge(evaluation, logged, gather(evaluation, logged, draws, thresholds), thresholds)


def evaluate_verdicts(name, logged, draws, **options):
    evaluation = evaluate(name, logged, draws, Options(**options))
    return verdicts_of(evaluation, logged, draws), evaluation


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
def test_raw_weights_give_a_reason_beyond_each_limit(figures, expected):
    weights_overlap = replace(GOOD_OVERLAP, raw=replace(GOOD_OVERLAP.raw, **figures))
    assert levels(verdict.overlap_reasons(weights_overlap, T)) == expected
    stabilised = replace(GOOD_OVERLAP, stabilised=replace(GOOD_OVERLAP.raw, **figures))
    assert verdict.overlap_reasons(stabilised, T) == ()


@pytest.mark.parametrize(("z", "expected"), [(4.0, {}), (4.1, {"mean_weight_off": "caution"}), (-4.1, None)])
def test_the_mean_weight_gives_a_caution_beyond_four_standard_errors(z, expected):
    reason_levels = levels(verdict.overlap_reasons(replace(GOOD_OVERLAP, mean_weight_z=z), T))
    assert reason_levels == ({"mean_weight_off": "caution"} if expected is None else expected)


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    [
        (0.5, 30, {}),
        (0.49, 30, {"unsupported_labels": "caution"}),
        (0.33, 30, {"unsupported_labels": "caution"}),
        (0.32, 30, {"unsupported_labels": "refuse"}),
        (0.9, 29, {"few_effective_labels": "caution"}),
        (0.9, 9.9, {"few_effective_labels": "refuse"}),
        (float("nan"), float("nan"), {"unsupported_labels": "caution", "few_effective_labels": "caution"}),
    ],
)
def test_support_gives_a_reason_below_each_limit(share, count, expected):
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
def test_labels_and_judge_give_a_reason_below_each_limit(figures, expected):
    assert levels(verdict.calibration_reasons(replace(GOOD_CALIBRATION, **figures), T)) == expected


def test_thresholds_can_be_replaced():
    strict = Thresholds(ess_caution=1.1)
    assert levels(verdict.overlap_reasons(GOOD_OVERLAP, strict)) == {"low_ess": "caution"}


@pytest.mark.parametrize("name", estimators.NAMES)
def test_a_healthy_world_is_published_with_transport_unverified(name):
    logged, draws, _ = healthy(n=1000)
    verdicts, _ = evaluate_verdicts(name, logged, draws)
    assert tuple(verdicts) == ("base", *logged.policies)
    assert verdicts["better"].level == "ok"
    assert levels(verdicts["better"].reasons) == {"transport_unverified": "ok"}
    # The clone's weighted responses are the base's own, its fresh draws are not.
    assert levels(verdicts["clone"].reasons) == ({} if name in WEIGHTED else {"transport_unverified": "ok"})


@pytest.mark.parametrize("name", estimators.NAMES)
def test_an_unhelpful_policy_is_refused_although_no_label_lies_out_of_range(name):
    """Its responses are the base's worst: the few labels near them are too few for a published value."""
    logged, draws, values = draw(UNHELPFUL, 1000, seed=0)
    verdicts, evaluation = evaluate_verdicts(name, logged, draws)
    assert verdicts["unhelpful"].level == "refuse"
    codes = levels(verdicts["unhelpful"].reasons)
    assert codes["unsupported_labels"] == "refuse"
    if name != "direct":
        assert codes["low_ess"] == ("refuse" if name in WEIGHTED else "caution")
    if name == "calibrated-ips":
        raw, stabilised = evaluation.weights["unhelpful"].raw, evaluation.weights["unhelpful"].stabilised
        assert overlap.ess_share(raw) < 0.02 and overlap.ess_share(stabilised) > 0.49
        assert abs(evaluation.estimates["unhelpful"].value - values["unhelpful"]) > 0.1


def test_large_log_ratios_refuse_a_weighted_estimate_and_not_a_direct_one():
    logged, draws, _ = healthy(n=1000)
    stretched = replace(logged, log_ratio=np.where(logged.log_ratio == 0, 0, 8 * logged.log_ratio))
    weighted, _ = evaluate_verdicts("snips", stretched, draws)
    direct, _ = evaluate_verdicts("direct", stretched, draws)
    assert weighted["better"].level == "refuse"
    assert direct["better"].level == "ok"


def test_no_overlap_and_no_rows_are_refused_with_different_reasons():
    logged, draws, _ = healthy()
    log_ratio = logged.log_ratio.copy()
    log_ratio[:, 0], log_ratio[:, 1], log_ratio[:7, 2] = -np.inf, np.nan, np.nan
    verdicts, _ = evaluate_verdicts("snips", replace(logged, log_ratio=log_ratio), draws)
    assert levels(verdicts["better"].reasons)["no_overlap"] == "refuse"
    assert levels(verdicts["clone"].reasons)["no_rows"] == "refuse"
    assert levels(verdicts["worse"].reasons)["rows_left_out"] == "ok"
    assert "7 of 400 rows" in verdicts["worse"].reasons[0].sentence


def test_a_single_usable_row_is_refused():
    logged, draws, _ = healthy()
    log_ratio = logged.log_ratio.copy()
    log_ratio[1:, 0] = np.nan
    verdicts, evaluation = evaluate_verdicts("snips", replace(logged, log_ratio=log_ratio), draws)
    assert np.isfinite(evaluation.estimates["better"].value)
    assert levels(verdicts["better"].reasons)["too_few_rows"] == "refuse"


def test_rows_of_a_single_prompt_are_refused():
    logged, draws, _ = healthy()
    rows = np.append(np.arange(400), [0, 0])
    logged, draws = take(logged, rows), take_draws(draws, rows)
    log_ratio = logged.log_ratio.copy()
    log_ratio[1:400, 0] = np.nan
    verdicts, evaluation = evaluate_verdicts("snips", replace(logged, log_ratio=log_ratio), draws)
    assert evaluation.n_used["better"] == 3
    assert "all 3 usable rows belong to one prompt" in verdicts["better"].reasons[0].sentence
    assert levels(verdicts["better"].reasons)["too_few_rows"] == "refuse"


def test_the_verdict_of_the_base_policy_depends_on_labels_and_judge_alone():
    logged, draws, _ = healthy(n=60, coverage=0.1)
    base_verdict = evaluate_verdicts("snips", logged, draws)[0]["base"]
    assert base_verdict.level == "refuse" and levels(base_verdict.reasons)["few_labels"] == "refuse"
    logged, draws, _ = healthy()
    assert evaluate_verdicts("snips", logged, draws)[0]["base"].reasons == ()


def test_the_base_policy_is_refused_where_labels_were_chosen_by_score():
    """Labels on the best tenth alone: nine tenths of the base's own responses have none near them."""
    logged, draws, _ = healthy(n=1000, coverage=1.0)
    best = logged.judge_score > np.quantile(logged.judge_score, 0.9)
    chosen = replace(logged, oracle_label=np.where(best, logged.oracle_label, np.nan))
    verdicts, evaluation = evaluate_verdicts("snips", chosen, draws)
    assert levels(verdicts["base"].reasons)["unsupported_labels"] == "refuse"
    assert base_support(evaluation, chosen).unsupported > 0.6


def test_the_base_policys_prompts_count_once_however_many_rows_they_have():
    logged, draws, _ = healthy(n=200)
    rows = np.append(np.arange(200), np.full(500, 7))
    repeated = take(logged, rows)
    _, once = evaluate_verdicts("snips", logged, draws)
    _, often = evaluate_verdicts("snips", repeated, take_draws(draws, rows))
    often = replace(often, calibration=once.calibration)
    expected = base_support(once, logged)
    assert base_support(often, repeated).share == pytest.approx(expected.share)


def test_support_of_the_direct_estimator_counts_prompts_not_draws():
    """One prompt with fifty draws where no label lies is one prompt in four hundred."""
    logged, draws, _ = healthy()
    label = np.where(logged.judge_score > 0.2, logged.oracle_label, np.nan)
    logged = replace(logged, oracle_label=label)
    score = np.full((400, 50), np.nan)
    score[:, 0] = 0.5 + logged.judge_score / 2
    score[0] = 0.0
    unequal = draws | {"better": Draws("better", score, np.full(score.shape, np.nan))}
    _, evaluation = evaluate_verdicts("direct", logged, unequal)
    support = gather(evaluation, logged, unequal, T)["better"].support
    assert support.unsupported == pytest.approx(1 / 400)


@pytest.mark.parametrize(
    ("needs", "log_ratio", "has_reason"),
    [
        (("log_ratio",), [0.0, 0.0, 0.0], False),
        (("log_ratio",), [0.0, 0.0, 1e-9], True),
        (("log_ratio",), [0.0, 0.0, np.nan], True),
        (("log_ratio",), [np.nan] * 3, True),
        (("fresh_score",), [0.0, 0.0, 0.0], True),
        (("log_ratio", "fresh_score"), [0.0, 0.0, 0.0], True),
    ],
)
def test_transport_needs_no_check_only_where_all_weighted_rows_have_a_log_ratio_of_zero(needs, log_ratio, has_reason):
    assert bool(verdict.transport_reasons(needs, np.array(log_ratio))) == has_reason


@pytest.mark.parametrize(("bias", "level"), [(0.0, None), (0.024, "ok"), (-0.024, "ok"), (-0.026, "caution")])
def test_the_level_of_capped_weights_follows_the_bias_of_capping(bias, level):
    logged, draws, _ = healthy()
    _, evaluation = evaluate_verdicts("calibrated-ips", logged, draws)
    influence = np.resize([2.0, -2.0], 400) * np.sqrt(399 / 400)  # standard error .1
    estimate = Estimate(0.5, influence, np.arange(400), np.empty(0), np.ones(400, bool), bias)
    cap_reasons = verdict.cap_reasons(estimate, T)
    assert levels(cap_reasons) == ({} if level is None else {"variance_capped": level})
    assert all(f"by {bias:+.3f}" in reason.sentence and "error, 0.100)" in reason.sentence for reason in cap_reasons)
    changed = replace(evaluation, estimates=evaluation.estimates | {"better": estimate})
    reasons = verdicts_of(changed, logged, draws)["better"].reasons
    assert ("variance_capped" in levels(reasons)) == (level is not None)


def test_log_ratios_shifted_by_a_constant_are_detected_by_the_mean_weight():
    logged, draws, _ = healthy(n=1000)
    verdicts, _ = evaluate_verdicts("snips", replace(logged, log_ratio=logged.log_ratio - 1.0), draws)
    assert levels(verdicts["better"].reasons)["mean_weight_off"] == "caution"


def test_overlap_is_described_before_and_after_stabilisation():
    log_ratio = np.append(np.random.default_rng(0).normal(0, 2, 999), np.nan)
    raw = np.append(hajek(log_ratio[:-1]), np.nan)
    weights_overlap = overlap.diagnose(Weights(raw, np.where(np.isnan(raw), np.nan, 1.0)), log_ratio, np.arange(1000))
    assert weights_overlap.raw.n == weights_overlap.stabilised.n == 999
    assert weights_overlap.raw.ess_share < 0.2 and weights_overlap.stabilised.ess_share == 1
    assert weights_overlap.raw.hellinger_affinity < weights_overlap.stabilised.hellinger_affinity == 1


def test_effective_labels_of_equal_distributions_are_all_labels():
    score = np.repeat([0.0, 0.5, 1.0], 10)
    support = effective_labels(score, np.tile(score, 3), np.ones(90))
    assert (support.unsupported, support.share, support.effective_labels) == pytest.approx((0, 1, 30))


def test_effective_labels_by_hand():
    """Labels 3, 1, 0 in three cells; target mass .2, .6, .2: weights .2/3 (three times) and .6."""
    label = np.array([0.1, 0.1, 0.1, 0.5])
    target = np.array([0.1, 0.5, 0.5, 0.5, 0.9])
    support = effective_labels(label, target, np.ones(5))
    share = 0.8 * 0.8**2 / (4 * (3 * (0.2 / 3) ** 2 + 0.6**2))
    assert (support.unsupported, support.share, support.effective_labels) == pytest.approx((0.2, share, 4 * share))


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


def test_the_boundary_card_status_follows_the_scores_outside_the_labelled_range():
    """The boundary card's status is computed from the scores, not fixed (trap T26)."""
    label_score = np.linspace(0.3, 0.7, 50)
    label = np.linspace(0.2, 0.9, 50)
    calibrator, known = isotonic(label_score, label), Labelled(np.arange(50).astype(str), Judged.of(label_score), label)
    inside = np.linspace(0.4, 0.6, 100)
    ones = np.ones(100)
    assert boundary_card(calibrator, known, inside, ones, T).status == "ok"
    low = boundary_card(calibrator, known, np.where(np.arange(100) < 10, 0.1, inside), ones, T)
    assert (low.status, low.out_of_range, low.partial_id_width) == ("refuse", pytest.approx(0.1), pytest.approx(0.02))
    edge = boundary_card(calibrator, known, np.where(np.arange(100) < 30, 0.3, inside), ones, T)
    assert (edge.status, edge.saturation) == ("caution", pytest.approx(0.3))
    wider = with_overrides({"out_of_range_refuse": 0.11, "saturation_caution": 0.31})
    assert boundary_card(calibrator, known, np.where(np.arange(100) < 10, 0.1, inside), ones, wider).status == "ok"
    assert boundary_card(calibrator, known, np.where(np.arange(100) < 30, 0.3, inside), ones, wider).status == "ok"
    assert boundary_card(calibrator, known, np.full(3, np.nan), np.ones(3), T).status == "inconclusive"


UNCHECKED_AUDIT = Audit("NOT_CHECKED", float("nan"), (float("nan"), float("nan")), 0, 0.0, 0.05)


def levels_with(name: str, *, label_term: bool = False, **changes) -> dict[str, str]:
    """Reason levels of one healthy policy whose evidence is changed in some fields."""
    logged, draws, _ = healthy(n=200)
    evaluation = evaluate(name, logged, draws, Options(label_term=label_term, jackknife_folds=2))
    evidence = gather(evaluation, logged, draws, T)
    changed = Evidence(**{"overlap": GOOD_OVERLAP, "support": GOOD_SUPPORT, "audit": UNCHECKED_AUDIT} | changes)
    return levels(verdict.judge(evaluation, logged, evidence | {"better": changed}, T)["better"].reasons)


def overlap_of_raw_weights(**figures) -> Overlap:
    return replace(GOOD_OVERLAP, raw=replace(GOOD_OVERLAP.raw, **figures))


@pytest.mark.parametrize("name", estimators.NAMES)
@pytest.mark.parametrize(
    ("figures", "code", "alone", "beside"),
    [
        ({"ess_share": 0.05}, "low_ess", "refuse", "caution"),
        ({"ess_share": 0.25}, "low_ess", "caution", "ok"),
        ({"near_zero_share": 0.9}, "near_zero_weights", "refuse", "caution"),
        ({"tail_index": 0.9}, "heavy_tail", "caution", "caution"),
        ({"top5_mass": 0.5, "cv": 3.0}, "concentrated_weights", "caution", "caution"),
    ],
)
def test_reasons_of_poor_weights_are_equal_or_milder_for_doubly_robust_estimators(name, figures, code, alone, beside):
    """Weights that are flagged for IPS are flagged for doubly robust estimators, too (trap T27). Direct has no weights."""
    reason_levels = levels_with(name, overlap=overlap_of_raw_weights(**figures))
    expected = alone if name in WEIGHTED else beside if name in ROBUST else None
    assert reason_levels.get(code) == expected


@pytest.mark.parametrize("name", estimators.NAMES)
@pytest.mark.parametrize(
    ("share", "count", "level"), [(0.2, 90.0, "refuse"), (0.9, 9.0, "refuse"), (0.4, 29.0, "caution")]
)
def test_poor_support_gives_a_reason_for_every_estimator(name, share, count, level):
    reason_levels = levels_with(name, support=Support(0.1, share, count))
    assert level in {reason_levels.get("unsupported_labels"), reason_levels.get("few_effective_labels")}


@pytest.mark.parametrize("name", estimators.NAMES)
@pytest.mark.parametrize(
    ("status", "code", "level"),
    [
        ("PASS", "transport_passed", "ok"),
        ("FAIL", "transport_failed", "refuse"),
        ("INCONCLUSIVE", "transport_inconclusive", "caution"),
        ("NOT_CHECKED", "transport_unverified", "ok"),
    ],
)
def test_the_audit_status_is_among_the_reasons_of_every_estimator(name, status, code, level):
    """A policy without labels of its own has the status of the audit among its reasons (trap T50)."""
    reason_levels = levels_with(name, audit=replace(UNCHECKED_AUDIT, status=status, delta=0.1, interval=(0.0, 0.2)))
    assert reason_levels.get(code) == level
    assert [other for other in reason_levels if other.startswith("transport")] == [code]


BAD_EVIDENCE = {
    "support": Support(0.5, 0.1, 5.0),
    "audit": replace(UNCHECKED_AUDIT, status="FAIL", delta=-0.2, interval=(-0.3, -0.1)),
}


@pytest.mark.parametrize("name", ["direct", *(name for name in ROBUST if name != "tr-cpo")])
def test_fifty_own_labels_exempt_a_policy_from_support_and_audit(name):
    assert levels_with(name, **BAD_EVIDENCE, own_labels=50) == {"own_labels": "ok"}
    reason_levels = levels_with(name, **BAD_EVIDENCE, own_labels=49)
    assert (reason_levels["unsupported_labels"], reason_levels["transport_failed"]) == ("refuse", "refuse")
    # Own labels exempt from support and audit, not from overlap.
    if name != "direct":
        assert (
            levels_with(name, overlap=overlap_of_raw_weights(near_zero_share=0.9), own_labels=50)["near_zero_weights"]
            == "caution"
        )


@pytest.mark.parametrize(
    ("count", "share", "exempt"), [(40, 0.5, True), (39, 0.5, False), (400, 0.10, True), (400, 0.09, False)]
)
@pytest.mark.parametrize("name", ROBUST)
def test_a_label_term_with_effective_labels_exempts_from_support_and_not_from_the_audit(name, count, share, exempt):
    """At least twenty effective labels, and a tenth of all; the audit by own labels may still find another shift."""
    reason_levels = levels_with(name, label_term=True, **BAD_EVIDENCE, weighted_labels=(count, share))
    assert ("unsupported_labels" in reason_levels) == ("few_effective_labels" in reason_levels) == (not exempt)
    assert reason_levels["transport_failed"] == "refuse"


def test_evidence_counts_own_labels_only_where_they_are_used():
    logged, draws, _ = healthy(target_labels=0.2)
    for name, option, expected in (
        ("direct", {}, 80),
        ("dr-cpo", {}, 80),
        ("tr-cpo", {}, 0),
        ("dr-cpo", {"label_term": True}, 0),
        ("snips", {}, 0),
    ):
        evaluation = evaluate(name, logged, draws, Options(**option))
        evidence = gather(evaluation, logged, draws, T)["better"]
        assert evidence.own_labels == expected
        assert (evidence.weighted_labels is not None) == (name == "tr-cpo" or bool(option))
        if evidence.weighted_labels:
            count, share = evidence.weighted_labels
            assert count == 100
            assert share == pytest.approx(overlap.ess_share(evaluation.weights["better"].raw[logged.labelled]))
    few = {p: replace(d, oracle_label=np.where(np.arange(400)[:, None] < 9, 0.5, np.nan)) for p, d in draws.items()}
    assert gather(evaluate("direct", logged, few, Options()), logged, few, T)["better"].own_labels == 0


def test_estimates_from_uncalibrated_judge_scores_are_never_published():
    """Estimates from uncalibrated judge scores are refused, with labels or without (trap T29)."""
    logged, draws, _ = healthy()
    for name in estimators.NAMES:
        verdicts, evaluation = evaluate_verdicts(name, logged, draws, rewards="judge")
        for policy in ("base", *logged.policies):
            assert levels(verdicts[policy].reasons)["uncalibrated_rewards"] == "refuse"
        assert evaluation.calibration.mode == "none"


def test_ips_is_refused_where_its_weights_do_not_average_to_one():
    """Its weights are not normalised, so that an error of their mean is an error of the value."""
    logged, draws, _ = healthy(n=1000)
    shifted = replace(logged, log_ratio=logged.log_ratio - 0.5)
    assert levels(evaluate_verdicts("ips", shifted, draws)[0]["better"].reasons)["mean_weight_not_one"] == "refuse"
    assert "mean_weight_not_one" not in levels(evaluate_verdicts("snips", shifted, draws)[0]["better"].reasons)
    heavy = overlap_of_raw_weights(tail_index=1.9)
    assert levels_with("ips", overlap=heavy)["infinite_variance"] == "refuse"
    assert "infinite_variance" not in levels_with("snips", overlap=heavy)


@pytest.mark.parametrize("name", WEIGHTED + ROBUST)
def test_weights_with_an_unknown_tail_index_are_flagged_by_other_limits(name):
    """Where 96 % of the weights are zero the tail index is unknown, and other limits give the reasons (trap T20)."""
    logged, draws, _ = healthy(n=1000)
    log_ratio = np.where(np.arange(1000)[:, None] < 960, -np.inf, logged.log_ratio)
    verdicts, evaluation = evaluate_verdicts(name, replace(logged, log_ratio=log_ratio), draws)
    assert np.isnan(describe(evaluation.weights["better"].raw).tail_index)
    codes = levels(verdicts["better"].reasons)
    level = "refuse" if name in WEIGHTED else "caution"
    assert (codes["low_ess"], codes["near_zero_weights"]) == (level, level)
    assert verdicts["better"].level == level


def test_an_unknown_threshold_is_refused_with_the_correct_name():
    assert with_overrides({"own_labels": 20}).own_labels == 20
    with pytest.raises(UserError, match=r"unknown threshold 'own_label' \(did you mean 'own_labels'\?\)"):
        with_overrides({"own_label": 20})


def test_a_bootstrap_with_few_labels_gives_a_caution():
    logged, draws, _ = healthy(n=900)
    few = replace(logged, oracle_label=np.where(np.cumsum(logged.labelled) <= 60, logged.oracle_label, np.nan))
    options = {"inference": "bootstrap", "n_bootstrap": 20}
    assert (
        levels(evaluate_verdicts("direct", few, draws, **options)[0]["better"].reasons)["bootstrap_too_short"]
        == "caution"
    )
    assert "bootstrap_too_short" not in levels(
        evaluate_verdicts("direct", logged, draws, **options)[0]["better"].reasons
    )
    assert "bootstrap_too_short" not in levels(evaluate_verdicts("direct", few, draws)[0]["better"].reasons)


def test_typicality_by_hand():
    """Base responses by their surprisal a token; the lower nine tenths of the target's mass are typical."""
    surprisal = np.arange(10.0)
    even = overlap.typicality(surprisal, np.ones(10))
    assert even == (pytest.approx(0.9), pytest.approx(0.9 / np.sqrt(0.9)))
    # The target's mass is all on the three least surprising rows.
    weight = np.array([1.0, 1.0, 8.0] + [0.0] * 7)
    ttc, bound = overlap.typicality(surprisal, weight)
    inside = weight[:3]
    assert ttc == pytest.approx(0.3)
    assert bound == pytest.approx(1 / np.sqrt(0.3) * np.sqrt(1 + inside.var() / inside.mean() ** 2))
    order = np.random.default_rng(0).permutation(10)
    assert overlap.typicality(surprisal[order], weight[order]) == pytest.approx((ttc, bound))
    missing = overlap.typicality(np.append(surprisal, np.nan), np.append(weight, 5.0))
    assert missing == pytest.approx((ttc, bound))
    assert np.isnan(overlap.typicality(surprisal, np.zeros(10))).all()


def test_typicality_does_not_depend_on_the_length_of_responses():
    """Typicality is by surprisal per token: twice the tokens at twice the surprisal are as typical (trap T25)."""
    rng = np.random.default_rng(1)
    tokens, by_token = rng.integers(20, 400, 500), -rng.gamma(2.0, 0.3, 500)
    weight = hajek(2 * by_token)  # the target prefers responses with little surprisal a token
    total = tokens * by_token
    once = overlap.typicality(-total / tokens, weight)
    twice = overlap.typicality(-(2 * total) / (2 * tokens), weight)
    assert once == twice
    assert once[0] != pytest.approx(overlap.typicality(-total, weight)[0], abs=0.02)
    assert once[0] != pytest.approx(describe(weight).hellinger_affinity, abs=0.02)


def test_typicality_is_among_the_evidence_where_tokens_are_counted():
    logged, draws, _ = healthy()
    by_token = np.tile(-np.arange(400.0)[:, None] - 1, (1, 3))
    weights_overlap = gather(evaluate("snips", logged, draws, Options()), logged, draws, T)["clone"].overlap
    assert np.isnan(weights_overlap.ttc)
    logged = replace(logged, token_logprob=by_token)
    weights_overlap = gather(evaluate("snips", logged, draws, Options()), logged, draws, T)["clone"].overlap
    assert (weights_overlap.ttc, weights_overlap.bound) == (pytest.approx(0.9), pytest.approx(np.sqrt(0.9)))


def test_affinity_by_hand():
    """Affinity is 1 for equal scores, 0 for disjoint ones, and the square root of a half where half of them overlap."""
    score = np.linspace(0, 1, 2001)
    assert affinity(score, score, np.ones(2001)) == pytest.approx(1)
    low, high = np.zeros(10), np.ones(10)
    assert affinity(low, high, np.ones(10)) == 0
    assert affinity(np.append(low, high), high, np.ones(10)) == pytest.approx(np.sqrt(0.5))
    assert np.isnan(affinity(low, high, np.zeros(10)))


@pytest.mark.parametrize(
    ("value", "limit", "text"),
    [(9.96, 10, "9.96"), (9.94, 10, "9.9"), (7.0, 10, "7"), (9.99996, 10, "9.99996"), (29.97, 30, "29.97")],
)
def test_a_value_below_a_limit_reads_as_below_it(value, limit, text):
    assert verdict._below(value, limit) == text
