"""Remedies: every reason that is not ok has one, with numbers from the data, and it lifts that reason."""

from __future__ import annotations

import ast
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape

import arena_cje
from arena_cje import estimators
from arena_cje.config import scoring
from arena_cje.diagnostics import calibration, plausibility, verdict
from arena_cje.diagnostics.circumstances import Circumstances, weights_reach
from arena_cje.diagnostics.evidence import gather
from arena_cje.diagnostics.label_needs import Limits, OwnLabels, ScoreCells
from arena_cje.diagnostics.label_needs import own_labels as needs_of_own
from arena_cje.diagnostics.measures import LIFTS, NO_PRICES, Measure, UnitPrices
from arena_cje.diagnostics.remedies import cheapest, remedies, remedies_of
from arena_cje.diagnostics.support import effective_labels
from arena_cje.diagnostics.thresholds import Thresholds, with_overrides
from arena_cje.diagnostics.transport import audit
from arena_cje.estimation.records import Options, Reason
from arena_cje.estimation.weights import hajek
from arena_cje.evaluation.evaluate import evaluate
from arena_cje.report import dashboard
from arena_cje.results import analyze, schema
from arena_cje.results.text import console_table
from arena_cje.simulate import WORLDS, draw
from benchmarks._remedies import STUDIES, outcomes
from dashboard_study import study

T = Thresholds()
PRICES = UnitPrices(label=0.5, response=0.02)
DIRECT = Circumstances(
    estimator="direct",
    is_base=False,
    n_prompts=400,
    has_draws=True,
    rows_without_input=40,
    n_rows=400,
    own_correct="this",
    own=OwnLabels(0, 0.2, None),
    n_labels=25,
    n_unlabelled=375,
)
WEIGHTED = replace(DIRECT, estimator="calibrated-ips", own_correct="direct")
# Reasons that no label, response or option lifts, and the beginning of their remedy.
LAST_RESORTS = {
    "weak_judge": "Use another judge or rubric; more labels do not",
    "constant_calibration": "Use another judge or rubric; more labels do not",
    "unusual_units": "Check the units",
    "labels_without_scores": "Check that the columns",
}


def all_reason_codes() -> set[str]:
    """Codes of all reasons that a verdict can have at `refuse` or `caution`, from the source code that creates them."""
    reason_codes = set()
    for module in (verdict, calibration, plausibility, analyze, scoring):
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Reason", "_low_value_reasons"):
                levels = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                literal_code = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
                # A reason without a level in its call is `ok`; one whose level is computed may be any.
                if getattr(node.func, "id", "") != "Reason" or len(node.args) > 2 or {"refuse", "caution"} & {*levels}:
                    reason_codes.update(literal_code)
            if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
                reason_codes.add(node.value.elts[0].value)
    return reason_codes


def remedy_for(code: str, level: str, at_hand: Circumstances = DIRECT, prices: UnitPrices = NO_PRICES):
    (remedy,) = remedies_of([Reason(code, "Because.", level)], at_hand, T, prices)
    assert remedy.reason == code
    return remedy


def test_every_reason_that_is_not_ok_is_known_to_the_remedies():
    assert all_reason_codes() == LIFTS.keys()
    assert {"unsupported_labels", "transport_failed", "api_log_probabilities", "few_labels"} <= all_reason_codes()


@pytest.mark.parametrize("at_hand", [DIRECT, WEIGHTED, replace(WEIGHTED, has_draws=False)])
@pytest.mark.parametrize("level", ["refuse", "caution"])
@pytest.mark.parametrize("code", sorted(LIFTS))
def test_every_reason_has_a_remedy_or_a_statement_of_what_alone_lifts_it(code, level, at_hand):
    remedy = remedy_for(code, level, at_hand)
    assert re.fullmatch(r"[A-Z][^\n]*\.", remedy.text) and "  " not in remedy.text
    if code in LAST_RESORTS:
        assert remedy.text.startswith(LAST_RESORTS[code])
        assert remedy.amount is None and remedy.usd is None
        return
    assert not remedy.text.startswith("No option")
    if remedy.kind in ("own_labels", "base_labels", "fresh_draws", "log_probabilities", "prompts"):
        assert remedy.amount > 0 and str(remedy.amount) in remedy.text
    else:
        assert remedy.kind in ("estimator", "judge") and remedy.amount is None and remedy.usd == 0
    for name in re.findall(r"estimator `([\w-]+)`", remedy.text):
        assert name in estimators.NAMES


def test_an_unknown_reason_of_a_caller_has_a_remedy_of_kind_data():
    remedy = remedy_for("found_by_hand", "refuse")
    assert remedy.kind == "data" and remedy.text.startswith("No option of this analysis helps")


@pytest.mark.parametrize(
    ("code", "level", "at_hand", "kind", "amount"),
    [
        ("few_labels", "caution", DIRECT, "base_labels", 5),
        ("few_labels", "refuse", replace(DIRECT, n_labels=6), "base_labels", 4),
        ("few_labels", "caution", replace(DIRECT, n_unlabelled=2), "prompts", 3),
        ("unsupported_labels", "refuse", DIRECT, "own_labels", 50),
        ("transport_failed", "refuse", replace(DIRECT, own=OwnLabels(20, 0.2, None)), "own_labels", 30),
        ("transport_inconclusive", "caution", replace(DIRECT, own=OwnLabels(20, 0.05, 28)), "own_labels", 8),
        ("transport_inconclusive", "caution", replace(DIRECT, own=OwnLabels(20, 0.2, 120)), "own_labels", 30),
        ("transport_failed", "refuse", replace(WEIGHTED, own=OwnLabels(60, 0.2, None)), "estimator", None),
        ("transport_failed", "refuse", replace(DIRECT, n_prompts=30, n_rows=30), "prompts", 20),
        ("low_ess", "refuse", WEIGHTED, "estimator", None),
        ("low_ess", "refuse", replace(WEIGHTED, has_draws=False), "fresh_draws", 400),
        ("low_ess", "refuse", replace(WEIGHTED, direct_supported=False), "own_labels", 50),
        ("rows_left_out", "caution", DIRECT, "fresh_draws", 20),
        ("uncalibrated_rewards", "refuse", DIRECT, "estimator", None),
        ("uncalibrated_rewards", "refuse", replace(DIRECT, n_labels=0, mode="none"), "base_labels", 10),
        ("weak_judge", "caution", replace(DIRECT, better_judge="judge_b"), "judge", None),
    ],
)
def test_a_remedy_has_the_kind_and_the_amount_that_is_missing(code, level, at_hand, kind, amount):
    remedy = remedy_for(code, level, at_hand)
    assert (remedy.kind, remedy.amount) == (kind, amount)


def test_where_own_labels_serve_the_audit_alone_the_remedy_sets_correction_joint():
    audit_alone = replace(DIRECT, own_correct="joint")
    assert (
        ", chosen at random, and set `correction: joint`"
        in remedy_for("unsupported_labels", "refuse", audit_alone).text
    )
    labelled = replace(audit_alone, own=OwnLabels(60, 0.2, None))
    assert remedy_for("transport_failed", "refuse", labelled).text.startswith("Set `correction: joint`")


def test_a_remedy_has_a_price_only_where_its_unit_prices_are_known():
    remedy = remedy_for("few_labels", "caution", prices=PRICES)
    assert remedy.usd == pytest.approx(5 * 0.5) and remedy.text.endswith("30 in total (about $2.50).")
    unknown = remedy_for("few_labels", "caution")
    assert unknown.usd is None and "$" not in unknown.text
    draws = replace(WEIGHTED, has_draws=False)
    assert remedy_for("low_ess", "refuse", draws, PRICES).usd == pytest.approx(400 * 0.02)
    assert remedy_for("low_ess", "refuse", draws, UnitPrices(label=0.5)).usd is None
    assert remedy_for("low_ess", "refuse", WEIGHTED).usd == 0  # the draws are there
    both = remedy_for("unsupported_labels", "refuse", draws, PRICES)
    assert both.usd == pytest.approx(50 * 0.5 + 400 * 0.02)


def test_one_measure_is_chosen_for_all_reasons_that_it_lifts():
    reasons = [Reason(code, ".", "refuse") for code in ("low_ess", "unsupported_labels", "few_effective_labels")]
    remedy_list = remedies_of(reasons, WEIGHTED, T)
    assert {remedy.kind for remedy in remedy_list} == {"own_labels"}
    assert len({remedy.text for remedy in remedy_list}) == 1
    assert [remedy.reason for remedy in remedy_list] == ["low_ess", "unsupported_labels", "few_effective_labels"]


def test_the_larger_of_two_amounts_of_one_kind_is_used_for_both_reasons():
    options = {
        "a": [Measure("base_labels", "Few", 3, labels=3)],
        "b": [Measure("base_labels", "Many", 9, labels=9), Measure("own_labels", "Own", 50, labels=50)],
    }
    assert {code: measure.amount for code, measure in cheapest(options, UnitPrices()).items()} == {"a": 9, "b": 9}


def test_remedies_of_refusals_come_first_and_cheaper_ones_before_expensive_ones():
    reasons = [
        Reason("bootstrap_too_short", ".", "caution"),
        Reason("few_labels", ".", "refuse"),
        Reason("judge_uninformative", ".", "refuse"),
        Reason("own_labels", ".", "ok"),
    ]
    remedy_list = remedies_of([r for r in reasons if r.level != "ok"], replace(DIRECT, n_labels=6), T)
    assert [remedy.reason for remedy in remedy_list] == ["few_labels", "judge_uninformative", "bootstrap_too_short"]
    assert [remedy.amount for remedy in remedy_list] == [4, 50, None]


# Numbers that remedies take from the data


def score_cells(seed: int = 0, labels: int = 20) -> tuple[ScoreCells, tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(seed)
    base, target = rng.beta(3, 2, 500), rng.beta(2, 3, 500)
    return ScoreCells.of(base[:labels], base[labels:], target, np.ones(500)), (base, target)


def test_limits_of_label_needs_agree_with_the_support_check():
    cells, (base, target) = score_cells()
    support = effective_labels(base[:20], target, np.ones(500))
    for share, count, expected in ((support.share, support.effective_labels, True), (support.share * 1.01, 0, False)):
        assert bool(Limits(share - 1e-9, count - 1e-9).hold(cells.mass, cells.labels)) == expected
    assert not Limits(0, support.effective_labels * 1.01).hold(cells.mass, cells.labels)


def test_the_number_of_random_labels_is_nearly_always_enough_and_half_of_it_is_not():
    cells, (base, target) = score_cells()
    limits = Limits(0.2, 30)
    count = cells.at_random(limits).count

    def share_of_sufficient_samples(more: int) -> float:
        rng = np.random.default_rng(1)
        enough = []
        for _ in range(200):
            chosen = rng.choice(base[20:], more, replace=False)
            support = effective_labels(np.concatenate([base[:20], chosen]), target, np.ones(500))
            enough.append(support.share >= limits.share and support.effective_labels >= limits.count)
        return float(np.mean(enough))

    assert share_of_sufficient_samples(count) > 0.9
    assert share_of_sufficient_samples(count // 2) < 0.5


def test_labels_at_chosen_scores_are_no_more_than_random_ones_and_have_a_score_range():
    cells, (base, target) = score_cells()
    limits = Limits(0.4, 30)
    at_scores, at_random = cells.at_scores(limits), cells.at_random(limits)
    assert 0 < at_scores.count <= at_random.count
    low, high = at_scores.scores
    assert 0 <= low < high < 1


def test_no_number_of_base_labels_is_proposed_where_none_suffices():
    cells = ScoreCells.of(np.linspace(0.6, 1, 30), np.linspace(0.6, 1, 300), np.linspace(0, 0.2, 100), np.ones(100))
    assert cells.at_random(Limits(0.33, 10)) is None and cells.at_scores(Limits(0.33, 10)) is None
    assert ScoreCells.of(np.ones(3), np.ones(3), np.full(4, np.nan), np.ones(4)) is None


def test_the_audit_usually_passes_with_the_estimated_number_of_own_labels():
    """It passes nine of ten times if the estimated shift is the true one; the Monte Carlo error of 40 draws is .05."""
    world = replace(WORLDS["healthy"], coverage=800, target_labels=15, noise=0.15, paired=True)
    passes = []
    for seed in range(40):
        logged, draws, _ = draw(world, 1500, seed)
        evaluation = evaluate("calibrated-ips", logged, None, Options(seed=seed))
        needed = needs_of_own(evaluation, draws["clone"], T, audited=1)
        assert needed.prompts == 15 and needed.spread > 0
        if needed.passing is not None:
            more = draw(replace(world, target_labels=max(needed.passing, 15)), 1500, seed)[1]["clone"]
            passes.append(audit(evaluation, logged, more, T, family=1).status == "PASS")
    assert len(passes) > 20 and np.mean(passes) > 0.75


def test_weights_within_reach_keep_the_raw_ess_above_the_caution_limit():
    log_ratio = 1.5 * np.random.default_rng(0).standard_normal(500)
    reach = weights_reach(log_ratio, T)

    def share(a: float) -> float:
        weight = hajek(a * log_ratio)
        return float(weight.sum() ** 2 / np.sum(weight**2) / len(weight))

    assert share(reach) >= T.ess_caution > share(reach + 0.05)
    assert np.isnan(weights_reach(np.full(5, -np.inf), T))


# Remedies in results


def test_every_policy_of_a_result_has_the_remedies_of_its_reasons(tmp_path):
    small_study = study(tmp_path / "s", 300, ("clone", "mid", "far"), coverage=0.12)
    results = [small_study.result(name) for name in ("calibrated-ips", "direct", "dr-cpo")]
    for result in results:
        assert list(schema.problems(result.document)) == []
        for policy, entries in result.document["remedies"].items():
            reasons = [r for r in result.verdicts[policy].reasons if r.level != "ok"]
            assert {remedy["reason"] for remedy in entries} == {reason.code for reason in reasons}
            assert set().union(*entries) <= {"reason", "kind", "amount", "usd", "text"}
        (sentence,) = result.remedies("far")
        assert f"remedy: far: {sentence}" in " ".join(console_table(result).split())
    page = dashboard.render([results[1]]).replace("<wbr>", "")
    assert f"<li>{escape(results[1].remedies('far')[0])}</li>" in page and page.count("What to do") >= 1


def test_a_results_file_whose_remedies_do_not_fit_its_verdicts_is_invalid(tmp_path):
    result = study(tmp_path / "s", 200, ("clone", "far"), coverage=0.2).result("direct")
    lacking = result.document | {"remedies": result.document["remedies"] | {"far": []}}
    assert "remedies.far lifts []" in next(schema.problems(lacking))
    others = {name: entries for name, entries in result.document["remedies"].items() if name != "far"}
    assert "remedies is of ['base', 'clone']" in next(schema.problems(result.document | {"remedies": others}))
    earlier = {name: value for name, value in result.document.items() if name not in ("remedies", "judge_worth")}
    assert list(schema.problems(earlier)) == []
    assert replace(result, document=earlier).remedies("far") == []


def test_the_remedy_for_a_target_far_from_the_base_is_own_labels_not_base_labels():
    """Base labels would lift its support, and its value would be wrong: its labels are lower at every score."""
    logged, draws, _ = draw(replace(WORLDS["no_transport"], coverage=62), 250, 1)
    evaluation = evaluate("direct", logged, draws, Options())
    evidence = gather(evaluation, logged, draws, T)
    verdicts = verdict.judge(evaluation, logged, evidence, T)
    assert not verdicts["unhelpful"].ok
    by_policy = remedies(evaluation, logged, draws, evidence, verdicts, T)
    assert {remedy.kind for remedy in by_policy["unhelpful"]} == {"own_labels"}
    assert by_policy["better"] == ()


@pytest.mark.filterwarnings("ignore:invalid value encountered in arctanh")  # a correlation of infinity
def test_every_reason_has_a_remedy_at_any_value_of_any_threshold():
    logged, draws, _ = draw(replace(WORLDS["no_transport"], coverage=40, target_labels=20), 120, 1)
    evaluations = [evaluate(name, logged, draws, Options()) for name in ("direct", "ips")]
    evaluations.append(evaluate("direct", logged, draws, Options(rewards="judge")))
    for field in fields(Thresholds):
        for value in (0.0, np.inf, -np.inf):
            thresholds = with_overrides({field.name: value})
            for evaluation in evaluations:
                evidence = gather(evaluation, logged, draws, thresholds)
                verdicts = verdict.judge(evaluation, logged, evidence, thresholds)
                by_policy = remedies(evaluation, logged, draws, evidence, verdicts, thresholds)
                for policy, of_policy in by_policy.items():
                    codes_of = {reason.code for reason in verdicts[policy].reasons if reason.level != "ok"}
                    assert {remedy.reason for remedy in of_policy} == codes_of, (field.name, value)


def test_most_refused_policies_are_published_once_their_remedies_are_applied():
    """Of about fifty refusals 95 % are published with their remedies; `make bench ONLY=coverage` has more of them."""
    rows = [row for one_study in STUDIES for seed in range(2) for row in outcomes(one_study, seed)]
    rows_with_remedy = [row for row in rows if row["published"] is not None]
    assert len(rows_with_remedy) >= 30 and {"own_labels", "base_labels", "estimator"} <= {
        row["kinds"] for row in rows_with_remedy
    }
    assert np.mean([row["published"] for row in rows_with_remedy]) >= 0.8
    assert np.mean([row["wrong"] for row in rows_with_remedy]) <= 0.1


def test_remedies_of_results_use_the_unit_prices_of_the_settings(tmp_path):
    small_study = study(tmp_path / "s", 200, ("clone", "far"), coverage=0.2)
    settings = analyze.Settings(Options(), prices=PRICES)
    draws = {policy: small_study.folder / "draws" / f"{k}.jsonl" for k, policy in enumerate(small_study.policies)}
    (result,) = arena_cje.results.analyze.analyze_all(
        small_study.folder / "logged.jsonl", draws, {"direct": "direct"}, settings
    ).values()
    (sentence,) = result.remedies("far")
    assert sentence.endswith("(about $25.00).") and result.document["remedies"]["far"][0]["usd"] == 25
