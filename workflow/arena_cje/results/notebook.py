"""Results in a notebook: the status of importance weights, figures.

The status is computed from the raw weights of a policy, with the thresholds of the verdict:

    CRITICAL   an estimate by weights alone is refused: too few effective rows, or nearly all weights are zero
    WARNING    an estimate by weights alone is published with caution
    GOOD       neither; `issues` may have counts for information

The status is not the verdict: an estimate with fresh draws may be published where weights are CRITICAL, and refused for its
labels where they are GOOD.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from arena_cje.errors import printable
from arena_cje.numbers import decimal
from arena_cje.results.line_breaks import wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import plotnine as p9

    from arena_cje.data.sources import Source
    from arena_cje.diagnostics.overlap import Overlap
    from arena_cje.estimation.records import Logged, Reason
    from arena_cje.results.record import ResultRecord

STATUS = {"ok": "GOOD", "caution": "WARNING", "refuse": "CRITICAL"}
# Reasons of the verdict by code and level, in a few words for a narrow column; the sentences are in `reasons`.
SHORT = {
    ("low_ess", "refuse"): "low ESS",
    ("low_ess", "caution"): "moderate ESS",
    ("near_zero_weights", "refuse"): "next to all weights zero",
    ("heavy_tail", "caution"): "heavy tail",
    ("concentrated_weights", "caution"): "few rows carry the weight",
    ("mean_weight_off", "caution"): "mean weight off 1",
    ("infinite_variance", "refuse"): "infinite variance",
    ("mean_weight_not_one", "refuse"): "mean weight off 1",
}
EQUAL = 1e-6  # largest coefficient of variation of the weights of equal policies
WEIGHT_TITLES = ("Policy", "ESS", "Mean Weight", "Status", "Issues")
WEIGHT_WIDTHS = (30, 6, 11, 8, 44)  # greatest width of each column, in characters


@dataclass(frozen=True)
class WeightStatus:
    """The status of the raw importance weights of one policy, with its reasons."""

    policy: str
    status: str  # GOOD, WARNING, CRITICAL
    issues: tuple[str, ...]  # in a few words
    reasons: tuple[str, ...]  # in sentences
    n: int  # rows that have a weight
    ess_share: float  # effective sample size over n
    mean_weight: float  # of exp(log ratio), without normalisation
    max_weight: float  # of the mean-one weights, here and below
    n_above_100: int
    n_below_0_01: int
    n_above_1000: int
    n_below_0_001: int
    n_zero: int
    clipped_mass: float  # share of the weight that the estimator clips; NaN where only the data can give it
    same_as_base: (
        bool | None
    )  # whether all weights are 1; None where the policy is not declared equal to the base policy

    def __repr__(self) -> str:
        return (
            f"WeightStatus({self.policy!r}: {self.status}, ESS {self.ess_share:.1%} of {self.n} rows, mean weight "
            f"{decimal(self.mean_weight)}, largest {decimal(self.max_weight, '.1f')}; {', '.join(self.issues) or 'no issues'})"
        )


def weight_status(result: ResultRecord, logged: Source | Logged | None = None) -> dict[str, WeightStatus]:
    """The status of every policy that has weights, in declared order.

    logged: the logged data of the analysis, for the share of the weight that raw-ips clips.
    """
    responses = None if logged is None else read_logged(result, logged)
    diagnostics = result.document["metadata"]["diagnostics"]
    return {
        policy: _status(result, policy, responses)
        for policy in result.policies
        if (diagnostics[policy].get("weights") or {"raw": {"n": 0}})["raw"]["n"]
    }


def _status(result: ResultRecord, policy: str, logged: Logged | None) -> WeightStatus:
    overlap = _overlap(result.document["metadata"]["diagnostics"][policy]["weights"])
    raw, same = overlap.raw, same_as_base(result, policy)
    issues, sentences, level = _issues(_reasons(result, overlap))
    n_rows = result.document["metadata"]["n_samples"]
    unweighted = n_rows - raw.n
    if unweighted:
        sentences.append(f"{unweighted} of {n_rows} rows have no log ratio, so they have no weight")
    if same is False:
        level = "refuse"
        issues.append("not 1 for the base policy again")
        sentences.append(
            f"the policy is the base policy again, so all weights must be 1; the largest is {raw.max_weight:.6g}: "
            "check how its log probabilities were made"
        )
    if raw.n_above_1000:
        level = max(level, "caution", key=list(STATUS).index)
    counts = {
        "rows left out": unweighted,
        "above 1000": raw.n_above_1000,
        "zero": raw.n_zero,
        "below 0.001": raw.n_below_0_001 - raw.n_zero,
    }
    issues += [f"{count} {what}" for what, count in counts.items() if count]
    return WeightStatus(
        policy=policy,
        status=STATUS[level],
        issues=tuple(issues),
        reasons=tuple(sentences),
        n=raw.n,
        ess_share=raw.ess_share,
        mean_weight=overlap.mean_weight,
        max_weight=raw.max_weight,
        n_above_100=raw.n_above_100,
        n_below_0_01=raw.n_below_0_01,
        n_above_1000=raw.n_above_1000,
        n_below_0_001=raw.n_below_0_001,
        n_zero=raw.n_zero,
        clipped_mass=_clipped_mass(result, policy, raw.max_weight, logged),
        same_as_base=same,
    )


def _issues(reasons: Sequence[Reason]) -> tuple[list[str], list[str], str]:
    """Issues in a few words, their sentences, and the worst level."""
    from arena_cje.estimation.records import Verdict

    issues = [SHORT.get((reason.code, reason.level), reason.code.replace("_", " ")) for reason in reasons]
    return list(dict.fromkeys(issues)), [reason.sentence for reason in reasons], Verdict(reasons).level


def _reasons(result: ResultRecord, overlap: Overlap) -> tuple[Reason, ...]:
    """The reasons of the verdict about weights, for an estimate by weights alone."""
    from arena_cje import estimators
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.diagnostics.verdict import overlap_reasons, unnormalised_reasons

    metadata = result.document["metadata"]
    limits = Thresholds(**{name: _from_json(value) for name, value in metadata["thresholds"].items()})
    reasons = overlap_reasons(overlap, limits)
    return reasons if estimators.normalised(metadata["estimator"]) else reasons + unnormalised_reasons(overlap, limits)


def _overlap(entries: Mapping[str, Any]) -> Overlap:
    """The record behind the entries of a results file."""
    from arena_cje.diagnostics.overlap import Overlap, WeightDiagnostics

    weights = {
        name: WeightDiagnostics(**{key: _from_json(value) for key, value in entries[name].items()})
        for name in ("raw", "stabilised")
    }
    numbers = {field.name for field in fields(Overlap)} - set(weights)
    return Overlap(**weights, **{key: _from_json(value) for key, value in entries.items() if key in numbers})


def _from_json(value: Any) -> Any:
    """A number of a results file, where null is NaN and text is an infinite number."""
    return math.nan if value is None else float(value) if isinstance(value, str) else value


def same_as_base(result: ResultRecord, policy: str) -> bool | None:
    """Whether all weights are 1, for a policy that is declared equal to the base policy; None for any other policy.

    Policies are equal if the provenance of the workflow has the same scoring context and sampling for both.
    """
    policies = result.document.get("provenance", {}).get("policies", {})
    keys = ("context", "temperature", "top_p")
    own, base = ({key: policies.get(name, {}).get(key) for key in keys} for name in (policy, result.base_policy))
    if policy not in policies or own != base:
        return None
    # The weights have mean one: they are all 1 if they do not vary.
    return result.document["metadata"]["diagnostics"][policy]["weights"]["raw"]["cv"] <= EQUAL


def _clipped_mass(result: ResultRecord, policy: str, largest: float, logged: Logged | None) -> float:
    """Share of the raw weight above the clip of raw-ips; 0 for every other estimator."""
    metadata = result.document["metadata"]
    clip = result.options.clip
    if metadata["estimator"] != "raw-ips" or largest <= clip:
        return 0.0
    if logged is None:
        return math.nan
    import numpy as np

    from arena_cje.estimation.weights import hajek

    log_ratio = logged.log_ratio[:, logged.policies.index(policy)]
    weight = hajek(log_ratio[~np.isnan(log_ratio)])
    return float(np.sum(np.maximum(weight - clip, 0)) / weight.sum())


def weight_table(result: ResultRecord) -> str:
    """The table Policy | ESS | Mean Weight | Status | Issues as text, at most 110 characters wide; empty without weights."""
    statuses = weight_status(result)
    if not statuses:
        return ""
    rows = [WEIGHT_TITLES, *(_weight_row(status) for status in statuses.values())]
    cells = [[wrapped(text, width) for text, width in zip(row, WEIGHT_WIDTHS, strict=True)] for row in rows]
    widths = [max(len(line) for row in cells for line in row[k]) for k in range(len(WEIGHT_TITLES))]
    lines = []
    for row in cells:
        for k in range(max(len(cell) for cell in row)):
            parts = [cell[k] if k < len(cell) else "" for cell in row]
            lines.append("| " + " | ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)) + " |")
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return printable("\n".join(lines))


def _weight_row(status: WeightStatus) -> tuple[str, ...]:
    form = ".3f" if status.mean_weight < 1e4 else ".2e"
    mean = "-" if math.isnan(status.mean_weight) else format(status.mean_weight, form)
    return (status.policy, f"{status.ess_share:.1%}", mean, status.status, ", ".join(status.issues) or "None")


def plot_estimates(result: ResultRecord, truth: Mapping[str, float] | None = None) -> p9.ggplot:
    """Forest plot of one result; truth: true values by policy, where they are known."""
    from arena_cje.report import figures

    return figures.policy_estimates([result], truth)


def plot_weights(result: ResultRecord, logged: Source | Logged) -> p9.ggplot:
    """Histograms of the raw importance weights by policy; logged: the logged data of the analysis."""
    from arena_cje.report import figures

    return figures.weight_distributions(read_logged(result, logged))


def read_logged(result: ResultRecord, logged: Source | Logged) -> Logged:
    """The logged data of the analysis as arrays, read as the analysis read them.

    logged: a path or polars frame in the CJE format; arrays are returned as they are.
    """
    from arena_cje.data.dataset import load_logged
    from arena_cje.estimation.records import Logged

    if isinstance(logged, Logged):
        return logged
    return load_logged(logged, base_policy=result.base_policy, policies=result.policies, reading=result.reading)[0]
