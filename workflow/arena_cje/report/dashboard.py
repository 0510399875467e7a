"""The dashboard: one HTML file with everything in it, for a browser that reaches nothing.

    records -> tables and sentences (dashboard_data), figures (dashboard_figures), items (dashboard_items) -> one text

Tables are in the page as it is written; figures and the item browser are drawn in it by Vega, which is bundled once. All
text of models, users and configuration is data: the template escapes it, the payload is JSON without a character that
could end it, the script writes text and no markup, and no Vega expression is made from it. The page allows no request,
and no script but its own, by their hashes.
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
from arena_cje.report.dashboard_items import embedded, items, usable, weights_of, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.data.rows import Response
    from arena_cje.files import Row
    from arena_cje.results.record import ResultRecord

FOLDER = Path(__file__).parent
TEMPLATE, STYLE, SCRIPT = "dashboard.html.j2", "dashboard.css", "dashboard.js"


def render(
    results: Sequence[ResultRecord],
    *,
    logged: Sequence[Response] = (),
    draws: Mapping[str, Sequence[Response]] | None = None,
    summary: Mapping[str, Any] | None = None,
    others: Sequence[tuple[str, ResultRecord]] = (),
    validation: Sequence[Row] = (),
    benchmarks: Sequence[Row] = (),
    spending: Sequence[Row] = (),
    configuration: Mapping[str, Any] | None = None,
    coverage: str | None = None,
) -> str:
    """The page. results: those of one coverage, the first one in focus.

    logged: the rows they were computed from; draws: fresh draws by policy; summary: that of the data set; others: results
    at other coverages; validation: rows of validation.csv; benchmarks: rows of `read_benchmarks`; spending: calls to APIs
    that were paid for; configuration: settings to show. What is not given is said to be missing.
    """
    first, draws, summary = results[0], draws or {}, summary or {}
    coverage = coverage or str(first.document["metadata"]["oracle_coverage"])
    truths = {row["policy"]: row["truth"] for row in validation if row.get("truth") is not None}
    rows = usable(first, logged) if logged else []
    same = [(at, other) for at, other in others if other.name == first.name]
    swept = sorted([*same, (coverage, first)], key=lambda pair: float(pair[0]))
    drawn = _figures(results, rows, swept, truths)
    payload = {
        "figures": [{"name": f.name, "spec": f.spec, "rows": f.rows} for f in drawn.values()],
        "items": items(first, logged, draws) if rows else None,
        "base": first.base_policy,
        "policies": list(first.policies),
        "points": figures.POINTS,
    }
    return _page(
        title=f"Policy values at coverage {coverage}",
        subtitle=data.subtitle(first),
        payload=payload,
        figures=drawn,
        first=first,
        best=data.best(first),
        cards=data.cards(first),
        tables=_tables(results, draws, summary, swept, validation, benchmarks, spending, configuration or {}),
        swept=len(swept),
        n_items=len(rows),
        levels=data.WORDS,
    )


def _figures(
    results: Sequence[ResultRecord],
    rows: Sequence[Response],
    swept: Sequence[tuple[str, ResultRecord]],
    truths: Mapping[str, float],
) -> dict[str, figures.Figure]:
    """All figures that there is something to draw for, by name."""
    first = results[0]
    found = [figures.forest(first, truths), figures.estimators(results, truths), figures.differences(first)]
    if len(swept) > 1:
        found.append(figures.sweep(swept, truths))
    if rows:
        ratio, log_mean = weights_of(rows, first.policies)
        found.append(figures.weights(first.policies, ratio, log_mean))
        found.append(figures.scatter())
    found.append(figures.calibration(first, [row for row in rows if row.oracle_label is not None]))
    return {figure.name: figure for figure in found}


def _tables(
    results: Sequence[ResultRecord],
    draws: Mapping[str, Sequence[Response]],
    summary: Mapping[str, Any],
    swept: Sequence[tuple[str, ResultRecord]],
    validation: Sequence[Row],
    benchmarks: Sequence[Row],
    spending: Sequence[Row],
    configuration: Mapping[str, Any],
) -> dict[str, data.Table]:
    first = results[0]
    meta = first.document["metadata"]
    analysis = {"seed": meta["seed"], "alpha": meta["alpha"]} | meta["options"]
    return {
        "estimates": data.estimates(results, validation),
        "coverages": data.over_coverages(swept),
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
    """The template filled in; scripts are named in the page's policy by their hashes."""
    import jinja2
    from markupsafe import Markup

    scripts = {"vega": vega(), "own": _asset(SCRIPT)}
    for name, source in {**scripts, "style": _asset(STYLE)}.items():
        if re.search("</script|</style|<!--", source, re.IGNORECASE):
            raise ValueError(f"the page's own {name} holds text that would end it")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    page = environment.get_template(TEMPLATE).render(
        **content,
        payload=Markup(embedded(payload)),
        style=Markup(_asset(STYLE)),
        scripts={name: Markup(source) for name, source in scripts.items()},
        hashes=[base64.b64encode(sha256(source.encode()).digest()).decode() for source in scripts.values()],
    )
    return whole(page)


@cache
def vega() -> str:
    """Vega, Vega-Lite and the embedder as one script, without any address to fetch from."""
    import vl_convert

    return vl_convert.javascript_bundle()


@cache
def _asset(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def read_benchmarks(folder: str | Path) -> list[Row]:
    """Rows of the benchmark files below a folder (`{stage}/…/{shard}.tsv`); what is NA is None."""
    folder, found = Path(folder), []
    for path in sorted(folder.rglob("*.tsv")):
        header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        for line in lines:
            numbers = {name: _number(said) for name, said in zip(header.split("\t"), line.split("\t"), strict=False)}
            found.append({"stage": path.relative_to(folder).parts[0]} | numbers)
    return found


def _number(said: str) -> float | None:
    try:
        value = float(said)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
