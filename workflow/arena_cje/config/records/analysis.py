"""What the analysis computes, what it decides, and what it plans."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from arena_cje.config.records.values import Coverage, Ends, Name, Record, Share

if TYPE_CHECKING:
    from arena_cje.estimation.records import Options


class AnalysisOptions(Record):
    """Options of the analysis that a variant may change."""

    n_folds: int = Field(5, ge=2, description="folds of cross-fitting, balanced over the labelled prompts")
    jackknife_folds: int = Field(
        20, ge=2, description="folds of the jackknife for label uncertainty; fewer if there are few labels"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="1 - confidence level of the intervals")
    judge: Name | None = Field(
        None,
        description="the judge whose scores are used: a name under `judges` (in your own data, NAME of the field "
        "`judge_NAME` in the metadata of rows); null: the judge under `judge`, the only one whose distributions are used",
    )
    judge_scale: Ends | None = Field(
        None,
        description="range [lo, hi] of that judge's scores in your own data; null: `scale`. A variant with another `judge` "
        "needs its own range",
    )
    rewards: Literal["calibrated", "judge"] = Field(
        "calibrated",
        description="what estimates average: calibrated rewards, or uncalibrated judge scores (`judge`)",
    )
    calibration: Literal["monotone", "two_stage", "auto"] = Field(
        "monotone",
        description="map from judge score to reward: `monotone` in the score; `two_stage`: monotone in an index of score and "
        "covariates; `auto`: two-stage if its error is lower by more than one standard error",
    )
    covariates: tuple[str, ...] = Field(
        (),
        description="inputs of the two-stage calibration besides the score: `response_length` (words), or numbers in the "
        "metadata of every row",
    )
    weights: Literal["calibrated", "raw"] = Field(
        "calibrated",
        description="importance weights of doubly robust estimators: with limited variance (`calibrated`) or `raw`",
    )
    correction: Literal["joint", "plain", "none"] = Field(
        "joint",
        description="how labels of the targets' own draws correct `direct` and the doubly robust estimators: `joint`: one "
        "estimate of all policies from shared prompts; `plain`: the mean residual of each target alone; `none`: no"
        " correction, transport audit only (for labels that are not a random sample of the draws)",
    )
    label_term: bool = Field(
        False,
        description="whether doubly robust estimators add the weighted residuals of the labels, as `tr-cpo` always does",
    )
    clip: float = Field(
        100.0,
        gt=1,
        description="largest weight of `raw-ips` (before the weights are normalised to mean 1 again)",
    )
    var_cap: float = Field(1.0, gt=0, description="largest variance of calibrated weights, which have mean 1")
    ess_floor: float = Field(0.2, gt=0, le=1, description="smallest ESS of calibrated weights")
    inference: Literal["jackknife", "bootstrap"] = Field(
        "jackknife",
        description="intervals of `direct`: `bootstrap` resamples prompts and fits the calibration to each sample",
    )
    n_bootstrap: int = Field(2000, ge=2, le=10**6, description="number of bootstrap samples")


class Analysis(AnalysisOptions):
    """Options of the analysis."""

    scale: Ends | None = Field(
        None,
        description="range [lo, hi] of scores and labels in your own data, which is mapped to [0, 1]; null: [0, 1]",
    )
    label_scale: Ends | None = Field(
        None,
        description="range [lo, hi] of oracle labels in your own data, where it is not that of scores; null: `scale`",
    )

    def with_variant(self, variant: Variant) -> Analysis:
        """The options of this analysis, where those that a variant sets replace them."""
        changes = variant.model_dump(exclude_unset=True, exclude={"estimator"})
        if changes.get("judge", self.judge) != self.judge:
            changes = {"judge_scale": None} | changes
        return self.model_copy(update=changes)

    def options(self, seed: int) -> Options:
        """The options of estimation; raises a `UserError` where two of them contradict each other."""
        from arena_cje.estimation.records import Options  # imports scipy, which takes longer than all other imports

        names = {field.name for field in fields(Options)} - {"seed"}
        return Options(seed=seed, **{name: value for name, value in self if name in names})


class Variant(AnalysisOptions):
    """An estimator with other options of the analysis, under a name of its own."""

    estimator: str = Field(
        description="estimator of this variant; other keys of the block are keys of `analysis` (except `scale` and "
        "`label_scale`) and apply to this variant only"
    )


class Decision(Record):
    """How differences between policies become decisions."""

    against: str | None = Field(None, description="policy that all others are compared with; null: the base policy")
    margin: float = Field(
        0.02,
        gt=0,
        lt=1,
        description="largest difference that does not matter to you, on the scale from 0 to 1; policies that differ by less "
        "are equivalent",
    )
    assume_transport: bool = Field(
        False,
        description="whether a difference that depends on judge scores alone may decide; `true` declares that the calibration "
        "holds for policies without labels of their own",
    )


class Looks(Record):
    """Planned looks at growing labels, until enough is known: `results/coverage_auto/{estimator}.json`."""

    coverages: list[Coverage] | None = Field(
        None, min_length=1, description="coverages of the looks, in ascending order; null: `coverages`"
    )
    until: Literal["decision", "width"] = Field(
        "decision",
        description="when the looks end: every target has a decision, by intervals that hold over all looks (`decision`), or "
        "every interval of a difference is at most `width` wide (`width`)",
    )
    width: float | None = Field(
        None, gt=0, lt=2, description="largest width of the intervals of differences, for `until: width`"
    )
    spending: Literal["obrien_fleming", "pocock"] = Field(
        "obrien_fleming",
        description="how the error probability is divided over the looks: `obrien_fleming` keeps nearly all of it for the last"
        " look; `pocock` makes early decisions more likely and the last interval wider",
    )
    min_labels: int = Field(30, ge=2, description="smallest number of base labels with which a look can decide")
    max_labels: int | None = Field(
        None, ge=1, description="largest number of labels of base and targets together; null: no limit"
    )
    max_usd: float | None = Field(None, gt=0, description="largest price of these labels in US dollars; null: no limit")

    @model_validator(mode="after")
    def _width_of_its_own(self) -> Looks:
        if (self.until == "width") != (self.width is not None):
            raise ValueError("give `width` with `until: width`, and only then")
        return self


class Planning(Record):
    """What the study after this one is to reach: `results/planning/plan.json`."""

    difference: float | None = Field(
        0.05,
        gt=0,
        le=1,
        description="difference between a target and the base that the study should detect; null: none",
    )
    half_width: float | None = Field(
        None, gt=0, le=1, description="largest half-width of the intervals of differences; null: any"
    )
    power: float = Field(0.8, ge=0.5, lt=1, description="probability of detecting the difference")
    budget_usd: float | None = Field(
        None,
        gt=0,
        description="budget in US dollars, for which the plan gives the most precise study; null: no such plan",
    )
    price_judge: float | None = Field(
        None,
        gt=0,
        description="price in US dollars of a prompt: responses of all policies and judge scores; null: the price in this run",
    )
    price_label: float | None = Field(
        None,
        gt=0,
        description="price of an oracle label in US dollars; null: the price in this run, or `labeling.usd_per_vote` times "
        "`votes_per_item`",
    )


class Ablation(Record):
    """A grid of settings on data whose truth is known: the targets `results/ablation/*`, which no other target needs."""

    source: Literal["simulated", "results"] = Field(
        "simulated",
        description="`simulated`: prompts of `world`; `results`: the data of this configuration, whose labels are then "
        "the true values",
    )
    world: str = Field(
        "arena",
        description="`arena`, `arena_length` (with a covariate and a judge's distribution) or a world of `simulate`",
    )
    n: list[Annotated[int, Field(ge=20, le=1_000_000)]] = Field(
        [250, 1000], min_length=1, description="numbers of prompts of a sample"
    )
    coverages: list[Coverage] = Field(
        ["0.05", "0.1", "0.25", "0.5"], min_length=1, description="shares of a sample's prompts with an oracle label"
    )
    seeds: int = Field(
        50, ge=1, le=100_000, description="samples per number of prompts; a larger number keeps existing samples"
    )
    estimators: list[str] = Field(
        ["direct", "calibrated-ips", "snips", "dr-cpo", "stacked-dr", "tr-cpo"],
        min_length=1,
        description="estimators and variants",
    )
    rewards: list[Literal["calibrated", "judge"]] = Field(
        [],
        description="calibrated or uncalibrated rewards, crossed with all following keys; empty: the default of each estimator",
    )
    weights: list[Literal["calibrated", "raw"]] = Field(
        [], description="calibrated or raw weights, for the doubly robust estimators"
    )
    covariates: list[list[str]] = Field(
        [], description="sets of covariates, `[]` for none; simulated worlds have `style`"
    )
    judge: list[Literal["score", "distribution"]] = Field(
        ["score"],
        min_length=1,
        description="whether the judge's score or its distribution is used",
    )
    target_labels: Share = Field(
        0.0, description="share of a sample's prompts whose labels of the targets' own draws correct estimates"
    )
    apart: list[str] = Field(
        ["unhelpful"], description="policies with separate rows in the summary, excluded from averages and rankings"
    )
    cells_per_job: int = Field(
        500,
        ge=1,
        description="cells per job, at least one sample; an interrupted run continues with the next job",
    )
