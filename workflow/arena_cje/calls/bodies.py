"""Bodies of HTTP responses, as far as they may be trusted: their size, their compression, their JSON.

A body is read up to a limit, before and after decompression. Beyond it a reply is unreadable, and of the body of an error its
beginning is enough. JSON is read as far as it has one meaning: half a surrogate pair becomes U+FFFD, and NaN is a number.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from typing import Any

import orjson

MAX_REPLY = 16 * 2**20  # bytes; log probabilities of a text of 100 000 tokens take about 10 MB
MAX_ERROR = 64 * 2**10  # bytes
ENCODINGS = "gzip, deflate"  # those whose decompression can be stopped at a size
SURROGATE = re.compile("[\ud800-\udfff]")


class UnreadableBody(Exception):
    """The body of a reply is too large, or its compression cannot be undone."""


def limit_bodies(http_client: Any) -> None:
    """Let an HTTP client (of httpx or of a library with its classes) read bodies up to the limits only."""
    http_client.headers["accept-encoding"] = ENCODINGS
    hooks = http_client.event_hooks
    http_client.event_hooks = hooks | {"response": [*hooks.get("response", ()), _read_body]}


async def _read_body(response: Any) -> None:
    """Read the body of a response, and put it in place of the response's stream."""
    is_error = not 200 <= response.status_code < 300
    encoding = response.headers.pop("content-encoding", "identity").strip().lower()
    try:
        body = await _bounded(response.stream, encoding, MAX_ERROR if is_error else MAX_REPLY, shorten=is_error)
    except UnreadableBody:
        if not is_error:
            raise
        body = b""  # the status of the reply is enough
    finally:
        await response.stream.aclose()
    response.stream = sys.modules[type(response).__module__.partition(".")[0]].ByteStream(body)


async def _bounded(stream: Any, encoding: str, limit: int, *, shorten: bool) -> bytes:
    """A body after decompression. Where it exceeds the limit: its beginning (`shorten`), or an `UnreadableBody`."""
    decoder = _decoder(encoding)
    body, n_received = bytearray(), 0
    async for chunk in stream:
        n_received += len(chunk)
        try:
            body += chunk if decoder is None else decoder.decompress(chunk, limit + 1 - len(body))
        except zlib.error as error:
            if encoding == "deflate" and n_received == len(chunk):  # some servers leave the header of the format out
                decoder = zlib.decompressobj(-zlib.MAX_WBITS)
                body += decoder.decompress(chunk, limit + 1)
            else:
                raise UnreadableBody(f"its compression ({encoding}) is damaged, {error}") from None
        if max(len(body), n_received) > limit:
            if not shorten:
                raise UnreadableBody(
                    f"it is larger than {limit / 2**20:g} MB, more than any valid answer; the rest is not read"
                )
            break
    return bytes(body[:limit])


def _decoder(encoding: str) -> Any:
    """Undoes a compression piece by piece; None where there is none."""
    if encoding in ("identity", ""):
        return None
    if encoding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(zlib.MAX_WBITS | 32)  # finds out which of the two it is
    raise UnreadableBody(f"its compression ({encoding:.40}) is not one that the request accepts ({ENCODINGS})")


def parse_json(content: bytes) -> Any:
    """The JSON value of a body; raises a `ValueError` where it has none."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        problem = str(error)
    try:
        return json.loads(content.decode("utf-8-sig", errors="replace"), strict=False)
    except (ValueError, RecursionError):
        raise ValueError(f"not valid JSON, {problem}") from None


def valid_text(text: str) -> str:
    """The text with U+FFFD in place of each half of a surrogate pair, which no UTF-8 file can hold."""
    return SURROGATE.sub("\ufffd", text)
