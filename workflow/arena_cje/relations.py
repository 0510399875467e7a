"""What has to fit together in a configuration whose keys are right one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from arena_cje import estimators
from arena_cje.cje_fields import check_covariates, check_scale
from arena_cje.diagnostics import thresholds
from arena_cje.errors import UserError, nearest

if TYPE_CHECKING:
    from arena_cje.config import Config

# Files of results/coverage_*/ that are no estimates.
TAKEN = ("summary", "validation", "comparisons", "calibration_data", "cje_dataset", "diagnostics_dashboard")


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
    _check_some_can_run(config)
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


def _check_analyses(config: Config) -> None:
    """Keys of the analysis that do not fit together, in it or in what a variant makes of it."""
    analyses = {"analysis": config.analysis}
    analyses |= {f"variants.{name}": config.analysis.changed(own) for name, own in config.variants.items()}
    for place, analysis in analyses.items():
        if analysis == type(analysis)():
            continue  # the defaults fit together, and each start of the workflow would wait for the check
        try:
            analysis.options(config.seed)
            check_covariates(analysis.covariates)
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
            check_scale(config.analysis.scale)
        except UserError as error:
            raise UserError(f"config: `analysis.scale`: {error}") from None
    if config.probes is not None and (config.logged_data is None or config.fresh_draws is None):
        raise UserError(
            "config: `probes` is given without `logged_data` and `fresh_draws`; probes are labels of fresh draws brought "
            "along, give all three (`oracle.target_labels` labels the workflow's own draws)"
        )


def _check_some_can_run(config: Config) -> None:
    if not any(map(config.can_run, config.estimators)):
        raise UserError(
            f"config: none of `estimators` can run: {', '.join(config.estimators)} need fresh draws of the target "
            "policies, and none were brought along; add --config fresh_draws=DIR, or list an estimator that does without"
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
