"""Canonical parameters and code hashes: equal things hash equally, and what a stage depends on is all that makes it stale."""

from __future__ import annotations

import pytest

from arena_cje import provenance
from arena_cje.provenance import canonical, closure, code_hash, digest


def test_the_order_of_keys_does_not_matter():
    assert canonical({"a": 1, "b": {"d": 2, "c": 3}}) == canonical({"b": {"c": 3, "d": 2}, "a": 1})
    assert digest([1, 2]) != digest([2, 1])


def test_cheap_stages_do_not_depend_on_the_engine():
    for module in (
        "arena_cje.stages.assemble",
        "arena_cje.results.analyze",
        "arena_cje.results.validation",
        "arena_cje.data.dataset",
    ):
        assert not any("llama" in path.parts for path in closure(module)), module


def test_an_estimator_depends_on_what_it_imports_and_not_on_its_siblings():
    names = {path.name for path in closure("arena_cje.estimators.snips")}
    assert "weights.py" in names
    assert "calibrated_ips.py" not in names


def test_code_hash_follows_imports(tmp_path, monkeypatch):
    package = tmp_path / "arena_cje"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "top.py").write_text("from arena_cje.deep import x\n")
    (package / "deep.py").write_text("x = 1\n")
    (package / "other.py").write_text("y = 1\n")
    monkeypatch.setattr(provenance, "PACKAGE", package)

    def now() -> str:
        provenance._imports.cache_clear()
        return code_hash("arena_cje.top")

    before = now()
    (package / "other.py").write_text("y = 2\n")
    assert now() == before
    (package / "deep.py").write_text("x = 2\n")
    assert now() != before


@pytest.mark.parametrize("module", ["generator", "scorer"])
def test_expensive_stages_carry_a_version_beside_their_code(module):
    source = (provenance.PACKAGE / "llama" / f"{module}.py").read_text()
    assert "\nVERSION = " in source
