"""The tables of an ablation: one row for each number of prompts, coverage and setting, over seeds and policies.

Levels (errors, intervals, refusals) are over the target policies, since the base's own value is the same by most settings;
rankings are over the base policy, too. Policies that a table keeps apart have rows of their own, and no rankings.

What a refusal is: right where the interval of the refused number misses the truth, wrong where it holds it. What is
published is wrong where the truth lies more than a standard error outside the interval.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from arena_cje.ablation import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Row = dict[str, Any]

KEYS = ("n", "coverage", "setting")
LEVELS = {
    "cells": "cells",
    "labels": "labels of the base policy, mean",
    "seconds": "processor seconds per cell, all policies",
    "bias": "mean error",
    "rmse": "root mean square error of all estimates, including refused ones",
    "rmse_debiased": "root mean square error of all estimates, minus the error of the true values",
    "rmse_published": "root mean square error of published estimates",
    "covered": "share of all intervals that contain the true value",
    "covered_published": "share of published intervals that contain the true value",
    "width": "mean width of all intervals",
    "width_published": "mean width of published intervals",
    "se": "geometric mean of the standard errors of all estimates",
    "interval_score": "geometric mean of the interval scores of all estimates",
    "refused": "share of estimates that are refused",
    "refused_rightly": "share that is refused and whose interval misses the true value",
    "refused_wrongly": "share that is refused and whose interval contains the true value",
    "published_wrongly": "share that is published although the true value is more than a standard error outside the interval",
}
RANKINGS = {
    "pairwise": "share of policy pairs in the right order, by all estimates",
    "kendall_tau": "Kendall's tau of all estimates",
    "top_1": "share of cells whose highest estimate belongs to a best policy",
    "regret": "mean loss of choosing the policy with the highest estimate",
    "pairs_published": "share of policy pairs with two published estimates",
    "pairwise_published": "share in the right order among published pairs",
    "pairwise_refused": "share in the right order among refused pairs",
    "decided": "share of cells that publish an estimate of a target",
    "top_1_published": "top-1 by published estimates, if a target is published",
    "regret_published": "regret by published estimates, if a target is published",
}
SCHEMA = {
    "n": pl.Int64,
    "coverage": pl.Float64,
    "setting": pl.String,
    "policies": pl.String,
    **dict.fromkeys(LEVELS, pl.Float64),
    **dict.fromkeys(RANKINGS, pl.Float64),
    "moved": pl.Float64,
    "reasons": pl.String,
}
ALL = "all"


def summarise(cells: pl.DataFrame, apart: Sequence[str] = (), alpha: float = 0.05) -> pl.DataFrame:
    """The content of summary.csv.

    cells: rows of `run.COLUMNS`, of any number of blocks. moved: share of the cells that have another number of some policy
    than at the next lower coverage, as they must where labels enter. reasons: codes of the reasons to refuse a target, with the
    number of refused numbers that have them, the most frequent first.
    """
    settings = {name: i for i, name in enumerate(cells["setting"].unique(maintain_order=True))}
    groups = cells.partition_by(KEYS, as_dict=True)
    keys = sorted(groups, key=lambda key: (key[0], settings[key[2]], key[1]))
    rows, lower = [], {}
    for n, coverage, setting in keys:
        group = groups[n, coverage, setting]
        arrays = _arrays(group)
        previous = lower.get((n, setting))
        moved = float("nan") if previous is None else _moved(arrays, previous)
        lower[n, setting] = arrays
        for label, policies in _policy_groups(arrays, apart):
            row = {"n": n, "coverage": coverage, "setting": setting, "policies": label, "moved": moved}
            row |= {"labels": group["n_labels"].mean(), "seconds": metrics.mean(arrays["seconds"])}
            row["reasons"] = _reasons(group, [arrays["policies"][k] for k in policies])
            rows.append(row | _levels(arrays, policies, alpha) | _rankings(arrays, policies, alpha))
    return pl.DataFrame(rows, schema=SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))


def averages(summary: pl.DataFrame, by: Sequence[str] = ("setting", "policies")) -> pl.DataFrame:
    """Means over the rows with the same keys, each row counted once; in order of appearance."""
    values = [pl.col(name).mean() for name in (*LEVELS, *RANKINGS) if name != "cells"]
    return summary.group_by(by, maintain_order=True).agg(pl.col("cells").sum(), *values)


def without_effect(summary: pl.DataFrame) -> list[str]:
    """Settings whose numbers are the same at two coverages, for every cell: their masks had no effect."""
    highest = summary.group_by("setting", maintain_order=True).agg(pl.col("moved").max())
    return highest.filter(pl.col("moved") == 0)["setting"].to_list()


def markdown(summary: pl.DataFrame, apart: Sequence[str], source: str) -> str:
    """The content of summary.md: averages, the largest samples by coverage, refusals, the policies that are apart."""
    others = [name for name in summary["policies"].unique(maintain_order=True) if name not in apart]
    main = summary.filter(pl.col("policies").is_in(others))
    largest = main.filter(pl.col("n") == main["n"].max())
    parts = [
        f"# Ablation: {source}",
        f"{int(main['cells'].sum())} cells: n {_listed(main['n'])}; coverage {_listed(main['coverage'])}; "
        f"{main['setting'].n_unique()} settings. The end of the page explains the columns.",
        f"## Average over all n and coverages, {others[0] if others else ALL}",
        _table(averages(main, ("setting",)), ("setting",), MAIN),
        f"## n = {int(largest['n'].max())}, by coverage",
        _table(largest, ("setting", "coverage"), MAIN),
        "## Refusals",
        _table(averages(main, ("setting",)), ("setting",), REFUSALS),
    ]
    for policy in apart:
        own = summary.filter(pl.col("policies") == policy)
        if len(own):
            parts += [f"## {policy}, separately", _table(averages(own, ("setting",)), ("setting",), APART)]
    used = dict.fromkeys((*MAIN, *REFUSALS, *APART))
    parts += ["## Columns", "\n".join(f"* `{name}`: {(LEVELS | RANKINGS)[name]}" for name in used)]
    return "\n\n".join(parts) + "\n"


MAIN = ("rmse_debiased", "covered_published", "width", "interval_score", "pairwise", "kendall_tau", "top_1", "regret")
MAIN += ("refused", "seconds")
REFUSALS = ("refused", "refused_rightly", "refused_wrongly", "published_wrongly", "covered", "covered_published")
REFUSALS += ("pairs_published", "pairwise", "pairwise_published", "pairwise_refused", "decided", "top_1_published")
APART = ("rmse_debiased", "covered", "width", "refused", "refused_rightly", "refused_wrongly", "published_wrongly")


def _listed(values: pl.Series) -> str:
    return ", ".join(f"{value:g}" for value in values.unique().sort())


def _table(frame: pl.DataFrame, keys: Sequence[str], columns: Sequence[str]) -> str:
    """A Markdown table; a dash where there is no value."""
    names = (*keys, *columns)
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in frame.iter_rows(named=True):
        lines.append("| " + " | ".join(_cell(row[name]) for name in names) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.3g}" if abs(value) < 0.1 else f"{value:.3f}"


def _arrays(group: pl.DataFrame) -> dict[str, Any]:
    """The columns of one n, coverage and setting as arrays (seeds, policies)."""
    policies = group["policy"].unique(maintain_order=True).to_list()
    seeds = group["seed"].n_unique()
    place = {name: i for i, name in enumerate(policies)}
    ordered = group.with_columns(pl.col("policy").replace_strict(place).alias("place")).sort("seed", "place")
    if len(ordered) != seeds * len(policies):
        raise ValueError(f"{len(ordered)} rows of {seeds} seeds and {len(policies)} policies")
    numbers = ("estimate", "se", "ci_lower", "ci_upper", "truth", "truth_se", "seconds")
    arrays: dict[str, Any] = {
        name: ordered[name].cast(pl.Float64).fill_null(float("nan")).to_numpy().reshape(seeds, len(policies))
        for name in numbers
    }
    arrays["published"] = (ordered["level"] != "refuse").to_numpy().reshape(seeds, len(policies))
    arrays["is_base"] = ordered["is_base"].to_numpy().reshape(seeds, len(policies))[0]
    return arrays | {"policies": policies, "seeds": ordered["seed"].unique().sort().to_list()}


def _moved(arrays: Mapping[str, Any], lower: Mapping[str, Any]) -> float:
    """Share of the cells in which some policy's number differs from that at a lower coverage."""
    if arrays["seeds"] != lower["seeds"]:
        return float("nan")
    new, old = arrays["estimate"], lower["estimate"]
    same = (new == old) | (np.isnan(new) & np.isnan(old))
    return float((~same).any(axis=1).mean())


def _reasons(group: pl.DataFrame, policies: Sequence[str]) -> str:
    """How often each reason to refuse was there, for the targets among some policies."""
    refused = group.filter(~pl.col("is_base") & pl.col("policy").is_in(policies) & (pl.col("level") == "refuse"))
    codes = Counter(code for text in refused["refused_for"] for code in text.split())
    return ", ".join(f"{code} {count}" for code, count in codes.most_common())


def _policy_groups(arrays: Mapping[str, Any], apart: Sequence[str]) -> Iterable[tuple[str, np.ndarray]]:
    """Names and indices of the policies that are summarised together, those with a known truth alone."""
    has_truth = ~np.isnan(arrays["truth"][0])
    own = [name for name in apart if name in arrays["policies"]]
    is_apart = np.isin(arrays["policies"], own)
    yield ALL if not own else f"all but {', '.join(own)}", np.flatnonzero(has_truth & ~is_apart)
    for name in own:
        yield name, np.flatnonzero(has_truth & (np.array(arrays["policies"]) == name))


def _levels(arrays: Mapping[str, Any], policies: np.ndarray, alpha: float) -> Row:
    """Measures of the levels of the targets among some policies."""
    policies = policies[~arrays["is_base"][policies]]
    names = ("estimate", "se", "ci_lower", "ci_upper", "truth", "truth_se", "published")
    estimate, se, low, high, truth, truth_se, published = (arrays[name][:, policies] for name in names)
    error, width, missing = estimate - truth, high - low, np.isnan(estimate)
    distance = metrics.missed_by(estimate, low, high, truth, truth_se, alpha)
    covered = np.where(np.isnan(distance), np.nan, distance == 0)
    only_published = [np.where(published, values, np.nan) for values in (error, covered, width)]
    return {
        "cells": float(len(estimate)),
        "bias": metrics.mean(error),
        "rmse": metrics.rmse(error),
        "rmse_debiased": metrics.rmse(error, truth_se),
        "rmse_published": metrics.rmse(only_published[0]),
        "covered": metrics.mean(covered),
        "covered_published": metrics.mean(only_published[1]),
        "width": metrics.mean(width),
        "width_published": metrics.mean(only_published[2]),
        "se": metrics.geometric_mean(se),
        "interval_score": metrics.geometric_mean(metrics.interval_score(width, distance, alpha)),
        "refused": metrics.mean(~published * 1.0),
        "refused_rightly": metrics.mean(~published & ~missing & (covered == 0)),
        "refused_wrongly": metrics.mean(~published & (covered == 1)),
        "published_wrongly": metrics.mean(published & (distance > se)),
    }


def _rankings(arrays: Mapping[str, Any], policies: np.ndarray, alpha: float) -> Row:
    """Measures of the order of some policies; none where no two of them are known to differ."""
    truth, truth_se = arrays["truth"][0][policies], arrays["truth_se"][0][policies]
    pairs = metrics.pairs(truth, truth_se, alpha) if len(policies) > 1 else np.empty((0, 2), int)
    if not len(pairs):
        return dict.fromkeys(RANKINGS)
    estimate, published = arrays["estimate"][:, policies], arrays["published"][:, policies]
    right = metrics.in_order(estimate, pairs)
    both = published[:, pairs[:, 0]] & published[:, pairs[:, 1]]
    decided = (published & ~arrays["is_base"][policies]).any(axis=1)
    published_estimate = np.where(published & decided[:, None], estimate, np.nan)
    return {
        "pairwise": metrics.mean(right),
        "kendall_tau": 2 * metrics.mean(right) - 1,
        "top_1": metrics.mean(metrics.top_1(estimate, truth, truth_se, alpha)),
        "regret": metrics.mean(metrics.regret(estimate, truth)),
        "pairs_published": metrics.mean(both * 1.0),
        "pairwise_published": metrics.mean(np.where(both, right, np.nan)),
        "pairwise_refused": metrics.mean(np.where(both, np.nan, right)),
        "decided": metrics.mean(decided * 1.0),
        "top_1_published": metrics.mean(metrics.top_1(published_estimate, truth, truth_se, alpha)),
        "regret_published": metrics.mean(metrics.regret(published_estimate, truth)),
    }
