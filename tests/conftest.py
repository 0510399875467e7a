"""Fixtures that several test files share."""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

import tiny_gguf
from arena_cje.llama import fetch
from arena_cje.llama.model import open_model
from workflow_run import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# Files that the jobs of a machine share are in a folder of this test run; test modules pass the environment to processes.
MACHINE = tempfile.TemporaryDirectory(prefix="arena-cje-tests-")
os.environ["TMPDIR"] = tempfile.tempdir = MACHINE.name


@pytest.fixture(scope="session", autouse=True)
def _interruptible():
    """Ctrl-C raises in this process and in those that it starts: a background job of a shell would ignore it."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A random language model of some hundred kilobytes, in a real GGUF file."""
    return tiny_gguf.write(tmp_path_factory.mktemp("model") / "tiny.gguf", spread=8.0)


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The embedded model, fetched as the workflow does it where it is not there yet; by one process of several."""
    models = ROOT / "resources" / "models"
    path = models / "SmolLM2-135M-Instruct.F16.gguf"
    with (models / "MODELS.yaml").open() as recipes:
        fcntl.flock(recipes, fcntl.LOCK_EX)
        if not path.exists():
            fetch.fetch(path.name, recipes.name, path)
    return path


@pytest.fixture(scope="module", params=tiny_gguf.KINDS)
def model(request, tmp_path_factory):
    """An open random model of each architecture and kind of vocabulary."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    with open_model(tiny_gguf.write(path, **tiny_gguf.KINDS[request.param]), n_ctx=tiny_gguf.N_CTX_TRAIN) as model:
        yield model


@pytest.fixture(scope="module")
def browser():
    """Chromium under playwright, for modules with the mark `chromium.needs_chromium`."""
    import chromium  # skips where playwright is missing

    with chromium.sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opening(model) -> tuple[int, ...]:
    """Token ids for prompts to begin with, enough of them to be worth sharing."""
    return tuple(np.random.default_rng(4).integers(0, model.n_vocab, 100).tolist())
