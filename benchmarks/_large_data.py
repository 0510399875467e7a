"""Logged data and fresh draws in the CJE format, of any size, with made-up texts of about 500 characters.

Judge scores and labels have the same mean function under all policies; targets shift the log probabilities by some nats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLICIES = ("clone", "brief", "warm", "expert", "other")
WORDS = ("the", "model", "answer", "question", "because", "therefore", "data", "value", "simple", "number", "reason")
N_WORDS = 85  # of a response, some 500 characters
N_TEXTS = 997  # different beginnings of texts; a number makes each text unlike all others
N_LABELS = 2000  # of logged rows
BLOCK = 10_000  # rows that are made at a time


def write(folder: Path, n: int) -> None:
    """Write logged.jsonl with n rows and fresh_draws/{policy}.jsonl with a draw for each of its prompts."""
    (folder / "fresh_draws").mkdir(parents=True)
    texts = _texts(np.random.default_rng(0))
    _write(folder / "logged.jsonl", (_logged(texts, start, stop, n) for start, stop in _blocks(n)))
    for k, policy in enumerate(POLICIES):
        blocks = (_draw_rows(texts, policy, k, start, stop) for start, stop in _blocks(n))
        _write(folder / "fresh_draws" / f"{policy}.jsonl", blocks)


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + BLOCK, n)) for start in range(0, n, BLOCK))


def _texts(rng: np.random.Generator) -> list[str]:
    return [" ".join(rng.choice(WORDS, N_WORDS)) for _ in range(N_TEXTS)]


def _write(path: Path, blocks: Iterator[list[dict]]) -> None:
    with path.open("wb") as file:
        for block in blocks:
            file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in block)


def _scores(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Judge scores and labels (size,) in [0, 1], of three digits."""
    score = np.round(rng.beta(4, 3, size), 3)
    return score, np.clip(np.round(0.1 + 0.8 * score**1.5 + rng.normal(0, 0.1, size), 3), 0, 1)


def _logged(texts: list[str], start: int, stop: int, n: int) -> list[dict]:
    rng = np.random.default_rng([1, start])
    score, label = _scores(rng, stop - start)
    every = max(n // N_LABELS, 1)
    base = -rng.gamma(20, 6, stop - start)
    shift = rng.normal(-0.05, 0.3, (stop - start, len(POLICIES))) * np.array([0, 1, 1.5, 2, 3])
    targets = np.minimum(base[:, None] + shift, -0.001)
    return [
        {
            "prompt_id": f"q{k}",
            "prompt": f"Question {k}: {texts[k % N_TEXTS][:150]}?",
            "response": f"{k}. {texts[(7 * k) % N_TEXTS]}",
            "base_policy_logprob": float(base[i]),
            "target_policy_logprobs": dict(zip(POLICIES, targets[i].tolist(), strict=True)),
            "judge_score": float(score[i]),
            "oracle_label": float(label[i]) if k % every == 0 else None,
            "metadata": {"response_token_count": 110 + k % 40, "finish_reason": "stop"},
        }
        for i, k in enumerate(range(start, stop))
    ]


def _draw_rows(texts: list[str], policy: str, number: int, start: int, stop: int) -> list[dict]:
    score, _ = _scores(np.random.default_rng([2, number, start]), stop - start)
    return [
        {
            "prompt_id": f"q{k}",
            "draw_idx": 0,
            "prompt": f"Question {k}: {texts[k % N_TEXTS][:150]}?",
            "response": f"{policy} {k}. {texts[(11 * k + number) % N_TEXTS]}",
            "judge_score": float(score[i]),
            "oracle_label": None,
            "metadata": {"response_token_count": 110 + k % 40},
        }
        for i, k in enumerate(range(start, stop))
    ]


def write_stages(folder: Path, n: int) -> None:
    """Write what the stages of an experiment would have made of n prompts: responses, grades and log probabilities."""
    import polars as pl

    texts = _texts(np.random.default_rng(0))
    results = folder / "results"
    for name in ("responses", "judge", "oracle/base", "logprobs"):
        (results / name).mkdir(parents=True)
    blocks = [(start, stop) for start, stop in _blocks(n)]
    rows = (_logged(texts, start, stop, n) for start, stop in blocks)
    _write(results / "responses" / "base.jsonl", (list(map(_response, block)) for block in rows))
    rows = (_logged(texts, start, stop, n) for start, stop in blocks)
    _write(results / "judge" / "base.jsonl", ([_grade(row, "judge_score") for row in block] for block in rows))
    rows = (_logged(texts, start, stop, n) for start, stop in blocks)
    labelled = ([_grade(row, "oracle_label") for row in block if row["oracle_label"] is not None] for block in rows)
    _write(results / "oracle" / "base" / "coverage_1.0.jsonl", labelled)
    rng = np.random.default_rng(3)
    for policy in ("base", *POLICIES):
        columns = {"prompt_id": [f"q{k}" for k in range(n)], "logprob": -rng.gamma(20, 6, n)}
        frame = pl.DataFrame(columns).with_columns(
            n_tokens=pl.lit(120, pl.Int32),
            token_logprobs=pl.lit(None, pl.List(pl.Float64)),
            n_boundary=pl.lit(0, pl.Int32),
            status=pl.lit("ok"),
        )
        frame.write_parquet(results / "logprobs" / f"{policy}.parquet")


def _response(row: dict) -> dict:
    n_tokens = row["metadata"]["response_token_count"]
    return {
        "prompt_id": row["prompt_id"],
        "policy": "base",
        "draw_idx": 0,
        "prompt": row["prompt"],
        "response": row["response"],
        "token_ids": [(37 * k) % 49_152 for k in range(n_tokens)],
        "finish_reason": "stop",
        "status": "ok",
        "seed": 1,
        "model_sha256": "0" * 64,
        "model": None,
        "system_fingerprint": None,
        "item": "0" * 32,
    }


def _grade(row: dict, name: str) -> dict:
    return {
        "prompt_id": row["prompt_id"],
        "draw_idx": 0,
        "score": row[name],
        "reason": None,
        "reply": None,
        "distribution": None,
        "choice_mass": None,
        "model": None,
        "system_fingerprint": None,
        "item": "0" * 32,
    }
