"""Limits of a machine: no space on its disk, no right to write, an interrupt, a terminal without some characters."""

from __future__ import annotations

import ctypes
import errno
import io
import logging
import os
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from plotnine import aes, geom_point, ggplot

import arena_cje
from arena_cje import files
from arena_cje.__main__ import main
from arena_cje.calls.ledger import Ledger
from arena_cje.calls.request import Usage
from arena_cje.data import schemas
from arena_cje.errors import UserError, file_errors
from arena_cje.journal import FinishedItem, Journal
from arena_cje.report import archive, making
from arena_cje.results.analyze import write
from arena_cje.stages.jobs import job
from own_data import write_world
from workflow_run import ROOT

FRAME = pl.DataFrame({"x": list(range(5000)), "y": [os.urandom(8).hex() for _ in range(5000)]})
TEXT = "x" * 10_000
POINTS = ggplot(FRAME.head(3), aes("x", "x")) + geom_point()
WRITERS = {
    "text.txt": lambda path: files.write_bytes(path, TEXT.encode()),
    "value.json": lambda path: files.write_json(path, TEXT),
    "rows.jsonl": lambda path: files.write_jsonl(path, [{"x": TEXT}]),
    "frame.csv": lambda path: files.write_csv(path, FRAME),
    "archive.zip": lambda path: archive.write(path, {"random": os.urandom(10_000)}),
    **{
        f"exhibit{suffix}": partial(lambda suffix, value, path: making.WRITERS[suffix](path, value), suffix, value)
        for suffix, value in ((".html", TEXT), (".parquet", FRAME), (".png", POINTS), (".csv", FRAME))
    },
}


@contextmanager
def files_of_at_most(n_bytes):
    """No file can grow beyond a size while the body runs, as on a full disk: a limit of the operating system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_does_not_fit_leaves_the_one_before_and_no_half(tmp_path, name):
    path = tmp_path / name
    path.write_text("before")
    with files_of_at_most(200), pytest.raises(UserError, match=f"^{path}: the file exceeds the size limit"):
        WRITERS[name](path)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == [name]
    WRITERS[name](path)
    assert path.stat().st_size > 200


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "your disk quota is used up"),
        (errno.EIO, "the disk cannot be read or written"),
    ],
)
def test_an_error_of_the_disk_is_one_sentence_with_the_path(tmp_path, monkeypatch, name, number, words):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=f"^{tmp_path / name}: {words}"):
        WRITERS[name](tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EROFS, "read-only"), (errno.EACCES, "permission denied"), (errno.EPERM, "permission denied")],
)
def test_a_folder_that_cannot_be_written_is_told_with_the_path(tmp_path, monkeypatch, number, words):
    def fail(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "open", fail)
    path = tmp_path / "rows.jsonl"
    for call in (lambda: files.write_jsonl(path, [{}]), Journal(path).__enter__):
        with pytest.raises(UserError, match=f"^{path}: .*{words}"):
            call()


def test_a_full_device_in_the_words_of_polars(tmp_path):
    with (
        pytest.raises(UserError, match="^/dev/full: the disk is full"),
        file_errors("/dev/full"),
        open("/dev/full", "wb") as file,
    ):
        FRAME.write_parquet(file)


def test_a_result_is_written_as_a_whole_or_told(tmp_path):
    write_world(tmp_path, 60)
    result = arena_cje.analyze(tmp_path / "mine.jsonl", tmp_path / "draws", "direct")
    paths = [tmp_path / "out" / name for name in ("r.json", "r.csv", "r.influence.parquet")]
    with files_of_at_most(100), pytest.raises(UserError, match="r.json: the file exceeds the size limit"):
        write(result, *paths)
    assert os.listdir(tmp_path / "out") == []


def test_items_that_a_journal_has_are_kept_when_the_next_does_not_fit(tmp_path):
    path = tmp_path / "0000.jsonl"
    with Journal(path) as journal:
        journal.append([FinishedItem("a", {"x": 1})])
    too_large = pytest.raises(UserError, match=f"^{path}: the file exceeds the size limit")
    with too_large, files_of_at_most(path.stat().st_size + 10), Journal(path) as journal:
        journal.append([FinishedItem("b", {"x": 2})])
    with Journal(path) as journal:
        assert journal.find("ab") == {"a": {"x": 1}}
        journal.append([FinishedItem("b", {"x": 2})])
        assert journal.find("ab") == {"a": {"x": 1}, "b": {"x": 2}}


def test_a_ledger_on_a_full_disk_names_its_file(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "spending.jsonl", lambda *_: 1.0)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match=r"spending\.jsonl: the disk is full"):
        ledger.record(
            SimpleNamespace(api="openai", provider="p"),
            "m",
            stage="judge",
            policy=None,
            usage=Usage(1, 1),
            estimated=False,
        )


@pytest.fixture
def snakemake(tmp_path, monkeypatch):
    """The `snakemake` object of a script; handlers of the log are removed afterwards."""
    root, hook = logging.getLogger(), sys.excepthook
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(logging, "raiseExceptions", True)
    log = tmp_path / "job.log"
    yield SimpleNamespace(
        rule="estimate", wildcards=["名前"], input=[], output=[], params={}, log=[str(log)], config={}
    )
    sys.excepthook = hook


def test_an_error_of_the_disk_ends_a_job_in_one_line(snakemake, capsys):
    with pytest.raises(SystemExit) as exit_info, job(snakemake):
        Path("/dev/full").write_text("x")
    assert exit_info.value.code == 1
    assert capsys.readouterr().err == "[estimate 名前] ERROR the disk is full; " + (
        "free some space and run the same command again (finished items are kept)\n"
    )


def test_a_log_that_cannot_be_written_is_told_in_one_line(snakemake, tmp_path, capsys):
    snakemake.log = [str(tmp_path / "job.log" / "x")]
    (tmp_path / "job.log").touch()
    with pytest.raises(SystemExit), job(snakemake):
        pass
    assert capsys.readouterr().err.endswith(
        "ERROR " + f"{tmp_path}/job.log/x: part of this path is a file, expected a folder\n"
    )
    snakemake.log = ["/dev/full"]
    with job(snakemake) as log:
        log.info("a line that is lost")
    assert "Traceback" not in capsys.readouterr().err


@ctypes.CFUNCTYPE(None)
def interrupted_callback():
    """An interrupt during a callback from C, whose error Python drops."""
    raise KeyboardInterrupt


def test_an_interrupt_in_a_callback_from_c_ends_the_job(snakemake, capsys):
    hook = sys.unraisablehook
    with pytest.raises(SystemExit) as exit_info, job(snakemake):
        interrupted_callback()
        time.sleep(30)
    assert exit_info.value.code == 130
    assert capsys.readouterr().err == "[estimate 名前] WARNING interrupted; the same command continues from here\n"
    assert sys.unraisablehook is hook


def test_other_errors_in_a_callback_are_shown_as_ever(snakemake, monkeypatch):
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", errors.append)
    with job(snakemake):
        ctypes.CFUNCTYPE(None)(lambda: 1 / 0)()
    assert [one.exc_type for one in errors] == [ZeroDivisionError]


# The terminal.

PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
PLAIN["PYTHONPATH"] = str(ROOT / "workflow")
ASCII = {
    "an encoding": {"PYTHONIOENCODING": "ascii"},
    "a strict encoding": {"PYTHONIOENCODING": "latin-1:strict"},
    "a locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A results file with a policy whose name is in Japanese."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 60)
    old = next(iter((folder / "draws").iterdir())).name.removesuffix("_responses.jsonl")
    for path in [folder / "mine.jsonl", *(folder / "draws").iterdir()]:
        text = path.read_text().replace(f'"{old}"', '"名前"')
        path.with_name(path.name.replace(old, "名前")).write_text(text)
    (folder / "draws" / f"{old}_responses.jsonl").unlink()
    result = arena_cje.analyze(folder / "mine.jsonl", folder / "draws", "direct")
    files.write_bytes(folder / "result.json", result.to_json().encode())
    return folder


@pytest.mark.parametrize("settings", ASCII)
def test_what_a_terminal_lacks_is_shown_escaped(world, settings):
    command = [sys.executable, "-m", "arena_cje", "show", str(world / "result.json")]
    process = subprocess.run(command, env=PLAIN | ASCII[settings], capture_output=True)
    assert (process.returncode, process.stderr) == (0, b"")
    assert rb"\u540d\u524d" in process.stdout


def test_a_locale_that_cannot_name_a_file_is_told(world):
    analysis = f"""
import arena_cje
from arena_cje.errors import UserError
try:
    print(arena_cje.analyze({str(world / "mine.jsonl")!r}, {str(world / "draws")!r}, "direct"))
except UserError as error:
    print("ERROR", ascii(str(error)))
try:
    arena_cje.load({str(world)!r} + "/\\u540d.json")
except UserError as error:
    print("ERROR", ascii(str(error)))
"""
    process = subprocess.run([sys.executable, "-c", analysis], env=PLAIN | ASCII["a locale"], capture_output=True)
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout.count(b"ERROR") == 2
    assert b"set PYTHONUTF8=1" in process.stdout


def test_the_output_of_a_command_on_a_full_disk_is_told(world, tmp_path, monkeypatch, capsys):
    with open("/dev/full", "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert main(["show", str(world / "result.json")]) == 1
    assert capsys.readouterr().err.startswith("ERROR: the disk is full")


def test_what_a_job_prints_and_logs_is_shown_escaped(snakemake, monkeypatch):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    for handler in logging.getLogger().handlers:  # reports of parallel tests cannot hold half a character
        monkeypatch.setattr(handler, "emit", lambda record: None)
    with job(snakemake) as log:
        print("名前")
        log.info("%s \ud800", "名前")
    for stream in streams.values():
        stream.flush()
        assert rb"\u540d\u524d" in stream.buffer.getvalue()
    assert "名前 \\ud800" in Path(snakemake.log[0]).read_text()


def test_tables_of_rows_do_not_depend_on_the_locale(world):
    rows = [{"prompt_id": "名前", "prompt": "ü"}]
    schemas.PROMPTS.write(world / "prompts.jsonl", rows)
    code = f"from arena_cje.data import schemas; print(ascii(schemas.PROMPTS.read({str(world / 'prompts.jsonl')!r})))"
    process = subprocess.run([sys.executable, "-c", code], env=PLAIN | ASCII["a locale"], capture_output=True)
    assert rb"\u540d\u524d" in process.stdout, process.stderr
