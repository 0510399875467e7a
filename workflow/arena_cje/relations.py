"""What has to fit together in a configuration whose keys are right one by one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

from arena_cje import estimators
from arena_cje.diagnostics.thresholds import Thresholds
from arena_cje.errors import UserError, nearest

if TYPE_CHECKING:
    from arena_cje.config import Config


def check(config: Config) -> None:
    """Raise a `UserError` for the first thing that does not fit."""
    for name in config.estimators:
        estimators.get(name)
    _check_thresholds(config)
    if config.logged_data is None:
        _check_no_stray_draws(config)
        _check_base(config)
        _check_models(config)
        _check_limits(config)
        _check_contexts(config)


def _defined(names: Iterable[str]) -> str:
    return f"; defined: {', '.join(names) or 'none'}"


def _check_thresholds(config: Config) -> None:
    known = [field.name for field in fields(Thresholds)]
    for name in config.verdict:
        if name not in known:
            raise UserError(
                f"config: unknown threshold `verdict.{name}`{nearest(name, known)}; known: {', '.join(known)}"
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
    """A scoring context is named by its files, so two files of one name would share it."""
    file_of: dict[str, str | None] = {}
    for policy in config.policies.values():
        first = file_of.setdefault(policy.context, policy.system_prompt)
        if first != policy.system_prompt:
            raise UserError(
                f"config: system prompts {first!r} and {policy.system_prompt!r} have the same file name, which names the "
                f"scoring context {policy.context!r}; rename one of the files"
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
            sentence = (
                f"the base policy samples from a nucleus of {base.top_p:g} and this policy from {policy.top_p:g}: what "
                "only this policy would say is not in the logged responses"
            )
            found[name] = ("support_exceeds_base", sentence, "caution" if wider else "ok")
    return found
