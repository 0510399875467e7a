"""Results of a small world with a policy equal to the base, one that is better, one near it and one out of reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import arena_cje
from arena_cje import simulate
from arena_cje.data.write import write_draws, write_logged
from arena_cje.results.result import Result
from arena_cje.simulate import Target, World

if TYPE_CHECKING:
    from pathlib import Path

    from arena_cje.results.result import Result

WORLD = World(
    targets={"same": Target(), "better": Target(0.9, 0.1), "near": Target(0.1, 0.1), "far": Target(-3.0, 2.0)},
    coverage=1.0,
)
TARGETS = tuple(WORLD.targets)


def write_data(folder: Path, n: int = 400, world: World = WORLD, seed: int = 7) -> Path:
    """logged.jsonl and draws/{policy}.jsonl of a world, in the CJE format; the folder they lie in."""
    logged, draws, _ = simulate.draw(world, n, seed)
    label = np.where(logged.labelled, logged.oracle_label, np.nan)
    rows = [
        {
            "prompt_id": str(logged.prompt_id[i]),
            "prompt": f"question {i}",
            "response": "word " * (1 + i % 7),
            "base_policy_logprob": -60.0 - i,
            "target_policy_logprobs": dict(
                zip(logged.policies, (-60.0 - i + logged.log_ratio[i]).clip(max=0).tolist(), strict=True)
            ),
            "judge_score": float(logged.judge_score[i]),
            "oracle_label": None if np.isnan(label[i]) else float(label[i]),
        }
        for i in range(n)
    ]
    write_logged(folder / "logged.jsonl", rows)
    for policy, policy_draws in draws.items():
        write_draws(
            folder / "draws" / f"{policy}.jsonl",
            [
                {
                    "prompt_id": str(name),
                    "response": f"{policy} says {name}",
                    "judge_score": float(score),
                    "draw_idx": 0,
                }
                | ({} if np.isnan(label) else {"oracle_label": float(label)})
                for name, score, label in zip(
                    logged.prompt_id, policy_draws.judge_score[:, 0], policy_draws.oracle_label[:, 0], strict=True
                )
            ],
        )
    return folder


def analyzed(folder: Path, estimator: str = "calibrated-ips", coverage: float | None = 0.5, **options) -> Result:
    """The result of an estimator on data that `write_data` wrote."""
    return arena_cje.analyze(folder / "logged.jsonl", folder / "draws", estimator, oracle_coverage=coverage, **options)
