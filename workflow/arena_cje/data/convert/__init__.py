"""Outputs of other tools as data in the CJE format, one module a format: `mt_bench.py` is the format `mt-bench`.

The docstring of a module describes what it reads and what it drops; it has

    recognises(document) -> bool                      whether a file is of the format
    answers(documents, choices) -> Answer | Loss ...  responses of policies with their scores, and what is not carried

Optional constants: `JUDGE`, the scorer that is the judge unless the user names another, and `SCALES`, lowest and highest
score by scorer ("*" for all), [0, 1] by default.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from arena_cje.data.convert._answers import Answer, Loss
from arena_cje.data.convert._build import Choices, Conversion, build
from arena_cje.data.convert._sources import documents, load, members, split_name
from arena_cje.data.write import write_draws, write_logged
from arena_cje.errors import UserError, did_you_mean
from arena_cje.files import read_json, write_json
from arena_cje.provenance import digest, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

__all__ = [
    "NAMES",
    "Choices",
    "Conversion",
    "convert",
    "get",
    "overview",
    "recognise",
    "source_files",
    "summary_text",
    "write",
]

NAMES = tuple(sorted(m.name.replace("_", "-") for m in iter_modules(__path__) if not m.name.startswith("_")))
ANY_TABLE = "table"  # the format of which every table is
NONE = Choices()
OVERVIEW = ("base", "targets", "has_logprobs", "has_labels")  # what is kept of an overview


@cache
def get(name: str) -> ModuleType:
    """The module of a format; raises a `UserError` for an unknown one."""
    if name not in NAMES:
        raise UserError(f"unknown format {name!r}{did_you_mean(name, NAMES)}; available: {', '.join(NAMES)}")
    return import_module(f"{__name__}.{name.replace('-', '_')}")


def convert(name: str, files: Sequence[str | Path], choices: Choices = NONE) -> Conversion:
    """The data set in files of a format; each file is a path or NAME=PATH, which names the policy of the file.

    Raises a `UserError` for a file that is of another format, or that lacks what a data set needs.
    """
    module = get(name)
    sources, others = documents(list(files), module.recognises)
    for document in sources:
        if not module.recognises(document):
            other = _recognised(document)
            hint = f"; it looks like {other}" if other not in (None, name) else ""
            raise UserError(f"{document.path}: is not a file of the format {name}{hint}")
    if not sources:
        raise UserError(f"{', '.join(map(str, files))}: no file of the format {name} in it")
    losses = [Loss("files of another kind", len(others))] if others else []
    try:
        conversion = build(
            _answers(name, losses, module.answers(sources, choices)),
            choices,
            default_judge=getattr(module, "JUDGE", None),
            default_scales=getattr(module, "SCALES", {}),
        )
    except UserError as error:
        if any(str(document.path) in str(error) for document in sources):
            raise
        raise UserError(f"{', '.join(str(document.path) for document in sources)}: {error}") from None
    conversion.summary["format"] = name
    conversion.summary["files"] = [
        {"name": document.path.name, "sha256": sha256(document.path)} for document in sources
    ]
    return conversion


def source_files(files: Sequence[str | Path]) -> list[Path]:
    """The files to be read, those of a folder one by one."""
    return [member for file in files for member in members(split_name(file)[1])]


def overview(name: str, files: Sequence[str | Path], choices: Choices, cache_folder: Path) -> dict[str, Any]:
    """The base and the target policies, and whether there are log probabilities, and labels of the base's responses.

    Files are read once for each of their states, as long as the cache is there.
    """
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in source_files(files)]
    record = cache_folder / f"{digest([OVERVIEW, name, list(map(str, files)), states, asdict(choices)])}.json"
    if not record.exists():
        conversion = convert(name, files, choices)
        rows, base = conversion.logged, conversion.summary["base_policy"]
        has_logprobs = any("target_policy_logprobs" in row for row in rows)
        has_labels = any(row.get("oracle_label") is not None for row in rows)
        facts = {
            "base": base,
            "targets": list(conversion.fresh),
            "has_logprobs": has_logprobs,
            "has_labels": has_labels,
        }
        write_json(record, facts)
    return read_json(record)


def _answers(name: str, losses: Sequence[Loss], answers: Iterator[Answer | Loss]) -> Iterator[Answer | Loss]:
    """All losses and answers; raises a `UserError` for a row whose parts have other types than those of the format."""
    yield from losses
    last = "the beginning"
    try:
        for answer in answers:
            last = getattr(answer, "where", last)
            yield answer
    except (ArithmeticError, AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UserError(
            f"the row after {last} is not as rows of the format {name} are ({type(error).__name__}: {error}); is the file "
            "complete, and written by the tool itself?"
        ) from error


def recognise(path: Path) -> str | None:
    """The format that a file, or the first known one of a folder, looks like; None where it looks like none.

    Raises a `UserError` for a file that cannot be read.
    """
    return next((name for file in members(path) if (name := _recognised(load(file))) is not None), None)


def _recognised(document: Any) -> str | None:
    return next((name for name in NAMES if name != ANY_TABLE and get(name).recognises(document)), None)


def write(conversion: Conversion, folder: Path) -> None:
    """Write DIR/logged.jsonl, DIR/fresh_draws/POLICY.jsonl and DIR/conversion.json."""
    write_logged(folder / "logged.jsonl", conversion.logged)
    for policy, rows in conversion.fresh.items():
        write_draws(folder / "fresh_draws" / f"{policy}.jsonl", rows)
    write_json(folder / "conversion.json", conversion.summary)


def summary_text(summary: Mapping[str, Any]) -> str:
    """An account of a conversion for the terminal."""
    base, policies = summary["base_policy"], summary["policies"]
    others = [_policy_text(name, counts) for name, counts in policies.items() if name != base]
    lines = [
        ("base policy", _policy_text(base, policies[base])),
        *(("fresh draws", text) for text in others),
        ("judge score", f"{summary['judge']}, {_scale_text(summary, 'judge')}"),
        ("oracle label", f"{summary['oracle']}, {_scale_text(summary, 'oracle')}" if summary["oracle"] else "none"),
    ]
    if summary["repeated_votes"]:
        lines.append(("votes", f"{summary['repeated_votes']} repeated scores of one response by one scorer, averaged"))
    lines += [("not carried", f"{count} x {reason}") for reason, count in summary["not_carried"].items()]
    text = "\n".join(f"  {name:<13}{text}" for name, text in lines)
    return text if any(counts["labels"] for counts in policies.values()) else f"{text}\n{_no_labels_text(summary)}"


def _no_labels_text(summary: Mapping[str, Any]) -> str:
    """That there are no labels, and which scorers could give them."""
    others = [name for name in summary["scorers"] if name not in (summary["judge"], summary["oracle"])]
    remedy = (
        f"--oracle NAME (`oracle` in the configuration) takes those of a scorer: {', '.join(others)}"
        if others
        else "the files have no scores of a further scorer, so add labels to the files or to logged.jsonl (`oracle_label`)"
    )
    return f"NOTE: no oracle labels were converted, and an analysis needs some; {remedy}"


def _policy_text(name: str, counts: Mapping[str, Any]) -> str:
    original = counts["name_in_the_files"]
    parts = [f"{counts['responses']} responses to {counts['prompts']} prompts", f"{counts['labels']} labels"]
    for key, text in (
        ("without_score", "without a judge score"),
        ("base_prompts_without_a_response", "of the base policy's prompts have no response"),
        ("prompts_that_the_base_has_not", "prompts are not the base policy's"),
    ):
        if counts[key]:
            parts.append(f"{counts[key]} {text}")
    return f"{name}{f' (named {original} in the files)' if original != name else ''}: {', '.join(parts)}"


def _scale_text(summary: Mapping[str, Any], key: str) -> str:
    low, high = summary["scales"][summary[key]]
    return f"from [{low:g}, {high:g}] to [0, 1]" if (low, high) != (0, 1) else "on [0, 1]"
