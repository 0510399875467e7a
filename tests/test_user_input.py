"""Any input of a user, in the configuration, in a file or to `analyze`: a value or one sentence, never a traceback."""

from __future__ import annotations

import copy
import inspect
import json
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings, strategies
from snakemake.utils import update_config

import arena_cje
import tiny_gguf
from arena_cje import files
from arena_cje.__main__ import main
from arena_cje.calls import endpoint as endpoints
from arena_cje.config import parse, records, scoring, targets
from arena_cje.config.records import Config
from arena_cje.data import draws, schemas, user_data
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.errors import UserError
from arena_cje.estimation.records import Options
from arena_cje.grading import plan as grading_plan
from arena_cje.grading.rubrics import load_rubric
from arena_cje.hosted import template
from arena_cje.llama import fetch, gguf
from arena_cje.llama.model import open_model
from arena_cje.money import account, prices
from arena_cje.provenance import digest
from arena_cje.report.settings import settings as shown_settings
from arena_cje.results.analyze import write
from arena_cje.stages import plan as stage_plan
from arena_cje.yaml_files import check_config_file, read_yaml
from odd_input import ODD_VALUES, all_accepted, odd_files, value_or_sentence
from own_data import write_world
from workflow_run import ROOT

RESOURCES = ROOT / "resources"
SHIPPED = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with data of a user, prompts, and a file that is no model."""
    folder = tmp_path_factory.mktemp("user")
    write_world(folder, 60)
    rows = [{"prompt_id": str(k), "prompt": f"x {k}", "reference": {"pattern": "x"}} for k in range(4)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tiny.gguf").touch()
    return folder


@pytest.fixture(autouse=True)
def _inside(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("KEY", "secret")


# The configuration, and the workflow's steps with it before the first job.

HOSTED = {"provider": "api", "model": "gpt"}
WITH_MODELS = {
    "n_prompts": 2,
    "prompts": {"source": "prompts.jsonl"},
    "models": {"m": {"path": "tiny.gguf"}},
    "policies": {
        "base": {**HOSTED, "system_prompt": "helpful.txt", "template": "chatml.yaml", "extra": {"top_k": 1}},
        "cool": {"like": "base", "temperature": 0.5},
        "local": {"model": "m"},
    },
    "providers": {
        "api": {"api": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "KEY", "completions": True}
    },
    "judge": {**HOSTED, "rubric": "helpfulness.yaml"},
    "judges": {"j": {"provider": "llama_cpp", "model": "m"}, "k": {**HOSTED, "rubric": "helpfulness.yaml"}},
    "oracle": {**HOSTED, "rubric": "helpfulness.yaml"},
    "variants": {"v": {"estimator": "direct"}},
    "prices": {"gpt": {"input": 1.0, "output": 1.0}},
    "budget_usd": 5.0,
    "verdict": {},
    "coverages": ["0.5"],
}
OWN_DATA = {"logged_data": "mine.jsonl", "fresh_draws": "draws", "variants": {"v": {"estimator": "direct"}}}
BLOCKS = {
    (): records.Config,
    ("prompts",): records.Prompts,
    ("models", "m"): records.Model,
    ("policies", "base"): records.Policy,
    ("policies", "local"): records.Policy,
    ("providers", "api"): records.Provider,
    ("prices", "gpt"): records.Price,
    ("judge",): records.Judge,
    ("judges", "k"): records.Judge,
    ("oracle",): records.Oracle,
    ("analysis",): records.Analysis,
    ("variants", "v"): records.Variant,
}
KEYS = [(*block, name) for block, record in BLOCKS.items() for name in record.model_fields]
KEYS += [block for block in BLOCKS if len(block) == 2]
KEYS += [("verdict", name) for name in Thresholds.__dataclass_fields__]
KEYS += [("policies", "cool", "like"), ("policies", "base", "extra", "top_k"), ("unknown",)]


def with_value(own, key, value):
    """A user's keys with another value of one of them."""
    own = copy.deepcopy(own)
    block = own
    for name in key[:-1]:
        block = block.setdefault(name, {})
    block[key[-1]] = value
    return own


def find(name, kind):
    return str(parse.find_file(name, kind, workflow_resources=RESOURCES))


def config_of(own) -> Config:
    merged = copy.deepcopy(SHIPPED)
    update_config(merged, copy.deepcopy(own))
    return parse.parse(merged, user_keys=own)


def read_configuration(own):
    """All steps of the workflow that read a configuration."""
    config = config_of(own)
    Config.model_validate(config.model_dump(mode="json"))
    targets.check(["results/coverage_0.5/direct.json"], config)
    prices.check_budget(config)
    list(scoring.notes(config))
    digest(shown_settings(config, folder=Path.cwd()))
    for name in config.analyses:
        digest(config.estimator_of(name))
        config.can_run(name)
    if config.logged_data is None:
        read_models_and_prompts(config)


def read_prompts(config, folder):
    """The pool of prompts; None where they are those of a data set of the hub, which is not downloaded here."""
    path = parse.find_prompts(config.prompts.source, workflow_resources=RESOURCES)
    if path is None:
        return None
    pool = stage_plan.prompt_pool(config, path, folder)
    stage_plan.shard_fingerprints(config, pool, folder / "cache.json")
    return pool


def read_models_and_prompts(config):
    pool = read_prompts(config, Path("pool"))
    graders = grading_plan.graders(config, find)
    for policy in config.policies.values():
        if policy.system_prompt:
            files.read_text(find(policy.system_prompt, "policies"))
        if policy.template:
            template.load(find(policy.template, "templates"))
    scoring.cautions(config)
    for name in config.policies:
        digest(stage_plan.generation_parameters(config, name))
    for name in config.contexts:
        digest(stage_plan.scoring_parameters(config, name))
    if pool is not None:
        digest(stage_plan.dataset_provenance(config, graders, pool))
    digest([grader.parameters for grader in graders.values()])
    endpoints.check_keys([config.endpoint(block) for block in config.model_blocks.values() if block.hosted])


def test_the_configurations_that_are_varied_are_valid():
    for own in (WITH_MODELS, OWN_DATA):
        read_configuration(own)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: ".".join(key))
def test_any_value_of_a_key(key):
    bases = [WITH_MODELS] if key[0] in ("policies", "providers", "judges", "models") else [WITH_MODELS, OWN_DATA]
    all_accepted(
        (value, partial(read_configuration, with_value(own, key, value))) for own in bases for value in ODD_VALUES
    )


# Files.


def read_own_data(key, path):
    config = config_of(OWN_DATA | {key: str(path)})
    draw_paths = draws.draw_paths(Path(config.fresh_draws))
    probe_paths = draws.find_probes(config.probes, tuple(draw_paths))
    for file in (config.logged_data, config.calibration_data, *draw_paths.values(), *probe_paths.values()):
        if file is not None:
            user_data.check_user_file(file, results=Path("results"))
    user_data.read_user_data(
        config.logged_data,
        config.fresh_draws,
        0.5,
        1,
        probes=config.probes,
        calibration_data=config.calibration_data,
    )


@pytest.mark.parametrize("key", ["logged_data", "calibration_data", "fresh_draws", "probes"])
def test_any_file_of_data(tmp_path, place, key):
    paths = odd_files(tmp_path / "files", (place / "mine.jsonl").read_bytes(), ".jsonl")
    all_accepted((kind, partial(read_own_data, key, path)) for kind, path in paths.items())


def test_any_file_in_a_folder_of_draws(tmp_path, place):
    policy = min(path.name for path in (place / "draws").iterdir())
    calls = []
    for kind, path in odd_files(tmp_path / "files", (place / "draws" / policy).read_bytes(), ".jsonl").items():
        folder = tmp_path / kind
        folder.mkdir()
        try:
            (folder / policy).symlink_to(path)
        except (ValueError, OSError):
            continue  # no link has such a target
        calls += [((key, kind), partial(read_own_data, key, folder)) for key in ("fresh_draws", "probes")]
    assert len(calls) > 40
    all_accepted(calls)


def test_any_file_of_prompts(tmp_path, place):
    def read(path):
        config = config_of(WITH_MODELS | {"prompts": {"source": str(path)}, "oracle": {"provider": "reference"}})
        read_prompts(config, tmp_path / "pool")

    def estimate(path):
        config = config_of(WITH_MODELS | {"prompts": {"source": str(path)}})
        account.account(config, str(read_prompts(config, tmp_path / "pool").path), str(RESOURCES)).table()

    paths = odd_files(tmp_path / "files", (place / "prompts.jsonl").read_bytes(), ".jsonl")
    all_accepted(((use.__name__, kind), partial(use, path)) for kind, path in paths.items() for use in (read, estimate))


@pytest.mark.parametrize(
    ("shipped", "read"),
    [
        ("judges/helpfulness.yaml", load_rubric),
        ("judges/helpfulness.yaml", lambda path: load_rubric(Path(find(str(path), "judges")))),
        ("templates/chatml.yaml", template.load),
        ("models/MODELS.yaml", partial(fetch.read_entry, "SmolLM2-135M-Instruct.F16.gguf")),
        ("policies/helpful.txt", files.read_text),
        ("../config/config.yaml", check_config_file),
    ],
    ids=["rubric", "rubric of the configuration", "template", "recipes", "system prompt", "configuration"],
)
def test_any_file_of_text(tmp_path, shipped, read):
    content = (RESOURCES / shipped).read_bytes()
    paths = odd_files(tmp_path / "files", content, Path(shipped).suffix)
    all_accepted((kind, partial(read, path)) for kind, path in paths.items())


def test_any_model_file(tmp_path):
    paths = odd_files(tmp_path / "files", b"GGUF\x03\0\0\0", ".gguf")
    uses = (gguf.parts, gguf.describe, gguf.check_magic, open_model)
    all_accepted(((use.__name__, kind), partial(use, path)) for kind, path in paths.items() for use in uses)
    content = tiny_gguf.write(tmp_path / "tiny.gguf").read_bytes()
    for version, reason in ((1, "GGUFv1 is no longer supported"), (99, "version 99")):
        (tmp_path / "old.gguf").write_bytes(content[:4] + version.to_bytes(4, "little") + content[8:])
        with pytest.raises(UserError, match=reason):
            open_model(tmp_path / "old.gguf")
    for size in (8, 100, 3000, len(content) // 2, len(content) - 10):
        (tmp_path / "cut.gguf").write_bytes(content[:size])
        with pytest.raises(UserError, match=r"failed to read|exceeds remaining file size|not within the file bounds"):
            open_model(tmp_path / "cut.gguf")


@pytest.mark.parametrize(
    "table", [one for one in vars(schemas).values() if isinstance(one, schemas.Table)], ids=lambda table: table.name
)
def test_any_file_of_a_table(tmp_path, place, table):
    paths = odd_files(
        tmp_path / "files", (place / "mine.jsonl").read_bytes(), ".parquet" if table.parquet else ".jsonl"
    )
    all_accepted((kind, partial(table.read, path)) for kind, path in paths.items())


# The keys of files in YAML and JSON.


def keys_of(value, place=()):
    """The place of every key in a document."""
    entries = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, part in entries:
        yield (*place, key)
        yield from keys_of(part, (*place, key))


def with_entry(document, place, value):
    document = copy.deepcopy(document)
    block = document
    for key in place[:-1]:
        block = block[key]
    block[place[-1]] = value
    return document


def yaml_file(path, document) -> Path:
    """A YAML file; values that YAML cannot hold are left out."""
    path.write_bytes(yaml.dump(document).encode(errors="surrogatepass"))
    return path


@pytest.mark.parametrize(
    ("shipped", "read"),
    [
        *[(path, load_rubric) for path in sorted((RESOURCES / "judges").glob("*.yaml"))],
        (RESOURCES / "templates" / "chatml.yaml", template.load),
        (RESOURCES / "models" / "MODELS.yaml", partial(fetch.read_entry, "SmolLM2-135M-Instruct.F16.gguf")),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_any_value_in_a_file_of_yaml(tmp_path, shipped, read):
    document = yaml.safe_load(shipped.read_text())
    path = tmp_path / "odd.yaml"
    all_accepted(
        ((place, value), lambda place=place, value=value: read(yaml_file(path, with_entry(document, place, value))))
        for place in [*keys_of(document), ("unknown",)]
        for value in ODD_VALUES
    )


BOMBS = {
    "lists": "a0: &a0 [lol, lol, lol]\n"
    + "".join(f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 9)}]\n" for k in range(9)),
    "blocks": "a0: &a0 {x: 1}\n"
    + "".join(f"a{k + 1}: &a{k + 1} {{{', '.join(f'k{i}: *a{k}' for i in range(9))}}}\n" for k in range(9)),
    "merges": "a0: &a0 {x: 1}\n"
    + "".join(f"a{k + 1}: &a{k + 1} {{<<: [{', '.join([f'*a{k}'] * 9)}]}}\n" for k in range(9)),
    "texts": f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 100)}]",
    "itself": "a: &a [*a]",
    "brackets": "[" * 200_000,
    "items": "- " * 3000,
    "size": "a: " + "x" * 2_000_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize(
    "read",
    [check_config_file, load_rubric, template.load, partial(fetch.read_entry, "x")],
    ids=["configuration", "rubric", "template", "recipes"],
)
def test_a_small_file_that_stands_for_gigabytes_is_refused_at_once(tmp_path, bomb, read):
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[bomb])
    assert "bomb.yaml" in value_or_sentence(partial(read, path))


def test_aliases_that_people_use_are_read(tmp_path):
    path = tmp_path / "fine.yaml"
    path.write_text("one: &one {x: 1, y: [a, b]}\ntwo: {<<: *one, y: 3}\nthree: [*one, *one]\n")
    assert read_yaml(path)["two"] == {"x": 1, "y": 3}
    assert read_yaml(path)["three"] == [{"x": 1, "y": ["a", "b"]}] * 2


@given(strategies.binary(max_size=60) | strategies.text(max_size=60).map(lambda text: text.encode(errors="replace")))
@settings(max_examples=100, deadline=None)
def test_any_bytes_as_yaml(place, content):
    path = place / "any.yaml"
    path.write_bytes(content)
    value_or_sentence(partial(read_yaml, path))


@pytest.mark.parametrize(
    "value",
    ["2024-13-45", "!!timestamp x", "!!int ''", "!!bool x", "!!float x", "9" * 5000, "!x 1", "0b_", "*b", "{[a]: 1}"],
)
def test_a_value_that_yaml_cannot_make_is_told_with_the_file(tmp_path, value):
    path = tmp_path / "odd.yaml"
    path.write_text(f"a: {value}")
    assert value_or_sentence(partial(read_yaml, path)).startswith(str(path))


# `analyze` and `load`.


class Unreadable:
    """An object whose representation raises."""

    def __repr__(self):
        raise RuntimeError("no representation")


FRAME = pl.DataFrame({"a": [1]})
OBJECTS = [object(), Unreadable(), Unreadable, np.float64(0.5), np.int64(3), np.array([1, 2]), np.array(["a"]), FRAME]
OBJECTS += [
    FRAME.lazy(),
    FRAME["a"],
    len,
    range(3),
    1j,
    (0, 1),
    (1,),
    ("x", "y"),
    (0, 1, 2),
    (0, float("nan")),
    Path("/x"),
]
OBJECTS += [{"clone": 3}, {"clone": None}, {3: 4}, {"clone": [("a", "b", "c")]}, {"clone": [("a", "b", "caution")]}]
PARAMETERS = [name for name in inspect.signature(arena_cje.analyze).parameters if name != "options"]
PARAMETERS += [name for name in Options.__dataclass_fields__ if name not in PARAMETERS]


def analyze(**arguments):
    defaults = {"logged": "mine.jsonl", "fresh_draws": "draws", "estimator": "direct", "n_bootstrap": 20}
    result = arena_cje.analyze(**defaults | arguments)
    return result.details() + result.to_json()


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_any_argument_of_analyze(parameter):
    options = {} if parameter == "inference" else {"inference": "bootstrap"}
    all_accepted((value, partial(analyze, **options | {parameter: value})) for value in [*ODD_VALUES, *OBJECTS])
    if parameter == "covariates":
        options |= {"calibration": "two_stage"}
        all_accepted((value, partial(analyze, **options | {parameter: value})) for value in [*ODD_VALUES, *OBJECTS])


def test_numbers_of_numpy_are_numbers():
    numbers = {
        "seed": np.int64(3),
        "alpha": np.float64(0.1),
        "oracle_coverage": np.float32(0.5),
        "scale": np.array([0, 1]),
    }
    assert analyze(**numbers) == analyze(seed=3, alpha=0.1, oracle_coverage=0.5, scale=(0, 1))


JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text(max_size=8),
    lambda parts: (
        strategies.lists(parts, max_size=3) | strategies.dictionaries(strategies.text(max_size=8), parts, max_size=3)
    ),
    max_leaves=5,
)
FIELDS = [
    "prompt_id",
    "prompt",
    "response",
    "judge_score",
    "oracle_label",
    "base_policy_logprob",
    "target_policy_logprobs",
]
FIELDS += ["metadata", "draw_idx", "base_policy", "judge_distribution", "judge_scores"]


@given(strategies.sampled_from(FIELDS), JSON)
@settings(max_examples=100, deadline=None)
def test_any_field_of_a_row(place, field, value):
    rows = [json.loads(line) for line in (place / "mine.jsonl").read_text().splitlines()]
    value_or_sentence(partial(analyze, logged=[rows[0] | {field: value}, *rows[1:]], estimator="stacked-dr"))


@given(strategies.dictionaries(strategies.sampled_from([*FIELDS, "x"]), JSON), strategies.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_any_rows(row, n):
    value_or_sentence(partial(analyze, logged=[row] * n))


def test_any_argument_of_load():
    all_accepted((value, partial(arena_cje.load, value)) for value in [*ODD_VALUES, *OBJECTS])


# Results files, and the command line.


@pytest.fixture(scope="module")
def result(place) -> Path:
    """A results file of the user's data."""
    path = place / "result.json"
    analyzed = arena_cje.analyze(place / "mine.jsonl", place / "draws", "stacked-dr")
    write(analyzed, path, place / "result.csv", place / "result.influence.parquet")
    return path


def command(capsys, *arguments):
    """Run a command: status 0, or 1 after one line ERROR."""
    status = main(list(map(str, arguments)))
    error = capsys.readouterr().err
    assert (status, error) == (0, "") or (status == 1 and error.startswith("ERROR: ") and error.count("\n") == 1), error


def test_any_file_for_the_command_line(tmp_path, result, capsys):
    paths = odd_files(tmp_path / "files", result.read_bytes(), ".json")
    for arguments in (["show"], ["unlock", "--directory"]):
        all_accepted((kind, partial(command, capsys, *arguments, path)) for kind, path in paths.items())


def test_any_value_in_a_results_file(tmp_path, result, capsys):
    document = json.loads(result.read_bytes())
    path = tmp_path / "odd.json"
    for place in [place for place in keys_of(document) if len(place) < 3]:
        for value in (None, 3, [], {"x": 1}):
            path.write_text(json.dumps(with_entry(document, place, value)))
            command(capsys, "show", path)


def test_any_file_of_influence_values(tmp_path, result):
    paths = odd_files(tmp_path / "files", b"PAR1", ".parquet")

    def load(path):
        (tmp_path / "copy.json").write_bytes(result.read_bytes())
        beside = tmp_path / "copy.influence.parquet"
        beside.unlink(missing_ok=True)
        beside.symlink_to(path)
        arena_cje.load(tmp_path / "copy.json")

    del paths["NUL in its name"]
    all_accepted((kind, partial(load, path)) for kind, path in paths.items())
