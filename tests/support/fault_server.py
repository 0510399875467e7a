"""A small local server with the OpenAI API: its replies are functions of the request, and it can fail in chosen ways.

    with FaultServer(latency=0.05, faults=seeded(0.3)) as server:
        ... server.url ...
        server.max_in_flight, server.answered, server.bodies

A request has the same reply in every run, so that replies with faults can be compared with replies without. As a script
it prints its address and serves until its input ends: `python tests/support/fault_server.py --latency 0.05`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import blake2b
from typing import Any

TRANSIENT = (
    "429",
    "429 with Retry-After",
    "429 with a date",
    "500",
    "503",
    "timeout",
    "dropped",
    "truncated",
    "not JSON",
    "empty choices",
    "wrong types",
)
WRONG_USAGE = "wrong usage"  # a correct reply with impossible numbers of tokens
DECLINED = ("refusal", "content filter", "too long", "content policy")
UNFINISHED = (
    "Could not finish the message because max_tokens or model output limit was reached. "
    "Please try again with higher max_tokens."
)
FINAL = ("401", "402", "403", "404", "quota", "400")

# From a request's body and the number of its earlier attempts to the name of a fault; None for a correct reply.
Faults = Callable[[Mapping[str, Any], int], str | None]


def digest(*parts: Any) -> int:
    """A hash of the parts as a number."""
    content = json.dumps(parts, sort_keys=True).encode()
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")


def no_faults(body: Mapping[str, Any], earlier: int) -> None:
    """Every reply is correct."""


def seeded(
    share: float, *, seed: int = 0, kinds: tuple[str, ...] = (*TRANSIENT, WRONG_USAGE), max_faults: int = 4
) -> Faults:
    """A share of the attempts fails, all kinds equally often; a request fails only in its first `max_faults` attempts."""

    def fault(body: Mapping[str, Any], earlier: int) -> str | None:
        number = digest(seed, body, earlier)
        return (
            kinds[number // 10_000 % len(kinds)] if earlier < max_faults and number % 10_000 < share * 10_000 else None
        )

    return fault


def scripted(*faults: str | None) -> Faults:
    """The first attempts of every request have these faults, in this order; later attempts have none."""
    return lambda body, earlier: faults[earlier] if earlier < len(faults) else None


def token_bucket(rate: float, burst: float) -> Faults:
    """Status 429 for what exceeds `rate` requests a second, of which `burst` may come at once."""
    level, filled_at = burst, time.monotonic()

    def fault(body: Mapping[str, Any], earlier: int) -> str | None:
        nonlocal level, filled_at
        now = time.monotonic()
        level, filled_at = min(burst, level + (now - filled_at) * rate), now
        if level < 1:
            return "429"
        level -= 1
        return None

    return fault


@dataclass
class FaultServer:
    """The server, in its own thread. Its counters may be read at any time."""

    faults: Faults = no_faults
    latency: float = 0.0  # seconds until a reply
    hang: float = 60.0  # seconds that the connection of a request without a reply stays open
    retry_after: float = 0.2  # seconds
    port: int = 0
    echo_key: bool = True  # error bodies repeat the key that was sent
    replies: Callable[[str, Mapping[str, Any]], dict[str, Any]] | None = None  # in place of `correct_reply`
    # Status, headers and body for a request's body, in place of all replies and faults
    responses: Callable[[Mapping[str, Any]], tuple[int, dict[str, str], bytes]] | None = None

    sent: Counter[str] = field(default_factory=Counter, init=False)  # attempts, by request
    answered: Counter[str] = field(default_factory=Counter, init=False)  # complete replies, by request
    bodies: list[dict[str, Any]] = field(default_factory=list, init=False)
    headers: list[dict[str, str]] = field(default_factory=list, init=False)
    keys: Counter[str] = field(default_factory=Counter, init=False)  # API keys of the requests
    paths: Counter[str] = field(default_factory=Counter, init=False)
    times: list[float] = field(default_factory=list, init=False)  # arrival times of requests, seconds
    holds_replies: bool = field(default=False, init=False)  # no reply is sent while this is true
    in_flight: int = field(default=0, init=False)  # requests without a reply so far
    max_in_flight: int = field(default=0, init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FaultServer:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run(started))
        self._loop.close()

    async def _run(self, started: threading.Event) -> None:
        self._end = asyncio.Event()
        self._open: set[asyncio.Task[Any]] = set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._end.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._open.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply; whether the connection stays open."""
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))) or b"{}")
        path = first.split(" ")[1]
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            return await self._reply(path, headers, body, writer)
        finally:
            self.in_flight -= 1

    async def _reply(
        self, path: str, headers: Mapping[str, str], body: dict[str, Any], writer: asyncio.StreamWriter
    ) -> bool:
        name = json.dumps(body, sort_keys=True)
        earlier = self.sent[name]
        self.times.append(time.monotonic())
        self.sent[name] += 1
        self.bodies.append(body)
        self.headers.append(dict(headers))
        self.paths[path] += 1
        key = headers.get("authorization", "").removeprefix("Bearer ")
        self.keys[key] += 1
        fault = self.faults(body, earlier)
        await asyncio.sleep(self.hang if fault == "timeout" else self.latency)
        while self.holds_replies:
            await asyncio.sleep(0.01)
        if fault in ("timeout", "dropped"):
            writer.transport.abort()
            return False
        if fault == "drip":  # the connection sends bytes, and the reply never ends
            writer.write(b"HTTP/1.1 200 x\r\ncontent-length: 1000\r\n\r\n")
            for _ in range(int(self.hang / 0.05)):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
            writer.transport.abort()
            return False
        key_in_error = key if self.echo_key else ""
        if self.responses is None:
            status, response_headers, content = respond(path, body, fault, key_in_error, self.retry_after, self.replies)
        else:
            status, response_headers, content = self.responses(body)
        if status == 200 and fault in (None, WRONG_USAGE, *DECLINED):
            self.answered[name] += 1
        head = f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n"
        writer.write((head + "".join(f"{a}: {b}\r\n" for a, b in response_headers.items()) + "\r\n").encode() + content)
        await writer.drain()
        return True


def respond(
    path: str,
    body: Mapping[str, Any],
    fault: str | None,
    key: str,
    retry_after: float,
    replies: Callable[[str, Mapping[str, Any]], dict[str, Any]] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the HTTP response to a request."""
    key_sentence = f" The key sent was {key}." if key else ""

    def error(status: int, message: str, code: str | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        content = {"error": {"message": message + key_sentence, "code": code, "type": code}}
        return status, headers, json.dumps(content).encode()

    errors = {
        "429": lambda: error(429, "Rate limit reached.", "rate_limit_exceeded"),
        "429 with Retry-After": lambda: error(429, "Slow down.", **{"retry-after": f"{retry_after:g}"}),
        "429 with a date": lambda: error(
            429, "Slow down.", **{"retry-after": formatdate(time.time() + retry_after, usegmt=True)}
        ),
        "429 for long": lambda: error(429, "Come back tomorrow.", **{"retry-after": "86400"}),
        "500": lambda: error(500, "The server had an error."),
        "503": lambda: error(503, "Overloaded."),
        "401": lambda: error(401, "Incorrect API key provided.", "invalid_api_key"),
        "402": lambda: error(402, "Payment required."),
        "403": lambda: error(403, "You may not sample from this model."),
        "404": lambda: error(404, "The model does not exist.", "model_not_found"),
        "400": lambda: error(400, "Unsupported parameter: 'temperature'.", "unsupported_parameter"),
        "unfinished": lambda: error(400, UNFINISHED, "invalid_request_error"),
        "quota": lambda: error(429, "You exceeded your current quota.", "insufficient_quota"),
        "too long": lambda: error(400, "This model's maximum context length is 9 tokens.", "context_length_exceeded"),
        "content policy": lambda: error(400, "Your prompt was flagged.", "content_policy_violation"),
    }
    if fault in errors:
        return errors[fault]()
    if fault and fault.startswith("redirect "):
        _, status, location = fault.split(" ", 2)
        return int(status), {"location": location}, b""
    if not path.endswith(("/v1/chat/completions", "/v1/completions")):
        return error(404, f"No such path {path}.")
    reply = (replies or correct_reply)(path, body)
    first = reply["choices"][0]
    if fault == "empty choices":
        reply["choices"] = []
    elif fault == "wrong types":
        first.update({"message": "text", "text": 7})
    elif fault == WRONG_USAGE:
        wrong = ({"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": 3.5}, None, {"prompt_tokens": 10**12})
        reply["usage"] = wrong[digest(body) % len(wrong)]
    elif fault == "refusal":
        first["message"] |= {"content": None, "refusal": "I cannot help with that."}
    elif fault == "content filter":
        first["finish_reason"] = "content_filter"
    content = json.dumps(reply).encode()
    if fault == "truncated":
        content = content[: len(content) // 2]
    elif fault == "not JSON":
        content = b"<html>Bad gateway</html>"
    return 200, {}, content


def correct_reply(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The reply without a fault."""
    return chat(body) if path.endswith("/chat/completions") else completion(body)


def text_of_reply(body: Mapping[str, Any]) -> str:
    """The text that the model writes: a number that is a function of the request."""
    return f"Score: {digest(body) % 11}"


def logprob(text: str, *before: str) -> float:
    """Log probability of a token after others, in [-5, 0) nats."""
    return -5 * (digest(text, before) % 9999 + 1) / 10_000


def chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to a chat, of two tokens."""
    text = text_of_reply(body)
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if body.get("logprobs"):
        tokens = ["Score: ", text.removeprefix("Score: ")]
        choice["logprobs"] = {
            "content": [
                {
                    "token": token,
                    "logprob": logprob(token, str(k)),
                    "top_logprobs": [
                        {"token": str(other), "logprob": logprob(str(other), str(k))}
                        for other in range(body.get("top_logprobs") or 0)
                    ],
                }
                for k, token in enumerate(tokens)
            ]
        }
    words = sum(len(message["content"].split()) for message in body["messages"])
    usage = {"prompt_tokens": words, "completion_tokens": 2, "total_tokens": words + 2}
    return _reply_body("chat.completion", body, choice, usage)


def completion(body: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to a completion; with `echo` it begins with the prompt's words and their log probabilities."""
    generated = [" " + word for word in text_of_reply(body).split()][: body.get("max_tokens", 16)]
    parts = body["prompt"].split(" ")
    prompt = parts[:1] + [" " + word for word in parts[1:]]
    tokens = (prompt if body.get("echo") else []) + generated
    choice: dict[str, Any] = {"index": 0, "text": "".join(tokens), "finish_reason": "length"}
    if body.get("logprobs") is not None:
        values = [logprob(token, *tokens[:k]) for k, token in enumerate(tokens)]
        choice["logprobs"] = {
            "tokens": tokens,
            "token_logprobs": [None, *values[1:]] if body.get("echo") else values,
            "top_logprobs": [{token: value} for token, value in zip(tokens, values, strict=True)],
            "text_offset": [sum(map(len, tokens[:k])) for k in range(len(tokens))],
        }
    usage = {
        "prompt_tokens": len(prompt),
        "completion_tokens": len(generated),
        "total_tokens": len(prompt) + len(generated),
    }
    return _reply_body("text_completion", body, choice, usage)


def _reply_body(kind: str, body: Mapping[str, Any], choice: Any, usage: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "object": kind,
        "created": 0,
        "model": f"{body['model']}-2025-01-01",
        "system_fingerprint": "fp_1",
        "choices": [choice],
        "usage": usage,
    }


def main() -> None:
    """Serve until the input ends or the process is interrupted."""
    parser = argparse.ArgumentParser(description="A server with the OpenAI API that can fail.")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds until a reply")
    parser.add_argument("--faults", type=float, default=0.0, help="share of the requests that fail")
    parser.add_argument("--rejected", type=float, default=0.0, help="share of the requests that get status 429")
    parser.add_argument("--rate", type=float, help="requests a second that are granted; others get status 429")
    options = parser.parse_args()
    faults = seeded(options.faults)
    if options.rejected:
        faults = seeded(options.rejected, kinds=("429",))
    if options.rate:
        faults = token_bucket(options.rate, burst=options.rate / 10)
    with FaultServer(latency=options.latency, faults=faults) as server:
        print(server.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()
        print(json.dumps({"requests": server.sent.total(), "max_in_flight": server.max_in_flight}), flush=True)


if __name__ == "__main__":
    main()
