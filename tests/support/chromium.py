"""Chromium for tests of pages: a module that imports this is skipped on a machine without playwright or Chromium."""

from __future__ import annotations

import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make test installs it)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)
expect = sync_api.expect  # unlike functions to wait for, it evaluates no script, which the pages forbid
