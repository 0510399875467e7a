"""Exhibits: their paths, functions and sources.

An exhibit is a file that shows results: a table, a figure, an export or a page. Its content is the value of a function whose
arguments are sources. A source is a property of `report.sources.Sources`; READS lists the inputs and parameters of a rule
from which it is read. One exhibit can therefore be made alone, from the inputs that it needs, or all exhibits of a coverage
in one job that reads each source once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Exhibit:
    """One exhibit; its path has a `{coverage}` if it shows a single coverage."""

    name: str  # name of the rule that makes it alone
    path: str
    function: str  # full name of a library function; its value is written in the format of the path's suffix
    sources: Mapping[str, str]  # source by argument of the function
    label: Mapping[str, str] = field(default_factory=dict)  # label in `snakemake --report`; empty: not shown there

    @property
    def module(self) -> str:
        """Module of the function."""
        return self.function.rpartition(".")[0]

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the inputs and parameters of its rule."""
        return dependencies([self])

    @property
    def category(self) -> str:
        """Its category in `snakemake --report`."""
        return "Figures" if self.path.endswith(".png") else "Tables"

    @property
    def subcategory(self) -> str:
        """Its subcategory in `snakemake --report`."""
        return "coverage {coverage}" if "{coverage}" in self.path else "all coverages"

    @property
    def caption(self) -> str:
        """File name of its caption in `snakemake --report`."""
        return f"{self.path.rpartition('/')[2].split('.')[0]}.rst"


def dependencies(exhibits: Iterable[Exhibit]) -> tuple[str, ...]:
    """Names of the inputs and parameters that some exhibits need, each once."""
    return tuple(
        dict.fromkeys(part for exhibit in exhibits for source in exhibit.sources.values() for part in READS[source])
    )


# Inputs and parameters of a rule by source.
READS = {
    "coverage": (),
    "results": ("results",),
    "ordered_results": ("results",),
    "paired_results": ("results", "influence"),
    "paired_first": ("first", "first_influence"),
    "paired_recommended": ("results", "influence"),
    "base_policy": ("first",),
    "labelled_truths": ("judge", "oracle"),
    "truth": ("validation",),
    "validated_first": ("first", "validation"),
    "validation": ("validation",),
    "summary": ("summary",),
    "logged": ("dataset", "summary", "scores_of"),
    "draws": ("draws", "dataset", "summary", "scores_of"),
    "account": ("draws", "dataset", "summary", "scores_of", "thresholds", "data_page"),
    "fitted": ("fitted",),
    "fitted_logged": ("fitted", "dataset", "summary", "calibration"),
    "fitted_calibration": ("fitted", "dataset", "summary", "calibration"),
    "responses": ("results", "dataset"),
    "fresh_responses": ("results", "draws"),
    "lower_results": ("results", "lower"),
    "look": ("look",),
    "throughput": (),  # benchmarks and the ledger do not make an exhibit stale
    "spending": (),
    "configuration": ("configuration", "page"),
    "propensities": ("first", "dataset", "non_propensity"),
    "rewards": ("first", "dataset", "calibration"),
    "token_logprobs": ("first", "logprobs", "non_propensity"),
    "results_by_coverage": ("all_results",),
    "all_results": ("all_results",),
    "all_validations": ("all_validations",),
    "last_truth": ("last_validation",),
    "plan": ("plan",),
}

RESULTS, EXPORTS = "results/coverage_{coverage}", "results/export/coverage_{coverage}"


def _figure(name: str, label: str, function: str, **sources: str) -> Exhibit:
    """A figure of one coverage; function: its name below `arena_cje.report`."""
    return Exhibit(
        f"plot_{name}", f"{RESULTS}/plots/{name}.png", f"arena_cje.report.{function}", sources, {"figure": label}
    )


EXHIBITS = (
    Exhibit(
        "validate",
        f"{RESULTS}/validation.csv",
        "arena_cje.results.validation.table",
        {"results": "results", "truths": "labelled_truths"},
        {"table": "beside the truth"},
    ),
    Exhibit(
        "decision",
        f"{RESULTS}/decision.json",
        "arena_cje.results.decision_file.document",
        {"results": "results", "coverage": "coverage"},
    ),
    Exhibit(
        "decision_page",
        f"{RESULTS}/decision.html",
        "arena_cje.report.decision_page.render",
        {"results": "ordered_results", "coverage": "coverage"},
        {"table": "decision"},
    ),
    Exhibit(
        "comparisons",
        f"{RESULTS}/comparisons.json",
        "arena_cje.report.comparisons.document",
        {"results": "paired_results", "coverage": "coverage"},
    ),
    Exhibit(
        "comparisons_table",
        f"{RESULTS}/comparisons.csv",
        "arena_cje.report.comparisons.table",
        {"results": "paired_results"},
        {"table": "differences of all pairs"},
    ),
    Exhibit(
        "leaderboard",
        f"{EXPORTS}/leaderboard.csv",
        "arena_cje.report.exports.leaderboard",
        {"results": "paired_results"},
        {"table": "leaderboard"},
    ),
    Exhibit(
        "token_level_results",
        f"{EXPORTS}/token_level_cje_results.json",
        "arena_cje.report.exports.token_level",
        {"result": "paired_first", "coverage": "coverage", "truths": "validated_first"},
    ),
    Exhibit(
        "precomputed_sampler",
        f"{EXPORTS}/precomputed_sampler.jsonl",
        "arena_cje.report.exports.sampler_rows",
        {"logged": "propensities", "reward": "rewards"},
    ),
    Exhibit(
        "stochastic_log",
        f"{EXPORTS}/stochastic_log.jsonl",
        "arena_cje.report.exports.log_rows",
        {"logged": "propensities", "reward": "rewards", "base_policy": "base_policy", "tokens": "token_logprobs"},
    ),
    Exhibit(
        "dashboard",
        f"{RESULTS}/diagnostics_dashboard.html",
        "arena_cje.report.dashboard.render",
        {
            "results": "paired_results",
            "logged": "responses",
            "draws": "fresh_responses",
            "summary": "summary",
            "others": "lower_results",
            "look": "look",
            "validation": "validation",
            "benchmarks": "throughput",
            "spending": "spending",
            "configuration": "configuration",
            "coverage": "coverage",
        },
    ),
    Exhibit(
        "data_report",
        f"{RESULTS}/data_report.html",
        "arena_cje.report.data_report.render",
        {"account": "account", "summary": "summary", "coverage": "coverage"},
    ),
    _figure("policy_estimates", "policy values", "figures.policy_estimates", results="ordered_results", truth="truth"),
    _figure("weight_distributions", "importance weights", "data_figures.weight_distributions", logged="logged"),
    _figure(
        "calibration_curve",
        "calibration",
        "data_figures.calibration_curve",
        result="fitted",
        logged="fitted_logged",
        calibration_data="fitted_calibration",
    ),
    _figure("comparison_heatmap", "differences", "figures.comparison_heatmap", result="paired_recommended"),
    _figure("judge_distributions", "judge scores", "data_figures.judge_distributions", logged="logged", draws="draws"),
    Exhibit(
        "plot_sweep",
        "results/plots/sweep.png",
        "arena_cje.report.figures.sweep",
        {"results": "results_by_coverage", "truth": "last_truth"},
        {"figure": "policy values by coverage"},
    ),
    Exhibit(
        "plot_plan",
        "results/planning/plan.png",
        "arena_cje.report.plan_figure.plan",
        {"plan": "plan"},
        {"figure": "size of the next study"},
    ),
    Exhibit(
        "results_table",
        "results/export/results.csv",
        "arena_cje.report.exports.tidy",
        {"results": "all_results", "validation": "all_validations"},
        {"table": "all results"},
    ),
    Exhibit(
        "results_parquet",
        "results/export/results.parquet",
        "arena_cje.report.exports.tidy",
        {"results": "all_results", "validation": "all_validations"},
    ),
)
