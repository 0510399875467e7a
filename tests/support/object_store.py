"""An object store on the loopback address whose one bucket holds the files of a folder, with the requests of a plan."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NO_KEYS = (
    b'<?xml version="1.0"?><ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>'
)
TIME = "Thu, 01 Jan 2026 00:00:00 GMT"


@contextlib.contextmanager
def serve(folder: Path, prefix: str) -> Iterator[str]:
    """The address of a store; /BUCKET/{prefix}/NAME is the file NAME of the folder. No key begins with another one."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            _, _, key = unquote(urlsplit(self.path).path).strip("/").partition("/")
            file = folder / key.removeprefix(f"{prefix}/") if key else folder
            if not key:
                self._answer(200, 0)
            elif file.is_file():
                self._answer(200, file.stat().st_size)
            else:
                self._answer(404, 0)

        def do_GET(self) -> None:
            self._answer(200, len(NO_KEYS))
            self.wfile.write(NO_KEYS)

        def _answer(self, status: int, size: int) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": size, "ETag": '"0"', "Last-Modified": TIME}.items():
                self.send_header(name, str(value))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
