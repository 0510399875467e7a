"""Exhibits: each function takes its declared arguments, and every source can be read from its inputs."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import PurePath

import pytest

from arena_cje.config.exhibits import EXHIBITS, READS, dependencies
from arena_cje.report.making import WRITERS
from arena_cje.report.sources import Sources


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_an_exhibit_gives_its_function_the_arguments_that_it_takes(exhibit):
    function = getattr(import_module(exhibit.module), exhibit.function.rpartition(".")[2])
    inspect.signature(function).bind(**exhibit.sources)
    assert set(exhibit.sources.values()) <= READS.keys()
    assert PurePath(exhibit.path).suffix in WRITERS


def test_names_and_paths_are_unique():
    assert len({exhibit.name for exhibit in EXHIBITS}) == len({exhibit.path for exhibit in EXHIBITS}) == len(EXHIBITS)


def test_every_source_is_read_and_has_a_property():
    assert {source for exhibit in EXHIBITS for source in exhibit.sources.values()} == READS.keys()
    assert all(source == "coverage" or hasattr(Sources, source) for source in READS)


def test_dependencies_name_each_input_once():
    validation, *others = EXHIBITS
    assert validation.name == "validate"  # comes first, since it is a source of others
    names = dependencies(EXHIBITS)
    assert len(names) == len(set(names))
    assert {part for exhibit in EXHIBITS for part in exhibit.reads} == set(names)
