"""Which columns of a prompt set hold what, and what a prompt is in them.

Files in the format of the workflow have `prompt_id` and `prompt`. Conversations (ChatBot Arena and its kin) have a list of
messages; their prompt is the first message of the user. All other sets need a map of columns.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from arena_cje.data.schemas import PROMPTS
from arena_cje.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.data.prompt_sets.reading import PromptSet
    from arena_cje.files import Row

CONVERSATIONS = ("conversation_a", "conversation")
CONVERSATION_IDS = ("question_id", "conversation_id", "conversation_hash")
FLAGS = ("openai_moderation", "toxic_chat_tag", "toxic")
# Names of other sets' columns, for a hint at the map that is needed.
LIKELY_IDS = ("question_id", "uid", "id", "instruction_id", "key")
LIKELY_PROMPTS = ("turns", "instruction", "question", "input", "text", "query", "messages", *CONVERSATIONS)
USERS = ("user", "human")


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a prompt set; None, or no name, where it has no such column."""

    prompt: str = "prompt"
    prompt_id: str | None = "prompt_id"
    language: str | None = None
    flagged: tuple[str, ...] = ()
    reference: str | None = None

    @property
    def own_format(self) -> bool:
        """Whether these are the columns of the workflow's own format, in which each row is meant to be a prompt."""
        return self.prompt == "prompt" and self.prompt_id == "prompt_id"

    @property
    def names(self) -> list[str]:
        """All names, each once."""
        names = [self.prompt_id, self.prompt, self.language, *self.flagged, self.reference]
        return list(dict.fromkeys(name for name in names if name))


class Turn(NamedTuple):
    """The first message of the user in a conversation, and the number of the user's messages."""

    text: str | None
    n_turns: int


def resolve(opened: PromptSet, columns_map: Mapping[str, Any]) -> Columns:
    """The columns of a prompt set; raises a `UserError` where one does not exist, or which is the prompt is not clear.

    columns_map: the user's names by ours; `flagged` has a name or several.
    """
    columns_map = {name: value for name, value in columns_map.items() if value}
    flagged = columns_map.get("flagged", [])
    column_names = {**columns_map, "flagged": (flagged,) if isinstance(flagged, str) else tuple(flagged)}
    for key, names in column_names.items():
        for name in names if key == "flagged" else (names,):
            if name not in opened.columns:
                raise UserError(
                    f"{opened.name}: prompts.columns.{key} is {name!r}, but there is no such column"
                    f"{did_you_mean(name, opened.columns)}; it has {', '.join(opened.columns)}"
                )
    conversation = next((name for name in CONVERSATIONS if name in opened.columns), None)
    if "prompt" not in column_names and "prompt" not in opened.columns and conversation:
        ids = next((name for name in CONVERSATION_IDS if name in opened.columns), None)
        flags = tuple(name for name in FLAGS if name in opened.columns)
        column_names = {"prompt_id": ids, "flagged": flags, "prompt": conversation} | {
            k: v for k, v in column_names.items() if v
        }
    defaults = {name: name for name in ("prompt", "prompt_id", "language", "reference") if name in opened.columns}
    columns = Columns(**{"prompt": "", "prompt_id": None} | defaults | column_names)
    own_id_is_missing = columns.prompt_id is None and any(name in opened.columns for name in LIKELY_IDS)
    if not columns.prompt or own_id_is_missing:
        raise UserError(_which_columns(opened, columns))
    return columns


def _which_columns(opened: PromptSet, columns: Columns) -> str:
    likely = {
        "prompt_id": next((name for name in LIKELY_IDS if name in opened.columns), None),
        "prompt": next((name for name in LIKELY_PROMPTS if name in opened.columns), None),
    }
    if columns.prompt:
        del likely["prompt"]
    if columns.prompt_id:
        del likely["prompt_id"]
    hint = ", ".join(f"{name}: {value}" for name, value in likely.items() if value)
    example = f"for example `columns: {{{hint}}}`" if hint else "under prompts.columns"
    missing = "prompt_id" if columns.prompt else "prompt"
    return (
        f"{opened.name}: has no column {missing!r}, it has {', '.join(opened.columns)}; name the columns in the block "
        f"`prompts`, {example}"
    )


def prompt_of(row: Row, where: str, columns: Columns, as_text: bool) -> Turn:
    """The prompt of a row; raises a `UserError` for a value that is none."""
    value = row.get(columns.prompt)
    if columns.own_format:
        problem = PROMPTS.columns["prompt"].problem(value)
        if problem and not isinstance(value, list):
            raise UserError(f"{where}: prompt {problem}")
    if as_text and columns.prompt in (*CONVERSATIONS, "turns") and isinstance(value, str) and value.strip():
        value = parsed(value, f"{where}: {columns.prompt}")
    turn = _first_turn(value)
    if turn is None:
        raise UserError(
            f"{where}: {columns.prompt} is {value!r:.60}, expected a text, a list of texts or a list of messages with "
            "`role` and `content`"
        )
    return turn


def _first_turn(value: Any) -> Turn | None:
    """The first message of the user; None for a value that is no text, list of texts or list of messages."""
    if value is None or isinstance(value, str):
        return Turn(value, 1)
    if not isinstance(value, list):
        return None
    if all(isinstance(part, str) for part in value):
        return Turn(value[0] if value else None, 1)
    if not all(isinstance(part, dict) and isinstance(part.get("content"), str | None) for part in value):
        return None
    texts = [part.get("content") for part in value if part.get("role") in USERS]
    return Turn(texts[0] if texts else None, len(texts))


def reference_of(row: Row, where: str, columns: Columns, as_text: bool) -> Any:
    """The reference beside a prompt, without the nulls that a columnar file has for absent keys; None where there is none."""
    value = row.get(columns.reference) if columns.reference else None
    if as_text and value is not None:
        value = parsed(value, f"{where}: {columns.reference}") if value.strip() else None
    return {key: part for key, part in value.items() if part is not None} if isinstance(value, dict) else value


def parsed(text: str, where: str) -> Any:
    """A list or object that stands as text in a CSV file: as JSON, or as Python prints it (`Dataset.to_csv`)."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        # numpy prints no commas between objects; within the texts of Python's form there are no line breaks.
        return ast.literal_eval(re.sub(r"\}\s*\n\s*\{", "}, {", text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise UserError(f"{where} is {text!r:.60}, expected a list or object as JSON") from None


def prompt_id_of(row: Row, where: str, columns: Columns, text: str) -> str:
    """The id of a prompt; a hash of its text where the set has no ids."""
    if columns.prompt_id is None:
        return "prompt-" + blake2b(text.encode(), digest_size=8).hexdigest()
    value = row.get(columns.prompt_id)
    problem = PROMPTS.columns["prompt_id"].problem(value)
    if problem:
        raise UserError(f"{where}: {columns.prompt_id} {problem}")
    return str(value)


def language_of(row: Row, where: str, columns: Columns) -> str | None:
    """The language of a row in the set's own field; None where there is none."""
    value = row.get(columns.language) if columns.language else None
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: {columns.language} is {value!r:.60}, expected the name of a language")
    return value


def is_flagged(row: Row, where: str, names: Sequence[str], as_text: bool) -> bool:
    """Whether one of the columns flags the row: it is true, or has a `flagged` that is true anywhere in it."""
    values = [row.get(name) for name in names]
    if as_text:
        values = [_flag_of_text(value, f"{where}: {name}") for name, value in zip(names, values, strict=True)]
    return any(value is True or _has_flag(value) for value in values)


def _flag_of_text(text: str | None, where: str) -> Any:
    if not text or text.strip().casefold() in ("true", "false", "1", "0"):
        return (text or "").strip().casefold() in ("true", "1")
    return parsed(text, where)


def _has_flag(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("flagged") is True or any(map(_has_flag, value.values()))
    return isinstance(value, list) and any(map(_has_flag, value))
