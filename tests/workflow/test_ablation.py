"""The target `ablation`: on your own data, resumable by block, and needed by no other target."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from arena_cje import simulate
from workflow_run import Run

if TYPE_CHECKING:
    from pathlib import Path

GRID = {
    "source": "results",
    "n": [60, 120],
    "coverages": ["0.2", "0.5"],
    "seeds": 3,
    "estimators": ["direct", "snips"],
    "apart": ["bad"],
    "cells_per_job": 8,
}


def write_labelled(folder: Path, n: int = 120) -> dict[str, float]:
    """Write a data set with every label, one policy worse than the other; the mean label of each policy."""
    world = simulate.World(
        {"clone": simulate.Target(), "bad": simulate.Target(-1.0, 0.3)}, coverage=1.0, target_labels=1.0
    )
    logged, draws, _ = simulate.draw(world, n, seed=4)
    rows = [
        {
            "prompt_id": str(logged.prompt_id[i]),
            "prompt": f"prompt {i}",
            "response": f"response {i}",
            "base_policy_logprob": -50.0,
            "target_policy_logprobs": {p: -50.0 + logged.log_ratio[i, k] for k, p in enumerate(logged.policies)},
            "judge_score": float(logged.judge_score[i]),
            "oracle_label": float(logged.oracle_label[i]),
        }
        for i in range(n)
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "draws").mkdir()
    for policy, one in draws.items():
        lines = [
            {"prompt_id": str(logged.prompt_id[i]), "judge_score": float(s[0]), "oracle_label": float(y[0])}
            for i, (s, y) in enumerate(zip(one.judge_score, one.oracle_label, strict=True))
        ]
        (folder / "draws" / f"{policy}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {policy: float(np.mean(one.oracle_label)) for policy, one in draws.items()}


@pytest.fixture(scope="module")
def finished_ablation(tmp_path_factory) -> tuple[Run, dict[str, float]]:
    folder = tmp_path_factory.mktemp("ablation")
    truth = write_labelled(folder)
    run = Run(
        folder, {"logged_data": "mine.jsonl", "fresh_draws": "draws", "coverages": ["0.2"], "ablation": dict(GRID)}
    )
    run.snakemake("ablation")
    return run, truth


def test_an_ablation_of_own_data_writes_tables_and_figures_with_the_true_values(finished_ablation):
    run, truth = finished_ablation
    table = pl.read_csv(run.path("ablation/summary.csv"))
    assert table["cells"].unique().to_list() == [3]
    assert set(zip(table["n"], table["coverage"], strict=True)) == {(n, c) for n in (60, 120) for c in (0.2, 0.5)}
    assert "## bad, separately" in run.path("ablation/summary.md").read_text()
    assert {path.stem for path in run.path("ablation/plots").glob("*.png")} == {
        "errors",
        "coverage",
        "ranking",
        "refusals",
    }
    cells = pl.concat([pl.read_parquet(path) for path in run.path("ablation/cells").rglob("*.parquet")])
    known = dict(cells.filter(~pl.col("is_base")).group_by("policy").agg(pl.col("truth").first()).iter_rows())
    assert known == pytest.approx(truth)
    labels = cells.group_by("n", "coverage").agg(pl.col("n_labels").unique()).rows()
    assert {(n, coverage): counts for n, coverage, counts in labels} == {
        (n, coverage): [round(n * coverage)] for n in (60, 120) for coverage in (0.2, 0.5)
    }


def test_an_interrupted_ablation_computes_only_the_missing_blocks(finished_ablation):
    run, _ = finished_ablation
    assert run.jobs("ablation") == set()
    missing = [run.path("ablation/summary.csv"), run.path("ablation/cells/n60/00002.parquet")]
    for path in missing:
        path.rename(path.with_name("aside"))
    assert run.jobs("ablation") == {"ablation_cells 60 00002", "ablation"}
    for path in missing:
        path.with_name("aside").rename(path)


def test_more_seeds_and_sizes_add_blocks_and_keep_complete_ones(finished_ablation):
    run, _ = finished_ablation
    run.config["ablation"] |= {"seeds": 6, "n": [60, 90, 120]}
    new = {f"ablation_cells {n} {first}" for n in (60, 120) for first in ("00002", "00004")}
    new |= {f"ablation_cells 90 {first}" for first in ("00000", "00002", "00004")}
    assert run.jobs("ablation") == new | {"ablation"}
    run.config["ablation"] = GRID | {"coverages": ["0.3"]}
    assert "ablation_cells 60 00000" in run.jobs("ablation")
    run.config["ablation"] = GRID | {"apart": []}
    assert run.jobs("ablation") == {"ablation"}
    run.config["ablation"] = dict(GRID)


def test_no_other_target_needs_the_ablation(finished_ablation):
    run, _ = finished_ablation
    assert not {job for job in run.jobs() if job.startswith("ablation")}


def test_a_grid_that_cannot_be_computed_ends_before_any_job(finished_ablation):
    run, _ = finished_ablation
    run.config["ablation"] = GRID | {"estimators": ["dirct"]}
    output = run.snakemake("-n", "ablation", ok=False)
    assert "did you mean 'direct'?" in output
    assert "Traceback" not in output
    run.config["ablation"] = dict(GRID)
