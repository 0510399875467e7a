"""Exhibits: the files that show results, what each is made of, and what each is made by.

A table, a figure, an export and a page are one file each: the value of a function, whose arguments are sources. A source is
a property of `report.sources.Sources`; READS says which inputs and parameters of a rule it is read from. So one exhibit can be
made alone, from no more than it needs, or all of a coverage in one job that reads each source once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Exhibit:
    """One file; `{coverage}` stands in its path where it is of one coverage."""

    name: str  # of the rule that makes it alone
    path: str
    function: str  # of the library, with its module; its value is written as the file's suffix says
    sources: Mapping[str, str]  # of each argument
    label: Mapping[str, str] = field(default_factory=dict)  # in `snakemake --report`; none: it is not shown there

    @property
    def module(self) -> str:
        return self.function.rpartition(".")[0]

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs and parameters of its rule."""
        return together([self])

    @property
    def category(self) -> str:
        """Where it stands in `snakemake --report`."""
        return "Figures" if self.path.endswith(".png") else "Tables"

    @property
    def subcategory(self) -> str:
        return "coverage {coverage}" if "{coverage}" in self.path else "all coverages"

    @property
    def caption(self) -> str:
        """The text beside it in `snakemake --report`."""
        return f"{self.path.rpartition('/')[2].split('.')[0]}.rst"


def together(exhibits: Iterable[Exhibit]) -> tuple[str, ...]:
    """Inputs and parameters that some exhibits are read from, each once."""
    return tuple(dict.fromkeys(part for one in exhibits for source in one.sources.values() for part in READS[source]))


READS = {
    "coverage": (),
    "results": ("results",),
    "paired_results": ("results", "influence"),
    "paired_first": ("first", "first_influence"),
    "base_policy": ("first",),
    "labelled_truths": ("judge", "oracle"),
    "truth": ("validation",),
    "validated_first": ("first", "validation"),
    "validation": ("validation",),
    "summary": ("summary",),
    "logged": ("dataset", "summary", "scores_of"),
    "draws": ("draws", "dataset", "summary", "scores_of"),
    "fitted": ("fitted",),
    "fitted_logged": ("fitted", "dataset", "summary", "calibration"),
    "fitted_calibration": ("fitted", "dataset", "summary", "calibration"),
    "responses": ("first", "dataset"),
    "drawn_responses": ("first", "draws"),
    "lower_results": ("lower",),
    "throughput": (),  # how long jobs took and what calls have cost make no exhibit stale
    "spending": (),
    "configuration": ("configuration", "page"),
    "propensities": ("first", "dataset", "non_propensity"),
    "rewards": ("first", "dataset", "calibration"),
    "token_logprobs": ("first", "logprobs", "non_propensity"),
    "results_by_coverage": ("all_results",),
    "all_results": ("all_results",),
    "all_validations": ("all_validations",),
    "last_truth": ("last_validation",),
}

AT, EXPORT = "results/coverage_{coverage}", "results/export/coverage_{coverage}"


def _figure(name: str, label: str, function: str, **sources: str) -> Exhibit:
    return Exhibit(f"plot_{name}", f"{AT}/plots/{name}.png", f"arena_cje.report.{function}", sources, {"figure": label})


EXHIBITS = (
    Exhibit(
        "validate",
        f"{AT}/validation.csv",
        "arena_cje.results.validation.table",
        {"results": "results", "truths": "labelled_truths"},
        {"table": "beside the truth"},
    ),
    Exhibit(
        "comparisons",
        f"{AT}/comparisons.json",
        "arena_cje.report.comparisons.document",
        {"results": "paired_results", "coverage": "coverage"},
    ),
    Exhibit(
        "comparisons_table",
        f"{AT}/comparisons.csv",
        "arena_cje.report.comparisons.table",
        {"results": "paired_results"},
        {"table": "differences of all pairs"},
    ),
    Exhibit(
        "leaderboard",
        f"{EXPORT}/leaderboard.csv",
        "arena_cje.report.exports.leaderboard",
        {"results": "paired_results"},
        {"table": "leaderboard"},
    ),
    Exhibit(
        "token_level_results",
        f"{EXPORT}/token_level_cje_results.json",
        "arena_cje.report.exports.token_level",
        {"result": "paired_first", "coverage": "coverage", "truths": "validated_first"},
    ),
    Exhibit(
        "precomputed_sampler",
        f"{EXPORT}/precomputed_sampler.jsonl",
        "arena_cje.report.exports.sampler_rows",
        {"logged": "propensities", "reward": "rewards"},
    ),
    Exhibit(
        "stochastic_log",
        f"{EXPORT}/stochastic_log.jsonl",
        "arena_cje.report.exports.log_rows",
        {"logged": "propensities", "reward": "rewards", "base_policy": "base_policy", "tokens": "token_logprobs"},
    ),
    Exhibit(
        "dashboard",
        f"{AT}/diagnostics_dashboard.html",
        "arena_cje.report.dashboard.render",
        {
            "results": "paired_results",
            "logged": "responses",
            "draws": "drawn_responses",
            "summary": "summary",
            "others": "lower_results",
            "validation": "validation",
            "benchmarks": "throughput",
            "spending": "spending",
            "configuration": "configuration",
            "coverage": "coverage",
        },
    ),
    _figure("policy_estimates", "policy values", "figures.policy_estimates", results="results", truth="truth"),
    _figure("weight_distributions", "importance weights", "data_figures.weight_distributions", logged="logged"),
    _figure(
        "calibration_curve",
        "calibration",
        "data_figures.calibration_curve",
        result="fitted",
        logged="fitted_logged",
        beside="fitted_calibration",
    ),
    _figure("comparison_heatmap", "differences", "figures.comparison_heatmap", result="paired_first"),
    _figure("judge_distributions", "judge scores", "data_figures.judge_distributions", logged="logged", draws="draws"),
    Exhibit(
        "plot_sweep",
        "results/plots/sweep.png",
        "arena_cje.report.figures.sweep",
        {"results": "results_by_coverage", "truth": "last_truth"},
        {"figure": "policy values by coverage"},
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
