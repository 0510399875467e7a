"""The price of a label: the charges of an API for the labels that exist, or the pay of people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from arena_cje.config.records import Config
from arena_cje.errors import UserError
from arena_cje.money import prices
from arena_cje.money.labels import usd_per_label

if TYPE_CHECKING:
    from pathlib import Path

POLICIES = {"base": {"model": "m"}, "other": {"model": "m"}}
PROVIDERS = {"there": {"api": "openai", "base_url": "http://127.0.0.1:1/v1"}}
HOSTED = {"provider": "there", "model": "dear", "rubric": "rating.yaml"}


def config(oracle: dict[str, Any], **changes: Any) -> Config:
    return Config.model_validate({"policies": POLICIES, "providers": PROVIDERS, "oracle": oracle, **changes})


def write_calls(results: Path, prices: list[float | None], stage: str = "oracle") -> None:
    """Write calls of a stage with these prices to the ledger."""
    ledger = results / "journal" / "spending.jsonl"
    ledger.parent.mkdir(parents=True, exist_ok=True)
    call = {"policy": "base", "provider": "there", "model": "dear", "prompt_tokens": 9, "completion_tokens": 1}
    with ledger.open("a") as file:
        file.writelines(json.dumps(call | {"stage": stage, "usd": usd, "estimated": False}) + "\n" for usd in prices)


def write_labels(results: Path, policy: str, coverage: str, count: int) -> None:
    folder = results / "oracle" / policy / f"coverage_{coverage}"
    folder.mkdir(parents=True)
    (folder / "0000.jsonl").write_text("{}\n" * count)


def test_a_label_from_an_api_costs_all_charges_divided_by_the_number_of_labels(tmp_path):
    study = config(HOSTED)
    assert usd_per_label(study, tmp_path) is None  # nothing is known before the first label
    write_calls(tmp_path, [0.01] * 9)  # three of the nine are repeated calls
    write_calls(tmp_path, [5.0], stage="judge")
    write_labels(tmp_path, "base", "0.1", 2)
    write_labels(tmp_path, "base", "0.2", 4)  # including those of 0.1
    write_labels(tmp_path, "other", "0.1", 2)
    assert usd_per_label(study, tmp_path) == pytest.approx(0.09 / 6)
    write_calls(tmp_path, [None])
    assert usd_per_label(study, tmp_path) is None


def test_a_label_by_people_costs_the_price_of_its_votes(tmp_path):
    labeling = {"votes_per_item": 3, "usd_per_vote": 0.1, "duplicates": 0.05}
    assert usd_per_label(config({"provider": "human"}, labeling=labeling), tmp_path) == pytest.approx(0.315)
    assert usd_per_label(config({"provider": "human"}), tmp_path) is None


def test_a_spending_limit_for_planned_looks_needs_a_price():
    limit = {"looks": {"max_usd": 40}}
    with pytest.raises(UserError, match=r"`oracle`.*price of model 'dear' is unknown, so `looks.max_usd` 40 cannot be"):
        prices.check_budget(config(HOSTED, **limit))
    prices.check_budget(config(HOSTED, prices={"dear": {"input": 1, "output": 1}}, **limit))
    with pytest.raises(UserError, match="`looks.max_usd` needs the price of a vote"):
        prices.check_budget(config({"provider": "human"}, **limit))


def test_labels_from_a_reference_a_local_model_or_user_data_cost_nothing(tmp_path):
    assert usd_per_label(config({"provider": "reference"}), tmp_path) == 0
    assert usd_per_label(config({"provider": "llama_cpp", "model": "m"}), tmp_path) == 0
    assert usd_per_label(config(HOSTED, logged_data="mine.jsonl"), tmp_path) == 0
