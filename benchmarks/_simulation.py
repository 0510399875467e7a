"""Estimators in worlds whose truth is known: how often published intervals cover, and what is refused.

A cell is a case (a world, and what the analysis is given), a sample size and a share of labels. What an estimator claims
of a target there is one of four kinds:

    sound      the data carry the claim: intervals must cover, and refusals are mistakes
    thin       it rests on few rows or labels: it may be refused, but what is published must cover
    unsound    it is wrong and the data show it: publishing it is the mistake
    unseen     it is wrong and nothing in the data shows it; its verdict has the reason `transport_unverified`
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje import estimators
from arena_cje.diagnostics.evidence import gather
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.diagnostics.verdict import judge
from arena_cje.estimation import label_design
from arena_cje.estimation.records import ROUNDING, Options
from arena_cje.evaluation.evaluate import evaluate_all
from arena_cje.simulate import ARENA_LEVELS, WORLDS, Target, World, draw, pass_rate_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from arena_cje.estimation.records import Draws, Logged

REPLICATES = 500
CHUNK = 25  # replicates that a process takes at a time
OWN_LABELS = 50

WEIGHTED = tuple(name for name in estimators.NAMES if not estimators.needs_draws(name))
LABEL_TERM = ("tr-cpo",)

PASS_RATES = (0.02, 0.05, 0.9, 0.95, 0.98, 0.99)
EDGES = {
    f"pass rate {rate:g}{', sharp judge' if sharp else ''}": pass_rate_world(rate, sharp=sharp)
    for rate in PASS_RATES
    for sharp in (False, True)
}


# Labels at random and where the scores of `unhelpful` lie, at which the base has few responses.
FAR = {
    "far": World({"better": Target(0.4), "unhelpful": Target(-2.5)}),
    "far, few scores": World({"better": Target(0.4), "unhelpful": Target(-2.5)}, levels=ARENA_LEVELS),
}
ALL_WORLDS = WORLDS | EDGES | FAR


@dataclass(frozen=True, eq=False)
class Case:
    """A world and what the analysis is given of it."""

    world: str
    options: Mapping[str, Any] = field(default_factory=dict)
    target_labels: int = 0
    fault: str | None = None  # what is wrong with its claims: overlap, support, label, covariate, judge
    all_claims: bool = False  # also the base policy, and the differences to it
    paired: bool = False  # whether the targets' labels are on the same prompts as the base's, as many of them
    design: str = ""  # how labels are bought, "at random" or "by score"; none leaves it to the world

    @property
    def name(self) -> str:
        own = f" +{self.target_labels} labels" if self.target_labels else ""
        design = (" paired" if self.paired else "") + (f" {self.design}" if self.design else "")
        return self.world + (" two-stage" if self.options else "") + own + design

    def kind(self, estimator: str, policy: str) -> str:
        """Which of the four kinds a claim is."""
        is_corrected = self.target_labels and estimator not in (*WEIGHTED, *LABEL_TERM)
        if self.fault is None or is_corrected:
            return "sound"
        if self.fault == "overlap":
            return "thin" if estimator in (*WEIGHTED, *LABEL_TERM) else "sound"
        if self.fault == "support":
            return "unsound" if policy == "unhelpful" else "sound"
        if self.fault in ("covariate", "judge") and estimator in LABEL_TERM:
            return "sound" if self.fault == "covariate" else "thin"
        if self.fault == "judge":
            return "unsound"
        return "unsound" if self.target_labels else "unseen"


TWO_STAGE = {"calibration": "two_stage", "covariates": ("style",)}
CASES = (
    Case("healthy"),
    Case("nonlinear"),
    Case("few_scores"),
    Case("binary"),
    Case("clustered"),
    Case("judge_noise"),
    Case("covariate_bias", TWO_STAGE),
    Case("heavy_tails", fault="overlap"),
    Case("poor_overlap", fault="overlap"),
    Case("no_transport", fault="support"),
    Case("no_transport", target_labels=OWN_LABELS, fault="support"),
    Case("no_transport_hidden", target_labels=OWN_LABELS, fault="label"),
    Case("no_transport_hidden", fault="label"),
    Case("covariate_bias", fault="covariate"),
    Case("style_matters", fault="covariate"),
    Case("useless_judge", fault="judge"),
    Case("barely_useful_judge"),
)
EDGE_CASES = tuple(Case(name, all_claims=True) for name in EDGES)
EDGE_OWN_LABELS = Case("pass rate 0.98", target_labels=60, all_claims=True)
DESIGNS = tuple(
    Case(world, fault="overlap", all_claims=True, paired=paired, design=design)
    for world in (*FAR, "healthy", "few_scores", "binary")
    for paired in (False, True)
    for design in ("at random", "by score")
)


@dataclass(frozen=True)
class Cell:
    """One case at one sample size and share of labels."""

    case: Case
    n: int
    share: float

    @property
    def name(self) -> str:
        return f"{self.case.name}, n={self.n}, {self.share:.1%}".replace(".0%", "%")

    @property
    def n_labels(self) -> int:
        return round(self.share * len(np.unique(draw(ALL_WORLDS[self.case.world], self.n, 0)[0].prompt_id)))

    @property
    def file_name(self) -> str:
        return self.name.replace(", ", "_").replace(" ", "-").removesuffix("%") + ".json"


Row = dict[str, Any]


def replicate(cell: Cell, seed: int, names: Sequence[str] = estimators.NAMES) -> list[Row]:
    """Every estimator on one draw of the world, one row an estimator and target."""
    case, thresholds = cell.case, Thresholds()
    logged, draws, values = _draw(cell, seed)
    if not case.options:
        logged, draws = replace(logged, covariates=None), {p: replace(d, covariates=None) for p, d in draws.items()}
    rows = []
    for name, evaluation in evaluate_all(names, logged, draws, Options(seed=seed, **case.options)).items():
        evidence = gather(evaluation, logged, draws, thresholds)
        verdicts = judge(evaluation, logged, evidence, thresholds)
        base, level = evaluation.base, {policy: verdict.level for policy, verdict in verdicts.items()}
        claims = {(policy,): (estimate, values[policy]) for policy, estimate in evaluation.estimates.items()}
        if case.all_claims:
            claims |= {(p, "base"): (one - base, values[p] - values["base"]) for (p,), (one, _) in claims.items()}
            claims[("base",)] = base, values["base"]
        for policies, (estimate, truth) in claims.items():
            low, high = estimate.interval()
            refused = any(level[policy] == "refuse" for policy in policies)
            rows.append(
                {
                    "estimator": name,
                    "policy": " - ".join(policies),
                    "error": estimate.value - truth,
                    "width": high - low,
                    "covered": bool(low - ROUNDING <= truth <= high + ROUNDING),
                    "far_off": bool(truth < low - estimate.se or truth > high + estimate.se),
                    "level": "refuse" if refused else level[policies[0]],
                    "effective": evidence[policies[0]].support.effective_labels
                    if evidence[policies[0]].support
                    else None,
                    "refused_for": [r.code for r in verdicts[policies[0]].reasons if r.level == "refuse"],
                }
            )
    return rows


def _draw(cell: Cell, seed: int) -> tuple[Logged, dict[str, Draws], dict[str, float]]:
    """Data and true values of a draw of the cell's world, with the labels of its case."""
    case, world = cell.case, ALL_WORLDS[cell.case.world]
    if not case.design:
        return draw(replace(world, coverage=cell.share, target_labels=case.target_labels), cell.n, seed)
    logged, draws, values = draw(replace(world, coverage=1.0, target_labels=float(case.paired)), cell.n, seed)
    labels, number = cell.n_labels, np.random.default_rng([seed, 2]).random(cell.n)
    density = np.ones(cell.n)
    if case.design == "by score":
        density = label_design.densities(logged.judge_score, [one.judge_score for one in draws.values()])
    without = ~label_design.chosen(density, number, labels)
    probability = label_design.probabilities(density, labels)
    logged, draws = (
        [
            replace(
                one,
                oracle_label=_without(one.oracle_label, without),
                label_probability=_like(probability, one.oracle_label),
            )
            for one in part
        ]
        for part in ([logged], draws.values())
    )
    return logged[0], {one.policy: one for one in draws}, values


def _without(label: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Labels (n, ...) but for those of the rows (n,) bool, NaN there."""
    return np.where(_like(rows, label), np.nan, label)


def _like(values: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Values (n,) of the rows for labels (n, ...)."""
    return np.broadcast_to(values if label.ndim == 1 else values[:, None], label.shape)


def replicates(cell: Cell, seeds: range) -> list[Row]:
    """Rows of several draws."""
    return [row for seed in seeds for row in replicate(cell, seed)]


def summarise(cell: Cell, rows: Sequence[Row]) -> list[Row]:
    """One row an estimator and target: coverage of what is published, error, width, refusals."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["policy"], row["estimator"]), []).append(row)
    return [_summary(cell, *key, group) for key, group in groups.items()]


def _summary(cell: Cell, policy: str, estimator: str, rows: Sequence[Row]) -> Row:
    published = [row for row in rows if row["level"] != "refuse"]
    count = len(rows)
    return {
        "case": cell.case.name,
        "n": cell.n,
        "labels": cell.n_labels,
        "share": cell.share,
        "policy": policy,
        "estimator": estimator,
        "kind": cell.case.kind(estimator, policy.removesuffix(" - base")),
        "replicates": count,
        "published": len(published),
        "coverage": sum(row["covered"] for row in published) / len(published) if published else None,
        "coverage_all": sum(row["covered"] for row in rows) / count,
        "bias": float(np.mean([row["error"] for row in rows])),
        "rmse": float(np.sqrt(np.mean([row["error"] ** 2 for row in rows]))),
        "width": float(np.mean([row["width"] for row in rows])),
        "no_width": sum(row["width"] < ROUNDING for row in published) / count,
        "refused": 1 - len(published) / count,
        "effective": float(np.mean([row["effective"] for row in rows])) if rows[0]["effective"] is not None else None,
        "wrong_published": sum(row["far_off"] for row in published) / count,
    }


def run_cell(cell: Cell, pool: Executor, folder: Path, *, n: int = REPLICATES) -> list[Row]:
    """The summary of a cell: read again where it was finished before with this code, else computed."""
    return finished(
        folder / cell.file_name, n, lambda: summarise(cell, in_chunks(partial(replicates, cell), pool, n)), code()
    )


def in_chunks(replicates: Callable[[range], list[Row]], pool: Executor, n: int) -> list[Row]:
    """Rows of n draws, some at a time in each process."""
    chunks = [range(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]
    return [row for part in pool.map(replicates, chunks) for row in part]


def finished(path: Path, n: int, compute: Callable[[], list[Row]], code: str) -> list[Row]:
    """Rows of a file where n draws were finished with this code, else computed and written there."""
    record = json.loads(path.read_text()) if path.exists() else {}
    if record.get("replicates") == n and record.get("code") == code:
        return record["rows"]
    rows = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"replicates": n, "code": code, "rows": rows}, indent=1) + "\n")
    os.replace(part, path)
    return rows


def code() -> str:
    """Hash of what the numbers depend on: a change there makes finished cells stale."""
    from arena_cje.provenance import code_hash

    modules = (
        "diagnostics.evidence",
        "diagnostics.thresholds",
        "diagnostics.verdict",
        "estimation.label_design",
        "evaluation.evaluate",
        "simulate",
    )
    return code_hash(*(f"arena_cje.{module}" for module in modules), *_modules())


def _modules() -> Iterator[str]:
    return (estimators.get(name).__name__ for name in estimators.NAMES)
