"""Small studies for tests of dashboards, and the data in a dashboard's page."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

import arena_cje
from arena_cje.data.draws import read_draws
from arena_cje.data.logged import read_logged
from arena_cje.report import dashboard
from arena_cje.simulate import Target, World, draw

if TYPE_CHECKING:
    from pathlib import Path

    from arena_cje.results.result import Result

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror='window.hacked = 1'>",
    "{{ 7 * 7 }} {% raw %} ${window.hacked = 1}",
    "__proto__ constructor",
    "line\u2028separator\u2029and \u202eright to left \x00\x07 <!--",
    "datum.x'; window.hacked = 1; \"\\",
)


@dataclass(frozen=True)
class Study:
    """Files of a simulated study, and the arguments of `render` that are read from them."""

    folder: Path
    policies: tuple[str, ...]

    def result(self, estimator: str = "calibrated-ips", **options) -> Result:
        return arena_cje.analyze(self.folder / "logged.jsonl", self.folder / "draws", estimator, **options)

    @property
    def arguments(self) -> dict:
        logged, _, policies = read_logged(self.folder / "logged.jsonl")
        draws = {p: read_draws(self.folder / "draws" / f"{k}.jsonl", p) for k, p in enumerate(policies)}
        return {"logged": logged, "draws": draws}


class Named(Study):
    """A study whose policies have names that no file can have."""

    def result(self, estimator: str = "calibrated-ips", **options) -> Result:
        draws = {policy: self.folder / "draws" / f"{k}.jsonl" for k, policy in enumerate(self.policies)}
        return arena_cje.analyze(self.folder / "logged.jsonl", draws, estimator, **options)


def study(folder: Path, n: int, names: tuple[str, ...], prompts=HOSTILE, length: int = 40, coverage=0.25) -> Study:
    """A study whose last target is far from the base and refused; prompts repeat in turn, responses have `length` characters."""
    near = [Target() if name == "clone" else Target(0.3 - 0.1 * (k % 6), 0.3) for k, name in enumerate(names[:-1])]
    world = World(targets=dict(zip(names, [*near, Target(-4.0, 4.0)], strict=True)), coverage=coverage)
    logged, draws, _ = draw(world, n, seed=5)
    rows = []
    for i in range(n):
        label = logged.oracle_label[i]
        rows.append(
            {
                "prompt_id": str(logged.prompt_id[i]),
                "prompt": f"{prompts[i % len(prompts)]} question {i}",
                "response": f"answer {i} " + "é" * max(length - 12, 0),
                "base_policy_logprob": -50.0,
                "target_policy_logprobs": dict(zip(names, (-50.0 + logged.log_ratio[i]).tolist(), strict=True)),
                "judge_score": float(logged.judge_score[i]),
                "oracle_label": None if np.isnan(label) else float(label),
            }
        )
    (folder / "draws").mkdir(parents=True)
    write(folder / "logged.jsonl", rows)
    for k, name in enumerate(names):
        draw_rows = [
            {"prompt_id": row["prompt_id"], "draw_idx": 0, "response": f"fresh {k} " + "x" * max(length - 8, 0)}
            | {"judge_score": float(score)}
            for row, score in zip(rows, draws[name].judge_score[:, 0], strict=True)
        ]
        write(folder / "draws" / f"{k}.jsonl", draw_rows)
    return Named(folder, names)


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def payload(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="payload">(.*?)</script>', page, re.DOTALL)[1])


@cache
def large_page(folder: Path) -> str:
    """10 000 prompts and 6 policies; made once for all tests of a session, which share its folder."""
    large_study = study(
        folder / "large", 10_000, tuple(f"policy_{k}" for k in range(6)), prompts=("How? " * 30,), length=900
    )
    return dashboard.render([large_study.result()], **large_study.arguments)
