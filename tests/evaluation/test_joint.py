"""The joint estimate on data sets: which estimators take part, pairs of labels, its variance, no effect without labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arena_cje import estimators
from arena_cje.diagnostics.evidence import gather
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.estimation.fresh import MIN_OWN
from arena_cje.estimation.records import Draws, Options
from arena_cje.evaluation.evaluate import evaluate, evaluate_all
from arena_cje.simulate import Target, World, draw

NAN = float("nan")
PLAIN, NONE = Options(correction="plain"), Options(correction="none")
AUGMENTED = [name for name in estimators.NAMES if estimators.needs_draws(name) and name != "tr-cpo"]
STRICT = World(
    {"better": Target(0.4, 0.3), "worse": Target(-0.4, 0.3)},
    coverage=60,
    target_labels=60,
    strictness=0.6,
    paired=True,
)


def numbers(evaluation) -> list[float]:
    """Values, standard errors and intervals of all policies, and their differences to the base."""
    figures = []
    for estimate in (evaluation.base, *evaluation.estimates.values()):
        difference = estimate - evaluation.base
        figures += [estimate.value, estimate.se, *estimate.interval(), difference.value, difference.se]
    return figures


@pytest.mark.parametrize("own", [0, MIN_OWN - 1])
def test_with_too_few_labels_of_targets_the_joint_estimate_is_the_plain_one(own):
    logged, draws, _ = draw(replace(STRICT, target_labels=own), 300, 0)
    joint, plain = (evaluate_all(estimators.NAMES, logged, draws, options) for options in (Options(), PLAIN))
    for name in estimators.NAMES:
        assert numbers(joint[name]) == numbers(plain[name])


def test_estimators_without_fresh_draws_or_with_a_label_term_ignore_the_joint_estimate():
    logged, draws, _ = draw(STRICT, 300, 0)
    names = [name for name in estimators.NAMES if name not in AUGMENTED]
    joint, plain = (evaluate_all(names, logged, draws, options) for options in (Options(), PLAIN))
    for name in names:
        assert numbers(joint[name]) == numbers(plain[name])


def test_with_labels_on_every_response_values_are_mean_labels_and_differences_are_paired():
    logged, draws, _ = draw(replace(STRICT, coverage=1.0, target_labels=1.0), 200, 0)
    evaluation = evaluate("direct", logged, draws, Options())
    label = {policy: one.oracle_label[:, 0] for policy, one in draws.items()} | {"base": logged.oracle_label}
    for policy, estimate in (evaluation.estimates | {"base": evaluation.base}).items():
        assert estimate.value == pytest.approx(label[policy].mean(), abs=1e-12)
        assert estimate.se == pytest.approx(label[policy].std(ddof=1) / np.sqrt(200))
    for policy in draws:
        difference = evaluation.estimates[policy] - evaluation.base
        assert difference.se == pytest.approx((label[policy] - label["base"]).std(ddof=1) / np.sqrt(200))


@pytest.mark.parametrize("name", AUGMENTED)
def test_a_target_with_the_responses_of_the_base_has_a_difference_of_zero(name):
    """The same scores and labels on the same prompts: the difference has no error, though each level has one.

    Doubly robust estimators add their weighted residual, which is small.
    """
    logged, _, _ = draw(replace(STRICT, targets={"clone": Target()}), 400, 0)
    draws = {"clone": Draws("clone", logged.judge_score[:, None], logged.oracle_label[:, None])}
    evaluation = evaluate(name, logged, draws, Options())
    difference = evaluation.estimates["clone"] - evaluation.base
    assert difference.value == pytest.approx(0, abs=1e-12 if name == "direct" else 3e-3)
    assert difference.oracle_variance < 1e-6 and evaluation.base.oracle_variance > 1e-5


def test_the_order_of_rows_and_policies_makes_no_difference():
    logged, draws, _ = draw(STRICT, 300, 1)
    order = np.random.default_rng(0).permutation(300)
    moved = replace(
        logged,
        policies=logged.policies[::-1],
        prompt_id=logged.prompt_id[order],
        log_ratio=logged.log_ratio[order][:, ::-1],
        judge_score=logged.judge_score[order],
        oracle_label=logged.oracle_label[order],
    )
    shuffled = {p: Draws(p, d.judge_score[order], d.oracle_label[order]) for p, d in draws.items()}
    one, other = evaluate("direct", logged, draws, Options()), evaluate("direct", moved, shuffled, Options())
    for policy in draws:
        assert other.estimates[policy].value == pytest.approx(one.estimates[policy].value, abs=1e-10)
        difference, other_difference = one.estimates[policy] - one.base, other.estimates[policy] - other.base
        assert (other_difference.value, other_difference.se) == pytest.approx(
            (difference.value, difference.se), abs=1e-10
        )


def test_the_jackknife_leaves_out_all_labels_of_a_prompt_together():
    """The jackknife leaves out pairs of labels: an effect that all labels of a prompt share is in no difference."""
    logged, draws, _ = draw(STRICT, 400, 0)
    rng = np.random.default_rng(0)
    # Labels in [.2, .8], and the same effect for all labels of a prompt.
    effect = np.where(logged.labelled, rng.choice([-0.2, 0.2], 400), NAN)
    logged = replace(logged, oracle_label=0.2 + 0.6 * logged.oracle_label)
    draws = {p: replace(d, oracle_label=0.2 + 0.6 * d.oracle_label) for p, d in draws.items()}
    moved_logged = replace(logged, oracle_label=logged.oracle_label + effect)
    moved_draws = {p: replace(d, oracle_label=d.oracle_label + effect[:, None]) for p, d in draws.items()}
    plain, shifted = (evaluate("direct", *data, Options()) for data in ((logged, draws), (moved_logged, moved_draws)))
    for policy in draws:
        assert shifted.estimates[policy].se > 1.3 * plain.estimates[policy].se
        ratio = (shifted.estimates[policy] - shifted.base).se / (plain.estimates[policy] - plain.base).se
        assert 0.75 < ratio < 1.25


@pytest.mark.parametrize(
    ("world", "n"),
    [
        (replace(STRICT, coverage=150), 400),  # targets have labels on some of the base's prompts
        (replace(STRICT, paired=False), 400),  # on other prompts
        (replace(STRICT, draws_per_prompt=3, target_labels=0.1), 300),
        (replace(STRICT, rows_per_prompt=(1, 3), coverage=0.4, draws_per_prompt=2, target_labels=0.5), 400),
        (replace(STRICT, coverage=1.0), 300),
    ],
    ids=["some", "others", "draws", "rows", "full"],
)
@pytest.mark.parametrize("name", ["direct", "dr-cpo"])
def test_values_are_near_the_truth_whichever_prompts_and_draws_have_labels(name, world, n):
    """Whatever prompts have labels, intervals of differences are on average hardly wider than under the plain correction."""
    z, widths = [], []
    for seed in range(6):
        logged, draws, values = draw(world, n, seed)
        joint, plain = (evaluate(name, logged, draws, options) for options in (Options(), PLAIN))
        for policy in draws:
            one = joint.estimates[policy]
            z.append((one.value - values[policy]) / one.se)
            difference = one - joint.base
            z.append((difference.value - values[policy] + values["base"]) / difference.se)
            widths.append(difference.se / (plain.estimates[policy] - plain.base).se)
    assert np.sqrt(np.mean(np.square(z))) < 1.5
    assert np.mean(widths) < 1.1


def test_paired_labels_narrow_differences():
    widths = []
    for seed in range(5):
        logged, draws, _ = draw(STRICT, 500, seed)
        joint, plain = (evaluate("direct", logged, draws, options) for options in (Options(), PLAIN))
        widths += [(joint.estimates[p] - joint.base).se / (plain.estimates[p] - plain.base).se for p in draws]
    assert np.mean(widths) < 0.75


def test_a_draw_without_a_score_is_left_out():
    logged, draws, values = draw(STRICT, 400, 2)
    missing = np.random.default_rng(0).random((400, 1)) < 0.1
    draws["better"] = replace(draws["better"], judge_score=np.where(missing, NAN, draws["better"].judge_score))
    evaluation = evaluate("direct", logged, draws, Options())
    assert evaluation.n_used == {"better": 400 - int(missing.sum()), "worse": 400}
    assert not evaluation.estimates["better"].influence[missing[:, 0]].any()
    for policy in draws:
        assert evaluation.estimates[policy].value == pytest.approx(values[policy], abs=0.1)


@pytest.mark.parametrize("name", AUGMENTED)
def test_without_correction_labels_of_targets_are_used_for_the_audit_alone(name):
    """The best responses have labels: with `none` the value is that without labels, and the audit still uses them."""
    logged, draws, _ = draw(STRICT, 400, 0)
    unlabelled = {p: replace(d, oracle_label=np.full_like(d.oracle_label, NAN)) for p, d in draws.items()}
    chosen, bare = evaluate(name, logged, draws, NONE), evaluate(name, logged, unlabelled, NONE)
    assert numbers(chosen) == numbers(bare)
    thresholds = Thresholds()
    audits = {
        options.correction: gather(evaluate(name, logged, draws, options), logged, draws, thresholds)["better"]
        for options in (NONE, PLAIN)
    }
    assert audits["none"].audit == audits["plain"].audit and audits["none"].audit.n_labels == 60
    assert (audits["none"].own_labels, audits["plain"].own_labels) == (0, 60)


def test_a_target_unlike_the_base_hardly_changes_the_values_of_the_others():
    """Its labels are not pooled: the values of the others move by little when it is there or not."""
    world = replace(STRICT, targets={"better": Target(0.4, 0.3), "unhelpful": Target(-3.0, 2.0, drop=0.5)})
    logged, draws, values = draw(world, 600, 0)
    alone = replace(logged, policies=("better",), log_ratio=logged.log_ratio[:, :1])
    both, one = evaluate("direct", logged, draws, Options()), evaluate("direct", alone, draws, Options())
    assert both.estimates["better"].value == pytest.approx(one.estimates["better"].value, abs=0.01)
    for policy in draws:
        estimate = both.estimates[policy]
        assert abs(estimate.value - values[policy]) < 3 * estimate.se


@pytest.mark.parametrize("labels", [20, 40])
def test_intervals_of_levels_and_differences_cover(labels):
    """120 draws: 105 of 120 covered has probability .001 at a coverage of .95; three values a draw go together."""
    world, covered = replace(STRICT, coverage=labels, target_labels=labels), []
    for seed in range(120):
        logged, draws, values = draw(world, 300, seed)
        evaluation = evaluate("direct", logged, draws, Options())
        one, difference = evaluation.estimates["worse"], evaluation.estimates["better"] - evaluation.base
        truths = values["worse"], values["better"] - values["base"]
        covered.append(
            [e.interval()[0] <= t <= e.interval()[1] for e, t in zip((one, difference), truths, strict=True)]
        )
    assert (np.sum(covered, axis=0) > 105).all()
