"""The decisions of a result in the results file, on the terminal and as an exit status: the same sentences everywhere, and only
what labels of both policies support."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from arena_cje import estimators
from arena_cje.__main__ import main
from arena_cje.errors import UserError
from arena_cje.estimation.contrasts import corrected_contrasts
from arena_cje.estimation.decision import JUDGE, LABELS, DecisionRule, level_of_each
from arena_cje.estimation.records import Estimate, Options
from arena_cje.evaluation.evaluate import evaluate
from arena_cje.files import read_json, write_json
from arena_cje.results import decision_file, recommendation
from arena_cje.results.decision import Side, decide, rounded_up, variance_parts
from arena_cje.results.result import Result, load, write
from arena_cje.simulate import Target, World, draw
from small_results import analyzed, write_data

# All policies are labelled on the same prompts, and their labels of a prompt are correlated.
LABELLED = World(
    {"same": Target(), "better": Target(1.2, 0.1), "worse": Target(-1.2, 0.1)},
    coverage=120,
    target_labels=120,
    strictness=0.6,
    paired=True,
)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("labelled"), world=LABELLED)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("unlabelled"))


@pytest.fixture(scope="module")
def result(labelled) -> Result:
    return analyzed(labelled, "direct", None)


def statuses(result: Result) -> dict[str, str]:
    return {policy: entry["status"] for policy, entry in result.decision["policies"].items()}


# ---- statuses ------------------------------------------------------------------------------------------------------------


def test_labels_of_both_sides_decide(result):
    assert statuses(result) == {"same": "not_yet_known", "better": "better_by_margin", "worse": "worse"}
    assert result.decision["headline"] == (
        "Compared with base, better is better by at least 0.02; worse is worse; same is not yet known to be better or worse."
    )


def test_a_wide_margin_shows_equivalence(labelled):
    analysis = analyzed(labelled, "direct", None, margin=0.2)
    assert statuses(analysis)["same"] == "equivalent"
    assert "same is equivalent within 0.2" in analysis.decision["headline"]


def test_a_difference_without_labels_of_its_side_decides_nothing(unlabelled):
    analysis = analyzed(unlabelled, "direct", 0.5)
    assert statuses(analysis) == {
        "same": "not_yet_known",
        "better": "not_yet_known",
        "near": "not_yet_known",
        "far": "refused",
    }
    entry = analysis.document["differences_to_base"]["better"]
    assert entry["corrected_interval"][0] > 0.02  # by its interval alone, it would be better by the margin
    assert [(reason["code"], reason["level"]) for reason in entry["reasons"]] == [("judge_only_difference", "caution")]
    assert "depends on judge scores alone" in analysis.decision["policies"]["better"]["sentence"]
    assert analysis.document["metadata"]["diagnostics"]["better"]["rests_on"] == JUDGE
    assert analysis.document["metadata"]["diagnostics"]["base"]["rests_on"] == LABELS


def test_transport_that_is_declared_lets_it_decide_and_the_caution_stays(unlabelled):
    analysis = analyzed(unlabelled, "direct", 0.5, assume_transport=True)
    assert statuses(analysis)["better"] == "better_by_margin"
    assert analysis.decision["policies"]["better"]["judge_only"] is True
    assert analysis.document["differences_to_base"]["better"]["reasons"][0]["code"] == "judge_only_difference"
    assert statuses(analysis)["far"] == "refused"


def test_labels_of_one_target_let_that_one_decide(tmp_path):
    """Nine labelled prompts do not correct an estimate, and so do not count."""
    folder = write_data(tmp_path, world=LABELLED)
    for policy, limit in (("better", 120), ("worse", 9), ("same", 0)):
        path = folder / "draws" / f"{policy}.jsonl"
        rows, count = [json.loads(line) for line in path.read_text().splitlines()], 0
        for row in rows:
            count += "oracle_label" in row
            if count > limit:
                row.pop("oracle_label", None)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rests_on = {
        policy: entry["rests_on"]
        for policy, entry in analyzed(folder, "direct", None).document["metadata"]["diagnostics"].items()
    }
    assert rests_on == {"base": LABELS, "better": LABELS, "worse": JUDGE, "same": JUDGE}


def test_an_audit_lets_the_judge_decide_only_where_it_holds_within_the_margin(tmp_path):
    """Labels of a target do not correct its weighted estimate: the audit passes, with a shift known to +-.007."""
    world = World({"near": Target(0.3, 0.1)}, coverage=300, target_labels=300, noise=0.1, paired=True)
    folder = write_data(tmp_path, world=world)
    for margin, rests_on, status in ((0.005, "judge", "not_yet_known"), (0.02, "audited_judge", "better_by_margin")):
        analysis = analyzed(folder, "calibrated-ips", None, margin=margin)
        diagnostics = analysis.document["metadata"]["diagnostics"]["near"]
        assert diagnostics["transport"]["status"] == "PASS"
        assert diagnostics["rests_on"] == rests_on
        assert statuses(analysis) == {"near": status}
        assert analysis.document["differences_to_base"]["near"]["reasons"][0]["level"] == "caution"


@pytest.mark.parametrize(
    ("estimator", "options", "use"),
    [
        ("calibrated-ips", {"margin": 0.005}, "use `direct`"),
        ("direct", {"margin": 0.005, "correction": "none"}, "set `correction: joint`, if they are a random sample"),
    ],
)
def test_own_labels_that_do_not_correct_the_estimate_are_named_with_what_they_would_correct(
    tmp_path, estimator, options, use
):
    world = World({"near": Target(0.3, 0.1)}, coverage=300, target_labels=300, noise=0.1, paired=True)
    analysis = analyzed(write_data(tmp_path, world=world), estimator, None, **options)
    sentence = analysis.decision["policies"]["near"]["sentence"]
    assert f"So that the 300 labels of its own responses correct it, {use}, or declare `assume_transport`." in sentence
    assert "Label at least" not in sentence


def test_the_same_policy_by_weights_alone_is_equivalent(labelled):
    """All its log ratios are zero, so that it gives the base's responses: no label of its own is needed."""
    analysis = analyzed(labelled, "snips", None)
    assert analysis.document["metadata"]["diagnostics"]["same"]["rests_on"] == LABELS
    assert statuses(analysis)["same"] == "equivalent"


def test_when_the_base_is_refused_every_policy_is_refused(unlabelled):
    analysis = analyzed(unlabelled, "direct", 0.02)  # eight labels
    assert set(statuses(analysis).values()) == {"refused"}
    assert analysis.decision["n_differences"] == 0
    assert not any(character.isdigit() for character in analysis.decision["headline"])


def test_policies_can_be_compared_with_another_policy_than_the_base(labelled):
    analysis = analyzed(labelled, "direct", None, against="better")
    assert statuses(analysis) == {"base": "worse", "same": "worse", "worse": "worse"}
    mirrored = analysis.decision["policies"]["base"]["difference"]
    assert mirrored == pytest.approx(-analysis.document["differences_to_base"]["better"]["difference"])
    pair = analysis.comparisons().to_dicts()[1]
    assert (pair["first"], pair["second"]) == ("better", "base")
    low, high = analysis.decision["policies"]["base"]["corrected_interval"]
    assert [-high, -low] == pytest.approx([pair["corrected_lower"], pair["corrected_upper"]])
    with pytest.raises(
        UserError, match=r"against is 'bettr', which is not a policy of the data \(did you mean 'better'\?\)"
    ):
        analyzed(labelled, "direct", None, against="bettr")


@pytest.mark.parametrize("name", estimators.NAMES)
def test_intervals_of_a_decision_are_simultaneous_over_its_published_differences(name, labelled):
    """Simultaneous over the differences that are published, of whichever estimator."""
    analysis = analyzed(labelled, name, None)
    count = analysis.decision["n_differences"]
    for policy, entry in analysis.decision["policies"].items():
        if entry["difference"] is not None:
            expected = (analysis.estimate(policy) - analysis.estimate("base")).interval(level_of_each(0.05, count))
            assert entry["corrected_interval"] == pytest.approx(expected, abs=1e-9)
            assert entry["corrected_interval"] == analysis.document["differences_to_base"][policy]["corrected_interval"]


def test_differences_of_equal_policies_are_called_better_or_worse_no_more_often_than_alpha():
    """Two targets that differ from the base by their samples alone, 60 prompts labelled for all: 200 studies by `direct`."""
    world = World(
        {"one": Target(0, 0.3), "two": Target(0, 0.3)}, coverage=60, target_labels=60, strictness=0.6, paired=True
    )
    false = 0
    for seed in range(200):
        logged, draws, _ = draw(world, 150, seed)
        evaluation = evaluate("direct", logged, draws, Options(jackknife_folds=10, seed=seed))
        pairs = corrected_contrasts({"base": evaluation.base} | evaluation.estimates, base="base")
        false += any(one.corrected_lower > 0 or one.corrected_upper < 0 for one in pairs if one.second == "base")
    assert false / 200 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


# ---- what a decision needs -----------------------------------------------------------------------------------------------


def side(values: np.ndarray, labelled: np.ndarray, value: float = 0.0) -> Side:
    n = len(values)
    estimate = Estimate(value, values - values.mean(), np.arange(n), np.empty(0), np.ones(n, dtype=bool))
    return Side(estimate, labelled, LABELS)


def test_the_parts_of_a_variance_agree_with_a_computation_by_hand():
    """The influence is a part of all prompts plus a residual of the labelled ones; each has its own part of the variance."""
    rng, n, m = np.random.default_rng(0), 20000, 4000
    of_prompts, residual = 0.1 * rng.standard_normal(n), 0.3 * rng.standard_normal(n)
    labelled = np.arange(n) < m
    influence = of_prompts + np.where(labelled, residual * n / m, 0.0)
    parts = variance_parts(side(influence, labelled).estimate, labelled)
    assert parts.prompts == pytest.approx(0.01 / n, rel=0.05)
    assert parts.labels == pytest.approx(0.09 / m, rel=0.1)


def test_a_study_with_labels_on_all_prompts_needs_more_prompts():
    values = np.random.default_rng(1).standard_normal(100)
    decision = decide(
        {"base": side(np.zeros(100), np.ones(100, dtype=bool)), "new": side(values, np.ones(100, dtype=bool), 0.05)},
        DecisionRule(),
        0.05,
        base="base",
    )
    entry = decision["policies"]["new"]
    assert entry["status"] == "not_yet_known"
    assert entry["needs"]["prompts"] > 100
    assert "More labels on these 100 prompts are not enough" in entry["sentence"]


def test_the_number_of_labels_that_a_decision_needs_is_the_same_for_both_policies():
    n, m = 4000, 200
    labelled = np.arange(n) < m
    values = np.where(labelled, np.random.default_rng(2).standard_normal(n) * 0.2 * n / m, 0.0)
    sides = {"base": side(np.zeros(n), labelled), "new": side(values, labelled, 0.015)}
    entry = decide(sides, DecisionRule(), 0.05, base="base")["policies"]["new"]
    needed = entry["needs"]["labels"]
    assert needed["new"] == needed["base"]
    assert m < needed["new"] <= n
    assert f"Labels of both policies on about {needed['new']:,} prompts (now 200) would show" in entry["sentence"]


def test_the_sentence_of_a_refused_policy_ends_with_the_remedy_of_its_reason():
    sides = {
        "base": side(np.zeros(50), np.ones(50, dtype=bool)),
        "new": replace(side(np.zeros(50), np.zeros(50, dtype=bool)), refusal="few labels", codes=("few_labels",)),
    }
    texts = {"weak_judge": "Take another judge.", "few_labels": "Label 40 of its responses."}
    remedies = {"new": [{"reason": code, "text": text} for code, text in texts.items()]}
    decision = decide(sides, DecisionRule(), 0.05, base="base", remedies=remedies)
    assert decision["policies"]["new"]["sentence"] == "new is refused: few labels. Label 40 of its responses."


@pytest.mark.parametrize(("count", "expected"), [(7, 7), (42, 42), (99.2, 100), (431, 440), (9999, 10000)])
def test_needed_numbers_are_rounded_up_to_two_digits(count, expected):
    assert rounded_up(count) == expected


# ---- the recommended estimator -------------------------------------------------------------------------------------------


def test_every_estimator_has_a_place_in_the_order_of_preference():
    assert set(recommendation.PREFERENCE) == set(estimators.NAMES)
    assert {name for name in estimators.NAMES if estimators.needs_draws(name)} == set(recommendation.WITH_DRAWS)


def test_own_labels_recommend_direct_whatever_the_order(labelled):
    results = [analyzed(labelled, name, None) for name in ("calibrated-ips", "dr-cpo", "direct")]
    choice = recommendation.recommend(results)
    assert choice.estimator == "direct"
    assert (
        "labels of their own responses correct the estimates of 3 of 3 targets (at least 120 labelled prompts each)"
        in choice.reason
    )
    assert [one.name for one in recommendation.recommended_first(results)] == ["direct", "calibrated-ips", "dr-cpo"]


def test_labels_under_weights_recommend_the_label_term_where_nothing_else_decides(unlabelled):
    results = [analyzed(unlabelled, name, 0.5) for name in ("calibrated-ips", "direct", "tr-cpo")]
    choice = recommendation.recommend(results)
    assert choice.estimator == "tr-cpo"
    assert "weighted labels of base responses support" in choice.reason


def test_without_labels_of_the_targets_the_fresh_draws_are_first(unlabelled, tmp_path):
    """Also where weights support the base policy under another name, which is half of the targets here."""
    results = [analyzed(unlabelled, name, 0.5) for name in ("calibrated-ips", "direct")]
    choice = recommendation.recommend(results)
    assert choice.estimator == "direct"
    clone = World({"clone": Target(), "better": Target(0.3, 0.1)}, coverage=1.0)
    folder = write_data(tmp_path, world=clone)
    results = [analyzed(folder, name, 0.5) for name in ("calibrated-ips", "direct")]
    assert recommendation.recommend(results).estimator == "direct"
    assert "no estimator has labels that support the differences of half of the targets" in choice.reason


def test_an_ablation_that_is_always_refused_is_not_recommended(unlabelled):
    results = [
        analyzed(unlabelled, "direct", 0.5, rewards="judge", variant="judge-alone"),
        analyzed(unlabelled, "calibrated-ips", 0.5),
    ]
    assert recommendation.recommend(results).estimator == "calibrated-ips"


# ---- the same words everywhere -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(labelled, tmp_path_factory):
    """decision.json of two estimators, and the results file of the first."""
    folder = tmp_path_factory.mktemp("files")
    results = [analyzed(labelled, name, None) for name in ("calibrated-ips", "direct")]
    for one in results:
        write(one, *(folder / f"{one.name}.{kind}" for kind in ("json", "csv", "influence.parquet")))
    write_json(folder / "decision.json", decision_file.document(results, "0.3"))
    return folder


def test_the_terminal_shows_the_decision_of_the_file(files):
    document, result = read_json(files / "decision.json"), load(files / "direct.json")
    assert document["recommended"]["estimator"] == "direct"
    assert document["decision"] == result.decision
    assert [one["estimator"] for one in document["headlines"]] == ["direct", "calibrated-ips"]
    assert list(result.decision["policies"]) == list(result.policies)  # in declared order
    words = " ".join(result.details().split())
    assert words.startswith(result.decision["headline"])
    for entry in result.decision["policies"].values():
        assert entry["status"] != "not_yet_known" or entry["sentence"] in words
    assert result.decision["headline"] in result._repr_html_()


def test_the_terminal_has_the_corrected_intervals_and_the_caution_beside_the_number(unlabelled):
    analysis = analyzed(unlabelled, "direct", 0.5)
    low, high = analysis.decision["policies"]["better"]["corrected_interval"]
    line = next(line for line in analysis.details().splitlines() if line.startswith("better") and "+" in line)
    assert f"[{low:+.3f}, {high:+.3f}]  not yet known (caution: judge scores alone)" in line
    assert "simultaneous 95 % intervals of 3 differences" in analysis.details()


def test_a_file_of_an_earlier_version_has_no_decision_and_is_shown(result, tmp_path, capsys):
    document = {name: part for name, part in result.document.items() if name != "decision"}
    assert str(Result(document)).startswith("direct: 400 logged responses")
    write_json(tmp_path / "old.json", document)
    assert main(["decide", str(tmp_path / "old.json"), "--ship", "better"]) == 3
    assert "has no decision" in capsys.readouterr().err


def test_show_prints_the_sentences_of_a_decision_file(files, capsys):
    assert main(["show", str(files / "decision.json")]) == 0
    text, document = " ".join(capsys.readouterr().out.split()), read_json(files / "decision.json")
    sentences = [entry["sentence"] for entry in document["decision"]["policies"].values()]
    for sentence in (document["decision"]["headline"], document["recommended"]["reason"], *sentences):
        assert sentence in text


@pytest.mark.parametrize(("policy", "code"), [("better", 0), ("worse", 1), ("same", 2)])
@pytest.mark.parametrize("file", ["decision.json", "direct.json"])
def test_the_exit_status_is_the_decision(file, policy, code, files, capsys):
    assert main(["decide", str(files / file), "--ship", policy]) == code
    output = capsys.readouterr().out
    assert load(files / "direct.json").decision["policies"][policy]["sentence"] in output
    assert output.startswith(f"Shipping {policy} is ")


def test_equivalent_supports_shipping_and_refused_does_not(labelled, unlabelled, tmp_path):
    for name, (folder, coverage, margin) in {"a": (labelled, None, 0.2), "b": (unlabelled, 0.5, 0.02)}.items():
        analysis = analyzed(folder, "direct", coverage, margin=margin)
        write_json(tmp_path / f"{name}.json", decision_file.document([analysis], "0.5"))
    assert main(["decide", str(tmp_path / "a.json"), "--ship", "same"]) == 0
    assert main(["decide", str(tmp_path / "b.json"), "--ship", "far"]) == 1
    assert main(["decide", str(tmp_path / "b.json"), "--ship", "better"]) == 2  # by judge scores alone


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["decision.json", "--ship", "bettr"], "no policy 'bettr' (did you mean 'better'?)"),
        (["decision.json", "--ship", "base"], "'base' is the policy that the others are compared with"),
        (["nothing.json", "--ship", "better"], "nothing.json"),
        ([".", "--ship", "better"], "is a folder; expected results/coverage_*/decision.json"),
        (["broken.json", "--ship", "better"], "broken.json"),
        (["decision.json"], "--ship"),
        (["decision.json", "--ship", "better", "--margin"], "--margin"),
        ([], "required"),
    ],
    ids=str,
)
def test_bad_arguments_or_files_of_decide_end_with_status_3_and_an_error(arguments, sentence, files, capsys):
    (files / "broken.json").write_text("{}")
    paths = [str(files / word) if word.endswith(".json") else word for word in arguments]
    try:
        status = main(["decide", *paths])
    except SystemExit as end:
        status = end.code
    assert status == 3
    assert sentence in capsys.readouterr().err


def test_the_help_names_each_status(capsys):
    with pytest.raises(SystemExit) as end:
        main(["decide", "--help"])
    assert end.value.code == 0
    help_text = capsys.readouterr().out
    for line in ("0  supported", "1  not supported", "2  not yet known", "3  no answer"):
        assert line in help_text


def test_the_error_for_a_missing_decision_file_names_existing_files_and_the_command(
    files, tmp_path, monkeypatch, capsys
):
    coverage = tmp_path / "results" / "coverage_0.1"
    coverage.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    decide_arguments = ["decide", "results/coverage_0.1/decision.json", "--ship", "better"]
    makes_it = "in the folder of the run `snakemake --cores 2 results/coverage_0.1/decision.json` makes it"
    assert main(decide_arguments) == 3
    assert capsys.readouterr().err == f"ERROR: results/coverage_0.1/decision.json: no such file; {makes_it}\n"
    for kind in ("json", "influence.parquet"):
        (coverage / f"direct.{kind}").write_bytes((files / f"direct.{kind}").read_bytes())
    assert main(decide_arguments) == 3
    there = "results files that are there: results/coverage_0.1/direct.json"
    assert capsys.readouterr().err.endswith(f"no such file; {there}; {makes_it}\n")
    assert main(["decide", "nowhere.json", "--ship", "better"]) == 3
    assert "expected results/coverage_*/decision.json, or a results file beside it" in capsys.readouterr().err
