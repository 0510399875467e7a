"""Checks of a configuration whose keys are valid one by one: names that must exist, and keys that must agree."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from arena_cje import estimators
from arena_cje.config.records.inputs import ForeignData
from arena_cje.config.records.values import HUMAN, LIKELIHOOD, LOCAL, REFERENCE
from arena_cje.config.scoring import missing_input
from arena_cje.data import convert
from arena_cje.data.coverage import has_label
from arena_cje.data.reading import RESPONSE_LENGTH, Reading
from arena_cje.diagnostics import thresholds
from arena_cje.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arena_cje.config.records import Config
    from arena_cje.config.records.analysis import Analysis
    from arena_cje.config.records.grading import Judge


# Files of results/coverage_*/ that are no estimates, so that no variant may have these names.
RESERVED_NAMES = (
    "summary",
    "data_report",
    "validation",
    "decision",
    "comparisons",
    "calibration_data",
    "cje_dataset",
    "diagnostics_dashboard",
)

# A row has the score of judge NAME as `judge_NAME`; with these names that would be another field of the CJE format.
JUDGE_FIELDS = ("score", "scores", "distribution")


# Parameters that a block may not have under `extra`, with the reason: each request sets them itself.
RESERVED_PARAMETERS = {
    "model": "`model` of the block sets it",
    "max_tokens": "`max_tokens` of the block sets it",
    "max_completion_tokens": "`max_tokens` of the block sets it, under this name where its provider has "
    "`token_limit: max_completion_tokens`",
    "messages": "the workflow makes the conversation from the prompts and the rubric",
    "prompt": "the workflow makes the text from the prompts and the template",
    "seed": "each request has its own seed (none with `seed: omit` of its provider); with a fixed seed all draws of a prompt "
    "would be equal",
    "n": "unread replies would cost money; `draws_per_prompt`, and `samples` of a rubric, set the number of replies",
    "best_of": "unread replies would cost money",
    "stream": "the workflow reads complete replies",
    "echo": "requests for log probabilities set it",
    "logprobs": "requests for log probabilities set it",
    "top_logprobs": "requests for log probabilities set it",
    "stop": "the template sets the end of a response",
}
SECRETS = re.compile(r"api[_-]?key|secret|authorization|password|headers|^(auth_|access_)?token$", re.IGNORECASE)


def check(config: Config) -> None:
    """Raise a `UserError` for the first error in a configuration."""
    _check_variants(config)
    _check_decision(config)
    for name in config.estimators:
        if name not in config.variants:
            _check_estimator(name, config)
    _check_no_repeats("estimators", config.estimators)
    _check_no_repeats("coverages", config.coverages)
    _check_no_repeats("looks.coverages", config.looks.coverages or [])
    thresholds.with_overrides(config.verdict, where="config: `verdict`: ")
    _check_analyses(config)
    _check_user_data(config)
    _check_label_design(config)
    if config.logged_data is None:
        _check_draws_have_data(config)
        _check_base_policy(config)
        _check_providers(config)
        _check_labeling(config)
        _check_looks(config)
        _check_extra(config)
        _check_ensembles(config)
        _check_judges(config)
        _check_models(config)
        _check_rubrics(config)
        _check_base_samples(config)
        _check_token_limits(config)
        _check_contexts(config)
    _check_an_estimator_can_run(config)


def _defined(names: Iterable[str]) -> str:
    return f"; defined: {', '.join(names) or 'none'}"


def _check_no_repeats(key: str, values: list[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"config: `{key}` lists {value!r} more than once; list it once")


def _check_estimator(name: str, config: Config) -> None:
    if name not in estimators.NAMES:
        analyses = config.analyses
        raise UserError(
            f"config: unknown estimator {name!r}{did_you_mean(name, analyses)}; available: {', '.join(analyses)}"
        )


def _check_variants(config: Config) -> None:
    for name, variant in config.variants.items():
        if name in estimators.NAMES:
            raise UserError(
                f"config: variant {name!r} has the name of an estimator, whose results it would replace; rename it"
            )
        if name in RESERVED_NAMES:
            raise UserError(f"config: variant {name!r} has the name of another file beside the results; rename it")
        if variant.estimator not in estimators.NAMES:
            hint = did_you_mean(variant.estimator, estimators.NAMES)
            raise UserError(
                f"config: `variants.{name}.estimator` is {variant.estimator!r}, which is no estimator{hint}; "
                f"available: {', '.join(estimators.NAMES)}"
            )


def _check_decision(config: Config) -> None:
    """The policies of a user's own data are those of the files, which are read later."""
    against = config.decision.against
    if config.logged_data is None and against is not None and against not in config.policies:
        raise UserError(
            f"config: `decision.against` is {against!r}, which is not under `policies`{did_you_mean(against, config.policies)}"
            f"{_defined(config.policies)}"
        )


def _analyses(config: Config) -> dict[str, Analysis]:
    """The options of the analysis and of each variant, by their place in the configuration."""
    return {"analysis": config.analysis} | {
        f"variants.{name}": config.analysis.with_variant(variant) for name, variant in config.variants.items()
    }


def _check_analyses(config: Config) -> None:
    """Options of the analysis and of each variant agree with each other."""
    for place, analysis in _analyses(config).items():
        if analysis == type(analysis)():
            continue  # the defaults agree; the check imports scipy, which would delay each start of the workflow
        try:
            analysis.options(config.seed)
            Reading(analysis.covariates)
        except UserError as error:
            raise UserError(f"config: `{place}`: {error}") from None


def _check_user_data(config: Config) -> None:
    """Keys about a user's own data need the files that they describe."""
    if isinstance(config.logged_data, ForeignData):
        _check_foreign_data(config, config.logged_data)
    for place, analysis in _analyses(config).items():
        for name in ("scale", "judge_scale", "label_scale"):
            scale = getattr(analysis, name)
            if scale is not None and config.logged_data is None:
                raise UserError(
                    f"config: `{place}.{name}` is set without `logged_data`; it is the range of scores or labels in your own "
                    "data, and the workflow's own are always in [0, 1]; leave it out"
                )
            try:
                Reading(**{name: scale})
            except UserError as error:
                raise UserError(f"config: `{place}.{name}`: {error}") from None
    if config.probes is not None and (config.logged_data is None or config.fresh_draws is None):
        raise UserError(
            "config: `probes` is set without `logged_data` and `fresh_draws`; probes are labels of your own fresh draws, so "
            "set all three (for the workflow's own draws, set `oracle.target_labels`)"
        )


def _check_foreign_data(config: Config, foreign: ForeignData) -> None:
    """Check that a block about files of another tool has a known format and that no other key repeats its settings."""
    if foreign.format not in convert.NAMES:
        hint = did_you_mean(foreign.format, convert.NAMES)
        raise UserError(
            f"config: `logged_data.format` is {foreign.format!r}{hint}; available: {', '.join(convert.NAMES)}"
        )
    if config.fresh_draws is not None:
        raise UserError(
            "config: `fresh_draws` is set together with a `logged_data` that is converted; the converted files contain the "
            "responses of all policies, so leave it out"
        )
    for name in ("scale", "judge_scale", "label_scale"):
        if getattr(config.analysis, name) is not None:
            raise UserError(
                f"config: `analysis.{name}` is set together with a `logged_data` that is converted to [0, 1]; set the scales "
                "of its scorers in `logged_data.scales`"
            )


def _check_an_estimator_can_run(config: Config) -> None:
    if any(map(config.can_run, config.estimators)):
        return
    missing = " and ".join(dict.fromkeys(str(missing_input(name, config)) for name in config.estimators))
    raise UserError(
        f"config: none of `estimators` can run: {', '.join(config.estimators)} need {missing}; or list an estimator that does "
        "not need them"
    )


def _check_draws_have_data(config: Config) -> None:
    if config.fresh_draws is not None:
        raise UserError(
            "config: `fresh_draws` is set without `logged_data`; your own fresh draws belong to your own logged responses, "
            "so set both"
        )


def _check_base_policy(config: Config) -> None:
    base, policies = config.base_policy, config.policies
    if base not in policies:
        hint = did_you_mean(base, policies) + _defined(policies)
        raise UserError(f"config: base policy {base!r} is not under `policies`{hint}")
    if not config.targets:
        raise UserError(f"config: `policies` has only the base policy {base!r}; add at least one target policy")


def _check_base_samples(config: Config) -> None:
    """A base policy at temperature 0 is valid only where no listed estimator uses weights."""
    base = config.base_policy
    weighted = [name for name in config.estimators if config.needs_weights(name)]
    if config.policies[base].temperature == 0 and config.has_logprobs(base) and weighted:
        raise UserError(
            f"config: base policy {base!r} has temperature 0, so it gives one response per prompt, and importance weights "
            "cannot represent the other responses of a target; set a temperature above 0, or use only estimators without "
            "weights (`direct`)"
        )


def _check_providers(config: Config) -> None:
    if config.judge is None:
        raise UserError("config: `judge` is missing; give it a provider, a model and a rubric as in config/config.yaml")
    for name in (LOCAL, REFERENCE, HUMAN):
        if name in config.providers:
            raise UserError(
                f"config: `providers.{name}` has a name that is reserved for a provider without an API; rename it"
            )
    for place, block in config.model_blocks.items():
        providers = [LOCAL, *([REFERENCE, HUMAN] if place == "oracle" else []), *config.providers]
        if block.provider not in providers:
            is_oracle_only = block.provider in (REFERENCE, HUMAN)
            only_oracle = f"; only the oracle may be `{block.provider}`" if is_oracle_only else ""
            hint = only_oracle or did_you_mean(block.provider, providers) + _defined(providers)
            raise UserError(f"config: `{place}.provider` is {block.provider!r}, which is not under `providers`{hint}")
        unused = [key for key in ("base_url", "api_key_env", "extra", "template") if getattr(block, key, None)]
        if unused and not block.hosted:
            raise UserError(
                f"config: `{place}.{unused[0]}` is set, but provider {block.provider!r} is not an API and ignores it; leave "
                f"it out, or name a provider ({', '.join(config.providers) or 'none is under `providers`'})"
            )


def _check_label_design(config: Config) -> None:
    """Labels by score are those that the workflow buys from an oracle other than people."""
    oracle = config.oracle
    if not oracle.is_by_score:
        return
    if config.logged_data is not None:
        raise UserError(
            "config: `oracle.design` is 'by_score', but `logged_data` already has its labels; leave it out, and put known "
            "labelling probabilities into the rows as `label_probability`"
        )
    if oracle.provider == HUMAN:
        raise UserError(
            "config: `oracle.design` is 'by_score', but people (`oracle.provider: human`) label batches of random prompts; use "
            "'uniform'"
        )
    if oracle.truth_coverage not in (None, "1.0"):
        raise UserError(
            f"config: `oracle.truth` is {oracle.truth_coverage}, but it needs a random share of the labels, and "
            "`oracle.design: by_score` does not label at random; set 'none' or 'all'"
        )


def _check_labeling(config: Config) -> None:
    """People label batches, whose votes come back in files."""
    oracle, labeling = config.oracle, config.labeling
    low, high = labeling.scale
    steps = (high - low) / labeling.step
    if steps < 1 or abs(steps - round(steps)) > 1e-9:
        raise UserError(
            f"config: `labeling.scale` is [{low:g}, {high:g}] with `step` {labeling.step:g}, expected a scale that is a "
            "whole number of steps"
        )
    if oracle.votes and not labeling.batches:
        raise UserError("config: `oracle.votes` is set without `labeling.batches`, to which the votes belong; set both")
    if oracle.provider == HUMAN and not labeling.batches:
        raise UserError(
            "config: `oracle.provider` is 'human' and `labeling.batches` is empty; name a batch and its size, such as "
            "`batches: {first: {coverage: 0.1}}`"
        )
    if config.validation_span is not None:
        _check_validation(config, *config.validation_span)
    for name, batch in labeling.batches.items():
        if batch.usd is not None and labeling.usd_per_vote is None:
            raise UserError(
                f"config: `labeling.batches.{name}.usd` needs the price of a vote; set `labeling.usd_per_vote`"
            )


def _check_validation(config: Config, begin: float, end: float) -> None:
    """People label prompts for validation beyond those for estimates."""
    if end <= begin:
        larger = "smaller `coverages`" if begin == 1 else f"a larger share, such as {min(1, 4 * begin):g}"
        raise UserError(
            f"config: `oracle.truth` is {end:g}, but the labels on up to {begin:g} of the prompts are used for estimates "
            f"(`coverages`, `oracle.target_labels`), so no prompt is left for validation; set {larger}"
        )
    reached = [batch.coverage for batch in config.labeling.batches.values()]
    if None not in reached and max(reached) <= begin:
        raise UserError(
            f"config: `oracle.truth` needs labels beyond {begin:g} of the prompts, but the largest of `labeling.batches` "
            f"ends at {max(reached):g}; add a batch with `coverage: {end:g}`"
        )


def _check_looks(config: Config) -> None:
    """The labels of the first planned look are within the limit of all looks."""
    limit, first = config.looks.max_labels, config.look_coverages[0]
    if limit is None:
        return
    shares = {
        policy: first if policy == config.base_policy else config.oracle.target_coverage(first)
        for policy in config.policies
    }
    n_labels = sum(
        has_label(prompt, float(share), draw=draw, draws=config.draws(policy))
        for policy, share in shares.items()
        if share
        for prompt in range(config.n_prompts)
        for draw in range(config.draws(policy))
    )
    if n_labels > limit:
        raise UserError(
            f"config: `looks.max_labels` is {limit}, but the first look, at coverage {first}, needs {n_labels} labels of "
            "base and targets; raise the limit, or start with a smaller coverage (`looks.coverages`)"
        )


def _check_extra(config: Config) -> None:
    """Parameters under `extra` go into requests and files as they are: they must not hold API keys or reserved parameters."""
    for place, block in config.model_blocks.items():
        for name in block.extra:
            if SECRETS.search(name):
                raise UserError(
                    f"config: `{place}.extra.{name}` looks like an API key, but `extra` is written to files; put the key "
                    "into an environment variable and set its name in `api_key_env`"
                )
            # A judge asks each question once, so one seed for all of its requests is valid.
            is_reserved = name in RESERVED_PARAMETERS and (name != "seed" or place.startswith("policies."))
            if is_reserved:
                raise UserError(
                    f"config: `{place}.extra.{name}` is not allowed: {RESERVED_PARAMETERS[name]}; leave it out"
                )
            value = getattr(block, name, None) if name in ("temperature", "top_p") else None
            if block.extra[name] is None and value not in (None, 1):
                raise UserError(
                    f"config: `{place}.extra.{name}: null` leaves `{name}` out of the requests, so the server uses its "
                    f"default, 1, but `{place}.{name}` is {value:g}; set it to 1, or remove it from `extra`"
                )


def _check_ensembles(config: Config) -> None:
    judges = {"judge": config.judge} | {f"judges.{name}": judge for name, judge in config.judges.items()}
    for place, judge in judges.items():
        for name in judge.ensemble:
            if name not in config.judges:
                hint = did_you_mean(name, config.judges) + _defined(config.judges)
                raise UserError(f"config: `{place}.ensemble` names {name!r}, which is not under `judges`{hint}")
        if judge.ensemble and len(set(judge.ensemble)) < max(2, len(judge.ensemble)):
            raise UserError(
                f"config: `{place}.ensemble` is {list(judge.ensemble)}, expected two or more different names under `judges`"
            )
    for name in config.judges:
        _check_no_cycle(name, config.judges, ())


def _check_no_cycle(name: str, judges: Mapping[str, Judge], chain: tuple[str, ...]) -> None:
    """No judge is a member of its own ensemble, directly or through other ensembles."""
    if name in chain:
        raise UserError(
            f"config: judges {' -> '.join((*chain, name))} are ensembles of each other in a cycle; remove one of them"
        )
    for member in judges[name].ensemble:
        _check_no_cycle(member, judges, (*chain, name))


def _check_judges(config: Config) -> None:
    """Names of judges are valid, and `judge` of the analysis and of each variant names one of them."""
    for name in config.judges:
        if name in JUDGE_FIELDS:
            raise UserError(
                f"config: `judges.{name}`: its scores would be stored as `judge_{name}`, which is another field of the CJE "
                "format; rename it"
            )
    for place, analysis in _analyses(config).items():
        name = analysis.judge
        if name is not None and name not in config.judges:
            hint = did_you_mean(name, config.judges) + _defined(config.judges)
            raise UserError(f"config: `{place}.judge` is {name!r}, which is not under `judges`{hint}")
        _check_covariates(place, analysis.covariates, config)


def _check_covariates(place: str, covariates: Iterable[str], config: Config) -> None:
    """Covariates are numbers in the workflow's own rows; without this check a wrong one fails after all calls are paid for."""
    available = [RESPONSE_LENGTH, *(f"judge_{name}" for name in config.judges)]
    if not any(policy.hosted for policy in config.policies.values()):
        available.append("response_token_count")  # an API returns no tokens of its responses
    for name in covariates:
        if name not in available:
            hint = did_you_mean(name, available) or f"; they have {', '.join(available)}"
            raise UserError(f"config: `{place}`: covariate {name!r} is not a number in the workflow's rows{hint}")


def _check_models(config: Config) -> None:
    for place, block in config.model_blocks.items():
        if block.provider in (REFERENCE, HUMAN):
            continue
        if block.model is None:
            expected = f"its name at provider {block.provider!r}" if block.hosted else "a name under `models`"
            raise UserError(f"config: `{place}.model` is missing; set {expected}")
        if not block.hosted and block.model not in config.models:
            hint = did_you_mean(block.model, config.models) + _defined(config.models)
            raise UserError(f"config: `{place}.model` is {block.model!r}, which is not under `models`{hint}")


def _check_rubrics(config: Config) -> None:
    """The likelihood rubric needs log probabilities of the response, which not every provider returns.

    It is the default rubric, so a hosted judge without a rubric would have it. Rubric files are checked where they are read.
    """
    for place, block in config.model_blocks.items():
        if place.startswith("policies.") or not block.hosted or block.rubric != LIKELIHOOD:
            continue
        if not config.endpoint(block).completions:
            raise UserError(
                f"config: `{place}.rubric` is {LIKELIHOOD!r}, which needs log probabilities of given text, but provider "
                f"{block.provider!r} returns none; choose a rubric that asks for an answer in text: a file of "
                "resources/judges/ or a path"
            )


def _check_token_limits(config: Config) -> None:
    limit = config.policies[config.base_policy].max_tokens
    for name in config.policies_with_logprobs:
        policy = config.policies[name]
        if policy.max_tokens != limit:
            raise UserError(
                f"config: policy {name!r} cuts responses at {policy.max_tokens} tokens and base policy "
                f"{config.base_policy!r} at {limit}; a response that was cut has no importance weight under another limit; "
                "give both the same `max_tokens`"
            )


def _check_contexts(config: Config) -> None:
    """Two scoring contexts must not have one name, which is made from the model and the file of the system prompt."""
    policy_of_context: dict[str, str] = {}
    for name in config.policies_with_logprobs:
        policy = config.policies[name]
        first_name = policy_of_context.setdefault(policy.context, name)
        first = config.policies[first_name]
        if (policy.model, policy.system_prompt) != (first.model, first.system_prompt):
            raise UserError(
                f"config: model {first.model!r} with system prompt {first.system_prompt!r} and model {policy.model!r} with "
                f"{policy.system_prompt!r} would share the name {policy.context!r} of a scoring context; rename one of the "
                "files or models"
            )
        _check_same_requests(first_name, name, config)
        if policy.context in config.policies:
            raise UserError(
                f"config: policy {policy.context!r} has the name of a scoring context (model and system prompt); rename it"
            )


def _check_same_requests(name: str, other_name: str, config: Config) -> None:
    """Two policies with one scoring context share its log probabilities, so their requests must not differ."""
    policy, other = config.policies[name], config.policies[other_name]
    for key in ("base_url", "template", "extra"):
        if getattr(policy, key) != getattr(other, key):
            raise UserError(
                f"config: policies {name!r} and {other_name!r} would share the scoring context {policy.context!r} (provider, "
                f"model, system prompt), but their `{key}` is {getattr(policy, key)!r} and {getattr(other, key)!r}; make them "
                "equal, or copy the provider under another name for one of them"
            )
