"""Failures of calls: transient ones are retried, permanent ones end the run with one sentence.

    transient    429 (rate limit), 408, 409, 425, 5xx, timeout, lost connection, unreadable reply
    permanent    401, 403, 404, 402, an exhausted quota (which some servers report as 429), any other 4xx
    no failure   the provider declines the content, the request exceeds the model's context, or the model's answer has not the
                 form that was asked for: a reply with that error

Sources: https://platform.openai.com/docs/guides/error-codes, RFC 9110 section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from arena_cje.calls import parameters as request_parameters
from arena_cje.calls.bodies import parse_json, valid_text
from arena_cje.errors import UserError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from arena_cje.calls.endpoint import Endpoint
    from arena_cje.calls.request import Reply

RATE_LIMIT = 429
MAX_MESSAGE = 200  # characters of a server's error message that are repeated
MAX_WAIT = 3600.0  # seconds; a server that asks for a longer wait ends the run
KEY_PIECE = 8  # characters; a shorter piece of an API key is no secret

QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance")
QUOTA = re.compile(r"current quota|insufficient (?:quota|balance|funds|credit)|credit balance", re.IGNORECASE)
TOO_LONG = re.compile(
    r"context[ _](?:length|window|size|limit)|maximum context|(?:prompt|input|request) (?:is )?too (?:long|large)"
    r"|token count .{0,40}exceeds|tokens \+ \S*max_new_tokens",
    re.IGNORECASE,
)
REFUSAL = re.compile(
    r"content[ _-]?(?:policy|filter|management)|usage polic|moderation|flagged|invalid_prompt", re.IGNORECASE
)

# A model that thinks first and was cut before its answer: some servers report that as an error.
OUTPUT_LIMIT = re.compile(
    r"output limit was reached|max\w*[ _](?:completion|output|new)?[ _]?tokens? (?:limit )?(?:was )?(?:reached|exceeded)",
    re.IGNORECASE,
)

# The model wrote something that the server could not bring into the form of an answer.
NO_ANSWER = re.compile(
    r"json_validate_failed|failed to (?:generate|parse|validate) (?:valid )?(?:json|the model|model|output)|tool_use_failed",
    re.IGNORECASE,
)

# By HTTP status: what is wrong, and what to do.
ADVICE = {
    401: ("the key is not accepted", "check the key in {key}"),
    402: ("the account has no credit left", "top it up"),
    403: ("the key has no right to use this model", "check the rights of the key in {key}"),
    404: ("the model or the address does not exist", "check `model` and `base_url`"),
    RATE_LIMIT: ("the quota is exhausted", "raise it at the provider"),
}


class OutputLimit(UserError):
    """The server reports as an error that `max_tokens` ended the answer before it began."""


class TransientError(Exception):
    """A failure after which another attempt may succeed.

    kind: short name under which the log counts it. message: the server's error message. retry_after: seconds that the server
    asks to wait. rate_limited: whether requests were sent too fast.
    """

    def __init__(self, kind: str, message: str = "", retry_after: float | None = None, *, rate_limited: bool = False):
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind = kind
        self.message = message
        self.retry_after = retry_after
        self.rate_limited = rate_limited


class UnreadableReply(TransientError):
    """A reply that arrived and cannot be read. It may have been billed, by its length.

    lasting: the reply that stands for it where the server sends the same again; None where it was damaged on its way.
    beginning: of its body, for the message.
    """

    def __init__(self, reason: str, length: int = 0, lasting: Reply | None = None, beginning: bytes = b""):
        super().__init__("unreadable reply", f"{reason} in {beginning!r}" if beginning else reason)
        self.reason = reason
        self.length = length  # bytes
        self.lasting = lasting


class ErrorBody(UnreadableReply):
    """A body that reports an error under the status of a success."""

    def __init__(self, body: bytes):
        super().__init__(one_line(_error_content(body)[1]), len(body))
        self.body = body

    @property
    def status(self) -> int:
        """The status that the error should have had: the one that its code names, or a guess from its words."""
        codes, _ = _error_content(self.body)
        if match := re.search(r"\b[45]\d\d\b", codes):
            return int(match[0])
        return 400 if re.search(r"invalid|not_found|unsupported|authentication|permission", codes) else 502


def redact(text: str, keys: Iterable[str]) -> str:
    """The text with *** in place of each API key, and of each piece of a key with 8 characters or more."""
    pieces = {piece for key in keys for piece in _windows(key, min(KEY_PIECE, len(key)))}
    return _without([text], pieces)[0]


def redact_reply(parts: Sequence[str], keys: Iterable[str]) -> list[str]:
    """The parts of a reply, such as its tokens, with *** for what of a key is in them, in one or across several.

    Replies are data, in which a word must not be taken for a piece of a key such as `no-key-required`. So a piece of 8
    characters counts here if it has letters and digits, one of 16 always, and the whole key if it is no word.
    """
    pieces = set()
    for key in keys:
        pieces |= {piece for piece in _windows(key, KEY_PIECE) if _has_letters_and_digits(piece)}
        pieces |= _windows(key, 2 * KEY_PIECE)
        if len(key) >= KEY_PIECE and not key.isalpha():
            pieces.add(key)
    return _without(parts, pieces)


def _windows(key: str, width: int) -> set[str]:
    """All pieces of this width."""
    return {key[i : i + width] for i in range(len(key) - width + 1)} - {""}


def _has_letters_and_digits(text: str) -> bool:
    return any(map(str.isalpha, text)) and any(map(str.isdigit, text))


def _without(parts: Sequence[str], pieces: Iterable[str]) -> list[str]:
    """The parts with *** for these pieces of the text that they make together."""
    text = "".join(parts)
    hidden = [span for piece in pieces for span in _spans(text, piece)]
    if not hidden:
        return list(parts)
    is_hidden = bytearray(len(text))
    for start, stop in hidden:
        is_hidden[start:stop] = b"\1" * (stop - start)
    redacted, start = [], 0
    for part in parts:
        pairs = zip(part, is_hidden[start : start + len(part)], strict=True)
        runs = groupby(pairs, key=itemgetter(1))
        redacted.append("".join("***" if hide else "".join(char for char, _ in run) for hide, run in runs))
        start += len(part)
    return redacted


def _spans(text: str, piece: str) -> Iterator[tuple[int, int]]:
    """Starts and stops of a piece in a text."""
    start = text.find(piece)
    while start >= 0:
        yield start, start + len(piece)
        start = text.find(piece, start + 1)


def one_line(text: str, keys: Iterable[str] = ()) -> str:
    """A server's message as one line of at most 200 characters, without API keys."""
    # Keys are removed before the text is cut: a key that was cut in two would no longer be recognized.
    line = printable(" ".join(redact(text, keys).split()))
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…"


def seconds_to_wait(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds that the Retry-After header (a number or an HTTP date) asks to wait; None where it is absent or unreadable.

    A date is compared with the server's own time, where its reply has one: the clock of this machine may be wrong.
    """
    now = _time_of_date(headers.get("date", "")) or (time.time() if now is None else now)
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            date = _time_of_date(value)
            if date is None:
                continue
            seconds = date - now
        if seconds == seconds and seconds != float("inf"):  # neither NaN nor infinite
            return max(seconds, 0.0)
    return None


def _time_of_date(value: str) -> float | None:
    """Time of an HTTP date, seconds since the epoch; None where it is none."""
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def classify_status(
    endpoint: Endpoint,
    model: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    keys: Iterable[str] = (),
    *,
    parameters: Iterable[str] = (),
) -> TransientError | UserError | Literal["refused", "too_long", "unreadable"]:
    """The meaning of an HTTP error status: a transient error, a permanent one (`UserError`), or the error of a reply.

    parameters: names of those that were sent.
    """
    codes, full_message = _error_content(body)
    content = f"{codes} {full_message}"
    message = one_line(full_message, keys)
    wait = seconds_to_wait(headers)
    if status == 413 or (status in (400, 422) and TOO_LONG.search(content)):
        return "too_long"
    if status in (400, 422) and NO_ANSWER.search(content) and not OUTPUT_LIMIT.search(content):
        return "unreadable"
    if status in (400, 403, 422) and REFUSAL.search(content):
        return "refused"
    if status == RATE_LIMIT and _is_quota(codes, full_message, wait):
        return _permanent_error(endpoint, model, status, message)
    if wait is not None and wait > MAX_WAIT:
        return UserError(
            f"provider {endpoint.provider!r}, model {model!r}: status {status}, the server asks for a pause of "
            f"{wait / 3600:.1f} hours"
            f"{_quotation(message)}; run the same command again after that time (finished items are kept)"
        )
    if status == RATE_LIMIT:
        return TransientError(f"rate limit ({status})", message, wait, rate_limited=True)
    if status in (408, 409, 425) or status >= 500:
        kind = "server error" if status >= 500 else "temporary failure"
        return TransientError(f"{kind} ({status})", message, wait)
    kind_of_error = OutputLimit if OUTPUT_LIMIT.search(full_message) else UserError
    name = request_parameters.refused_parameter(f"{full_message} {codes}", parameters, _named_parameter(body))
    advice = request_parameters.advice(name, endpoint.provider) if name and status in (400, 404, 405, 422) else None
    return _permanent_error(endpoint, model, status, message, kind_of_error, advice)


def _is_quota(codes: str, message: str, wait: float | None) -> bool:
    """Whether a 429 reports an exhausted quota, which no waiting restores."""
    if any(code in codes for code in QUOTA_CODES):
        return True
    # Some messages about a rate limit name a quota of requests a minute, with a time to wait or the code of a rate limit.
    return wait is None and "rate_limit" not in codes and QUOTA.search(message) is not None


def _permanent_error(
    endpoint: Endpoint,
    model: str,
    status: int,
    message: str,
    kind: type[UserError] = UserError,
    parameter_advice: str | None = None,
) -> UserError:
    """The error that ends the run. parameter_advice: what to do where the server refuses a parameter."""
    problem, advice = ADVICE.get(status, ("the request is not accepted", "check the parameters of this block"))
    key = endpoint.api_key_env or "`api_key_env` (none is configured)"
    return kind(
        f"provider {endpoint.provider!r}, model {model!r}: status {status}, {problem}{_quotation(message)}; "
        f"{parameter_advice or advice.format(key=key)} and run the same command again (finished items are kept)"
    )


def _quotation(message: str) -> str:
    return f" (the server says: {message})" if message else ""


def _error_content(body: bytes) -> tuple[str, str]:
    """Codes and message of an error body, in any of the usual forms; the whole body where it has none of them."""
    text = body.decode(errors="replace")
    try:
        parsed = parse_json(body)
    except ValueError:
        return "", text
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    if not isinstance(error, dict):
        return "", valid_text(str(error))
    message: Any = error.get("message") or error.get("detail") or text
    codes = " ".join(str(error.get(name)) for name in ("code", "type"))
    return valid_text(codes), valid_text(message) if isinstance(message, str) else text


def _named_parameter(body: bytes) -> str | None:
    """The parameter that an error names in a field of its own (`param`, or the place of an input that is not accepted)."""
    try:
        parsed = parse_json(body)
    except ValueError:
        return None
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if not isinstance(error, dict):
        return None
    details = error.get("detail")
    first = details[0] if isinstance(details, list) and details else None
    place = first.get("loc") if isinstance(first, dict) else None
    name = error.get("param") or (place[-1] if isinstance(place, list) and place else None)
    return name if isinstance(name, str) else None
