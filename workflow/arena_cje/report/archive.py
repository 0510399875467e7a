"""The archive of a run: its results and how they were made, in one zip file.

It holds results, comparisons, figures, pages, exports, the configuration with all defaults, the provenance of the results
and the throughput of the jobs. README.txt describes each file, SHA256SUMS holds the hashes (`sha256sum -c SHA256SUMS`).
Equal content gives equal bytes: names are sorted, time stamps are fixed. Model weights, journals, prompts and responses
before the analysis, and Snakemake's own files are left out.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.errors import file_errors
from arena_cje.files import json_text, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Content = bytes | Path

FOLDER = "arena-cje"  # folder of all members, so that unpacking does not mix them with other files
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold
PACKAGES = ("llama-cpp-python", "numpy", "polars", "scipy", "statsmodels")  # packages on which results may depend

# Descriptions of files by pattern; the first match counts.
MEANING = (
    ("README.txt", "this list"),
    ("SHA256SUMS", "hashes of all other files"),
    (
        "configuration.yaml",
        "the settings that the results depend on, defaults included; without folders of the machine",
    ),
    ("configuration/*", "a text that the configuration names"),
    ("provenance.json", "versions, models, parameters and data that the results were made from"),
    ("throughput.tsv", "time, memory, items and tokens of each job that generated, scored or graded"),
    ("*plots/*", "figure"),
    ("planning/plan.json", "how many prompts and labels the next study needs (arena-cje plan reads it)"),
    ("planning/plan.png", "figure of it"),
    ("*/diagnostics_dashboard.html", "the results to look into, in a browser, without a network"),
    ("*/data_report.html", "the data before the analysis: counts, log probabilities, scores, labels and lengths"),
    ("*/summary.json", "what was analysed at this coverage, and what was dropped and why"),
    ("*/validation.csv", "each estimate beside the truth"),
    ("*/decision.json", "what is known of each policy against the base, and the recommended estimator"),
    ("*/decision.html", "the same as a table for a browser"),
    ("*/comparisons.*", "differences of all pairs of policies, and what the top rank rests on"),
    ("*/precomputed_sampler.jsonl", "the analysed rows with their log probabilities in total"),
    ("*/stochastic_log.jsonl", "the analysed rows with their log probabilities by token"),
    ("*/token_level_cje_results.json", "values, p-values and guard rails of the first estimator"),
    ("*/leaderboard.csv", "ranks of the published policies; refused ones last, without a number"),
    ("export/results.*", "all results, one row a coverage, estimator and policy"),
    ("*.influence.parquet", "influence of each row on each estimate, for differences between policies"),
    ("coverage_*/*.json", "results of one estimator (arena_cje.load reads them)"),
    ("coverage_*/*.csv", "the same as a table"),
)


def meaning(name: str) -> str:
    """Description of a member of the archive, by its name."""
    return next((text for pattern, text in MEANING if fnmatch(name, pattern)), "another result")


def members(
    paths: Iterable[str | Path],
    *,
    root: Path,
    configuration: Mapping[str, Any],
    package_version: str,
    texts: Iterable[str | Path] = (),
    throughput: Path | None = None,
) -> dict[str, Content]:
    """Contents of the archive by name; files under `root` keep their relative paths.

    texts: files that the configuration names; throughput: the folder of the jobs' benchmarks.
    """
    import yaml

    contents: dict[str, Content] = {Path(path).relative_to(root).as_posix(): Path(path) for path in paths}
    for path in texts:
        contents[_unused_name(Path(path), contents)] = Path(path)
    settings_text = yaml.safe_dump(dict(configuration), sort_keys=False, allow_unicode=True, width=120)
    contents["configuration.yaml"] = settings_text.encode()
    contents["provenance.json"] = json_text(provenance(paths, package_version)).encode()
    if rows := throughput_table(throughput):
        contents["throughput.tsv"] = rows.encode()
    contents["README.txt"] = readme([*contents, "README.txt", "SHA256SUMS"]).encode()
    return contents


def _unused_name(path: Path, members: Mapping[str, Content]) -> str:
    """A name for a text of the configuration that no member has, also where two texts have one file name."""
    names = [f"configuration/{path.name}", *(f"configuration/{k}-{path.name}" for k in range(2, len(members) + 3))]
    return next(name for name in names if name not in members)


def provenance(paths: Iterable[str | Path], package_version: str) -> dict[str, Any]:
    """Versions of packages, and the provenance in the summary of each coverage."""
    from arena_cje.files import read_json

    summaries = [Path(path) for path in paths if Path(path).name == "summary.json"]
    made_from = {path.parent.name: read_json(path).get("provenance", {}) for path in summaries}
    packages = {name: installed for name in PACKAGES if (installed := _version(name))}
    python = ".".join(map(str, sys.version_info[:3]))
    return {"arena_cje": package_version, "python": python, "packages": packages, "made_from": made_from}


def _version(name: str) -> str | None:
    """Installed version of a package, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:  # an analysis alone does not need the engine
        return None


def throughput_table(folder: Path | None) -> str:
    """The benchmarks of all jobs as one TSV table, the job's name first; empty without benchmarks."""
    tables = sorted(folder.rglob("*.tsv")) if folder is not None and folder.is_dir() else []
    lines: list[str] = []
    for path in tables:
        header, *rows = path.read_text(encoding="utf-8").splitlines()
        lines = lines or [f"job\t{header}"]
        lines += [f"{path.relative_to(folder).with_suffix('').as_posix()}\t{row}" for row in rows]
    return "\n".join([*lines, ""]) if lines else ""


def readme(names: Iterable[str]) -> str:
    """Text of README.txt: a description of the archive and of each file."""
    lines = [
        "Results of a Causal Judge Evaluation, made by arena-cje.",
        "",
        "A policy that is refused has no published number: what was computed for it is in fields of its own",
        "(`refused`, `refused_estimate`), with the reasons. Model weights and journals of finished items are not here.",
        "",
        *(f"{name}\n    {meaning(name)}" for name in sorted(names)),
    ]
    return "\n".join(lines) + "\n"


def write(path: str | Path, content: Mapping[str, Content]) -> None:
    """Write the zip file atomically; equal content gives equal bytes."""

    def fill(handle: Any) -> None:
        """Write all members and their hashes to an open file."""
        sums = []
        with zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for name in sorted(content):
                source = content[name]
                data = _bytes(source) if isinstance(source, Path) else source
                archive.writestr(_entry(name), data)
                sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
            archive.writestr(_entry("SHA256SUMS"), "".join(sums))

    replace(path, fill)


def _bytes(path: Path) -> bytes:
    with file_errors(path):
        return path.read_bytes()


def _entry(name: str) -> zipfile.ZipInfo:
    """The header of a member, without the time and the platform of its packing."""
    entry = zipfile.ZipInfo(f"{FOLDER}/{name}", EPOCH)
    entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
    return entry
