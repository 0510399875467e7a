"""Whether the labels show that the judge agrees with the oracle, and what is refused where they do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arena_cje.diagnostics.agreement import agreement, needed, rank_correlation
from arena_cje.diagnostics.evidence import gather
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.diagnostics.verdict import judge
from arena_cje.estimation import calibration
from arena_cje.estimation.records import Logged, Options
from arena_cje.evaluation.evaluate import evaluate_all
from arena_cje.simulate import WORLDS, draw

T = Thresholds()
ESTIMATORS_BY_JUDGE = ("direct", "calibrated-ips", "ips", "dr-cpo")


def logged_rows(score, label, **fields) -> Logged:
    n = len(score)
    return Logged("base", (), np.array([f"p{i}" for i in range(n)]), np.empty((n, 0)), score, label, **fields)


def agreement_of(score, label, thresholds=T, **options):
    covariates = options.pop("covariates", None)
    names = {"calibration": "two_stage", "covariates": ("x",)} if covariates is not None else {}
    fitted = calibration.fit(logged_rows(score, label, covariates=covariates), Options(**names, **options))
    return agreement(fitted, thresholds)


def correlated_pairs(rho, shape, seed):
    """Normal pairs whose Spearman correlation is rho."""
    rng = np.random.default_rng(seed)
    pearson = 2 * np.sin(np.pi * rho / 6)
    x, e = rng.standard_normal((2, *shape))
    return x, pearson * x + np.sqrt(1 - pearson**2) * e


@pytest.mark.parametrize("m", [120, 200, 1000])
def test_a_judge_unrelated_to_the_labels_passes_the_agreement_test_in_under_one_percent(m):
    x, y = correlated_pairs(0.0, (4000, m), 1)
    passes = [rank_correlation(a, b) > needed(m, 1.0, T) for a, b in zip(x, y, strict=True)]
    assert np.mean(passes) < 0.01


@pytest.mark.parametrize("m", [30, 50, 200])
def test_a_useful_judge_passes_the_agreement_test_in_over_95_percent(m):
    x, y = correlated_pairs(0.42, (2000, m), 2)
    passes = [rank_correlation(a, b) > needed(m, 1.0, T) for a, b in zip(x, y, strict=True)]
    assert np.mean(passes) > 0.95


def test_more_labels_need_less_correlation_once_both_errors_are_bounded():
    assert needed(200, 1.0, T) > needed(400, 1.0, T) > 0
    assert np.isnan(needed(3, 1.0, T))


def test_nearly_equal_labels_need_less_correlation():
    """One failure among forty: the best judge has a correlation of .27."""
    assert needed(40, 0.27, T) < 0 < needed(40, 1.0, T)


RNG = np.random.default_rng(0)
SCORE = RNG.random(200)
LABEL = (RNG.random(200) < 0.5).astype(float)


@pytest.mark.parametrize(
    ("score", "label", "is_sufficient"),
    [
        (SCORE, SCORE, True),
        (SCORE, LABEL, False),  # noise
        (SCORE, 1 - SCORE, False),  # reversed
        (np.full(200, 0.5), LABEL, False),  # constant
        (np.full(200, 0.5), np.ones(200), False),
        (SCORE, np.ones(200), True),  # equal labels are no evidence against the judge
    ],
)
def test_agreement_is_insufficient_for_noise_reversed_scores_and_constant_scores(score, label, is_sufficient):
    assert agreement_of(score, label).is_sufficient == is_sufficient


def test_with_covariates_agreement_is_that_of_the_calibration_index():
    """The score is noise, the covariate is the label with a little noise."""
    covariate = (LABEL + 0.1 * RNG.standard_normal(200))[:, None]
    assert not agreement_of(SCORE, LABEL).is_sufficient
    assert agreement_of(SCORE, LABEL, covariates=covariate).is_sufficient
    assert not agreement_of(SCORE, LABEL, covariates=RNG.random((200, 1))).is_sufficient


def test_several_labels_of_one_prompt_count_as_one_prompt():
    prompts = np.repeat([f"p{i}" for i in range(50)], 4)
    score = np.repeat(np.linspace(0, 1, 50), 4)
    logged = Logged("base", (), prompts, np.empty((200, 0)), score, LABEL)
    assert agreement(calibration.fit(logged, Options()), T).n_prompts == 50


def levels_by_code(names, logged, draws, **options):
    evaluations = evaluate_all(names, logged, draws, Options(**options))
    verdicts = {e: judge(one, logged, gather(one, logged, draws, T), T) for e, one in evaluations.items()}
    return {
        (name, policy): {reason.code: reason.level for reason in verdict.reasons}
        for name, by_policy in verdicts.items()
        for policy, verdict in by_policy.items()
    }


def useless_judge_data(n=1000, seed=0, **changes):
    logged, draws, _ = draw(replace(WORLDS["useless_judge"], coverage=200, **changes), n, seed)
    return replace(logged, covariates=None), {p: replace(d, covariates=None) for p, d in draws.items()}


def test_with_a_useless_judge_a_target_is_refused_unless_a_label_term_corrects_it():
    reasons = levels_by_code((*ESTIMATORS_BY_JUDGE, "tr-cpo"), *useless_judge_data())
    for name in ESTIMATORS_BY_JUDGE:
        assert reasons[name, "better"]["judge_uninformative"] == "refuse"
        assert "judge_uninformative" not in reasons[name, "base"]
    assert "judge_uninformative" not in reasons["tr-cpo", "better"]  # its label term has good overlap


def test_own_labels_exempt_a_target_from_judge_agreement_where_the_estimator_uses_them():
    reasons = levels_by_code(("direct", "calibrated-ips"), *useless_judge_data(target_labels=30))
    assert "judge_uninformative" not in reasons["direct", "better"]
    assert reasons["calibrated-ips", "better"]["judge_uninformative"] == "refuse"


def test_with_labels_on_every_response_importance_weighting_needs_no_judge():
    logged, draws = useless_judge_data(n=300)
    label = np.clip(RNG.standard_normal(300) * 0.2 + 0.5, 0, 1)
    reasons = levels_by_code(("calibrated-ips", "direct"), replace(logged, oracle_label=label), draws)
    assert "judge_uninformative" not in reasons["calibrated-ips", "better"]
    assert reasons["direct", "better"]["judge_uninformative"] == "refuse"


def test_a_target_with_the_log_probabilities_of_the_base_needs_no_judge_when_weighted():
    logged, draws = useless_judge_data()
    reasons = levels_by_code(("snips", "direct"), replace(logged, log_ratio=np.zeros_like(logged.log_ratio)), draws)
    assert "judge_uninformative" not in reasons["snips", "better"]
    assert reasons["direct", "better"]["judge_uninformative"] == "refuse"


def test_labels_that_are_all_equal_give_a_caution():
    logged, draws = useless_judge_data()
    logged = replace(logged, oracle_label=np.where(logged.labelled, 1.0, np.nan))
    assert levels_by_code(("direct",), logged, draws)["direct", "better"]["judge_unproven"] == "caution"
