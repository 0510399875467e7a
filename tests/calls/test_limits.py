"""Limits of concurrency and rate that hold over processes, and the folder that the processes share."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import os
import subprocess
import sys
import tempfile
import time

import pytest

from arena_cje.calls import limits, pace
from arena_cje.calls.limits import JobSlots, RateLimit, clock, endpoint_folder, machine_folder
from arena_cje.errors import UserError
from calls_job import KEY
from calls_process import endpoint, environment


def test_two_jobs_share_the_slots(tmp_path):
    in_flight = max_in_flight = 0

    async def use(slots):
        nonlocal in_flight, max_in_flight
        async with slots.slot():
            in_flight += 1
            max_in_flight = max(max_in_flight, in_flight)
            await asyncio.sleep(0.005)
            in_flight -= 1

    async def run_all():
        jobs = [JobSlots(tmp_path, 3), JobSlots(tmp_path, 3)]
        await asyncio.gather(*(use(slots) for slots in jobs for _ in range(40)))

    asyncio.run(run_all())
    assert max_in_flight == 3


def test_a_cancelled_request_releases_its_slot(tmp_path):
    async def play():
        slots, other = JobSlots(tmp_path, 1), JobSlots(tmp_path, 1)
        file = await slots._acquire()
        waiting = [asyncio.create_task(slots._acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        slots._release(file)  # the first waiting task is given the slot, and has not resumed yet
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await asyncio.wait_for(other._acquire(), 60) is not None

    asyncio.run(play())


def test_a_folder_without_locks_is_an_error_of_the_waiting_request(tmp_path, monkeypatch):
    async def play():
        slots = JobSlots(tmp_path, 1)
        await slots._acquire()
        waiting = asyncio.create_task(slots._acquire())
        await asyncio.sleep(0)

        def no_locks(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(limits.fcntl, "flock", no_locks)
        with pytest.raises(OSError, match="No locks available"):
            await asyncio.wait_for(waiting, 60)

    asyncio.run(play())


def test_a_job_leaves_slots_to_another_one_that_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "TURN", 0.1)
    users = []

    async def use(slots, name):
        async with slots.slot():
            users.append(name)
            await asyncio.sleep(0.02)

    async def run_all():
        first, second = JobSlots(tmp_path, 2), JobSlots(tmp_path, 2)
        tasks = [asyncio.create_task(use(first, "first")) for _ in range(100)]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(use(second, "second")) for _ in range(20)]
        await asyncio.gather(*tasks)

    asyncio.run(run_all())
    assert users.count("first") == 100
    assert users.count("second") == 20
    assert "second" in users[:60]
    assert users[-1] == "first"  # the second one has not waited for the end of the first one


def test_each_address_and_key_has_one_folder_of_limits_that_only_its_owner_can_open(monkeypatch):
    monkeypatch.setenv("ONE", KEY)
    monkeypatch.setenv("SAME", KEY + "\n")
    monkeypatch.setenv("OTHER", KEY + "2")
    folder = endpoint_folder(endpoint("https://x.example/v1/", api_key_env="ONE"))
    assert endpoint_folder(endpoint("https://X.example", api_key_env="SAME", provider="another", timeout=1.0)) == folder
    assert endpoint_folder(endpoint("https://x.example", api_key_env="OTHER")) != folder
    assert endpoint_folder(endpoint("https://y.example", api_key_env="ONE")) != folder
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
    assert KEY not in str(folder)


def test_a_folder_of_limits_that_others_can_open_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"arena-cje-{os.getuid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with pytest.raises(UserError, match="that only its owner can open .*TMPDIR"):
        machine_folder()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(UserError, match="that only its owner can open"):
        machine_folder()
    folder.unlink()
    folder.write_text("")
    with pytest.raises(UserError, match="cannot be created"):
        machine_folder()


HOLD_SLOTS = """
import asyncio, sys, time
from pathlib import Path
from arena_cje.calls.limits import JobSlots
slots = JobSlots(Path(sys.argv[1]), 2)
files = [slots._try_lock_slot(), slots._try_lock_slot()]
print(files, flush=True)
time.sleep(60)
"""


def test_the_slots_of_a_killed_process_are_free(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD_SLOTS, tmp_path], stdout=subprocess.PIPE, env=environment())
    try:
        assert b"None" not in holder.stdout.readline()
        assert JobSlots(tmp_path, 2)._try_lock_slot() is None
    finally:
        holder.kill()
        holder.wait()
    slots = JobSlots(tmp_path, 2)
    assert None not in (slots._try_lock_slot(), slots._try_lock_slot())


def test_the_rate_limit_holds_for_all_jobs_that_share_it(tmp_path):
    async def turn_time(limit):
        await limit.wait_turn()
        return time.monotonic()

    async def run_all():
        limits = [RateLimit(tmp_path, 3000), RateLimit(tmp_path, 3000)]  # a turn each 20 ms
        return sorted(await asyncio.gather(*(turn_time(limit) for limit in limits for _ in range(15))))

    times = asyncio.run(run_all())
    assert all(later - times[0] >= i * 0.020 - 0.005 for i, later in enumerate(times))


def test_a_pause_holds_for_all_jobs_and_the_requests_after_it_are_spaced(tmp_path):
    async def run_all():
        limit, other = RateLimit(tmp_path, 3000), RateLimit(tmp_path, 3000)
        waiting = [asyncio.create_task(other.wait_turn()) for _ in range(10)]
        await asyncio.sleep(0)
        began = time.monotonic()
        for retry_after in (0.4,) * pace.IN_A_ROW + (0.1,):  # the longer pause stays
            limit.count_rejection(clock(), retry_after, (1.0, 60.0))
        times = []
        for task in waiting:
            task.add_done_callback(lambda _: times.append(time.monotonic() - began))
        await asyncio.gather(*waiting)
        await asyncio.sleep(0)
        return sorted(times)

    times = asyncio.run(run_all())
    after = [seconds for seconds in times if seconds > 0.05]
    assert len(after) >= 8  # one or two turns came before the pause
    assert after[0] >= 0.4
    assert after[-1] - after[0] >= (len(after) - 1) * 0.02 - 0.06


def state_file(**values):
    return json.dumps({"boot": limits.boot(), **dataclasses.asdict(pace.Pace()), **values})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        '{"next": 1e99, "paused_until": 1e99}',
        state_file(next=1e99),
        state_file(paused_until=1e12),
        state_file(paused_until="soon"),
        state_file(boot="another start of the machine", paused_until=clock() + 1000),
    ],
)
def test_a_damaged_or_outdated_state_stops_no_request(tmp_path, content):
    (tmp_path / "pace.json").write_text(content)
    for rate in (None, 600):
        asyncio.run(asyncio.wait_for(RateLimit(tmp_path, rate).wait_turn(), 60))


def test_changes_of_the_system_clock_delay_no_request(tmp_path, monkeypatch):
    """A clock that is set back by a day, or forward, delays no request."""
    times = iter([2e9, 1e9, 3e9])
    for _ in range(3):
        now = next(times)
        monkeypatch.setattr(time, "time", lambda now=now: now)
        limit = RateLimit(tmp_path, 6000)
        for _ in range(3):
            asyncio.run(asyncio.wait_for(limit.wait_turn(), 60))
        limit.count_rejection(clock(), None, (1.0, 60.0))
    assert json.loads((tmp_path / "pace.json").read_text())["next"] < clock() + 1
