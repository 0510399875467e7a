"""What a result was made from: canonical parameters, item keys, and the code of the modules it depends on.

Cheap stages carry `code_hash` of their module and of all that it imports from this package, so that they rerun when their
code changes. Expensive stages carry the `VERSION` that stands beside their code instead: editing a comment there must not cost
a hundred hours.
"""

from __future__ import annotations

import ast
import json
from functools import cache
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent


def canonical(value: Any) -> str:
    """JSON with sorted keys: equal values give equal text, however they were written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Hash of the canonical JSON of a value, 32 hexadecimal digits."""
    return blake2b(canonical(value).encode(), digest_size=16).hexdigest()


def code_hash(*modules: str) -> str:
    """Hash of the source of modules of this package (`"arena_cje.results.analyze"`) and of all they import from it."""
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(closure(*modules))}
    return digest(sources)[:12]


def closure(*modules: str) -> set[Path]:
    """Source files of the modules and of everything they import from this package, followed to the end.

    From computing to showing nothing is followed: how a result is drawn (`report`) makes no number, so that a change
    of a figure leaves the estimates as they are.
    """
    found: set[Path] = set()
    waiting = [_source(module) for module in modules]
    while waiting:
        path = waiting.pop()
        if path is None or path in found:
            continue
        found.add(path)
        waiting.extend(there for there in _imports(path) if _shows(path) or not _shows(there))
    return found


def _shows(path: Path) -> bool:
    return path.is_relative_to(PACKAGE / "report")


def _source(module: str) -> Path | None:
    """File of a module of this package; None where the name is not a module of it."""
    parts = module.split(".")
    if parts[0] != PACKAGE.name:
        return None
    place = PACKAGE.joinpath(*parts[1:])
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return tuple(source for name in sorted(names) if (source := _source(name)) is not None)


def sha256(path: str | Path) -> str:
    """Hash of a file's content."""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()
