"""What a model file is: a GGUF file, or all parts of a split one; its hash, and how it is refused.

A large model may come in parts, `name-00001-of-00003.gguf` and so on. It is named by its first part, llama.cpp loads the
others from beside it, and its hash is that of the parts one after the other: `cat name-*.gguf | sha256sum`.
"""

from __future__ import annotations

import hashlib
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from arena_cje.errors import UserError, file_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = b"GGUF"
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>(?!00000)\d{5})\.gguf")


def parts(path: str | Path) -> list[Path]:
    """The files of a model in their order, `path` alone if it is not split; refuses a part that is not the first."""
    path = Path(path)
    match = PART.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    names = [f"{match['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    if path.name != names[0]:
        raise UserError(
            f"model file {path} is part {int(match['number'])} of a model in {count} parts; "
            f"name part 1, {match['stem']}-00001-of-{count:05}.gguf, and keep the others beside it"
        )
    return [path.with_name(name) for name in names]


@file_errors()
def check_magic(path: str | Path) -> None:
    """Refuse a file that is missing, also as a part of a split model, or does not begin as GGUF files do."""
    first, *others = parts(path)
    if first.is_dir():
        raise UserError(f"model file {path} is a folder, expected a GGUF file")
    if not first.is_file():
        raise UserError(f"model file {path} does not exist; check `path` under `models`, or put the file in place")
    missing = [part.name for part in others if not part.is_file()]
    if missing:
        raise UserError(
            f"model file {path} is part 1 of {1 + len(others)}, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not beside it; put all parts into one folder"
        )
    for part in (first, *others):
        with file_errors(part), open(part, "rb") as file:
            magic = file.read(len(MAGIC))
        if magic != MAGIC:
            raise UserError(f"model file {part} is not a GGUF file: it begins with {magic!r}, expected {MAGIC!r}")


def describe(path: str | Path, expected_sha256: str | None = None) -> dict[str, object]:
    """What provenance keeps of a model file; refuses a missing file, one that is no GGUF, and one of another hash."""
    check_magic(path)
    files = parts(path)
    sha256 = _sha256(files)
    check_sha256(f"model file {path}", sha256, expected_sha256)
    return {
        "file": files[0].name,
        "sha256": sha256,
        "bytes": size(path),
        "llama_cpp_python": metadata.version("llama-cpp-python"),
    }


@file_errors()
def size(path: str | Path) -> int:
    """Bytes of a model file, of all its parts together."""
    return sum(part.stat().st_size for part in parts(path))


def check_sha256(what: str, actual: str, expected: str | None) -> None:
    """Refuse `what` if its hash is not the expected one; None expects nothing."""
    if expected is not None and actual != expected:
        raise UserError(
            f"{what} has sha256 {actual}, expected {expected}; delete it and fetch it again, "
            "or pin the new hash if you trust it"
        )


def _sha256(files: Sequence[Path]) -> str:
    """Hash of the files' contents one after the other."""
    whole = hashlib.sha256()
    for path in files:
        with file_errors(path), open(path, "rb") as file:
            hashlib.file_digest(file, lambda: whole)
    return whole.hexdigest()
