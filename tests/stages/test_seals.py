"""A result file that differs from its seal is refused by name; a file without a seal is read unchecked."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from arena_cje import files
from arena_cje.__main__ import main
from arena_cje.errors import UserError
from arena_cje.stages import seals
from arena_cje.stages.jobs import recorded

TABLE = Path("results/responses/base/0003.jsonl")
ROWS = [{"prompt_id": f"q{k}", "response": "text"} for k in range(8)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def job(inputs: list[str], *outputs: Path, write=lambda path: files.write_jsonl(path, ROWS)) -> None:
    """Run a job that writes its outputs and succeeds."""
    with seals.sealed(inputs, [str(path) for path in outputs], "generate", {"seed": 1}):
        for path in outputs:
            write(path)


DAMAGE = {
    "whole lines are missing at the end": lambda content: b"".join(content.splitlines(keepends=True)[:5]),
    "a line is missing in the middle": lambda content: b"".join(
        content.splitlines(keepends=True)[k] for k in (0, 2, 3)
    ),
    "the last line is cut": lambda content: content[:-9],
    "nothing is left": lambda content: b"",
    "a line stands there twice": lambda content: content + content.splitlines(keepends=True)[-1],
    "a byte is another": lambda content: content.replace(b"q7", b"q9"),
    "a line is longer": lambda content: content.replace(b"q7", b"q77"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_table_is_refused_by_name_with_the_command_that_repairs_it(what):
    job([], TABLE)
    TABLE.write_bytes(DAMAGE[what](TABLE.read_bytes()))
    with pytest.raises(UserError, match=f"^{TABLE}: is damaged: .*; remove it .*arena-cje doctor --redo"):
        job([str(TABLE)], Path("results/responses/base.jsonl"))
    assert not Path("results/responses/base.jsonl").exists()


def test_the_message_about_a_damaged_table_counts_the_remaining_rows():
    job([], TABLE)
    TABLE.write_bytes(DAMAGE["whole lines are missing at the end"](TABLE.read_bytes()))
    with pytest.raises(UserError, match="is damaged: 5 rows are left of 8"):
        seals.check(TABLE)


def test_a_parquet_table_is_sealed_with_its_number_of_rows_and_checked():
    path = Path("results/logprobs/base.parquet")
    job([], path, write=lambda path: files.replace(path, pl.DataFrame({"x": [1, 2, 3]}).write_parquet))
    assert seals.read(path).rows == 3
    files.replace(path, pl.DataFrame({"x": [1, 2]}).write_parquet)  # a valid file, but not the one of the seal
    with pytest.raises(UserError, match=f"^{path}: is damaged"):
        seals.check(path)


def test_a_seal_records_the_hashes_of_inputs_and_the_number_of_rows():
    job([], TABLE)
    job([str(TABLE)], Path("results/responses/base.jsonl"))
    seal = seals.read("results/responses/base.jsonl")
    assert seal.inputs == ((str(TABLE), seals.read(TABLE).sha256),)
    assert seal.rows == 8


def test_a_file_without_a_seal_is_accepted_unchecked():
    TABLE.parent.mkdir(parents=True)
    for path in (TABLE, Path("mine.jsonl")):
        path.write_text("{}\n")
        assert seals.check(path) is None


def test_files_outside_the_results_get_no_seal():
    job([], Path("models/tiny.gguf"))
    assert seals.all_seals() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("no")])
def test_the_output_of_an_interrupted_or_failed_job_is_refused_as_incomplete(error):
    def write_and_end(path):
        files.write_jsonl(path, ROWS)
        raise error

    with pytest.raises(BaseException, match=r"no|^$"):
        job([], TABLE, write=write_and_end)
    with pytest.raises(UserError, match=f"^{TABLE}: is incomplete"):
        seals.check(TABLE)
    job([], TABLE)
    assert seals.check(TABLE)


def test_outputs_of_a_killed_job_are_removed_unless_a_run_has_locked_the_folder():
    def write_and_die(path):
        files.write_jsonl(path, ROWS)
        raise KeyboardInterrupt

    unfinished_output = Path("results", "a" * 200, "b" * 200 + ".jsonl")  # Snakemake splits the name of its record
    with pytest.raises(KeyboardInterrupt):
        job([], unfinished_output, write=write_and_die)
    job([], TABLE)
    for path in (unfinished_output, TABLE):
        seals._write_record("incomplete", path, {"external_jobid": None})
    lock = seals.MEMORY / "locks" / "0.output.lock"
    lock.parent.mkdir()
    for path in (lock, seals.MEMORY / "incomplete" / "migration_underway"):
        path.touch()
    assert seals.remove_unfinished() == []
    lock.unlink()
    assert seals.remove_unfinished() == [unfinished_output]
    assert TABLE.exists() and not unfinished_output.exists() and not seals.place(unfinished_output).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"rule": "x"}'])
def test_a_file_with_a_damaged_seal_is_refused(content):
    job([], TABLE)
    seals.place(TABLE).write_bytes(content)
    with pytest.raises(UserError, match=f"^{TABLE}: "):
        seals.check(TABLE)


@pytest.mark.parametrize("command", ["show", "validate"])
def test_the_commands_show_and_validate_refuse_a_damaged_file(command, capsys):
    path = Path("results/coverage_0.1/cje_dataset.jsonl")
    job([], path)
    path.write_bytes(DAMAGE["whole lines are missing at the end"](path.read_bytes()))
    assert main([command, str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"ERROR: {path}: is damaged: 5 rows are left of 8")


def test_a_damaged_parquet_table_is_refused_by_its_bytes():
    path = Path("results/logprobs/base.parquet")
    job([], path, write=lambda path: files.replace(path, pl.DataFrame({"x": [1, 2, 3]}).write_parquet))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(
        UserError, match=rf"base.parquet: is damaged: it has {path.stat().st_size} bytes, \d+ were written"
    ):
        seals.check(str(path))


def test_derived_parameters_are_those_that_rules_compute_from_outputs():
    """Snakemake does not compare these parameters, so its record must not contain them after it is rebuilt."""
    rules = "".join(
        path.read_text(encoding="utf-8") for path in (Path(__file__).parents[2] / "workflow/rules").glob("*.smk")
    )
    assert set(re.findall(r"(\w+)=lambda w, output", rules)) == set(seals.DERIVED)


@pytest.mark.parametrize("record", [{}, {"sha256": None}, [], "text"])
def test_a_record_of_a_model_without_its_hash_is_refused_with_one_sentence(record):
    path = Path("results/models/small.json")
    files.write_json(path, record)
    with pytest.raises(UserError, match=f"^{path}: lacks sha256, which the record of a model must have; .*--redo"):
        recorded(path, "sha256")
    files.write_json(path, {"sha256": "ab"})
    assert recorded(path, "sha256") == "ab"
