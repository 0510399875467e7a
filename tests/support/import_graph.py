"""Imports between the files of the library, from their syntax trees: those inside functions and for annotations count."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import arena_cje

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PACKAGE = Path(arena_cje.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}


def tree(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text())


def file_of(module: str) -> str | None:
    """The file of a module, as in `FILES`; None where it is none of the library's."""
    package, *parts = module.split(".")
    names = ("/".join([*parts[:-1], f"{parts[-1]}.py"]) if parts else "", "/".join([*parts, "__init__.py"]))
    return next((name for name in names if package == "arena_cje" and name in FILES), None)


def imported(statements: Iterable[ast.AST]) -> Iterator[str]:
    """Files that import statements name: `from package import module` is the module, another name is the package's."""
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from filter(None, (file_of(alias.name) for alias in statement.names))
        elif isinstance(statement, ast.ImportFrom) and statement.module and file_of(statement.module):
            for alias in statement.names:
                yield file_of(f"{statement.module}.{alias.name}") or file_of(statement.module)


GRAPH = {file: set(imported(ast.walk(tree(file)))) - {file} for file in sorted(FILES)}
