"""What the calls to APIs will cost, before any is made: calls, tokens and money by stage and policy.

    usd = sum over stages and policies of rows * calls a row * usd(prompt tokens a call, completion tokens a call)

Each factor is a range [low, middle, high], and so is the product. The ranges are bounds for means, not quantiles: they are
meant to hold what a run will really take. Texts that are there are measured in characters, of which a token holds four,
give or take a factor of two; what nobody has written yet has between one token and `max_tokens`. What has been asked
already narrows the rest: with k calls of mean m and standard deviation s, the mean of r more lies within

    m -+ 6 s sqrt(1 / k + 1 / r)

(lengths are skewed, and a sample without long ones has a small mean and a small s at once).

A model without a known price is named and has no cost (None); the total of the others is then "at least".
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from arena_cje.calls.tokens import ECHO_CALLS, Range, estimate_tokens, exact, mean_range
from arena_cje.config.parse import find
from arena_cje.data import prompts as data_prompts
from arena_cje.data.coverage import golden_position
from arena_cje.grading.rubrics import load_rubric
from arena_cje.hosted import template

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.config.records import Config, Grading, Policy
    from arena_cje.grading.rubrics import Rubric
    from arena_cje.hosted.template import Template
    from arena_cje.money.prices import Prices

Key = tuple[str, str, str, str]  # stage, policy, provider, model


OVERHEAD = Range(0, 10, 60)  # tokens of a call that are in no text of ours: turns, and a system message that some add
REPLY = 375  # tokens of a reply in the middle: 1513 characters in the mean over 1000 chat prompts (a 70B model, Arena prompts)

# Calls a response: one that arrives damaged is asked for again, and may have been paid for.
WRITTEN = Range(0.9, 1.0, 1.2)

ENOUGH = 30  # calls from which the rest can be foretold: of fewer, some long ones may be missing altogether


@dataclass(frozen=True)
class Texts:
    """What will be sent, as far as it is there: prompts in their order, files by the name that the configuration has."""

    prompts: Sequence[str]
    system_prompts: Mapping[str, str] = field(default_factory=dict)
    templates: Mapping[str, Template] = field(default_factory=dict)
    rubrics: Mapping[str, Rubric] = field(default_factory=dict)
    responses: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by policy, those that are written


@dataclass(frozen=True)
class Asking:
    """What one stage asks for one policy: rows, calls a row, tokens a call."""

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
        return self.stage, self.policy, self.endpoint.provider, self.model


@dataclass(frozen=True)
class Line:
    """Totals of one stage and policy; `usd` is None where the model has no known price."""

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
        return self.stage, self.policy, self.provider, self.model


@dataclass(frozen=True)
class Spent:
    """Calls that were made: their tokens one by one, and what those with a known price cost."""

    prompt_tokens: tuple[int, ...] = ()
    completion_tokens: tuple[int, ...] = ()
    usd: float = 0.0
    unpriced: int = 0  # calls whose price is not known
    estimated: int = 0  # calls whose tokens are estimated from their texts, for want of the server's own count

    @property
    def calls(self) -> int:
        return len(self.prompt_tokens)


def gather(config: Config, source: Path | None, resources: Path) -> Texts:
    """The texts of a configuration: prompts from their source, files from the working directory or `resources`."""
    if config.logged_data is not None:
        return Texts(())
    graders = [block for block in config.graders.values() if block.hosted]
    writers = [policy for policy in config.policies.values() if policy.hosted]
    rubrics = {name: load_rubric(_file(name, "judges", resources)) for name in {one.rubric for one in graders}}
    told = {one.system_prompt for one in (*writers, *rubrics.values())} - {None}
    forms = {one.template for one in (*writers, *graders)} - {None}
    return Texts(
        prompts=[row["prompt"] for row in data_prompts.sample(source, n=config.n_prompts, seed=config.seed)],
        system_prompts={name: _file(name, "policies", resources).read_text(encoding="utf-8").strip() for name in told},
        templates={name: template.load(_file(name, "templates", resources)) for name in forms},
        rubrics=rubrics,
    )


def _file(name: str, kind: str, resources: Path) -> Path:
    return find(name, kind, workflow_resources=resources)


def plan(config: Config, texts: Texts) -> list[Asking]:
    """Every stage and policy that asks an API; local models and the reference oracle cost nothing and are not in it."""
    if config.logged_data is not None:
        return []
    return [*_written(config, texts), *_scored(config, texts), *_graded(config, texts), *_labelled(config, texts)]


def policies_asked(config: Config) -> list[str]:
    """The policies whose responses are made: of targets only where something uses their draws."""
    oracle = config.oracle
    used = any(map(config.needs_draws, config.estimators)) or oracle.target_coverage or oracle.truth_coverage
    return [name for name in config.policies if used or name == config.base_policy]


def _written(config: Config, texts: Texts) -> Iterator[Asking]:
    for name in policies_asked(config):
        policy = config.policies[name]
        if policy.hosted:
            # A greedy policy says the same again: its draws are one request.
            draws = config.draws(name) if policy.temperature else 1
            read = mean_range(estimate_tokens(_opening(policy, prompt, texts)) for prompt in texts.prompts) + OVERHEAD
            asked = config.endpoint(policy)
            yield Asking(
                "generate", name, asked, policy.model, draws * len(texts.prompts), WRITTEN, read, _reply(policy)
            )


def _opening(policy: Policy, prompt: str, texts: Texts) -> str:
    """What is sent for a response, as text."""
    told = texts.system_prompts[policy.system_prompt] if policy.system_prompt else None
    if policy.template:
        return texts.templates[policy.template].render(told, prompt)
    return f"{told or ''}{prompt}"


def _reply(policy: Policy) -> Range:
    """Tokens of a response that nobody has written yet."""
    return Range(1, min(policy.max_tokens, REPLY), policy.max_tokens)


def _scored(config: Config, texts: Texts) -> Iterator[Asking]:
    """Base responses sent to be scored, in each context behind an API that scores given text."""
    for name, policy in config.contexts.items():
        if policy.hosted:
            asked = config.endpoint(policy)
            read = mean_range(estimate_tokens(_opening(policy, prompt, texts)) for prompt in texts.prompts)
            read += _response(config, config.base_policy, texts) + OVERHEAD
            new = Range(0, asked.echo_max_tokens, asked.echo_max_tokens)
            yield Asking("score", name, asked, policy.model, len(texts.prompts), ECHO_CALLS, read, new)


def _graded(config: Config, texts: Texts) -> Iterator[Asking]:
    """Every response, by every judge that is asked itself."""
    for stage, judge in config.graders.items():
        if stage != "oracle" and judge.hosted and not judge.ensemble:
            for name in policies_asked(config):
                yield _grading(config, stage, judge, name, _asked_for(config, name, texts), texts)


def _asked_for(config: Config, policy: str, texts: Texts) -> list[str]:
    """The prompts of a policy's responses, in the order of the responses."""
    return [prompt for prompt in texts.prompts for _ in range(config.draws(policy))]


def _labelled(config: Config, texts: Texts) -> Iterator[Asking]:
    """The share of the responses that the oracle reads: coverages are nested, so the largest has all labels."""
    for name in policies_asked(config) if config.oracle.hosted else ():
        if steps := config.label_coverages(name):
            asked = _asked_for(config, name, texts)
            chosen = [prompt for k, prompt in enumerate(asked) if golden_position(k, float(steps[-1]))]
            yield _grading(config, "oracle", config.oracle, name, chosen, texts)


def _grading(config: Config, stage: str, grader: Grading, policy: str, shown: Sequence[str], texts: Texts) -> Asking:
    rubric = texts.rubrics[grader.rubric]
    endpoint = config.endpoint(grader)
    call = rubric.call_size(grader, endpoint, shown)
    system_prompt = estimate_tokens(texts.system_prompts[rubric.system_prompt]) if rubric.system_prompt else exact(0)
    read = system_prompt + _response(config, policy, texts) + OVERHEAD + call.prompt_tokens
    # Draws of a prompt that say the same are one call.
    calls = call.calls * Range(1 / config.draws(policy), 1, 1)
    return Asking(stage, policy, endpoint, str(grader.model), len(shown), calls, read, call.completion_tokens)


def _response(config: Config, policy: str, texts: Texts) -> Range:
    """Tokens of a policy's responses in the mean, read by another model: as written, the rest unseen."""
    seen = texts.responses.get(policy, ())
    n_all = len(texts.prompts) * config.draws(policy)
    unseen = _reply(config.policies[policy]) * Range(0.5, 1, 2)  # the other model's tokens may be longer or shorter
    share = min(1.0, len(seen) / n_all) if n_all else 0.0
    return unseen * (1 - share) + (mean_range(map(estimate_tokens, seen)) * share if seen else exact(0))


def estimate(askings: Iterable[Asking], prices: Prices) -> list[Line]:
    """Calls, tokens and money from the configuration alone."""
    return [_line(asking, asking.calls * asking.rows, prices) for asking in askings]


def expected(
    askings: Iterable[Asking], prices: Prices, spent: Mapping[Key, Spent], finished: Mapping[tuple[str, str], int]
) -> list[Line]:
    """What it will have been in the end: what was asked already, and an estimate of the rest.

    finished: rows of a stage and policy that are done.
    """
    lines = []
    for asking in askings:
        made = spent.get(asking.key, Spent())
        # Rows that are there without any call of this model are those of another one, and will be made anew.
        done = finished.get((asking.stage, asking.policy), 0) if made.calls else 0
        calls = asking.calls * _rows_left(asking, made.calls, done)
        rest = replace(
            asking,
            prompt_tokens=_narrowed(asking.prompt_tokens, made.prompt_tokens, calls.high),
            completion_tokens=_narrowed(asking.completion_tokens, made.completion_tokens, calls.high),
        )
        left = _line(rest, calls, prices)
        usd = None if left.usd is None else left.usd + exact(made.usd)
        lines.append(
            replace(
                left,
                calls=calls + exact(made.calls),
                prompt_tokens=left.prompt_tokens + exact(sum(made.prompt_tokens)),
                completion_tokens=left.completion_tokens + exact(sum(made.completion_tokens)),
                usd=usd,
            )
        )
    return lines


def _rows_left(asking: Asking, n_calls: int, done: int) -> Range:
    """Rows that are still to be asked for, by those that are done and by the calls that were made."""
    begun = [max(done, n_calls / calls) for calls in (asking.calls.low, asking.calls.middle, asking.calls.high)]
    return Range(*(max(0.0, asking.rows - rows) for rows in begun))


def _narrowed(prior: Range, seen: Sequence[int], n_rest: float) -> Range:
    """Mean tokens of the calls to come, by those that were made; prompts come in random order, so these are a sample."""
    if len(seen) < ENOUGH or n_rest < 1:
        return prior
    mean = statistics.fmean(seen)
    margin = 6 * statistics.stdev(seen) * math.sqrt(1 / len(seen) + 1 / n_rest)
    return Range(max(0.0, mean - margin), mean, mean + margin).within(prior)


def _line(asking: Asking, calls: Range, prices: Prices) -> Line:
    read, said = asking.prompt_tokens, asking.completion_tokens
    one = [
        prices.usd(asking.endpoint.api, asking.model, *tokens, base_url=asking.endpoint.base_url)
        for tokens in (
            (math.floor(read.low), math.floor(said.low)),
            (round(read.middle), round(said.middle)),
            (math.ceil(read.high), math.ceil(said.high)),
        )
    ]
    usd = None if None in one else calls * Range(*one)
    return Line(*asking.key, calls, calls * read, calls * said, usd)


def total(lines: Iterable[Line]) -> Line:
    """The sum; its money is that of the lines with a known price."""
    whole = Line("total", "", "", "", *[exact(0)] * 4)
    for line in lines:
        whole = replace(
            whole,
            calls=whole.calls + line.calls,
            prompt_tokens=whole.prompt_tokens + line.prompt_tokens,
            completion_tokens=whole.completion_tokens + line.completion_tokens,
            usd=whole.usd + (line.usd or exact(0)),
        )
    return whole


def unpriced(lines: Iterable[Line]) -> list[str]:
    """Models whose price is not known."""
    return sorted({line.model for line in lines if line.usd is None})
