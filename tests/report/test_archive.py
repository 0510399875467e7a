"""The archive holds the declared outputs of a run, describes each of them, and has equal bytes for equal content."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from pathlib import Path

import pytest
import yaml

import arena_cje
from arena_cje.config import parse as config_parse
from arena_cje.errors import UserError
from arena_cje.files import read_json, write_json
from arena_cje.report import archive
from arena_cje.report.settings import settings
from small_results import write_data
from workflow_run import Run

SECRET = "sk-never-to-be-seen"


@pytest.fixture(scope="module")
def archived_run(tmp_path_factory):
    """A run with its archive; a file that no rule made lies among its results, a key in its environment."""
    folder = write_data(tmp_path_factory.mktemp("run"), n=200)
    own = {"logged_data": "logged.jsonl", "fresh_draws": "draws", "coverages": ["0.5"], "estimators": ["snips"]}
    run = Run(folder, own | {"variants": {"hajek": {"estimator": "snips", "alpha": 0.2}}})
    (folder / "results").mkdir()
    (folder / "results" / "stray.json").write_text("{}")
    for name, numbers in {"score/0000.tsv": "1.5\t24", "judge/base/0000.tsv": "0.5\t12"}.items():
        path = folder / "logs" / "benchmarks" / name
        path.parent.mkdir(parents=True)
        path.write_text(f"s\titems\n{numbers}\n")
    os.environ["SOME_API_KEY"] = SECRET
    try:
        run.snakemake("results/archive.zip")
    finally:
        del os.environ["SOME_API_KEY"]
    return run


@pytest.fixture(scope="module")
def archived_files(archived_run):
    with zipfile.ZipFile(archived_run.path("archive.zip")) as zip_file:
        assert zip_file.testzip() is None
        return {name.removeprefix("arena-cje/"): zip_file.read(name) for name in zip_file.namelist()}


def test_results_are_in_the_archive_byte_for_byte(archived_run, archived_files):
    expected = ["coverage_0.5/snips.json", "coverage_0.5/snips.csv", "coverage_0.5/snips.influence.parquet"]
    expected += ["coverage_0.5/summary.json", "coverage_0.5/comparisons.json", "coverage_0.5/comparisons.csv"]
    expected += ["export/results.csv", "export/results.parquet", "export/coverage_0.5/leaderboard.csv"]
    expected += ["planning/plan.json", "planning/plan.png"]
    expected += [f"export/coverage_0.5/{name}" for name in ("precomputed_sampler.jsonl", "stochastic_log.jsonl")]
    for name in expected:
        assert archived_files[name] == archived_run.path(name).read_bytes()


def test_the_archive_has_no_undeclared_files_and_no_secrets(archived_run, archived_files):
    additions = {"README.txt", "SHA256SUMS", "configuration.yaml", "provenance.json", "throughput.tsv"}
    outputs = {name for name in archived_files if name not in additions}
    assert all(archived_run.path(name).is_file() for name in outputs)
    assert "stray.json" not in archived_files and "archive.zip" not in archived_files
    assert not any(".snakemake" in name or "journal" in name or name.endswith(".gguf") for name in archived_files)
    assert not any(SECRET.encode() in content for content in archived_files.values())


def test_every_file_has_a_description_and_a_hash(archived_files):
    assert not [name for name in archived_files if archive.meaning(name) == "another result"]
    listed = archived_files["README.txt"].decode().splitlines()
    assert [line for line in listed if line in archived_files] == sorted(archived_files)
    sums = dict(reversed(line.split("  ")) for line in archived_files["SHA256SUMS"].decode().splitlines())
    assert sums == {
        name: hashlib.sha256(data).hexdigest() for name, data in archived_files.items() if name != "SHA256SUMS"
    }


def test_the_configuration_is_complete_and_can_be_used_again(archived_run, archived_files):
    configuration = yaml.safe_load(archived_files["configuration.yaml"])
    assert configuration["variants"]["hajek"]["estimator"] == "snips"
    assert configuration["analysis"]["jackknife_folds"] == 20  # a default that the run did not name
    # In the order of declaration, too, which is that of policies in every table.
    complete = settings(config_parse.parse(configuration), folder=archived_run.directory)
    assert json.dumps(complete) == json.dumps(configuration)


def test_provenance_has_the_versions_and_the_inputs_of_the_results(archived_run, archived_files, tmp_path):
    (tmp_path / "provenance.json").write_bytes(archived_files["provenance.json"])
    provenance = read_json(tmp_path / "provenance.json")
    assert provenance["arena_cje"] == arena_cje.__version__ and provenance["packages"]["numpy"]
    summary = read_json(archived_run.path("coverage_0.5/summary.json"))
    assert provenance["made_from"]["coverage_0.5"] == summary["provenance"]


def test_throughput_of_all_jobs_is_one_table(archived_files):
    assert archived_files["throughput.tsv"].decode() == "job\ts\titems\njudge/base/0000\t0.5\t12\nscore/0000\t1.5\t24\n"


def test_a_result_of_the_archive_can_be_loaded(archived_files, tmp_path):
    for name in ("coverage_0.5/snips.json", "coverage_0.5/snips.influence.parquet"):
        (tmp_path / Path(name).name).write_bytes(archived_files[name])
    result = arena_cje.load(tmp_path / "snips.json")
    assert len(result.comparisons()) == 10


def test_an_existing_archive_is_not_made_again(archived_run):
    assert "Nothing to be done" in archived_run.snakemake("results/archive.zip")
    assert "Nothing to be done" in archived_run.snakemake("--config", "model_slots=1", "--", "results/archive.zip")


def content(folder: Path) -> dict[str, archive.Content]:
    (folder / "results" / "coverage_0.1").mkdir(parents=True, exist_ok=True)
    summary, figure = folder / "results/coverage_0.1/summary.json", folder / "results/coverage_0.1/plots.png"
    write_json(summary, {"provenance": {"seed": 1}})
    figure.write_bytes(bytes(range(256)) * 40)
    return archive.members([figure, summary], root=folder / "results", configuration={"seed": 1}, package_version="1.0")


def test_equal_content_gives_equal_bytes(tmp_path):
    archive.write(tmp_path / "one.zip", content(tmp_path / "a"))
    time.sleep(2.1)  # times in a zip file have a resolution of two seconds
    second = content(tmp_path / "b")
    os.utime(tmp_path / "b/results/coverage_0.1/summary.json", (0, 10**9))
    archive.write(tmp_path / "two.zip", dict(reversed(second.items())))
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_other_content_gives_other_bytes(tmp_path):
    archive.write(tmp_path / "one.zip", content(tmp_path / "a"))
    other = archive.members([], root=tmp_path, configuration={"seed": 2}, package_version="1.0")
    archive.write(tmp_path / "two.zip", other)
    assert (tmp_path / "one.zip").read_bytes() != (tmp_path / "two.zip").read_bytes()


def test_texts_with_the_same_file_name_are_numbered(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "helpful.txt").write_text(name)
    texts = [tmp_path / "a/helpful.txt", tmp_path / "b/helpful.txt"]
    contents = archive.members([], root=tmp_path, configuration={}, package_version="1.0", texts=texts)
    assert {name: contents[name].read_text() for name in contents if name.startswith("configuration/")} == {
        "configuration/helpful.txt": "a",
        "configuration/2-helpful.txt": "b",
    }


def test_an_archive_without_benchmarks_has_no_throughput_table(tmp_path):
    assert archive.throughput_table(tmp_path / "none") == "" == archive.throughput_table(None)
    assert "throughput.tsv" not in archive.members([], root=tmp_path, configuration={}, package_version="1.0")


def test_a_failed_write_leaves_the_earlier_archive(tmp_path):
    archive.write(tmp_path / "a.zip", {"README.txt": b"first"})
    before = (tmp_path / "a.zip").read_bytes()
    with pytest.raises(UserError, match="gone.json: no such file"):
        archive.write(tmp_path / "a.zip", {"gone.json": tmp_path / "gone.json"})
    assert (tmp_path / "a.zip").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
