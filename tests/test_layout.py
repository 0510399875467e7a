"""The library's layout: what each folder may import, no circles, few files outside folders. Annotations count as imports."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

import pytest

from import_graph import FILES, GRAPH, imported, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_LOOSE_FILES = 8  # at the top of the library, outside all folders

# The folders and top files that a folder, or a file at the top, may import besides itself.
SHARED = {"errors", "files", "journal", "provenance", "yaml_files"}
ANALYSIS = {"data", "diagnostics", "estimation", "estimators", "evaluation"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "yaml_files": {"errors", "files"},
    "journal": {"errors", "files"},
    "provenance": set(),
    "numbers": {"estimation"},
    # Arrays to estimates, estimates to results, results to tables and figures.
    "estimation": {"errors"},
    "estimators": {"errors", "estimation"},
    "evaluation": {"errors", "estimation", "estimators"},
    "diagnostics": {"errors", "estimation", "estimators", "evaluation"},
    "results": {*SHARED, *ANALYSIS, "numbers"},
    "report": {*SHARED, *ANALYSIS, "config", "numbers", "results"},
    "ablation": {*SHARED, *ANALYSIS, "config", "results", "simulate"},
    "planning": {*SHARED, *ANALYSIS, "numbers", "results"},
    "simulate": {"errors", "estimation"},
    # Tables, models and calls, which do not depend on the configuration; then the configuration and its dependents.
    "data": {*SHARED, "estimation"},
    "labeling": {"data", "errors", "files", "numbers"},
    "llama": SHARED,
    "calls": SHARED,
    "config": {*SHARED, "calls", "data", "diagnostics", "estimation", "estimators"},
    "hosted": {*SHARED, "calls", "config"},
    "grading": {*SHARED, "calls", "config", "data", "hosted", "llama"},
    "money": {*SHARED, "calls", "config", "data", "grading", "hosted", "labeling"},
    "stages": {*SHARED, "calls", "config", "data", "grading", "hosted", "labeling", "llama", "money"},
    "terminal": {"config", "errors", "files", "planning", "results", "stages"},
    "__init__": {"results"},
    "__main__": {"__init__", "data", "errors", "files", "labeling", "planning", "results", "stages", "terminal"},
}
# A result has methods that plot its figures; the import is inside the function that plots.
DRAWS_ITSELF = {("results/notebook.py", "report/figures.py")}


def room(file: str) -> str:
    """The folder at the top of the library that a file is in, or the file itself."""
    return file.split("/")[0].removesuffix(".py")


EDGES = sorted({(file, other) for file, others in GRAPH.items() for other in others} - DRAWS_ITSELF)


def test_every_folder_has_its_row_in_the_table():
    assert {room(file) for file in FILES} == set(ALLOWED)


def test_the_table_has_no_circle():
    TopologicalSorter(ALLOWED).prepare()


@pytest.mark.parametrize("name", ALLOWED)
def test_a_folder_imports_only_what_it_may(name):
    outside = [(file, other) for file, other in EDGES if room(file) == name != room(other)]
    assert [edge for edge in outside if room(edge[1]) not in ALLOWED[name]] == []


def test_files_import_one_another_without_a_circle():
    TopologicalSorter(GRAPH).prepare()


def test_the_one_exception_is_in_use_and_inside_a_function():
    for file, other in DRAWS_ITSELF:
        assert other in GRAPH[file]
        assert other not in imported(tree(file).body)


def test_few_files_lie_outside_folders():
    loose = [file for file in FILES if "/" not in file]
    assert len(loose) <= MOST_LOOSE_FILES, sorted(loose)


def own_imports() -> Iterator[tuple[str, ast.ImportFrom]]:
    """Statements `from ... import` by file, those from other libraries left out."""
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "arena_cje"):
                yield file, node


def test_every_import_names_its_module_in_full():
    assert [file for file, node in own_imports() if node.level] == []  # `provenance.closure` follows no relative one


def test_no_private_name_is_imported():
    names = [(file, alias.name) for file, node in own_imports() for alias in node.names]
    assert [(file, name) for file, name in names if name.startswith("_") and not name.startswith("__")] == []
