"""The journal keeps finished items through kills and damage, and never returns a stale one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from arena_cje.journal import FinishedItem, Journal, complete, read


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
    killed = subprocess.run([sys.executable, "-c", KILLED, path], env={**os.environ, "PYTHONPATH": "workflow"})
    assert killed.returncode == -signal.SIGKILL
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
    printed = sorted("".join(job.communicate(timeout=60)[0] for job in jobs).split())
    assert printed == sorted(str(i) for i in range(10))
