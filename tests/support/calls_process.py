"""A job that sends some chats to a server, as a process: `python tests/support/calls_process.py '{...}'`.

The argument is JSON: url, folder (of the journal), name, items [start, stop], sync_seconds (of each sync to disk), and changes
to the default endpoint and the ledger. The last line of the output is JSON: replies by prompt, calls, seconds. An error message
goes to stderr.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.calls.client import Client
from arena_cje.calls.endpoint import Endpoint
from arena_cje.calls.ledger import Ledger
from arena_cje.calls.request import Reply, Request
from arena_cje.calls.runner import Backoff, CallJob, journaled_ask
from arena_cje.errors import UserError
from arena_cje.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

QUICK = Backoff(first=0.02, longest=0.2)


def environment(**variables: str) -> dict[str, str]:
    """The environment of a job in a process of its own."""
    support = Path(__file__).resolve().parent
    paths = [support.parents[1] / "workflow", support]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), **variables}


def endpoint(url: str | None, **changes: Any) -> Endpoint:
    """An endpoint for tests; `changes` replace fields of the default one."""
    default: dict[str, Any] = {
        "provider": "local",
        "api": "openai",
        "base_url": url,
        "api_key_env": None,
        "max_concurrency": 8,
        "requests_per_minute": None,
        "timeout": 60.0,
        "max_attempts": 8,
        "completions": False,
        "echo_max_tokens": 1,
        "json_reply": "schema",
    }
    return Endpoint(**(default | changes))


def chat(text: str, **body: Any) -> Request:
    """A request for a chat of one message."""
    return Request("chat", {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 9, **body})


def chats(start: int, stop: int) -> list[Request]:
    """Different chats, the same in every process."""
    return [chat(f"question {i}") for i in range(start, stop)]


def call_price(api: str, model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
    """0.01 US$ a call; None for the model `unpriced`."""
    return None if model == "unpriced" else 0.01


def call_job(url: str | None, folder: Path, *, budget_usd: float | None = None, **changes: Any) -> CallJob:
    """The calls of a job in tests."""
    ledger = Ledger(folder / "spending.jsonl", call_price, budget_usd)
    return CallJob(endpoint(url, **changes), "judge", "base", ledger, folder=folder, backoff=QUICK)


def send(request: Request, to: Endpoint) -> Reply:
    """The reply that a client receives for one request."""

    async def once() -> Reply:
        async with Client(to) as client:
            return await client.send(request)

    return asyncio.run(once())


def ask_all(job: CallJob, folder: Path, requests: Sequence[Request], name: str = "0000") -> list[Reply]:
    """Replies that a job gets through its journal."""
    with Journal(folder / "calls" / f"{name}.jsonl") as journal:
        return journaled_ask(job, journal)(requests)


def chat_body(choice: Mapping[str, Any] | None = None, **rest: Any) -> bytes:
    """The body of an HTTP response to a chat."""
    choice = {"message": {"content": "Yes"}, "finish_reason": "stop"} | (choice or {})
    return json.dumps({"choices": [choice], "model": "m-1", **rest}).encode()


def main(arguments: Mapping[str, Any]) -> int:
    """Send the chats and print the result; the exit status is 1 after a `UserError`."""
    logging.basicConfig(level=logging.INFO)
    folder = Path(arguments["folder"])
    job = call_job(arguments["url"], folder, budget_usd=arguments.get("budget_usd"), **arguments.get("endpoint", {}))
    requests = chats(*arguments["items"])
    if seconds := arguments.get("sync_seconds"):
        sync = os.fsync
        os.fsync = lambda file: (time.sleep(seconds), sync(file))
    began = time.monotonic()
    try:
        with Journal(folder / "calls" / f"{arguments['name']}.jsonl") as journal:
            replies = journaled_ask(job, journal)(requests)
    except UserError as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    replies_by_prompt = {
        request.body["messages"][0]["content"]: reply.text for request, reply in zip(requests, replies, strict=True)
    }
    print(json.dumps({"replies": replies_by_prompt, "calls": job.totals.calls, "seconds": time.monotonic() - began}))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
