"""A data set of a user's own, with known values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from arena_cje import simulate

if TYPE_CHECKING:
    from pathlib import Path


def write_world(folder: Path, n: int = 300) -> float:
    """A simulated world in the CJE format; the truth of its one target."""
    logged, draws, truth = simulate.draw(simulate.World(), n, seed=3)
    rows = []
    for i in range(n):
        rows.append(
            {
                "prompt_id": str(logged.prompt_id[i]),
                "prompt": f"prompt {i}",
                "response": f"response {i}",
                "base_policy_logprob": -50.0,
                "target_policy_logprobs": {
                    policy: -50.0 + logged.log_ratio[i, k] for k, policy in enumerate(logged.policies)
                },
                "judge_score": float(logged.judge_score[i]),
                "oracle_label": None if np.isnan(logged.oracle_label[i]) else float(logged.oracle_label[i]),
            }
        )
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "draws").mkdir()
    for policy, policy_draws in draws.items():
        lines = [
            json.dumps({"prompt_id": str(logged.prompt_id[i]), "judge_score": float(score), "draw_idx": j})
            for i, scores in enumerate(policy_draws.judge_score)
            for j, score in enumerate(scores)
        ]
        (folder / "draws" / f"{policy}_responses.jsonl").write_text("\n".join(lines))
    return truth
