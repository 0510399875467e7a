"""Inputs by mistake: values of every wrong kind, and files of other kinds than their names suggest."""

from __future__ import annotations

import datetime
import gzip
import os
from typing import TYPE_CHECKING, Any

from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

LONGEST = 2100  # characters of a sentence

NUMBERS = [0, -1, 3, 1.5, -0.0, float("nan"), float("inf"), 10**30, 10**400, 1e308, True, False]
TEXTS = ["", "x", "ü", "\ud800", "\0", "a\nb", "a/b", "../x", "{x}", "=1+1", "1", "0.5", "none", "a" * 5000]
LISTS = [[], ["x"], [None], [[]], [1, 2], [1, 0], [{}], ["x", "x"], [0.5, "b"]]
BLOCKS = [{}, {"x": 1}, {1: 2}, {None: None}, {"x": {"y": 1}}, {"like": "base"}, {"extra": {1: 2}}]
OF_YAML = [None, datetime.date(2024, 1, 1), b"x", {"a"}]
ODD_VALUES = [*NUMBERS, *TEXTS, *LISTS, *BLOCKS, *OF_YAML]


def value_or_sentence(call: Callable[[], Any]) -> str | None:
    """Call a function, which must return or raise one sentence; the sentence. Any other exception is the test's failure."""
    try:
        call()
    except UserError as error:
        sentence = str(error)
        assert sentence.strip()
        assert "\n" not in sentence
        assert len(sentence) < LONGEST
        return sentence
    return None


def all_accepted(calls: Iterable[tuple[Any, Callable[[], Any]]]) -> None:
    """Each call returns or raises one sentence; a failure is reported with the input of the call."""
    faults = []
    for input_value, call in calls:
        try:
            value_or_sentence(call)
        except Exception as error:
            faults.append(f"{input_value!a:.80}: {type(error).__name__}: {error}")
    assert not faults, "\n".join(faults)


def odd_files(folder: Path, content: bytes, suffix: str) -> dict[str, Path]:
    """Paths of bad files by their fault; `content` is the content of a right file of this kind, in UTF-8."""
    text = content.decode()
    contents = {
        "empty": b"",
        "blank": b"\n \n",
        "byte order mark": b"\xef\xbb\xbf" + content,
        "UTF-16": text.encode("utf-16"),
        "UTF-16 without a mark": text.encode("utf-16-le"),
        "another encoding": content + "\n# café\n".encode("latin-1"),
        "binary": bytes(range(256)) * 20,
        "NUL": content + b"\0",
        "compressed": gzip.compress(content),
        "truncated": content[: len(content) // 2],
        "truncated at the end": content[:-3],
        "other line ends": content.replace(b"\n", b"\r\n"),
        "a number": b"5",
        "a text": b'"x"',
        "null": b"null",
        "a list": b"[1, 2]",
        "deep": b"[" * 100_000,
        "deep objects": b'{"a":' * 5000,
        "one long line": b'{"prompt_id": "' + b"x" * 10**6 + b'"}',
        "Parquet": b"PAR1abc",
        "GGUF": b"GGUF\x03\0\0\0",
        "HTML": b"<html></html>",
    }
    folder.mkdir()
    paths = {}
    for number, (kind, file_content) in enumerate(contents.items()):
        paths[kind] = folder / f"{number}{suffix}"
        paths[kind].write_bytes(file_content)
    links = {"dangling": folder / "nowhere", "circle": folder / f"circle{suffix}", "unreadable": "/proc/self/mem"}
    for kind, target in links.items():  # reading the memory of a process from its start is an error for root, too
        paths[kind] = folder / f"{kind}{suffix}"
        os.symlink(target, paths[kind])
    paths |= {
        "missing": folder / f"missing{suffix}",
        "a folder": folder,
        "inside a file": paths["empty"] / "x",
        "a long name": folder / ("a" * 300 + suffix),
        "NUL in its name": folder / f"\0{suffix}",
        "a device": type(folder)("/dev/null"),
    }
    if os.geteuid() != 0:
        paths["forbidden"] = folder / f"forbidden{suffix}"
        paths["forbidden"].write_bytes(content)
        paths["forbidden"].chmod(0)
    return paths
