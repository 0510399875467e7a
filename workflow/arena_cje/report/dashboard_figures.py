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

from arena_cje.report.reliability import reliability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import altair as alt

    from arena_cje.data.rows import Response
    from arena_cje.files import Row
    from arena_cje.results.record import ResultRecord

REFUSED = "refused"
STEP = 30  # pixels per policy
EXTREME = (0.001, 0.01, 100.0, 1000.0)  # weights at which lines are drawn, as in the tables
FLOOR, CEILING = 1e-6, 1e6  # weights beyond are in the first and the last bin
BIN = 0.25  # width of a bin in log10 of the weight
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


def _y(names: Sequence[str], title: str | None = None) -> alt.Y:
    import altair as alt

    scale = alt.Scale(domain=list(names))
    return alt.Y("policy:N", title=title, sort=None, scale=scale, axis=alt.Axis(labelLimit=240, ticks=False))


def _interval_layers(rows: Sequence[Row], y: Any, tooltip: list[Any], title: str) -> list[alt.Chart]:
    """Layers for interval, point and, where refused, the word; the chart supplies the data."""
    import altair as alt

    chart = alt.Chart()
    published, refused = chart.transform_filter("isValid(datum.value)"), chart.transform_filter("datum.refused")
    axis = alt.X("low:Q", title=title, scale=_span(rows), axis=alt.Axis(tickCount=6))
    line = published.mark_rule(color="var(--accent)", strokeWidth=2).encode(axis, alt.X2("high:Q"), y)
    point = published.mark_point(color="var(--accent)", fill="var(--accent)", size=64, opacity=1)
    point = point.encode(alt.X("value:Q", title=title), y, tooltip=tooltip)
    word = refused.mark_text(align="left", text=f"✕ {REFUSED}", color="var(--refuse)", fontWeight="bold", dx=4)
    return [line, point, word.encode(y, x=alt.value(0))]


def _span(rows: Sequence[Row]) -> alt.Scale:
    """A scale over all values, intervals and truths; [0, 1] with a margin if there is none."""
    import altair as alt

    values = [row[name] for row in rows for name in ("value", "low", "high", "truth") if row.get(name) is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.04 * (high - low) or 0.05
    left = 4 * margin if any(row.get("refused") for row in rows) else margin  # room for the word
    return alt.Scale(domain=[_four(low - left), _four(high + margin)], nice=False, zero=False)


def _tooltip(**titles: str) -> list[alt.Tooltip]:
    """Fields by their titles; nominal, so that the page gets the values as they are."""
    import altair as alt

    return [alt.Tooltip(f"{name}:N", title=title) for name, title in titles.items()]


def _level_tooltip(**more: str) -> list[alt.Tooltip]:
    return _tooltip(policy="policy", **more, value="estimate", low="from", high="to")


def level_row(result: ResultRecord, policy: str) -> Row:
    """Value and interval of a policy for a figure; None if it is refused."""
    if policy in result.refused:
        return {"policy": policy, "value": None, "low": None, "high": None, "refused": True}
    summary = result.summary(policy)
    numbers = {"value": summary["estimate"], "low": summary["ci_lower"], "high": summary["ci_upper"]}
    return {"policy": policy, "refused": False} | {k: None if math.isnan(v) else _short(v) for k, v in numbers.items()}


def forest(result: ResultRecord, truths: Mapping[str, float]) -> Figure:
    """Published values with their intervals, and the truth where it is known."""
    import altair as alt

    names = list(result.all_policies)
    rows = [level_row(result, policy) | {"truth": _short(truths.get(policy))} for policy in names]
    y, percent = _y(names), _percent(result)
    layers = _interval_layers(rows, y, _level_tooltip(), "value (mean oracle label)")
    with_truth = [name for name in names if name in truths]
    if with_truth:
        mark = alt.Chart().transform_filter("isValid(datum.truth)")
        mark = mark.mark_point(shape="diamond", size=110, color="var(--second)", strokeWidth=2, opacity=1)
        layers.append(mark.encode(alt.X("truth:Q"), y, tooltip=_tooltip(policy="policy", truth="truth")))
    spec = _spec(alt.layer(*layers, data=alt.NamedData(name="levels")).properties(height=STEP * len(names)))
    note = f"Point and line: estimate and {percent} interval. " + ("Diamond: the truth. " if with_truth else "")
    note += "Refused policies are listed without an estimate." if result.refused else ""
    return Figure("forest", f"Values by {result.name}", _forest_finding(result), note, spec, {"levels": rows})


def _forest_finding(result: ResultRecord) -> str:
    """Sentences about the published values."""
    published = [name for name in result.all_policies if name not in result.refused]
    sentence = f"{len(published)} of {1 + len(result.policies)} policies have a published value."
    return sentence + (f" Refused: {', '.join(result.refused)}." if result.refused else "")


def _percent(result: ResultRecord) -> str:
    """Confidence level of the intervals."""
    return f"{100 * (1 - result.document['metadata']['alpha']):g} %"


def estimators(results: Sequence[ResultRecord], truths: Mapping[str, float]) -> Figure:
    """Values of every estimator, one panel per policy."""
    import altair as alt

    names = list(results[0].all_policies)
    rows = [
        level_row(result, policy) | {"estimator": result.name, "truth": _short(truths.get(policy)), "at": at}
        for at, policy in enumerate(names)
        for result in results
        if policy in result.all_policies
    ]
    scale = alt.Scale(domain=[result.name for result in results])
    y = alt.Y("estimator:N", title=None, sort=None, scale=scale, axis=alt.Axis(labelLimit=150, ticks=False))
    layers = _interval_layers(rows, y, _level_tooltip(estimator="estimator"), "value (mean oracle label)")
    if truths:
        rule = alt.Chart().transform_filter("isValid(datum.truth)")
        layers.insert(0, rule.mark_rule(color="var(--second)", strokeDash=[5, 3]).encode(alt.X("truth:Q")))
    panel = alt.layer(*layers, data=alt.NamedData(name="levels")).properties(height=18 * len(results))
    spec = _spec(panel.facet(facet=_panel(), columns=2))
    note = f"A panel for each policy. Lines: {_percent(results[0])} intervals. "
    note += "Dashed: the truth. " if truths else ""
    n_refused = sum(row["refused"] for row in rows)
    label = f"{len(results)} estimators of {len(names)} policies; {n_refused} of {len(rows)} values are refused."
    return Figure("estimators", "Estimators side by side", label, note, spec, {"levels": rows})


def _panel() -> alt.Facet:
    """One panel per policy, in declared order."""
    import altair as alt

    header = alt.Header(title=None, labelAnchor="start", labelFontWeight="bold", labelLimit=260, labelOrient="top")
    order = alt.EncodingSortField(field="at", op="min", order="ascending")  # the default order is alphabetical
    return alt.Facet("policy:N", sort=order, header=header, title=None)


def sweep(by_coverage: Sequence[tuple[str, ResultRecord]], truths: Mapping[str, float]) -> Figure:
    """Values of one estimator by share of labelled prompts, one panel per policy."""
    import altair as alt

    first = by_coverage[0][1]
    names = list(first.all_policies)
    rows = [
        level_row(result, policy) | {"coverage": coverage, "truth": _short(truths.get(policy)), "at": at}
        for at, policy in enumerate(names)
        for coverage, result in by_coverage
        if policy in result.all_policies
    ]
    order = alt.Scale(domain=[coverage for coverage, _ in by_coverage])
    x = alt.X("coverage:O", title="share of prompts with a label", sort=None, scale=order, axis=alt.Axis(labelAngle=0))
    chart = alt.Chart()
    published = chart.transform_filter("isValid(datum.value)")
    axis = alt.Y("low:Q", title="value", scale=_span(rows), axis=alt.Axis(tickCount=4))
    layers = [
        published.mark_rule(color="var(--accent)", strokeWidth=2).encode(x, axis, alt.Y2("high:Q")),
        published.mark_point(color="var(--accent)", fill="var(--accent)", size=50, opacity=1).encode(
            x, alt.Y("value:Q"), tooltip=_level_tooltip(coverage="coverage")
        ),
        chart.transform_filter("datum.refused")
        .mark_text(text="✕", color="var(--refuse)", fontSize=13, baseline="bottom")
        .encode(x, y=alt.value(140)),
    ]
    if truths:
        rule = chart.transform_filter("isValid(datum.truth)").mark_rule(color="var(--second)", strokeDash=[5, 3])
        layers.insert(0, rule.encode(alt.Y("truth:Q")))
    panel = alt.layer(*layers, data=alt.NamedData(name="levels")).properties(height=140)
    spec = _spec(panel.facet(facet=_panel(), columns=3))
    note = "✕ at the foot: refused at that share. " + ("Dashed: the truth." if truths else "")
    label = (
        f"{first.name} at {len(by_coverage)} shares of labelled prompts, {by_coverage[0][0]} to {by_coverage[-1][0]}."
    )
    return Figure("sweep", f"{first.name} with more labels", label, note, spec, {"levels": rows})


def weights(policies: Sequence[str], ratio: np.ndarray, log_mean: np.ndarray) -> Figure:
    """Histograms of the raw mean-one weights of all rows, one panel per policy."""
    import altair as alt

    rows = [row | {"at": k} for k, policy in enumerate(policies) for row in _bins(policy, ratio[:, k] - log_mean[k])]
    span = [min((row["low"] for row in rows), default=0.1), max((row["high"] for row in rows), default=10)]
    chart = alt.Chart()
    axis = alt.X("low:Q", title="raw weight, mean one", scale=alt.Scale(type="log", domain=span), axis=_powers())
    tooltip = _tooltip(policy="policy", range="weight", n="rows")
    # Square roots, so that bars of single rows are visible next to bars of hundreds.
    rows_axis = alt.Y("n:Q", title="rows", scale=alt.Scale(type="sqrt"), axis=alt.Axis(tickCount=3))
    bars = chart.mark_bar(color="var(--bar)", stroke="var(--paper)", strokeWidth=0.5).encode(
        axis, alt.X2("high:Q"), rows_axis, alt.Y2Datum(0), tooltip=tooltip
    )
    lines = [
        chart.mark_rule(
            color="var(--ink)" if at == 1 else "var(--refuse)", strokeDash=[1, 0] if at == 1 else [4, 3]
        ).encode(x=alt.XDatum(at))
        for at in (*EXTREME, 1.0)
        if span[0] <= at <= span[1]
    ]
    panel = alt.layer(bars, *lines, data=alt.NamedData(name="bins")).properties(height=90)
    spec = _spec(panel.facet(facet=_panel(), columns=3).resolve_scale(y="independent"))
    label = " ".join(_weights_finding(policy, ratio[:, k] - log_mean[k]) for k, policy in enumerate(policies))
    note = (
        "Solid line: weight 1, which every response has under a policy equal to the base. Dashed: 0.001, 0.01, 100 and 1000, "
        f"where in range. Heights are roots of counts. Beyond {FLOOR:g} and {CEILING:g} rows stand in the last bar; zero "
        "weights are in the table."
    )
    return Figure("weights", "Importance weights", label, note, spec, {"bins": rows})


def _powers() -> alt.Axis:
    """A logarithmic axis of weights."""
    import altair as alt

    return alt.Axis(format="~g", tickCount=4, grid=False, labelOverlap="greedy", labelFlush=False)


def _bins(policy: str, log_weight: np.ndarray) -> list[Row]:
    """Counts of rows by bin of weight, for bins with rows."""
    log10 = log_weight[np.isfinite(log_weight)] / math.log(10)
    if not len(log10):
        return [{"policy": policy, "low": 0.5, "high": 2.0, "n": 0, "range": "no weights"}]
    # A weight of 1 up to rounding is in the middle of a bin, not on its edge.
    code = np.floor(np.clip(log10, math.log10(FLOOR), math.log10(CEILING)) / BIN + 0.5).astype(int)
    bins, count = np.unique(code, return_counts=True)
    edges = 10.0 ** ((bins[:, None] + np.array([-0.5, 0.5])) * BIN)
    return [
        {"policy": policy, "low": _four(low), "high": _four(high), "n": int(n), "range": f"{low:.3g} to {high:.3g}"}
        for (low, high), n in zip(edges.tolist(), count, strict=True)
    ]


def _short(value: float | None) -> float | None:
    """The value with five decimals, None if it is missing."""
    return None if value is None else round(value, 5)


def _four(value: float) -> float:
    """The value with four significant digits."""
    return float(f"{value:.4g}")


def _weights_finding(policy: str, log_weight: np.ndarray) -> str:
    """A sentence about the weights of a policy."""
    log_weights = log_weight[~np.isnan(log_weight)]
    if not len(log_weights):
        return f"{policy}: no weights."
    weight = np.exp(log_weights)
    share = weight.sum() ** 2 / (len(weight) * np.sum(weight**2))
    return f"{policy}: raw weights make {share:.1%} of the rows effective, the largest is {weight.max():.3g}."


def scatter() -> Figure:
    """Weight against judge score, one point per row; the page adds the rows of the selected policy."""
    import altair as alt

    tooltip = _tooltip(id="prompt", x="judge score", w="weight")
    # The page sets the range with the policy.
    span = alt.Scale(type="log", domain=[alt.ExprRef("lowest"), alt.ExprRef("highest")])
    y = alt.Y("y:Q", title="raw weight, mean one", scale=span, axis=_powers())
    spec = _points(alt.X("x:Q", title="judge score", scale=alt.Scale(domain=[0, 1])), y, tooltip)
    note = "Filled: labelled by the oracle. Click a point to open its item."
    label = "Raw weight against judge score, a point for each row of the policy chosen above."
    return Figure("scatter", "Weight and judge score, row by row", label, note, spec, {"points": []})


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
    line = alt.Chart(alt.NamedData(name="curve")).mark_line(color="var(--ink)", strokeWidth=2.5)
    means = alt.Chart(alt.NamedData(name="groups"))
    bars = means.mark_rule(color="var(--second)", strokeWidth=2).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"))
    tooltip = _tooltip(x="mean judge score", y="mean oracle label", low="from", high="to", n="rows")
    squares = means.mark_point(
        shape="square", color="var(--second)", fill="var(--paper)", size=70, strokeWidth=2, opacity=1
    ).encode(x, y, tooltip=tooltip)
    of_points = _tooltip(id="prompt", x="judge score", y="label")
    spec = _points(x, y, of_points, line.encode(x, y), bars, squares)
    rank = fitted["spearman"]
    label = f"{len(labelled)} labelled rows, judge score against oracle label"
    label += f"; Spearman's rank correlation is {rank:.2f}." if rank is not None else "."
    if curve:
        label += f" The fitted reward rises from {fitted['f_min']:.2f} to {fitted['f_max']:.2f}."
    note = "Line: the fitted reward. Squares: mean label of rows of like score, with 95 % intervals. "
    note += "Click a point to open its item."
    if not curve:
        note += " No curve: without labels, or with judge scores taken as they are, nothing is fitted."
    return Figure("calibration", "Judge against oracle", label, note, spec, {"curve": curve, "groups": groups})


def differences(result: ResultRecord) -> Figure:
    """Difference of each policy to the one that the decision compares with, with corrected intervals."""
    import altair as alt

    decision = result.decision
    entries, against = decision.get("policies", {}), decision.get("against", result.base_policy)
    rows = []
    for policy, entry in entries.items():
        low, high = entry["corrected_interval"]
        numbers = {"value": entry["difference"], "low": low, "high": high}
        numbers = {name: _short(value) for name, value in numbers.items()}
        judge_only = entry["judge_only"]
        rows.append({"policy": policy, "refused": entry["difference"] is None, "judge_only": judge_only} | numbers)
    title, y = f"value minus {against}", _y(list(entries))
    layers = _interval_layers([*rows, {"value": 0.0}], y, _level_tooltip(), title)
    hollow = alt.Chart().transform_filter("datum.judge_only")
    hollow = hollow.mark_point(color="var(--accent)", fill="var(--paper)", size=64, opacity=1)
    layers.append(hollow.encode(alt.X("value:Q"), y, tooltip=_level_tooltip()))
    zero = alt.Chart().mark_rule(color="var(--ink)").encode(x=alt.XDatum(0))
    chart = alt.layer(zero, *layers, data=alt.NamedData(name="levels"))
    spec = _spec(chart.properties(height=STEP * max(len(entries), 1)))
    label = f"Differences to {against} by {result.name}. {decision.get('headline', '')}".strip()
    count = decision.get("n_differences", 0)
    note = f"Points and {_percent(result)} intervals of paired differences, corrected for the number of differences, {count}."
    note += " Hollow: the difference rests on the judge alone." if any(row["judge_only"] for row in rows) else ""
    return Figure("differences", f"Minus {against}", label, note, spec, {"levels": rows})
