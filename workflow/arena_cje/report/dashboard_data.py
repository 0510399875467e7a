"""Sentences and tables of the dashboard, as records for the template.

The text of a cell never holds the value of a refused policy: it is "refused", and the computed number is in `withheld`,
which the page hides in a section with a warning. A missing number is a dash, not a zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arena_cje.errors import UserError
from arena_cje.estimation.decision import words
from arena_cje.estimation.records import LEVELS
from arena_cje.report import comparisons as pairwise

if TYPE_CHECKING:
    from arena_cje.data.rows import Response
    from arena_cje.files import Row
    from arena_cje.results.recommendation import Recommendation
    from arena_cje.results.record import ResultRecord

MISSING = "–"
WORDS = {"ok": "ok", "caution": "caution", "refuse": "refused"}


@dataclass(frozen=True)
class Cell:
    """Text of a cell; with a level it is a badge; `withheld` is a computed number that is not published."""

    text: str
    level: str = ""
    withheld: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first cell of a row is its heading."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Card:
    """A policy in the overview."""

    policy: str
    role: str
    level: Cell
    value: Cell
    reasons: tuple[tuple[str, str], ...]  # (level, sentence), worst first
    remedies: tuple[str, ...]  # what would lift the level of its verdict


def number(value: Any, form: str = ".3f") -> Cell:
    """A number as a cell, a dash if it is missing; results files hold an infinite number as text."""
    value = float(value) if isinstance(value, str) else value
    if value is None or math.isnan(value):
        return Cell(MISSING, numeric=True)
    return Cell(format(value, form) if math.isfinite(value) else f"{'-' if value < 0 else ''}∞", numeric=True)


def text(value: Any) -> Cell:
    """A text as a cell, a dash if it is missing."""
    return Cell(MISSING if value is None else str(value))


def badge(level: str) -> Cell:
    """The level of a verdict as a cell."""
    return Cell(WORDS[level], level=level)


def interval(low: float | None, high: float | None, form: str = ".3f") -> str:
    """Text of an interval."""
    return f"[{number(low, form).text}, {number(high, form).text}]"


def value(result: ResultRecord, policy: str) -> Cell:
    """Estimate and interval of a policy as a cell, "refused" if it is refused."""
    summary = result.summary(policy)
    content = f"{number(summary['estimate']).text} {interval(summary['ci_lower'], summary['ci_upper'])}"
    if policy in result.refused:
        if math.isnan(summary["estimate"]):
            return Cell("refused")  # nothing could be computed
        return Cell("refused", withheld=f"{content}, standard error {number(summary['se']).text}")
    return Cell(content, numeric=True)


# Overview


def subtitle(result: ResultRecord) -> str:
    """One sentence about the analysed data."""
    meta = result.document["metadata"]
    sentence = f"{meta['n_samples']} logged responses of {result.base_policy} to {meta['n_prompts']} prompts, "
    sentence += f"{meta['n_oracle']} of them labelled by the oracle ({meta['n_oracle'] / meta['n_samples']:.1%})"
    if meta["n_oracle"] < meta["n_labels_wanted"]:
        sentence += f", {meta['n_labels_wanted']} were asked for"
    return f"{sentence}; {len(result.policies)} target policies; estimator {result.name}."


def cards(result: ResultRecord) -> list[Card]:
    """Verdict, reasons and remedies of every policy; of a refused policy only the reasons that refuse it."""
    policy_cards = []
    for policy, verdict in result.verdicts.items():
        reasons = [r for r in verdict.reasons if verdict.ok or r.level == "refuse"]
        reasons.sort(key=lambda reason: -LEVELS.index(reason.level))
        sentences = tuple((reason.level, reason.sentence) for reason in reasons)
        role = "base policy, logged" if policy == result.base_policy else "target policy"
        remedies = tuple(result.remedies(policy))
        policy_cards.append(Card(policy, role, badge(verdict.level), value(result, policy), sentences, remedies))
    return policy_cards


DECISION_LEVELS = {"not_yet_known": "caution", "refused": "refuse", "worse": "refuse"}  # the others are ok


def lead(result: ResultRecord, recommendation: Recommendation) -> list[str]:
    """The headline of the decision, and why this estimator is the one to look at."""
    headline = result.decision.get("headline", "The results file is of an earlier version and has no decision.")
    return [headline, recommendation.reason]


def looks(account: Mapping[str, Any] | None) -> list[str]:
    """What the planned looks up to this coverage say; nothing where none are planned."""
    if account is None:
        return []
    remark = f"These intervals hold over all looks of {account['estimator']}; those below are of this coverage alone."
    return [f"{account['sentence']} {remark}" if "decision" in account else account["sentence"]]


def decision(result: ResultRecord) -> Table:
    """What is decided about each policy, with the difference and what is missing."""
    record = result.decision
    if not record:
        return Table("Decision", ("policy",), ())
    rows = []
    for policy, entry in record["policies"].items():
        low, high = entry["corrected_interval"]
        status = Cell(words(entry["status"], record["margin"]), level=DECISION_LEVELS.get(entry["status"], "ok"))
        limits = Cell(interval(low, high, "+.3f") if low is not None else MISSING, numeric=True)
        difference = number(entry["difference"], "+.3f").text + (" (judge alone)" if entry["judge_only"] else "")
        rows.append((text(policy), status, Cell(difference, numeric=True), limits, Cell(entry["sentence"])))
    columns = ("policy", "decision", f"minus {record['against']}", "corrected interval", "in words")
    transport = "Transport is assumed, so that differences which rest on the judge alone decide, too."
    note = (
        f"{percent(result)} intervals of paired differences, corrected for {comparison_count(record['n_differences'])}: all of "
        f"them hold at once. Margin: {record['margin']:g}, a difference that does not matter. "
        f"{transport if record['assume_transport'] else ''}"
    )
    return Table(f"Decision against {record['against']} by {result.name}", columns, tuple(rows), note.strip())


def percent(result: ResultRecord) -> str:
    """Confidence level of the intervals."""
    return f"{100 * (1 - result.document['metadata']['alpha']):g} %"


def comparison_count(count: int) -> str:
    """The number of comparisons in words."""
    return "the one comparison" if count == 1 else f"{count} comparisons"


def p_value(p: float | None, equals: str = "") -> str:
    """Text of a p-value: without a leading zero, and a bound below .001."""
    return MISSING if p is None else "< .001" if p < 0.001 else equals + f"{p:.3f}".removeprefix("0")


# Estimates


def estimates(results: Sequence[ResultRecord], validation: Sequence[Row]) -> Table:
    """Estimates of every policy by every estimator, with the truth where it is known."""
    validation_rows = {(row["estimator"], row["policy"]): row for row in validation}
    columns = ["policy", "estimator", "verdict", "estimate", "standard error", "interval", "df", "rows used"]
    columns += ["truth", "absolute error", "interval holds truth"] if validation else []
    rows = [
        _estimate_row(result, policy, validation_rows.get((result.name, policy), {}), bool(validation))
        for policy in results[0].all_policies
        for result in results
        if policy in result.all_policies
    ]
    return Table("Estimates of every policy by every estimator at this coverage", tuple(columns), tuple(rows))


def _estimate_row(result: ResultRecord, policy: str, truth: Row, validated: bool) -> tuple[Cell, ...]:
    """Cells of a policy by an estimator; truth: its row of validation.csv."""
    summary = result.summary(policy)
    value_cell = value(result, policy)
    numbers = [number(summary["estimate"]), number(summary["se"])]
    numbers.append(Cell(interval(summary["ci_lower"], summary["ci_upper"]), numeric=True))
    if policy in result.refused:
        numbers = [value_cell, Cell(MISSING), Cell(MISSING)]
    cells = [text(policy), text(result.name), badge(result.verdicts[policy].level), *numbers]
    cells += [number(summary["df"], ".0f"), number(result.document["n_used"][policy], "d")]
    if validated:
        covered = {True: "yes", False: "no", None: MISSING}[truth.get("covered")]
        cells += [number(truth.get("truth")), number(truth.get("absolute_error")), Cell(covered)]
    return tuple(cells)


def over_coverages(by_coverage: Sequence[tuple[str, ResultRecord]]) -> Table:
    """Estimates of one estimator at every available coverage."""
    coverages = tuple(f"coverage {coverage}" for coverage, _ in by_coverage)
    rows = [
        (
            text(policy),
            *(value(result, policy) if policy in result.all_policies else Cell(MISSING) for _, result in by_coverage),
        )
        for policy in by_coverage[-1][1].all_policies
    ]
    return Table(f"{by_coverage[0][1].name} at each share of labelled prompts", ("policy", *coverages), tuple(rows))


# Weights

WEIGHT_FIGURES = (
    ("n", "rows", "d"),
    ("ess_share", "effective share", ".3f"),
    ("max_weight", "largest", ".3g"),
    ("tail_index", "tail index", ".2f"),
    ("top5_mass", "top 5 %", ".3f"),
    ("n_above_1000", "> 1000", "d"),
    ("n_above_100", "> 100", "d"),
    ("n_below_0_01", "< 0.01", "d"),
    ("n_below_0_001", "< 0.001", "d"),
    ("n_zero", "zero", "d"),
)


def weights(result: ResultRecord) -> Table:
    """Statistics of the raw weights, and effective share and maximum of the weights that the estimator used."""
    columns = ("policy", "verdict", *(title for _, title, _ in WEIGHT_FIGURES), "mean", "used share", "used largest")
    rows = []
    for policy in result.policies:
        diagnostics = result.document["metadata"]["diagnostics"].get(policy, {})
        weights = diagnostics.get("weights") or {}
        raw = weights.get("raw") or {}
        mean = number(weights.get("mean_weight"), ".3g").text
        if weights.get("mean_weight_se") is not None:
            mean += f" ± {number(weights['mean_weight_se'], '.2g').text}"
        rows.append(
            (
                text(policy),
                badge(result.verdicts[policy].level),
                *(number(raw.get(name), form) for name, _, form in WEIGHT_FIGURES),
                Cell(mean, numeric=True),
                number(diagnostics.get("ess")),
                number(diagnostics.get("max_weight"), ".3g"),
            )
        )
    note = (
        "Effective share: (Σw)² / (n Σw²), 1 for equal weights. Overlap is judged by the raw weights alone: those that "
        "the estimator used have the effective share that their cap gives them. Tail index: below 2 the variance of the "
        "weights is infinite, below 1 their mean. Top 5 %: share of the total in the largest weights. Mean: of π′/π₀ "
        "before it is made one, with its standard error; 1 in expectation. A dash: not known, or not used by this "
        "estimator. Verdict: of the estimate, for any reason, not of the weights alone."
    )
    return Table(f"Weights of {len(rows)} target policies in figures", columns, tuple(rows), note)


# Calibration

CALIBRATION_FIGURES = (
    ("mode", "calibrator", "", "how scores become rewards"),
    ("n_labels", "labels", "d", "labelled responses it was fitted to"),
    ("n_folds", "folds", "d", "of cross-fitting"),
    ("spearman", "Spearman", ".2f", "rank correlation of judge score and label"),
    ("rmse", "RMSE", ".3f", "held out: typical distance of reward and label"),
    ("calibration_error", "calibration error", ".3f", "held out: mean gap over groups of like reward"),
    ("within_tenth", "within 0.1", ".2f", "held out: share of rows whose reward is within 0.1 of the label"),
    ("instability", "instability", ".3f", "largest mean change of the rewards when one fold is left out"),
    ("f_min", "lowest reward", ".3f", ""),
    ("f_max", "highest reward", ".3f", ""),
    ("score_min", "lowest labelled score", ".3f", ""),
    ("score_max", "highest labelled score", ".3f", ""),
)


def calibration(result: ResultRecord) -> Table:
    """Statistics and warnings of the calibration."""
    record = result.document["calibration"]
    rows = [
        (Cell(title), number(record.get(name), form) if form else text(record.get(name)), Cell(meaning))
        for name, title, form, meaning in CALIBRATION_FIGURES
    ]
    warnings = ", ".join(record["reasons"]).replace("_", " ")
    return Table(
        "The calibrator in figures", ("figure", "value", "meaning"), tuple(rows), f"Warnings: {warnings or 'none'}."
    )


def support(result: ResultRecord) -> Table:
    """Support of each policy by labels, and its transport audit."""
    columns = (
        "policy",
        "verdict",
        "effective labels",
        "of all labels",
        "outside labelled scores",
        "affinity",
        "transport",
    )
    rows = []
    for policy in result.all_policies:
        diagnostics = result.document["metadata"]["diagnostics"].get(policy, {})
        rows.append(
            (
                text(policy),
                badge(result.verdicts[policy].level),
                number(diagnostics.get("effective_labels"), ".1f"),
                number(diagnostics.get("label_share"), ".3f"),
                number(diagnostics.get("unsupported_share"), ".3f"),
                number(diagnostics.get("judge_affinity"), ".3f"),
                Cell(_transport(diagnostics.get("transport"))),
            )
        )
    note = "Effective labels: how many of the labels stand at scores where this policy's responses are. Affinity: 1 where its "
    note += (
        "scores are distributed like the logged ones. Transport: labels of its own responses against the calibration."
    )
    return Table("What labels say about each policy", columns, tuple(rows), note)


def _transport(audit: Mapping[str, Any] | None) -> str:
    """Text of a transport audit."""
    if not audit:
        return MISSING
    status = str(audit["status"]).replace("_", " ").lower()
    if audit["delta"] is None:
        return status
    return f"{status}: {audit['delta']:+.3f} {interval(*audit['interval'], '+.3f')} by {audit['n_labels']} labels"


# Comparisons


def comparisons(result: ResultRecord) -> Table:
    """Differences of all pairs of policies; a pair with a refused policy has no numbers."""
    columns = ("pair", "difference", "corrected interval", "standard error", "p (corrected)", "remark")
    try:
        pairs = pairwise.pairs(result)
    except UserError as error:
        return Table("Paired differences", columns, (), f"Not at hand: {error}.")
    rows = []
    for pair in pairs:
        low, high = pair["corrected_lower"], pair["corrected_upper"]
        rows.append(
            (
                Cell(f"{pair['first']} minus {pair['second']}"),
                number(pair["difference"], "+.3f"),
                Cell(interval(low, high, "+.3f") if low is not None else MISSING, numeric=True),
                number(pair["se"]),
                Cell(p_value(pair["p_corrected"]), numeric=True),
                Cell(_remark(pair)),
            )
        )
    against = result.decision.get("against", result.base_policy)
    tested = [pair for pair in pairs if pair["p_value"] is not None]
    of_decision = sum(against in (pair["first"], pair["second"]) for pair in tested)
    rest = len(tested) - of_decision
    note = (
        f"Paired over prompts and labels by {result.name}. {len(tested)} of {len(pairs)} differences are tested. "
        f"Intervals and p are corrected for {comparison_count(of_decision)} with {against}"
        + (f", and for {comparison_count(rest)} of the others" if rest else "")
        + ". Raw p-values, and those by Holm and by Benjamini and Hochberg, are in comparisons.csv."
    )
    sentences = " ".join((note, pairwise.top(result, pairs).says))
    return Table("Paired differences of all policies", columns, tuple(rows), sentences)


def _remark(pair: Row) -> str:
    """What there is to say about a pair."""
    if pair["difference"] is None:
        return f"refused: {', '.join(pair['refused'])}" if pair["refused"] else "cannot be computed"
    caution = "caution: rests on the judge alone" if pair["judge_only"] else ""
    return ", ".join(filter(None, ("told apart" if pair["apart"] else "not told apart", caution)))


# Data


def rows_read(result: ResultRecord, summary: Mapping[str, Any]) -> Table:
    """Counts of rows and labels, and of dropped rows by reason."""
    meta = result.document["metadata"]
    read, analysed = summary or meta["data"], meta["data"]
    counts = [
        ("responses read", read.get("n_responses")),
        ("rows analysed", meta["n_samples"]),
        ("prompts", meta["n_prompts"]),
        ("oracle labels used", meta["n_oracle"]),
        ("oracle labels asked for", meta["n_labels_wanted"]),
        ("oracle labels that there are", meta["n_labels_found"]),
    ]
    dropped = dict(read.get("dropped") or {})
    for reason, count in (analysed.get("dropped") or {}).items():
        dropped.setdefault(reason, count)
    counts += [(f"dropped: {reason}", count) for reason, count in dropped.items()]
    if not dropped:
        counts.append(("dropped", 0))
    for policy, count in (summary.get("not_scored") or {}).items():
        counts.append((f"not scored under {policy}", count))
    for reason, count in (summary.get("finish_reasons") or {}).items():
        counts.append((f"responses that ended by {reason}", count))
    calibration_data = analysed.get("calibration_data")
    if calibration_data:
        counts.append(("further rows for calibration", calibration_data.get("n_rows")))
    rows = tuple((Cell(name), number(count, "d")) for name, count in counts)
    if people := summary.get("people"):
        names = {
            "texts labelled by people": "n_items",
            "their votes": "n_votes",
            "raters": "n_raters",
            "open votes": "n_open",
        }
        rows += tuple((Cell(name), number(people[key], "d")) for name, key in names.items())
        rows += ((Cell("share of the labels' variance that is noise of raters"), number(people["noise_share"], ".0%")),)
    return Table("Rows of the base policy", ("what", "count"), rows)


def rows_used(result: ResultRecord) -> Table:
    """Number of rows that the estimator used, by policy."""
    rows = tuple((text(policy), number(result.document["n_used"][policy], "d")) for policy in result.all_policies)
    return Table(f"Rows that {result.name} used", ("policy", "rows"), rows)


def draws(result: ResultRecord, responses: Mapping[str, Sequence[Response]]) -> Table:
    """Counts of fresh draws by policy: all, unscored, labelled, and of prompts without a logged row."""
    counts = result.document["metadata"]["data"].get("fresh_draws") or {}
    columns = ("policy", "draws", "without a judge score", "labelled", "of prompts not logged")
    rows = []
    for policy in result.policies:
        if policy in responses:
            policy_draws = responses[policy]
            cells = [
                len(policy_draws),
                sum(d.judge_score is None for d in policy_draws),
                sum(d.oracle_label is not None for d in policy_draws),
            ]
            cells.append(counts.get(policy, {}).get("not_logged"))
        else:
            cells = [None] * 4
        rows.append((text(policy), *(number(cell, "d") for cell in cells)))
    note = "" if responses else "No fresh draws were given: only estimators by weights can be run."
    return Table("Fresh draws of the target policies", columns, tuple(rows), note)


# Run


def throughput(benchmarks: Sequence[Row]) -> Table:
    """Time, items and tokens of the jobs of each stage."""
    stages: dict[str, list[Row]] = {}
    for row in benchmarks:
        stages.setdefault(row["stage"], []).append(row)
    costs = any(row.get("cost_usd") is not None for row in benchmarks)
    columns = ["stage", "jobs", "items", "seconds of jobs", "items a second", "prompt tokens", "response tokens"]
    columns += ["CPU seconds", "largest memory, MB"] + (["cost, US$"] if costs else [])
    rows = []
    for stage, jobs in sorted(stages.items()):
        seconds, items = _total(jobs, "s"), _total(jobs, "items")
        memory = max((job["max_rss"] for job in jobs if job.get("max_rss") is not None), default=None)
        cells = [text(stage), number(len(jobs), "d"), number(items, ",.0f"), number(seconds, ",.1f")]
        cells += [number(items / seconds if items is not None and seconds else None, ",.1f")]
        cells += [number(_total(jobs, name), ",.0f") for name in ("prompt_tokens", "response_tokens")]
        cells += [number(_total(jobs, "cpu_time"), ",.1f"), number(memory, ",.0f")]
        rows.append((*cells, number(_total(jobs, "cost_usd"), ",.4f")) if costs else tuple(cells))
    note = (
        "Of the last run of each job: items found in a journal took no time. Jobs ran side by side, so that their sum is "
        "not the time waited."
    )
    note += "" if costs else " No job wrote down a cost."
    note = note if rows else "Nothing was timed."
    return Table("Time, items and tokens of each stage", tuple(columns), tuple(rows), note)


def spending(calls: Sequence[Row]) -> Table:
    """Calls to APIs by stage and model: tokens, and costs where prices are known."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for call in calls:
        groups.setdefault((call["stage"], call["model"]), []).append(call)
    rows = []
    for (stage, model), group in sorted(groups.items()):
        sums = [number(_total(group, name), ",.0f") for name in ("prompt_tokens", "completion_tokens")]
        rows.append((text(stage), text(model), number(len(group), ",d"), *sums, number(_total(group, "usd"), ",.4f")))
    unknown = sum(call["usd"] is None for call in calls)
    note = "Of all runs in this folder, at list prices."
    note += f" The price of {unknown:,} calls is not known, and is in no sum." if unknown else ""
    columns = ("stage", "model", "calls", "tokens read", "tokens written", "spent, US$")
    return Table("Calls to APIs", columns, tuple(rows), note)


def _total(jobs: Sequence[Row], name: str) -> float | None:
    """Sum of the present values of a column; None if there is none."""
    values = [job[name] for job in jobs if job.get(name) is not None]
    return sum(values) if values else None


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as pairs of a dotted name and a text, in their order."""
    if isinstance(value, Mapping) and value:
        return [pair for key, part in value.items() for pair in flat(part, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list | tuple):
        parts = [
            " ".join(f"{key} {part}" for key, part in item.items()) if isinstance(item, Mapping) else str(item)
            for item in value
        ]
        return [(name, ", ".join(parts) or "none")]
    return [(name, "null" if value is None else str(value))]


def settings(caption: str, value: Mapping[str, Any]) -> Table:
    """Nested settings as a table with dotted names."""
    rows = tuple((Cell(name), Cell(content)) for name, content in flat(value)) if value else ()
    return Table(caption, ("name", "value"), rows)
