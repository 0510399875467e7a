"""The decision of a coverage as a part of a page: the headline, and a row per policy with its value and what is decided.

It is the first thing on the page of `snakemake --report`. Names are escaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena_cje.estimation.decision import words
from arena_cje.report.dashboard_data import MISSING, WORDS, lead, percent, value
from arena_cje.report.pages import breakable
from arena_cje.results.recommendation import recommend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena_cje.results.record import ResultRecord


def render(results: Sequence[ResultRecord], coverage: str) -> str:
    """The part as HTML; results: the recommended one first."""
    from markupsafe import Markup

    first = results[0]
    headline, reason = lead(first, recommend(results))
    decided = first.decision.get("policies", {})
    margin, against = first.decision.get("margin", 0.0), first.decision.get("against", first.base_policy)
    titles = ("policy", f"value, {percent(first)} interval", "verdict", f"against {against}")
    rows = [
        (
            policy,
            MISSING if policy in first.refused else value(first, policy).text,
            WORDS[verdict.level],
            words(decided[policy]["status"], margin) if policy in decided else MISSING,
        )
        for policy, verdict in first.verdicts.items()
    ]
    head = Markup("").join(Markup("<th>{}</th>").format(breakable(title)) for title in titles)
    body = Markup("\n").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(breakable(text)) for text in row))
        for row in rows
    )
    part = Markup(
        "<h2>Result at coverage {}</h2>\n<p><strong>{}</strong></p>\n<p>{}</p>\n"
        "<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>\n"
    )
    return str(part.format(coverage, breakable(headline), breakable(reason), head, body))
