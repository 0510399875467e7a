"""Exhibits: what each is made by takes what it is declared to take, and every source can be read from its inputs."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import PurePath

import pytest

from arena_cje.config.exhibits import EXHIBITS, READS, together
from arena_cje.report.making import WRITERS
from arena_cje.report.sources import Sources


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda one: one.name)
def test_an_exhibit_gives_its_function_the_arguments_that_it_takes(exhibit):
    function = getattr(import_module(exhibit.module), exhibit.function.rpartition(".")[2])
    inspect.signature(function).bind(**exhibit.sources)
    assert set(exhibit.sources.values()) <= READS.keys()
    assert PurePath(exhibit.path).suffix in WRITERS


def test_names_and_paths_are_their_own():
    assert len({one.name for one in EXHIBITS}) == len({one.path for one in EXHIBITS}) == len(EXHIBITS)


def test_every_source_is_read_and_has_a_property():
    assert {source for one in EXHIBITS for source in one.sources.values()} == READS.keys()
    assert all(source == "coverage" or hasattr(Sources, source) for source in READS)


def test_exhibits_together_read_each_input_once():
    validation, *others = EXHIBITS
    assert validation.name == "validate"  # comes first, as others are made of it
    found = together(EXHIBITS)
    assert len(found) == len(set(found))
    assert {part for one in EXHIBITS for part in one.reads} == set(found)
