"""The dashboard: one self-contained HTML file for a browser without a network.

    records -> tables and sentences (dashboard_data), figures (dashboard_figures), items (dashboard_items) -> one text

Tables are static HTML; the page's script draws the item browser and, with a bundled Vega, the figures. All text of models,
users and configuration is data: the template escapes it, the payload is JSON without a character that could end the script
element, the script writes text and no markup, and no Vega expression contains it. The page's security policy allows no
request, and only its own scripts, by their hashes.
"""

from __future__ import annotations

import base64
import math
import re
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.report import dashboard_data as data
from arena_cje.report import dashboard_figures as figures
from arena_cje.report.dashboard_items import analysed_rows, items, script_json, valid_unicode, weights_of
from arena_cje.report.pages import FOLDER, environment
from arena_cje.results.recommendation import recommend
from arena_cje.results.sentences import judge_sentences

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.data.rows import Response
    from arena_cje.files import Row
    from arena_cje.results.record import ResultRecord

TEMPLATE, SCRIPT = "dashboard.html.j2", "dashboard.js"


def render(
    results: Sequence[ResultRecord],
    *,
    logged: Sequence[Response] = (),
    draws: Mapping[str, Sequence[Response]] | None = None,
    summary: Mapping[str, Any] | None = None,
    others: Sequence[tuple[str, ResultRecord]] = (),
    look: Mapping[str, Any] | None = None,
    validation: Sequence[Row] = (),
    benchmarks: Sequence[Row] = (),
    spending: Sequence[Row] = (),
    configuration: Mapping[str, Any] | None = None,
    coverage: str | None = None,
) -> str:
    """The page as HTML. results: those of one coverage, the recommended one first; the page is about the first one.

    logged: the rows from which they were computed; draws: fresh draws by policy; summary: summary of the data set; others:
    coverages and results at other coverages; look: account of the planned looks up to this coverage; validation: rows of
    validation.csv; benchmarks: rows of `read_benchmarks`; spending: calls to APIs from the ledger; configuration: settings of the
    experiment. The page names what is missing.
    """
    first, draws, summary = results[0], draws or {}, summary or {}
    coverage = coverage or str(first.document["metadata"]["oracle_coverage"])
    truths = {row["policy"]: row["truth"] for row in validation if row.get("truth") is not None}
    rows = analysed_rows(first, logged) if logged else []
    same_estimator = [(at, other) for at, other in others if other.name == first.name]
    by_coverage = sorted([*same_estimator, (coverage, first)], key=lambda pair: float(pair[0]))
    page_figures = _figures(results, rows, by_coverage, truths)
    payload = {
        "figures": [{"name": f.name, "spec": f.spec, "rows": f.rows} for f in page_figures.values()],
        "items": items(first, logged, draws) if rows else None,
        "base": first.base_policy,
        "policies": list(first.policies),
        "points": figures.POINTS,
    }
    return _page(
        title=f"Policy values at coverage {coverage}",
        subtitle=data.subtitle(first, summary),
        payload=payload,
        figures=page_figures,
        first=first,
        lead=data.lead(first, recommend(results)) + data.looks(look),
        cards=data.cards(first),
        judge=judge_sentences(first),
        tables=_tables(results, draws, summary, by_coverage, validation, benchmarks, spending, configuration or {}),
        n_coverages=len(by_coverage),
        n_items=len(rows),
        levels=data.WORDS,
    )


def _figures(
    results: Sequence[ResultRecord],
    rows: Sequence[Response],
    by_coverage: Sequence[tuple[str, ResultRecord]],
    truths: Mapping[str, float],
) -> dict[str, figures.Figure]:
    """All figures that have data, by name."""
    first = results[0]
    drawings = [figures.forest(first, truths), figures.estimators(results, truths), figures.differences(first)]
    if len(by_coverage) > 1:
        drawings.append(figures.sweep(by_coverage, truths))
    if rows:
        ratio, log_mean = weights_of(rows, first.policies)
        histograms = figures.weights(first.policies, ratio, log_mean)
        drawings += [histograms, figures.scatter() if histograms else None]
    drawings.append(figures.calibration(first, [row for row in rows if row.oracle_label is not None]))
    return {figure.name: figure for figure in drawings if figure is not None}


def _tables(
    results: Sequence[ResultRecord],
    draws: Mapping[str, Sequence[Response]],
    summary: Mapping[str, Any],
    by_coverage: Sequence[tuple[str, ResultRecord]],
    validation: Sequence[Row],
    benchmarks: Sequence[Row],
    spending: Sequence[Row],
    configuration: Mapping[str, Any],
) -> dict[str, data.Table]:
    """All tables of the page, by name."""
    first = results[0]
    meta = first.document["metadata"]
    analysis = {"seed": meta["seed"], "alpha": meta["alpha"]} | meta["options"]
    return {
        "decision": data.decision(first),
        "estimates": data.estimates(results, validation),
        "coverages": data.over_coverages(by_coverage),
        "weights": data.weights(first),
        "calibration": data.calibration(first),
        "support": data.support(first),
        "comparisons": data.comparisons(first),
        "rows_read": data.rows_read(first, summary),
        "rows_used": data.rows_used(first),
        "draws": data.draws(first, draws),
        "throughput": data.throughput(benchmarks),
        "spending": data.spending(spending),
        "provenance": data.settings("What the results were made from", first.document.get("provenance") or {}),
        "analysis": data.settings(f"Options of {first.name}", analysis),
        "thresholds": data.settings("Thresholds of the verdicts", meta["thresholds"]),
        "configuration": data.settings("Configuration of the experiment", configuration),
    }


def _page(*, payload: Any, **content: Any) -> str:
    """The template with its content; the page's security policy lists the scripts by their hashes."""
    from markupsafe import Markup

    scripts = {"vega": vega(), "page": _asset(SCRIPT)}
    for name, source in scripts.items():
        if re.search("</script|<!--", source, re.IGNORECASE):
            raise ValueError(f"the page's own {name} holds text that would end it")
    page = (
        environment()
        .get_template(TEMPLATE)
        .render(
            **content,
            payload=Markup(script_json(payload)),
            scripts={name: Markup(source) for name, source in scripts.items()},
            hashes=[base64.b64encode(sha256(source.encode()).digest()).decode() for source in scripts.values()],
        )
    )
    return valid_unicode(page)


@cache
def vega() -> str:
    """Vega, Vega-Lite and the embedder as one script, without an external address."""
    import vl_convert

    return vl_convert.javascript_bundle()


@cache
def _asset(name: str) -> str:
    """Text of a file beside this module."""
    return (FOLDER / name).read_text(encoding="utf-8")


def read_benchmarks(folder: str | Path) -> list[Row]:
    """Rows of the benchmark files below a folder (`{stage}/…/{shard}.tsv`); NA is None."""
    folder, rows = Path(folder), []
    for path in sorted(folder.rglob("*.tsv")):
        header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        for line in lines:
            numbers = {name: _number(text) for name, text in zip(header.split("\t"), line.split("\t"), strict=False)}
            rows.append({"stage": path.relative_to(folder).parts[0]} | numbers)
    return rows


def _number(text: str) -> float | None:
    """A finite number, None for any other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
