"""Which policies can have importance weights, and why the others cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arena_cje.config.records import Config, Policy


Caution = tuple[str, str, str]  # code, sentence, level of a reason


# What a request's further parameters must be, where they are given, for text to come from the model's plain distribution.
PLAIN = {
    "top_k": (0, -1, None),
    "min_p": (0, None),
    "typical_p": (1, None),
    "top_a": (0, None),
    "mirostat_target": (None,),
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "repetition_penalty": (1, None),
    "repeat_penalty": (1, None),
    "logit_bias": ({}, None),
    "temperature": (1, None),
    "top_p": (1, None),
    "mirostat": (0, None),
    "mirostat_mode": (0, None),
    "tfs_z": (1, None),
    "xtc_probability": (0, None),
    "dry_multiplier": (0, None),
    "no_repeat_ngram_size": (0, None),
    "min_tokens": (0, None),
    "ignore_eos": (False, None),
    "use_beam_search": (False, None),
    "stop_token_ids": ([], None),
    "bad_words": ([], None),
    "allowed_token_ids": (None,),
    "grammar": (None,),
    "response_format": ({"type": "text"}, None),
    "structured_outputs": (None,),
    "guided_json": (None,),
    "guided_regex": (None,),
    "guided_choice": (None,),
    "guided_grammar": (None,),
}


def missing_input(name: str, config: Config) -> str | None:
    """What an estimator or variant needs and does not have, and why; None where it can run."""
    if config.needs_draws(name) and not config.has_draws:
        return "fresh draws of the target policies, and none were brought along; add --config fresh_draws=DIR"
    if not config.needs_weights(name) or config.has_weights:
        return None
    base = config.base_policy
    if why := why_no_logprobs(base, config):
        return f"log probabilities of the base policy's responses, and there are none under {base!r}: {why}"
    told = "; ".join(f"{target!r}: {why_no_logprobs(target, config)}" for target in config.targets)
    return f"log probabilities of the base responses under a target policy, and there are none ({told})"


def why_no_logprobs(name: str, config: Config) -> str | None:
    """Why there are no log probabilities under a policy, naming its provider; None where there are some."""
    policy = config.policies[name]
    if not config.has_logprobs(name):
        if not config.endpoint(policy).completions:
            return f"provider {policy.provider!r} does not score given text (it can chat alone)"
        return f"it chats with provider {policy.provider!r}, which scores text of a `template` alone"
    if name == config.base_policy and policy.temperature == 0:
        return "at temperature 0 it says one thing only, so that no weight can show what another policy would have said"
    return None


def cautions(config: Config) -> dict[str, list[Caution]]:
    """What stands against weighing the base responses for a target, by policy: (code, sentence, level) each."""
    found = {name: list(_against(name, config)) for name in config.targets}
    return {name: reasons for name, reasons in found.items() if reasons}


def _against(name: str, config: Config) -> Iterator[Caution]:
    base, policy = config.policies[config.base_policy], config.policies[name]
    if why := why_no_logprobs(config.base_policy, config):
        yield _unscored(config.base_policy, why)
        return
    if why := why_no_logprobs(name, config):
        yield _unscored(name, why)
        return
    same = (policy.context, policy.sampling) == (base.context, base.sampling)
    if base.top_p < 1 and not same:
        # A nucleus leaves the rest of the vocabulary out: importance weights cannot see what only the target would say.
        wider = policy.top_p > base.top_p
        whose = f"this policy's of {policy.top_p:g}" if wider else "this policy's own"
        sentence = (
            f"the base policy's nucleus of {base.top_p:g} leaves out tokens that are in {whose}: what only this policy "
            "would say is not in the logged responses"
        )
        yield "support_exceeds_base", sentence, "caution" if wider else "ok"
    others = [told for whose, one in ((name, policy), (config.base_policy, base)) if (told := _bent(whose, one))]
    if others and not same:
        sentence = (
            f"log probabilities of an API are those at temperature 1 without truncation: {' and '.join(others)}, so that "
            "weights would be of other distributions than responses were drawn from"
        )
        yield "api_log_probabilities", sentence, "refuse"


def _unscored(name: str, why: str) -> Caution:
    return "no_log_probabilities", f"no log probabilities under policy {name!r}: {why}", "refuse"


def non_propensity(config: Config) -> list[str]:
    """Scored policies behind APIs whose log probabilities are not those of the distribution that they sample from."""
    if config.logged_data is not None:
        return []
    return [name for name in config.policies_with_logprobs if _bent(name, config.policies[name])]


def _bent(name: str, policy: Policy) -> str | None:
    """How a policy behind an API samples, unless from the distribution whose log probabilities the API tells."""
    if not policy.hosted:
        return None
    moved = {key: value for key, value in policy.sampling.items() if value != 1}
    moved |= {key: value for key, value in policy.extra.items() if key in PLAIN and value not in PLAIN[key]}
    told = ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in moved.items()
    )
    return f"{name!r} samples with {told}" if moved else None


def notes(config: Config) -> list[str]:
    """What a configuration that is in order leaves out, a sentence each: policies that take part in `direct` only."""
    if config.logged_data is not None:
        return []
    base = config.base_policy
    if why := why_no_logprobs(base, config):
        left_out = [name for name in config.estimators if not config.can_run(name)]
        told = f"; left out: {', '.join(left_out)}" if left_out else ""
        return [f"every policy takes part in `direct` only: base policy {base!r} has no log probabilities, {why}{told}"]
    against = {
        name: [sentence for _, sentence, level in reasons if level == "refuse"]
        for name, reasons in cautions(config).items()
    }
    left_out = [name for name in config.estimators if not config.can_run(name)]
    told = [f"policy {name!r} takes part in `direct` only: {'; '.join(said)}" for name, said in against.items() if said]
    return told + ([f"left out for want of log probabilities: {', '.join(left_out)}"] if left_out else [])
