"""What has to fit together in a configuration whose keys are right one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from arena_cje import estimators
from arena_cje.diagnostics import thresholds
from arena_cje.errors import UserError, nearest

if TYPE_CHECKING:
    from arena_cje.config import Config


def check(config: Config) -> None:
    """Raise a `UserError` for the first thing that does not fit."""
    for name in config.estimators:
        estimators.get(name)
    _check_no_repeats("estimators", config.estimators)
    _check_no_repeats("coverages", config.coverages)
    thresholds.moved(config.verdict, where="config: `verdict`: ")
    _check_target_labels(config)
    if config.logged_data is None:
        _check_no_stray_draws(config)
        _check_base(config)
        _check_models(config)
        _check_limits(config)
        _check_contexts(config)


def _defined(names: Iterable[str]) -> str:
    return f"; defined: {', '.join(names) or 'none'}"


def _check_no_repeats(key: str, values: list[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"config: `{key}` lists {value!r} more than once; each counts once, leave the others out")


def _check_target_labels(config: Config) -> None:
    # Bought or masked labels that no estimator reads would look as if they had counted.
    if config.oracle.target_labels > 0:
        raise UserError(
            f"config: `oracle.target_labels` is {config.oracle.target_labels:g}, but no estimator of this version uses labels "
            "of the targets' own responses; leave it at 0.0 (`oracle.truth` labels them for validation.csv)"
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
    if policies[base].temperature == 0:
        raise UserError(
            f"config: base policy {base!r} has temperature 0: it says one thing only, so no weight can show what another "
            "policy would have said; give the base a temperature above 0"
        )


def _check_models(config: Config) -> None:
    if config.judge is None:
        raise UserError("config: `judge` is missing; give it a provider, a model and a rubric as in config/config.yaml")
    users = {f"policies.{name}": policy.model for name, policy in config.policies.items()}
    for user, model in (users | {"judge": config.judge.model}).items():
        if model not in config.models:
            hint = nearest(model, config.models) + _defined(config.models)
            raise UserError(f"config: `{user}.model` is {model!r}, which is not under `models`{hint}")


def _check_limits(config: Config) -> None:
    limit = config.policies[config.base_policy].max_tokens
    for name, policy in config.policies.items():
        if policy.max_tokens != limit:
            raise UserError(
                f"config: policy {name!r} cuts responses at {policy.max_tokens} tokens and base policy "
                f"{config.base_policy!r} at {limit}; a cut response has no importance weight under another limit, "
                "give both the same `max_tokens`"
            )


def _check_contexts(config: Config) -> None:
    """A scoring context is named by its model and its prompt's file, so names that are too alike would share it."""
    told: dict[str, tuple[str, str | None]] = {}
    for policy in config.policies.values():
        own = (policy.model, policy.system_prompt)
        first = told.setdefault(policy.context, own)
        if first != own:
            raise UserError(
                f"config: model {first[0]!r} with system prompt {first[1]!r} and model {own[0]!r} with {own[1]!r} would "
                f"share the name {policy.context!r} of a scoring context; rename one of the files or models"
            )
        if policy.context in config.policies:
            raise UserError(
                f"config: policy {policy.context!r} has the name of a scoring context (model and system prompt); rename it"
            )


def cautions(config: Config) -> dict[str, tuple[str, str, str]]:
    """Targets that can say what the base never says: (code, sentence, level) by policy.

    A nucleus leaves the rest of the vocabulary out, so importance weights cannot see what only the target would say.
    """
    base = config.policies[config.base_policy]
    found = {}
    for name in config.targets:
        policy = config.policies[name]
        same = (policy.context, policy.sampling) == (base.context, base.sampling)
        if base.top_p < 1 and not same:
            wider = policy.top_p > base.top_p
            whose = f"this policy's of {policy.top_p:g}" if wider else "this policy's own"
            sentence = (
                f"the base policy's nucleus of {base.top_p:g} leaves out tokens that are in {whose}: what only this policy "
                "would say is not in the logged responses"
            )
            found[name] = ("support_exceeds_base", sentence, "caution" if wider else "ok")
    return found
