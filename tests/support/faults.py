"""Faults of a run at seeded random moments, and the state after the documented command has repaired them.

    outcome = inject(study, "kill -9 of a job", seed=3, folder=tmp_path)

A study is a small experiment with a tiny random model and its run without a fault. Each fault has a folder of its own, with a
copy of that run when it was finished, or at a random moment before its end. Afterwards `arena-cje doctor --redo` and the same
command complete the run. Lost items were finished and are not in the journals any more, doubled items were computed twice, and
different results are not the bytes of the run without a fault.
"""

from __future__ import annotations

import contextlib
import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil

import tiny_gguf
from arena_cje.journal import read
from arena_cje.stages import seals
from workflow_run import CONFIG, ROOT, Run, write_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    FaultyRun = tuple[Run, Run, str, str]
    Fault = Callable[["Study", random.Random, Path], contextlib.AbstractContextManager[FaultyRun]]

TARGET = "results/coverage_0.5/snips.json"
LONGEST = 300  # seconds that any run of the study takes; one that takes longer hangs
START = 2  # seconds before the first job of a run begins
SMALL_DISK, LARGE_DISK = (10_000, 600_000), 64_000_000  # bytes


@dataclass(frozen=True)
class Outcome:
    """The state of a run after a fault and its repair.

    silent: a fault that had to be reported and was not; unfinished: why the command could not end; a text, or empty.
    """

    fault: str
    seed: int
    lost: int
    doubled: int
    different: int
    silent: str
    detail: str
    unfinished: str = ""


@dataclass
class Study:
    """The experiment, and the results of its run without a fault, by configuration."""

    folder: Path
    seconds: float = 0.0  # of the run without a fault
    finished: dict[str, Run] = field(default_factory=dict)

    def run(self, folder: Path, **changes: Any) -> Run:
        """The experiment in a new folder, not begun."""
        folder.mkdir(parents=True)
        for name in ("tiny.gguf", "prompts.jsonl", "other.txt"):
            shutil.copy2(self.folder / name, folder / name)
        config = copy.deepcopy(CONFIG) | {"n_prompts": 12, "shard_size": 6, "coverages": ["0.5"], **changes}
        config["policies"] = {name: config["policies"][name] for name in ("base", "other")}
        return Run(folder, config)

    def clean(self, **changes: Any) -> Run:
        """The run without a fault."""
        name = repr(changes)
        if name not in self.finished:
            run, began = self.run(self.folder / f"clean-{len(self.finished)}", **changes), time.monotonic()
            run.snakemake(TARGET)
            self.seconds = self.seconds or time.monotonic() - began
            self.finished[name] = run
        return self.finished[name]

    def copy(self, folder: Path, share: float = 1.0) -> Run:
        """The run without a fault in another folder, at the moment when a share of its time was over; finished by default."""
        run = self.clean()
        shutil.copytree(run.directory, folder, symlinks=True, dirs_exist_ok=True)
        if share < 1:
            times = [path.stat().st_mtime for path in _files_of_run(folder)]
            _forget(folder, min(times) + share * (max(times) - min(times)))
        return Run(folder, copy.deepcopy(run.config))


FOLDERS_OF_A_RUN = ("results", ".snakemake", ".arena-cje", "logs")


def _files_of_run(folder: Path) -> list[Path]:
    """The files that a run has written."""
    return [path for name in FOLDERS_OF_A_RUN for path in (folder / name).rglob("*") if path.is_file()]


def _forget(folder: Path, moment: float) -> None:
    """Delete the files that were written after a moment: files are written at once, and a journal ends with its stage."""
    for path in _files_of_run(folder):
        if path.stat().st_mtime > moment:
            path.unlink()


def new_study(folder: Path) -> Study:
    """A study in an empty folder."""
    tiny_gguf.write(folder / "tiny.gguf", spread=8.0)
    write_prompts(folder / "prompts.jsonl", 12)
    (folder / "other.txt").write_text("Answer with other words.")
    return Study(folder)


def inject(study: Study, fault: str, seed: int, folder: Path) -> Outcome:
    """Inject a fault into a run in a new folder, repair and complete the run, and compare it with the one without a fault."""
    chance = random.Random(f"{fault} {seed}")
    study.clean()
    with FAULTS[fault](study, chance, folder) as (run, expected, silent, detail):
        before = _finished_items(run)
        finding_count = doctor(run)
        run.snakemake(TARGET)
        after = Counter(_finished_items(run))
        outputs, expected_outputs = run.outputs(), expected.outputs()
        different = sorted(
            name for name in outputs.keys() | expected_outputs.keys() if outputs.get(name) != expected_outputs.get(name)
        )
        doubled = after.total() - len(after)
        detail = "; ".join(
            filter(None, [detail, f"doctor: {finding_count}" if finding_count else "", " ".join(different[:3])])
        )
        return Outcome(fault, seed, len({*before} - {*after}), doubled, len(different), silent, detail)


def doctor(run: Run) -> str:
    """Run `arena-cje doctor --redo` in the folder of a run; how many files it removed, as a text, or empty."""
    command = [sys.executable, "-m", "arena_cje", "doctor", "--redo"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    process = subprocess.run(command, cwd=run.directory, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout.splitlines()[-1].partition(" of these")[0] if "Removed" in process.stdout else ""


def _finished_items(run: Run) -> list[str]:
    """Keys of all items in the journals, each with its file's folder."""
    folder = run.directory / "results" / "journal"
    files = sorted(folder.rglob("*.jsonl"))
    return [f"{file.parent.relative_to(folder)} {key}" for file in files for key, _ in read(file, in_use=True)]


# Faults: each is a context of (the run with the fault, the run to compare with, a fault without a report, a detail).


def _signal(number: signal.Signals, whom: str) -> Fault:
    @contextlib.contextmanager
    def strike(study: Study, chance: random.Random, folder: Path) -> Iterator[FaultyRun]:
        share = chance.uniform(0, 0.9)
        run = study.copy(folder, share)
        process = run.start(TARGET)
        moment = chance.uniform(0.1, 0.95) * (START + (1 - share) * study.seconds)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if whom == "a job":
                if jobs := _jobs(process):
                    chance.choice(jobs).send_signal(number)
            elif whom == "the group":
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        is_stuck = _end(process)
        yield (
            run,
            study.clean(),
            "",
            f"{share:.0%} done, after {moment:.1f} s{', then killed, as it hung' if is_stuck else ''}",
        )

    return strike


def _jobs(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes of the jobs that run."""
    jobs = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(".snakemake/scripts" in word for word in child.cmdline()):
                jobs.append(child)
    return jobs


def _end(process: subprocess.Popen) -> bool:
    """Wait for the end of a run and of the jobs that outlive a Snakemake which was killed; whether it had to be killed.

    A signal that reaches Snakemake while it records the end of a job can make it wait for itself for ever. Schedulers and
    people kill a process that does not end after a signal.
    """
    is_stuck = False
    try:
        process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        is_stuck = True
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(LONGEST)
    for _ in range(LONGEST * 10):
        alive = [other for other in psutil.process_iter(["pid"]) if _group(other.pid) == process.pid]
        if not any(other.status() != psutil.STATUS_ZOMBIE for other in alive):
            break
        time.sleep(0.1)
    return is_stuck


def _group(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _short(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(lines[: chance.randrange(len(lines))])


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _flipped(content: bytes, chance: random.Random) -> bytes:
    position = chance.randrange(len(content))
    return content[:position] + bytes([content[position] ^ 1 << chance.randrange(8)]) + content[position + 1 :]


def _output(damage: Callable[[bytes, random.Random], bytes], pattern: str) -> Fault:
    """An output is damaged, and the files made from it are missing: the run must refuse the output by name."""

    @contextlib.contextmanager
    def strike(study: Study, chance: random.Random, folder: Path) -> Iterator[FaultyRun]:
        run = study.copy(folder)
        with contextlib.chdir(folder):
            seals_by_file = {
                seals.sealed_file(place): seals.read(seals.sealed_file(place)) for place in seals.all_seals()
            }
            readers_of = {
                path: [reader_path for reader_path, seal in seals_by_file.items() if str(path) in dict(seal.inputs)]
                for path in seals_by_file
            }
            path = chance.choice(
                sorted(path for path, readers in readers_of.items() if readers and path.match(pattern))
            )
            path.write_bytes(damage(path.read_bytes(), chance))
            queue = list(readers_of[path])
            while queue:  # Snakemake reads the output again only to make a file that is missing
                reader = queue.pop()
                queue += readers_of[reader]
                reader.unlink(missing_ok=True)
        output = run.snakemake(TARGET, ok=False)
        silent = "" if f"ERROR {path}: " in output and "Traceback" not in output else f"{path} was not refused by name"
        yield run, study.clean(), silent, str(path)

    return strike


def _journal(damage: Callable[[bytes, random.Random], bytes]) -> Fault:
    @contextlib.contextmanager
    def strike(study: Study, chance: random.Random, folder: Path) -> Iterator[FaultyRun]:
        run = study.copy(folder)
        path = chance.choice(sorted((folder / "results" / "journal").rglob("*.jsonl")))
        write_time = path.stat().st_mtime
        path.write_bytes(damage(path.read_bytes(), chance))
        for other in _files_of_run(folder):  # outputs of this journal and all later files
            if other.stat().st_mtime >= write_time and "journal" not in other.parts:
                other.unlink()
        yield run, study.clean(), "", str(path.relative_to(folder))

    return strike


@contextlib.contextmanager
def _other_configuration(study: Study, chance: random.Random, folder: Path) -> Iterator[FaultyRun]:
    """Snakemake's memory is deleted and the configuration changed: the results must be those of the new one."""
    changes = chance.choice([{"seed": 2}, {"judge": {"max_unscored": 0.3}}, {"analysis": {"alpha": 0.2}}])
    run = study.copy(folder)
    shutil.rmtree(folder / ".snakemake")
    expected = study.clean(**changes)
    run.config = copy.deepcopy(expected.config)
    # Items of the old configuration stay in the journals, so nothing is lost.
    yield run, expected, "", repr(changes)


@contextlib.contextmanager
def _full_disk(study: Study, chance: random.Random, folder: Path) -> Iterator[FaultyRun]:
    """The disk is full at some moment of the run, and has space again afterwards."""
    folder.mkdir()
    size, share = chance.randrange(*SMALL_DISK), chance.uniform(0, 0.9)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LARGE_DISK}", "tmpfs", str(folder)], check=True)
    try:
        run = study.copy(folder / "run", share)
        used = shutil.disk_usage(folder).used
        subprocess.run(["mount", "-o", f"remount,size={used + size}", str(folder)], check=True)
        process = subprocess.run(
            run.command(TARGET),
            cwd=run.directory,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            start_new_session=True,
        )
        output = process.stdout + process.stderr
        own = [line for line in output.splitlines() if "arena_cje" in line and line.lstrip().startswith("File ")]
        silent = f"a traceback: {own[-1].strip()}" if own else ""
        subprocess.run(["mount", "-o", f"remount,size={LARGE_DISK}", str(folder)], check=True)
        yield run, study.clean(), silent, f"{share:.0%} done, {size} bytes left, exit status {process.returncode}"
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def _race(study: Study, chance: random.Random, folder: Path) -> Iterator[FaultyRun]:
    """Two runs at the same time in one folder."""
    share = chance.uniform(0, 0.9)
    run = study.copy(folder, share)
    first = run.start(TARGET)
    time.sleep(chance.uniform(0, 0.5) * (START + (1 - share) * study.seconds))
    second = run.start(TARGET)
    for process in (first, second):
        process.wait(LONGEST)
    yield run, study.clean(), "", f"exit status {first.returncode} and {second.returncode}"


FAULTS: dict[str, Fault] = {
    "kill -9 of a job": _signal(signal.SIGKILL, "a job"),
    "kill -9 of Snakemake": _signal(signal.SIGKILL, "Snakemake"),
    "kill -9 of the group": _signal(signal.SIGKILL, "the group"),
    "SIGTERM to a job": _signal(signal.SIGTERM, "a job"),
    "SIGTERM to Snakemake": _signal(signal.SIGTERM, "Snakemake"),
    "SIGTERM to the group": _signal(signal.SIGTERM, "the group"),
    "SIGINT to a job": _signal(signal.SIGINT, "a job"),
    "SIGINT to the group": _signal(signal.SIGINT, "the group"),
    "table short of lines": _output(_short, "*.jsonl"),
    "output cut": _output(_cut, "*"),
    "output with another bit": _output(_flipped, "*"),
    "journal cut": _journal(_cut),
    "journal with another bit": _journal(_flipped),
    ".snakemake gone, other configuration": _other_configuration,
    "two runs at once": _race,
    "full disk": _full_disk,
}
ANY_USER = tuple(name for name in FAULTS if name != "full disk")  # a disk of its own is for root alone
