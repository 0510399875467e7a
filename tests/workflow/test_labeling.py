"""People as the oracle, from the export of tasks to intervals: Snakemake as in real runs, raters simulated."""

from __future__ import annotations

import csv
import io
import json
import stat
import zipfile
from hashlib import sha256

import pytest

import arena_cje
from arena_cje.data.coverage import golden_position
from workflow_run import CONFIG, Run, write_prompts

PEOPLE = {
    **CONFIG,
    "n_prompts": 40,
    "shard_size": 20,
    "policies": {name: CONFIG["policies"][name] for name in ("base", "other", "clone")},
    "oracle": {"provider": "human", "votes": ["votes/*.csv"], "target_labels": 0.5},
    "labeling": {
        "batches": {"first": {"coverage": 0.25}, "second": {"coverage": 0.5}},
        "usd_per_vote": 0.08,
        "duplicates": 0.1,
    },
    "coverages": ["0.5"],
    "estimators": ["direct", "calibrated-ips"],
}
N_LABELLED = sum(golden_position(place, 0.5) for place in range(40))  # prompts at coverage 0.5
RATERS = ("ann", "bob", "cy")


def label(item: str) -> int:
    """The vote of every rater on an item, from 1 to 5, before small differences."""
    return 1 + sha256(item.encode()).digest()[0] % 5


def rows_of(path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))


def vote(run: Run, batch: str, raters=RATERS) -> None:
    """Label a batch as its page would: a file of votes for each rater."""
    (run.directory / "votes").mkdir(exist_ok=True)
    copies = {row["copy_id"]: row["item_id"] for row in rows_of(run.path(f"labeling/{batch}/key.csv"))}
    for number, rater in enumerate(raters):
        lines = ["item_id,batch,annotator_id,score,skipped,comment,submitted_at,duration_s"]
        for row in rows_of(run.path(f"labeling/{batch}/tasks.csv")):
            base = label(copies.get(row["item_id"], row["item_id"]))
            score = min(5, max(1, base + (number - 1) * (base % 2)))
            lines.append(f"{row['item_id']},{batch},{rater},{score},,,2026-01-01T10:00:00Z,20")
        (run.directory / "votes" / f"{batch}_{rater}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_model):
    """A study whose first batch has been exported."""
    folder = tmp_path_factory.mktemp("people")
    write_prompts(folder / "prompts.jsonl", 40)
    (folder / "other.txt").write_text("Answer in other words.")
    (folder / "tiny.gguf").symlink_to(tiny_model)
    run = Run(folder, PEOPLE)
    run.output = run.snakemake("results/labeling/first/label.html")
    return run


def test_a_batch_is_exported_without_a_judge(study):
    files = {path.name for path in study.path("labeling/first").iterdir()}
    assert files == {"tasks.csv", "label_studio.json", "mturk.csv", "label.html", "key.csv", "batch.json"}
    assert not study.path("judge").exists()
    summary = json.loads(study.path("labeling/first/batch.json").read_text())
    assert summary["usd"] == pytest.approx(0.08 * summary["n_votes"])
    assert f"{summary['n_votes']} votes, {summary['usd']:.2f} US dollars" in study.output
    for name in ("labeling/first/key.csv", "labeling/secret.key"):
        assert stat.S_IMODE(study.path(name).stat().st_mode) == 0o600
    for name in files - {"key.csv"}:
        content = study.path(f"labeling/first/{name}").read_text()
        assert "clone" not in content
        assert "q1" not in content


def test_without_votes_one_sentence_says_what_to_do(study):
    output = study.snakemake("-n", "results/coverage_0.5/direct.json", ok=False)
    assert "ERROR there are no votes of people yet: let them label results/labeling/first/label.html" in output
    assert "Traceback" not in output


@pytest.fixture(scope="module")
def labelled(study):
    """The study after both batches have come back."""
    vote(study, "first")
    study.partial = study.snakemake("results/labeling/labels.jsonl")
    study.first_labels = study.path("labeling/labels.jsonl").read_text()
    study.snakemake("results/labeling/second/tasks.csv")
    vote(study, "second")
    study.final = study.snakemake("all", "results/labeling/judge_agreement.json")
    return study


def test_partial_votes_are_used_and_the_open_ones_counted(labelled):
    first, second = (rows_of(labelled.path(f"labeling/{name}/key.csv")) for name in ("first", "second"))
    items = {row["item_id"] for row in first}
    again = {row["item_id"] for row in rows_of(labelled.path("labeling/second/tasks.csv"))}
    assert not items & again
    assert {json.loads(line)["item_id"] for line in labelled.first_labels.splitlines()} == items
    n_open = 3 * len({row["item_id"] for row in second} - items)
    assert f"{n_open} votes are open: {n_open // 3} items have none, 0 have fewer than 3" in labelled.partial


def test_labels_are_the_means_of_the_votes(labelled):
    oracle = [json.loads(line) for line in labelled.path("oracle/base/coverage_0.5.jsonl").read_text().splitlines()]
    assert len(oracle) == N_LABELLED
    key = {row["prompt_id"]: row["item_id"] for name in ("first", "second")
           for row in rows_of(labelled.path(f"labeling/{name}/key.csv")) if row["policy"] == "base"}  # fmt: skip
    for row in oracle:
        base = label(key[row["prompt_id"]])
        scores = [min(5, max(1, base + shift * (base % 2))) for shift in (-1, 0, 1)]
        assert row["score"] == pytest.approx(
            (sum(scores) / 3 - 1) / 4, abs=0.13
        )  # biases are taken out where they show
        assert row["reason"] is None


def test_the_study_ends_in_intervals(labelled):
    result = arena_cje.load(labelled.path("coverage_0.5/direct.json"))
    assert result.document["metadata"]["n_oracle"] == N_LABELLED
    assert result.document["metadata"]["provenance"]["made_from"]["oracle"]["provider"] == "human"
    draws = [
        json.loads(line) for line in labelled.path("coverage_0.5/fresh_draws/other.jsonl").read_text().splitlines()
    ]
    assert sum(row["oracle_label"] is not None for row in draws) == N_LABELLED


def test_equal_texts_of_two_policies_have_one_label(labelled):
    key = rows_of(labelled.path("labeling/first/key.csv"))
    tasks = rows_of(labelled.path("labeling/first/tasks.csv"))
    assert len({(row["prompt"], row["response"]) for row in tasks}) == len({row["item_id"] for row in key})


def test_agreement_and_judge_are_reported(labelled):
    report = json.loads(labelled.path("labeling/agreement.json").read_text())
    assert report["n_raters"] == 3
    assert report["n_open"] == 0
    assert 0 < report["noise_share"] < 0.3
    assert report["alpha"]["ordinal"] > 0.7
    assert "noise of raters: " in labelled.final
    assert [row["self_difference"] for row in report["raters"]] == [0, 0, 0]
    judge = json.loads(labelled.path("labeling/judge_agreement.json").read_text())
    assert judge["n_items"] == report["n_items"]
    apart = rows_of(labelled.path("labeling/most_apart.csv"))
    assert abs(float(apart[0]["difference"])) >= abs(float(apart[-1]["difference"]))
    assert apart[0]["response"] is not None


def test_the_archive_holds_no_key(labelled):
    names = zipfile.ZipFile(labelled.path("archive.zip")).namelist()
    assert names
    assert not any("key" in name or "labeling" in name for name in names)


def test_nothing_is_done_twice(labelled):
    assert "Nothing to be done" in labelled.snakemake("all", "results/labeling/judge_agreement.json")
    more = labelled.directory / "votes" / "later.csv"
    row = rows_of(labelled.path("labeling/first/tasks.csv"))[0]
    more.write_text(f"item_id,annotator_id,score\n{row['item_id']},dee,3\n")
    jobs = labelled.jobs("results/coverage_0.5/direct.json")
    more.unlink()
    assert {job.split()[0] for job in jobs} >= {"labels", "oracle"}
    assert not {"labeling_batch", "generate", "judge"} & {job.split()[0] for job in jobs}
