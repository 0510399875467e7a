"""What has to fit together in a configuration whose keys are right one by one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from arena_cje import estimators
from arena_cje.config.records import LIKELIHOOD, LOCAL, REFERENCE
from arena_cje.config.scoring import missing_input
from arena_cje.data.reading import RESPONSE_LENGTH, Reading
from arena_cje.diagnostics import thresholds
from arena_cje.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arena_cje.config.records import Analysis, Config, Judge


# Files of results/coverage_*/ that are no estimates.
TAKEN = ("summary", "validation", "comparisons", "calibration_data", "cje_dataset", "diagnostics_dashboard")

# Judges are told apart in a row by judge_NAME, and these names are the format's own.
JUDGE_FIELDS = ("score", "scores", "distribution")


# What a request holds anyway, and what would change how its answer is read: no further parameter of a block.
OWN_PARAMETERS = {
    "model": "`model` of the block says it",
    "max_tokens": "`max_tokens` of the block says it",
    "max_completion_tokens": "`max_tokens` of the block says it",
    "messages": "the conversation is made from the prompts and the rubric",
    "prompt": "the text is made from the prompts and the template",
    "seed": "each request has its own; one seed for all would make all draws of a prompt the same",
    "n": "more answers than are read would be paid for; `draws_per_prompt` and a rubric's `samples` ask for more",
    "best_of": "more answers than are read would be paid for",
    "stream": "answers are read as a whole",
    "echo": "scoring asks for it",
    "logprobs": "who reads them asks for them",
    "top_logprobs": "who reads them asks for them",
    "stop": "the template says where a response ends",
}
SECRETS = re.compile(r"api[_-]?key|secret|authorization|password|headers|^(auth_|access_)?token$", re.IGNORECASE)


def check(config: Config) -> None:
    """Raise a `UserError` for the first thing that does not fit."""
    _check_variants(config)
    for name in config.estimators:
        if name not in config.variants:
            _check_estimator(name, config)
    _check_no_repeats("estimators", config.estimators)
    _check_no_repeats("coverages", config.coverages)
    thresholds.moved(config.verdict, where="config: `verdict`: ")
    _check_analyses(config)
    _check_brought(config)
    if config.logged_data is None:
        _check_no_stray_draws(config)
        _check_base(config)
        _check_providers(config)
        _check_extra(config)
        _check_ensembles(config)
        _check_judges(config)
        _check_models(config)
        _check_rubrics(config)
        _check_base_speaks(config)
        _check_limits(config)
        _check_contexts(config)
    _check_some_can_run(config)


def _defined(names: Iterable[str]) -> str:
    return f"; defined: {', '.join(names) or 'none'}"


def _check_no_repeats(key: str, values: list[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"config: `{key}` lists {value!r} more than once; each counts once, leave the others out")


def _check_estimator(name: str, config: Config) -> None:
    if name not in estimators.NAMES:
        known = config.analyses
        raise UserError(f"config: unknown estimator {name!r}{nearest(name, known)}; available: {', '.join(known)}")


def _check_variants(config: Config) -> None:
    for name, variant in config.variants.items():
        if name in estimators.NAMES:
            raise UserError(
                f"config: variant {name!r} has the name of an estimator, whose results it would replace; rename it"
            )
        if name in TAKEN:
            raise UserError(f"config: variant {name!r} has the name of another file beside the results; rename it")
        if variant.estimator not in estimators.NAMES:
            hint = nearest(variant.estimator, estimators.NAMES)
            raise UserError(
                f"config: `variants.{name}.estimator` is {variant.estimator!r}, which is no estimator{hint}; "
                f"available: {', '.join(estimators.NAMES)}"
            )


def _analyses(config: Config) -> dict[str, Analysis]:
    """The analysis and what each variant makes of it, by their places."""
    return {"analysis": config.analysis} | {
        f"variants.{name}": config.analysis.changed(own) for name, own in config.variants.items()
    }


def _check_analyses(config: Config) -> None:
    """Keys of the analysis that do not fit together, in it or in what a variant makes of it."""
    for place, analysis in _analyses(config).items():
        if analysis == type(analysis)():
            continue  # the defaults fit together, and each start of the workflow would wait for the check
        try:
            analysis.options(config.seed)
            Reading(analysis.covariates)
        except UserError as error:
            raise UserError(f"config: `{place}`: {error}") from None


def _check_brought(config: Config) -> None:
    """Data beside the logged responses, and what is said about them."""
    if config.analysis.scale is not None:
        if config.logged_data is None:
            raise UserError(
                "config: `analysis.scale` is given without `logged_data`; it says which range data brought along have, "
                "the workflow's own scores and labels lie in [0, 1]"
            )
        try:
            Reading(scale=config.analysis.scale)
        except UserError as error:
            raise UserError(f"config: `analysis.scale`: {error}") from None
    if config.probes is not None and (config.logged_data is None or config.fresh_draws is None):
        raise UserError(
            "config: `probes` is given without `logged_data` and `fresh_draws`; probes are labels of fresh draws brought "
            "along, give all three (`oracle.target_labels` labels the workflow's own draws)"
        )


def _check_some_can_run(config: Config) -> None:
    if any(map(config.can_run, config.estimators)):
        return
    lacking = " and ".join(dict.fromkeys(str(missing_input(name, config)) for name in config.estimators))
    raise UserError(
        f"config: none of `estimators` can run: {', '.join(config.estimators)} need {lacking}; or list an estimator that "
        "does without"
    )


def _check_no_stray_draws(config: Config) -> None:
    if config.fresh_draws is not None:
        raise UserError(
            "config: `fresh_draws` is given without `logged_data`; data brought along start from the logged responses, "
            "give both"
        )


def _check_base(config: Config) -> None:
    base, policies = config.base_policy, config.policies
    if base not in policies:
        hint = nearest(base, policies) + _defined(policies)
        raise UserError(f"config: base policy {base!r} is not under `policies`{hint}")
    if not config.targets:
        raise UserError(f"config: `policies` has only the base policy {base!r}; add at least one target policy")


def _check_base_speaks(config: Config) -> None:
    """A base policy that says one thing only is in order where no listed estimator weighs what it says."""
    base = config.base_policy
    weighing = [name for name in config.estimators if config.needs_weights(name)]
    if config.policies[base].temperature == 0 and config.has_logprobs(base) and weighing:
        raise UserError(
            f"config: base policy {base!r} has temperature 0: it says one thing only, so no weight can show what another "
            "policy would have said; give the base a temperature above 0, or list estimators without weights alone (direct)"
        )


def _check_providers(config: Config) -> None:
    if config.judge is None:
        raise UserError("config: `judge` is missing; give it a provider, a model and a rubric as in config/config.yaml")
    for own in (LOCAL, REFERENCE):
        if own in config.providers:
            raise UserError(f"config: `providers.{own}` has the name of a provider that is no API; rename it")
    for place, block in config.model_blocks.items():
        known = [LOCAL, *([REFERENCE] if place == "oracle" else []), *config.providers]
        if block.provider not in known:
            only = "; only the oracle may be a `reference`" if block.provider == REFERENCE else ""
            hint = only or nearest(block.provider, known) + _defined(known)
            raise UserError(f"config: `{place}.provider` is {block.provider!r}, which is not under `providers`{hint}")
        idle = [key for key in ("base_url", "api_key_env", "extra", "template") if getattr(block, key, None)]
        if idle and not block.hosted:
            raise UserError(
                f"config: `{place}.{idle[0]}` is given, but provider {block.provider!r} is no API and would not use it; "
                f"leave it out, or name a provider ({', '.join(config.providers) or 'none is under `providers`'})"
            )


def _check_extra(config: Config) -> None:
    """Further parameters go into requests and files as they are: none that is set already, and no key."""
    for place, block in config.model_blocks.items():
        for name in block.extra:
            if SECRETS.search(name):
                raise UserError(
                    f"config: `{place}.extra.{name}` looks like a key, and `extra` is written into files; put the key into an "
                    "environment variable and name that in `api_key_env`"
                )
            own = name in OWN_PARAMETERS and (
                name != "seed" or place.startswith("policies.")
            )  # one question may have one
            if own:
                raise UserError(f"config: `{place}.extra.{name}` cannot be given: {OWN_PARAMETERS[name]}; leave it out")


def _check_ensembles(config: Config) -> None:
    judges = {"judge": config.judge} | {f"judges.{name}": judge for name, judge in config.judges.items()}
    for place, judge in judges.items():
        for name in judge.ensemble:
            if name not in config.judges:
                hint = nearest(name, config.judges) + _defined(config.judges)
                raise UserError(f"config: `{place}.ensemble` names {name!r}, which is not under `judges`{hint}")
        if judge.ensemble and len(set(judge.ensemble)) < max(2, len(judge.ensemble)):
            raise UserError(
                f"config: `{place}.ensemble` is {list(judge.ensemble)}, expected two or more different names under `judges`"
            )
    for name in config.judges:
        _check_no_circle(name, config.judges, ())


def _check_no_circle(name: str, judges: Mapping[str, Judge], above: tuple[str, ...]) -> None:
    if name in above:
        raise UserError(
            f"config: judges {' -> '.join((*above, name))} are ensembles of each other in a circle; leave one of them out"
        )
    for member in judges[name].ensemble:
        _check_no_circle(member, judges, (*above, name))


def _check_judges(config: Config) -> None:
    """Names of judges, and where the analysis and its variants take their scores from."""
    for name in config.judges:
        if name in JUDGE_FIELDS:
            raise UserError(
                f"config: `judges.{name}`: rows would hold its score as judge_{name}, a field with a meaning of its own; "
                "rename it"
            )
    for place, analysis in _analyses(config).items():
        name = analysis.judge
        if name is not None and name not in config.judges:
            hint = nearest(name, config.judges) + _defined(config.judges)
            raise UserError(f"config: `{place}.judge` is {name!r}, which is not under `judges`{hint}")
        _check_known_covariates(place, analysis.covariates, config)


def _check_known_covariates(place: str, covariates: Iterable[str], config: Config) -> None:
    """Numbers that the workflow's own rows have: one that they lack would be missed after everything was paid for."""
    known = [RESPONSE_LENGTH, *(f"judge_{name}" for name in config.judges)]
    if not any(policy.hosted for policy in config.policies.values()):
        known.append("response_token_count")  # APIs tell no tokens
    for name in covariates:
        if name not in known:
            hint = nearest(name, known) or f"; they have {', '.join(known)}"
            raise UserError(f"config: `{place}`: covariate {name!r} is no number that the workflow's rows have{hint}")


def _check_models(config: Config) -> None:
    for place, block in config.model_blocks.items():
        if block.provider == REFERENCE:
            continue
        if block.model is None:
            where = f"its name at provider {block.provider!r}" if block.hosted else "a name under `models`"
            raise UserError(f"config: `{place}.model` is missing; give {where}")
        if not block.hosted and block.model not in config.models:
            hint = nearest(block.model, config.models) + _defined(config.models)
            raise UserError(f"config: `{place}.model` is {block.model!r}, which is not under `models`{hint}")


def _check_rubrics(config: Config) -> None:
    """The rubric that reads log probabilities of the response, where who is asked cannot tell them.

    It is the default, so that a judge behind an API without a rubric of its own would be one. Other files are looked into
    where they are used.
    """
    for place, block in config.model_blocks.items():
        if place.startswith("policies.") or not block.hosted or block.rubric != LIKELIHOOD:
            continue
        if not config.endpoint(block).completions:
            raise UserError(
                f"config: `{place}.rubric` is {LIKELIHOOD!r}, which needs log probabilities of given text, and provider "
                f"{block.provider!r} does not score given text; name a rubric that asks in words, a file of "
                "resources/judges/ or a path"
            )


def _check_limits(config: Config) -> None:
    limit = config.policies[config.base_policy].max_tokens
    for name in config.policies_with_logprobs:
        policy = config.policies[name]
        if policy.max_tokens != limit:
            raise UserError(
                f"config: policy {name!r} cuts responses at {policy.max_tokens} tokens and base policy "
                f"{config.base_policy!r} at {limit}; a cut response has no importance weight under another limit, "
                "give both the same `max_tokens`"
            )


def _check_contexts(config: Config) -> None:
    """A scoring context is named by its model and its prompt's file, so names that are too alike would share it."""
    told: dict[str, str] = {}
    for name in config.policies_with_logprobs:
        policy = config.policies[name]
        other = config.policies[told.setdefault(policy.context, name)]
        if (policy.model, policy.system_prompt) != (other.model, other.system_prompt):
            raise UserError(
                f"config: model {other.model!r} with system prompt {other.system_prompt!r} and model {policy.model!r} with "
                f"{policy.system_prompt!r} would share the name {policy.context!r} of a scoring context; rename one of the "
                "files or models"
            )
        _check_same_place(told[policy.context], name, config)
        if policy.context in config.policies:
            raise UserError(
                f"config: policy {policy.context!r} has the name of a scoring context (model and system prompt); rename it"
            )


def _check_same_place(one: str, other: str, config: Config) -> None:
    """Policies of one provider, model and system prompt are scored as one, so that they must ask alike."""
    first, second = config.policies[one], config.policies[other]
    for key in ("base_url", "template", "extra"):
        if getattr(first, key) != getattr(second, key):
            raise UserError(
                f"config: policies {one!r} and {other!r} would share the scoring context {first.context!r} (provider, model, "
                f"system prompt), but their `{key}` is {getattr(first, key)!r} and {getattr(second, key)!r}; make them agree, "
                "or copy the provider under another name for one of them"
            )
