"""Files of other tools become data whose values are those by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import arena_cje
import foreign_files
from arena_cje.__main__ import main
from arena_cje.data import convert
from arena_cje.errors import UserError

KINDS = list(foreign_files.WRITERS)


def converted(kind: str, folder: Path) -> tuple[convert.Conversion, Path]:
    name, write = foreign_files.WRITERS[kind]
    source = folder / "source"
    source.mkdir()
    files, choices = write(source)
    conversion = convert.convert(name, files, convert.Choices(**choices))
    convert.write(conversion, folder / "data")
    return conversion, folder / "data"


@pytest.mark.parametrize("kind", KINDS)
def test_the_converted_data_have_the_values_by_hand(kind, tmp_path):
    _, data = converted(kind, tmp_path)
    result = arena_cje.analyze(data / "logged.jsonl", data / "fresh_draws", estimator="direct")
    assert result.policies == ("better-2",)
    assert result.document["base_policy"]["policy"] == "base-1"
    assert result.document["base_policy"]["estimate"] == pytest.approx(0.25)
    np.testing.assert_allclose(result.estimates, [0.5])


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_and_responses_go_through(kind, tmp_path):
    conversion, _ = converted(kind, tmp_path)
    assert len({row["prompt_id"] for row in conversion.logged}) == foreign_files.N
    assert all(row["response"] for row in conversion.logged)
    assert {row["prompt_id"] for row in conversion.fresh["better-2"]} == {row["prompt_id"] for row in conversion.logged}


@pytest.mark.parametrize("kind", KINDS)
def test_the_format_of_a_file_is_recognised(kind, tmp_path):
    name, write = foreign_files.WRITERS[kind]
    files, _ = write(tmp_path)
    path = Path(files[0])
    members = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    formats = {convert.recognise(file) for file in members}
    assert formats - {None} == ({name} - {"table"})


def test_every_format_has_a_file_in_these_tests():
    assert {name for name, _ in foreign_files.WRITERS.values()} == set(convert.NAMES)
