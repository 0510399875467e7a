"""Policies that can have importance weights, and the reasons why others cannot.

A weight needs the log probability of a base response under the base policy and under the target, each that of the distribution
from which the policy samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arena_cje.config.records import Config
    from arena_cje.config.records.models import Policy


Caution = tuple[str, str, str]  # code, sentence and level of a reason in a verdict


# Further request parameters that change what a model samples, with the values that leave its distribution as it is.
NEUTRAL_VALUES = {
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
    """What an estimator or variant needs and this configuration lacks, with the reason; None where it can run."""
    if config.needs_draws(name) and not config.has_draws:
        return "fresh draws of the target policies, which are missing; add --config fresh_draws=DIR"
    if not config.needs_weights(name) or config.has_weights:
        return None
    base = config.base_policy
    if reason := why_no_logprobs(base, config):
        return f"log probabilities of the base policy's responses, but none can be computed under {base!r}: {reason}"
    reasons = "; ".join(f"{target!r}: {why_no_logprobs(target, config)}" for target in config.targets)
    return f"log probabilities of the base responses under a target policy, but none can be computed ({reasons})"


def why_no_logprobs(name: str, config: Config) -> str | None:
    """Why a policy has no usable log probabilities; None where it has some."""
    policy = config.policies[name]
    if not config.has_logprobs(name):
        if not config.endpoint(policy).completions:
            return f"provider {policy.provider!r} returns no log probabilities of given text"
        return f"it has no `template`, without which provider {policy.provider!r} returns no log probabilities"
    if name == config.base_policy and policy.temperature == 0:
        return (
            "at temperature 0 it gives one response per prompt, and importance weights cannot represent the other responses of "
            "a target"
        )
    return None


def cautions(config: Config) -> dict[str, list[Caution]]:
    """Why a target cannot have importance weights, or only with caution: (code, sentence, level) of each reason, by policy."""
    reasons = {name: list(_weight_cautions(name, config)) for name in config.targets}
    return {name: of_policy for name, of_policy in reasons.items() if of_policy}


def _weight_cautions(name: str, config: Config) -> Iterator[Caution]:
    base, policy = config.policies[config.base_policy], config.policies[name]
    for policy_name in (config.base_policy, name):
        if reason := why_no_logprobs(policy_name, config):
            yield "no_log_probabilities", f"no log probabilities under policy {policy_name!r}: {reason}", "refuse"
            return
    if (policy.context, policy.sampling) == (base.context, base.sampling):
        return  # the same distribution: all weights are 1
    if base.top_p < 1:
        # Responses outside the base policy's nucleus are not in the logged data, so that no weight can represent them.
        is_wider = policy.top_p > base.top_p
        nucleus = f"this policy's nucleus of {policy.top_p:g}" if is_wider else "this policy's nucleus"
        sentence = (
            f"the base policy's nucleus of {base.top_p:g} excludes tokens of {nucleus}: the logged responses contain no "
            "response with these tokens"
        )
        yield "support_exceeds_base", sentence, "caution" if is_wider else "ok"
    samplings = [
        sampling
        for policy_name, block in ((name, policy), (config.base_policy, base))
        if (sampling := _non_propensity_sampling(policy_name, block))
    ]
    if samplings:
        sentence = (
            f"APIs return log probabilities at temperature 1 without truncation, but {' and '.join(samplings)}; importance "
            "weights would be computed from other distributions than those that gave the responses"
        )
        yield "api_log_probabilities", sentence, "refuse"


def non_propensity(config: Config) -> list[str]:
    """Policies whose API log probabilities do not match their sampling distribution."""
    if config.logged_data is not None:
        return []
    return [name for name in config.policies_with_logprobs if _non_propensity_sampling(name, config.policies[name])]


def _non_propensity_sampling(name: str, policy: Policy) -> str | None:
    """How a hosted policy samples, where that is not the distribution of the API's log probabilities; else None."""
    if not policy.hosted:
        return None
    changes = {key: value for key, value in policy.sampling.items() if value != 1}
    changes |= {
        key: value for key, value in policy.extra.items() if key in NEUTRAL_VALUES and value not in NEUTRAL_VALUES[key]
    }
    parameters = ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in changes.items()
    )
    return f"{name!r} samples with {parameters}" if changes else None


def notes(config: Config) -> list[str]:
    """Sentences for the start of a run: policies without weights, and estimators that are left out."""
    if config.logged_data is not None:
        return []
    base = config.base_policy
    left_out = ", ".join(name for name in config.estimators if not config.can_run(name))
    if reason := why_no_logprobs(base, config):
        omission = f"; left out: {left_out}" if left_out else ""
        return [
            f"only `direct` can estimate the policies: base policy {base!r} has no log probabilities ({reason}){omission}"
        ]
    sentences = []
    for name, of_policy in cautions(config).items():
        if refusals := [sentence for _, sentence, level in of_policy if level == "refuse"]:
            sentences.append(f"only `direct` can estimate policy {name!r}: {'; '.join(refusals)}")
    return sentences + ([f"left out because there are no log probabilities: {left_out}"] if left_out else [])
