"""An answer in words: where a model's draft ends and its answer begins, and the JSON objects of the answer.

A draft stands between two markers (`<think>` and `</think>`, `[THINK]`, `<|channel|>analysis` and `final<|message|>`, ...), or
before a closing marker whose opening one the chat template wrote. Markers inside a JSON object are text. A draft without its
end is an answer that did not end.

JSON is read as long as it has one meaning: line breaks and unknown escapes in texts, comments, commas before a closing brace,
doubled braces. What could mean something else is not read: a brace that opens anything but an object, and a comma between a
digit and a brace, which may be a decimal one.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

Pairs = tuple[tuple[str, Any], ...]  # an object as (name, value) pairs, so that no second score is lost


class UnfinishedDraft(Exception):
    """The answer ended within the model's draft."""


# Markers of drafts

_WORD = (
    r"(?:[a-z]+[:_-]|ant)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflect(?:ion)?|analysis|rationale|scratch_?pad|deliberation"
    r"|monologue|chain[_-]of[_-]thoughts?|cot|drafts?|plan(?:ning)?|brainstorm(?:ing)?)(?:_process)?"
)
_THINK = r"(?:think(?:ing)?|thoughts?)"  # in square brackets the other words may be headings
_BEGIN, _END = r"(?:(?:begin|start)[_\s▁]?(?:of[_\s▁]?)?)?", r"(?:/|end[_\s▁]?(?:of[_\s▁]?)?)"
_ATTRIBUTES = r"(?:\s[^<>\[\]]{0,80})?"
_OPENING = (
    rf"<[|｜]?{_BEGIN}{_WORD}(?:_start|_begin)?{_ATTRIBUTES}[|｜]?>|\[{_WORD}\]|[◁【⟨〈]{_WORD}[▷】⟩〉]"
    r"|<\|channel\|?>\W{0,5}(?:analysis|commentary|thought|thinking|reasoning)|<\|im_start\|>\s?think|<unused94>thought"
)
_CLOSING = (
    rf"<[|｜]?(?:{_END}{_WORD}|{_WORD}_end)\s?[|｜]?>|\[/{_WORD}\]|[◁【⟨〈]/{_WORD}[▷】⟩〉]"
    r"|(?:<\|channel\|?>)?\bfinal\b[^<\w]{0,5}(?:<\|constrain\|>[^<]{0,20})?<\|message\|>|<channel\|>"
    r"|<\|im_start\|>\s?answer|<unused95>|\[BEGIN FINAL RESPONSE\]"
)
_HEADING = rf"\[(?!{_THINK}\]){_WORD}\]"
_FENCE = re.compile(r"\s*(?:`{3,}\s*(?:json)?)?\s*", re.IGNORECASE)  # what may stand before an answer
_SCORE = re.compile(r'"score"\s*:')  # outside of the objects it is left of an object that a quotation broke
MAX_LONE_MARKERS = 100
_EVENT = re.compile(rf"(?P<closing>{_CLOSING})|(?P<opening>{_OPENING})|\{{", re.IGNORECASE)
# The first character of a marker
MARKER = re.compile(rf"(?=(?:{_CLOSING}|{_OPENING}))(?!{_HEADING})[<\[◁【⟨〈f]", re.IGNORECASE)

# Words around a draft, which are markers only where the answer begins with the first of them.
_WORDS_AROUND = (
    (
        re.compile(r"\s*(?:assistant)?(?:analysis|commentary)(?=[A-Z\"'“])"),
        re.compile(r"assistant\s?(?:commentary)?final"),
    ),
    (re.compile(r"\s*Here(?:'s| is) my thought process:"), re.compile(r"Here(?:'s| is) my response:")),
    (re.compile(r"\s*```(?:think(?:ing)?|thoughts?|reasoning)\b"), re.compile(r"\n\s*```")),
    (re.compile(r"\s*Here are my reasoning steps:"), re.compile(r"\[BEGIN FINAL RESPONSE\]")),
)


def _family(marker: str) -> str:
    """Opening and closing markers of one family belong together."""
    lower = marker.lower()
    if "message|>" in lower or "channel" in lower:
        return "channel"
    return "tag" if lower[0] == "<" else lower[0]


def json_objects(reply: str) -> list[Pairs]:
    """The JSON objects of an answer, after its drafts, whatever text is around them.

    Raises a `ValueError` where a brace opens no object or a score stands outside of the objects, and `UnfinishedDraft`.
    """
    text = _unquoted(_without_words_around(reply))
    events = list(_EVENT.finditer(text))
    ends = _ends_of_drafts(events)
    objects: list[Pairs] = []
    first = None  # where the first of them stands
    spans: list[tuple[int, int]] = []  # of objects and drafts
    start = position = 0  # of the answer, and up to where it is read
    is_bad = after_draft = False
    n_lone = 0  # closing markers without an opening one
    for event, end_of_draft in zip(events, ends, strict=True):
        if event.start() < position:
            continue
        if event["opening"]:
            if end_of_draft is None:
                if re.fullmatch(_HEADING, event[0], re.IGNORECASE):
                    continue
                raise UnfinishedDraft
            spans.append((event.start(), end_of_draft))
            position, after_draft = end_of_draft, True
        elif event["closing"]:
            if objects and (after_draft or first <= _FENCE.match(text).end()):
                continue  # the answer has begun, so it quotes the marker
            n_lone += 1
            if n_lone > MAX_LONE_MARKERS or _in_open_object(text, start, event.start()):
                raise ValueError("a marker may stand in an open object")
            objects, first, spans, is_bad, after_draft = [], None, [], False, True
            start = position = event.end()
        elif not is_bad:
            decoded = _decode(text, event.start())
            if decoded is None:
                is_bad = True
            else:
                first = event.start() if first is None else first
                objects.append(decoded.pairs)
                spans.append((event.start(), decoded.end))
                position = decoded.end
    if is_bad or _SCORE.search(_outside(text, start, spans)):
        raise ValueError("a brace opens no JSON object, or a score stands outside of one")
    return objects


def _without_words_around(reply: str) -> str:
    for opening, closing in _WORDS_AROUND:
        if begin := opening.match(reply):
            end = closing.search(reply, begin.end())
            if end is None:
                raise UnfinishedDraft
            return reply[end.end() :]
    return reply


def _unquoted(text: str) -> str:
    """The text of an answer that is a JSON string as a whole."""
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] == '"':
        try:
            inner = json.loads(stripped)
        except ValueError:
            return text
        return inner if isinstance(inner, str) else text
    return text


def _ends_of_drafts(events: list[re.Match[str]]) -> list[int | None]:
    """For each event the end of the next closing marker of its family; None where there is none."""
    ends: list[int | None] = [None] * len(events)
    nearest: dict[str, int] = {}
    for k in range(len(events) - 1, -1, -1):
        event = events[k]
        if event["closing"]:
            nearest[_family(event[0])] = event.end()
        elif event["opening"]:
            ends[k] = nearest.get(_family(event[0]))
    return ends


def _in_open_object(text: str, start: int, end: int) -> bool:
    """Whether a text ends within an object, judged by its last brace."""
    brace = text.rfind("{", start, end)
    return (
        brace >= 0 and re.match(r'\{\s*"', text[brace : brace + 1000]) is not None and _extent(text, brace, end) is None
    )


def _outside(text: str, start: int, spans: list[tuple[int, int]]) -> str:
    """The text from a start on, without the spans in it."""
    edges = [start, *(edge for span in spans for edge in span), len(text)]
    return " ".join(text[edges[k] : edges[k + 1]] for k in range(0, len(edges), 2))


# JSON a hair off


class Decoded(NamedTuple):
    """A JSON object and where it ends in the text."""

    pairs: Pairs
    end: int


MAX_OBJECT = 20_000  # characters of an object that is not quite JSON
_JSON = json.JSONDecoder(object_pairs_hook=tuple, strict=False)  # line breaks may stand in texts
_TOKEN = re.compile(
    r'(?P<text>"[^"\\]*(?:\\.[^"\\]*)*")|(?P<comment>(?://|\#)[^\n]*|/\*[^*]{0,1000}\*/)|(?P<open>[{\[])|(?P<close>[}\]])'
    r'|(?P<plain>[^"{}\[\]/#]+)|(?P<other>.)',
    re.DOTALL,
)
_PUNCTUATION = str.maketrans({"：": ":", "，": ",", **dict.fromkeys("\u00a0\u2007\u202f\u3000\u200b\ufeff", " ")})
_ESCAPE = re.compile(r'\\(?:(["\\/bfnrt]|u[0-9a-fA-F]{4})|(.))', re.DOTALL)
_NUMBERS = (
    (re.compile(r"(?<![\w.])\+(?=\.?\d)"), ""),  # +7
    (re.compile(r"(?<![\w.])\.(?=\d)"), "0."),  # .5
    (re.compile(r"(?<![\w.])(\d+)\.(?![\w.])"), r"\1.0"),  # 7.
)
_LAST_COMMA = re.compile(r"(?<!\d),\s*\Z|,\s+\Z")  # after a digit it may be a decimal one, unless white space follows
_CONSTANTS = {"None": "null", "True": "true", "False": "false"}


def _decode(text: str, start: int) -> Decoded | None:
    """The object that a brace opens; None where it opens none."""
    if text.startswith("{{", start):
        inner = _decode(text, start + 1) if not text.startswith("{", start + 2) else None
        return Decoded(inner.pairs, inner.end + 1) if inner and text.startswith("}", inner.end) else None
    try:
        return Decoded(*_JSON.raw_decode(text, start))
    except (ValueError, RecursionError):
        pass
    end = _extent(text, start)
    if end is None:
        return None
    try:
        pairs, n_read = _JSON.raw_decode(corrected := _corrected(text[start:end]))
    except (ValueError, RecursionError):
        return None
    return Decoded(pairs, end) if n_read == len(corrected) else None


def _extent(text: str, start: int, end: int | None = None) -> int | None:
    """Where the brace at `start` is closed; None where it is not, up to `end` and the largest size of an object."""
    depth = 0
    limit = min(len(text) if end is None else end, start + MAX_OBJECT)
    for token in _TOKEN.finditer(text, start, limit):
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
            if depth == 0:
                return token.end()
        elif token[0] == '"':
            return None  # a text without its end
    return None


def _corrected(text: str) -> str:
    """An object with what has one meaning only written as JSON has it."""
    parts: list[str] = []
    for token in _TOKEN.finditer(text):
        if token["text"]:
            parts.append(_ESCAPE.sub(lambda match: match[0] if match[1] else rf"\\{match[2]}", token["text"]))
        elif token["plain"]:
            parts.append(_corrected_plain(token["plain"]))
        elif token["close"]:
            if parts:
                before = parts[-2][-1:] if len(parts) > 1 else ""
                parts[-1] = _LAST_COMMA.sub("", before + parts[-1])[len(before) :]
            parts.append(token[0])
        elif not token["comment"]:
            parts.append(token[0])
    return "".join(parts)


def _corrected_plain(text: str) -> str:
    """The corrected parts outside of texts: punctuation of other scripts, numbers and constants of other languages."""
    text = text.translate(_PUNCTUATION)
    for pattern, replacement in _NUMBERS:
        text = pattern.sub(replacement, text)
    return re.sub(r"\b(?:None|True|False)\b", lambda match: _CONSTANTS[match[0]], text)
