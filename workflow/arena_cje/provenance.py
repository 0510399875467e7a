"""What a result was made from: canonical parameters, item keys, and the code of the modules it depends on.

Cheap stages carry `code_hash` of their module and of all that it imports from this package, so that they rerun when their
code changes. Expensive stages carry the `VERSION` that stands beside their code instead: editing a comment there must not cost
a hundred hours.
"""

from __future__ import annotations

import json
import re
from functools import cache
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
# Tables and figures of results: no number is made there.
SHOWING = ("report/", "results/text.py", "results/notebook.py", "results/overview.py", "results/html.py")
# A line of code, and what it imports. Python's parser takes 0.2 s of every start for this; a test compares the two.
LINE = re.compile(
    r"^(?P<indentation> *)"
    r"(?:(?P<annotations>if TYPE_CHECKING:)"
    r"|from (?P<package>arena_cje[.\w]*) import (?P<names>\([^)]*\)|[^\n#]*)"
    r"|import (?P<module>arena_cje[.\w]*)"
    r"|\S)",
    re.MULTILINE,
)
NAME = re.compile(r"(\w+)(?: as \w+)?")


def canonical(value: Any) -> str:
    """JSON with sorted keys: equal values give equal text, however they were written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Hash of the canonical JSON of a value, 32 hexadecimal digits."""
    return blake2b(canonical(value).encode(), digest_size=16).hexdigest()


@cache
def code_hash(*modules: str) -> str:
    """Hash of the source of modules of this package (`"arena_cje.results.analyze"`) and of all they import from it."""
    return digest({file: _text_hash(file) for file in closure(*modules)})[:12]


def closure(*modules: str) -> set[str]:
    """Source files of the modules, and of everything they import from this package, by their places in it.

    An import inside a function counts, one for annotations alone does not: an object that a stage receives was made by
    code that the stage names itself, or by a stage before it. `from arena_cje.results import analyze` is the module
    `analyze`; the `__init__` of a package counts where a name that it defines is imported. From code that computes to
    code that shows nothing is followed: how a result is drawn changes no number.

    A module that `import_module` loads by a computed name (an estimator, an API) cannot be found this way: name it.
    """
    waiting = [(module, _file_of(module)) for module in modules]
    if unknown := [module for module, file in waiting if file is None]:
        raise ValueError(f"{', '.join(unknown)}: no such module in {PACKAGE}")
    files, waiting = set(), [file for _, file in waiting]
    while waiting:
        file = waiting.pop()
        if file not in files:
            files.add(file)
            shows = file.startswith(SHOWING)
            waiting += [imported for imported in _imports(file) if shows or not imported.startswith(SHOWING)]
    return files


@cache
def _text_hash(file: str) -> str:
    return blake2b((PACKAGE / file).read_bytes(), digest_size=16).hexdigest()


@cache
def _imports(file: str) -> frozenset[str]:
    """Files of this package that a file imports, whether at once or inside a function."""
    files, annotations = set(), None  # the indentation of the last `if TYPE_CHECKING`, while its block lasts
    for line in LINE.finditer((PACKAGE / file).read_text(encoding="utf-8")):
        indentation = len(line["indentation"])
        if annotations is not None and indentation > annotations:
            continue
        annotations = indentation if line["annotations"] else None
        for name in NAME.findall(line["names"] or ""):
            files.add(_file_of(f"{line['package']}.{name}") or _file_of(line["package"]))
        if line["module"]:
            files.add(_file_of(line["module"]))
    return frozenset(files - {None})


@cache
def _file_of(module: str) -> str | None:
    """The file of a module of this package; None where the name is not a module of it."""
    package, *parts = module.split(".")
    if package != PACKAGE.name:
        return None
    place = PACKAGE.joinpath(*parts)
    files = (path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file())
    return next((path.relative_to(PACKAGE).as_posix() for path in files), None)


def sha256(path: str | Path) -> str:
    """Hash of a file's content."""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()
