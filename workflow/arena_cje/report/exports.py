"""Exports: results and data in the formats of other tools.

    precomputed_sampler.jsonl       logged rows: total_logprob (nats), target_logps by policy, judge score, label, reward
    stochastic_log.jsonl            logged rows with their log probability by token: sequence_logp, pi0 = exp(sequence_logp)
    token_level_cje_results.json    one estimator: {policy: v_hat, se, ci_low, ci_high, oracle_truth, absolute_error}
                                    of the published policies, the refused ones apart, corrected p-values,
                                    violated guard rails
    leaderboard.csv                 ranks of the published policies, the ranks that the data leave open, refused ones last; the
                                    decision about each; the recommended estimator first
    results.csv, results.parquet    one row a coverage, estimator and policy

An unpublished number is in no column of published ones: a refused policy has null there, and in the tidy table its
number is in `refused_estimate`. `pi0` is null where a response is too improbable for a floating point number;
its logarithm beside it is exact. A log probability that does not match its policy's sampling distribution (an API's, at
another temperature) is null: it is not a propensity. Rewards are f(S) with the calibrator of the estimator named,
on the scale of the labels.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from arena_cje.errors import UserError
from arena_cje.files import read_csv
from arena_cje.report import comparisons
from arena_cje.results import validation

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from arena_cje.data.dataset import Dataset
    from arena_cje.files import Row
    from arena_cje.results.record import ResultRecord

Truths = Mapping[str, Mapping[str, Any]]  # by policy: truth, truth_se, absolute_error, covered of validation.csv

NUMBERS = ("estimate", "se", "ci_lower", "ci_upper")
LEAST = sys.float_info.min  # smaller numbers have fewer significant digits


def logged_rows(
    dataset: str | Path, result: ResultRecord, calibration_data: str | Path | None = None
) -> tuple[list[Row], list[float | None]]:
    """The logged rows and their calibrated scores, both on the scale of the data.

    Id, score and label of a row are at its top level, wherever they are in the file. The calibrator is fitted with the
    labels and options of the result. A row without a score has no reward (None), and no row has one if the estimator
    does not calibrate rewards.
    """
    from arena_cje.data.dataset import load_dataset

    data = load_dataset(dataset, calibration_data, base_policy=result.base_policy, reading=result.reading)
    reading = result.reading
    rows = [
        response.row
        | {
            "prompt_id": response.prompt_id,
            "draw_idx": response.draw_idx,
            "judge_score": reading.data_score(response.judge_score),
            "oracle_label": reading.data_label(response.oracle_label),
        }
        for response in data.responses
    ]
    return rows, _rewards(data, result)


def _rewards(data: Dataset, result: ResultRecord) -> list[float | None]:
    """Calibrated scores of the logged rows on the scale of the data; None where there is none."""
    from arena_cje.estimation import calibration

    if result.options.rewards == "judge":
        return [None] * len(data.responses)
    fitted = calibration.fit(data.logged, result.options, data.calibration)
    values = iter(calibration.rewards(fitted.full, data.logged.judged).tolist())
    return [
        None if response.judge_score is None else result.reading.data_label(next(values)) for response in data.responses
    ]


def without_logprobs(logged: Sequence[Row], policies: Collection[str], base_policy: str) -> list[Row]:
    """The rows with null as the log probabilities of some policies."""
    if not policies:
        return list(logged)
    return [
        row
        | ({"base_policy_logprob": None} if base_policy in policies else {})
        | {
            "target_policy_logprobs": {
                name: None if name in policies else value
                for name, value in (row.get("target_policy_logprobs") or {}).items()
            }
        }
        for row in logged
    ]


def sampler_rows(logged: Sequence[Row], reward: Sequence[float | None]) -> Iterator[Row]:
    """Rows of precomputed_sampler.jsonl one by one: a target log probability of -10000 stands for minus infinity."""
    return (_sampler_row(row, value) for row, value in zip(logged, reward, strict=True))


def _sampler_row(row: Row, reward: float | None) -> Row:
    """A row of precomputed_sampler.jsonl."""
    outside = (row.get("metadata") or {}).get("outside_support")
    return {
        "prompt_id": row["prompt_id"],
        "prompt": row.get("prompt"),
        "response": row.get("response"),
        "total_logprob": row.get("base_policy_logprob"),
        "target_logps": row.get("target_policy_logprobs") or {},
        "judge_score": row.get("judge_score"),
        "oracle_label": row.get("oracle_label"),
        "reward": reward,
    } | ({"metadata": {"outside_support": outside}} if outside else {})


def log_rows(
    logged: Sequence[Row],
    reward: Sequence[float | None],
    base_policy: str,
    tokens: Mapping[str, Sequence[float]] | None = None,
) -> Iterator[Row]:
    """Rows of stochastic_log.jsonl one by one; tokens: log probabilities of the base responses by token, by prompt id."""
    uids, tokens = _uids(logged), tokens or {}
    return (
        {
            "uid": uid,
            "prompt": row.get("prompt"),
            "answer": row.get("response"),
            "token_logprobs": tokens.get(row["prompt_id"]),
            "action": base_policy,
            "sequence_logp": row.get("base_policy_logprob"),
            "pi0": probability(row.get("base_policy_logprob")),
            "oracle_score": row.get("oracle_label"),
            "judge_raw": row.get("judge_score"),
            "calibrated_reward": value,
        }
        for uid, row, value in zip(uids, logged, reward, strict=True)
    )


def token_logprobs(path: str | Path) -> dict[str, list[float]]:
    """Log probability of every token of the base responses, by prompt id, from results/logprobs/{base}.parquet."""
    from arena_cje.data.schemas import LOGPROBS

    frame = LOGPROBS.read(path)
    return dict(zip(frame["prompt_id"], frame["token_logprobs"].to_list(), strict=True))


def probability(logprob: float | None) -> float | None:
    """exp of a log probability; None if it is unknown or below the smallest normal floating point number."""
    if logprob is None:
        return None
    value = math.exp(logprob)
    return value if value >= LEAST else None


def _uids(logged: Sequence[Row]) -> list[str]:
    """Unique ids of the rows: the prompt id, with the draw index where a prompt has several rows."""
    rows_of = Counter(row["prompt_id"] for row in logged)
    names = ((row["prompt_id"], row.get("draw_idx") or 0) for row in logged)
    return [name if rows_of[name] == 1 else f"{name}#{draw}" for name, draw in names]


def token_level(result: ResultRecord, coverage: str, truths: Truths | None = None) -> dict[str, Any]:
    """Content of token_level_cje_results.json, from one estimator's result."""
    pairs = comparisons.pairs(result)
    names = ("first", "second", "difference", "p_value", "p_corrected", "p_holm", "refused")
    base, metadata, truth_rows = result.base_policy, result.document["metadata"], truths or {}
    rows = {policy: _policy_numbers(result, policy, truth_rows.get(policy, {})) for policy in result.policies}
    return {
        "results": {policy: row for policy, row in rows.items() if policy not in result.refused},
        "refused": {policy: row for policy, row in rows.items() if policy in result.refused},
        "base_policy": {"policy": base} | _policy_numbers(result, base, truth_rows.get(base, {})),
        "p_values_corrected": [{name: row[name] for name in names} for row in pairs],
        "guard_rail_violations": violations(result, truth_rows),
        "best": asdict(comparisons.top(result, pairs)),
        "metadata": {"estimator": result.name, "coverage": coverage}
        | {name: metadata[name] for name in ("alpha", "n_samples", "n_oracle")},
    }


def _policy_numbers(result: ResultRecord, policy: str, truth: Mapping[str, Any]) -> Row:
    """Numbers, verdict and reasons of one policy; the numbers are null if it is refused."""
    refused = policy in result.refused
    value = result.summary(policy)
    numbers = {"v_hat": "estimate", "se": "se", "ci_low": "ci_lower", "ci_high": "ci_upper"}
    return {
        **{name: None if refused else _none_if_nan(value[field]) for name, field in numbers.items()},
        "oracle_truth": truth.get("truth"),
        "absolute_error": None if refused else truth.get("absolute_error"),
        "verdict": result.verdicts[policy].level,
        "reasons": result.verdicts[policy].grounds,
    }


def _none_if_nan(value: float) -> float | None:
    """The value, None for NaN."""
    return None if math.isnan(value) else value


def violations(result: ResultRecord, truths: Truths | None = None) -> list[str]:
    """Reasons of level refuse, then of level caution, one sentence each; then poor coverage of known true values."""
    sentences = [
        (reason.level, f"{reason.level}: {policy}: {reason.sentence}")
        for policy, verdict in result.verdicts.items()
        for reason in verdict.reasons
    ]
    ordered = [sentence for severity in ("refuse", "caution") for level, sentence in sentences if level == severity]
    alpha = result.document["metadata"]["alpha"]
    covered = [row["covered"] for row in (truths or {}).values() if row.get("covered") is not None]
    poor = validation.poor_coverage_of(result.name, covered, alpha)
    return [*ordered, *([f"caution: {poor}"] if poor else [])]


def leaderboard(results: Iterable[ResultRecord]) -> pl.DataFrame:
    """Content of leaderboard.csv: published policies of each estimator by value, then the refused ones without numbers.

    results: the recommended one first.
    """
    import polars as pl

    schema = {"estimator": pl.String, "rank": pl.Int64, "policy": pl.String, "role": pl.String}
    schema |= dict.fromkeys(NUMBERS, pl.Float64)
    schema |= {
        "best_rank": pl.Int64,
        "worst_rank": pl.Int64,
        "apart_from_next": pl.Boolean,
        "p_corrected_next": pl.Float64,
    }
    schema |= {"decision": pl.String, "status": pl.String, "reasons": pl.String}
    rows = [row for result in results for row in _leaderboard_rows(result)]
    return pl.DataFrame(rows, schema=schema).with_columns(pl.col(pl.Float64).fill_nan(None))


def _leaderboard_rows(result: ResultRecord) -> list[Row]:
    """Rows of one estimator, the refused policies last."""
    places, rows = comparisons.ranking(result, comparisons.pairs(result)), []
    for place in places:
        number = result.summary(place.policy)
        rows.append(asdict(place) | {name: number[name] for name in NUMBERS})
    ranked = {place.policy for place in places}
    rows += [{"policy": policy} for policy in result.all_policies if policy not in ranked]
    return [
        row
        | {
            "estimator": result.name,
            "role": "base" if row["policy"] == result.base_policy else "target",
            "decision": result.decision["policies"].get(row["policy"], {}).get("status"),
            "status": result.verdicts[row["policy"]].level,
            "reasons": "; ".join(result.verdicts[row["policy"]].grounds),
        }
        for row in rows
    ]


def tidy(
    results: Iterable[tuple[str, ResultRecord]], validation: Mapping[str, pl.DataFrame] | None = None
) -> pl.DataFrame:
    """One row a coverage, estimator and policy: numbers, verdict, diagnostics, and the truth where it is known.

    results: coverage and result; validation: validation.csv by coverage.
    """
    import polars as pl

    frames = [
        result.to_frame().select(
            pl.lit(float(coverage)).alias("coverage"),
            pl.lit(result.name).alias("estimator"),
            pl.all(),
            pl.lit(result.document["metadata"]["n_samples"]).alias("n_samples"),
            pl.lit(result.document["metadata"]["n_oracle"]).alias("n_oracle"),
        )
        for coverage, result in results
    ]
    if not frames:
        raise UserError("there is no result to export; name estimators that the data can feed under `estimators`")
    table = pl.concat(frames)
    truths = [
        frame.select(
            pl.lit(float(coverage)).alias("coverage"),
            "estimator",
            "policy",
            *(pl.col(name).cast(pl.Float64) for name in ("truth", "truth_se", "absolute_error")),
            pl.col("covered").cast(pl.Boolean),
        )
        for coverage, frame in (validation or {}).items()
    ]
    if not truths:
        truth_columns = dict.fromkeys(("truth", "truth_se", "absolute_error"), pl.Float64) | {"covered": pl.Boolean}
        return table.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in truth_columns.items())
    keys = ["coverage", "estimator", "policy"]
    return table.join(pl.concat(truths), on=keys, how="left", validate="1:1", maintain_order="left")


def read_validation(path: str | Path) -> pl.DataFrame:
    """The table of validation.csv; missing values are null."""
    return read_csv(path)


def truths_of(validation: pl.DataFrame | None, estimator: str) -> Truths:
    """Rows of validation.csv of one estimator, by policy; empty without a validation."""
    if validation is None:
        return {}
    rows = validation.iter_rows(named=True)
    return {row["policy"]: row for row in rows if row["estimator"] == estimator}
