"""An account of a data set before any analysis: counts, log probabilities, lengths, scores and labels by policy."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.data.draws import read_draws
from arena_cje.data.logged import base_logprobs, logged_arrays, read_logged
from arena_cje.data.reading import Reading
from arena_cje.data.rows import NO_TEXTS, source_name
from arena_cje.diagnostics import plausibility
from arena_cje.diagnostics.thresholds import with_overrides

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.data.rows import Response, Source

BINS = 10  # of a histogram on [0, 1]
QUANTILES = {"min": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}


def account(
    logged: Source,
    fresh_draws: Mapping[str, Source],
    overrides: Mapping[str, float],
    *,
    base_policy: str | None = None,
    reading: Reading = Reading(),
) -> dict[str, Any]:
    """The account of logged data and of the fresh draws of some policies, as it stands in summary.json.

    overrides: thresholds of the verdict that differ from their default.
    """
    thresholds = with_overrides(overrides)
    responses, base, targets = read_logged(logged, base_policy, reading=reading, texts=NO_TEXTS)
    scored = [response for response in responses if response.judge_score is not None]
    counts: dict[str, plausibility.Plausibility] = {}
    if scored:
        arrays, _ = logged_arrays(responses, base, targets, source_name(logged), reading)
        _, counts = plausibility.reject(arrays, *base_logprobs(scored), thresholds)
    policies = {base: _policy(responses)}
    for name, source in fresh_draws.items():
        if name != base:
            policies[name] = _policy(read_draws(source, name, reading=reading, texts=NO_TEXTS))
    return {
        "base_policy": base,
        "policies": policies,
        "logprobs": {name: asdict(own) for name, own in counts.items()},
        "same_as_base": [name for name, own in counts.items() if own.n_equal == own.n_rows],
        "cautions": {
            name: [reason.sentence for reason in plausibility.reasons(own, thresholds)] for name, own in counts.items()
        },
    }


def _policy(responses: Sequence[Response]) -> dict[str, Any]:
    """Counts and distributions of one policy's responses."""
    labels = [response.oracle_label for response in responses if response.oracle_label is not None]
    scores = [response.judge_score for response in responses if response.judge_score is not None]
    lengths = [response.n_words for response in responses if response.n_words is not None]
    return {
        "rows": len(responses),
        "prompts": len({response.prompt_id for response in responses}),
        "without_score": len(responses) - len(scores),
        "without_text": len(responses) - len(lengths),
        "empty": lengths.count(0),
        "judge_score": _distribution(scores) | {"bins": _bins(scores)},
        "oracle_label": _distribution(labels)
        | {"bins": _bins(labels), "zero": labels.count(0.0), "one": labels.count(1.0)},
        "words": _distribution(lengths),
    }


def _distribution(values: Sequence[float]) -> dict[str, float | None]:
    """Number, mean and quantiles; null where there is no value."""
    if not len(values):
        return {"n": 0, "mean": None} | dict.fromkeys(QUANTILES)
    quantiles = np.quantile(values, list(QUANTILES.values())).tolist()
    return {"n": len(values), "mean": float(np.mean(values))} | dict(zip(QUANTILES, quantiles, strict=True))


def _bins(values: Sequence[float]) -> list[int]:
    return np.histogram(values, bins=BINS, range=(0.0, 1.0))[0].tolist()
