"""Estimates what the calls to APIs will cost: calls, tokens and US dollars by stage and policy.

    usd = sum over stages and policies of   rows * calls a row * price(prompt tokens a call, completion tokens a call)

Each factor is a range [low, middle, high], and so is the product. The bounds are bounds of means, no quantiles; a run's real
numbers should lie within them. Tokens of a known text are estimated from its characters (`calls.tokens`); a response that is
not written yet has between one token and `max_tokens`. Calls that were already made narrow the estimate of the remaining ones:
if k calls have mean m and standard deviation s, the mean of r further calls is assumed to lie within

    m -+ 6 s sqrt(1 / k + 1 / r)

The factor 6 is large because lengths are skewed: a sample without long texts has both a small mean and a small s.

A model without a known price has no cost (None) and is named; the total of the others is then a lower bound.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from arena_cje.calls.tokens import ECHO_CALLS, Range, estimate_tokens, exact, mean_range
from arena_cje.config.parse import find_file
from arena_cje.config.records.values import is_text
from arena_cje.data import prompts as data_prompts
from arena_cje.data.coverage import has_label
from arena_cje.files import read_text
from arena_cje.grading.rubrics import load_rubric
from arena_cje.hosted import template

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.config.records import Config
    from arena_cje.config.records.grading import Grading
    from arena_cje.config.records.models import Policy
    from arena_cje.grading.rubrics import Rubric
    from arena_cje.hosted.template import Template
    from arena_cje.money.prices import Prices

Key = tuple[str, str, str, str]  # stage, policy, provider, model


ADDED_TOKENS = Range(
    0, 10, 60
)  # tokens of a call besides our texts: chat markup, and a system message that some APIs add
RESPONSE_TOKENS = (
    375  # best guess for a response: mean of 1513 characters over 1000 chat prompts (a 70B model, Arena prompts)
)

# Calls for one response: an unreadable reply is requested again and may have been paid for.
CALLS_PER_RESPONSE = Range(0.9, 1.0, 1.2)

MIN_CALLS = 30  # calls from which the remaining ones are predicted; a smaller sample may lack the long texts


@dataclass(frozen=True)
class Texts:
    """The texts of the requests, as far as they exist: prompts in their order, and files by the configuration's name."""

    prompts: Sequence[str]
    system_prompts: Mapping[str, str] = field(default_factory=dict)
    templates: Mapping[str, Template] = field(default_factory=dict)
    rubrics: Mapping[str, Rubric] = field(default_factory=dict)
    responses: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by policy, those that are written so far


@dataclass(frozen=True)
class CallPlan:
    """The calls of one stage for one policy: number of rows, calls for each row, tokens for each call."""

    stage: str
    policy: str
    endpoint: Endpoint
    model: str
    rows: int
    calls: Range
    prompt_tokens: Range
    completion_tokens: Range

    @property
    def key(self) -> Key:
        """Stage, policy, provider and model."""
        return self.stage, self.policy, self.endpoint.provider, self.model


@dataclass(frozen=True)
class CostLine:
    """Total calls, tokens and US dollars of one stage and policy; `usd` is None where the model's price is unknown."""

    stage: str
    policy: str
    provider: str
    model: str
    calls: Range
    prompt_tokens: Range
    completion_tokens: Range
    usd: Range | None

    @property
    def key(self) -> Key:
        """Stage, policy, provider and model."""
        return self.stage, self.policy, self.provider, self.model


@dataclass(frozen=True)
class Spending:
    """Calls that were made: the tokens of each call, and the cost of those with a known price."""

    prompt_tokens: tuple[int, ...] = ()
    completion_tokens: tuple[int, ...] = ()
    usd: float = 0.0
    n_without_price: int = 0  # calls of models without a known price
    n_estimated: int = 0  # calls whose tokens are estimated because the server reported no usable count

    @property
    def calls(self) -> int:
        """Number of calls."""
        return len(self.prompt_tokens)


def load_texts(config: Config, pool: Path | None, resources: Path) -> Texts:
    """The texts of a configuration. pool: file of the prompts in their order; resources: the workflow's folder of files."""
    if config.logged_data is not None:
        return Texts(())
    graders = [block for block in config.graders.values() if block.hosted]
    policies = [policy for policy in config.policies.values() if policy.hosted]
    rubrics = {name: load_rubric(_path(name, "judges", resources)) for name in {block.rubric for block in graders}}
    system_prompts = {block.system_prompt for block in (*policies, *rubrics.values())} - {None}
    templates = {block.template for block in (*policies, *graders)} - {None}
    return Texts(
        prompts=[row["prompt"] for row in data_prompts.read(pool, 0, config.n_prompts)],
        system_prompts={
            name: (name if is_text(name) else read_text(_path(name, "policies", resources))).strip()
            for name in system_prompts
        },
        templates={name: template.load(_path(name, "templates", resources)) for name in templates},
        rubrics=rubrics,
    )


def _path(name: str, kind: str, resources: Path) -> Path:
    return find_file(name, kind, workflow_resources=resources)


def plan_calls(config: Config, texts: Texts) -> list[CallPlan]:
    """The calls of every stage and policy that uses an API. Local models and the reference oracle cost nothing."""
    if config.logged_data is not None:
        return []
    return [
        *_generation_calls(config, texts),
        *_logprob_calls(config, texts),
        *_judge_calls(config, texts),
        *_oracle_calls(config, texts),
    ]


def policies_with_responses(config: Config) -> list[str]:
    """Policies whose responses are generated: the base policy, and the targets where a later stage uses their draws."""
    oracle = config.oracle
    has_labels = oracle.target_labels or oracle.truth_coverage or oracle.is_by_score
    uses_draws = any(map(config.needs_draws, config.estimators)) or has_labels
    return [name for name in config.policies if uses_draws or name == config.base_policy]


def _generation_calls(config: Config, texts: Texts) -> Iterator[CallPlan]:
    """Requests for the responses of each hosted policy."""
    for name in policies_with_responses(config):
        policy = config.policies[name]
        if policy.hosted:
            # All draws of a greedy policy are equal, and one request.
            draws = config.draws(name) if policy.temperature else 1
            yield CallPlan(
                stage="generate",
                policy=name,
                endpoint=config.endpoint(policy),
                model=policy.model,
                rows=draws * len(texts.prompts),
                calls=CALLS_PER_RESPONSE,
                prompt_tokens=_mean_prompt_tokens(policy, texts) + ADDED_TOKENS,
                completion_tokens=_unwritten_response_tokens(policy),
            )


def _mean_prompt_tokens(policy: Policy, texts: Texts) -> Range:
    """Mean tokens of a policy's prompts, with system prompt and template."""
    return mean_range(estimate_tokens(_prompt_text(policy, prompt, texts)) for prompt in texts.prompts)


def _prompt_text(policy: Policy, prompt: str, texts: Texts) -> str:
    """The text that a policy receives for a prompt."""
    system_prompt = texts.system_prompts[policy.system_prompt] if policy.system_prompt else None
    if policy.template:
        return texts.templates[policy.template].render(system_prompt, prompt)
    return f"{system_prompt or ''}{prompt}"


def _unwritten_response_tokens(policy: Policy) -> Range:
    """Tokens of a response that is not written yet."""
    return Range(1, min(policy.max_tokens, RESPONSE_TOKENS), policy.max_tokens)


def _logprob_calls(config: Config, texts: Texts) -> Iterator[CallPlan]:
    """Requests for log probabilities of the base responses, in each hosted scoring context."""
    for context, policy in config.contexts.items():
        if policy.hosted:
            endpoint = config.endpoint(policy)
            response_tokens = _mean_response_tokens(config, config.base_policy, texts)
            yield CallPlan(
                stage="score",
                policy=context,
                endpoint=endpoint,
                model=policy.model,
                rows=len(texts.prompts),
                calls=ECHO_CALLS,
                prompt_tokens=_mean_prompt_tokens(policy, texts) + response_tokens + ADDED_TOKENS,
                completion_tokens=Range(0, endpoint.echo_max_tokens, endpoint.echo_max_tokens),
            )


def _judge_calls(config: Config, texts: Texts) -> Iterator[CallPlan]:
    """Grades of every response by each hosted judge; an ensemble has no calls beside those of its members."""
    for stage, judge in config.graders.items():
        if stage != "oracle" and judge.hosted and not judge.ensemble:
            for policy in policies_with_responses(config):
                prompts = _prompts_of_responses(config, policy, texts)
                yield _grading_calls(config, stage, judge, policy, prompts, texts)


def _prompts_of_responses(config: Config, policy: str, texts: Texts) -> list[str]:
    """The prompt of each response of a policy, in the order of the responses."""
    return [prompt for prompt in texts.prompts for _ in range(config.draws(policy))]


def _oracle_calls(config: Config, texts: Texts) -> Iterator[CallPlan]:
    """Labels of a hosted oracle. Coverages are nested, so the largest one has all labels."""
    for policy in policies_with_responses(config) if config.oracle.hosted else ():
        if coverages := config.label_coverages(policy):
            largest, draws = float(coverages[-1]), config.draws(policy)
            labelled = [
                prompt
                for k, prompt in enumerate(texts.prompts)
                for draw in range(draws)
                if has_label(k, largest, draw=draw, draws=draws)
            ]
            yield _grading_calls(config, "oracle", config.oracle, policy, labelled, texts)


def _grading_calls(
    config: Config, stage: str, grader: Grading, policy: str, prompts: Sequence[str], texts: Texts
) -> CallPlan:
    """Grades of a policy's responses to these prompts by one judge or oracle."""
    rubric = texts.rubrics[grader.rubric]
    endpoint = config.endpoint(grader)
    call = rubric.call_size(grader, endpoint, prompts)
    system_prompt = estimate_tokens(texts.system_prompts[rubric.system_prompt]) if rubric.system_prompt else exact(0)
    response_tokens = _mean_response_tokens(config, policy, texts)
    return CallPlan(
        stage=stage,
        policy=policy,
        endpoint=endpoint,
        model=str(grader.model),
        rows=len(prompts),
        # Equal draws of one prompt share one call.
        calls=call.calls * Range(1 / config.draws(policy), 1, 1),
        prompt_tokens=system_prompt + response_tokens + ADDED_TOKENS + call.prompt_tokens,
        completion_tokens=call.completion_tokens,
    )


def _mean_response_tokens(config: Config, policy: str, texts: Texts) -> Range:
    """Mean tokens of a policy's responses for another model: measured for those that are written, estimated for the others."""
    written = texts.responses.get(policy, ())
    n_responses = len(texts.prompts) * config.draws(policy)
    # The other model's tokenizer may make longer or shorter tokens.
    unwritten = _unwritten_response_tokens(config.policies[policy]) * Range(0.5, 1, 2)
    share = min(1.0, len(written) / n_responses) if n_responses else 0.0
    measured = mean_range(map(estimate_tokens, written)) * share if written else exact(0)
    return unwritten * (1 - share) + measured


def estimate_costs(plans: Iterable[CallPlan], prices: Prices) -> list[CostLine]:
    """Calls, tokens and US dollars of a run that starts from nothing."""
    return [_cost_line(plan, plan.calls * plan.rows, prices) for plan in plans]


def forecast_costs(
    plans: Iterable[CallPlan],
    prices: Prices,
    spending: Mapping[Key, Spending],
    finished_rows: Mapping[tuple[str, str], int],
) -> list[CostLine]:
    """Calls, tokens and US dollars at the end of the run: those of the calls so far and an estimate of the remaining ones.

    finished_rows: number of finished rows by stage and policy.
    """
    lines = []
    for plan in plans:
        so_far = spending.get(plan.key, Spending())
        # Finished rows without a call of this model come from another model, and will be made again.
        n_finished = finished_rows.get((plan.stage, plan.policy), 0) if so_far.calls else 0
        calls = plan.calls * _remaining_rows(plan, so_far.calls, n_finished)
        remaining_plan = replace(
            plan,
            prompt_tokens=_predicted_mean(plan.prompt_tokens, so_far.prompt_tokens, calls.high),
            completion_tokens=_predicted_mean(plan.completion_tokens, so_far.completion_tokens, calls.high),
        )
        remaining = _cost_line(remaining_plan, calls, prices)
        lines.append(
            replace(
                remaining,
                calls=calls + exact(so_far.calls),
                prompt_tokens=remaining.prompt_tokens + exact(sum(so_far.prompt_tokens)),
                completion_tokens=remaining.completion_tokens + exact(sum(so_far.completion_tokens)),
                usd=None if remaining.usd is None else remaining.usd + exact(so_far.usd),
            )
        )
    return lines


def _remaining_rows(plan: CallPlan, n_calls: int, n_finished: int) -> Range:
    """Rows without a grade or response so far, from the number of finished rows and the number of calls."""
    started = [max(n_finished, n_calls / calls) for calls in (plan.calls.low, plan.calls.middle, plan.calls.high)]
    return Range(*(max(0.0, plan.rows - rows) for rows in started))


def _predicted_mean(prior: Range, tokens: Sequence[int], n_remaining: float) -> Range:
    """Mean tokens of the remaining calls from those of the calls so far: prompts are in random order, so these are a sample."""
    if len(tokens) < MIN_CALLS or n_remaining < 1:
        return prior
    mean = statistics.fmean(tokens)
    margin = 6 * statistics.stdev(tokens) * math.sqrt(1 / len(tokens) + 1 / n_remaining)
    return Range(max(0.0, mean - margin), mean, mean + margin).clip(prior)


def _cost_line(plan: CallPlan, calls: Range, prices: Prices) -> CostLine:
    prompt, completion = plan.prompt_tokens, plan.completion_tokens
    usd_per_call = [
        prices.usd(plan.endpoint.api, plan.model, *tokens, base_url=plan.endpoint.base_url)
        for tokens in (
            (math.floor(prompt.low), math.floor(completion.low)),
            (round(prompt.middle), round(completion.middle)),
            (math.ceil(prompt.high), math.ceil(completion.high)),
        )
    ]
    usd = None if None in usd_per_call else calls * Range(*usd_per_call)
    return CostLine(*plan.key, calls, calls * prompt, calls * completion, usd)


def total_line(lines: Iterable[CostLine]) -> CostLine:
    """The sum of the lines; its US dollars are those of the lines with a known price."""
    total = CostLine("total", "", "", "", *[exact(0)] * 4)
    for line in lines:
        total = replace(
            total,
            calls=total.calls + line.calls,
            prompt_tokens=total.prompt_tokens + line.prompt_tokens,
            completion_tokens=total.completion_tokens + line.completion_tokens,
            usd=total.usd + (line.usd or exact(0)),
        )
    return total


def models_without_price(lines: Iterable[CostLine]) -> list[str]:
    """Models whose price is unknown."""
    return sorted({line.model for line in lines if line.usd is None})
