"""Who grades responses: judges, the oracle, and people."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from arena_cje.config.records.models import ModelBlock
from arena_cje.config.records.values import HUMAN, LIKELIHOOD, REFERENCE, SAME, Name, Record, Share, TargetLabels, Truth
from arena_cje.data.coverage import coverage_name


class Grading(ModelBlock):
    """Common keys of judges and the oracle: the model, the rubric and how answers are limited."""

    model: str | None = Field(
        None, description="a name under `models`; for a model behind an API, its name at the provider"
    )
    rubric: str = Field(LIKELIHOOD, description="a file of `resources/judges/` or a path")
    template: str | None = Field(
        None,
        description="chat template of a rubric of kind `likelihood` behind an API, as for a policy; otherwise not used",
    )
    temperature: float | None = Field(
        0.0,
        ge=0,
        le=2,
        description="temperature of an answer in text; null: the request contains none, as some reasoning models require",
    )
    max_tokens: int = Field(512, ge=1, description="longest answer in text, in tokens, including reasoning before it")
    max_unscored: Share = Field(
        0.05,
        description="largest share of responses without a score because the answer was unreadable; above it the job fails",
    )


class Judge(Grading):
    """A judge: a cheap score of every response."""

    uncertainty: Literal["deterministic", "distribution"] = Field(
        "deterministic",
        description="`distribution`: each score has a distribution, which needs a rubric of kind "
        "`choices`, several `samples`, or an ensemble",
    )
    ensemble: tuple[Name, ...] = Field(
        (),
        description="names under `judges`, whose mean score is this judge's score; the other keys of this block are then ignored",
    )


class Oracle(Grading):
    """The oracle: a trusted label for a share of the responses."""

    provider: str = Field(
        REFERENCE,
        description="`reference`: labels come from the reference beside each prompt; `human`: labels are votes of people "
        "(`labeling`); otherwise as for a judge",
    )
    votes: tuple[str, ...] = Field(
        (),
        description="files of people's votes on `labeling.batches`, or patterns of files (`votes/*.csv`), from any labelling "
        "tool; with provider `human` they are the labels, otherwise models are compared with them",
    )
    target_labels: TargetLabels | None = Field(
        None,
        description="share of each target's fresh draws whose labels correct estimates; `coverage`: the analysed coverage, so "
        "that targets and base are labelled on the same prompts; null: no labels of the workflow's own draws, and "
        "all labels in your own data",
    )
    design: Literal["uniform", "by_score"] = Field(
        "uniform",
        description="which prompts are labelled: a random share (`uniform`), or with a higher probability at the targets' "
        "judge scores (`by_score`; estimates correct for the probabilities, and all targets are judged before the "
        "first label is bought)",
    )
    truth: Truth | None = Field(
        None,
        description="share of the fresh draws that are labelled for `validation.csv` only (`none`, `all` or a number) and "
        "enter no estimate; null: `all` if the oracle is free, `none` behind an API and for people. For people it "
        "is a share of the prompts: those beyond `coverages` and `target_labels` are for validation, the others "
        "for estimates",
    )

    @property
    def is_by_score(self) -> bool:
        """Whether labels are bought where the targets' judge scores lie."""
        return self.design == "by_score"

    @property
    def truth_coverage(self) -> str | None:
        """Share of the draws with a label for validation, as in file names; None where there is no validation."""
        share = (0.0 if self.hosted or self.provider == HUMAN else 1.0) if self.truth is None else self.truth
        return coverage_name(share) if share else None

    def target_coverage(self, coverage: str) -> str | None:
        """Share of the targets' draws with a label for estimation at a coverage, as in file names; None where there is none."""
        if self.target_labels == SAME:
            return coverage
        return coverage_name(self.target_labels) if self.target_labels else None


class LabelBatch(Record):
    """A batch of texts that people label, limited by one of its keys."""

    coverage: Share | None = Field(
        None, description="share of prompts that are labelled in this batch or an earlier one"
    )
    labels: int | None = Field(None, ge=1, description="largest number of votes in this batch")
    usd: float | None = Field(None, gt=0, description="largest price of the votes of this batch, in US dollars")

    @model_validator(mode="after")
    def _one_limit(self) -> LabelBatch:
        if sum(value is not None for value in (self.coverage, self.labels, self.usd)) != 1:
            raise ValueError("give exactly one of `coverage`, `labels` and `usd`")
        return self


class Labeling(Record):
    """What people label, and how."""

    batches: dict[Name, LabelBatch] = Field(
        {}, description="batches by name, in the order of labelling; each contains only new texts"
    )
    votes_per_item: int = Field(3, ge=1, description="votes per text, by different people")
    usd_per_vote: float | None = Field(None, gt=0, description="price of a vote in US dollars; null: unknown")
    duplicates: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="share of texts that are shown twice, to measure whether people agree with themselves",
    )
    scale: tuple[float, float] = Field((1.0, 5.0), description="worst and best vote, which are mapped to 0 and 1")
    step: float = Field(
        1.0,
        gt=0,
        description="step between possible votes; the page has keys for up to nine possible votes, and a slider for more",
    )
    instructions: str = Field(
        "helpfulness.md", description="instructions for the raters: a file of `resources/labeling/` or a path"
    )
    byte_order_mark: bool = Field(False, description="whether tasks.csv begins with a byte order mark, for Excel")
    aggregation: Literal["auto", "mean", "two_way"] = Field(
        "auto",
        description="label of a text: the `mean` of its votes, or the mean corrected for rater biases (`two_way`); `auto`: "
        "`two_way` if a test shows biases",
    )
    columns: dict[str, str] = Field(
        {},
        description="column names in vote files of an unknown format, by field: `item_id`, `annotator_id`, `score`, "
        "`skipped`, `comment`, `submitted_at`, `duration_s`, `batch`, `prompt`, `response`",
    )
