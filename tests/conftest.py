"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_gguf


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A random language model of some hundred kilobytes, in a real GGUF file."""
    return tiny_gguf.write(tmp_path_factory.mktemp("model") / "tiny.gguf", spread=8.0)
