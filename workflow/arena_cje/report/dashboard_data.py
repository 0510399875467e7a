"""Sentences and tables of the dashboard, as records for the template.

Every column has a title that stands alone, since a narrow page shows it beside each of its cells.

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
from arena_cje.numbers import decimal
from arena_cje.report import comparisons as pairwise
from arena_cje.results import line_breaks

if TYPE_CHECKING:
    from arena_cje.data.rows import Response
    from arena_cje.files import Row
    from arena_cje.results.recommendation import Recommendation
    from arena_cje.results.record import ResultRecord

MISSING = "–"
LONG = 40  # characters
SHAPES = {"pair": 2, "narrow": 4, "plain": 6, "middle": 9, "wide": 99}  # with the columns that it has room for
LONG_COLUMN = 2  # further columns for which one with long texts counts
WORDS = {"ok": "ok", "caution": "caution", "refuse": "refused"}


@dataclass(frozen=True)
class Cell:
    """Text of a cell; with a level it is a badge; `withheld` is a computed number that is not published."""

    text: str
    level: str = ""
    withheld: str = ""
    numeric: bool = False

    @property
    def long(self) -> bool:
        """Whether the cell needs a line of its own where a row is shown as a block."""
        return len(self.text) > LONG

    @property
    def short(self) -> bool:
        """Whether the cell stays on one line."""
        return len(self.text) <= line_breaks.WIDTH


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first cell of a row is its heading."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    @property
    def shape(self) -> str:
        """A class of the style sheet: how narrow the table can be before its rows become blocks."""
        long = sum(any(len(row[k].text) > line_breaks.WIDTH for row in self.rows) for k in range(len(self.columns)))
        room = len(self.columns) + LONG_COLUMN * long
        return next(shape for shape, columns in SHAPES.items() if room <= columns)


@dataclass(frozen=True)
class Card:
    """A policy in the overview."""

    policy: str
    role: str
    level: Cell
    value: Cell
    decision: str  # sentence about the difference to another policy; empty where there is none to publish
    reasons: tuple[tuple[str, str], ...]  # (level, sentence), worst first
    remedies: tuple[str, ...]  # what would lift the level of its verdict


def number(value: Any, form: str = ".3f") -> Cell:
    """A number as a cell, a dash if it is missing; results files hold an infinite number as text."""
    value = float(value) if isinstance(value, str) else value
    if value is None or math.isnan(value):
        return Cell(MISSING, numeric=True)
    if not math.isfinite(value):
        return Cell(f"{'-' if value < 0 else ''}∞", numeric=True)
    return Cell(decimal(value, form).replace("%", " %"), numeric=True)


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


def subtitle(result: ResultRecord, summary: Mapping[str, Any]) -> str:
    """One sentence about the analysed data; summary: of the data set, empty where it is not known."""
    meta = result.document["metadata"]
    requested = summary.get("n_labels_wanted", meta["n_labels_wanted"])
    sentence = f"{meta['n_samples']} logged responses of {result.base_policy} to {meta['n_prompts']} prompts, "
    sentence += (
        f"{meta['n_oracle']} of them labelled by the oracle ({100 * meta['n_oracle'] / meta['n_samples']:.3g} %)"
    )
    if meta["n_oracle"] < requested:
        sentence += f", of {requested} that the coverage asks for"
    targets = "one target policy" if len(result.policies) == 1 else f"{len(result.policies)} target policies"
    return f"{sentence}; {targets}; estimator {result.name}."


def cards(result: ResultRecord) -> list[Card]:
    """Verdict, reasons and remedies of every policy; of a refused policy only the reasons that refuse it."""
    policy_cards, decided = [], result.decision.get("policies", {})
    for policy, verdict in result.verdicts.items():
        reasons = [r for r in verdict.reasons if verdict.ok or r.level == "refuse"]
        reasons.sort(key=lambda reason: -LEVELS.index(reason.level))
        sentences = tuple((reason.level, reason.sentence) for reason in reasons)
        role = "base policy, logged" if policy == result.base_policy else "target policy"
        remedies = tuple(result.remedies(policy))
        entry = decided.get(policy, {"status": "refused"})  # for a refused policy the reasons and remedies suffice
        sentence = "" if entry["status"] == "refused" and not verdict.ok else entry.get("sentence", "")
        level = badge(verdict.level)
        policy_cards.append(Card(policy, role, level, value(result, policy), sentence, sentences, remedies))
    return policy_cards


DECISION_LEVELS = {"not_yet_known": "caution", "refused": "refuse", "worse": "refuse"}  # the others are ok


def lead(result: ResultRecord, recommendation: Recommendation) -> list[str]:
    """The headline of the decision, and why this estimator is the one to look at."""
    headline = result.decision.get("headline", "The results file is of an earlier version and has no decision.")
    return [headline, recommendation.reason]


def looks(account: Mapping[str, Any] | None) -> list[str]:
    """Sentences about the planned looks up to this coverage; none where none are planned."""
    if account is None:
        return []
    remark = f"These intervals hold over all looks of {account['estimator']}; those below are of this coverage alone."
    return [f"{account['sentence']} {remark}" if "decision" in account else account["sentence"]]


def decision(result: ResultRecord) -> Table:
    """What is decided about each policy, with the difference; the sentences are on the cards of the policies."""
    record = result.decision
    if not record:
        return Table("Decision", ("policy",), ())
    rows = []
    for policy, entry in record["policies"].items():
        low, high = entry["corrected_interval"]
        status = Cell(words(entry["status"], record["margin"]), level=DECISION_LEVELS.get(entry["status"], "ok"))
        limits = Cell(interval(low, high, "+.3f") if low is not None else MISSING, numeric=True)
        basis = MISSING if entry["difference"] is None else "judge scores alone" if entry["judge_only"] else "labels"
        rows.append((text(policy), status, number(entry["difference"], "+.3f"), limits, Cell(basis)))
    against = record["against"]
    columns = ("policy", "decision", f"value minus that of {against}", "corrected interval", "based on")
    note = (
        f"Corrected interval: {percent(result)}, for {comparison_count(record['n_differences'])} at once. Differences of less "
        f"than {record['margin']:g} (the margin) do not matter. "
    )
    if any(entry["judge_only"] for entry in record["policies"].values()):
        note += (
            "Differences based on judge scores alone decide here, since `assume_transport` is set."
            if record["assume_transport"]
            else "A difference based on judge scores alone decides nothing: label some of the policy's own responses."
        )
    return Table(f"Decision against {against} by {result.name}", columns, tuple(rows), note.strip())


def percent(result: ResultRecord) -> str:
    """Confidence level of the intervals."""
    return f"{100 * (1 - result.document['metadata']['alpha']):g} %"


def comparison_count(count: int) -> str:
    """The number of comparisons in words."""
    return "one comparison" if count == 1 else f"{count} comparisons"


def p_value(p: float | None, equals: str = "") -> str:
    """Text of a p-value: without a leading zero, and a bound below .001."""
    return MISSING if p is None else "< .001" if p < 0.001 else equals + f"{p:.3f}".removeprefix("0")


# Estimates


def estimates(results: Sequence[ResultRecord], validation: Sequence[Row]) -> Table:
    """Estimates of every policy by every estimator, with the truth where it is known."""
    validation_rows = {(row["estimator"], row["policy"]): row for row in validation}
    columns = ["policy", "estimator", "verdict", "estimate", "standard error", f"{percent(results[0])} interval"]
    columns += ["truth", "interval covers truth"] if validation else []
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
    if validated:
        covered = {True: "yes", False: "no", None: MISSING}[truth.get("covered")]
        cells += [number(truth.get("truth")), Cell(covered)]
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
    ("n", "responses", "d"),
    ("max_weight", "largest weight", ".3g"),
    ("tail_index", "tail index", ".2f"),
    ("top5_mass", "share of the largest 5 %", ".1%"),
    ("n_above_100", "above 100", "d"),
    ("n_below_0_01", "below 0.01", "d"),
    ("n_zero", "zero", "d"),
)


def weights(result: ResultRecord) -> Table:
    """Statistics and status of the raw weights, and those of the weights that the estimator used."""
    diagnostics, limits = (result.document["metadata"][name] for name in ("diagnostics", "thresholds"))
    raw = {policy: (diagnostics.get(policy, {}).get("weights") or {}).get("raw") for policy in result.policies}
    entries = {policy: diagnostics[policy] for policy in result.policies if raw[policy] and raw[policy]["n"]}
    caption = "Raw importance weights"
    if not entries:
        without = f"The data have no log probabilities, so that there are no weights; {result.name} needs none."
        return Table(caption, ("policy",), (), without)
    is_used = any(entry.get("ess") is not None for entry in entries.values())
    columns = ("policy", "raw ESS", "overlap", *(title for _, title, _ in WEIGHT_FIGURES), "mean before scaling")
    columns += ("ESS as used", "largest as used") if is_used else ()
    rows = []
    for policy, entry in entries.items():
        mean = number(entry["weights"].get("mean_weight"), ".3g").text
        if entry["weights"].get("mean_weight_se") is not None:
            mean += f" ± {number(entry['weights']['mean_weight_se'], '.2g').text}"
        cells = [text(policy), number(raw[policy]["ess_share"], ".1%"), _overlap(raw[policy]["ess_share"], limits)]
        cells += [number(raw[policy].get(name), form) for name, _, form in WEIGHT_FIGURES]
        cells += [Cell(mean, numeric=True)]
        cells += [number(entry.get("ess"), ".1%"), number(entry.get("max_weight"), ".3g")] if is_used else []
        rows.append(tuple(cells))
    note = (
        "ESS: effective sample size, as a share of the responses; 100 % for equal weights. "
        "Overlap: whether the raw ESS suffices for an estimate by weights alone: insufficient below "
        f"{100 * limits['ess_refuse']:g} %, limited below {100 * limits['ess_caution']:g} %. "
        "Tail index: below 2 the weights have no finite variance, below 1 no finite mean. "
        "Mean before scaling: of the ratios of probabilities, 1 in expectation, with its standard error. "
    )
    note += (
        "As used: after capping, which raises the ESS and adds bias."
        if is_used
        else f"{result.name} uses no weights: its verdicts do not depend on this table."
    )
    return Table(caption, columns, tuple(rows), note)


def _overlap(ess_share: float | None, limits: Mapping[str, float]) -> Cell:
    """What the raw ESS allows, with the limits of the verdict."""
    if ess_share is None:
        return Cell("none", level="refuse")
    if ess_share < limits["ess_caution"]:
        is_insufficient = ess_share < limits["ess_refuse"]
        return Cell("insufficient" if is_insufficient else "limited", level="refuse" if is_insufficient else "caution")
    return Cell("ok", level="ok")


# Calibration

CALIBRATION_FIGURES = (
    (
        "mode",
        "calibrator",
        "",
        "monotone: by judge score alone; two_stage: by covariates, too; none: scores as they are",
    ),
    ("n_labels", "labels", "d", "labelled responses that it was fitted to"),
    ("n_folds", "folds", "d", "parts of the data, each scored by a calibrator that did not see it"),
    ("spearman", "rank correlation", ".2f", "Spearman's, of judge score and label"),
    ("rmse", "root mean square error", ".3f", "of the expected label, on labels that were held out"),
    (
        "calibration_error",
        "calibration error",
        ".3f",
        "mean gap of expected and actual labels, on labels that were held out",
    ),
    ("within_tenth", "within 0.1", ".0%", "share of held-out labels that are within 0.1 of the expected label"),
    ("instability", "instability", ".3f", "largest mean change of expected labels when one fold is left out"),
    ("f_min", "lowest expected label", ".3f", "of all judge scores"),
    ("f_max", "highest expected label", ".3f", "of all judge scores"),
    ("score_min", "lowest labelled score", ".3f", "below it the expected label is extrapolated"),
    ("score_max", "highest labelled score", ".3f", "above it the expected label is extrapolated"),
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
        "The calibration in numbers", ("statistic", "value", "meaning"), tuple(rows), f"Warnings: {warnings or 'none'}."
    )


def support(result: ResultRecord) -> Table:
    """Support of each policy by labels, and its transport audit."""
    columns = (
        "policy",
        "verdict",
        "effective labels",
        "share of all labels",
        "responses beyond labelled scores",
        "similarity of scores",
        "transport audit",
    )
    rows = []
    for policy in result.all_policies:
        diagnostics = result.document["metadata"]["diagnostics"].get(policy, {})
        rows.append(
            (
                text(policy),
                badge(result.verdicts[policy].level),
                number(diagnostics.get("effective_labels"), ".1f"),
                number(diagnostics.get("label_share"), ".1%"),
                number(diagnostics.get("unsupported_share"), ".1%"),
                number(diagnostics.get("judge_affinity"), ".2f"),
                Cell(_transport(diagnostics.get("transport"))),
            )
        )
    note = (
        "Effective labels: the number of labels in this policy's score range. Similarity: 1 where its judge scores are "
        "distributed like those of the base policy. Transport audit: whether labels of its own responses agree with the "
        "calibration."
    )
    return Table("Labels behind each policy", columns, tuple(rows), note)


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
    """Differences of all pairs of published policies."""
    columns = ("policy", "minus", "difference", "corrected interval", "corrected p", "significant")
    caption = "Paired differences of all published policies"
    try:
        pairs = pairwise.pairs(result)
    except UserError as error:
        return Table(caption, columns, (), f"Not available: {error}.")
    rows = []
    for pair in pairs:
        if pair["refused"]:
            continue
        low, high = pair["corrected_lower"], pair["corrected_upper"]
        rows.append(
            (
                Cell(pair["first"]),
                Cell(pair["second"]),
                number(pair["difference"], "+.3f"),
                Cell(interval(low, high, "+.3f") if low is not None else MISSING, numeric=True),
                Cell(p_value(pair["p_corrected"]), numeric=True),
                Cell(_significance(pair)),
            )
        )
    against = result.decision.get("against", result.base_policy)
    tested = [pair for pair in pairs if pair["p_value"] is not None]
    of_decision = sum(against in (pair["first"], pair["second"]) for pair in tested)
    rest = len(tested) - of_decision
    notes = []
    if tested:
        notes.append(
            f"By {result.name}, paired over prompts and labels. Corrected for {comparison_count(of_decision)} with {against}"
            + (f", and for {comparison_count(rest)} of the others" if rest else "")
            + "; comparisons.csv also has the uncorrected p-values."
        )
    if any(pair["judge_only"] and not pair["apart"] for pair in pairs):
        notes.append("Not claimed: the difference is based on judge scores alone.")
    return Table(caption, columns, tuple(rows), " ".join([*notes, pairwise.top(result, pairs).says]))


def _significance(pair: Row) -> str:
    """Whether a difference is significant, in words."""
    if pair["difference"] is None:
        return "cannot be computed"
    if pair["judge_only"]:
        return "yes" if pair["apart"] else "not claimed"
    return "yes" if pair["apart"] else "no"


# Data


def rows_read(result: ResultRecord, summary: Mapping[str, Any]) -> Table:
    """Counts of rows and labels, and of dropped rows by reason."""
    meta = result.document["metadata"]
    read, analysed = summary or meta["data"], meta["data"]
    labels = {name: summary.get(name, meta[name]) for name in ("n_labels_found", "n_labels_wanted")}
    counts = [
        ("responses read", read.get("n_responses")),
        ("responses analysed", meta["n_samples"]),
        ("prompts", meta["n_prompts"]),
        ("oracle labels in the data", labels["n_labels_found"]),
        ("oracle labels at this coverage", labels["n_labels_wanted"]),
        ("oracle labels used", meta["n_oracle"]),
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
    return Table("Logged responses of the base policy", ("quantity", "count"), rows)


def rows_used(result: ResultRecord) -> Table:
    """Number of rows that the estimator used, by policy."""
    rows = tuple((text(policy), number(result.document["n_used"][policy], "d")) for policy in result.all_policies)
    return Table(f"Logged responses that {result.name} used", ("policy", "number"), rows)


def draws(result: ResultRecord, responses: Mapping[str, Sequence[Response]]) -> Table:
    """Counts of fresh draws by policy: all, unscored, labelled, and of prompts without a logged row."""
    counts = result.document["metadata"]["data"].get("fresh_draws") or {}
    columns = ("policy", "fresh draws", "without a judge score", "labelled", "for prompts that were not logged")
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
    note = "" if responses else "There are no fresh draws: only estimators by weights can run."
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
        "Of the last run of each job; what an earlier run had finished took no time. Jobs ran side by side: the sum of their "
        "seconds is not the time that passed."
    )
    note += "" if costs else " No job recorded a cost."
    note = note if rows else "No times were recorded."
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
    note = "All runs in this folder, at list prices."
    calls_are = "call has no known price and is" if unknown == 1 else "calls have no known price and are"
    note += f" {unknown:,} {calls_are} in no sum." if unknown else ""
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
