"""What Python shows of results and records: a few lines, never arrays."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import polars as pl
import pytest

import arena_cje
from arena_cje import simulate
from arena_cje.estimation import records
from arena_cje.estimation.records import Estimate, Reason, Verdict
from arena_cje.results import result as results
from import_graph import FILES, tree
from own_data import write_world
from workflow_run import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from arena_cje.results.result import Result


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, n=200)
    return folder


@pytest.fixture(scope="module")
def result(folder) -> Result:
    return arena_cje.analyze(folder / "mine.jsonl", folder / "draws", "direct")


def test_a_result_is_printed_in_a_few_lines_with_the_decision_first(result):
    lines = str(result).splitlines()
    assert lines == repr(result).splitlines()
    assert " ".join(lines).startswith(result.decision["headline"])
    assert len(lines) <= 8 + len(result.all_policies) and max(map(len, lines)) <= 120
    for policy in result.all_policies:
        line = next(line for line in lines if line.startswith(policy))
        low, high = (result.summary(policy)[name] for name in ("ci_lower", "ci_upper"))
        assert (
            f"{result.summary(policy)['estimate']:.3f}  [{low:.3f}, {high:.3f}]  {result.verdicts[policy].level}"
            in line
        )
        if entry := result.decision["policies"].get(policy):
            assert f"{entry['difference']:+.3f} [{entry['corrected_interval'][0]:+.3f}, " in line


def test_a_refused_policy_has_no_number(folder):
    refused = arena_cje.analyze(
        folder / "mine.jsonl", estimator="snips", thresholds={"ess_refuse": 0.999, "ess_caution": 1}
    )
    assert refused.refused
    for policy in refused.refused:
        line = next(line for line in repr(refused).splitlines() if line.startswith(policy))
        assert line.split()[1:] == ["refused", "refuse"]


def test_a_file_of_an_earlier_version_is_printed_without_the_fields_it_lacks(result, tmp_path):
    later = ("decision", "remedies", "judge_worth")
    document = {name: entry for name, entry in result.document.items() if name not in later}
    (tmp_path / "direct.json").write_text(json.dumps(document))
    earlier = arena_cje.load(tmp_path / "direct.json")
    lines = repr(earlier).splitlines()
    assert lines[0].startswith("direct: 200 logged responses") and "minus" not in lines[1]
    assert len(lines) == 5 + len(earlier.all_policies)
    captions = [text for tag, text in Blocks(earlier._repr_html_()).texts if tag == "caption"]
    assert len(captions) == 1 and earlier.details()


class Blocks(HTMLParser):
    """The texts of a page by the elements that they stand in."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1], data))


def test_a_notebook_shows_decision_table_differences_notes_remedies_and_legend(result):
    texts = Blocks(result._repr_html_()).texts
    assert texts[0] == ("b", result.decision["headline"])
    captions = [text for tag, text in texts if tag == "caption"]
    assert captions[0].startswith("direct: 200 logged responses") and captions[1].startswith(
        "Difference to base (simultaneous 95 % intervals"
    )
    items = [text for tag, text in texts if tag == "li"]
    for policy, verdict in result.verdicts.items():
        for reason in verdict.reasons:
            assert any(policy in item and reason.sentence in item for item in items)
    for entry in result.decision["policies"].values():
        assert entry["status"] != "not_yet_known" or entry["sentence"] in items
    assert any(tag == "summary" and text == "What the columns mean" for tag, text in texts)


def test_an_estimate_is_printed_in_one_line(result):
    line = repr(result.estimate("better"))
    assert line.startswith(f"Estimate({result.estimates[result.policies.index('better')]:.3f}, se ")
    assert "200 of 200 rows, 200 prompts)" in line and "\n" not in line
    assert repr(result.estimate("better") - result.estimate("base")).startswith("Estimate(")


def test_an_estimate_without_a_variance_is_printed_too():
    one = Estimate(0.5, np.zeros(1), np.zeros(1, dtype=int), np.empty(0), np.ones(1, dtype=bool))
    assert repr(one) == "Estimate(0.500, se nan, 95 % interval [nan, nan], 1 of 1 rows, 1 prompts)"


def test_records_of_arrays_are_printed_in_one_short_line():
    logged, draws, _ = simulate.draw(simulate.World(), 300, seed=1)
    for record in (logged, logged.judged, *draws.values()):
        line = repr(record)
        assert len(line) < 500 and "\n" not in line and "300" in line
    assert f"log_ratio=array 300x{len(logged.policies)}" in repr(logged)


def test_no_record_of_estimation_prints_arrays():
    of_arrays = [
        one
        for one in vars(records).values()
        if dataclasses.is_dataclass(one) and any("ndarray" in str(field.type) for field in dataclasses.fields(one))
    ]
    assert len(of_arrays) >= 8
    assert [
        one for one in of_arrays if not hasattr(one.__repr__, "__module__") or "create_fn" in one.__repr__.__qualname__
    ] == []


def test_a_verdict_reads_as_a_sentence():
    assert str(Verdict()) == "ok"
    assert str(Verdict((Reason("a", "few labels", "caution"), Reason("b", "fine")))) == "caution: few labels"


def frames(rows: list[dict]) -> dict:
    return {"dicts": rows, "pandas": pd.DataFrame(rows), "polars": pl.DataFrame(rows), "lazily": pl.LazyFrame(rows)}


def test_paths_frames_and_lists_give_the_same_numbers(folder, result):
    logged = pl.read_ndjson(folder / "mine.jsonl").to_dicts()
    draws = {path.name.removesuffix("_responses.jsonl"): path for path in (folder / "draws").glob("*.jsonl")}
    sources = {kind: (source, {}) for kind, source in frames(logged).items()}
    for policy, path in draws.items():
        for kind, source in frames(pl.read_ndjson(path).to_dicts()).items():
            sources[kind][1][policy] = source
    sources["text"] = (str(folder / "mine.jsonl"), str(folder / "draws"))
    sources["paths"] = (folder / "mine.jsonl", draws)
    for kind, (source, of_policies) in sources.items():
        same = arena_cje.analyze(source, of_policies, "direct")
        assert same.to_json() == result.to_json(), kind


@pytest.mark.parametrize("one", [arena_cje.analyze, arena_cje.load, results.Result])
def test_the_help_has_an_example_and_every_argument(one):
    page = inspect.getdoc(one)
    assert "Example" in page and "arena_cje." in page
    if inspect.isfunction(one):
        assert "UserError" in page
        for name in inspect.signature(one).parameters:
            assert name in page


def test_the_help_of_analyze_has_formula_shapes_units_and_errors():
    page = inspect.getdoc(arena_cje.analyze)
    for word in ("V(policy) =", "[0, 1]", "nats", "(p,)", "(n, p)", "Raises a `UserError`", "TypeError"):
        assert word in page, word


def test_dir_of_the_package_lists_its_public_names_alone():
    code = "import arena_cje; print(dir(arena_cje)); print(arena_cje.Result.__name__)"
    process = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "workflow")}, capture_output=True
    )
    assert process.stdout.decode().split("\n")[:2] == ["['Result', '__version__', 'analyze', 'load']", "Result"]


def test_the_status_of_weights_is_one_line(folder):
    for policy, status in arena_cje.analyze(folder / "mine.jsonl", estimator="snips").diagnose_weights().items():
        assert repr(status).startswith(
            f"WeightStatus('{policy}': {status.status}, ESS {status.ess_share:.1%} of 200 rows"
        )


def test_everything_public_has_types():
    """Arguments and values of all functions and methods without an underscore, by their source."""
    untyped = []
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                lacks = [one.arg for one in arguments if one.annotation is None and one.arg not in ("self", "cls")]
                if lacks or node.returns is None:
                    untyped.append(f"{file}:{node.lineno} {node.name}")
    assert untyped == []
