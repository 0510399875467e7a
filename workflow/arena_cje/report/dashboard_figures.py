"""Figures of the dashboard as Vega-Lite specifications with named data.

No data are part of an expression: names of policies are in data and in the domains of scales, names of fields are constants,
and the order is that of the rows. Colours are CSS variables, which the browser resolves for light, dark and print. A refused
policy has its place and the word "refused", and no position on the scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.report import value_axis
from arena_cje.report.reliability import reliability
from arena_cje.report.weight_bins import EXTREME, HIGHEST, LOWEST, weight_bins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import altair as alt

    from arena_cje.data.rows import Response
    from arena_cje.files import Row
    from arena_cje.results.record import ResultRecord

REFUSED = "refused"
WRAP = "wrap"  # parameter: pattern of the lines of a name, which the page sets to the width that it has
LINES = f"split(replace(datum.label, regexp({WRAP}, 'g'), '$1\\n'), '\\n')"
MOST_LINES = 9  # of a name
MARKS = {"ok": ("circle", "var(--accent)"), "caution": ("triangle-up", "var(--mark)")}
VALUE, WEIGHT = "policy value: mean oracle label", "importance weight, scaled to mean 1"
POINTS = 2000  # largest number of points in a scatter plot


@dataclass(frozen=True)
class Figure:
    """A figure: its title, its finding in a sentence (label), and how to read it (note)."""

    name: str
    title: str
    label: str
    note: str
    spec: dict[str, Any]
    rows: dict[str, list[Row]] = field(default_factory=dict)


def _spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The specification of a chart without the schema's address and the default configuration."""
    spec = chart.to_dict(validate=True)
    spec.pop("$schema")
    spec.pop("config")
    return spec


def _wrap() -> alt.Parameter:
    """The parameter of names in several lines; by itself it matches nothing."""
    import altair as alt

    return alt.param(name=WRAP, value="(?!)")


def _y(names: Sequence[str], field: str = "policy") -> alt.Y:
    import altair as alt

    scale = alt.Scale(domain=list(names))
    # Several lines start at the middle of their row: half of the others' height moves them up.
    shifts = [{"test": f"length({LINES}) === {n}", "value": -7 * (n - 1)} for n in range(2, MOST_LINES)]
    offset = {"condition": shifts, "value": 0}
    axis = alt.Axis(labelExpr=LINES, labelLimit=0, labelOffset=offset, ticks=False)
    return alt.Y(f"{field}:N", title=None, sort=None, scale=scale, axis=axis)


def _interval_layers(span: tuple[float, float], y: Any, tooltip: list[Any], title: str) -> list[alt.Chart]:
    """Layers for interval, point and, where refused, the word; the chart supplies the data.

    An interval that goes on beyond the axis has an arrow at its edge.
    """
    import altair as alt

    chart = alt.Chart()
    scale = alt.Scale(domain=[_four(end) for end in span], nice=False, zero=False)
    axis = alt.X("low:Q", title=title, scale=scale, axis=alt.Axis(tickCount=6))
    layers = []
    for level, (shape, color) in MARKS.items():
        of_level = chart.transform_filter(f"isValid(datum.value) && datum.level === '{level}'")
        line = of_level.mark_rule(color=color, strokeWidth=2, clip=True).encode(axis, alt.X2("high:Q"), y)
        point = of_level.mark_point(shape=shape, color=color, fill=color, size=64, opacity=1)
        layers += [line, point.encode(alt.X("value:Q", title=title), y, tooltip=tooltip)]
    for side, arrow, at in (("left", "◂", 0), ("right", "▸", "width")):
        mark = chart.transform_filter(f"datum.{side}").mark_text(
            text=arrow, align=side, color="var(--ink)", fontSize=13
        )
        layers.append(mark.encode(y, x=alt.value(at)))
    refused = chart.transform_filter("datum.refused")
    word = refused.mark_text(align="left", color="var(--refuse)", fontWeight="bold", dx=4)
    return [*layers, word.encode(y, alt.Text("word:N"), x=alt.value(0))]


def _with_arrows(rows: Sequence[Row], span: tuple[float, float]) -> list[Row]:
    """The rows with the sides on which their intervals go on beyond the axis."""
    ends = [(row["low"], row["high"]) for row in rows]
    return [
        row | {"left": low is not None and low < span[0], "right": high is not None and high > span[1]}
        for row, (low, high) in zip(rows, ends, strict=True)
    ]


def _interval_note(rows: Sequence[Row], level: str) -> str:
    """What the marks are, only those that there are."""
    levels = {row["level"] for row in rows if row["value"] is not None}
    notes = [f"Lines: {level} intervals."]
    notes += [{"ok": "Circle: verdict ok.", "caution": "Triangle: caution."}[one] for one in MARKS if one in levels]
    notes += (
        ["Arrow: the interval goes on beyond the axis."] if any(row["left"] or row["right"] for row in rows) else []
    )
    has_truth = any(row.get("truth") is not None and row["value"] is not None for row in rows)
    notes += ["Upright bar: the truth, which no estimate used."] if has_truth else []
    return " ".join(notes)


def _truth(tooltip: list[Any], y: Any = None) -> alt.Chart:
    """Bars at the truths of published policies."""
    import altair as alt

    mark = alt.Chart().transform_filter("isValid(datum.truth) && isValid(datum.value)")
    mark = mark.mark_tick(orient="vertical", thickness=3, color="var(--ink)", clip=True)
    return mark.encode(alt.X("truth:Q"), y, tooltip=tooltip)


def _tooltip(**titles: str) -> list[alt.Tooltip]:
    """Fields by their titles; nominal, so that the page gets the values as they are."""
    import altair as alt

    return [alt.Tooltip(f"{name}:N", title=title) for name, title in titles.items()]


def _level_tooltip(**more: str) -> list[alt.Tooltip]:
    return _tooltip(policy="policy", **more, value="estimate", low="from", high="to")


def level_row(result: ResultRecord, policy: str, truths: Mapping[str, float]) -> Row:
    """Value, interval and verdict of a policy for a figure; no number of a refused one but the truth, in words."""
    truth = _short(truths.get(policy))
    row = {
        "policy": policy,
        "level": result.verdicts[policy].level,
        "refused": policy in result.refused,
        "truth": truth,
    }
    if row["refused"]:
        word = f"✕ {REFUSED}" + ("" if truth is None else f" (truth {truth:.3f})")
        return row | {"value": None, "low": None, "high": None, "word": word}
    summary = result.summary(policy)
    numbers = {"value": summary["estimate"], "low": summary["ci_lower"], "high": summary["ci_upper"]}
    return row | {k: None if math.isnan(v) else _short(v) for k, v in numbers.items()}


def forest(result: ResultRecord, truths: Mapping[str, float]) -> Figure:
    """Published values with their intervals, and the truth where it is known."""
    import altair as alt

    names = list(result.all_policies)
    rows = [level_row(result, policy, truths) for policy in names]
    y, span = _y(names), value_axis.limits(rows)
    rows = _with_arrows(rows, span)
    layers = _interval_layers(span, y, _level_tooltip(), VALUE)
    layers.insert(0, _truth(_tooltip(policy="policy", truth="truth"), y))
    chart = alt.layer(*layers, data=alt.NamedData(name="levels")).add_params(_wrap())
    note = _interval_note(rows, _percent(result))
    return Figure(
        "forest", f"Policy values by {result.name}", _forest_finding(result), note, _spec(chart), {"levels": rows}
    )


def _forest_finding(result: ResultRecord) -> str:
    """Sentences about the published values."""
    published = [name for name in result.all_policies if name not in result.refused]
    sentence = f"{len(published)} of {1 + len(result.policies)} policies have a published value."
    return sentence + (f" Refused: {', '.join(result.refused)}." if result.refused else "")


def _percent(result: ResultRecord) -> str:
    """Confidence level of the intervals."""
    return f"{100 * (1 - result.document['metadata']['alpha']):g} %"


def estimators(results: Sequence[ResultRecord], truths: Mapping[str, float]) -> Figure:
    """Values of every estimator, one panel per policy that any of them publishes."""
    import altair as alt

    names = list(results[0].all_policies)
    rows = [
        level_row(result, policy, truths) | {"estimator": result.name, "at": at}
        for at, policy in enumerate(names)
        for result in results
        if policy in result.all_policies
    ]
    published_rows, notes = _without_empty(rows)
    y, span = _y([result.name for result in results], "estimator"), value_axis.limits(published_rows)
    published_rows = _with_arrows(published_rows, span)
    layers = _interval_layers(span, y, _level_tooltip(estimator="estimator"), VALUE)
    layers.insert(0, _truth(_tooltip(policy="policy", truth="truth"), y))
    panel = alt.layer(*layers, data=alt.NamedData(name="levels"))
    spec = _spec(panel.facet(facet=_panel(), columns=2).resolve_axis(x="independent").add_params(_wrap()))
    note = " ".join([_interval_note(published_rows, _percent(results[0])), *notes])
    n_refused = sum(row["refused"] for row in rows)
    label = f"{len(results)} estimators of {len(names)} policies; {n_refused} of {len(rows)} values are refused."
    return Figure("estimators", "Policy values by every estimator", label, note, spec, {"levels": published_rows})


def _without_empty(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The rows of policies with a value anywhere, and a note that names the others."""
    published = {row["policy"] for row in rows if row["value"] is not None}
    empty = dict.fromkeys(row["policy"] for row in rows if row["policy"] not in published)
    published_rows = [row for row in rows if row["policy"] in published]
    return published_rows, [f"Refused in every case, so not drawn: {', '.join(empty)}."] if empty else []


def _panel() -> alt.Facet:
    """One panel per policy, in declared order."""
    import altair as alt

    header = alt.Header(
        title=None, labelAnchor="start", labelFontWeight="bold", labelLimit=0, labelOrient="top", labelExpr=LINES
    )
    order = alt.EncodingSortField(field="at", op="min", order="ascending")  # the default order is alphabetical
    return alt.Facet("policy:N", sort=order, header=header, title=None)


def sweep(by_coverage: Sequence[tuple[str, ResultRecord]], truths: Mapping[str, float]) -> Figure:
    """Values of one estimator by share of labelled prompts, one panel per policy that is published at any share."""
    import altair as alt

    first = by_coverage[0][1]
    names = list(first.all_policies)
    rows = [
        level_row(result, policy, truths) | {"coverage": coverage, "at": at}
        for at, policy in enumerate(names)
        for coverage, result in by_coverage
        if policy in result.all_policies
    ]
    published_rows, notes = _without_empty(rows)
    order = alt.Scale(domain=[coverage for coverage, _ in by_coverage])
    x = alt.X("coverage:O", title="share of prompts with a label", sort=None, scale=order, axis=alt.Axis(labelAngle=0))
    chart, span = alt.Chart(), value_axis.limits(published_rows)
    scale = alt.Scale(domain=[_four(end) for end in span], nice=False, zero=False)
    axis = alt.Y("low:Q", title="policy value", scale=scale, axis=alt.Axis(tickCount=4))
    layers = []
    for level, (shape, color) in MARKS.items():
        of_level = chart.transform_filter(f"isValid(datum.value) && datum.level === '{level}'")
        layers.append(of_level.mark_rule(color=color, strokeWidth=2, clip=True).encode(x, axis, alt.Y2("high:Q")))
        point = of_level.mark_point(shape=shape, color=color, fill=color, size=50, opacity=1)
        layers.append(point.encode(x, alt.Y("value:Q"), tooltip=_level_tooltip(coverage="coverage")))
    refused = chart.transform_filter("datum.refused")
    refused = refused.mark_text(text="✕", color="var(--refuse)", fontSize=13, baseline="bottom")
    layers.append(refused.encode(x, y=alt.value(140)))
    if any(row["truth"] is not None for row in published_rows):
        rule = chart.transform_filter("isValid(datum.truth)").mark_rule(color="var(--ink)", clip=True)
        layers.insert(0, rule.encode(alt.Y("truth:Q")))
        notes.insert(0, "Level line: the truth.")
    panel = alt.layer(*layers, data=alt.NamedData(name="levels")).properties(height=140)
    spec = _spec(panel.facet(facet=_panel(), columns=3).resolve_axis(x="independent").add_params(_wrap()))
    levels = {row["level"] for row in published_rows if row["value"] is not None}
    marks = [{"ok": "Circle: verdict ok.", "caution": "Triangle: caution."}[one] for one in MARKS if one in levels]
    marks += [f"✕: {REFUSED} at that share."] if any(row["refused"] for row in published_rows) else []
    note = " ".join([f"Lines: {_percent(first)} intervals.", *marks, *notes])
    label = (
        f"{first.name} at {len(by_coverage)} shares of labelled prompts, {by_coverage[0][0]} to {by_coverage[-1][0]}."
    )
    return Figure("sweep", f"{first.name} by share of labelled prompts", label, note, spec, {"levels": published_rows})


def weights(policies: Sequence[str], ratio: np.ndarray, log_mean: np.ndarray) -> Figure | None:
    """Histograms of the raw mean-one weights of all rows, one panel per policy with weights; None without any."""
    import altair as alt

    log_weights = {policy: _log_weights(ratio[:, k], log_mean[k]) for k, policy in enumerate(policies)}
    log_weights = {policy: one for policy, one in log_weights.items() if len(one)}
    if not log_weights:
        return None
    rows = [
        {"policy": policy, "at": at, "low": _four(10**low), "high": _four(10**high), "n": n}
        | {"share": n / len(log_weights[policy]), "range": f"{10**low:.3g} to {10**high:.3g}"}
        for at, (policy, bins) in enumerate(zip(log_weights, weight_bins(list(log_weights.values())), strict=True))
        for low, high, n in bins
    ]
    span = [min(0.3, *(row["low"] for row in rows)), max(3.0, *(row["high"] for row in rows))]
    chart = alt.Chart()
    axis = alt.X("low:Q", title=WEIGHT, scale=alt.Scale(type="log", domain=span, nice=False), axis=_powers())
    tooltip = _tooltip(policy="policy", range="weight", n="responses")
    share_axis = alt.Y("share:Q", title="share of responses", axis=alt.Axis(tickCount=3, format="%"))
    bars = chart.mark_bar(color="var(--bar)", stroke="var(--paper)", strokeWidth=0.5).encode(
        axis, alt.X2("high:Q"), share_axis, alt.Y2Datum(0), tooltip=tooltip
    )
    extreme = [at for at in EXTREME if span[0] < at < span[1]]
    lines = [chart.mark_rule(color="var(--ink)").encode(x=alt.XDatum(1.0))]
    lines += [chart.mark_rule(color="var(--refuse)", strokeDash=[4, 3]).encode(x=alt.XDatum(at)) for at in extreme]
    panel = alt.layer(*lines, bars, data=alt.NamedData(name="bins")).properties(height=90)
    spec = _spec(
        panel.facet(facet=_panel(), columns=3)
        .resolve_scale(y="independent")
        .resolve_axis(x="independent")
        .add_params(_wrap())
    )
    label = " ".join(_weights_finding(policy, one) for policy, one in log_weights.items())
    without = [policy for policy in policies if policy not in log_weights]
    note = "Solid line: weight 1. A policy equal to the base has only weights of 1; the more they differ, the smaller the ESS."
    note += f" Dashed: {' and '.join(f'{at:g}' for at in extreme)}." if extreme else ""
    note += f" The first bar also has all weights below {10.0**LOWEST:f} and zeros." if span[0] < 10.0**LOWEST else ""
    note += f" The last bar also has all weights above {10.0**HIGHEST:,.0f}." if span[1] > 10.0**HIGHEST else ""
    note += f" Without weights: {', '.join(without)}." if without else ""
    return Figure("weights", "Importance weights of the logged responses", label, note, spec, {"bins": rows})


def _log_weights(log_ratio: np.ndarray, log_mean: float) -> np.ndarray:
    """Logarithms of the mean-one weights of the scored rows; empty where there are none."""
    return log_ratio[~np.isnan(log_ratio)] - log_mean if not math.isnan(log_mean) else np.empty(0)


def _powers() -> alt.Axis:
    """A logarithmic axis of weights."""
    import altair as alt

    return alt.Axis(format="~g", tickCount=4, grid=False, labelOverlap="greedy", labelFlush=False)


def _short(value: float | None) -> float | None:
    """The value with five decimals, None if it is missing."""
    return None if value is None else round(value, 5)


def _four(value: float) -> float:
    """The value with four significant digits."""
    return float(f"{value:.4g}")


def _weights_finding(policy: str, log_weights: np.ndarray) -> str:
    """A sentence about the weights of a policy."""
    weight = np.exp(log_weights)
    share = weight.sum() ** 2 / (len(weight) * np.sum(weight**2))
    return f"{policy}: raw ESS {100 * share:.1f} %, largest weight {weight.max():.3g}."


def scatter() -> Figure:
    """Weight against judge score, one point per row; the page adds the rows of the selected policy."""
    import altair as alt

    tooltip = _tooltip(id="prompt", x="judge score", w="weight")
    # The page sets the range with the policy.
    span = alt.Scale(type="log", domain=[alt.ExprRef("lowest"), alt.ExprRef("highest")])
    y = alt.Y("y:Q", title=WEIGHT, scale=span, axis=_powers())
    spec = _points(alt.X("x:Q", title="judge score", scale=alt.Scale(domain=[0, 1])), y, tooltip)
    note = "A point is a logged response; filled: with an oracle label. Click a point to see its texts."
    label = "Raw weight against judge score, a point for each logged response, for the policy chosen above."
    return Figure("scatter", "Weight and judge score of each response", label, note, spec, {"points": []})


def _points(x: Any, y: Any, tooltip: list[Any], *below: Any) -> dict[str, Any]:
    """Clickable points with a ring around the chosen one; `k` is the index of a row in the page."""
    import altair as alt

    rows = alt.Chart(alt.NamedData(name="points"))
    plain = rows.transform_filter("!datum.labelled").mark_point(color="var(--muted)", size=26, opacity=0.6)
    filled = rows.transform_filter("datum.labelled").mark_point(
        color="var(--accent)", fill="var(--accent)", size=30, opacity=0.6
    )
    ring = rows.transform_filter("datum.k === chosen").mark_point(
        color="var(--ring)", size=220, strokeWidth=3, opacity=1
    )
    layers = [mark.encode(x, y, tooltip=tooltip) for mark in (plain, filled)]
    params = [alt.param(name=name, value=value) for name, value in (("chosen", -1), ("lowest", 0.1), ("highest", 10))]
    return _spec(alt.layer(*below, *layers, ring.encode(x, y)).add_params(*params).properties(height=300))


def calibration(result: ResultRecord, labelled: Sequence[Response]) -> Figure:
    """Oracle label against judge score: labelled rows, means of groups of similar score, and the fitted curve."""
    import altair as alt

    fitted = result.document["calibration"]
    curve = [
        {"x": _four(knot), "y": _four(value)} for knot, value in zip(fitted["knots"], fitted["values"], strict=True)
    ]
    bins = reliability(np.array([r.judge_score for r in labelled]), np.array([r.oracle_label for r in labelled]))
    groups = [
        {
            "x": _four(group.score),
            "y": _four(group.label),
            "low": _four(group.low),
            "high": _four(group.high),
            "n": group.n,
        }
        for group in bins
    ]
    x = alt.X("x:Q", title="judge score", scale=alt.Scale(domain=[0, 1]))
    y = alt.Y("y:Q", title="oracle label", scale=alt.Scale(domain=[0, 1]))
    line = alt.Chart(alt.NamedData(name="curve")).mark_line(color="var(--accent)", strokeWidth=3)
    means = alt.Chart(alt.NamedData(name="groups"))
    bars = means.mark_rule(color="var(--mark)", strokeWidth=2).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"))
    tooltip = _tooltip(x="mean judge score", y="mean oracle label", low="from", high="to", n="labels")
    diamonds = means.mark_point(
        shape="diamond", color="var(--mark)", fill="var(--paper)", size=130, strokeWidth=2, opacity=1
    ).encode(x, y, tooltip=tooltip)
    of_points = _tooltip(id="prompt", x="judge score", y="label")
    spec = _points(x, y, of_points, line.encode(x, y), bars, diamonds)
    rank = fitted["spearman"]
    label = f"{len(labelled)} labelled responses, oracle label by judge score"
    label += f"; Spearman's rank correlation is {rank:.2f}." if rank is not None else "."
    if curve:
        label += f" The expected label rises from {fitted['f_min']:.2f} to {fitted['f_max']:.2f}."
    note = "Dots: labelled responses. Line: calibration, the label that is expected at a judge score. "
    note += "Diamonds: mean label of responses with similar scores, with 95 % intervals. Click a dot to see its texts."
    if not curve:
        note = note.replace(
            "Line: calibration, the label that is expected at a judge score. ", "No line: nothing was calibrated. "
        )
    return Figure(
        "calibration",
        "Oracle label by judge score, and the calibration",
        label,
        note,
        spec,
        {"curve": curve, "groups": groups},
    )


def differences(result: ResultRecord) -> Figure | None:
    """Difference of each policy to the one that the decision compares with, corrected intervals; None if there is none."""
    import altair as alt

    decision = result.decision
    entries, against = decision.get("policies", {}), decision.get("against", result.base_policy)
    rows = []
    for policy, entry in entries.items():
        if entry["difference"] is None:
            continue
        low, high = entry["corrected_interval"]
        numbers = {"value": entry["difference"], "low": low, "high": high}
        numbers = {name: _short(value) for name, value in numbers.items()}
        rows.append({"policy": policy, "judge_only": entry["judge_only"], "level": "ok"} | numbers)
    refused = [policy for policy, entry in entries.items() if entry["difference"] is None]
    if not rows:
        return None
    y, span = _y([row["policy"] for row in rows]), value_axis.limits([*rows, {"value": 0.0}], least_span=0.0)
    layers = _interval_layers(span, y, _level_tooltip(), f"value minus that of {against}")
    rows = _with_arrows(rows, span)
    hollow = alt.Chart().transform_filter("datum.judge_only")
    hollow = hollow.mark_point(color="var(--accent)", fill="var(--paper)", size=64, opacity=1)
    layers.append(hollow.encode(alt.X("value:Q"), y, tooltip=_level_tooltip()))
    zero = alt.Chart().mark_rule(color="var(--ink)").encode(x=alt.XDatum(0))
    chart = alt.layer(zero, *layers, data=alt.NamedData(name="levels")).add_params(_wrap())
    label = f"Differences to {against} by {result.name}. {decision.get('headline', '')}".strip()
    many = f" that are corrected for {decision.get('n_differences', 0)} comparisons" if len(rows) > 1 else ""
    note = f"Points: paired differences. Lines: {_percent(result)} intervals{many}."
    note += " Hollow: based on judge scores alone." if any(row["judge_only"] for row in rows) else ""
    note += f" Not compared, since refused: {', '.join(refused)}." if refused else ""
    return Figure(
        "differences", f"Difference to {against} by {result.name}", label, note, _spec(chart), {"levels": rows}
    )
