"""Every results file follows its schema; one that publishes a refused estimate or lacks a declared field is not written."""

from __future__ import annotations

import copy
import json

import pytest
from jsonschema import Draft202012Validator

from arena_cje import estimators
from arena_cje.data import schemas
from arena_cje.files import read_json
from arena_cje.results import schema as results_schema
from arena_cje.results.analyze import write
from arena_cje.results.result import SCHEMA_VERSION, Result
from small_results import analyzed, write_data

VALIDATOR = Draft202012Validator(read_json(results_schema.SCHEMA))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def original(data):
    return analyzed(data)


@pytest.fixture
def document(original):
    """A valid document for a test to break: `far`, the last target, is refused."""
    return copy.deepcopy(original.document)


def test_the_results_schema_is_a_valid_json_schema_of_the_current_version():
    schema = read_json(results_schema.SCHEMA)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema_version"] == {"const": SCHEMA_VERSION}


@pytest.mark.parametrize("name", estimators.NAMES)
def test_the_document_of_every_estimator_matches_the_schema(name, data):
    assert list(results_schema.problems(analyzed(data, name).document)) == []


@pytest.mark.parametrize(
    "options",
    [
        {"coverage": None},
        {"coverage": 0.03},
        {"rewards": "judge"},
        {"inference": "bootstrap", "n_bootstrap": 50},
        {"calibration": "auto", "covariates": ["response_length"]},
        {"provenance": {"coverage": "0.5"}, "variant": "mine"},
    ],
    ids=str,
)
def test_documents_with_any_option_match_the_schema(options, data):
    assert list(results_schema.problems(analyzed(data, "direct", **options).document)) == []


def test_results_without_weights_or_without_draws_match_the_schema(data, tmp_path):
    import arena_cje

    rows = schemas.read_jsonl(data / "logged.jsonl")
    schemas.write_jsonl(tmp_path / "unscored.jsonl", [row | {"target_policy_logprobs": None} for row in rows])
    for result in (
        arena_cje.analyze(tmp_path / "unscored.jsonl", data / "draws", "direct"),
        arena_cje.analyze(data / "logged.jsonl", estimator="snips"),
    ):
        assert list(results_schema.problems(result.document)) == []


def publish_the_refused(document):
    document["estimates"] = [0.5] * 4
    document["standard_errors"] = [0.1] * 4
    document["confidence_intervals"] = [[0.3, 0.7]] * 4


def a_difference_without_its_error(document):
    document["differences_to_base"]["far"]["difference"] = 0.1


def a_value_without_its_interval(document):
    document["confidence_intervals"][0] = [0.1, None]


def refuse_without_a_reason(document):
    document["verdicts"]["far"]["reasons"] = []


def a_refusal_without_a_reason(document):
    document["refused"]["far"]["reasons"] = []


def a_level_milder_than_its_reasons(document):
    document["verdicts"]["far"]["level"] = "ok"


def an_unknown_field(document):
    document["estimate"] = document["estimates"]


def a_missing_field(document):
    del document["refused"]


def a_negative_error(document):
    document["standard_errors"][0] = -0.1


def text_for_a_number(document):
    document["estimates"][0] = "0.5"


def another_version(document):
    document["schema_version"] = 1


def a_share_in_percent(document):
    document["metadata"]["diagnostics"]["near"]["ess_raw"] = 98.2


def no_policy(document):
    document["metadata"]["target_policies"] = []


@pytest.mark.parametrize(
    "broken",
    [
        publish_the_refused,
        a_difference_without_its_error,
        a_value_without_its_interval,
        refuse_without_a_reason,
        a_refusal_without_a_reason,
        a_level_milder_than_its_reasons,
        an_unknown_field,
        a_missing_field,
        a_negative_error,
        text_for_a_number,
        another_version,
        a_share_in_percent,
        no_policy,
    ],
)
def test_the_schema_alone_refuses_a_broken_document(broken, document):
    assert VALIDATOR.is_valid(document)
    broken(document)
    assert not VALIDATOR.is_valid(document)
    assert list(results_schema.problems(document))


def publish_one_of_two(document):
    """The base policy is refused as well, so that a null among the published is no longer enough."""
    document["verdicts"]["base"] = copy.deepcopy(document["verdicts"]["far"])
    document["refused"]["base"] = copy.deepcopy(document["refused"]["far"])
    for difference in document["differences_to_base"].values():
        difference.update(difference=None, se=None, confidence_interval=[None, None], df=None, p_value=None)


def swap_first_and_last_estimate(document):
    for field in results_schema.BY_TARGET:
        document[field][0], document[field][-1] = document[field][-1], document[field][0]


def a_difference_to_a_refused_policy(document):
    document["differences_to_base"]["far"] = document["differences_to_base"]["near"]


def the_best_is_refused(document):
    document["best_policy"]["policy"] = "far"


def a_refusal_that_is_not_listed(document):
    document["refused"] = {}


def one_estimate_too_few(document):
    for field in results_schema.BY_TARGET:
        del document[field][0]


def a_policy_without_a_verdict(document):
    del document["verdicts"]["near"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (publish_one_of_two, "policy 'base' is refused, but"),
        (swap_first_and_last_estimate, "policy 'far' is refused, but"),
        (a_difference_to_a_refused_policy, "differences_to_base.far"),
        (the_best_is_refused, "best_policy is 'far', which is refused"),
        (a_refusal_that_is_not_listed, "refused holds"),
        (one_estimate_too_few, "estimates has 3 entries, expected one for each of 4"),
        (a_policy_without_a_verdict, "verdicts is of"),
    ],
)
def test_contradictions_that_a_schema_cannot_express_are_refused(broken, message, document):
    broken(document)
    assert message in " ".join(results_schema.problems(document))


def test_a_result_that_does_not_match_the_schema_is_not_written(original, document, tmp_path):
    a_difference_without_its_error(document)
    wrong = Result(document, original.prompt_id, original.influence, original.base_influence)
    paths = [tmp_path / name for name in ("r.json", "r.csv", "r.influence.parquet")]
    with pytest.raises(ValueError, match=r"r\.json: not a results file .*differences_to_base\.far"):
        write(wrong, *paths)
    assert not any(path.exists() for path in paths)
    write(original, *paths)
    assert list(results_schema.problems(json.loads(paths[0].read_text()))) == []
