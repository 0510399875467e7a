"""The ledger: a line for each paid call, and the budget over all jobs."""

from __future__ import annotations

import json
import os
import time

import pytest

from arena_cje.calls.ledger import Ledger
from arena_cje.calls.request import Usage
from arena_cje.errors import UserError
from calls_process import call_price, endpoint


def record_calls(ledger, n=1, model="m"):
    for _ in range(n):
        ledger.record(
            endpoint("http://x"),
            model,
            stage="judge",
            policy="base",
            usage=Usage(12, 3),
            estimated=False,
        )


def test_a_line_of_the_ledger_has_all_fields(tmp_path):
    ledger = Ledger(tmp_path / "spending.jsonl", lambda *call: 0.5 if call == ("openai", "m", 12, 3) else None)
    record_calls(ledger)
    record_calls(ledger, model="other")
    first, second = map(json.loads, ledger.path.read_text().splitlines())
    assert abs(first.pop("time") - time.time()) < 60
    assert first == {
        "stage": "judge",
        "policy": "base",
        "provider": "local",
        "model": "m",
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "usd": 0.5,
        "estimated": False,
    }
    assert second["usd"] is None


def test_the_budget_counts_the_calls_of_all_jobs(tmp_path):
    one, two = (Ledger(tmp_path / "spending.jsonl", call_price, budget_usd=0.05) for _ in range(2))
    record_calls(one, 2)
    record_calls(two, 2, model="unpriced")
    assert one.total_usd() == two.total_usd() == pytest.approx(0.02)
    two.check_budget()
    record_calls(two, 3)
    assert one.total_usd() == pytest.approx(0.05)
    with pytest.raises(UserError, match=r"the budget is used up: 0\.0500 of `budget_usd` 0\.05 .*raise it"):
        one.check_budget()


def test_a_sync_writes_the_ledger_and_its_folder_to_disk(tmp_path, monkeypatch):
    synced, sync = [], os.fsync

    def record(file):
        sync(file)
        synced.append(os.fstat(file).st_ino)

    monkeypatch.setattr(os, "fsync", record)
    ledger = Ledger(tmp_path / "spending.jsonl", call_price)
    record_calls(ledger)
    ledger.sync()
    assert synced == [ledger.path.stat().st_ino, tmp_path.stat().st_ino]


def test_a_damaged_line_leaves_the_others_readable(tmp_path, caplog):
    ledger = Ledger(tmp_path / "spending.jsonl", call_price)
    record_calls(ledger, 2)
    ledger.path.write_bytes(ledger.path.read_bytes()[:-9])
    record_calls(ledger)
    assert Ledger(ledger.path, call_price).total_usd() == pytest.approx(0.02)
    assert "damaged" in caplog.text


def test_a_model_without_a_price_is_refused_if_a_budget_is_set(tmp_path):
    ledger = Ledger(tmp_path / "spending.jsonl", call_price, budget_usd=1.0)
    ledger.check_price(endpoint(None), "m")
    with pytest.raises(UserError, match=r"model 'unpriced' is unknown.*`prices`"):
        ledger.check_price(endpoint(None), "unpriced")
    Ledger(tmp_path / "spending.jsonl", call_price).check_price(endpoint(None), "unpriced")
