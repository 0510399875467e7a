"""What labels of several policies on the same prompts are worth: errors, intervals and widths of levels and differences.

Simulated worlds in which the labels of a prompt go together, 20 to 200 labelled prompts of 1000, and ways to use them:

    plain    the mean calibrated score of a target, corrected by its own labels alone (`correction: plain`)
    labels   the labels alone: their means, and their paired differences, with t intervals
    joint    the joint estimate of all policies (`correction: joint`)
    cje-eval, ppi_py    two public packages (`_label_peers`), on the first draws of each world, where they can be installed

FULL=1 in the environment runs more draws of each world. With ARENA_SAMPLE_DIR, the table also has the widths on that sample.
The table is results/bench/labels.csv.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.estimation.inference import critical_value
from arena_cje.estimation.records import Draws, Logged, Options
from arena_cje.evaluation.evaluate import evaluate
from arena_cje.simulate import ARENA_LEVELS, Target, World, draw
from benchmarks import _label_peers, _peer
from benchmarks._result import Result, save_table
from benchmarks._timing import cores, progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PATH = Path("results/bench/labels.csv")
N = 1000
LABELS = (20, 30, 50, 100, 200)
CHUNK = 20  # draws that a process takes at a time
OPTIONS = {"plain": Options(correction="plain"), "joint": Options()}
COVERS = 0.93  # where a public package covers less, its width is no yardstick
PEER_DRAWS = 40  # a draw takes the peers a third of a second

TARGETS = {"clone": Target(), "better": Target(0.3), "worse": Target(-0.3)}
WORLDS = {
    # The judge explains some two fifths of the variance of the labels, as in chats, and labels of a prompt correlate by .7.
    "chat": World(TARGETS, prompt_share=0.7, strictness=0.7, judge_style=0.8),
    "few scores": World(TARGETS, prompt_share=0.7, strictness=0.7, levels=ARENA_LEVELS),
    "good judge": World(TARGETS, strictness=0.5),
    "pass or fail": World(TARGETS, prompt_share=0.7, strictness=0.7, judge_style=0.8, binary=True),
    "one unlike": World({"better": Target(0.3), "unhelpful": Target(-2.0, drop=0.8)}, strictness=0.5, judge_style=0.8),
}

Row = dict[str, Any]

PEERS = _peer.Peer(_label_peers.REQUIREMENTS, _label_peers.VARIABLE, _label_peers.HOME)


def run() -> Iterator[Result]:
    """Run all worlds, write the table, and hold it against the goals."""
    draws = 1000 if os.environ.get("FULL") == "1" else 300
    rows = []
    try:
        interpreter = _peer.python(PEERS)
    except _peer.Absent as absent:
        interpreter = None
        yield Result("cje-eval 0.9 and ppi_py", None, None, f"not measured: {absent}")
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as pool:
        for world in WORLDS:
            for labels in LABELS:
                chunks = [range(start, min(start + CHUNK, draws)) for start in range(0, draws, CHUNK)]
                claims = [one for part in pool.map(partial(replicates, world, labels), chunks) for one in part]
                rows += summarise(world, labels, claims + by_peers(interpreter, world, labels))
                progress(f"{world}, {labels} labelled prompts")
    save_table(rows, PATH)
    print(_table(rows))
    yield from promises(rows)
    if "ARENA_SAMPLE_DIR" in os.environ:
        yield from on_sample(Path(os.environ["ARENA_SAMPLE_DIR"]))


def replicates(world: str, labels: int, seeds: Sequence[int]) -> list[Row]:
    """Levels and differences to the base of every method, a row each, on draws of a world."""
    return [row for seed in seeds for row in _replicate(world, labels, seed)]


def by_peers(interpreter: Path | None, world: str, labels: int) -> list[Row]:
    """The same by the public packages, on the first draws; none without an interpreter that has them."""
    if interpreter is None:
        return []
    data = [_study_data(world, labels, seed) for seed in range(PEER_DRAWS)]
    policies = ["base", *data[0][1]]
    score = np.array([[one.judge_score, *(d.judge_score[:, 0] for d in draws.values())] for one, draws, _ in data])
    label = np.array([[one.oracle_label, *(d.oracle_label[:, 0] for d in draws.values())] for one, draws, _ in data])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "draws.npz"
        _label_peers.save(path, policies, score, label)
        command = [str(interpreter), _label_peers.__file__, str(path)]
        environment = os.environ | _peer.ONE_THREAD | {"PYTHONPATH": ""}
        answered = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    answers = json.loads(answered.stdout.splitlines()[-1])
    pairs = zip(answers, data, strict=True)
    return [row for claims, (*_, truth) in pairs for row in _rows(claims, truth)]


def _study_data(name: str, labels: int, seed: int) -> tuple[Logged, dict[str, Draws], dict[str, float]]:
    """A draw of a world with the labels of all policies on the same prompts, and what is true of it."""
    world = replace(WORLDS[name], coverage=labels, target_labels=labels, paired=True)
    logged, draws, truth = draw(world, N, seed)
    logged, draws = replace(logged, covariates=None), {p: replace(d, covariates=None) for p, d in draws.items()}
    return logged, draws, truth | {f"{policy} - base": truth[policy] - truth["base"] for policy in draws}


def _replicate(name: str, labels: int, seed: int) -> Iterator[Row]:
    logged, draws, truth = _study_data(name, labels, seed)
    claims = {"labels": _of_labels({"base": logged.oracle_label} | {p: d.oracle_label[:, 0] for p, d in draws.items()})}
    for method, options in OPTIONS.items():
        evaluation = evaluate("direct", logged, draws, options)
        levels = {"base": evaluation.base} | evaluation.estimates
        differences = {f"{policy} - base": one - evaluation.base for policy, one in evaluation.estimates.items()}
        claims[method] = {name: (one.value, one.se, *one.interval()) for name, one in (levels | differences).items()}
    yield from _rows(claims, truth)


def _rows(claims: Mapping[str, Mapping[str, Sequence[float]]], truth: Mapping[str, float]) -> Iterator[Row]:
    """A row a method and claim, from (value, standard error, interval) and the true values."""
    for method, values in claims.items():
        for claim, (value, se, low, high) in values.items():
            yield {
                "method": method,
                "claim": claim,
                "error": value - truth[claim],
                "se": se,
                "covered": low <= truth[claim] <= high,
                "width": high - low,
            }


def _of_labels(label: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float, float, float]]:
    """Mean labels and their paired differences to the base with t intervals, from labels (n,), NaN where there is none."""
    samples = {policy: one[~np.isnan(one)] for policy, one in label.items()}
    for policy in list(samples)[1:]:
        pair = label[policy] - label["base"]
        samples[f"{policy} - base"] = pair[~np.isnan(pair)]
    claims = {}
    for claim, sample in samples.items():
        value, se = float(sample.mean()), float(sample.std(ddof=1) / np.sqrt(len(sample)))
        half = critical_value(0.0, len(sample) - 1, 0.05) * se
        claims[claim] = value, se, value - half, value + half
    return claims


def summarise(world: str, labels: int, claims: Sequence[Row]) -> list[Row]:
    """One row for each method and kind of claim; the lowest coverage is over its policies."""
    rows = []
    for method in dict.fromkeys(one["method"] for one in claims):
        for kind in ("level", "difference"):
            own = [
                one for one in claims if one["method"] == method and (" - " in one["claim"]) == (kind == "difference")
            ]
            by_claim = {one["claim"]: [] for one in own}
            for one in own:
                by_claim[one["claim"]].append(one["covered"])
            actual = float(np.sqrt(np.mean([one["error"] ** 2 for one in own])))
            rows.append(
                {
                    "world": world,
                    "labels": labels,
                    "method": method,
                    "kind": kind,
                    "error": actual,
                    "ratio": float(np.sqrt(np.mean([one["se"] ** 2 for one in own]))) / actual,
                    "coverage": float(np.mean([one["covered"] for one in own])),
                    "lowest_coverage": float(min(np.mean(covered) for covered in by_claim.values())),
                    "width": float(np.mean([one["width"] for one in own])),
                    "draws": len(next(iter(by_claim.values()))),
                }
            )
    return rows


def promises(rows: Sequence[Row]) -> Iterator[Result]:
    """The goals of the joint estimate: coverage, reported over actual error, widths against the other two."""
    joint = [row for row in rows if row["method"] == "joint"]
    many = [row for row in joint if row["labels"] >= 30]
    other = {(row["world"], row["labels"], row["method"], row["kind"]): row for row in rows}

    def against(row: Row, method: str, what: str) -> float:
        return row[what] / other[row["world"], row["labels"], method, row["kind"]][what]

    for kind in ("level", "difference"):
        own, own_many = ([row for row in part if row["kind"] == kind] for part in (joint, many))
        worst = min(own, key=lambda row: row["coverage"])
        yield Result(f"coverage of a {kind}, worst", worst["coverage"], ">= 0.93", _place(worst))
        worst = max(own_many, key=lambda row: row["ratio"])
        yield Result(f"reported / actual error of a {kind}, worst", worst["ratio"], "<= 1.15", _place(worst))
    chat = [row for row in many if row["world"] == "chat"]
    for kind, method, goal in (
        ("difference", "plain", "<= 0.67"),
        ("difference", "labels", "<= 1.03"),
        ("level", "plain", "<= 1.03"),
        ("level", "labels", "<= 0.84"),  # seven tenths of the labels
    ):
        worst = max((row for row in chat if row["kind"] == kind), key=lambda row: against(row, method, "width"))
        name = f"width of a {kind} in chats / {method}"
        yield Result(name, against(worst, method, "width"), goal, _place(worst))
        error = max(against(row, method, "error") for row in joint if row["kind"] == kind)
        yield Result(
            f"error of a {kind} / {method}, worst of all", error, None, "over all worlds and numbers of labels"
        )
    yield from _against_peers(rows)


def _against_peers(rows: Sequence[Row]) -> Iterator[Result]:
    """The joint estimate's widths over those of each public package where that one covers, in chats from 30 labels on."""
    joint = {(row["world"], row["labels"], row["kind"]): row for row in rows if row["method"] == "joint"}
    for peer in _label_peers.METHODS:
        for kind in ("level", "difference"):
            own = [row for row in rows if row["method"] == peer and row["kind"] == kind]
            if not own:
                continue
            least = min(own, key=lambda row: row["coverage"])
            yield Result(f"coverage of a {kind} by {peer}, worst", least["coverage"], None, _place(least))
            chats = [row for row in own if row["world"] == "chat" and row["labels"] >= 30 and row["coverage"] >= COVERS]
            ratios = [(joint[row["world"], row["labels"], kind]["width"] / row["width"], row) for row in chats]
            name = f"width of a {kind} in chats / {peer}"
            if ratios:
                worst, row = max(ratios, key=lambda one: one[0])
                yield Result(name, worst, "<= 1.03", _place(row))
            else:
                yield Result(name, None, None, f"none of its cells covers in {COVERS:.0%} of the draws")


def _place(row: Row) -> str:
    return f"{row['world']}, {row['labels']} labelled prompts, {row['draws']} draws"


def on_sample(folder: Path) -> Iterator[Result]:
    """Widths of the joint estimate over those of the plain one, on labelled responses to real prompts."""
    import arena_cje

    logged, fresh, probes = folder / "logged.jsonl", folder / "fresh_draws", folder / "probe_slice"
    plain, joint = (
        arena_cje.analyze(logged, fresh, "direct", probes=probes, correction=correction) for correction in OPTIONS
    )
    for policy in joint.policies:
        one, other = (result.estimate(policy) for result in (joint, plain))
        base_one, base_other = (result.estimate(result.base_policy) for result in (joint, plain))
        for name, new, old in ((policy, one, other), (f"{policy} - base", one - base_one, other - base_other)):
            detail = f"{new.value:.3f} +- {new.se:.4f}, plain {old.value:.3f} +- {old.se:.4f}"
            yield Result(f"sample: width of {name} / plain", float(new.se / old.se), None, detail)


def _table(rows: Sequence[Row]) -> str:
    """All rows, one a line."""
    columns = ("error", "ratio", "coverage", "lowest_coverage", "width")
    head = f"{'world':14}{'labels':>7}  {'kind':12}{'method':8}" + "".join(f"{name:>17}" for name in columns)
    lines = [head, "-" * len(head)]
    for row in sorted(rows, key=lambda row: (row["world"], row["labels"], row["kind"])):
        numbers = "".join(f"{row[name]:>17.4f}" for name in columns)
        lines.append(f"{row['world']:14}{row['labels']:>7}  {row['kind']:12}{row['method']:8}{numbers}")
    return "\n".join(lines)
