"""Canonical parameters and code hashes: equal values have equal hashes, and only a stage's dependencies make it stale."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arena_cje import estimators, provenance
from arena_cje.config.exhibits import EXHIBITS
from arena_cje.provenance import canonical, closure, code_hash, digest
from import_graph import FILES, GRAPH, file_of, imported, tree

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_the_order_of_keys_does_not_matter():
    assert canonical({"a": 1, "b": {"d": 2, "c": 3}}) == canonical({"b": {"c": 3, "d": 2}, "a": 1})
    assert digest([1, 2]) != digest([2, 1])


# The files that make each cheap stage stale, by the modules that its rule names. The rules name an estimator by its own module.
READS_TABLES = {"data/schemas.py", "errors.py", "files.py"}
READS_ROWS = READS_TABLES | {
    f"data/{name}.py" for name in ("fields", "names", "reading", "rows", "sources", "support", "units")
}
RECORDS = {"errors.py"} | {
    f"estimation/{name}.py" for name in ("inference", "isotonic", "records", "short_repr", "weights")
}
READS_DATA = READS_ROWS | RECORDS | {f"data/{name}.py" for name in ("calibration", "dataset", "draws", "logged")}
CALIBRATES = RECORDS | {f"estimation/{name}.py" for name in ("calibration", "folds", "two_stage")}
RESULTS = {f"results/{name}.py" for name in ("record", "result", "schema")}
ASSEMBLY = READS_TABLES | {"grading/grades.py", "grading/unscored.py", "provenance.py", "stages/assemble.py"}
ACCOUNT = READS_DATA - {"data/calibration.py", "data/dataset.py"}
ACCOUNT |= {"diagnostics/plausibility.py", "diagnostics/thresholds.py", "results/account.py"}
ESTIMATE = (
    READS_DATA
    | {"data/coverage.py"}
    | CALIBRATES
    | {f"estimation/{name}.py" for name in ("contrasts", "decision", "fresh", "joint", "label_floor", "robust")}
    | {
        "estimators/__init__.py",
        *(f"evaluation/{name}.py" for name in ("bootstrap", "evaluate", "joint", "label_shares")),
    }
    | {
        f"diagnostics/{name}.py"
        for name in (
            "agreement",
            "calibration",
            "circumstances",
            "evidence",
            "judge_worth",
            "label_needs",
            "measures",
            "overlap",
            "plausibility",
            "remedies",
            "support",
            "thresholds",
            "transport",
            "verdict",
        )
    }
    | RESULTS
    | {f"results/{name}.py" for name in ("analyze", "arguments", "decision", "document")}
    | {"numbers.py"}
)
# An exhibit depends on the code that reads its sources, and on the module of its function (`config.exhibits`).
EXHIBIT_SOURCES = (
    READS_DATA
    | CALIBRATES
    | RESULTS
    | ACCOUNT
    | {
        "estimation/contrasts.py",
        "estimation/decision.py",
        "estimators/__init__.py",
        "numbers.py",
        "results/line_breaks.py",
        "results/recommendation.py",
        "results/sentences.py",
        "results/validation.py",
    }
    | {
        f"report/{name}.py"
        for name in (
            "comparisons",
            "dashboard",
            "dashboard_data",
            "dashboard_figures",
            "dashboard_items",
            "exports",
            "pages",
            "reliability",
            "sources",
            "value_axis",
            "weight_bins",
        )
    }
)
FIGURES = {"diagnostics/overlap.py", *(f"report/{name}.py" for name in ("data_figures", "theme", "tidy"))}
EXHIBIT_MODULES = {
    "report.figures": FIGURES | {"report/figures.py"},
    "report.data_figures": FIGURES,
    "report.plan_figure": {"report/plan_figure.py", "report/theme.py"},
    "report.data_report": {"report/data_report.py"},
    "report.decision_page": {"report/decision_page.py"},
    "results.decision_file": {"results/decision_file.py"},
    **dict.fromkeys(
        ("report.comparisons", "report.dashboard", "report.exports", "results.validation"),
        set(),
    ),
}
# Files that read and write the key of labelling tasks, and files that turn texts and labels into grades.
KEYS = {"data/coverage.py", "errors.py", "files.py"} | {f"labeling/{name}.py" for name in ("cells", "records", "tasks")}
PEOPLE = KEYS | {"grading/grades.py", "provenance.py", "stages/people.py"}
ABLATION = {f"ablation/{name}.py" for name in ("grid", "populations", "worlds")}
ABLATION_ROOM = ABLATION | {"ablation/recorded.py", "ablation/run.py", "results/validation.py", "simulate.py"}
STAGES = {
    "look": (
        ("results.looks",),
        CALIBRATES
        | {f"estimation/{name}.py" for name in ("contrasts", "decision", "fresh", "robust", "spending")}
        | {f"diagnostics/{name}.py" for name in ("agreement", "calibration", "verdict")}
        | {"estimators/__init__.py", "numbers.py", "results/decision.py", "results/looks.py"},
    ),
    "assemble": (
        ("stages.assemble", "data.write", "results.account"),
        ASSEMBLY | {"data/reading.py", "data/support.py", "data/write.py"} | ACCOUNT,
    ),
    "fresh_draws": (
        ("stages.assemble", "data.write"),
        ASSEMBLY | {"data/reading.py", "data/support.py", "data/write.py"},
    ),
    "gather_logprobs": (("stages.assemble",), ASSEMBLY),
    "label_design": (
        ("data.label_design",),
        READS_TABLES
        | RECORDS
        | {"data/coverage.py", "data/label_design.py"}
        | {f"estimation/{name}.py" for name in ("fresh", "label_design", "label_floor")},
    ),
    "ensembles": (("grading.grades",), {"grading/grades.py", "provenance.py"}),
    "import_data": (
        ("data.user_data", "data.write", "results.account"),
        READS_ROWS
        | {f"data/{name}.py" for name in ("calibration", "coverage", "draws", "logged", "user_data", "write")}
        | ACCOUNT,
    ),
    "convert_data": (
        ("data.convert",),
        READS_TABLES
        | {f"data/convert/{name}.py" for name in ("__init__", "_answers", "_build", "_sources")}
        | {"data/reading.py", "data/support.py", "data/write.py", "provenance.py"},
    ),
    "labeling_batch": (("labeling.page", "labeling.tasks", "stages.people"), PEOPLE | {"labeling/page.py"}),
    "labels": (
        ("labeling.labels", "labeling.votes", "stages.people"),
        PEOPLE | {f"labeling/{name}.py" for name in ("aggregation", "agreement", "labels", "votes")},
    ),
    "judge_agreement": (
        ("labeling.agreement", "labeling.tasks", "stages.people"),
        PEOPLE | {"labeling/agreement.py"},
    ),
    "oracles": (
        ("labeling.oracles", "labeling.tasks", "stages.people"),
        PEOPLE | {"labeling/agreement.py", "labeling/oracles.py"},
    ),
    "oracle_human": (("labeling.tasks", "stages.people"), PEOPLE),
    "estimate": (("results.analyze",), ESTIMATE),
    "plan": (
        ("planning.sources",),
        ESTIMATE
        | {"diagnostics/audit_size.py"}
        | {f"planning/{name}.py" for name in ("pilots", "plan", "sample_size", "sources", "study")},
    ),
    "exhibits": (("report.sources",), EXHIBIT_SOURCES),
    "ablation_cells": (("ablation.recorded", "ablation.run"), ESTIMATE | ABLATION_ROOM),
    "ablation": (
        ("ablation.summary", "report.ablation_figures"),
        {
            "ablation/metrics.py",
            "ablation/summary.py",
            "errors.py",
            "files.py",
            "report/ablation_figures.py",
            "results/line_breaks.py",
            "report/theme.py",
        },
    ),
    "archive": (("report.archive",), {"errors.py", "files.py", "report/archive.py"}),
}
STACKED = {"estimators/dr_cpo.py", "estimators/mrdr.py", "estimators/tmle.py"}
# Files that an estimator adds to those of every estimate: one estimator of each kind.
ESTIMATORS = {
    "direct": {"estimators/direct.py"},
    "snips": {"estimation/weighted.py", "estimators/snips.py"},
    "mrdr": {"estimation/outcome.py", "estimators/mrdr.py"},
    "stacked-dr": {"estimation/outcome.py", "estimators/stacked_dr.py"} | STACKED,
}


def test_a_new_version_makes_nothing_stale():
    """Its number is in the package's own `__init__`, which no stage depends on, and is no parameter of a rule."""
    assert "__version__" in (provenance.PACKAGE / "__init__.py").read_text()
    for modules, _ in STAGES.values():
        assert "__init__.py" not in files(*modules)
    rules = (provenance.PACKAGE.parent / "rules").glob("*.smk")
    assert [path.name for path in rules if "version__" in path.read_text() or "pyproject" in path.read_text()] == []


def files(*modules: str) -> set[str]:
    return closure(*(f"arena_cje.{name}" for name in modules))


def module_of(estimator: str) -> str:
    return estimators.get(estimator).__name__.removeprefix("arena_cje.")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_these_files_and_no_others(stage):
    modules, expected = STAGES[stage]
    assert files(*modules) == expected


def test_the_table_has_the_modules_that_the_rules_name():
    rules = [path.read_text() for path in Path("workflow/rules").glob("*.smk")]
    calls = [call for text in rules for call in re.findall(r"\bcode_hash\(([^)]*)\)", text)]
    names = {tuple(re.findall(r'"arena_cje\.([\w.]+)"', call)) for call in calls} - {()}
    assert names == {modules for modules, _ in STAGES.values()}


def test_an_exhibit_depends_on_these_files_besides():
    modules = {exhibit.module.removeprefix("arena_cje.") for exhibit in EXHIBITS}
    assert {name: files(name) - EXHIBIT_SOURCES for name in modules} == EXHIBIT_MODULES


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimate_depends_on_these_files_besides(name):
    assert files("results.analyze", module_of(name)) - ESTIMATE == ESTIMATORS[name]


@pytest.mark.parametrize("name", estimators.NAMES)
def test_an_estimator_does_not_depend_on_its_siblings(name):
    siblings = {file for file in files(module_of(name)) if file.startswith("estimators/")}
    assert siblings - {file_of(f"arena_cje.{module_of(name)}")} == (STACKED if name == "stacked-dr" else set())


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_receives_is_made_by_its_own_code_or_that_of_the_estimates(stage):
    """Imports for annotations alone make nothing stale, so the files they name must make an earlier stage stale."""
    modules, own = STAGES[stage]
    reached, queue = set(), [file_of(f"arena_cje.{module}") for module in modules]
    while queue:
        file = queue.pop()
        if file not in reached:
            reached.add(file)
            queue += [other for other in GRAPH[file] if shows(file) or not shows(other)]
    after_estimates = stage in ("exhibits", "archive", "look")
    assert reached <= own | (ESTIMATE if after_estimates else set())


def shows(file: str) -> bool:
    return file.startswith(provenance.SHOWING)


def test_of_the_modules_that_are_loaded_by_name_cheap_stages_use_estimators_and_formats_alone():
    """The rule of an estimate names its estimator's module, that of a conversion its format's; no import statement does."""
    dynamic = {file for file in FILES if "import import_module" in (provenance.PACKAGE / file).read_text()}
    assert dynamic & set().union(*(files(*modules) for modules, _ in STAGES.values())) == {
        "data/convert/__init__.py",
        "estimators/__init__.py",
    }


def test_a_module_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"arena_cje\.results\.analyse: no such module"):
        code_hash("arena_cje.results.analyze", "arena_cje.results.analyse")


@pytest.fixture
def package(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty library of its own."""
    folder = tmp_path / "arena_cje"
    (folder / "room").mkdir(parents=True)
    (folder / "__init__.py").write_text("from arena_cje.room import hall\n")
    (folder / "room" / "__init__.py").write_text("from arena_cje.room import hall\nNAME = 1\n")
    (folder / "room" / "hall.py").write_text("")
    (folder / "other.py").write_text("")
    monkeypatch.setattr(provenance, "PACKAGE", folder)
    forget()
    yield folder
    forget()


def forget() -> None:
    """Every file is read again, as a new process would."""
    for function in (provenance.code_hash, provenance._text_hash, provenance._imports, provenance._file_of):
        function.cache_clear()


IMPORTS = {
    "from arena_cje.room import hall": {"room/hall.py"},
    "import arena_cje.room.hall": {"room/hall.py"},
    "from arena_cje import room": {"room/__init__.py", "room/hall.py"},
    "from arena_cje.room import NAME": {"room/__init__.py", "room/hall.py"},
    "from arena_cje import load": {"__init__.py", "room/hall.py"},
    "from arena_cje.room import hall, NAME": {"room/__init__.py", "room/hall.py"},
    "import json\nfrom pathlib import Path": set(),
    "def draw():\n    from arena_cje import other": {"other.py"},
    "try:\n    x = 1\nexcept OSError:\n    import arena_cje.other": {"other.py"},
    "match 1:\n    case _:\n        import arena_cje.other": {"other.py"},
    "if TYPE_CHECKING:\n    from arena_cje import other": set(),
    "if TYPE_CHECKING:\n    from arena_cje import other\nelse:\n    from arena_cje.room import hall": {"room/hall.py"},
    "from arena_cje.room import (\n    hall as lobby,\n)": {"room/hall.py"},
    "from arena_cje.room import NAME, hall as lobby  # a remark": {"room/__init__.py", "room/hall.py"},
    "if TYPE_CHECKING:\n    from pathlib import Path\n\n    import arena_cje.other\nimport arena_cje.room.hall": {
        "room/hall.py"
    },
    "if sys.platform:\n    from arena_cje import other": {"other.py"},
}


@pytest.mark.parametrize("text", IMPORTS)
def test_what_an_import_means(package, text):
    (package / "top.py").write_text(text)
    assert files("top") == {"top.py", *IMPORTS[text]}


class WithoutAnnotations(ast.NodeTransformer):
    """A syntax tree without the statements under `if TYPE_CHECKING`."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return node.orelse
        return self.generic_visit(node)


@pytest.mark.parametrize("file", sorted(FILES))
def test_the_imports_of_a_file_are_those_that_the_parser_sees(file):
    syntax_tree = WithoutAnnotations().visit(tree(file))
    assert provenance._imports(file) == set(imported(ast.walk(syntax_tree)))


def test_from_computing_to_showing_nothing_is_followed(package):
    (package / "report").mkdir()
    (package / "report" / "figures.py").write_text("from arena_cje.report import theme\nfrom arena_cje import top\n")
    (package / "report" / "theme.py").write_text("")
    (package / "top.py").write_text("def plot():\n    from arena_cje.report import figures\n")
    assert files("top") == {"top.py"}
    assert files("report.figures") == {"report/figures.py", "report/theme.py", "top.py"}


def test_code_hash_follows_imports(package):
    (package / "top.py").write_text("from arena_cje.deep import x\n")
    (package / "deep.py").write_text("x = 1\n")

    def now() -> str:
        forget()
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
