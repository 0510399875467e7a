"""Join what the stages made into one data set in the CJE format, and say what was dropped and why.

Logged rows are the base policy's responses with their log probabilities under every policy, the judge's score and the oracle's
label where there is one. A row without a response, a score or a base log probability cannot be analysed: it is dropped and
counted. A row that only one target could not score stays, and is left out for that target alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

Row = dict[str, Any]


def policy_logprobs(scored: pl.DataFrame, *, temperature: float, top_p: float) -> pl.DataFrame:
    """Rows of one sampling out of a scoring context: the log probabilities of the policies that sample so."""
    return scored.filter((pl.col("temperature") == temperature) & (pl.col("top_p") == top_p)).drop(
        "temperature", "top_p"
    )


def scores_at(temperature: float, scored: pl.DataFrame | None) -> dict[str, Row]:
    """The scores of a context at a temperature, without a nucleus, by prompt id; none where nothing was scored."""
    rows = [] if scored is None else policy_logprobs(scored, temperature=temperature, top_p=1.0).iter_rows(named=True)
    return {row["prompt_id"]: row for row in rows}


def by_key(rows: Iterable[Row]) -> dict[tuple[str, int], Row]:
    """Grades by (prompt id, draw)."""
    return {(row["prompt_id"], row["draw_idx"]): row for row in rows}


def logged_rows(
    responses: Sequence[Row],
    judge: Sequence[Row],
    oracle: Sequence[Row],
    logprobs: Mapping[str, pl.DataFrame],
    *,
    base_policy: str,
) -> tuple[list[Row], dict[str, Any]]:
    """Rows of the logged data set and a summary of what they are and what was dropped."""
    scores, labels = by_key(judge), by_key(oracle)
    log_probability = {
        policy: dict(zip(frame["prompt_id"], frame["logprob"], strict=True)) for policy, frame in logprobs.items()
    }
    targets = [policy for policy in logprobs if policy != base_policy]
    rows: list[Row] = []
    dropped: Counter[str] = Counter()
    not_scored: Counter[str] = Counter()
    for response in responses:
        key, prompt_id = (response["prompt_id"], response["draw_idx"]), response["prompt_id"]
        reason = _unusable(response, scores[key], log_probability[base_policy][prompt_id])
        if reason is not None:
            dropped[reason] += 1
            continue
        under = {policy: log_probability[policy][prompt_id] for policy in targets}
        not_scored.update(policy for policy, value in under.items() if value is None)
        row = _row(response, scores[key], labels.get(key))
        row["base_policy_logprob"] = log_probability[base_policy][prompt_id]
        row["target_policy_logprobs"] = under
        rows.append(row)
    summary = {
        "base_policy": base_policy,
        "target_policies": targets,
        "n_responses": len(responses),
        "n_rows": len(rows),
        "n_oracle": sum(row["oracle_label"] is not None for row in rows),
        "dropped": dict(dropped),
        "not_scored": {policy: not_scored[policy] for policy in targets},
        "finish_reasons": dict(Counter(str(response["finish_reason"]) for response in responses)),
        "scoring": {policy: _scoring(frame) for policy, frame in logprobs.items()},
    }
    return rows, summary


def _unusable(response: Row, grade: Row, base_logprob: float | None) -> str | None:
    """Why a response cannot be analysed; None when it can."""
    if response["status"] != "ok":
        return f"response {response['status']}"
    if grade["score"] is None:
        return f"no judge score: {grade['reason']}"
    return "no base log probability" if base_logprob is None else None


def _row(response: Row, grade: Row, label: Row | None) -> Row:
    """What logged rows and fresh draws have in common."""
    return {
        "prompt_id": response["prompt_id"],
        "draw_idx": response["draw_idx"],
        "prompt": response["prompt"],
        "response": response["response"],
        "judge_score": grade["score"],
        "judge_distribution": grade.get("distribution"),
        "oracle_label": None if label is None else label["score"],
        "metadata": {"response_token_count": len(response["token_ids"]), "finish_reason": response["finish_reason"]},
    }


def _scoring(frame: pl.DataFrame) -> dict[str, Any]:
    """How scoring went under one policy: rows by status, tokens on the boundary of the nucleus, zero log probabilities."""
    return {
        "status": dict(sorted(Counter(frame["status"]).items())),
        "n_boundary": int(frame["n_boundary"].sum()),
        "n_zero_logprob": int((frame["logprob"] == 0.0).sum()),
    }


def draw_rows(
    responses: Sequence[Row], judge: Sequence[Row], oracle: Sequence[Row]
) -> tuple[list[Row], dict[str, int]]:
    """Fresh draws of one policy in the CJE format, and how many have no judge score and why.

    A draw without a score stays, with null: the analysis leaves its prompt out for this policy alone, and says so.
    """
    scores, labels = by_key(judge), by_key(oracle)
    rows: list[Row] = []
    unscored: Counter[str] = Counter()
    for response in responses:
        key = (response["prompt_id"], response["draw_idx"])
        reason = _unusable(response, scores[key], base_logprob=0.0)
        if reason is not None:
            unscored[reason] += 1
        rows.append(_row(response, scores[key], labels.get(key)) | {"target_policy": response["policy"]})
    return rows, dict(unscored)
