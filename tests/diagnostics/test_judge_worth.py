"""What a judge is worth: the share of labels it saves within a policy, and further judges on the same labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import arena_cje
from arena_cje.data.logged import further_judges, read_logged
from arena_cje.data.reading import Reading
from arena_cje.diagnostics.judge_worth import MIN_PROMPTS, judge_worth, worth
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.estimation.calibration import fit
from arena_cje.estimation.records import Options
from arena_cje.report import dashboard
from arena_cje.results.sentences import judge_sentences
from arena_cje.results.text import console_table
from arena_cje.simulate import Target, World, draw

T = Thresholds()
CHAT = World({"shifted": Target(0.8, 0.2)}, coverage=200, target_labels=100, paired=True)


def simulated_worth(world: World = CHAT, n: int = 600, seed: int = 0, **further):
    logged, draws, _ = draw(world, n, seed)
    return judge_worth(fit(logged, Options()), logged, draws, further, T), logged, draws


def test_the_share_is_the_variance_that_rewards_explain_and_the_multiplier_follows_from_it():
    rng = np.random.default_rng(0)
    label, reward, cluster = rng.random(200), rng.random(200), np.arange(200)
    one = worth(label, reward, cluster)
    assert one.share == pytest.approx(1 - np.var(label - reward) / np.var(label))
    assert one.multiplier == pytest.approx(1 / (1 - one.share))
    assert one.interval[0] < one.share < one.interval[1]
    assert worth(label, 0.5 * label, cluster).share == pytest.approx(0.75)
    assert worth(label, np.full(200, 0.4), cluster).share == pytest.approx(0)


def test_the_interval_is_a_jackknife_over_prompts():
    rng = np.random.default_rng(1)
    label, cluster = rng.random(110), np.repeat(np.arange(55), 2)
    reward = 0.5 * label + 0.2 * rng.random(110)
    one = worth(label, reward, cluster)

    def log_ratio(rows: np.ndarray) -> float:
        return float(np.log(np.var((label - reward)[rows]) / np.var(label[rows])))

    without = np.array([log_ratio(cluster != c) for c in range(55)])
    se = np.sqrt(54 / 55 * np.sum((without - without.mean()) ** 2))
    half = 2.0048792881880567 * se  # Student's t with 54 degrees of freedom
    assert one.interval == pytest.approx(tuple(1 - np.exp(log_ratio(cluster >= 0) + np.array([half, -half]))))
    assert one.n_prompts == 55


def test_intervals_cover_the_share():
    """600 samples of 60 labels, with rewards from a fixed map; the Monte Carlo error is .009."""
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(600):
        reward = rng.beta(2, 1.5, 60)
        label = np.clip(reward + 0.2 * rng.standard_normal(60), 0, 1)
        one = worth(label, reward, np.arange(60))
        covered.append(one.interval[0] <= TRUE_SHARE <= one.interval[1])
    assert 0.92 < np.mean(covered) < 0.98


def _true_share() -> float:
    rng = np.random.default_rng(3)
    reward = rng.beta(2, 1.5, 10**6)
    label = np.clip(reward + 0.2 * rng.standard_normal(10**6), 0, 1)
    return float(1 - np.var(label - reward) / np.var(label))


TRUE_SHARE = _true_share()


def test_each_policy_has_its_own_share_and_a_shift_of_its_mean_label_changes_nothing():
    savings, logged, draws = simulated_worth()
    assert list(savings.policies) == ["base", "shifted"]
    assert savings.policies["base"].n_prompts == 200 and savings.policies["shifted"].n_prompts == 100
    assert all(0.3 < one.share < 0.9 for one in savings.policies.values())
    of_base_alone = judge_worth(fit(logged, Options()), logged, {}, {}, T)
    assert of_base_alone.policies["base"] == savings.policies["base"]
    label, reward = draws["shifted"].oracle_label[:, 0], draws["shifted"].judge_score[:, 0]
    label, reward = label[~np.isnan(label)], reward[~np.isnan(label)]
    code = np.arange(len(label))
    assert worth(label - 0.3, reward, code).share == pytest.approx(worth(label, reward, code).share)


def test_a_judge_compared_with_itself_needs_the_same_labels_and_a_noisier_one_needs_more():
    _, logged, _ = simulated_worth()
    noise = np.random.default_rng(4).standard_normal(len(logged.judge_score))
    partly = np.where(np.arange(len(noise)) % 4, logged.judge_score, np.nan)
    savings, *_ = simulated_worth(same=100 * logged.judge_score, noisy=logged.judge_score + noise, partly=partly)
    same, noisy = savings.others["same"], savings.others["noisy"]
    assert same.label_ratio == pytest.approx(1) and same.ratio_interval == pytest.approx((1, 1))
    assert noisy.label_ratio > 1.5 and noisy.ratio_interval[0] > 1
    assert noisy.worth.share < same.worth.share
    assert 0 < savings.others["partly"].worth.n_prompts < same.worth.n_prompts
    assert savings.better is None


def test_a_further_judge_that_agrees_better_with_the_oracle_is_reported():
    world = replace(CHAT, judge_slope=0.0, judge_style=1.0)
    logged, draws, _ = draw(world, 600, 0)
    logged = replace(logged, covariates=None)
    truth = np.where(np.isnan(logged.oracle_label), 0.5, logged.oracle_label)
    useful = truth + 0.3 * np.random.default_rng(5).standard_normal(len(truth))
    savings = judge_worth(fit(logged, Options()), logged, {}, {"judge_strong": useful}, T)
    assert savings.better == "judge_strong" and savings.others["judge_strong"].label_ratio < 0.9
    assert savings.others["judge_strong"].ratio_interval[1] < 1


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (np.linspace(0, 1, MIN_PROMPTS - 1), f"too few labelled prompts ({MIN_PROMPTS - 1}, minimum {MIN_PROMPTS})"),
        (np.ones(MIN_PROMPTS), "labels that are all equal"),
    ],
)
def test_the_share_is_unknown_with_a_reason_where_labels_are_too_few_or_all_equal(label, why):
    one = worth(label, 0.5 * label, np.arange(len(label)))
    assert np.isnan([one.share, one.multiplier, *one.interval]).all() and one.why_unknown == why


def test_a_judge_equal_to_the_labels_saves_all_of_them_and_has_no_interval():
    label = np.linspace(0, 1, 60)
    one = worth(label, label, np.arange(60))
    assert one.share == 1 and one.multiplier == np.inf and np.isnan(one.interval).all()
    data = [row | {"judge_score": row["oracle_label"], "judge_b": row["judge_score"]} for row in rows(60, 60)]
    data = [row | {"oracle_label": float(i % 2), "judge_score": float(i % 2)} for i, row in enumerate(data)]
    first, second = judge_sentences(arena_cje.analyze(data))
    assert first == "This judge saves 10 of 10 labels." and "times" not in second


def test_without_calibration_no_judge_worth_is_computed():
    logged, draws, _ = draw(CHAT, 300, 0)
    savings = judge_worth(fit(logged, Options(rewards="judge")), logged, draws, {"judge_b": logged.judge_score}, T)
    assert savings.policies == {} and savings.others == {}


def rows(n: int, labelled: int, **fields) -> list[dict]:
    logged, _, _ = draw(World(coverage=labelled), n, 0)
    return [
        {
            "prompt_id": f"p{i}", "prompt": "q", "response": f"r{i}", "base_policy_logprob": -5.0,
            "target_policy_logprobs": {"clone": -5.0}, "judge_score": float(logged.judge_score[i]),
            "oracle_label": None if np.isnan(logged.oracle_label[i]) else float(logged.oracle_label[i]),
        } | {name: values(i, float(logged.judge_score[i])) for name, values in fields.items()}
        for i in range(n)
    ]  # fmt: skip


def test_numeric_judge_fields_of_the_rows_are_read_as_further_judges():
    data = rows(
        40, 40,
        judge_b=lambda i, s: 100 * s if i else None,
        judge_why=lambda i, s: "because",
        judge_none=lambda i, s: None,
        metadata=lambda i, s: {"judge_c": s, "judge_flag": True, "other": 1.0},
    )  # fmt: skip
    responses, *_ = read_logged(data)
    judges = further_judges(responses, Reading())
    assert list(judges) == ["judge_b", "judge_c"]
    assert np.isnan(judges["judge_b"][0]) and judges["judge_b"][1:] == pytest.approx(100 * judges["judge_c"][1:])
    assert list(further_judges(responses, Reading(judge="c"))) == ["judge_b", "judge_score"]


def test_console_and_dashboard_report_the_labels_that_each_judge_saves():
    noise = np.random.default_rng(6).standard_normal(400)
    result = arena_cje.analyze(rows(400, 200, judge_noisy=lambda i, s: s + noise[i]))
    entry = result.document["judge_worth"]
    share, (low, high) = entry["policies"]["base"]["share"], entry["policies"]["base"]["interval"]
    first, second = judge_sentences(result)
    assert first == (
        f"This judge saves {10 * share:.0f} of 10 labels (95 % interval {10 * low:.0f} to {10 * high:.0f}): "
        f"{10 - round(10 * share)} labels with it are as precise as 10 without it."
    )
    assert (
        second.startswith("Judge judge_noisy saves ") and "times as many labels as this judge (95 % interval " in second
    )
    assert entry["further_judges"]["judge_noisy"]["label_ratio"] > 1
    table = " ".join(console_table(result).split())
    assert first in table and second in table
    page = dashboard.render([result])
    assert f"<p>{first}</p>" in page


def test_with_too_few_labels_the_result_reports_that_saved_labels_are_unknown():
    result = arena_cje.analyze(rows(100, 20))
    assert result.document["judge_worth"]["policies"]["base"]["share"] is None
    assert judge_sentences(result) == [
        "Labels that this judge saves: unknown, because of too few labelled prompts (20, minimum 50)."
    ]
    assert judge_sentences(arena_cje.analyze(rows(100, 40), rewards="judge")) == []
