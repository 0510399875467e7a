"""An analysis, an import, an export and a figure each read every file of the data once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from arena_cje import analyze, files
from arena_cje.data import sources as data_sources
from arena_cje.data.user_data import read_user_data
from arena_cje.errors import UserError
from arena_cje.report import exports, sources
from small_results import TARGETS, analyzed, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Logged data, fresh draws, calibration data, and probes of one policy's draws."""
    folder = write_data(tmp_path_factory.mktemp("data"), 100)
    more = [{"prompt_id": f"new{k}", "judge_score": k / 40, "oracle_label": 1.0} for k in range(40)]
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    draw_rows = [json.loads(line) for line in (folder / "draws" / "near.jsonl").read_text().splitlines()]
    (folder / "probes").mkdir()
    probes = "".join(json.dumps(row | {"oracle_label": 0.5}) + "\n" for row in draw_rows[:20])
    (folder / "probes" / "near.jsonl").write_text(probes)
    return folder


@pytest.fixture()
def read_counts(data, monkeypatch) -> Counter[str]:
    """How often each file was read, by its path below the data."""
    counts: Counter[str] = Counter()

    def counting(path):
        counts[Path(path).relative_to(data).as_posix()] += 1
        return original(path)

    original = data_sources.iterate_rows
    monkeypatch.setattr(data_sources, "iterate_rows", counting)
    return counts


READS_OF_DRAWS = dict.fromkeys((f"draws/{policy}.jsonl" for policy in TARGETS), 1) | {"probes/near.jsonl": 1}
READS_OF_OTHER_FILES = {"logged.jsonl": 1, "more.jsonl": 1}


def test_an_analysis_reads_each_file_once(data, read_counts):
    analyzed(data, "direct", probes=data / "probes", calibration_data=data / "more.jsonl", covariates=())
    assert read_counts == READS_OF_OTHER_FILES | READS_OF_DRAWS


def test_an_import_reads_each_file_once(data, read_counts):
    files = {"probes": data / "probes", "calibration_data": data / "more.jsonl"}
    user_data = read_user_data(data / "logged.jsonl", data / "draws", 0.5, 42, **files)
    assert read_counts == READS_OF_OTHER_FILES | READS_OF_DRAWS
    assert sum(row.get("oracle_label") is not None for row in user_data.fresh["near"]) == 20


def test_draws_of_other_prompts_are_refused_by_an_import_and_by_an_analysis(data, tmp_path):
    for path in (data / "draws").iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace('"prompt-', '"other-'))
    sentence = "'same' has no fresh draw for any of the .* logged prompts with a judge score, such as 'prompt-0'"
    with pytest.raises(UserError, match=sentence):
        read_user_data(data / "logged.jsonl", tmp_path, 0.5, 42)
    with pytest.raises(UserError, match=sentence):
        analyze(data / "logged.jsonl", tmp_path, "direct")


def test_an_export_and_a_figure_read_each_file_once(data, read_counts):
    result = analyzed(data, coverage=None, calibration_data=data / "more.jsonl")
    read_counts.clear()
    rows, rewards = exports.logged_rows(data / "logged.jsonl", result, data / "more.jsonl")
    assert read_counts == READS_OF_OTHER_FILES and len(rows) == len(rewards) == 100
    read_counts.clear()
    files.write_json(data / "summary.json", {"base_policy": "base"})
    paths = {"dataset": "logged.jsonl", "calibration": "more.jsonl", "summary": "summary.json"}
    figure_sources = sources.Sources({name: [str(data / path)] for name, path in paths.items()}, "1.0", {})
    figure_sources.fitted = result
    logged, labelled = figure_sources.fitted_logged, figure_sources.fitted_calibration
    assert read_counts == READS_OF_OTHER_FILES and (len(logged.prompt_id), len(labelled.question)) == (100, 40)
