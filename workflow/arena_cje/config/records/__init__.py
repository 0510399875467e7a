"""The configuration as frozen records: each key with its type, default and description.

The descriptions of the fields are those of config/README.md and of the JSON schema (`config.documents`). `config.parse` makes a
`Config` from YAML, `config.checks` checks that its keys agree with each other.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from arena_cje import estimators
from arena_cje.calls import apis
from arena_cje.calls.endpoint import Endpoint
from arena_cje.config.records.analysis import Ablation, Analysis, Decision, Looks, Planning, Variant
from arena_cje.config.records.grading import Judge, Labeling, Oracle
from arena_cje.config.records.inputs import LoggedData, Prompts
from arena_cje.config.records.models import Model, ModelBlock, Policy, Price, Provider
from arena_cje.config.records.values import HUMAN, LOCAL, SAME, Coverage, Name, Record


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
