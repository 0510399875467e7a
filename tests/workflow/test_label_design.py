"""Labels bought by the judge scores of the targets: which responses, with which probabilities, as the data set has them."""

from __future__ import annotations

import copy

import pytest

import tiny_gguf
from arena_cje.data import schemas
from workflow_run import CONFIG, Run, write_prompts

JUDGED = {"provider": "llama_cpp", "model": "smollm2", "rubric": "likelihood.yaml", "max_unscored": 1.0}


def experiment(directory) -> Run:
    config = copy.deepcopy(CONFIG) | {
        "n_prompts": 20,
        "shard_size": 10,
        "estimators": ["direct"],
        "oracle": {"design": "by_score", "target_labels": 0.25, "truth": "none", **JUDGED},
    }
    config["policies"] = {name: config["policies"][name] for name in ("base", "other")}
    tiny_gguf.write(directory / "tiny.gguf", spread=8.0)
    (directory / "other.txt").write_text("Answer with other words.")
    write_prompts(directory / "prompts.jsonl", config["n_prompts"])
    return Run(directory, config)


def label_probabilities(run: Run, policy: str, coverage: str) -> dict[str, float]:
    rows = schemas.GRADES.read(run.path(f"oracle/{policy}/coverage_{coverage}.jsonl"))
    return {row["prompt_id"]: row["label_probability"] for row in rows}


def test_labels_are_bought_by_score_with_known_probabilities(tmp_path):
    run = experiment(tmp_path)
    paths = ["coverage_0.5/cje_dataset.jsonl", "coverage_0.5/fresh_draws/other.jsonl"]
    run.snakemake(*(f"results/{path}" for path in paths))
    density = {row["prompt_id"]: row["density"] for row in schemas.LABEL_DESIGN.read(run.path("oracle/design.jsonl"))}
    assert len(density) == 20 and sum(density.values()) == pytest.approx(20)
    assert min(density.values()) >= 0.2 and max(density.values()) > 1
    few, many = label_probabilities(run, "other", "0.25"), label_probabilities(run, "base", "0.5")
    assert (len(few), len(many)) == (
        5,
        10,
    ) and few.keys() < many.keys()  # a target is labelled on prompts where the base is
    for name, probability in few.items():
        assert probability == pytest.approx(min(1, 0.25 * density[name])) and probability < many[name] <= 1
    for path, expected in zip(paths, (many, few), strict=True):
        rows = schemas.read_jsonl(run.path(path))
        probabilities = {row["prompt_id"]: row["label_probability"] for row in rows if row["oracle_label"] is not None}
        assert probabilities == {
            row["prompt_id"]: expected[row["prompt_id"]] for row in rows if row["prompt_id"] in expected
        }
        assert probabilities
    assert run.jobs(*(f"results/{path}" for path in paths)) == set()

    # The reference oracle, which costs nothing, labels the same responses.
    run.config["oracle"] = {"design": "by_score", "target_labels": 0.25}
    run.snakemake("results/oracle/other/coverage_0.25.jsonl")
    assert label_probabilities(run, "other", "0.25") == few
