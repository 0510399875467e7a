"""The transport audit: a closed form, a t interval, and no PASS from too little data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from arena_cje.diagnostics.evidence import gather
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.diagnostics.transport import audit, label_shift, shift
from arena_cje.diagnostics.verdict import judge
from arena_cje.estimation.records import Draws, Logged
from arena_cje.evaluation.evaluate import Evaluation, Options, evaluate
from arena_cje.simulate import WORLDS, Target, World, draw
from worlds import healthy

NAN = float("nan")


def logged_of(n: int = 400, noise: float = 0.0) -> Logged:
    """Labels equal to the score, or scattered around it, so that the calibrator is nearly certain."""
    rng = np.random.default_rng(0)
    score = (np.arange(n) % 21) / 20
    label = np.clip(score + noise * rng.standard_normal(n), 0, 1)
    names = np.array([f"p{i}" for i in range(n)])
    return Logged("base", ("target",), names, np.full((n, 1), NAN), score, label)


def evaluation_of(fresh: Draws, logged: Logged) -> Evaluation:
    return evaluate("direct", logged, {fresh.policy: fresh}, Options())


def labelled_draws(residual, n: int = 400, draws: int = 1) -> Draws:
    """Draws of n prompts at score .5, the first of them labelled, with these residuals."""
    score, label = np.full((n, draws), 0.5), np.full((n, draws), NAN)
    label.reshape(-1)[: len(residual)] = 0.5 + np.asarray(residual)
    return Draws("target", score, label)


def audit_of(residual, *, family: int = 1, margin: float = 0.05, draws: int = 1, **thresholds):
    fresh, logged = labelled_draws(residual, draws=draws), logged_of()
    return audit(
        evaluation_of(fresh, logged), logged, fresh, Thresholds(transport_margin=margin, **thresholds), family=family
    )


def shift_of(residual):
    fresh = labelled_draws(residual)
    return shift(evaluation_of(fresh, logged_of()).calibration, fresh, np.arange(400))


def test_the_shift_is_the_mean_residual_with_the_t_interval_of_its_prompts():
    """Few probes have few degrees of freedom, which widen the interval (trap T32)."""
    residual = np.tile([0.1, 0.0, -0.1, 0.2], 3)
    result = audit_of(residual)
    assert result.delta == pytest.approx(residual.mean())
    assert (result.n_labels, result.effective_prompts) == (12, pytest.approx(12))
    error = residual.std(ddof=1) / np.sqrt(12)
    estimate = shift_of(residual)
    assert (estimate.se, estimate.n_used) == (pytest.approx(error), 12)
    reach = stats.t.ppf(0.975, estimate.df) * error
    assert estimate.df <= 11
    assert result.interval == (pytest.approx(result.delta - reach), pytest.approx(result.delta + reach))
    assert reach >= 1.1 * stats.norm.ppf(0.975) * error


def test_residuals_are_held_out_and_the_calibrators_own_error_is_in_the_interval():
    logged = logged_of(noise=0.3)
    fitted = evaluation_of(labelled_draws([]), logged).calibration
    rng = np.random.default_rng(1)
    score = rng.random((400, 2))
    label = np.where(rng.random((400, 2)) < 0.2, rng.random((400, 2)), NAN)
    residual_shift = shift(fitted, Draws("target", score, label), np.arange(400))
    has_label = ~np.isnan(label)
    predicted = np.array([[fitted.cross_fitted[k](s) for s in row] for k, row in zip(fitted.fold, score, strict=True)])
    residual = (label - predicted)[has_label]
    assert residual_shift.value == pytest.approx(residual.mean(), abs=1e-12)
    without = [np.mean(label[has_label] - calibrator(score[has_label])) for calibrator in fitted.jackknife]
    assert residual_shift.jackknife == pytest.approx(without, abs=1e-12)
    assert residual_shift.oracle_variance > 0
    total = np.where(has_label, label - predicted - residual_shift.value, 0).sum(axis=1)[has_label.any(axis=1)]
    prompts = len(total)
    expected = prompts / (prompts - 1) * np.sum((total - total.mean()) ** 2) / has_label.sum() ** 2
    assert residual_shift.sampling_variance == pytest.approx(expected, rel=1e-9)


def test_ten_noisy_probes_are_inconclusive():
    """An interval that contains zero because data are few is no evidence of transport (trap T32)."""
    result = audit_of(np.tile([0.3, -0.3], 5))
    assert result.status == "INCONCLUSIVE" and result.interval[0] < 0 < result.interval[1]


@pytest.mark.parametrize(("labels", "status"), [(19, "INCONCLUSIVE"), (20, "PASS")])
def test_a_pass_needs_twenty_prompts_however_small_their_residuals(labels, status):
    assert audit_of(np.resize([0.01, -0.01], labels)).status == status


def test_twenty_labels_of_two_prompts_are_inconclusive():
    """Ten draws of each of two prompts: 20 labels, two effective prompts."""
    result = audit_of(np.resize([0.01, -0.01], 20), draws=10)
    assert (result.n_labels, result.effective_prompts) == (20, pytest.approx(2))
    assert result.status == "INCONCLUSIVE"


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_large_shift_fails_even_with_few_probes(sign):
    assert audit_of(sign * np.array([0.4, 0.45, 0.35, 0.4])).status == "FAIL"


def test_a_precisely_measured_shift_passes_below_the_margin_and_fails_above_it():
    residual = np.resize([0.02, -0.02], 100)
    assert audit_of(residual + 0.03).status == "PASS"
    assert audit_of(residual + 0.049).status == "INCONCLUSIVE"  # the margin itself lies inside the interval
    assert audit_of(residual + 0.07).status == "FAIL"
    assert audit_of(residual + 0.07, margin=0.1).status == "PASS"


def test_a_significant_shift_fails_although_its_interval_reaches_below_the_margin():
    spread = np.resize([0.25, -0.25], 50)
    fails, zero_inside = audit_of(spread + 0.11), audit_of(spread + 0.075)
    assert fails.interval[0] < 0.05 < fails.delta and fails.status == "FAIL"
    assert zero_inside.interval[0] > 0 and zero_inside.status == "INCONCLUSIVE"  # not zero at .05, but at .03
    assert audit_of(spread + 0.11, margin=0.15).status == "INCONCLUSIVE"


def test_without_probes_transport_is_reported_as_unchecked():
    logged = logged_of()
    evaluation = evaluation_of(labelled_draws([]), logged)
    for fresh in (None, labelled_draws([]), replace(labelled_draws([0.1]), judge_score=np.full((400, 1), NAN))):
        result = audit(evaluation, logged, fresh, Thresholds(), family=1)
        assert (result.status, result.n_labels) == ("NOT_CHECKED", 0)
        assert np.isnan([result.delta, *result.interval]).all()


def test_a_single_probe_is_inconclusive():
    """The residual of one prompt has no spread, however large it is."""
    assert audit_of([0.4]).status == "INCONCLUSIVE"


def test_more_policies_widen_the_interval_of_each():
    residual = np.resize([0.1, -0.05], 40)
    single, five = audit_of(residual), audit_of(residual, family=5)
    estimate = shift_of(residual)
    assert five.interval == pytest.approx(estimate.interval(0.05 / 5))
    assert np.diff(five.interval) > 1.2 * np.diff(single.interval)


def test_only_policies_with_own_labels_count_in_the_family():
    world = replace(WORLDS["healthy"], target_labels=0.2)
    logged, draws, _ = draw(world, 400, 0)
    alone = draws | {"clone": replace(draws["clone"], oracle_label=np.full((400, 1), NAN))}
    both, single = (
        gather(evaluate("direct", logged, fresh, Options()), logged, fresh, Thresholds())["better"].audit
        for fresh in (draws, alone)
    )
    assert both.delta == single.delta
    assert np.diff(both.interval) > 1.1 * np.diff(single.interval)


def test_the_audit_takes_its_margin_from_the_thresholds():
    logged, draws, _ = healthy(target_labels=0.5)
    evaluation = evaluate("direct", logged, draws, Options())
    strict, wide = (
        gather(evaluation, logged, draws, Thresholds(transport_margin=margin))["better"].audit for margin in (1e-4, 0.3)
    )
    assert (strict.status, wide.status) == ("INCONCLUSIVE", "PASS")


def test_the_audit_takes_its_other_limits_from_the_thresholds():
    """How many prompts a PASS needs, the level of the interval, and the level at which a shift is suspicious."""
    few, spread = np.linspace(-0.01, 0.01, 12), np.resize([0.25, -0.25], 50)
    assert [audit_of(few, transport_prompts=needed).status for needed in (13, 12)] == ["INCONCLUSIVE", "PASS"]
    assert [audit_of(spread + 0.075, transport_suspicion=level).status for level in (0.03, 0.05)] == [
        "INCONCLUSIVE",
        "FAIL",
    ]
    assert audit_of(spread, transport_alpha=0.5).interval == pytest.approx(shift_of(spread).interval(0.5))


def audits(world: str, policy: str, labels: int, seeds: int):
    """Audits of one policy of a world, one a seed."""
    for seed in range(seeds):
        logged, draws, _ = draw(replace(WORLDS[world], target_labels=labels), 300, seed)
        yield audit(evaluate("direct", logged, draws, Options()), logged, draws[policy], Thresholds(), family=1)


def test_audits_fail_without_transport_and_hardly_ever_with_it():
    """75 labels detect a drop of .15; where labels keep their meaning, hardly any audit fails."""
    statuses = [audit.status for audit in audits("no_transport_hidden", "worse", 75, 30)]
    assert statuses.count("FAIL") >= 27 and "PASS" not in statuses
    assert [audit.status for audit in audits("healthy", "better", 75, 30)].count("FAIL") <= 1


def test_the_interval_covers_the_shift_it_measures():
    """Where transport holds, the shift is zero apart from the calibrator's own error, which the interval includes."""
    intervals = np.array([audit.interval for audit in audits("healthy", "better", 30, 150)])
    covered = np.mean((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0))
    assert covered >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 150)


def test_the_label_shift_equals_what_the_label_term_adds_to_an_estimate():
    """Value, influence function and jackknife of what weighted base labels add to a doubly robust estimate."""
    logged, draws, _ = healthy()
    off, on = (
        evaluate("dr-cpo", logged, draws, Options(weights="raw", label_term=term)).estimates["better"]
        for term in (False, True)
    )
    residual_shift = label_shift(evaluate("dr-cpo", logged, draws, Options(weights="raw")), logged, "better")
    assert residual_shift.value == pytest.approx(on.value - off.value, abs=1e-12)
    assert residual_shift.influence == pytest.approx(on.influence - off.influence, abs=1e-12)
    assert residual_shift.jackknife == pytest.approx(on.jackknife - off.jackknife, abs=1e-12)


@pytest.mark.parametrize(("world", "mends"), [("style_matters", True), ("no_transport_hidden", False)])
def test_a_label_term_is_audited_with_own_labels(world, mends):
    """It corrects shifts that follow the weights, and cannot correct labels that fall for every response."""
    logged, draws, _ = draw(replace(WORLDS[world], target_labels=0.2), 2000, 0)
    policy = logged.policies[0]
    audit_by_name = {}
    for name in ("direct", "tr-cpo"):
        evaluation = evaluate(name, logged, draws, Options())
        evidence = gather(evaluation, logged, draws, Thresholds())
        audit_by_name[name] = evidence[policy].audit
        codes = {r.code: r.level for r in judge(evaluation, logged, evidence, Thresholds())[policy].reasons}
        if name == "tr-cpo":
            assert (codes.get("transport_failed") == "refuse") == (not mends)
            assert "label term" in audit_by_name[name].against
    assert audit_by_name["direct"].status == "FAIL"
    assert (audit_by_name["tr-cpo"].status == "FAIL") == (not mends)
    assert abs(audit_by_name["tr-cpo"].delta) < 0.04 if mends else abs(audit_by_name["tr-cpo"].delta) > 0.08


@pytest.mark.parametrize("labels", [2, 4, 8])
def test_few_labels_that_agree_by_chance_rarely_fail_the_audit_of_a_valid_calibration(labels):
    """Labels of zero and one: the residuals of a handful are often all alike, and then have no variance of their own."""
    world = World({"same": Target(0.2, 0.2)}, binary=True, coverage=0.3, target_labels=labels)
    failures = 0
    for seed in range(80):
        logged, draws, _ = draw(world, 400, seed)
        evaluation = evaluate("direct", logged, draws, Options(seed=seed))
        failures += audit(evaluation, logged, draws["same"], Thresholds(), family=1).status == "FAIL"
    assert failures <= 4


def test_labels_are_counted_once_however_often_their_prompt_was_logged():
    world = World({"same": Target(0.2, 0.2)}, rows_per_prompt=(4,), coverage=0.3, target_labels=12)
    logged, draws, _ = draw(world, 400, 0)
    result = audit(evaluate("direct", logged, draws, Options()), logged, draws["same"], Thresholds(), family=1)
    assert (result.n_labels, result.effective_prompts) == (12, pytest.approx(12))
