"""The account of a data set has the counts that were computed by hand, and its page shows them."""

from __future__ import annotations

import json
import re

import pytest

import foreign_files
from arena_cje.report import data_report
from arena_cje.results.account import account


@pytest.fixture
def data_account(tmp_path):
    """Ten logged rows: one without a score, six labels, one zero and one impossible log probability, and a clone."""
    rows = [
        {
            "prompt_id": k,
            "response": "" if k == 3 else "two words",
            "judge_score": None if k == 0 else k / 10,
            "oracle_label": (0.0, 0.5, 1.0)[k % 3] if k < 6 else None,
            "base_policy_logprob": -4.0,
            "target_policy_logprobs": {"clone": -4.0, "other": {5: 0.0, 6: -99999.0, 7: 2 - 9.0}.get(k, -5.0)},
            "metadata": {"response_token_count": 2},
        }
        for k in range(10)
    ]
    logged = foreign_files.write_lines(tmp_path / "logged.jsonl", rows)
    draws = [{"prompt_id": k, "judge_score": 0.95, "response": "x <script>"} for k in range(10)]
    return account(logged, {"other": foreign_files.write_lines(tmp_path / "other.jsonl", draws)}, {})


def test_the_account_has_the_counts_computed_by_hand(data_account):
    base = data_account["policies"]["base"]
    assert (base["rows"], base["prompts"], base["without_score"], base["empty"]) == (10, 10, 1, 1)
    assert base["oracle_label"]["n"] == 6
    assert (base["oracle_label"]["zero"], base["oracle_label"]["one"], base["oracle_label"]["mean"]) == (2, 2, 0.5)
    assert base["judge_score"]["mean"] == pytest.approx(0.5)
    assert sum(base["judge_score"]["bins"]) == 9
    assert (base["words"]["median"], base["words"]["min"]) == (2, 0)
    assert data_account["policies"]["other"]["judge_score"]["bins"] == [0] * 9 + [10]


def test_missing_zero_and_impossible_log_probabilities_are_counted_by_policy(data_account):
    other = data_account["logprobs"]["other"]
    assert (other["n_rows"], other["n_ratios"], other["n_rejected"], other["n_zero"]) == (9, 8, 1, 1)
    assert data_account["same_as_base"] == ["clone"]
    assert len(data_account["cautions"]["other"]) == 2
    assert data_account["cautions"]["clone"] == []


def test_the_page_shows_the_counts_and_escapes_markup_in_the_data(data_account):
    summary = {"n_responses": 12, "dropped": {"no <b>judge</b> score": 2}}
    page = data_report.render(data_account, summary, "0.25")
    text = re.sub(r"<[^>]*>", " ", page)
    assert "clone has the log probabilities of the base policy on every row." in text
    assert "other: 1 of 9 rows are left out: their log probabilities are below -100 nats per token" in text
    assert "dropped: no &lt;b&gt;judge&lt;/b&gt; score" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_histogram_shows_every_bin_that_is_not_empty():
    assert data_report.histogram([0, 1, 1000]) == "·▁█"
    assert data_report.histogram([0, 0]) == "··"


def test_the_account_can_be_written_as_json(data_account):
    assert json.loads(json.dumps(data_account, allow_nan=False)) == data_account
