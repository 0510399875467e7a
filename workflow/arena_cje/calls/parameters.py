"""Parameters that a server refuses, and the key of the configuration that changes or leaves out each of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Words with which servers refuse a parameter, beside its name.
REFUSAL = re.compile(
    r"(?:un|not |n't )(?:currently |yet |an? )?"
    r"(?:support|permit|allow|avail|recogni[sz]|accept|expect|implement|enabl|valid|known)"
    r"|extra(?:neous)?[ _](?:input|field|key|forbidden|param|argument)|forbidden|cannot find field|cannot be used|no such"
    r"|illegal|invalid (?:request )?(?:parameter|argument|param|field|key)|deprecated|disabled|must not be|instead|remove"
    r"|additional propert|(?:find|found|endpoints) that (?:support|can handle)",
    re.IGNORECASE,
)
NEEDED = ("model", "messages", "prompt")  # no key leaves them out, and messages of servers are full of these words

# By parameter: what to do. {provider} is the name under `providers`.
ADVICE = {
    "max_tokens": "set `providers.{provider}.token_limit: max_completion_tokens`",
    "max_completion_tokens": "set `providers.{provider}.token_limit: max_tokens`",
    "seed": "set `providers.{provider}.seed: omit`",
    "response_format": "set `providers.{provider}.json_reply: text`, or `object` where it takes any JSON object",
    "temperature": "set `temperature: null` in the block of a judge or the oracle, or `temperature: 1` and "
    "`extra: {{temperature: null}}` in that of a policy, which leave it out",
    "top_p": "set `top_p: 1` and `extra: {{top_p: null}}` in the policy's block, which leave it out",
    "stop": "leave out `template` in the policy's block, whose requests are then chats",
    "echo": "set `providers.{provider}.completions: false`",
    "logprobs": "choose a rubric of kind 'structured' for a judge; set `providers.{provider}.completions: false` for policies",
}
ADVICE["top_logprobs"] = ADVICE["logprobs"]
LEAVE_OUT = "set `extra: {{{name}: null}}` in this block, which leaves it out"


def refused_parameter(message: str, parameters: Iterable[str], field_value: str | None = None) -> str | None:
    """The parameter among those of a request that an error message refuses; field_value: of the error's own field for it."""
    names = [name for name in parameters if name not in NEEDED]
    if not REFUSAL.search(message):
        return None
    if field_value in names:
        return field_value
    # Servers write a name in their own way: maxTokens, max_tokens, 'max tokens'.
    places = {
        name: match.start()
        for name in names
        if (match := re.search(rf"(?<![a-z_]){name.replace('_', '[_ ]?')}(?![a-z_])", message, re.IGNORECASE))
    }
    return min(places, key=places.__getitem__, default=None)


def advice(name: str, provider: str) -> str:
    """What to set where a server refuses a parameter."""
    template = ADVICE.get(name, LEAVE_OUT)
    return f"the server rejects `{name}`: {template.format(provider=provider, name=name)}"
