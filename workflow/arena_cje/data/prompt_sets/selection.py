"""Which rows of a prompt set become prompts, and how many do not, by reason.

A row is dropped for the first reason that holds, in the order of `REASONS`. Of prompts that are equal, or equal but for case,
form and white space, the first stays.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from arena_cje.data.prompt_sets import fields, language
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from arena_cje.data.prompt_sets.fields import Columns
    from arena_cje.data.prompt_sets.reading import PromptSet
    from arena_cje.files import Row

REASONS = {
    "empty": "without a text of the user",
    "several_turns": "conversations of several turns",
    "too_short": "shorter than min_chars",
    "too_long": "longer than max_chars",
    "flagged": "flagged by the data set",
    "other_language": "in another language",
    "duplicate": "equal to an earlier prompt",
    "near_duplicate": "equal to an earlier prompt but for case and white space",
}


@dataclass(frozen=True)
class Selection:
    """What is selected from a prompt set; the default takes all distinct prompts."""

    columns: Mapping[str, Any] = field(default_factory=dict)
    language: str | None = None  # ISO 639-1 code
    min_chars: int | None = None
    max_chars: int | None = None
    flagged: str = "keep"  # or `drop`
    duplicates: str = "drop"  # or `drop_exact`, `keep`


@dataclass
class Counts:
    """What became of the rows."""

    n_rows: int = 0
    n_eligible: int = 0  # prompts from which the experiment takes its own
    dropped: Counter[str] = field(default_factory=Counter)
    flagged: int = 0  # among the prompts
    language_known_by: Counter[str] = field(default_factory=Counter)  # among the rows that it was asked of

    def summary(self) -> dict[str, Any]:
        """The counts as a summary records them; reasons in declared order, those without a row left out."""
        languages = {"language_known_by": dict(sorted(self.language_known_by.items()))}
        return {
            "n_rows": self.n_rows,
            "dropped": {reason: self.dropped[reason] for reason in REASONS if self.dropped[reason]},
            "n_eligible": self.n_eligible,
            "flagged": self.flagged,
        } | (languages if self.language_known_by else {})


def select(opened: PromptSet, selection: Selection, counts: Counts) -> Iterator[Row]:
    """The prompts of a set in its order: `prompt_id`, `prompt` and, where there is one, `reference`; `counts` is updated.

    Rows in the workflow's own format have all their fields. Raises a `UserError` for a row that is malformed, and for an id
    that two prompts have.
    """
    if not opened.columns:
        return  # an empty file
    columns = fields.resolve(opened, selection.columns)
    texts, normal_texts = set(), set()
    places: dict[str, str] = {}
    for where, row in opened.rows(columns.names):
        counts.n_rows += 1
        turn = fields.prompt_of(row, where, columns, opened.as_text)
        flagged = fields.is_flagged(row, where, columns.flagged, opened.as_text)
        reason = _why_dropped(turn, row, where, columns, selection, counts, flagged)
        if reason is None and selection.duplicates != "keep":
            reason = _duplicate(turn.text, texts, normal_texts, exact=selection.duplicates == "drop_exact")
        if reason:
            counts.dropped[reason] += 1
            continue
        prompt_id = fields.prompt_id_of(row, where, columns, turn.text)
        if prompt_id in places:
            raise UserError(
                f"{where}: prompt_id {prompt_id!r} appears again (first at {places[prompt_id]}); keep one of the two"
            )
        places[prompt_id] = where
        counts.n_eligible += 1
        counts.flagged += flagged
        prompt = {"prompt_id": prompt_id, "prompt": turn.text}
        reference = fields.reference_of(row, where, columns, opened.as_text)
        prompt |= {"reference": reference} if reference is not None else {}
        yield row | prompt if columns.own_format else prompt


def _why_dropped(
    turn: fields.Turn,
    row: Row,
    where: str,
    columns: Columns,
    selection: Selection,
    counts: Counts,
    flagged: bool,
) -> str | None:
    """The reason for which a row is dropped, beside equal prompts; None where there is none."""
    text = turn.text
    if text is None or not text.strip():
        return "empty"
    if turn.n_turns > 1:
        return "several_turns"
    if selection.min_chars is not None and len(text) < selection.min_chars:
        return "too_short"
    if selection.max_chars is not None and len(text) > selection.max_chars:
        return "too_long"
    if flagged and selection.flagged == "drop":
        return "flagged"
    if selection.language is not None:
        decision = language.decide(selection.language, text, fields.language_of(row, where, columns))
        counts.language_known_by[decision.source] += 1
        if not decision.matches:
            return "other_language"
    return None


def _duplicate(text: str, texts: set[bytes], normal_texts: set[bytes], *, exact: bool) -> str | None:
    """Whether an earlier prompt was equal (`exact`) or nearly so. Hashes, not texts, are kept: a set can be large."""
    key, normal_key = _hash(text), _hash(normal(text))
    if key in texts:
        return "duplicate"
    if not exact and normal_key in normal_texts:
        return "near_duplicate"
    texts.add(key)
    normal_texts.add(normal_key)
    return None


def normal(text: str) -> str:
    """A text without differences of case, of Unicode form and of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
