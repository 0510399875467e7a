"""Processor time and memory of large data: logged rows with five target policies, a fresh draw of each for every prompt.

Every stage of a data set runs as its script does in a job, in a process of its own: import, assembly, the estimators `direct`,
`calibrated-ips` and `dr-cpo`, comparisons, exports, dashboard. Texts have some 500 characters. A stage that is linear in rows has

    slope = (time at n rows / n) / (time at 10 000 rows / 10 000),

1 or less, as what a process takes to start is part of the time at 10 000. ARENA_CJE_BENCH_ROWS names other numbers of rows,
the first of which slopes start from: with 10000,1000000 it takes some 16 GB of disk, 5 GB of memory and 18 CPU-minutes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import runpy
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from arena_cje.errors import UserError
from benchmarks import _large_data as made
from benchmarks._result import Result
from benchmarks._timing import progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROWS = (10_000, 100_000)
SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"
ESTIMATORS = ("direct", "calibrated-ips", "dr-cpo")
FOLDER = "results/coverage_1.0"
SLOPE = 1.2
PAGE_MB, PEAK_MB = 10, 6000


class Job(NamedTuple):
    """A script with what Snakemake would give it."""

    script: str
    files: dict[str, Any]
    outputs: dict[str, Any]
    params: dict[str, Any]


class Cost(NamedTuple):
    """What a job took."""

    cpu: float  # seconds
    peak: float  # MB


def run() -> Iterator[Result]:
    """CPU time and peak memory of each stage at each number of rows, their growth, and the size of the dashboard."""
    first: dict[str, float] = {}
    for n in _numbers_of_rows():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            progress(f"large: {n} rows are made ...")
            made.write(folder, n)
            made.write_stages(folder, n)
            for stage, job in _jobs().items():
                cost = in_process(folder, job)
                progress(f"large: {stage} of {n} rows: {cost.cpu:.1f} CPU-s, {cost.peak:.0f} MB")
                each = 1e6 * cost.cpu / n
                detail = f"{cost.cpu:.1f} CPU-s, {each:.0f} CPU-us a row"
                yield Result(f"peak MB, {stage}, {n} rows", cost.peak, f"<= {PEAK_MB}", detail)
                if stage in first:
                    yield Result(f"slope, {stage}, {n} rows", each / first[stage], f"<= {SLOPE}", detail)
                first.setdefault(stage, each)
            size = (folder / FOLDER / "diagnostics_dashboard.html").stat().st_size / 1e6
            yield Result(f"MB of the dashboard, {n} rows", size, f"<= {PAGE_MB}", "with the items that it lists")


def _numbers_of_rows() -> Sequence[int]:
    setting = os.environ.get("ARENA_CJE_BENCH_ROWS")
    try:
        return tuple(map(int, setting.split(","))) if setting else ROWS
    except ValueError:
        raise UserError(f"ARENA_CJE_BENCH_ROWS is {setting!r}, expected numbers of rows such as 10000,100000") from None


def _jobs() -> dict[str, Job]:
    """The stages in their order."""
    dataset, summary = f"{FOLDER}/cje_dataset.jsonl", f"{FOLDER}/summary.json"
    draws = [f"{FOLDER}/fresh_draws/{policy}.jsonl" for policy in made.POLICIES]
    results = [f"{FOLDER}/{name}.json" for name in ESTIMATORS]
    report_inputs = {"results": results, "dataset": [dataset], "draws": draws, "summary": [summary], "calibration": []}
    report_inputs |= {"validation": [], "lower": [], "look": []}
    nothing = json.dumps({})
    texts = {"thresholds": nothing, "configuration": nothing}
    reading = dict.fromkeys(("scale", "judge", "judge_scale", "label_scale", "base_policy", "probes"))
    return {
        "assembly": Job(
            "assemble.py",
            {
                "responses": "results/responses/base.jsonl",
                "judge": "results/judge/base.jsonl",
                "oracle": "results/oracle/base/coverage_1.0.jsonl",
                "judges": [],
                "logprobs": [f"results/logprobs/{policy}.parquet" for policy in ("base", *made.POLICIES)],
                "models": [],
                "people": [],
            },
            {"dataset": "results/assembled/cje_dataset.jsonl", "summary": "results/assembled/summary.json"},
            {
                "made_from": json.dumps({"base_policy": "base"}),
                "max_unscored": nothing,
                "thresholds": nothing,
                "code": "",
            },
        ),
        "import": Job(
            "import_data.py",
            {"logged": "logged.jsonl", "calibration": []},
            {"dataset": dataset, "summary": summary},
            reading
            | {"fresh_draws": "fresh_draws", "seed": 42, "target_labels": None, "thresholds": nothing, "code": ""},
        ),
        "estimates": Job(
            "estimate.py",
            {"dataset": dataset, "summary": summary, "draws": draws, "draw_summaries": [], "calibration": []},
            {name: f"{FOLDER}/{name}.json" for name in ESTIMATORS},
            dict.fromkeys(("options", "thresholds", "decision", "cautions", "prices"), nothing)
            | {"estimators": {name: name for name in ESTIMATORS}, "code": ""},
        ),
        "comparisons": Job("report.py", report_inputs, {"comparisons": f"{FOLDER}/comparisons.json"}, texts),
        "exports of all rows": Job(
            "report.py",
            {"first": results[0], "dataset": dataset, "calibration": [], "logprobs": []},
            {name: f"{FOLDER}/exports/{name}.jsonl" for name in ("precomputed_sampler", "stochastic_log")},
            {"non_propensity": []},
        ),
        "dashboard": Job("report.py", report_inputs, {"dashboard": f"{FOLDER}/diagnostics_dashboard.html"}, texts),
    }


def in_process(folder: Path, job: Job) -> Cost:
    """What a job takes in a process of its own, with all that it imports."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_cost, folder, job).result()


class Named(list):
    """Files or parameters as a script has them: all in a row, and by name."""

    def __init__(self, values: Mapping[str, Any]):
        super().__init__(one for value in values.values() for one in (value if isinstance(value, list) else [value]))
        self._values = values
        self.items, self.get = values.items, values.get

    def __getattr__(self, name: str) -> Any:
        return self._values[name]


def _cost(folder: Path, job: Job) -> Cost:
    snakemake = SimpleNamespace(
        rule="large",
        config={"policies": dict.fromkeys(("base", *made.POLICIES), {})},
        log=[],
        wildcards=Named({"coverage": "1.0"}),
        input=Named(job.files),
        output=Named(job.outputs),
        params=Named(job.params),
    )
    os.chdir(folder)
    runpy.run_path(str(SCRIPTS / job.script), {"snakemake": snakemake})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(time.process_time(), peak)
