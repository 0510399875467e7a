"""The doctor finds damaged and inconsistent files in a folder, and removes only these."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from arena_cje import files
from arena_cje.__main__ import main
from arena_cje.journal import FinishedItem, Journal, read
from arena_cje.stages import doctor, seals

SHARDS = [Path(f"results/responses/base/000{k}.jsonl") for k in range(3)]
JOINED, ESTIMATE = Path("results/responses/base.jsonl"), Path("results/coverage_0.1/snips.json")
JOURNAL = Path("results/journal/generate/base/0000.jsonl")


def job(inputs: list[Path], output: Path, seed: int = 1) -> None:
    with seals.sealed(list(map(str, inputs)), [str(output)], "a_rule", {"seed": seed}):
        files.write_jsonl(output, [{"seed": seed, "row": k} for k in range(4)])


@pytest.fixture(autouse=True)
def run(tmp_path, monkeypatch) -> None:
    """A folder in which shards were joined and an estimate was made from them."""
    monkeypatch.chdir(tmp_path)
    for shard in SHARDS:
        job([], shard)
    job(SHARDS, JOINED)
    job([JOINED], ESTIMATE)
    with Journal(JOURNAL) as journal:
        journal.append([FinishedItem(key, {"value": key}) for key in "abc"])


def problems() -> dict[str, str]:
    return {str(finding.path): finding.problem for finding in doctor.examine()}


def test_a_consistent_folder_has_no_problems(capsys):
    assert problems() == {}
    assert main(["doctor"]) == 0
    assert "No damaged or inconsistent files" in capsys.readouterr().out


def test_redo_removes_a_damaged_shard_and_nothing_else(capsys):
    before = {path: path.read_bytes() for path in (*SHARDS, JOINED, ESTIMATE, JOURNAL)}
    SHARDS[1].write_bytes(before[SHARDS[1]].splitlines(keepends=True)[0])
    assert problems() == {str(SHARDS[1]): "is damaged: 1 rows are left of 4"}
    assert main(["doctor"]) == 1
    assert SHARDS[1].exists()
    assert main(["doctor", ".", "--redo"]) == 0
    assert "Removed 1" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before if path.exists()} == {
        path: content for path, content in before.items() if path != SHARDS[1]
    }
    assert problems() == {}


def test_files_made_from_another_version_of_a_shard_are_found_and_removed():
    job([], SHARDS[2], seed=9)
    assert problems() == {
        str(JOINED): f"was made from another version of {SHARDS[2]}",
        str(ESTIMATE): f"was made from another version of {JOINED}",
    }
    doctor.redo(doctor.examine())
    assert not JOINED.exists()
    assert not ESTIMATE.exists()
    assert all(shard.exists() for shard in SHARDS)


def test_a_damaged_journal_keeps_its_other_items():
    content = JOURNAL.read_bytes()
    JOURNAL.write_bytes(content.replace(b'"value":"b"', b'"value":"x"') + b"0000 half")
    assert problems() == {str(JOURNAL): "has 2 damaged line(s); their items are computed again"}
    doctor.redo(doctor.examine())
    lines = content.splitlines(keepends=True)
    assert JOURNAL.read_bytes() == lines[0] + lines[2]
    assert list(dict(read(JOURNAL))) == ["a", "c"]


def test_the_line_that_a_running_job_writes_is_not_damaged():
    with Journal(JOURNAL), JOURNAL.open("ab") as file:
        file.write(b'00000000 {"key":"d"')
        file.flush()
        assert problems() == {}
    assert problems() == {str(JOURNAL): "has 1 damaged line(s); their items are computed again"}


def test_redo_refuses_to_rewrite_a_journal_that_a_job_has_open(capsys):
    JOURNAL.write_bytes(b"damaged\n" + JOURNAL.read_bytes())
    before = JOURNAL.read_bytes()
    with Journal(JOURNAL):
        assert main(["doctor", ".", "--redo"]) == 1
    assert "a job is writing this journal; wait until it ends" in capsys.readouterr().err
    assert JOURNAL.read_bytes() == before


def test_a_job_that_waits_for_a_journal_opens_the_file_that_has_replaced_it():
    def append() -> None:
        with Journal(JOURNAL) as journal:
            journal.append([FinishedItem("d", {"value": "d"})])

    waiting = threading.Thread(target=append)
    with JOURNAL.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting.start()
        time.sleep(0.2)  # until it waits; a test that is late here finds the new file at once
        files.write_bytes(JOURNAL, JOURNAL.read_bytes())
    waiting.join(60)
    assert [key for key, _ in read(JOURNAL)] == ["a", "b", "c", "d"]


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["doctor", str(tmp_path / "empty")]) == 1
    assert "empty: no run has been started in this folder" in capsys.readouterr().err
    assert main(["unlock", "--directory", str(tmp_path / "nothing")]) == 1
    assert "nothing: no such folder" in capsys.readouterr().err


def test_unfinished_files_are_leftovers_only_where_their_process_has_ended():
    process = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(process, 0)
    leftover, in_work = (Path(f"results/.base.jsonl.{number}") for number in (process, os.getpid()))
    for path in (leftover, in_work):
        path.write_text("half")
    assert list(problems()) == [str(leftover)]
    doctor.redo(doctor.examine())
    assert (leftover.exists(), in_work.exists()) == (False, True)


def test_an_unfinished_file_older_than_the_process_with_its_number_is_a_leftover():
    path = Path(f"results/.base.jsonl.{os.getpid()}")
    path.write_text("half")
    assert list(problems()) == []
    before = psutil.Process().create_time() - 60
    os.utime(path, (before, before))
    assert list(problems()) == [str(path)]


def test_a_cut_file_of_prompts_is_found():
    folder = Path(".arena-cje/prompts")
    files.write_jsonl(folder / "prompts.jsonl", [{"prompt_id": "a"}])
    files.write_json(folder / "prompts.json", {"made_from": {}, "summary": {"n_eligible": 2}})
    assert problems() == {".arena-cje/prompts/prompts.jsonl": "is damaged: 1 prompts are left of 2"}


def test_tables_of_an_earlier_version_are_counted_and_kept(capsys):
    files.write_jsonl("results/judge/base.jsonl", [{}])
    assert main(["doctor"]) == 0
    assert "1 tables cannot be checked" in capsys.readouterr().out


def test_a_missing_folder_is_refused_with_one_sentence(capsys):
    assert main(["doctor", "nowhere"]) == 1
    assert capsys.readouterr().err == "ERROR: nowhere: no such file or folder\n"
