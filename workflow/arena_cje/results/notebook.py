"""Results in a notebook: weights with a status, an HTML table, figures that show themselves.

The status of a policy's importance weights goes by the raw ones and the thresholds of the verdict:

    CRITICAL   weights alone could not publish an estimate: too few effective rows, or next to all weights are zero
    WARNING    they could, with a reason beside it
    GOOD       what `issues` may count is for information

Weights are not the verdict: fresh draws carry an estimate where the weights do not, labels may be too few where they do.
"""

from __future__ import annotations

import html
import math
import textwrap
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import plotnine as p9

    from arena_cje.data.rows import Source
    from arena_cje.diagnostics.overlap import Overlap
    from arena_cje.estimation.records import Logged, Reason
    from arena_cje.results.record import ResultRecord

STATUS = {"ok": "GOOD", "caution": "WARNING", "refuse": "CRITICAL"}
# Reasons of the verdict in the words of a narrow column, by what they ask for; the sentences stand in `reasons`.
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
ONE = 1e-6  # spread of the weights of equal policies, at most
NAME_WIDTH, ISSUES_WIDTH = 30, 44  # the table is at most 110 characters wide
WEIGHT_TITLES = ("Policy", "ESS", "Mean Weight", "Status", "Issues")
RESULT_TITLES = ("Policy", "Estimate", "SE", "Interval", "ESS", "Raw ESS", "Max weight", "Labels", "Verdict")


@dataclass(frozen=True)
class WeightStatus:
    """Raw importance weights of one policy: how good they are, and why."""

    policy: str
    status: str  # GOOD, WARNING, CRITICAL
    issues: tuple[str, ...]  # in a few words
    reasons: tuple[str, ...]  # in sentences
    n: int  # rows that have a weight
    ess_share: float
    mean_weight: float  # of exp(log ratio), which nothing has made 1
    max_weight: float  # mean-one, here and below
    n_above_100: int
    n_below_0_01: int
    n_above_1000: int
    n_below_0_001: int
    n_zero: int
    clipped_mass: float  # share of the weight that the estimator cut off; NaN where it takes the data to know
    same_as_base: bool | None  # are all weights 1? None where nothing says that the policies should be the same


def weight_status(result: ResultRecord, logged: Source | Logged | None = None) -> dict[str, WeightStatus]:
    """Status of every policy that has weights, in declared order.

    logged: the data the result was made from; only the mass that raw-ips clips needs it.
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
            "look how its log probabilities were made"
        )
    if raw.n_above_1000:
        level = max(level, "caution", key=list(STATUS).index)
    counted = {
        "rows left out": unweighted,
        "above 1000": raw.n_above_1000,
        "zero": raw.n_zero,
        "below 0.001": raw.n_below_0_001 - raw.n_zero,
    }
    issues += [f"{count} {what}" for what, count in counted.items() if count]
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
    """In a few words, in sentences, and the level of the worst."""
    from arena_cje.estimation.records import Verdict

    issues = [SHORT.get((reason.code, reason.level), reason.code.replace("_", " ")) for reason in reasons]
    return list(dict.fromkeys(issues)), [reason.sentence for reason in reasons], Verdict(reasons).level


def _reasons(result: ResultRecord, overlap: Overlap) -> tuple[Reason, ...]:
    """What the verdict says of weights when they are all there is."""
    from arena_cje import estimators
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.diagnostics.verdict import overlap_reasons, unnormalised_reasons

    metadata = result.document["metadata"]
    limits = Thresholds(**{name: _figure(value) for name, value in metadata["thresholds"].items()})
    found = overlap_reasons(overlap, limits)
    return found if estimators.normalised(metadata["estimator"]) else found + unnormalised_reasons(overlap, limits)


def _overlap(written: Mapping[str, Any]) -> Overlap:
    """The figures as they were before they were written: null is unknown, an infinite one is text."""
    from arena_cje.diagnostics.overlap import Overlap, WeightDiagnostics

    described = {
        name: WeightDiagnostics(**{key: _figure(value) for key, value in written[name].items()})
        for name in ("raw", "stabilised")
    }
    known = {field.name for field in fields(Overlap)} - set(described)
    return Overlap(**described, **{key: _figure(value) for key, value in written.items() if key in known})


def _figure(value: Any) -> Any:
    return math.nan if value is None else float(value) if isinstance(value, str) else value


def same_as_base(result: ResultRecord, policy: str) -> bool | None:
    """Are the weights of a policy that is declared as the base policy again all 1? None for any other policy.

    Declared so: the same scoring context and sampling, by the provenance that the workflow writes.
    """
    declared = result.document.get("provenance", {}).get("policies", {})
    keys = ("context", "temperature", "top_p")
    mine, base = ({key: declared.get(name, {}).get(key) for key in keys} for name in (policy, result.base_policy))
    if policy not in declared or mine != base:
        return None
    # Their mean is one, so without a spread they all are.
    return result.document["metadata"]["diagnostics"][policy]["weights"]["raw"]["cv"] <= ONE


def _clipped_mass(result: ResultRecord, policy: str, largest: float, logged: Logged | None) -> float:
    """Share of the raw weight that raw-ips cuts off; no other estimator cuts any."""
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
    """Policy | ESS | Mean Weight | Status | Issues, as text of at most 110 columns; empty where no weights are known."""
    found = weight_status(result)
    if not found:
        return ""
    rows = [WEIGHT_TITLES, *(_weight_row(status) for status in found.values())]
    cells = [[_wrapped(text, width) for text, width in zip(row, _limits(), strict=True)] for row in rows]
    widths = [max(len(line) for row in cells for line in row[k]) for k in range(len(WEIGHT_TITLES))]
    lines = []
    for row in cells:
        for k in range(max(len(cell) for cell in row)):
            parts = [cell[k] if k < len(cell) else "" for cell in row]
            lines.append("| " + " | ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)) + " |")
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _limits() -> tuple[int, ...]:
    return (NAME_WIDTH, 6, 11, 8, ISSUES_WIDTH)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def _weight_row(found: WeightStatus) -> tuple[str, ...]:
    mean = (
        "-" if math.isnan(found.mean_weight) else format(found.mean_weight, ".3f" if found.mean_weight < 1e4 else ".2e")
    )
    return (found.policy, f"{found.ess_share:.1%}", mean, found.status, ", ".join(found.issues) or "None")


def html_table(result: ResultRecord) -> str:
    """The result as an HTML table with its verdicts; every name is escaped, a refused policy shows no number."""
    rows = "".join(_html_row(result, policy) for policy in result.all_policies)
    head = "".join(f'<th scope="col" style="text-align:left">{title}</th>' for title in RESULT_TITLES)
    metadata = result.document["metadata"]
    said = (
        f"{html.escape(result.name)}: {metadata['n_samples']} logged responses, {metadata['n_oracle']} oracle labels, "
        f"{100 * (1 - metadata['alpha']):g} % intervals"
    )
    reasons = "".join(_html_reasons(result, policy) for policy in result.all_policies)
    return (
        f"<table><caption>{said}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><ul>{reasons}</ul>"
    )


def _html_row(result: ResultRecord, policy: str) -> str:
    level = result.verdicts[policy].level
    weights = result.document["metadata"]["diagnostics"].get(policy, {})
    role = " (logged)" if policy == result.base_policy else ""
    if policy in result.refused:
        numbers = ["refused", "", ""]
    else:
        found = result.summary(policy)
        numbers = [
            f"{found['estimate']:.3f}",
            f"{found['se']:.3f}",
            f"[{found['ci_lower']:.3f}, {found['ci_upper']:.3f}]",
        ]
    named = (("ess", ".3f"), ("ess_raw", ".3f"), ("max_weight", ".1f"), ("effective_labels", ".0f"))
    figures = ["-" if weights.get(name) is None else format(weights[name], form) for name, form in named]
    cells = "".join(f"<td>{html.escape(text)}</td>" for text in (*numbers, *figures))
    return f'<tr><th scope="row" style="text-align:left">{html.escape(policy + role)}</th>{cells}<td>{level}</td></tr>'


def _html_reasons(result: ResultRecord, policy: str) -> str:
    """Why a policy is refused or published with caution."""
    verdict = result.verdicts[policy]
    said = verdict.grounds
    return f"<li>{html.escape(f'{verdict.level}: {policy}: ' + '; '.join(said))}</li>" if said else ""


def plot_estimates(result: ResultRecord, truth: Mapping[str, float] | None = None) -> p9.ggplot:
    """Forest plot of one result; truth by policy, where it is known."""
    from arena_cje.report import figures

    return figures.policy_estimates([result], truth)


def plot_weights(result: ResultRecord, logged: Source | Logged) -> p9.ggplot:
    """Importance weights by policy, from the data the result was made from."""
    from arena_cje.report import figures

    return figures.weight_distributions(read_logged(result, logged))


def read_logged(result: ResultRecord, logged: Source | Logged) -> Logged:
    """The data a result was made from: a path or polars frame in the CJE format, or read already."""
    from arena_cje.data.dataset import load_logged
    from arena_cje.estimation.records import Logged

    if isinstance(logged, Logged):
        return logged
    return load_logged(logged, base_policy=result.base_policy, policies=result.policies, reading=result.reading)[0]
