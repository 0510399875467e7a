"""Exhibits as files: each is the value of its function, written as the suffix of its file says."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje import files

if TYPE_CHECKING:
    from collections.abc import Callable

    from arena_cje.config.exhibits import Exhibit
    from arena_cje.report.sources import Sources


def make(exhibit: Exhibit, sources: Sources, path: str | Path) -> None:
    """Make an exhibit from its sources and write it."""
    function = getattr(import_module(exhibit.module), exhibit.function.rpartition(".")[2])
    value = function(**{argument: getattr(sources, name) for argument, name in exhibit.sources.items()})
    WRITERS[Path(path).suffix](path, value)


def _write_page(path: str | Path, text: str) -> None:
    files.write_bytes(path, text.encode())


def _write_parquet(path: str | Path, table: Any) -> None:
    files.replace(path, table.write_parquet)


def _write_figure(path: str | Path, figure: Any) -> None:
    from arena_cje.report import theme

    theme.save(figure, path)


WRITERS: dict[str, Callable[[str | Path, Any], None]] = {
    ".csv": files.write_csv,
    ".html": _write_page,
    ".json": files.write_json,
    ".jsonl": files.write_jsonl,
    ".parquet": _write_parquet,
    ".png": _write_figure,
}
