"""llama-cpp-python's own server on a free port of this machine, ended by its own id."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def llama_server(model: Path, folder: Path) -> Iterator[str]:
    """The address of a running server with a model; its log is in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1"]
    options = {"port": port, "logits_all": "true", "n_ctx": 1024, "n_threads": 2}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *(part for name, value in options.items() for part in (f"--{name}", str(value)))],
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + 60
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)
