"""Log probabilities that no model can produce are rejected; exact zeros and extreme ratios are counted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

import arena_cje


def frame(n: int = 100, **columns: Any) -> pl.DataFrame:
    """Labels on every row, base log probability -10 for ten tokens, a target with the base's log probabilities."""
    good = np.arange(n) % 4 == 0
    rows = {
        "prompt_id": [str(k) for k in range(n)],
        "judge_score": np.where(good, 0.9, 0.1).tolist(),
        "oracle_label": good.astype(float).tolist(),
        "base_policy_logprob": [-10.0] * n,
        "metadata": [{"response_token_count": 10}] * n,
        "target": [-10.0] * n,
    } | columns
    target = rows.pop("target")
    return pl.DataFrame(rows | {"target_policy_logprobs": [{"new": value} for value in target]})


def counts(result: arena_cje.Result) -> dict[str, int]:
    return result.document["metadata"]["data"]["logprobs"]["new"]


def codes(result: arena_cje.Result) -> set[str]:
    return {reason.code for reason in result.verdicts["new"].reasons}


def test_a_clone_has_equal_log_probabilities_and_no_caution():
    result = arena_cje.analyze(frame(), estimator="ips")
    assert (counts(result)["n_equal"], counts(result)["n_ratios"], counts(result)["n_rejected"]) == (100, 100, 0)
    assert not codes(result) & {"zero_logprobs", "implausible_logprobs"}
    np.testing.assert_allclose(result.estimates, [0.25])


@pytest.mark.parametrize("column", ["target", "base_policy_logprob"])
def test_implausible_log_probabilities_are_left_out_and_counted(column):
    """Twenty rows have -1001 nats for ten tokens; a quarter of the other rows is good."""
    values = [-1001.0 if k < 20 else -10.0 for k in range(100)]
    result = arena_cje.analyze(frame(**{column: values}), estimator="ips")
    assert (counts(result)["n_rejected"], counts(result)["n_ratios"]) == (20, 80)
    assert "implausible_logprobs" in codes(result)
    np.testing.assert_allclose(result.estimates, [0.25])


def test_rows_without_a_token_count_are_not_rejected():
    values = [-1001.0 if k < 20 else -10.0 for k in range(100)]
    data = frame(target=values).drop("metadata").with_columns(response=pl.lit("x"))
    assert counts(arena_cje.analyze(data, estimator="ips"))["n_rejected"] == 0


def test_the_limit_of_implausible_log_probabilities_can_be_set():
    values = [-1001.0 if k < 20 else -10.0 for k in range(100)]
    result = arena_cje.analyze(frame(target=values), estimator="ips", thresholds={"implausible_logprob": -math.inf})
    assert counts(result)["n_rejected"] == 0


def test_a_response_outside_the_support_is_not_rejected():
    data = frame(target=[-10000.0 if k % 2 else -10.0 for k in range(100)]).with_columns(
        metadata=pl.Series(
            [{"response_token_count": 10, "outside_support": ["new"] if k % 2 else []} for k in range(100)]
        )
    )
    result = arena_cje.analyze(data, estimator="snips")
    assert (counts(result)["n_outside_support"], counts(result)["n_rejected"]) == (50, 0)


def test_zero_log_probabilities_on_more_than_a_twentieth_of_rows_are_a_caution():
    for n_zero, caution in ((5, False), (6, True)):
        values = [0.0 if k < n_zero else -10.0 for k in range(100)]
        result = arena_cje.analyze(frame(target=values), estimator="snips")
        assert counts(result)["n_zero"] == n_zero
        assert ("zero_logprobs" in codes(result)) == caution


def test_extreme_ratios_are_counted_at_limits_that_can_be_set():
    values = [-10.0 + (0, math.log(150), -math.log(150), math.log(1500))[k % 4] for k in range(100)]
    result = arena_cje.analyze(frame(target=values), estimator="snips")
    assert (counts(result)["n_extreme"], counts(result)["n_very_extreme"]) == (75, 25)
    result = arena_cje.analyze(frame(target=values), estimator="snips", thresholds={"extreme_ratio": 200})
    assert counts(result)["n_extreme"] == 25
