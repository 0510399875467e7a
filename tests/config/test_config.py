"""The configuration: the shipped one is valid, and every error has a message of one sentence."""

from __future__ import annotations

import copy
import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from arena_cje.config import documents, targets
from arena_cje.config.parse import find_file, parse
from arena_cje.config.records import Config
from arena_cje.config.records.analysis import Analysis
from arena_cje.errors import UserError
from arena_cje.estimation.records import Options
from arena_cje.report.settings import settings
from arena_cje.yaml_files import check_config_file

SHIPPED = yaml.safe_load(Path("config/config.yaml").read_text())


@pytest.fixture
def raw():
    return copy.deepcopy(SHIPPED)


def error_of(raw) -> str:
    with pytest.raises(UserError) as error:
        parse(raw)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_shipped_configuration_is_valid(raw):
    config = parse(raw)
    assert config.targets == ("clone", "unhelpful", "parallel_universe_prompt", "concise", "cool")
    assert config.policies["clone"].sampling == config.policies["base"].sampling
    assert config.policies["cool"].context == config.policies["base"].context


def test_policies_that_differ_by_temperature_share_a_context(raw):
    config = parse(raw)
    assert config.samplings("smollm2-helpful") == [
        {"temperature": 0.9, "top_p": 1.0},
        {"temperature": 1.0, "top_p": 1.0},
    ]
    assert len(config.contexts) == 4


def test_coverages_may_be_written_as_numbers(raw):
    raw["coverages"] = [0.05, 0.1, 1.0]
    assert parse(raw).coverages == ["0.05", "0.1", "1.0"]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("n_promts",), 3, "unknown key `n_promts` (did you mean 'n_prompts'?)"),
        (
            ("policies", "clone", "temprature"),
            1,
            "unknown key `policies.clone.temprature` (did you mean 'temperature'?)",
        ),
        (("oracle", "covrage"), 1, "unknown key `oracle.covrage`"),
        (("base_policy",), "bse", "base policy 'bse' is not under `policies` (did you mean 'base'?)"),
        (
            ("policies", "clone", "like"),
            "bas",
            "policy 'clone' is like 'bas', which is not under `policies` (did you mean 'base'?)",
        ),
        (("policies", "base", "like"), "clone", "in a cycle"),
        (("policies", "clone", "model"), "smollm", "which is not under `models` (did you mean 'smollm2'?)"),
        (("policies", "base", "temperature"), 0, "temperature 0"),
        (("policies", "clone", "max_tokens"), 16, "give both the same `max_tokens`"),
        (("policies", "clone", "top_p"), 0, "greater than 0, got 0"),
        (("policies", "my policy"), {"like": "base"}, "a name starts with a letter"),
        (("estimators",), ["calibrated-isp"], "unknown estimator 'calibrated-isp' (did you mean 'calibrated-ips'?)"),
        (("coverages",), ["0.10"], "coverage_0.1"),
        (("coverages",), ["1.5"], "(0, 1]"),
        (("coverages",), [0], "(0, 1]"),
        (("models", "smollm2", "path"), "x.gguf", "not both or neither"),
        (("n_prompts",), 0, "greater than or equal to 1, got 0"),
        (("fresh_draws",), "folder", "without `logged_data`"),
        (("policies",), ["base", "clone"], "expected a block of keys for each policy name"),
        (("policies",), {}, "base policy 'base' is not under `policies`; defined: none"),
        (("policies", "clone"), "base", "`policies.clone`: expected a block of keys, got 'base'"),
        (("estimators",), ["snips", "snips"], "`estimators` lists 'snips' more than once"),
        (("coverages",), ["0.1", 0.1], "`coverages` lists '0.1' more than once"),
        (("oracle", "truth"), "some", "unable to parse string as a number, got 'some'"),
        (("oracle", "truth"), 2, "less than or equal to 1, got 2"),
        (("oracle", "target_labels"), 1.2, "less than or equal to 1, got 1.2"),
        (
            ("analysis", "covariates"),
            ["response_length"],
            "`analysis`: calibration 'monotone' uses the judge score alone",
        ),
        (("analysis", "calibration"), "isotonic", "'monotone', 'two_stage' or 'auto', got 'isotonic'"),
        (("analysis", "n_bootstrap"), 1, "greater than or equal to 2, got 1"),
        (("analysis", "label_trem"), True, "unknown key `analysis.label_trem` (did you mean 'label_term'?)"),
        (("analysis", "scale"), [0, 100], "`analysis.scale` is set without `logged_data`"),
        (("probes",), "folder", "`probes` is set without `logged_data` and `fresh_draws`"),
        (("variants", "mine"), {"clip": 5}, "`variants.mine.estimator` is missing"),
        (
            ("variants", "mine"),
            {"estimator": "dircet"},
            "`variants.mine.estimator` is 'dircet', which is no estimator (did",
        ),
        (("variants", "snips"), {"estimator": "direct"}, "variant 'snips' has the name of an estimator"),
        (("variants", "summary"), {"estimator": "direct"}, "variant 'summary' has the name of another file"),
        (("variants", "my own"), {"estimator": "direct"}, "a name starts with a letter"),
        (
            ("variants", "mine"),
            {"estimator": "direct", "calibraton": "auto"},
            "unknown key `variants.mine.calibraton` (did you mean 'calibration'?)",
        ),
        (("variants", "mine"), {"estimator": "direct", "scale": [0, 1]}, "unknown key `variants.mine.scale`"),
        (
            ("variants", "mine"),
            {"estimator": "direct", "covariates": ["response_length"]},
            "`variants.mine`: calibration 'monotone' uses the judge score alone",
        ),
        (
            ("variants", "mine"),
            {"estimator": "direct", "calibration": "auto", "covariates": ["oracle_label"]},
            "`variants.mine`: covariate 'oracle_label' is another field of the CJE format",
        ),
        (("judge",), None, "`judge` is missing"),
        (("verdict",), {"few_lables": 3}, "few_lables"),
    ],
)
def test_a_wrong_configuration_is_refused_with_one_sentence(raw, path, value, sentence):
    block = raw
    for key in path[:-1]:
        block = block[key]
    block[path[-1]] = value
    assert sentence in error_of(raw)


def test_user_data_need_no_policies():
    config = parse({"logged_data": "mine.jsonl", "coverages": ["0.1"]})
    assert config.policies == {}


def test_the_users_policies_replace_the_shipped_ones(raw):
    user_keys = {"policies": {"base": {"model": "smollm2"}, "mine": {"like": "base", "temperature": 0.5}}}
    merged = raw | {"policies": raw["policies"] | user_keys["policies"]}
    assert list(parse(merged, user_keys=user_keys).policies) == ["base", "mine"]
    with pytest.raises(UserError, match="defined: none"):
        parse(raw, user_keys={"policies": {}})


def test_a_model_path_of_the_user_replaces_the_shipped_file(raw):
    raw["models"]["smollm2"]["path"] = "mine.gguf"
    model = parse(raw, user_keys={"models": {"smollm2": {"path": "mine.gguf"}}}).models["smollm2"]
    assert (model.path, model.file) == ("mine.gguf", None)


def test_the_name_of_a_context_is_valid_in_a_path(raw):
    raw["policies"]["clone"]["system_prompt"] = "folder/my grüß prompt.txt"
    assert parse(raw).policies["clone"].context == "smollm2-my_gr_prompt"
    raw["policies"]["cool"]["system_prompt"] = "my_gr_prompt.txt"
    assert "would share the name 'smollm2-my_gr_prompt'" in error_of(raw)


def test_the_analysis_has_the_defaults_of_the_library():
    assert Config().analysis.options(seed=42) == Options()
    other_stages = {
        "alpha",
        "scale",
        "judge_scale",
        "label_scale",
        "judge",
    }  # options of intervals and of reading the data
    assert {field.name for field in fields(Options)} - {"seed"} == set(Analysis.model_fields) - other_stages


def test_the_shipped_analysis_is_the_default_one(raw):
    assert parse(raw).analysis == Analysis()


def test_a_variant_changes_the_options_that_it_sets_and_no_others(raw):
    raw["analysis"] |= {"calibration": "two_stage", "covariates": ["response_length"], "alpha": 0.1}
    raw["variants"] = {"plain": {"estimator": "direct", "calibration": "monotone", "covariates": []}}
    raw["estimators"] = ["direct", "plain"]
    config = parse(raw)
    assert config.estimator_of("direct") == ("direct", config.analysis.model_dump())
    estimator, analysis = config.estimator_of("plain")
    assert estimator == "direct"
    changed = {"calibration": "monotone", "covariates": ()}
    assert analysis == config.analysis.model_dump() | changed
    # A default value that the variant sets replaces the value of the analysis.
    raw["variants"]["plain"]["alpha"] = 0.05
    assert parse(raw).estimator_of("plain")[1]["alpha"] == 0.05


def test_a_variant_is_a_target_like_an_estimator(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw["variants"] = {"direct-length": {"estimator": "direct"}, "hajek": {"estimator": "snips"}}
    config = parse(raw)
    targets.check(["results/coverage_0.1/direct-length.json", "results/coverage_0.3/hajek.csv"], config)
    with pytest.raises(UserError, match=r"unknown estimator 'direct-lenght' \(did you mean 'direct-length'\?\)"):
        targets.check(["results/coverage_0.1/direct-lenght.json"], config)
    user_data = parse({"logged_data": "mine.jsonl", "variants": raw["variants"]})
    assert (user_data.can_run("hajek"), user_data.can_run("direct-length")) == (True, False)
    with pytest.raises(UserError, match="'direct-length' needs fresh draws"):
        targets.check(["results/coverage_0.1/direct-length.json"], user_data)
    paths = ["results/coverage_0.1/hajek.json", "results/coverage_0.1/summary.json", "results/coverage_0.1/hajek.csv"]
    assert targets.estimate_files(paths) == ["results/coverage_0.1/hajek.json"]


def test_a_share_of_target_labels_is_the_coverage_of_the_targets(raw):
    assert parse(raw).oracle.target_coverage("0.5") is None
    for share, name in ((0, None), (0.25, "0.25"), (1, "1.0")):
        raw["oracle"]["target_labels"] = share
        assert parse(raw).oracle.target_coverage("0.5") == name


def test_labels_of_the_targets_may_follow_the_coverage(raw):
    raw["oracle"]["target_labels"] = "coverage"
    raw["coverages"] = ["0.5", "0.1"]
    raw["looks"] = {"coverages": ["0.2", "0.05"]}
    config = parse(raw)
    assert config.oracle.target_coverage("0.2") == "0.2"
    target = config.targets[0]
    assert config.label_coverages(target)[:4] == ["0.05", "0.1", "0.2", "0.5"] == config.label_coverages("base")[:4]
    assert config.lower_coverage(target, "0.2") == "0.1"
    assert config.look_coverages == ["0.05", "0.2"]
    assert config.human_shares[target] == 1.0


def test_planned_looks_are_targets(raw):
    config = parse(raw | {"looks": {"coverages": ["0.2", "0.05"]}})
    paths = ["results/coverage_auto/direct.json", "results/coverage_auto/snips/look_0.05.json"]
    targets.check(paths, config)
    assert targets.asks_for_looks(paths) and not targets.asks_for_looks(["results/coverage_0.1/direct.json"])
    assert targets.estimate_files([*paths, "results/coverage_0.2/direct.json"]) == [
        "results/coverage_0.2/direct.json",
        "results/coverage_auto/direct.json",
    ]
    with pytest.raises(UserError, match="unknown estimator 'dirct' .did you mean 'direct'"):
        targets.check(["results/coverage_auto/dirct.json"], config)
    with pytest.raises(UserError, match="there is no such target"):
        targets.check(["results/coverage_auto/direct/look_0.1.json"], config)


@pytest.mark.parametrize(
    ("looks", "sentence"),
    [
        ({"until": "width"}, "give `width` with `until: width`"),
        ({"width": 0.1}, "give `width` with `until: width`"),
        ({"coverages": ["0.1", "0.1"]}, "`looks.coverages` lists '0.1' more than once"),
        ({"coverages": ["0.5"], "max_labels": 10}, "the first look, at coverage 0.5, needs"),
        ({"spent": 1}, "spending"),
    ],
)
def test_impossible_planned_looks_are_refused(raw, looks, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(raw | {"looks": looks})


def test_user_data_may_have_another_scale():
    assert parse({"logged_data": "mine.jsonl", "analysis": {"scale": [0, 100]}}).analysis.scale == (0.0, 100.0)
    for wrong in ([1, 1], [5, 1]):
        with pytest.raises(UserError, match=r"`analysis\.scale`: scale is .*lowest, highest"):
            parse({"logged_data": "mine.jsonl", "analysis": {"scale": wrong}})
    with pytest.raises(UserError, match="analysis.scale"):
        parse({"logged_data": "mine.jsonl", "analysis": {"scale": [1]}})


def test_probes_need_fresh_draws():
    parse({"logged_data": "mine.jsonl", "fresh_draws": "draws", "probes": "probes", "calibration_data": "more.jsonl"})
    with pytest.raises(UserError, match="`probes` is set without"):
        parse({"logged_data": "mine.jsonl", "probes": "probes"})


def test_the_example_variant_in_the_shipped_configuration_is_valid(raw):
    example = re.search(r"variants: .*under a name, e\.g\. (\{.*\})", Path("config/config.yaml").read_text())[1]
    raw["variants"] = yaml.safe_load(example)
    assert parse(raw).variants["direct-length"].estimator == "direct"


def test_the_example_threshold_in_the_shipped_configuration_is_valid(raw):
    example = re.search(r"verdict: .*e\.g\. (\{.*?\})", Path("config/config.yaml").read_text())[1]
    raw["verdict"] = yaml.safe_load(example)
    assert parse(raw).verdict


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("./results/coverage_0.10/snips.json", "write coverage_0.1"),
        ("results/oracle/base/coverage_0.10.jsonl", "write coverage_0.1"),
        ("results/responses/base.json", "(did you mean 'results/responses/base.jsonl'?)"),
        ("results/coverage_0.1/snips.jsn", "(did you mean 'results/coverage_0.1/snips.json'?)"),
        ("results/models/foo.json", "no such target"),
        (
            "my run/results/coverage_0.1/decision.html",
            "from the folder of the run (--directory), here results/coverage_0.1/",
        ),
        ("/run/results/coverage_0.1/plots/x.png", "(--directory), here results/coverage_0.1/plots/x.png"),
        ("results/coverage_0.1", "no such target"),
        ("results/ablation/sumary.csv", "did you mean 'results/ablation/summary.csv'?"),
        ("results/coverage_0.10/calibrated-ips.json", "write coverage_0.1"),
        ("results/coverage_2/calibrated-ips.json", "(0, 1]"),
        ("results/coverage_0.1/calibrated-isp.json", "did you mean 'calibrated-ips'?"),
        ("results/responses/clon.jsonl", "unknown policy 'clon' (did you mean 'clone'?)"),
        ("results/coverage_0.1/fresh_draws/clon.jsonl", "unknown policy 'clon'"),
    ],
)
def test_an_impossible_target_is_refused_with_one_sentence(raw, target, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # away from results that a run may have left here
    with pytest.raises(UserError, match=".") as error:
        targets.check([target], parse(raw))
    assert sentence in str(error.value)


def test_valid_targets_are_accepted(raw):
    arguments = [
        "-n",
        "./results/coverage_0.1/decision.html",
        "run=../results/coverage_0.1/decision.html",
        "results/coverage_0.33/raw-ips.csv",
        "results/coverage_0.1/validation.csv",
        "results/prompts.jsonl",
    ]
    arguments += ["results/oracle/clone/coverage_0.7.jsonl", "results/logprobs/smollm2-helpful/0001.parquet", "all"]
    arguments += [
        "results/ablation/summary.csv",
        "results/ablation/plots/errors.png",
        "results/ablation/cells/n250/00020.parquet",
    ]
    arguments += ["results/responses/base/0012.jsonl", "--report", "results/report.html"]
    targets.check(arguments, parse(raw))


def test_label_shards_are_targets_only_if_a_model_is_the_oracle(raw):
    shard = "results/oracle/clone/coverage_0.7/0003.jsonl"
    with pytest.raises(UserError, match="no such target"):
        targets.check([shard], parse(raw))  # the reference oracle labels all shards in one job
    raw["oracle"] |= {"provider": "llama_cpp", "model": "smollm2"}
    targets.check([shard], parse(raw))


GROUP = ("results/coverage_{coverage}/a.json", "results/coverage_{coverage}/b.json")


@pytest.mark.parametrize(
    ("arguments", "existing", "alone"),
    [
        (["--cores", "2"], (), False),
        (["results/coverage_0.1/a.json"], (), True),
        (["results/coverage_0.1/a.json"], ("results/coverage_0.1/a.json",), True),  # the job of one file made it before
        (["results/coverage_0.1/a.json"], ("results/coverage_0.1/a.json", "results/coverage_0.1/b.json"), False),
        (["./results/coverage_0.2/b.json"], ("results/coverage_0.1/a.json", "results/coverage_0.1/b.json"), True),
        (["results/coverage_0.1/c.json"], (), False),
        (["--report", "results/coverage_0.1/a.json"], (), False),
    ],
)
def test_a_file_is_made_alone_if_it_is_requested_and_other_files_of_its_job_are_missing(arguments, existing, alone):
    assert targets.asks_for_one(arguments, GROUP, exists=existing.__contains__) is alone


@pytest.mark.parametrize(
    ("arguments", "everything"),
    [
        (["--cores", "2"], True),
        (["all"], True),
        (["results/archive.zip"], True),
        (["estimates"], False),
        (["results/archive.zip", "results/plots/sweep.png"], False),
        (["cost"], False),
        (["ablation"], False),
    ],
)
def test_the_whole_experiment_is_requested_if_no_part_of_it_is_named(arguments, everything):
    assert targets.whole_experiment(arguments) is everything


def test_a_group_is_complete_if_its_files_exist_at_the_requested_coverages():
    existing = [file.format(coverage="0.1") for file in GROUP]
    assert targets.complete(["results/coverage_0.1/c.png"], GROUP, ["0.1", "0.5"], exists=existing.__contains__)
    assert not targets.complete(["results/coverage_0.5/c.png"], GROUP, ["0.1", "0.5"], exists=existing.__contains__)
    assert not targets.complete(["estimates"], GROUP, ["0.1", "0.5"], exists=existing.__contains__)
    assert targets.complete(["estimates"], GROUP, ["0.1"], exists=existing.__contains__)


@pytest.mark.parametrize(("missing", "few"), [((), False), (("a",), True), (("b",), True), (("a", "b"), False)])
def test_one_missing_means_that_a_group_lacks_one_file_and_no_group_lacks_more(missing, few):
    lacking = {f"results/coverage_0.1/{name}.json" for name in missing}
    assert targets.one_missing([GROUP], ["0.1", "0.5"], exists=lambda file: file not in lacking) is few


def test_a_validation_without_true_values_is_refused(raw):
    raw["oracle"]["truth"] = "none"
    with pytest.raises(UserError, match="`oracle.truth` is none"):
        targets.check(["results/coverage_0.1/validation.csv"], parse(raw))
    with pytest.raises(UserError, match="a user's own data are unknown"):
        targets.check(["results/coverage_0.1/validation.csv"], parse({"logged_data": "mine.jsonl"}))


def test_files_of_the_working_directory_are_used_before_shipped_ones(tmp_path, monkeypatch):
    resources = Path("resources").absolute()
    monkeypatch.chdir(tmp_path)
    assert find_file("helpful.txt", "policies", workflow_resources=resources) == resources / "policies" / "helpful.txt"
    (tmp_path / "helpful.txt").write_text("Mine.")
    assert find_file("helpful.txt", "policies", workflow_resources=resources) == Path("helpful.txt")
    with pytest.raises(UserError, match="did you mean 'helpful.txt'"):
        find_file("helpfull.txt", "policies", workflow_resources=resources)


def test_a_file_in_place_of_the_results_folder_is_refused(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(UserError, match="is a file"):
        targets.check_writable(tmp_path / "results")


def test_the_documents_of_the_configuration_are_up_to_date():
    hint = "run python -m arena_cje.config.documents"
    assert documents.readme() == documents.README.read_text(), hint
    assert documents.schema() == documents.SCHEMA.read_text(), hint


def test_a_judge_scale_applies_only_to_the_judge_that_it_was_set_for():
    variants = {
        "length": {"estimator": "direct", "calibration": "two_stage", "covariates": ["response_length"]},
        "other": {"estimator": "direct", "judge": "b"},
        "scaled": {"estimator": "direct", "judge": "b", "judge_scale": [1, 5]},
    }
    analysis = {"judge_scale": [0, 10], "label_scale": [0, 1]}
    config = parse({"logged_data": "mine.jsonl", "analysis": analysis, "variants": variants})
    scales = {name: config.estimator_of(name)[1]["judge_scale"] for name in ("direct", *variants)}
    assert scales == {"direct": (0, 10), "length": (0, 10), "other": None, "scaled": (1, 5)}
    assert all(config.estimator_of(name)[1]["label_scale"] == (0, 1) for name in variants)
    for key in ("judge_scale", "label_scale"):
        with pytest.raises(UserError, match=rf"`analysis\.{key}`: {key} is .*lowest, highest"):
            parse({"logged_data": "mine.jsonl", "analysis": {key: [1, 0]}})
        with pytest.raises(UserError, match=rf"`analysis\.{key}` is set without `logged_data`"):
            parse({"analysis": {key: [0, 10]}})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("seed: 3 # Sé".encode("cp1252"), r"config\.yaml:1: is not valid UTF-8 text: byte 0xe9 at position 11"),
        ("seed: 3".encode("utf-16"), r"config\.yaml: is UTF-16 or UTF-32 text, and Snakemake reads UTF-8"),
    ],
)
def test_a_configuration_in_another_encoding_is_refused_with_one_sentence(content, sentence, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        check_config_file(path)
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_bytes("seed: 3 # Sé\r\n".encode(encoding))
        check_config_file(path)


def test_every_documented_key_is_in_the_shipped_configuration():
    def keys(block, prefix=""):
        for key, value in block.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict) and key not in ("models", "policies", "verdict"):
                yield from keys(value, f"{prefix}{key}.")

    documented = {name for name, _, _ in documents._keys(documents.Config, "") if ".NAME." not in name}
    # Keys for files of other tools are not in the shipped file, where `logged_data` is null.
    blocks = {name for name in documented if name.startswith("logged_data.")}
    assert documented - blocks <= set(keys(SHIPPED))


def test_recorded_settings_omit_folders_and_keys_that_do_not_affect_the_results(raw, tmp_path):
    raw |= {"logged_data": str(tmp_path / "mine.jsonl"), "fresh_draws": "/somewhere/else/draws", "model_slots": 3}
    recorded_settings = settings(parse(raw), folder=tmp_path)
    assert (recorded_settings["logged_data"], recorded_settings["fresh_draws"]) == ("mine.jsonl", "draws")
    assert not {"model_slots", "models", "policies", "judge", "oracle", "ablation"} & set(recorded_settings)
    assert recorded_settings == settings(parse(raw | {"model_slots": 1, "n_prompts": 7}), folder=tmp_path)


def test_recorded_settings_omit_numbers_of_threads_and_descriptions(raw, tmp_path):
    recorded_settings = settings(parse(raw), folder=tmp_path)
    raw["models"]["smollm2"]["n_threads"] = 3
    raw["policies"]["cool"]["description"] = "warmer"
    assert settings(parse(raw), folder=tmp_path) == recorded_settings
    raw["policies"]["cool"]["temperature"] = 0.7
    assert settings(parse(raw), folder=tmp_path) != recorded_settings


def test_a_configuration_without_an_estimator_that_can_run_is_refused(raw):
    assert "none of `estimators` can run: direct" in error_of(
        raw | {"logged_data": "a.jsonl", "estimators": ["direct"]}
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logged_data": "mine.jsonl"}, "'by_score', but `logged_data` already has its labels.*as `label_probability`"),
        (
            {"oracle": {"truth": 0.5}},
            "`oracle.truth` is 0.5, but .*`oracle.design: by_score` does not label at random; set 'none' or 'all'",
        ),
        (
            {"oracle": {"provider": "human"}, "labeling": {"batches": {"first": {"coverage": 0.1}}}},
            "people .* label batches of random prompts; use 'uniform'",
        ),
    ],
)
def test_labels_chosen_by_score_are_refused_for_own_data_partial_truth_and_people(raw, changes, message):
    raw["oracle"]["design"] = "by_score"
    assert parse(raw).oracle.is_by_score
    changes = {name: raw[name] | value if name == "oracle" else value for name, value in changes.items()}
    with pytest.raises(UserError, match=message):
        parse(raw | changes)
