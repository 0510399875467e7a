"""The configuration as frozen records: each key with its type, default and description.

The descriptions of the fields are those of config/README.md and of the JSON schema (`documents`). `parse` makes a `Config`
from YAML, `checks` checks that its keys agree with each other.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from arena_cje import estimators
from arena_cje.calls import apis
from arena_cje.calls.endpoint import Endpoint
from arena_cje.data.coverage import coverage_name
from arena_cje.data.prompt_sets.language import LANGUAGES
from arena_cje.provenance import digest

if TYPE_CHECKING:
    from arena_cje.estimation.records import Options

LOCAL = "llama_cpp"  # the provider of models that run in the job itself
REFERENCE = "reference"  # the oracle that compares a response with the reference beside its prompt
HUMAN = "human"  # the oracle whose labels are votes of people
LIKELIHOOD = "likelihood.yaml"  # the rubric whose score is the likelihood of the response, without a question

Share = Annotated[float, Field(ge=0, le=1)]
Ends = tuple[float, float]  # of a scale
NAME = "[A-Za-z][A-Za-z0-9_-]*"  # name of a policy, judge or model, valid in a path
Name = Annotated[str, Field(pattern=f"^{NAME}$")]

# YAML reads 0.1 as a number and "0.1" as text; both mean the file name coverage_0.1.
Coverage = Annotated[str, BeforeValidator(coverage_name)]


def _none_or_all(value: Any) -> Any:
    """`none` is 0 and `all` is 1; other values are unchanged."""
    return {"none": 0.0, "all": 1.0}.get(value, value) if isinstance(value, str) else value


Truth = Annotated[float, BeforeValidator(_none_or_all), Field(ge=0, le=1)]
SAME = "coverage"  # the share of the targets' labels that is the share of the base's
# The names of the tags are prefixes of pydantic's own parts of a place, which `parse` leaves out of its sentences.
TargetLabels = Annotated[
    Annotated[Share, Tag("function-share")] | Annotated[Literal["coverage"], Tag("function-same")],
    Discriminator(lambda value: "function-same" if value == SAME else "function-share"),
]


def _variable_name(value: Any) -> Any:
    """The value, if it is the name of an environment variable. The error repeats no other value, which may be an API key."""
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w{0,63}", value)):
        raise ValueError("expected the name of an environment variable that holds the key (such as OPENAI_API_KEY)")
    return value


def _plain_url(value: Any) -> Any:
    """The value, if it is an address without user and password: the address is written into files."""
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"https?://[^\s/@]+(/[^\s@?#]*)?", value)):
        raise ValueError("expected an address such as http://127.0.0.1:8000/v1, without user, password or query")
    return value


KeyName = Annotated[str | None, BeforeValidator(_variable_name)]
Address = Annotated[str | None, BeforeValidator(_plain_url)]


INLINE_PROMPTS = ".arena-cje/system_prompts"  # folder of the files with the texts that a configuration has in itself


def is_text(system_prompt: str) -> bool:
    """Whether a system prompt is the text itself: several words that do not end as the name of a file does."""
    return bool(re.search(r"\s", system_prompt.strip())) and not re.search(r"\.[A-Za-z]\w{0,4}$", system_prompt.strip())


def system_prompt_file(system_prompt: str) -> str:
    """The name of the file with a system prompt: its own where it is no text, else one of its first words and a hash."""
    if not is_text(system_prompt):
        return system_prompt
    words = "-".join(re.findall(r"[a-z0-9]+", system_prompt.lower())[:5])
    return f"{INLINE_PROMPTS}/{words}-{digest(system_prompt)[:8]}.txt"


class Record(BaseModel):
    """A frozen block of the configuration that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PromptColumns(Record):
    """Names of the columns of a prompt set that has other names for them."""

    prompt_id: str | None = Field(
        None, description="column with the id; null: `prompt_id`, or a hash of the text in a set without ids"
    )
    prompt: str | None = Field(
        None,
        description="column with the prompt: a text, a list of texts, or a list of messages (the first user message is used)",
    )
    language: str | None = Field(None, description="column with the language; null: `language`")
    flagged: str | list[str] | None = Field(
        None, description="column or columns that flag a row: true, or an object with a `flagged` that is true"
    )
    reference: str | None = Field(None, description="column with the reference of the oracle; null: `reference`")


class Prompts(Record):
    """Where the prompts come from, and which of them are taken."""

    source: str = Field(
        "prompts/default.jsonl",
        min_length=1,
        description="a file (JSONL with `prompt_id`, `prompt` and, for the reference oracle, `reference`; Parquet, JSON, CSV), a "
        "folder of `save_to_disk`, a file of `resources/`, or the id of a data set of the Hugging Face Hub",
    )
    split: str = Field("train", min_length=1, description="split of a data set that has several")
    revision: str | None = Field(
        None, description="commit, tag or branch of a data set of the hub; null: the newest commit at the first read"
    )
    columns: PromptColumns = PromptColumns()
    language: Literal[tuple(LANGUAGES)] | None = Field(
        None,
        description="language of the prompts (`en`), from a field of the data set or else from a language detector; null: any",
    )
    min_chars: int | None = Field(None, ge=1, description="length of the shortest prompt in characters; null: any")
    max_chars: int | None = Field(None, ge=1, description="length of the longest prompt in characters; null: any")
    flagged: Literal["keep", "drop"] = Field(
        "keep", description="what to do with prompts that the data set flags as toxic or offensive"
    )
    duplicates: Literal["drop", "drop_exact", "keep"] = Field(
        "drop",
        description="`drop` uses the first of prompts that are equal apart from case and white space; `drop_exact` the first of "
        "exactly equal prompts",
    )

    @model_validator(mode="after")
    def _bounds(self) -> Prompts:
        if self.min_chars and self.max_chars and self.min_chars > self.max_chars:
            raise ValueError(f"min_chars is {self.min_chars} and max_chars {self.max_chars}, so that no prompt is left")
        return self


class Model(Record):
    """A local model: its file and how it runs."""

    file: str | None = Field(
        None, description="name of a file in `resources/models/MODELS.yaml`, downloaded and verified on first use"
    )
    path: str | None = Field(None, description="path of any other GGUF file; give this or `file`")
    sha256: str | None = Field(
        None,
        description="expected SHA-256 of the file at `path` (of all parts in order, where it is split); null: recorded unchecked",
    )
    n_ctx: int = Field(
        2048,
        ge=64,
        description="longest prompt and response together, in tokens; a longer one becomes a row with a status",
    )
    n_gpu_layers: int = Field(
        -1, ge=-1, description="number of layers on the GPU, -1 for all; a build without GPU support ignores this"
    )
    n_threads: int = Field(
        1, ge=1, description="threads per process; on CPUs, one process per core with one thread each is fastest"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        if (self.file is None) == (self.path is None):
            raise ValueError("give either `file` (a name in MODELS.yaml) or `path` (a GGUF file), not both or neither")
        if self.sha256 is not None and self.path is None:
            raise ValueError("`sha256` belongs to `path`; a `file` has its hash in MODELS.yaml")
        return self


class Provider(Record):
    """An API: its address, its key and the limits of its use."""

    api: Literal[apis.NAMES] = Field("openai", description="API of the server; most servers implement `openai`")
    base_url: Address = Field(None, description="address of the server; null: the default address of the client")
    api_key_env: KeyName = Field(None, description="environment variable with the API key; null: no key is sent")
    max_concurrency: int = Field(
        8, ge=1, le=1000, description="largest number of requests in flight, over all jobs of a user on a machine"
    )
    requests_per_minute: float | None = Field(
        None,
        gt=0,
        description="largest number of requests a minute, over all jobs of a user on a machine; null: no limit",
    )
    timeout: float = Field(120.0, gt=0, description="seconds after which a request without a reply counts as failed")
    max_attempts: int = Field(8, ge=1, description="attempts per request in one run; the next run tries again")
    completions: bool | None = Field(
        None,
        description="whether its completions endpoint returns log probabilities of given text with `echo` (vLLM and "
        "llama_cpp.server do); null: true for `fireworks`, false for `openai`",
    )
    echo_max_tokens: Literal[0, 1] | None = Field(
        None,
        description="`max_tokens` of requests for log probabilities of given text: 0, or 1 where the server takes 0 for no limit "
        "(llama_cpp.server) or refuses 0 (vLLM); null: 0 for `fireworks`, 1 for `openai`",
    )
    json_reply: Literal["schema", "object", "text"] = Field(
        "schema",
        description="how requests ask for a structured answer: by a JSON schema (`schema`), as any JSON object (`object`, for "
        "llama_cpp.server), or by the prompt alone (`text`)",
    )
    token_limit: Literal["max_tokens", "max_completion_tokens"] | None = Field(
        None,
        description="name of the parameter that limits the new tokens of a chat (reasoning models behind Azure or a gateway "
        "accept `max_completion_tokens` only); null: `max_completion_tokens` at OpenAI's own address, `max_tokens`"
        " elsewhere",
    )
    template: str | None = Field(
        None,
        description="chat template that replaces those of its policies, for a server that runs another model under their "
        "names; null: each policy's own template",
    )
    seed: Literal["send", "omit"] = Field(
        "send",
        description="whether requests contain a seed; `omit` for servers that reject it (replies are then not reproducible)",
    )


class Price(Record):
    """Price of a model."""

    input: float = Field(ge=0, description="US dollars for a million prompt tokens")
    output: float = Field(ge=0, description="US dollars for a million completion tokens")


class ModelBlock(Record):
    """Common keys of policies, judges and the oracle: the provider of their model."""

    provider: str = Field(
        LOCAL, description="`llama_cpp`: the model runs in the job itself; otherwise a name under `providers`"
    )
    base_url: Address = Field(
        None,
        description="address that replaces the provider's; it receives only the key of `api_key_env` in this block",
    )
    api_key_env: KeyName = Field(None, description="environment variable of an API key that replaces the provider's")
    extra: dict[str, Any] = Field(
        {}, description="further parameters of each request, under the API's names (such as `reasoning_effort: low`)"
    )

    @property
    def hosted(self) -> bool:
        """Whether the model is behind an API."""
        return self.provider not in (LOCAL, REFERENCE, HUMAN)


class Policy(ModelBlock):
    """A policy: a model, a system prompt and sampling."""

    model: str = Field(
        min_length=1, description="a name under `models`; for a model behind an API, its name at the provider"
    )
    template: str | None = Field(
        None,
        description="chat template, for providers that return log probabilities of given text: a file of "
        "`resources/templates/` or a path; null: requests are chats, and only `direct` can estimate this policy",
    )
    system_prompt: str | None = Field(
        None,
        description="the text itself (several words), a file of `resources/policies/` or a path; null: no system message is "
        "sent",
    )
    temperature: float = Field(
        1.0,
        ge=0,
        le=10,
        description="sampling temperature; 0 (greedy) is refused for a base policy whose responses get importance weights",
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="probability mass of the nucleus; below 1 the policy cannot produce every response of the base",
    )
    max_tokens: int = Field(
        256,
        ge=1,
        description="tokens after which a response is cut; must be equal for all policies with importance weights (see below)",
    )
    draws_per_prompt: int | None = Field(
        None, ge=1, description="fresh draws of this target per prompt; null: the top-level `draws_per_prompt`"
    )
    description: str | None = Field(None, description="one line of description for readers")

    @property
    def context(self) -> str:
        """Name of the scoring context (model, system prompt): policies that share it share one forward pass."""
        system_prompt = Path(system_prompt_file(self.system_prompt)).stem if self.system_prompt else "none"
        model = f"{self.provider}-{self.model}" if self.hosted else self.model
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{model}-{system_prompt}")

    @property
    def sampling(self) -> dict[str, float]:
        """The parameters that turn the logits of the context into the policy's distribution."""
        return {"temperature": self.temperature, "top_p": self.top_p}


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


class Decision(Record):
    """What is asked of the differences between policies."""

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


class Variant(AnalysisOptions):
    """An estimator with other options of the analysis, under a name of its own."""

    estimator: str = Field(
        description="estimator of this variant; other keys of the block are keys of `analysis` (except `scale` and "
        "`label_scale`) and apply to this variant only"
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


def _files_of(value: Any) -> Any:
    """One file or several as a list; a mapping of policies to files as NAME=FILE."""
    if isinstance(value, dict):
        return [f"{name}={file}" for name, file in value.items()]
    return [value] if isinstance(value, str) else value


class ForeignData(Record):
    """Files of another tool, which are converted into logged data and fresh draws."""

    format: str = Field(description="format of the files, a module of `arena_cje.data.convert`, such as promptfoo")
    file: Annotated[list[str], BeforeValidator(_files_of), Field(min_length=1)] = Field(
        description="file or folder, a list of them, or a block with the file of each policy"
    )
    base: str | None = Field(None, description="base policy, if no policy is named `base`")
    judge: str | None = Field(None, description="scorer that is the judge, if the files have several")
    oracle: str | None = Field(None, description="scorer that gives the oracle labels")
    scales: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description='lowest and highest score of each scorer, `"*"` for all others'
    )
    columns: dict[str, str | Annotated[list[str], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="column of each field, for the format `table`; a list for `oracle_label` or a judge score has votes on the "
        "same response",
    )


LoggedData = Annotated[
    Annotated[str, Tag("function-path")] | Annotated[ForeignData, Tag("function-block")],
    Discriminator(lambda value: "function-block" if isinstance(value, dict | ForeignData) else "function-path"),
]


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


class Config(Record):
    """The whole configuration."""

    seed: int = Field(42, ge=0, description="seed of the order of prompts, of sampling and of folds")
    n_prompts: int = Field(
        400,
        ge=1,
        description="number of prompts; a larger number keeps existing prompts, responses and labels",
    )
    draws_per_prompt: int = Field(1, ge=1, description="fresh draws per target policy and prompt")
    shard_size: int = Field(
        100,
        ge=1,
        description="prompts per job; a smaller number uses more cores or nodes, a larger one starts fewer processes",
    )
    prompts: Prompts = Prompts()
    models: dict[Name, Model] = Field({}, description="models by name")
    policies: dict[Name, Policy] = Field(
        {}, description="policies by name; `like: other` copies the keys of another policy"
    )
    base_policy: Name = Field(
        "base", description="the logging policy: its responses get log probabilities under all policies"
    )
    providers: dict[Name, Provider] = Field({}, description="APIs by name")
    judge: Judge | None = Field(None, description="the judge, which scores every response")
    judges: dict[Name, Judge] = Field(
        {},
        description="further judges by name, whose scores are in the metadata of rows as `judge_NAME`: for covariates, "
        "`analysis.judge` and ensembles",
    )
    oracle: Oracle = Oracle()
    labeling: Labeling = Labeling()
    coverages: list[Coverage] = Field(
        ["0.1"],
        min_length=1,
        description="shares of prompts with an oracle label, each analysed separately; targets may name other shares",
    )
    looks: Looks = Looks()
    estimators: list[str] = Field(
        list(estimators.NAMES),
        min_length=1,
        description="estimators and variants of the default targets; other targets may name others",
    )
    analysis: Analysis = Analysis()
    decision: Decision = Decision()
    variants: dict[Name, Variant] = Field(
        {},
        description="variants of the analysis by name: targets `results/coverage_*/NAME.json`; `estimators` may list them",
    )
    planning: Planning = Planning()
    ablation: Ablation = Ablation()
    plugins: list[str] = Field(
        [],
        description="Python files with your own estimators and covariates (docs/estimators.md); their code is run by the jobs",
    )
    verdict: dict[str, float] = Field(
        {}, description="thresholds of the verdicts that differ from the defaults (see below)"
    )
    n_slots: int = Field(
        32,
        ge=2,
        le=128,
        description="responses that one process generates at the same time; on CPUs this changes the speed, never the responses",
    )
    cache_tokens: int = Field(
        8192,
        ge=512,
        description="largest number of tokens, of prompts and responses, that one process holds; it limits memory, as `n_slots` "
        "does",
    )
    prices: dict[str, Price] = Field(
        {}, description="prices by model, if the price table lacks a model or you pay another price"
    )
    budget_usd: float | None = Field(
        None,
        gt=0,
        description="limit of the run's cost in US dollars; no request is sent after it is reached; null: no limit",
    )
    model_slots: int | None = Field(
        None,
        ge=1,
        description="model processes at the same time on one machine; null: one on a GPU, otherwise one per physical core",
    )
    progress_seconds: float | None = Field(
        60.0,
        gt=0,
        description="seconds between progress lines when the output of a run is a file or pipe; null: no progress",
    )
    logged_data: LoggedData | None = Field(
        None,
        description="your own logged data in the CJE format, or a block that describes files of another tool; the run then "
        "starts with these data and needs no model",
    )
    fresh_draws: str | None = Field(
        None, description="folder of your own fresh draws, one file per policy, for `logged_data`"
    )
    probes: str | None = Field(
        None, description="folder of labels for some of these draws, one file per policy; all are used"
    )
    calibration_data: str | None = Field(
        None, description="JSONL file of further responses with score and label, for the calibration only"
    )
    fresh: bool = Field(
        False, description="whether to ignore the journals of finished items (with `--forceall`: start from scratch)"
    )

    @property
    def targets(self) -> tuple[str, ...]:
        """Target policies in declared order."""
        return tuple(name for name in self.policies if name != self.base_policy)

    @property
    def has_draws(self) -> bool:
        """Whether there are fresh draws of the targets: generated, or the user's own."""
        return not isinstance(self.logged_data, str) or self.fresh_draws is not None

    @property
    def analyses(self) -> tuple[str, ...]:
        """Names of all possible estimates: the estimators and the variants."""
        return (*estimators.NAMES, *self.variants)

    def estimator_of(self, name: str) -> tuple[str, dict[str, Any]]:
        """The estimator of an estimate's name, and its options of the analysis."""
        if name in self.variants:
            variant = self.variants[name]
            return variant.estimator, self.analysis.with_variant(variant).model_dump()
        return name, self.analysis.model_dump()

    def can_run(self, name: str) -> bool:
        """Whether the fresh draws and log ratios exist that an estimator or variant needs."""
        has_draws = self.has_draws or not self.needs_draws(name)
        return has_draws and (self.has_weights or not self.needs_weights(name))

    def needs_draws(self, name: str) -> bool:
        """Whether an estimator or variant uses fresh draws of the targets."""
        return estimators.needs_draws(self.estimator_of(name)[0])

    def needs_weights(self, name: str) -> bool:
        """Whether an estimator or variant uses importance weights."""
        return estimators.needs_weights(self.estimator_of(name)[0])

    def has_logprobs(self, name: str) -> bool:
        """Whether the log probability of a given response is available under a policy.

        Behind an API it is where the provider returns it and the policy has a template.
        """
        policy = self.policies[name]
        return not policy.hosted or (policy.template is not None and self.endpoint(policy).completions)

    @property
    def policies_with_logprobs(self) -> tuple[str, ...]:
        """Policies under which the base responses get log probabilities; none where the base policy has none or is greedy."""
        if self.base_policy not in self.policies or not self.has_logprobs(self.base_policy):
            return ()
        if self.policies[self.base_policy].temperature == 0:
            return ()
        return tuple(filter(self.has_logprobs, self.policies))

    @property
    def has_weights(self) -> bool:
        """Whether a target has log ratios; a user's own data may have some."""
        return self.logged_data is not None or not set(self.targets).isdisjoint(self.policies_with_logprobs)

    @property
    def model_blocks(self) -> dict[str, ModelBlock]:
        """Every block that uses a model, by its key in the configuration; an ensemble uses none."""
        policies = {f"policies.{name}": policy for name, policy in self.policies.items()}
        graders = {
            stage.replace("/", "."): block
            for stage, block in self.graders.items()
            if not getattr(block, "ensemble", ())
        }
        return policies | graders

    def endpoint(self, block: ModelBlock) -> Endpoint:
        """The endpoint that a hosted policy, judge or oracle calls: its provider, with what the block overrides."""
        provider = self.providers[block.provider]
        api = apis.get(provider.api)
        is_other_address = block.base_url not in (None, provider.base_url)
        return Endpoint(
            provider=block.provider,
            api=provider.api,
            base_url=block.base_url or provider.base_url,
            # A provider's key is never sent to another address; the block names the key for that.
            api_key_env=block.api_key_env or (None if is_other_address else provider.api_key_env),
            max_concurrency=provider.max_concurrency,
            requests_per_minute=provider.requests_per_minute,
            timeout=provider.timeout,
            max_attempts=provider.max_attempts,
            completions=api.ECHOES_LOGPROBS if provider.completions is None else provider.completions,
            echo_max_tokens=api.ECHO_MAX_TOKENS if provider.echo_max_tokens is None else provider.echo_max_tokens,
            json_reply=provider.json_reply,
            token_limit=provider.token_limit,
            seed=provider.seed,
        )

    @property
    def local_models(self) -> list[str]:
        """Names of the models that run in the jobs. A model behind an API has a version in its replies instead."""
        blocks = self.model_blocks.values()
        return sorted({block.model for block in blocks if block.provider == LOCAL})

    def draws(self, policy: str) -> int:
        """Number of responses of a policy to each prompt."""
        return 1 if policy == self.base_policy else self.policies[policy].draws_per_prompt or self.draws_per_prompt

    @property
    def human_shares(self) -> dict[str, float]:
        """Shares of the prompts that people may label, those of `validation_span` aside, by the policies that they label."""
        share = 1.0 if self.oracle.target_labels == SAME else self.oracle.target_labels or 0.0
        return {self.base_policy: 1.0} | (dict.fromkeys(self.targets, share) if share or self.validation_span else {})

    @property
    def validation_span(self) -> tuple[float, float] | None:
        """Where labels of people for validation begin and end in the order of coverage; None where there are none.

        They begin above every label that enters an estimate.
        """
        if self.oracle.provider != HUMAN or not self.oracle.truth_coverage:
            return None
        targets = map(self.oracle.target_coverage, self.label_shares)
        return max(map(float, filter(None, [*self.label_shares, *targets]))), float(self.oracle.truth_coverage)

    @property
    def look_coverages(self) -> list[str]:
        """Coverages of the planned looks, in ascending order."""
        return sorted({*(self.looks.coverages or self.coverages)}, key=float)

    @property
    def label_shares(self) -> list[str]:
        """Configured coverages, those of planned looks among them, in ascending order."""
        return sorted({*self.coverages, *self.look_coverages}, key=float)

    def label_coverages(self, policy: str) -> list[str]:
        """Coverages of a policy's labels in ascending order: each adds the labels that the one before lacks."""
        shares = self.label_shares
        estimation = shares if policy == self.base_policy else map(self.oracle.target_coverage, shares)
        return sorted({*estimation, self.oracle.truth_coverage} - {None}, key=float)

    @property
    def analysed_judge(self) -> str:
        """The stage of the judge that estimates use: `judge`, or `judges/NAME`."""
        return f"judges/{self.analysis.judge}" if self.analysis.judge else "judge"

    def lower_coverage(self, policy: str, coverage: str) -> str | None:
        """The next lower coverage of a policy's labels; None where there is none."""
        lower = [other for other in self.label_coverages(policy) if float(other) < float(coverage)]
        return lower[-1] if lower else None

    @property
    def graders(self) -> dict[str, Judge | Oracle]:
        """Judges and oracle by the name of their stage: `judge`, `judges/NAME`, `oracle`."""
        judge = {"judge": self.judge} if self.judge is not None else {}
        return judge | {f"judges/{name}": block for name, block in self.judges.items()} | {"oracle": self.oracle}

    @property
    def contexts(self) -> dict[str, Policy]:
        """Scoring contexts by name, each with one of its policies."""
        return {
            policy.context: policy for policy in (self.policies[name] for name in reversed(self.policies_with_logprobs))
        }

    def samplings(self, context: str) -> list[dict[str, float]]:
        """Samplings with log probabilities in a context, sorted, without policy names."""
        policies = (self.policies[name] for name in self.policies_with_logprobs)
        samplings = {tuple(sorted(policy.sampling.items())) for policy in policies if policy.context == context}
        return [dict(sampling) for sampling in sorted(samplings)]
