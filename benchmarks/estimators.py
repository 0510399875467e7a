"""Estimators against their limits and against the public package cje-eval 0.3: seconds, memory, the same numbers.

Seconds are processor time on data that is in memory, after imports, for four target policies. The package is compared
after loading on both sides, and the verdicts count here as its diagnostics count there: same rows, same labels, a
monotone calibrator, analytic standard errors with a jackknife over the oracle slice. `CJE_EVAL_PYTHON` names an
interpreter that has it; without one an environment is made under results/bench/.peer.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from arena_cje import estimators
from arena_cje.diagnostics.evidence import gather
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.diagnostics.verdict import judge
from arena_cje.estimation.records import Draws, Logged, Options
from arena_cje.evaluation.evaluate import Evaluation, evaluate, evaluate_all
from arena_cje.simulate import Target, World, draw
from benchmarks import _peer
from benchmarks._memory import peak_of
from benchmarks._result import Result
from benchmarks._timing import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WORLD = World(
    {"clone": Target(), "better": Target(0.4, 0.3), "worse": Target(-0.4, 0.3), "styled": Target(0.2, 0.6)},
    coverage=0.25,
)
SEED = 0
ROUNDS = 3
SMALL, MIDDLE, MANY = 1_000, 10_000, 100_000  # rows
TENFOLD = 10
LINEAR = ("calibrated-ips", "direct")

ROBUST = ("dr-cpo", "mrdr", "tmle", "stacked-dr")  # what both packages have, in two families
OTHERS = ("raw-ips", "calibrated-ips", "direct")
PEER_LIMIT = 180  # seconds on the clock, for one estimator on MANY rows

# Packages that no estimate job may wait for: they are for other jobs, and slow to import.
HEAVY = ("llama_cpp", "matplotlib", "pandas", "plotly", "sklearn", "snakemake", "statsmodels")
JOB = """
import json, sys
import arena_cje
from arena_cje import provenance
from arena_cje.data import schemas
from arena_cje.results import analyze
from arena_cje.stages import jobs
logged, draws, out, estimator = sys.argv[1:]
result = arena_cje.analyze(logged, draws, estimator)
analyze.write(result, f"{out}/result.json", f"{out}/result.csv", f"{out}/influence.parquet")
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""

Data = tuple[Logged, dict[str, Draws]]


def run() -> Iterator[Result]:
    """All benchmarks of the estimators."""
    for benchmark in BENCHMARKS:
        progress(f"estimators: {benchmark.__name__.replace('_', ' ')} ...")
        yield from benchmark()


def few_rows() -> Iterator[Result]:
    """All estimators on data of the size of a study."""
    data = _data(SMALL)
    where = f"CPU seconds, {SMALL} rows, {len(WORLD.targets)} policies"
    together = _seconds(lambda: evaluate_all(estimators.NAMES, *data, Options()))
    evaluations = evaluate_all(estimators.NAMES, *data, Options())
    verdicts = _seconds(lambda: [_judged(evaluation, data) for evaluation in evaluations.values()])
    detail = f"{where}; their verdicts take {verdicts:.2g} more"
    yield Result(f"all {len(estimators.NAMES)} estimators together", together, "<= 1", detail)
    alone = {name: _seconds(partial(evaluate, name, *data, Options())) for name in estimators.NAMES}
    times = ", ".join(f"{name} {seconds:.2g}" for name, seconds in alone.items())
    yield Result("the slowest estimator alone", max(alone.values()), "<= 1", f"{where}: {times}")
    seconds = _seconds(partial(evaluate, "dr-cpo", *_data(MIDDLE), Options()))
    yield Result("dr-cpo, ten times the rows", seconds, "<= 1", f"CPU seconds, {MIDDLE} rows")


def many_rows() -> Iterator[Result]:
    """Does time grow as the rows do, and where does it end?"""
    for name in LINEAR:
        few, _ = _in_its_own_process(name, MANY, ROUNDS)
        seconds, peak = _in_its_own_process(name, TENFOLD * MANY, 1)
        rows = f"{TENFOLD * MANY} rows"
        detail = f"CPU seconds at {rows} / {TENFOLD} x those at {MANY} ({few:.3g})"
        yield Result(f"{name}: growth", seconds / (TENFOLD * few), "<= 1.5", detail)
        yield Result(f"{name}: seconds", seconds, "<= 60", f"CPU seconds, {rows}; drawing the data is not counted")
        yield Result(f"{name}: memory", peak / 1e9, "<= 4", f"GB, {rows}, all of the process, its data drawn in it")


def job() -> Iterator[Result]:
    """What an estimate job takes from the start of its interpreter to its written results."""
    with tempfile.TemporaryDirectory() as folder:
        place = save(Path(folder), *_data(SMALL))
        command = [sys.executable, "-c", JOB, place / "logged.jsonl", place / "draws", place, "stacked-dr"]
        seconds = []
        for _ in range(ROUNDS):
            before = _of_children()
            process = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
            seconds.append(_of_children() - before)
    loaded = set(json.loads(process.stdout.splitlines()[-1]))
    detail = f"CPU seconds of a fresh interpreter: imports, {SMALL} rows in CJE files, stacked-dr, results written"
    yield Result("estimate job", statistics.median(seconds), "<= 2", detail)
    heavy = sorted(loaded & set(HEAVY))
    others = sorted(name for name in loaded - sys.stdlib_module_names if not name.startswith("_"))
    modules = (
        f"{', '.join(heavy) or 'none'} of {', '.join(HEAVY)}; from outside the standard library: {', '.join(others)}"
    )
    yield Result("slow imports an estimate job does not need", len(heavy), "<= 0", modules)


def peer() -> Iterator[Result]:
    """How many times as long the public package takes, and whether it finds what it should find too."""
    try:
        interpreter = _peer.python()
    except _peer.Absent as absent:
        yield from (Result(name, None, goal, f"not measured: {absent}") for name, goal in _peer_rows())
        return
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small"
        save(small, *_data(SMALL))
        yield from agreement(interpreter, small)
        for default in (True, False):
            for name in ROBUST:
                yield _ratio(interpreter, name, SMALL, small, default=default)
        many = save(Path(folder) / "many", *_data(MANY))
        middle = save(Path(folder) / "middle", *_data(MIDDLE))
        for name in OTHERS:
            ratio = _ratio(interpreter, name, MANY, many)
            yield ratio if ratio.value is not None else _ratio(interpreter, name, MIDDLE, middle, after=ratio.detail)


def agreement(interpreter: Path, folder: Path) -> Iterator[Result]:
    """Largest differences in what depends on no fold, on the data of `folder`."""
    goal, (logged, draws) = "<= 1e-6", _data(SMALL)
    try:
        theirs = _peer.ask(interpreter, "agreement", folder)
    except _peer.Absent as absent:
        yield from (Result(name, None, goal, f"not measured: {absent}") for name in SAME)
        return
    evaluations = evaluate_all(("snips", "direct"), logged, draws, Options())
    curve = evaluations["direct"].calibration.full
    grid = np.linspace(0, 1, len(theirs["calibrator"]))
    mine = curve(grid, np.empty((len(grid), 0)))
    sizes = f"{len(grid)} scores from 0 to 1, {int(logged.labelled.sum())} labels"
    yield Result(SAME[0], _apart(mine, theirs["calibrator"]), goal, f"{sizes}; its monotone calibrator, full fit")
    yield Result(SAME[1], _apart(mine, theirs["isotonic"]), goal, f'{sizes}; IsotonicRegression(out_of_bounds="clip")')
    hints = {"snips": "its raw-ips without a clip", "direct": "its direct without labels of the targets' own"}
    for name, title in zip(hints, SAME[2:], strict=True):
        mine = np.array([evaluations[name].estimates[policy].value for policy in theirs[name]])
        yield Result(title, _apart(mine, list(theirs[name].values())), goal, f"{len(mine)} policies; {hints[name]}")


BENCHMARKS: tuple[Callable[[], Iterator[Result]], ...] = (few_rows, many_rows, job, peer)

SAME = (
    "agreement: calibrator",
    "agreement: scikit-learn's isotonic fit",
    "agreement: self-normalised value",
    "agreement: plug-in of fresh draws",
)


def save(folder: Path, logged: Logged, draws: Mapping[str, Draws]) -> Path:
    """Write the data as files that both packages read: logged.jsonl and draws/{policy}_responses.jsonl."""
    (folder / "draws").mkdir(parents=True, exist_ok=True)
    base = -1.0 - max(0.0, float(logged.log_ratio.max()))  # no target's log probability may be above 0
    rows = (
        _row(prompt_id, score, label)
        | {
            "base_policy_logprob": base,
            "target_policy_logprobs": dict(zip(logged.policies, (base + ratio).tolist(), strict=True)),
        }
        for prompt_id, score, label, ratio in zip(
            logged.prompt_id.tolist(),
            logged.judge_score.tolist(),
            logged.oracle_label.tolist(),
            logged.log_ratio,
            strict=True,
        )
    )
    _write(folder / "logged.jsonl", rows)
    for policy, of_policy in draws.items():
        rows = (
            _row(prompt_id, score, label) | {"target_policy": policy, "draw_idx": index}
            for prompt_id, scores, labels in zip(
                logged.prompt_id.tolist(), of_policy.judge_score.tolist(), of_policy.oracle_label.tolist(), strict=True
            )
            for index, (score, label) in enumerate(zip(scores, labels, strict=True))
        )
        _write(folder / "draws" / f"{policy}_responses.jsonl", rows)
    return folder


def _row(prompt_id: str, score: float, label: float) -> dict[str, Any]:
    texts = {"prompt_id": prompt_id, "prompt": prompt_id, "response": "a response"}
    return texts | {"judge_score": score, "oracle_label": label}  # NaN is written as null


def _write(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    with path.open("wb") as file:
        file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def _data(n: int) -> Data:
    logged, draws, _ = draw(WORLD, n, SEED)
    return logged, draws


def _judged(evaluation: Evaluation, data: Data) -> object:
    return judge(evaluation, data[0], gather(evaluation, *data, Thresholds()), Thresholds())


def _seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Processor time, the median of some rounds."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def _in_its_own_process(name: str, n: int, rounds: int) -> tuple[float, int]:
    """Processor time of an estimator on n rows, and the most memory its process took, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "seconds"
        peak = peak_of(partial(time_alone, name, n, rounds, note))
        return float(note.read_text()), peak


def time_alone(name: str, n: int, rounds: int, note: Path) -> None:
    """Draw n rows, evaluate, and note the seconds of the latter."""
    data = _data(n)
    note.write_text(repr(_seconds(partial(evaluate, name, *data, Options()), rounds)))


def _apart(mine: np.ndarray, theirs: Sequence[float]) -> float:
    """The largest difference; NaN, which meets no goal, where either side has no number."""
    return float(np.abs(mine - np.asarray(theirs)).max())


def _of_children() -> float:
    """Processor time of all processes that this one has started and seen end."""
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds.ru_utime + seconds.ru_stime


def _ratio(interpreter: Path, name: str, n: int, folder: Path, *, default: bool = False, after: str = "") -> Result:
    """The package's seconds over ours; `after`: the outcome of an earlier try on more rows."""
    title, goal = _title(name, default=default)
    try:
        theirs = _peer.ask(interpreter, f"{name} default" if default else name, folder, limit=PEER_LIMIT)
    except _peer.Absent as absent:
        return Result(title, None, goal, f"{n} rows: not measured: {absent}")
    data = _data(n)
    seconds = _seconds(lambda: _judged(evaluate(name, *data, Options()), data), 1 if n >= MANY else ROUNDS)
    parts = (
        f"{n} rows, CPU seconds after loading: {theirs['seconds']:.3g} against {seconds:.3g}, verdicts included",
        f"its calibrator {theirs['calibrator']}, ours monotone",
        f"it loads the files in {theirs['reading']:.2g}",
        *([after] if after else []),
    )
    return Result(title, theirs["seconds"] / seconds, goal, "; ".join(parts))


def _title(name: str, *, default: bool = False) -> tuple[str, str | None]:
    """How the row of an estimator is called, and its goal: the package as it comes where it is slow by itself."""
    if default:
        return f"cje-eval / ours, {name} as it comes", ">= 100"
    return f"cje-eval / ours, {name}", None if name in ROBUST else ">= 20"


def _peer_rows() -> Sequence[tuple[str, str | None]]:
    """Names and goals of all rows that need the package, in order."""
    ratios = (_title(name, default=default) for default in (True, False) for name in ROBUST)
    return (*((name, "<= 1e-6") for name in SAME), *ratios, *map(_title, OTHERS))
