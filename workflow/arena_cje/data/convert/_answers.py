"""What foreign files have in common: answers of policies to prompts, with the scores of one or more scorers."""

from __future__ import annotations

import math
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import orjson

from arena_cje.errors import UserError, display_form

if TYPE_CHECKING:
    from collections.abc import Mapping

MISSING = ("", "null", "none", "nan", "na", "n/a")  # cells without a value
TRUTH_VALUES = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Answer:
    """One response of a policy, or further scores of it."""

    where: str  # FILE:LINE or FILE (row K), for errors
    policy: str
    prompt_id: str
    prompt: str | None = None
    response: str | None = None
    draw_idx: int = 0
    scores: Mapping[str, float | None] = field(default_factory=dict)  # by scorer, on the scorer's scale
    base_logprob: float | None = None  # of the response under its own policy, nats
    target_logprobs: Mapping[str, float | None] | None = None  # by policy, nats
    cluster: str | None = None  # prompts that are one question, such as its translations
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss:
    """Content of a foreign file that the CJE format has no place for."""

    reason: str
    count: int = 1


class DrawCounter:
    """Numbers the responses of a policy to a prompt in the order of the file."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def next(self, policy: str, prompt_id: str) -> int:
        """The number of earlier responses of the policy to the prompt."""
        self._counts[policy, prompt_id] += 1
        return self._counts[policy, prompt_id] - 1


def text_id(value: Any) -> str:
    """An id from a text, or from any JSON value; that of a text equals the id of a row of the CJE format without one."""
    text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return "prompt-" + blake2b(text.encode(), digest_size=8).hexdigest()


def id_of(value: Any) -> str:
    """An id of any JSON type as a string."""
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def number(value: Any, where: str, name: str) -> float | None:
    """A score as a number, None where it is missing; raises a `UserError` for anything else, and for an infinity."""
    text = value.strip().lower() if isinstance(value, str) else value
    if text is None or (isinstance(text, str) and text in MISSING):
        return None
    if isinstance(text, str) and text in TRUTH_VALUES:
        return TRUTH_VALUES[text]
    parsed = math.inf
    if isinstance(text, str | bool | int | float):
        with suppress(ValueError, OverflowError):  # text that is no number, and a number beyond those of a computer
            parsed = float(text)
    if math.isinf(parsed):
        raise UserError(
            f"{where}: {name} is {display_form(value)}, expected a finite number, or nothing where it is missing"
        )
    return None if math.isnan(parsed) else parsed


def log_probability(value: Any, where: str, name: str) -> float | None:
    """The same of a log probability under a target, which is minus infinity where the response is impossible."""
    if str(value).strip().lower() in ("-inf", "-infinity"):
        return -math.inf
    return number(value, where, name)


def draw_index(value: Any, where: str, name: str) -> int | None:
    """The number of a draw, None where it is missing; raises a `UserError` for what is not a whole number from 0."""
    index = number(value, where, name)
    if index is not None and (index < 0 or index != int(index)):
        raise UserError(
            f"{where}: {name} is {display_form(value)}, expected a whole number from 0; number the responses to a prompt 0, 1, 2"
        )
    return None if index is None else int(index)


def numbers(values: Mapping[str, Any], where: str) -> dict[str, float | None]:
    """The scores among some values by name, as `number` has them; others are left out."""
    return {name: number(value, where, name) for name, value in values.items() if is_number(value)}


def is_number(value: Any) -> bool:
    """Whether a value is a score: a number or a truth value."""
    return isinstance(value, bool | int | float)


def text_of(content: Any) -> str | None:
    """The text of a message's content, which may be a list of parts; None where it has no text."""
    if isinstance(content, list):
        parts = [
            part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, str | dict)
        ]
        texts = [part for part in parts if isinstance(part, str)]
        return "\n".join(texts) if texts else None
    if content is None or isinstance(content, str):
        return content
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS).decode()


def conversation(messages: Any) -> str | None:
    """The text of a prompt: a string, or messages, with their roles where there are several."""
    if not isinstance(messages, list):
        return text_of(messages)
    texts = [(message.get("role", "user"), text_of(message.get("content"))) for message in messages]
    if len(texts) == 1:
        return texts[0][1]
    return "\n\n".join(f"{role}: {text}" for role, text in texts if text is not None)


def safe_name(name: str) -> str:
    """A name of a policy or scorer that is valid in paths and on command lines."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._-") or "policy"
