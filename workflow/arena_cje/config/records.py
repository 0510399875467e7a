"""The configuration as frozen records: every key, its type, its default and its meaning.

The descriptions beside the fields are what `config/README.md` and the JSON schema say (`documents`). `parse` makes a `Config`
from YAML, `checks` holds the rules between keys.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from arena_cje import estimators
from arena_cje.calls import apis
from arena_cje.calls.endpoint import Endpoint
from arena_cje.data.coverage import coverage_name

if TYPE_CHECKING:
    from arena_cje.estimation.records import Options

LOCAL = "llama_cpp"  # the provider that runs models of `models` in the job itself
REFERENCE = "reference"  # the oracle that checks a response by what stands beside its prompt
LIKELIHOOD = "likelihood.yaml"  # the rubric that is read without asking anything

Share = Annotated[float, Field(ge=0, le=1)]
NAME = "[A-Za-z][A-Za-z0-9_-]*"  # of a policy or a model, good in a path
Name = Annotated[str, Field(pattern=f"^{NAME}$")]

# YAML reads 0.1 as a number and "0.1" as text; both mean the file name coverage_0.1.
Coverage = Annotated[str, BeforeValidator(coverage_name)]


def _share_of_truth(value: Any) -> Any:
    """`none` and `all` are shares too."""
    return {"none": 0.0, "all": 1.0}.get(value, value) if isinstance(value, str) else value


Truth = Annotated[float, BeforeValidator(_share_of_truth), Field(ge=0, le=1)]


def _variable_name(value: Any) -> Any:
    """The name of an environment variable; what else is given may be a key, so it is not repeated."""
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w{0,63}", value)):
        raise ValueError("expected the name of an environment variable that holds the key (such as OPENAI_API_KEY)")
    return value


def _plain_url(value: Any) -> Any:
    """An address without a user or a password in it, which would end up in files."""
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"https?://[^\s/@]+(/[^\s@?#]*)?", value)):
        raise ValueError("expected an address such as http://127.0.0.1:8000/v1, without user, password or query")
    return value


KeyName = Annotated[str | None, BeforeValidator(_variable_name)]
Address = Annotated[str | None, BeforeValidator(_plain_url)]


class Record(BaseModel):
    """A frozen slice of the configuration that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Prompts(Record):
    source: str = Field(
        "prompts/default.jsonl",
        description="JSONL with `prompt_id`, `prompt` and, for the reference oracle, `reference`; a path, or in `resources/`",
    )


class Model(Record):
    file: str | None = Field(
        None, description="a name in `resources/models/MODELS.yaml`, fetched and checked on first use"
    )
    path: str | None = Field(None, description="any other GGUF file, by path; give this or `file`")
    sha256: str | None = Field(None, description="expected hash of the file at `path`; null records it without a check")
    n_ctx: int = Field(
        2048, ge=64, description="longest prompt plus response in tokens; longer ones become rows with a status"
    )
    n_gpu_layers: int = Field(
        -1, ge=-1, description="layers on the GPU, -1 all; a build without GPU support ignores it"
    )
    n_threads: int = Field(
        1, ge=1, description="threads a process; on CPUs one process a core with one thread each is fastest"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        if (self.file is None) == (self.path is None):
            raise ValueError("give either `file` (a name in MODELS.yaml) or `path` (a GGUF file), not both or neither")
        if self.sha256 is not None and self.path is None:
            raise ValueError("`sha256` belongs to `path`; a `file` has its hash in MODELS.yaml")
        return self


class Provider(Record):
    api: Literal[apis.NAMES] = Field(
        "openai", description="whose API it speaks, and whose client asks it; most servers speak `openai`"
    )
    base_url: Address = Field(None, description="its address; null is the client's own")
    api_key_env: KeyName = Field(None, description="environment variable that holds the key; null sends none")
    max_concurrency: int = Field(8, ge=1, le=1000, description="requests at a time, over all jobs on a machine")
    requests_per_minute: float | None = Field(None, gt=0, description="requests a minute, over all jobs; null is any")
    timeout: float = Field(120.0, gt=0, description="seconds until a request without an answer is given up")
    max_attempts: int = Field(8, ge=1, description="times that a request is sent before it is left for the next run")
    completions: bool | None = Field(
        None,
        description="does it score given text: a completions endpoint that echoes log probabilities (vLLM and "
        "llama_cpp.server have one); null is yes for `fireworks`, no for `openai`",
    )
    echo_max_tokens: Literal[0, 1] | None = Field(
        None,
        description="tokens asked for when text is scored: 0, or 1 where the server takes 0 for no limit (llama_cpp.server) "
        "or refuses it (vLLM); null is 0 for `fireworks`, 1 for `openai`",
    )
    json_reply: Literal["schema", "object", "text"] = Field(
        "schema",
        description="how a structured answer is asked for: by JSON schema, as some JSON `object` (llama_cpp.server), or in "
        "words alone (`text`)",
    )


class Price(Record):
    input: float = Field(ge=0, description="US dollars for a million tokens read")
    output: float = Field(ge=0, description="US dollars for a million tokens written")


class ModelBlock(Record):
    """What the blocks of policies, judges and the oracle have in common: the provider of their model."""

    provider: str = Field(
        LOCAL, description="`llama_cpp` runs a model in the job itself; else a name under `providers`"
    )
    base_url: Address = Field(
        None, description="another address than the provider's; it is sent no key but the one named beside it"
    )
    api_key_env: KeyName = Field(None, description="another key than the provider's")
    extra: dict[str, Any] = Field(
        {}, description="further parameters of each request, as they are (such as `reasoning_effort: low`)"
    )

    @property
    def hosted(self) -> bool:
        """Is it behind an API?"""
        return self.provider not in (LOCAL, REFERENCE)


class Policy(ModelBlock):
    model: str = Field(min_length=1, description="a name under `models`; behind an API its own name there")
    template: str | None = Field(
        None,
        description="how a provider that scores given text is shown a conversation: a file of `resources/templates/` or a "
        "path; null chats, and the policy takes part in `direct` only",
    )
    system_prompt: str | None = Field(
        None, description="a file of `resources/policies/` or a path; null sends no system message"
    )
    temperature: float = Field(1.0, ge=0, le=10, description="0 is greedy, refused for the base policy")
    top_p: float = Field(
        1.0, gt=0, le=1, description="nucleus mass; below 1 the policy cannot say everything the base says"
    )
    max_tokens: int = Field(256, ge=1, description="where a response is cut; the same for all policies (see below)")
    description: str | None = Field(None, description="one line for people")

    @property
    def context(self) -> str:
        """Name of the scoring context (model, system prompt): one forward pass serves all policies that share it."""
        told = Path(self.system_prompt).stem if self.system_prompt else "none"
        asked = f"{self.provider}-{self.model}" if self.hosted else self.model
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{asked}-{told}")

    @property
    def sampling(self) -> dict[str, float]:
        """What turns the context's logits into this policy's distribution."""
        return {"temperature": self.temperature, "top_p": self.top_p}


class Grading(ModelBlock):
    """What a judge and an oracle have in common: who reads what, and how its answer is read."""

    model: str | None = Field(None, description="a name under `models`; behind an API its own name there")
    rubric: str = Field(LIKELIHOOD, description="a file of `resources/judges/` or a path")
    template: str | None = Field(
        None, description="for a rubric of kind `likelihood` behind an API, as for a policy; else not used"
    )
    temperature: float | None = Field(
        0.0, ge=0, le=2, description="of an answer in words; null sends none, as some reasoning models demand"
    )
    max_tokens: int = Field(512, ge=1, description="longest answer in words, what a model thinks before it included")
    max_unscored: Share = Field(
        0.05,
        description="largest share of the responses that may stay without a score because an answer could not be read",
    )


class Judge(Grading):
    uncertainty: Literal["deterministic", "distribution"] = Field(
        "deterministic",
        description="`distribution` keeps how sure the judge is of each score, which needs a rubric that tells: of kind "
        "`choices`, or with several `samples`; or an ensemble",
    )
    ensemble: tuple[Name, ...] = Field(
        (), description="names under `judges` whose mean score is this judge's; the other keys are then not used"
    )


class Oracle(Grading):
    provider: str = Field(
        REFERENCE,
        description="`reference` grades by the checks that stand beside each prompt; else as for a judge",
    )
    target_labels: Share | None = Field(
        None,
        description="share of each target's fresh draws whose labels enter estimates; null is none of the workflow's own, "
        "and all that exist in data brought along",
    )
    truth: Truth | None = Field(
        None,
        description="labels for `validation.csv` only: `none`, `all` or a share of the fresh draws; never enters an estimate; "
        "null is all where the oracle costs nothing, none behind an API",
    )

    @property
    def truth_coverage(self) -> str | None:
        """Share of the draws that is labelled for validation, as it stands in a file name; None for no validation."""
        share = (0.0 if self.hosted else 1.0) if self.truth is None else self.truth
        return coverage_name(share) if share else None

    @property
    def target_coverage(self) -> str | None:
        """Share of the targets' own draws that the workflow labels for estimation, as in a file name; None for none."""
        return coverage_name(self.target_labels) if self.target_labels else None


class Tuning(Record):
    """Every way to analyse that may differ between the variants of one data set."""

    n_folds: int = Field(5, ge=2, description="folds of cross-fitting, balanced over the labelled prompts")
    jackknife_folds: int = Field(
        20, ge=2, description="folds of the oracle-uncertainty jackknife; fewer where labels are few"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="intervals have level 1 - alpha")
    judge: Name | None = Field(
        None,
        description="whose scores: a name under `judges` (in data brought along NAME of the scores in the rows' metadata as "
        "`judge_NAME`); null is the judge under `judge`, whose distribution alone counts where judges are uncertain",
    )
    rewards: Literal["calibrated", "judge"] = Field(
        "calibrated", description="what estimates average: `judge` takes the judge's scores as they are, uncalibrated"
    )
    calibration: Literal["monotone", "two_stage", "auto"] = Field(
        "monotone",
        description="from score to reward: `monotone` in the score, `two_stage` in an index of score and covariates, "
        "`auto` that one only where it is better by a standard error",
    )
    covariates: tuple[str, ...] = Field(
        (),
        description="what the two-stage calibrator sees beside the score: `response_length` (words), or numbers that every "
        "row has in its metadata",
    )
    weights: Literal["calibrated", "raw"] = Field(
        "calibrated", description="doubly robust family: stabilised weights, or the raw ones"
    )
    label_term: bool = Field(
        False, description="doubly robust family: add the weighted residuals of the labels, as `tr-cpo` always does"
    )
    clip: float = Field(100.0, gt=1, description="`raw-ips`: largest mean-one weight before it is normalised again")
    var_cap: float = Field(1.0, gt=0, description="calibrated weights: largest variance of the mean-one weights")
    ess_floor: float = Field(0.2, gt=0, le=1, description="calibrated weights: smallest effective share of the rows")
    inference: Literal["jackknife", "bootstrap"] = Field(
        "jackknife", description="`direct`: `bootstrap` resamples prompts and fits the calibrator anew each time"
    )
    n_bootstrap: int = Field(2000, ge=2, description="resamples of the bootstrap")


class Analysis(Tuning):
    scale: tuple[float, float] | None = Field(
        None, description="range [lo, hi] of scores and labels in data brought along, mapped to [0, 1]; null is [0, 1]"
    )

    def changed(self, variant: Variant) -> Analysis:
        """The analysis with what a variant says otherwise."""
        said = variant.model_dump(exclude_unset=True, exclude={"estimator"})
        return self.model_copy(update=said)

    def options(self, seed: int) -> Options:
        """What estimation takes of it; raises where two of the keys do not fit together."""
        from arena_cje.estimation.records import Options  # with scipy, which takes longer to import than all the rest

        names = {field.name for field in fields(Options)} - {"seed"}
        return Options(seed=seed, **{name: value for name, value in self if name in names})


class Variant(Tuning):
    estimator: str = Field(
        description="an estimator to run under the variant's name; any key of `analysis` but `scale` may stand beside it "
        "and counts for the variant alone"
    )


class Config(Record):
    seed: int = Field(42, ge=0, description="of the prompt order, the sampling streams and the folds")
    n_prompts: int = Field(
        400,
        ge=1,
        description="prompts sampled; raising it leaves the earlier ones, and all that was paid for, as they are",
    )
    draws_per_prompt: int = Field(1, ge=1, description="fresh responses of each target policy to a prompt")
    shard_size: int = Field(
        100, ge=1, description="prompts a job: smaller spreads over more cores or nodes, larger starts fewer processes"
    )
    prompts: Prompts = Prompts()
    models: dict[Name, Model] = Field({}, description="models by name")
    policies: dict[Name, Policy] = Field({}, description="policies by name; `like: other` starts from another block")
    base_policy: Name = Field("base", description="the policy whose responses are logged and scored under all others")
    providers: dict[Name, Provider] = Field({}, description="APIs by name, and how they are asked")
    judge: Judge | None = Field(None, description="grades every response, cheaply")
    judges: dict[Name, Judge] = Field(
        {},
        description="further judges, side by side: their scores stand in the metadata of every row as `judge_NAME`, for "
        "covariates, for `analysis.judge` and for ensembles",
    )
    oracle: Oracle = Oracle()
    coverages: list[Coverage] = Field(
        ["0.1"],
        min_length=1,
        description="shares of prompts with an oracle label, analysed side by side; any other may be asked for",
    )
    estimators: list[str] = Field(
        list(estimators.NAMES),
        min_length=1,
        description="estimators and variants that `snakemake` alone runs; any other may be asked for",
    )
    analysis: Analysis = Analysis()
    variants: dict[Name, Variant] = Field(
        {}, description="ablations by name: `results/coverage_*/NAME.json` is their target, `estimators` may list them"
    )
    verdict: dict[str, float] = Field(
        {}, description="thresholds of the verdicts that differ from the defaults (see below)"
    )
    n_slots: int = Field(
        32,
        ge=2,
        le=128,
        description="responses that one process generates side by side; changes the speed, never the responses",
    )
    cache_tokens: int = Field(
        8192,
        ge=512,
        description="tokens, of prompts and responses, that these may hold together; bounds memory as `n_slots` does",
    )
    prices: dict[str, Price] = Field(
        {}, description="prices by model, where the price table does not know them or you pay others"
    )
    budget_usd: float | None = Field(
        None,
        gt=0,
        description="no request is sent once the run has cost this much; raise it and go on; null is no limit",
    )
    model_slots: int | None = Field(
        None,
        ge=1,
        description="model processes at a time on one machine; null is one on a GPU, else one a physical core",
    )
    logged_data: str | None = Field(
        None,
        description="a logged data set of your own in the CJE format: starts at the data set stage, needs no model",
    )
    fresh_draws: str | None = Field(
        None, description="a folder of fresh draws beside `logged_data`, a file for each policy"
    )
    probes: str | None = Field(
        None, description="a folder of labels for some of these draws, a file for each policy; they always count"
    )
    calibration_data: str | None = Field(
        None, description="a JSONL file of further judged and labelled responses; they enter calibration only"
    )
    fresh: bool = Field(False, description="ignore the journals of finished items (with `--forceall`: start over)")

    @property
    def targets(self) -> tuple[str, ...]:
        """Target policies in declared order."""
        return tuple(name for name in self.policies if name != self.base_policy)

    @property
    def has_draws(self) -> bool:
        """Are there fresh draws of the targets: generated, or brought along?"""
        return self.logged_data is None or self.fresh_draws is not None

    @property
    def analyses(self) -> tuple[str, ...]:
        """Every name that an estimate may have: the estimators and the variants."""
        return (*estimators.NAMES, *self.variants)

    def estimator_of(self, name: str) -> tuple[str, dict[str, Any]]:
        """Which estimator runs under a name, and the keys of `analysis` that hold there."""
        if name in self.variants:
            variant = self.variants[name]
            return variant.estimator, self.analysis.changed(variant).model_dump()
        return name, self.analysis.model_dump()

    def can_run(self, name: str) -> bool:
        """Does an estimator or variant have the fresh draws and the log ratios it may need?"""
        has_draws = self.has_draws or not self.needs_draws(name)
        return has_draws and (self.has_weights or not self.needs_weights(name))

    def needs_draws(self, name: str) -> bool:
        """Does an estimator or variant use fresh draws of the targets?"""
        return estimators.needs_draws(self.estimator_of(name)[0])

    def needs_weights(self, name: str) -> bool:
        """Does an estimator or variant use importance weights?"""
        return estimators.needs_weights(self.estimator_of(name)[0])

    def has_logprobs(self, name: str) -> bool:
        """Can the log probability of given text be had under a policy? Behind an API only some can tell, of a template."""
        policy = self.policies[name]
        return not policy.hosted or (policy.template is not None and self.endpoint(policy).completions)

    @property
    def policies_with_logprobs(self) -> tuple[str, ...]:
        """Policies under which the base responses get log probabilities; none where the base's own say nothing."""
        if self.base_policy not in self.policies or not self.has_logprobs(self.base_policy):
            return ()
        if self.policies[self.base_policy].temperature == 0:
            return ()
        return tuple(filter(self.has_logprobs, self.policies))

    @property
    def has_weights(self) -> bool:
        """Are there log ratios of a target: scored here, or perhaps in data brought along?"""
        return self.logged_data is not None or not set(self.targets).isdisjoint(self.policies_with_logprobs)

    @property
    def model_blocks(self) -> dict[str, ModelBlock]:
        """Every block that asks a model, by its key in the configuration; an ensemble asks none itself."""
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
        elsewhere = block.base_url not in (None, provider.base_url)
        return Endpoint(
            provider=block.provider,
            api=provider.api,
            base_url=block.base_url or provider.base_url,
            # A key is for the address that it stands beside: another server gets none but what is named for it.
            api_key_env=block.api_key_env or (None if elsewhere else provider.api_key_env),
            max_concurrency=provider.max_concurrency,
            requests_per_minute=provider.requests_per_minute,
            timeout=provider.timeout,
            max_attempts=provider.max_attempts,
            completions=api.ECHOES_LOGPROBS if provider.completions is None else provider.completions,
            echo_max_tokens=api.ECHO_MAX_TOKENS if provider.echo_max_tokens is None else provider.echo_max_tokens,
            json_reply=provider.json_reply,
        )

    @property
    def local_models(self) -> list[str]:
        """Models that jobs of this run load themselves; those behind an API have a version instead, which their replies give."""
        blocks = self.model_blocks.values()
        return sorted({block.model for block in blocks if block.provider == LOCAL})

    def draws(self, policy: str) -> int:
        """Responses of a policy to each prompt."""
        return 1 if policy == self.base_policy else self.draws_per_prompt

    def label_coverages(self, policy: str) -> list[str]:
        """Coverages at which a policy's responses are labelled, rising: each buys only what the one below lacks."""
        own = self.coverages if policy == self.base_policy else [self.oracle.target_coverage]
        return sorted({*own, self.oracle.truth_coverage} - {None}, key=float)

    def lower_coverage(self, policy: str, coverage: str) -> str | None:
        """The next lower coverage at which a policy's responses are labelled; None where there is none."""
        lower = [step for step in self.label_coverages(policy) if float(step) < float(coverage)]
        return lower[-1] if lower else None

    @property
    def graders(self) -> dict[str, Judge | Oracle]:
        """Judges and oracle by stage: `judge`, `judges/NAME`, `oracle`."""
        judge = {"judge": self.judge} if self.judge is not None else {}
        return judge | {f"judges/{name}": block for name, block in self.judges.items()} | {"oracle": self.oracle}

    @property
    def contexts(self) -> dict[str, Policy]:
        """Scoring contexts by name, each with one policy that stands for it."""
        return {
            policy.context: policy for policy in (self.policies[name] for name in reversed(self.policies_with_logprobs))
        }

    def samplings(self, context: str) -> list[dict[str, float]]:
        """Samplings to score in a context, sorted, without policy names."""
        policies = (self.policies[name] for name in self.policies_with_logprobs)
        found = {tuple(sorted(policy.sampling.items())) for policy in policies if policy.context == context}
        return [dict(sampling) for sampling in sorted(found)]
