"""Asks a server for some chats as a job does, in a process of its own: `python tests/support/calls_process.py '{...}'`.

The argument is JSON: url, folder (of the journal), name, items [start, stop], and what differs of the endpoint and the
ledger. The last line of the output is JSON: replies by prompt, calls sent, seconds; an error's sentence goes to stderr.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.calls.endpoint import Endpoint
from arena_cje.calls.ledger import Ledger
from arena_cje.calls.request import Request
from arena_cje.calls.runner import Backoff, CallJob, journaled_ask
from arena_cje.errors import UserError
from arena_cje.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Mapping

QUICK = Backoff(first=0.02, longest=0.2)


def endpoint(url: str | None, **changed: Any) -> Endpoint:
    """An endpoint for tests, with what differs."""
    usual: dict[str, Any] = {
        "provider": "local",
        "api": "openai",
        "base_url": url,
        "api_key_env": None,
        "max_concurrency": 8,
        "requests_per_minute": None,
        "timeout": 5.0,
        "max_attempts": 8,
        "completions": False,
        "echo_max_tokens": 1,
        "json_reply": "schema",
    }
    return Endpoint(**(usual | changed))


def chat(text: str, **body: Any) -> Request:
    """A request for a chat of one message."""
    return Request("chat", {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 9, **body})


def chats(start: int, stop: int) -> list[Request]:
    """Different ones, the same in every process."""
    return [chat(f"question {i}") for i in range(start, stop)]


def usd(api: str, model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
    """A cent a call, where the model's price is known."""
    return None if model == "unpriced" else 0.01


def work(url: str | None, folder: Path, *, budget_usd: float | None = None, **changed: Any) -> CallJob:
    """CallJob of a job in tests."""
    ledger = Ledger(folder / "spending.jsonl", usd, budget_usd)
    return CallJob(endpoint(url, **changed), "judge", "base", ledger, folder=folder, backoff=QUICK)


def main(asked: Mapping[str, Any]) -> int:
    """Do what is asked for."""
    logging.basicConfig(level=logging.INFO)
    folder = Path(asked["folder"])
    job = work(asked["url"], folder, budget_usd=asked.get("budget_usd"), **asked.get("endpoint", {}))
    requests = chats(*asked["items"])
    began = time.monotonic()
    try:
        with Journal(folder / "calls" / f"{asked['name']}.jsonl") as journal:
            replies = journaled_ask(job, journal)(requests)
    except UserError as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 1
    said = {
        request.body["messages"][0]["content"]: reply.text for request, reply in zip(requests, replies, strict=True)
    }
    print(json.dumps({"replies": said, "calls": job.totals.calls, "seconds": time.monotonic() - began}))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
