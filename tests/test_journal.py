"""The journal preserves finished items through kills and damage, and never returns a stale one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc

import pytest

from arena_cje.journal import FinishedItem, Journal, complete, read, record_in


def work_recorder(calls):
    def work(missing):
        for key, item in missing.items():
            calls.append(key)
            yield FinishedItem(key, {"square": item**2})

    return work


def test_finished_items_are_not_made_again(tmp_path):
    calls: list[str] = []
    with Journal(tmp_path / "0000.jsonl") as journal:
        complete(journal, {"a": 1, "b": 2}, work_recorder(calls))
    with Journal(tmp_path / "0000.jsonl") as journal:
        records = complete(journal, {"b": 2, "c": 3}, work_recorder(calls))
    assert calls == ["a", "b", "c"]
    assert records == {"b": {"square": 4}, "c": {"square": 9}}


def test_an_item_with_a_new_key_is_made(tmp_path):
    calls: list[str] = []
    for key in ("item under seed 1", "item under seed 2"):
        with Journal(tmp_path / "0000.jsonl") as journal:
            complete(journal, {key: 1}, work_recorder(calls))
    assert calls == ["item under seed 1", "item under seed 2"]


def test_another_shard_size_finds_the_items_of_other_shards(tmp_path):
    calls: list[str] = []
    for shard, items in (("0000", {"a": 1, "b": 2}), ("0001", {"c": 3, "d": 4})):
        with Journal(tmp_path / f"{shard}.jsonl") as journal:
            complete(journal, items, work_recorder(calls))
    with Journal(tmp_path / "0000.jsonl") as journal:
        complete(journal, {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, work_recorder(calls))
    assert calls == ["a", "b", "c", "d", "e"]


def index_of(folder):
    (path,) = folder.glob(".index-*.sqlite")
    return path


def four_shards(folder):
    """Journals of four shards of two items each; the second shard's job writes the first index."""
    for shard in range(4):
        with Journal(folder / f"000{shard}.jsonl") as journal:
            complete(journal, {f"{shard}{name}": shard for name in "ab"}, work_recorder([]))
    return {f"{shard}{name}": shard for shard in range(4) for name in "ab"}


def damage_nothing(folder):
    pass


def remove_index(folder):
    index_of(folder).unlink()


def overwrite_index(folder):
    index_of(folder).write_bytes(b"no database at all, but longer than its header is, which has a hundred bytes" * 9)


def cut_index(folder):
    path = index_of(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])


def put_a_folder_in_its_place(folder):
    path = index_of(folder)
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage", [damage_nothing, remove_index, overwrite_index, cut_index, put_a_folder_in_its_place]
)
def test_whatever_happens_to_the_index_no_finished_item_is_made_again(tmp_path, damage):
    items, calls = four_shards(tmp_path), []
    damage(tmp_path)
    for name in ("one.jsonl", "two.jsonl"):
        with Journal(tmp_path / name) as journal:
            records = complete(journal, items, work_recorder(calls))
        (tmp_path / name).unlink()
        assert records == {key: {"square": value**2} for key, value in items.items()}
    assert calls == []


def test_items_of_a_journal_that_has_grown_since_are_found(tmp_path):
    items, calls = four_shards(tmp_path), []
    with Journal(tmp_path / "0001.jsonl") as journal:
        complete(journal, {"later": 7}, work_recorder([]))
    with Journal(tmp_path / "0004.jsonl") as journal:
        complete(journal, items | {"later": 7}, work_recorder(calls))
    assert calls == []


def test_a_line_that_is_damaged_after_it_was_indexed_costs_its_item_and_gives_no_wrong_record(tmp_path):
    items, calls = four_shards(tmp_path), []
    with Journal(tmp_path / "0004.jsonl") as journal:
        assert len(journal.find(items)) == 8
    path = tmp_path / "0002.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"square":4', b'"square":9', 1))
    with Journal(tmp_path / "0004.jsonl") as journal:
        records = complete(journal, items, work_recorder(calls))
    assert calls == ["2a"]
    assert records["2a"] == {"square": 4}


def test_a_journal_that_was_begun_anew_is_indexed_anew(tmp_path):
    items, calls = four_shards(tmp_path), []
    with Journal(tmp_path / "0001.jsonl", fresh=True) as journal:
        complete(journal, {"other": 5, "another": 6, "third": 7}, work_recorder([]))
    with Journal(tmp_path / "0004.jsonl") as journal:
        complete(journal, items | {"other": 5, "third": 7}, work_recorder(calls))
    assert calls == ["1a", "1b"]


def test_of_other_shards_a_job_keeps_what_it_asked_for_alone(tmp_path):
    for shard in range(20):
        with Journal(tmp_path / f"{shard:04d}.jsonl") as journal:
            journal.append([FinishedItem(f"{shard}-{k}", {"text": "x" * 10_000}) for k in range(50)])
    tracemalloc.start()
    with Journal(tmp_path / "0020.jsonl") as journal:
        records = journal.find([f"{shard}-7" for shard in range(20)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(records) == 20
    assert peak < 2e6  # bytes; the journals have 10 MB


def test_items_that_come_quickly_share_a_sync(tmp_path, monkeypatch):
    syncs = []
    monkeypatch.setattr(os, "fsync", lambda file: syncs.append(file))
    with Journal(tmp_path / "0000.jsonl") as journal:
        n_syncs_at_start = len(syncs)
        complete(journal, {str(k): k for k in range(500)}, work_recorder([]))
    assert 1 <= len(syncs) - n_syncs_at_start < 100


def test_a_list_of_items_is_on_disk_before_the_next_one(tmp_path, monkeypatch):
    path, sizes = tmp_path / "0000.jsonl", []
    monkeypatch.setattr(os, "fsync", lambda file: sizes.append(path.stat().st_size))

    def work(missing):
        for key in missing:
            yield [FinishedItem(key, {})]
            assert sizes[-1] == path.stat().st_size

    with Journal(path) as journal:
        complete(journal, dict.fromkeys("abc"), work)


def test_a_line_that_a_sibling_is_writing_is_no_damage(tmp_path, caplog):
    with Journal(tmp_path / "0000.jsonl") as journal:
        complete(journal, {"a": 1, "b": 2}, work_recorder([]))
    sibling = tmp_path / "0000.jsonl"
    sibling.write_bytes(sibling.read_bytes()[:-7])
    calls: list[str] = []
    with Journal(tmp_path / "0001.jsonl") as journal:
        complete(journal, {"a": 1, "b": 2}, work_recorder(calls))
    assert calls == ["b"]
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("damage", [b"", b"\x00\xff\n", b"00000000 {}\n", b'1234abcd {"key": "c", "record"'])
def test_a_damaged_last_line_is_skipped_and_its_item_made_again(tmp_path, damage, caplog):
    path, calls = tmp_path / "0000.jsonl", []
    with Journal(path) as journal:
        complete(journal, {"a": 1, "b": 2}, work_recorder([]))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7] + damage)
    with Journal(path) as journal:
        records = complete(journal, {"a": 1, "b": 2}, work_recorder(calls))
    assert calls == ["b"]
    assert "skipped" in caplog.text
    assert records == {"a": {"square": 1}, "b": {"square": 4}}
    assert dict(read(path)) == records


def test_a_flipped_bit_in_the_middle_costs_one_item(tmp_path):
    path, calls = tmp_path / "0000.jsonl", []
    with Journal(path) as journal:
        complete(journal, {name: 3 for name in "abcde"}, work_recorder([]))
    content = bytearray(path.read_bytes())
    content[content.index(b'"c"') + 12] ^= 1
    path.write_bytes(content)
    with Journal(path) as journal:
        complete(journal, {name: 3 for name in "abcde"}, work_recorder(calls))
    assert calls == ["c"]


def test_fresh_makes_all_items_and_keeps_a_copy_of_the_old_file(tmp_path):
    path, calls = tmp_path / "0000.jsonl", []
    with Journal(path) as journal:
        complete(journal, {"a": 1}, work_recorder([]))
    with Journal(path, fresh=True) as journal:
        complete(journal, {"a": 1}, work_recorder(calls))
    assert calls == ["a"]
    assert len(list(tmp_path.glob("0000.jsonl.before-*"))) == 1


BUSY = """
import sys
from pathlib import Path
from arena_cje.journal import FinishedItem, Journal

folder, name, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for shard in range(n):
    with Journal(folder / f"{name}-{shard}.jsonl") as journal:
        journal.find([f"{name}-{shard}-{k}" for k in range(20)])
        journal.append([FinishedItem(f"{name}-{shard}-{k}", {"k": k}) for k in range(20)])
"""


def test_processes_that_write_side_by_side_and_are_killed_leave_an_index_that_finds_everything(tmp_path):
    environment = {**os.environ, "PYTHONPATH": "workflow"}
    shards = {"a": "1000000", "b": "1000000", "c": "12", "d": "12"}  # the first two work until they are killed
    jobs = [
        subprocess.Popen([sys.executable, "-c", BUSY, tmp_path, name, n], env=environment, start_new_session=True)
        for name, n in shards.items()
    ]
    for job in jobs[:2]:
        while not list(tmp_path.glob(".index-*.sqlite")):
            time.sleep(0.01)
        time.sleep(0.05)
        job.kill()
    assert [job.wait(60) for job in jobs] == [-signal.SIGKILL, -signal.SIGKILL, 0, 0]
    finished = {key: record for path in tmp_path.glob("*.jsonl") for key, record in read(path)}
    assert len(finished) >= 2 * 12 * 20
    with Journal(tmp_path / "last.jsonl") as journal:
        assert journal.find([*finished, "never made"]) == finished


def test_items_of_a_deleted_journal_are_missing_and_those_of_others_are_found(tmp_path):
    """Also where the index had an item at its place in the deleted journal."""
    for name, keys in (("0001", "ab"), ("0002", "bc")):
        with Journal(tmp_path / f"{name}.jsonl") as journal:
            journal.append([FinishedItem(key, {"value": key}) for key in keys])
    for path in (None, tmp_path / "0002.jsonl", tmp_path / "0001.jsonl"):
        if path:
            path.unlink()
        there = {key for file in tmp_path.glob("*.jsonl") for key, _ in read(file)}
        with Journal(tmp_path / "0003.jsonl") as journal:
            assert set(journal.find("abc")) == there


def test_one_record_is_found_in_a_journal_that_is_being_written(tmp_path):
    path = tmp_path / "0000.jsonl"
    path.touch()
    assert record_in(path, "b") is None
    with Journal(path) as journal:
        journal.append([FinishedItem(key, {"text": f"about b {key}"}) for key in ("a", "b", "ab")])
    with path.open("ab") as file:
        file.write(b'00000000 {"key":"b","record":{}}\n0000 {"key":"c"')  # a damaged line, and one that is not complete
    assert [record_in(path, key) for key in ("a", "b", "c")] == [{"text": "about b a"}, {"text": "about b b"}, None]


KILLED = """
import os, signal, sys
from pathlib import Path
from arena_cje.journal import FinishedItem, Journal, complete

def work(missing):
    for count, key in enumerate(missing):
        if count == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield FinishedItem(key, {"value": key})

with Journal(Path(sys.argv[1])) as journal:
    complete(journal, {name: name for name in "abcdef"}, work)
"""


def test_kill_9_loses_at_most_one_item(tmp_path):
    path = tmp_path / "0000.jsonl"
    process = subprocess.run([sys.executable, "-c", KILLED, path], env={**os.environ, "PYTHONPATH": "workflow"})
    assert process.returncode == -signal.SIGKILL
    assert list(dict(read(path))) == ["a", "b", "c"]


def test_a_second_process_waits_and_makes_no_item_twice(tmp_path):
    path = tmp_path / "0000.jsonl"
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from arena_cje.journal import FinishedItem, Journal, complete

        def work(missing):
            for key in missing:
                time.sleep(0.02)
                print(key, flush=True)
                yield FinishedItem(key, {"value": key})

        with Journal(Path(sys.argv[1])) as journal:
            complete(journal, {str(i): i for i in range(10)}, work)
        """
    )
    command = [sys.executable, "-c", script, path]
    environment = {**os.environ, "PYTHONPATH": "workflow"}
    jobs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    keys = sorted("".join(job.communicate(timeout=60)[0] for job in jobs).split())
    assert keys == sorted(str(i) for i in range(10))
