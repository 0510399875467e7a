"""Responses outside a target's support: their log probability is minus infinity, which JSON cannot express.

A row has `OUTSIDE_SUPPORT` in place of the number, and the policy's name under `metadata.outside_support`. Minus
infinity itself, also as the text "-inf" or "-Infinity" that JSON writers put in its place, means the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from arena_cje.data.schemas import OUTSIDE_SUPPORT

if TYPE_CHECKING:
    from arena_cje.files import Row

TEXTS = ("-inf", "-infinity")


def with_marks(row: Row) -> Row:
    """The row with each target log probability of minus infinity marked.

    The base policy's is a number, as it is an error of the data. A row of another form stays as it is, for its check.
    """
    if _is_minus_infinity(row.get("base_policy_logprob")):
        row = row | {"base_policy_logprob": -math.inf}
    targets, metadata = row.get("target_policy_logprobs"), row.get("metadata") or {}
    if not isinstance(targets, dict) or not isinstance(metadata, dict):
        return row
    outside = [name for name, value in targets.items() if _is_minus_infinity(value)]
    names = metadata.get("outside_support") or []
    if not outside or not isinstance(names, list):
        return row
    policies = list(dict.fromkeys([*names, *outside]))
    finite = {name: OUTSIDE_SUPPORT if name in outside else value for name, value in targets.items()}
    return row | {"target_policy_logprobs": finite, "metadata": metadata | {"outside_support": policies}}


def _is_minus_infinity(value: Any) -> bool:
    return value == -math.inf if isinstance(value, float) else isinstance(value, str) and value.lower() in TEXTS
