"""A server on this machine with the API of the Hugging Face Hub, for one data set with one Parquet file."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "lmsys/chatbot_arena_conversations"
TOKEN = "hf_of_a_person_who_accepted_the_terms"
FIRST, SECOND = "1" * 40, "2" * 40  # commits


@dataclass
class Hub:
    """A running server. files: content of the Parquet file by commit, the newest last; requests: method and path of each."""

    files: dict[str, bytes]
    gated: bool = True
    address: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)

    @property
    def newest(self) -> str:
        return list(self.files)[-1]

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """Environment of a process that uses this server as the hub, with a cache of its own."""
        names = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        names |= {"HF_ENDPOINT": self.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        return names | ({"HF_TOKEN": token} if token else {})


@contextmanager
def serve(files: dict[str, bytes], *, gated: bool = True) -> Iterator[Hub]:
    """Run the server until the body ends."""
    hub = Hub(files, gated)

    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

    def _answer(self, body: str = "") -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path))
        prefixes = (f"/api/datasets/{NAME}", f"/datasets/{NAME}/resolve/")
        if not path.startswith(prefixes):
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        if path.startswith(prefixes[0]):
            self._metadata(path.removeprefix(prefixes[0]).strip("/").split("/"), body)
            return
        revision, _, name = path.removeprefix(prefixes[1]).partition("/")
        commit = self._commit(revision)
        if commit is None:
            self._send(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
        elif name != self._file():
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        elif hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            message = (
                f"Access to dataset {NAME} is restricted. You must have access to it and be authenticated to access it."
            )
            self._send(401, {"error": message}, {"X-Error-Code": "GatedRepo", "X-Error-Message": message})
        else:
            content = hub.files[commit]
            etag = hashlib.sha256(content).hexdigest()
            self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"})

    def _metadata(self, parts: list[str], body: str) -> None:
        revision = parts[1] if len(parts) > 1 else "main"
        commit = self._commit(revision)
        if commit is None:
            self._send(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
            return
        content = self.hub.files[commit]
        file = {"type": "file", "path": self._file(), "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        folder = {"type": "directory", "path": "data", "oid": "0" * 40, "size": 0}
        if parts[0] == "tree":
            self._send(200, [file] if parts[2:] == ["data"] else [folder, file])
        elif parts[0] == "paths-info":
            requested_paths = parse_qs(body).get("paths") or json.loads(body or "{}").get("paths", [])
            self._send(200, [entry for entry in (file, folder) if entry["path"] in requested_paths])
        else:
            siblings = [{"rfilename": self._file()}]
            gated = "auto" if self.hub.gated else False
            self._send(200, {"id": NAME, "sha": commit, "siblings": siblings, "private": False, "gated": gated})

    def _commit(self, revision: str) -> str | None:
        if revision in ("main", "refs/convert/parquet"):
            return self.hub.newest if revision == "main" else None
        return revision if revision in self.hub.files else None

    def _file(self) -> str:
        return "data/train-00000-of-00001.parquet"

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers = {"Content-Type": "application/json"} | (headers or {})
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
