"""Results and processor times of the public package cje-eval 0.3, in an environment of its own.

This file runs on both sides. The benchmark imports it, and it finds the environment and starts a process there; as a script
with a question on the command line, it prints the answer as JSON. Estimators run as `analyze_dataset` runs them, with one
optional change: a monotone calibrator, where the package by itself chooses between two. The time of reading files is counted
apart from that of computing, and imports count in neither. One thread, so that processor time is what one core takes.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
import venv
import warnings
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REQUIREMENT = "cje-eval==0.3.*"
VARIABLE = "CJE_EVAL_PYTHON"
PATIENCE = 600  # seconds pip may take
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# The default draws a bootstrap, which is NaN where fresh draws have no labels; this is its jackknife.
CONFIG = {"direct": {"inference_method": "cluster_robust"}}
GRID = 501  # scores from 0 to 1


class Absent(Exception):
    """There is no answer; the message has the reason."""


class Peer(NamedTuple):
    """Packages in an environment of their own."""

    requirements: tuple[str, ...]  # of the first, the version is checked
    variable: str  # of the environment, that may name an interpreter
    home: Path  # of the environment that is made where it names none


REFERENCE = Peer((REQUIREMENT,), VARIABLE, Path("results/bench/.peer"))


def python(peer: Peer = REFERENCE) -> Path:
    """The interpreter that has the packages: the one that the variable names, else one of an environment made here."""
    path = os.environ.get(peer.variable)
    interpreter = Path(path) if path else peer.home / "bin/python"
    needed = " ".join(peer.requirements)
    if not path and not interpreter.exists():
        venv.create(peer.home, with_pip=True)
    if not interpreter.exists():
        raise Absent(
            f"{peer.variable} names {interpreter}, which does not exist; name an interpreter that has {needed}"
        )
    if not _has_it(interpreter, peer.requirements[0]):
        if path:
            raise Absent(
                f"{interpreter}, named by {peer.variable}, has no {needed}; install it there, or unset {peer.variable}"
            )
        _install(interpreter, peer.requirements)
    return interpreter


def ask(interpreter: Path, question: str, folder: Path, *, limit: float = PATIENCE) -> dict[str, Any]:
    """The package's results on the data in `folder`; raises `Absent` after `limit` seconds on the clock.

    question: an estimator, alone or as "estimator default" for the calibrator of the package's own choice; or
    "agreement", for what should be the same here and there.
    """
    command = [str(interpreter), str(Path(__file__).resolve()), question, str(folder)]
    try:
        process = subprocess.run(
            command, env=os.environ | ONE_THREAD, timeout=limit, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"the peer did not end within {limit:.0f} s") from None
    if process.returncode:
        raise Absent(f"the peer failed: {_last_line(process.stderr)}")
    return json.loads(process.stdout.splitlines()[-1])


def _has_it(interpreter: Path, requirement: str) -> bool:
    """Whether the package is installed in the required version."""
    package, version = requirement.split("==")
    test = f"from importlib.metadata import version; print(version('{package}'))"
    process = subprocess.run([str(interpreter), "-c", test], capture_output=True, text=True, check=False)
    return fnmatch(process.stdout.strip(), version)


def _install(interpreter: Path, requirements: Sequence[str]) -> None:
    command = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    packages = " ".join(requirements)
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise Absent(f"pip could not install {packages} within {PATIENCE} s; is there a network?") from None
    if process.returncode:
        raise Absent(f"pip could not install {packages}: {_last_line(process.stderr)}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]


def _main(question: str, folder: str) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    name, _, calibrator = question.partition(" ")
    if name == "agreement":
        answer = _agreement(Path(folder))
    else:
        answer = _estimated(name, Path(folder), monotone=calibrator != "default")
    print(json.dumps(answer))


def _estimated(name: str, folder: Path, *, monotone: bool) -> dict[str, Any]:
    """`analyze_dataset` by one estimator: seconds, and estimates by policy."""
    import cje
    from cje.data import fresh_draws
    from cje.interface import service

    reading: list[float] = []
    service.load_dataset_from_jsonl = _clocked(service.load_dataset_from_jsonl, reading)
    fresh_draws.load_fresh_draws_auto = _clocked(fresh_draws.load_fresh_draws_auto, reading)
    if monotone:
        service.calibrate_dataset = partial(service.calibrate_dataset, calibration_mode="monotone")
    start = time.process_time()
    result = cje.analyze_dataset(
        logged_data_path=str(folder / "logged.jsonl"),
        fresh_draws_dir=str(folder / "draws"),
        estimator=name,
        estimator_config=CONFIG.get(name),
    )
    total = time.process_time() - start
    policies = result.metadata["target_policies"]
    low, high = result.confidence_interval()
    columns = {"value": result.estimates, "se": result.standard_errors, "low": low, "high": high}
    estimates = {title: dict(zip(policies, map(float, column), strict=True)) for title, column in columns.items()}
    calibrator = getattr(result.calibrator, "selected_mode", "unknown")
    return estimates | {"seconds": total - sum(reading), "reading": sum(reading), "calibrator": calibrator}


def _clocked(work: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The same work, noting the processor time it takes."""

    def clocked(*arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return work(*arguments, **options)
        finally:
            seconds.append(time.process_time() - start)

    return clocked


def _agreement(folder: Path) -> dict[str, Any]:
    """What depends on no fold: the calibrator on a grid, the self-normalised value, the plug-in of fresh draws."""
    import numpy as np
    from cje.calibration import calibrate_dataset
    from cje.data import load_dataset_from_jsonl
    from cje.data.fresh_draws import load_fresh_draws_auto
    from cje.data.precomputed_sampler import PrecomputedSampler
    from cje.estimators.calibrated_ips import CalibratedIPS
    from cje.estimators.direct_method import CalibratedDirectEstimator
    from sklearn.isotonic import IsotonicRegression

    data = load_dataset_from_jsonl(str(folder / "logged.jsonl"))
    calibrated, result = calibrate_dataset(data, enable_cross_fit=True, n_folds=5, calibration_mode="monotone")
    grid = np.linspace(0.0, 1.0, GRID)
    pairs = [(one.judge_score, one.oracle_label) for one in data.samples if one.oracle_label is not None]
    plain = IsotonicRegression(out_of_bounds="clip").fit(*np.array(pairs).T)
    weighted = CalibratedIPS(PrecomputedSampler(calibrated), calibrate_weights=False, clip_weight=1e300)
    direct = CalibratedDirectEstimator(
        target_policies=data.target_policies,
        reward_calibrator=result.calibrator,
        inference_method="cluster_robust",
        use_augmented_estimator=False,
    )
    for policy in data.target_policies:
        direct.add_fresh_draws(policy, load_fresh_draws_auto(folder / "draws", policy))
    snips, plug_in = (one.fit_and_estimate().estimates.tolist() for one in (weighted, direct))
    return {
        "calibrator": result.calibrator.predict(grid).tolist(),
        "isotonic": plain.predict(grid).tolist(),
        "snips": dict(zip(data.target_policies, snips, strict=True)),
        "direct": dict(zip(data.target_policies, plug_in, strict=True)),
    }


if __name__ == "__main__":
    _main(*sys.argv[1:])
