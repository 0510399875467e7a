"""A server that answers every call."""

from __future__ import annotations

import pytest

from fault_server import FaultServer


@pytest.fixture(scope="module")
def server():
    with FaultServer() as running:
        yield running
