"""Data in the CJE format into arrays: the one place to import from, whatever the file."""

from __future__ import annotations

from arena_cje.data.calibration import load_calibration
from arena_cje.data.draws import find_draws, find_probes, load_draws
from arena_cje.data.logged import load_logged

__all__ = ["find_draws", "find_probes", "load_calibration", "load_draws", "load_logged"]
