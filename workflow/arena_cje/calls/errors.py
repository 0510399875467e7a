"""What went wrong with a call: what passes is tried again, what cannot pass is said in one sentence.

    passes       429 (rate limit), 408, 409, 425, 5xx, no answer in time, a lost connection, an answer that cannot be read
    cannot pass  401, 403, 404, 402 and an exhausted quota (some say 429), any other 4xx
    is a reply   the provider declines the content, or the request does not fit the model's context

Sources: https://platform.openai.com/docs/guides/error-codes, RFC 9110 section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

import orjson

from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arena_cje.calls.endpoint import Endpoint

RATE_LIMIT = 429
LONGEST = 200  # characters of a server's words that are repeated
PATIENCE = 3600.0  # seconds; who asks for a longer pause is asked again by the next run
WINDOW = 8  # this many characters of a key give it away

QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance")
QUOTA = re.compile(r"current quota|insufficient (?:quota|balance|funds|credit)|credit balance", re.IGNORECASE)
TOO_LONG = re.compile(
    r"context[ _](?:length|window|size|limit)|maximum context|(?:prompt|input|request) (?:is )?too (?:long|large)"
    r"|token count .{0,40}exceeds|tokens \+ \S*max_new_tokens",
    re.IGNORECASE,
)
REFUSED = re.compile(
    r"content[ _-]?(?:policy|filter|management)|usage polic|moderation|flagged|invalid_prompt", re.IGNORECASE
)

# A model that thinks first and was not finished: some servers call that an error.
OUTPUT_LIMIT = re.compile(r"output limit was reached", re.IGNORECASE)

ADVICE = {
    401: ("the key is not accepted", "check the key in {key}"),
    402: ("the account has no credit left", "top it up"),
    403: ("the key may not use this model", "check what the key in {key} may use"),
    404: ("no such model or address", "check `model` and `base_url`"),
    RATE_LIMIT: ("the quota is used up", "raise it with the provider"),
}


class OutputLimit(UserError):
    """The server reports as an error that `max_tokens` ended the answer before it began."""


class TransientError(Exception):
    """A failure that may pass: its kind for the counts, the server's words, the seconds that it asks to wait."""

    def __init__(self, kind: str, words: str = "", retry_after: float | None = None, *, limited: bool = False):
        super().__init__(f"{kind}: {words}" if words else kind)
        self.kind = kind
        self.words = words
        self.retry_after = retry_after
        self.limited = limited  # we ask too fast


class UnreadableReply(TransientError):
    """An answer that came and cannot be read; it may have been billed, so its length counts."""

    def __init__(self, why: str, length: int = 0):
        super().__init__("unreadable answer", why)
        self.length = length  # bytes


def redact(text: str, keys: Iterable[str]) -> str:
    """The text with every piece of a key of 8 characters or more (a shorter key: all of it) replaced by ***."""
    for key in keys:
        width = min(WINDOW, len(key))
        if not width:
            continue
        pieces = {key[i : i + width] for i in range(len(key) - width + 1)}
        hidden = [False] * len(text)
        for start in range(len(text) - width + 1):
            if text[start : start + width] in pieces:
                hidden[start : start + width] = [True] * width
        if any(hidden):
            kept = "".join("\0" if hide else char for char, hide in zip(text, hidden, strict=True))
            text = re.sub("\0+", "***", kept)
    return text


def one_line(text: str, keys: Iterable[str] = ()) -> str:
    """Words of a server in one line: keys out first, since a cut key would not be found any more."""
    line = " ".join(redact(text, keys).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def seconds_to_wait(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """What Retry-After (seconds or an HTTP date) asks for; None where it is not there or makes no sense."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        said = headers.get(name)
        if said is None:
            continue
        try:
            seconds = float(said) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(said).timestamp() - (time.time() if now is None else now)
            except ValueError:
                continue
        if seconds == seconds and seconds != float("inf"):  # neither NaN nor infinite
            return max(seconds, 0.0)
    return None


def classify_status(
    endpoint: Endpoint, model: str, status: int, headers: Mapping[str, str], body: bytes, keys: Iterable[str] = ()
) -> TransientError | UserError | Literal["refused", "too_long"]:
    """What an error status means: it passes, it cannot pass, or it is a reply of its own kind."""
    codes, words = _said(body)
    everything = f"{codes} {words}"
    said = one_line(words, keys)
    wait = seconds_to_wait(headers)
    if status == 413 or (status in (400, 422) and TOO_LONG.search(everything)):
        return "too_long"
    if status in (400, 403, 422) and REFUSED.search(everything):
        return "refused"
    if status == RATE_LIMIT and _is_quota(codes, words, wait):
        return _final(endpoint, model, status, said)
    if wait is not None and wait > PATIENCE:
        return UserError(
            f"provider {endpoint.provider!r}, model {model!r}: status {status}, it asks to wait {wait / 3600:.1f} hours"
            f"{_quoted(said)}; start the same command again then (what is finished is kept)"
        )
    if status == RATE_LIMIT:
        return TransientError(f"rate limit ({status})", said, wait, limited=True)
    if status in (408, 409, 425) or status >= 500:
        return TransientError(f"server error ({status})" if status >= 500 else f"not now ({status})", said, wait)
    return _final(endpoint, model, status, said, OutputLimit if OUTPUT_LIMIT.search(words) else UserError)


def _is_quota(codes: str, words: str, wait: float | None) -> bool:
    """Is it no matter of speed? Some say "quota" of a limit a minute too, but then how long to wait."""
    if any(code in codes for code in QUOTA_CODES):
        return True
    return wait is None and "rate_limit" not in codes and QUOTA.search(words) is not None


def _final(endpoint: Endpoint, model: str, status: int, said: str, kind: type[UserError] = UserError) -> UserError:
    what, advice = ADVICE.get(status, ("the request is not accepted", "check the parameters of this block"))
    key = endpoint.api_key_env or "`api_key_env` (none is named)"
    return kind(
        f"provider {endpoint.provider!r}, model {model!r}: status {status}, {what}{_quoted(said)}; "
        f"{advice.format(key=key)} and start the same command again (what is finished is kept)"
    )


def _quoted(said: str) -> str:
    return f" (it says: {said})" if said else ""


def _said(body: bytes) -> tuple[str, str]:
    """Codes and words of an error's body, whichever of the usual forms it has."""
    text = body.decode(errors="replace")
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", text
    inner = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    if not isinstance(inner, dict):
        return "", str(inner)
    words: Any = inner.get("message") or inner.get("detail") or text
    return " ".join(str(inner.get(name)) for name in ("code", "type")), words if isinstance(words, str) else text
