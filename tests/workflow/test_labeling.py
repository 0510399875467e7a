"""People as the oracle: the commands of docs/labeling.md from export to interval, with simulated raters and a tiny model."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import stat
import subprocess
import sys
import zipfile
from hashlib import sha256

import pytest
import yaml

import arena_cje
from arena_cje.data.coverage import has_label
from workflow_run import ROOT, SNAKEMAKE, Run, parse_jobs

PAGE = (ROOT / "docs" / "labeling.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
STUDY = ["config/experiments/human-oracle.yaml", "config/experiments/human-oracle-smoke.yaml"]
N_PROMPTS = yaml.safe_load((ROOT / STUDY[1]).read_text())["n_prompts"]
RATERS = ("ann", "bob", "cy")
DRAWS = "coverage_0.25/fresh_draws/hot.jsonl"
VALIDATED = ("results/coverage_0.25/validation.csv", "results/labeling/oracles.json")


def n_prompts(coverage: float) -> int:
    return sum(has_label(place, coverage) for place in range(N_PROMPTS))


def rows_of(path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))


def opinion(text: str, rater: int) -> int:
    """The vote of a rater on a text, from the text's hash (ids of items differ between studies). Raters agree on most texts."""
    common, own = sha256(text.encode()).digest()[0] % 5, sha256(f"{text} {rater}".encode()).digest()[0]
    return 1 + min(4, max(0, common + (own % 5 == 0) - (own % 5 == 1)))


class Study(Run):
    """The shipped study in a folder of its own."""

    def command(self, *arguments: str) -> list[str]:
        return [*SNAKEMAKE, "-s", str(self.root / "Snakefile"), "--cores", "2", *arguments]

    def documented(self, line: str) -> str:
        """The output of a command of the page."""
        words = shlex.split(line)
        if words[0] == "snakemake":
            return self.snakemake(*words[1:])
        assert words[0] == "arena-cje"
        files = [
            str(path) for word in words[1:] for path in (sorted(self.directory.glob(word)) if "*" in word else [word])
        ]
        process = subprocess.run(
            [sys.executable, "-m", "arena_cje", *files],
            cwd=self.directory,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROOT / "workflow")},
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    def vote(self, batch: str) -> None:
        """Label a batch: a file of votes for each rater, as the labelling page writes it."""
        (self.directory / "votes").mkdir(exist_ok=True)
        texts = {row[name]: row["text_id"] for row in self.key(batch) for name in ("item_id", "copy_id")}
        for number, rater in enumerate(RATERS):
            lines = ["item_id,batch,annotator_id,score,skipped,comment,submitted_at,duration_s"]
            for row in rows_of(self.path(f"labeling/{batch}/tasks.csv")):
                score = opinion(texts[row["item_id"]], number)
                lines.append(f"{row['item_id']},{batch},{rater},{score},,,2026-01-01T10:00:00Z,20")
            (self.directory / "votes" / f"{batch}_{rater}.csv").write_text("\n".join(lines) + "\n")

    def vote_alike(self, batch: str, score: int) -> None:
        """All raters give all texts of a batch one vote."""
        for rater in RATERS:
            path = self.directory / "votes" / f"{batch}_{rater}.csv"
            rows = rows_of(path)
            lines = ["item_id,batch,annotator_id,score", *(f"{row['item_id']},{batch},{rater},{score}" for row in rows)]
            path.write_text("\n".join(lines) + "\n")

    def key(self, batch: str) -> list[dict[str, str]]:
        return rows_of(self.path(f"labeling/{batch}/key.csv"))


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_model) -> Study:
    """A working directory where the embedded model is a tiny one, and nothing has run."""
    folder = tmp_path_factory.mktemp("people")
    (folder / "config").mkdir()
    (folder / "config" / "experiments").symlink_to(ROOT / "config" / "experiments")
    model = {"file": None, "path": str(tiny_model), "n_ctx": 512}
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump({"models": {"smollm2": model}}))
    return Study(folder, {})


def test_a_dry_run_of_the_shipped_study_needs_no_key(study):
    output = study.snakemake("-n", "--configfile", STUDY[0], "--", "results/labeling/main/label.html")
    jobs = parse_jobs(output)
    assert {job for job in jobs if job.startswith("labeling_batch")} == {"labeling_batch pilot", "labeling_batch main"}
    assert not any(job.startswith("judge") for job in jobs)


def test_without_votes_one_sentence_says_what_to_do(study):
    output = study.snakemake("-n", "--configfile", *STUDY, "--", "results/coverage_0.25/direct.json", ok=False)
    assert "ERROR there are no votes of people yet: let them label results/labeling/pilot/label.html" in output
    assert "Traceback" not in output


@pytest.fixture(scope="module")
def labelled_study(study) -> Study:
    """The study after all commands of the page; raters label a batch as soon as its page is there."""
    study.outputs_of = {}
    for line in COMMANDS:
        study.outputs_of.setdefault(line, []).append(study.documented(line))
        batch = re.search(r"labeling/(\w+)/label.html", line)
        if batch:
            study.vote(batch[1])
    return study


def output_of(labelled_study: Study, words: str) -> list[str]:
    """Outputs of the page's command that contains some words."""
    (outputs,) = [outputs for line, outputs in labelled_study.outputs_of.items() if words in line]
    return outputs


def test_the_price_of_a_labelling_batch_is_printed_when_it_is_exported(labelled_study):
    summary = json.loads(labelled_study.path("labeling/pilot/batch.json").read_text())
    assert summary["usd"] == pytest.approx(0.08 * summary["n_votes"])
    assert (
        f"{summary['n_votes']} votes, {summary['usd']:.2f} US dollars"
        in output_of(labelled_study, "pilot/label.html")[0]
    )


def test_batches_name_no_policy_and_no_prompt_and_only_the_owner_can_read_their_keys(labelled_study):
    for batch in ("pilot", "main"):
        folder = labelled_study.path(f"labeling/{batch}")
        files = {path.name for path in folder.iterdir()}
        assert files == {"tasks.csv", "label_studio.json", "mturk.csv", "label.html", "key.csv", "batch.json"}
        prompt_ids = {row["prompt_id"] for row in labelled_study.key(batch)}
        for name in files - {"key.csv"}:
            content = (folder / name).read_text()
            assert "policy" not in content
            assert not any(prompt_id in content for prompt_id in prompt_ids)
        assert stat.S_IMODE((folder / "key.csv").stat().st_mode) == 0o600
    assert stat.S_IMODE(labelled_study.path("labeling/secret.key").stat().st_mode) == 0o600


def test_batches_have_the_oracle_slice_of_the_base_and_the_same_prompts_of_the_targets(labelled_study):
    rows = labelled_study.key("pilot") + labelled_study.key("main")
    prompts = {name: {row["prompt_id"] for row in rows if row["policy"] == name} for name in ("base", "hot", "cot")}
    assert len(prompts["base"]) == n_prompts(0.25)
    assert len(prompts["hot"]) == n_prompts(0.1)
    assert prompts["hot"] == prompts["cot"] <= prompts["base"]
    task_ids = {row["item_id"] for row in rows_of(labelled_study.path("labeling/main/tasks.csv"))}
    assert not task_ids & {row["item_id"] for row in labelled_study.key("pilot")}


def test_the_votes_command_counts_votes_raters_and_labelled_texts(labelled_study):
    first, second = output_of(labelled_study, "arena-cje votes")
    pilot, both = (
        {row["item_id"] for row in rows}
        for rows in (labelled_study.key("pilot"), labelled_study.key("pilot") + labelled_study.key("main"))
    )
    assert f"{3 * len(pilot)} votes of 3 raters on {len(pilot)} of {len(pilot)} texts" in first
    assert f"{3 * len(both)} votes of 3 raters on {len(both)} of {len(both)} texts" in second
    assert "rater noise: " in second
    assert "open" not in second


def test_labels_are_the_means_of_the_votes(labelled_study):
    rows = [
        json.loads(line) for line in labelled_study.path("oracle/base/coverage_0.25.jsonl").read_text().splitlines()
    ]
    text = {
        row["prompt_id"]: row["text_id"]
        for row in labelled_study.key("pilot") + labelled_study.key("main")
        if row["policy"] == "base"
    }
    assert json.loads(labelled_study.path("labeling/agreement.json").read_text())["aggregation"]["model"] == "mean"
    assert {row["prompt_id"] for row in rows} == text.keys()
    for row in rows:
        votes = [opinion(text[row["prompt_id"]], rater) for rater in range(3)]
        assert row["score"] == pytest.approx((sum(votes) / 3 - 1) / 4)


def test_the_study_ends_with_estimates_from_the_labels_of_people(labelled_study):
    document = arena_cje.load(labelled_study.path("coverage_0.25/direct.json")).document
    assert document["metadata"]["n_oracle"] == n_prompts(0.25)
    assert document["provenance"]["oracle"]["provider"] == "human"
    draws = [
        json.loads(line) for line in labelled_study.path("coverage_0.25/fresh_draws/hot.jsonl").read_text().splitlines()
    ]
    assert sum(row["oracle_label"] is not None for row in draws) == n_prompts(0.1)
    assert "concise" in output_of(labelled_study, "arena-cje show")[0]


def test_the_summary_of_the_data_has_the_noise_of_raters_without_their_names(labelled_study):
    text = labelled_study.path("coverage_0.25/summary.json").read_text()
    people, report = json.loads(text)["people"], json.loads(labelled_study.path("labeling/agreement.json").read_text())
    assert people["noise_share"] == report["noise_share"] > 0
    assert people["n_votes"] == report["n_votes"]
    assert not any(f'"{rater}"' in text for rater in RATERS)


def test_the_judge_is_compared_with_people_and_the_largest_differences_come_first(labelled_study):
    report = json.loads(labelled_study.path("labeling/judge_agreement.json").read_text())
    apart = rows_of(labelled_study.path("labeling/most_apart.csv"))
    assert report["n_items"] == len({row["item_id"] for row in labelled_study.key("pilot")})
    assert abs(float(apart[0]["difference"])) >= abs(float(apart[-1]["difference"]))
    assert {row["policies"].split(", ")[0] for row in apart} <= {"base", "hot", "cot", "concise"}


def test_an_added_votes_file_makes_labels_stale_and_no_generation_or_judging(labelled_study):
    target = ["--configfile", *STUDY, "--", "results/coverage_0.25/direct.json"]
    assert "Nothing to be done" in labelled_study.snakemake(*target)
    item = rows_of(labelled_study.path("labeling/pilot/tasks.csv"))[0]["item_id"]
    more = labelled_study.directory / "votes" / "later.csv"
    more.write_text(f"item_id,annotator_id,score\n{item},dee,3\n")
    rules = {job.split()[0] for job in parse_jobs(labelled_study.snakemake("-n", *target))}
    more.write_text("item_id,annotator_id,score\nforeign,dee,3\n")
    output = labelled_study.snakemake(*target, ok=False)
    more.unlink()
    assert {"labels", "oracle"} <= rules
    assert not {"labeling_batch", "generate", "judge"} & rules
    assert "votes cannot be used: votes/later.csv (row 2): an unknown item" in output


def test_the_archive_has_no_key_and_no_labelling_file(labelled_study):
    labelled_study.snakemake("--configfile", *STUDY, "--", "results/archive.zip")
    names = zipfile.ZipFile(labelled_study.path("archive.zip")).namelist()
    assert any("direct.json" in name for name in names)
    assert any("helpfulness.md" in name for name in names)
    assert not any("key" in name or "labeling" in name for name in names)


def test_the_status_of_the_finished_run_reports_all_items_and_jobs_done(labelled_study):
    assert re.search(
        r"(\d+) of \1 items \(100%\), (\d+) of \2 other jobs done", labelled_study.documented("arena-cje status .")
    )


@pytest.fixture(scope="module")
def split_study(labelled_study) -> Study:
    """The study where people label half of the prompts; half of these labels are for validation and enter no estimate."""
    batches = {"rest": {"coverage": 0.5}}
    (labelled_study.directory / "split.yaml").write_text(
        yaml.safe_dump({"oracle": {"truth": 0.5}, "labeling": {"batches": batches}})
    )
    labelled_study.study_files = {
        name: labelled_study.path(name).read_bytes() for name in ("coverage_0.25/cje_dataset.jsonl", DRAWS)
    }
    labelled_study.snakemake("--configfile", *STUDY, "split.yaml", "--", "results/labeling/rest/label.html")
    labelled_study.vote("rest")
    labelled_study.snakemake("--configfile", *STUDY, "split.yaml", "--", *VALIDATED)
    return labelled_study


def test_labels_above_the_largest_coverage_are_for_validation(split_study):
    for policy in ("base", "hot", "concise"):
        rows = [
            json.loads(line) for line in split_study.path(f"oracle/{policy}/validation.jsonl").read_text().splitlines()
        ]
        assert len(rows) == n_prompts(0.5) - n_prompts(0.25)
        assert all(row["score"] is not None for row in rows)
    table = rows_of(split_study.path("coverage_0.25/validation.csv"))
    assert [row["policy"] for row in table] == ["base", "hot", "cot", "concise"]
    assert all(float(row["truth_se"]) > 0 for row in table)


def test_no_label_for_validation_enters_an_estimate(split_study):
    """Other votes on the prompts for validation change the true value, but no estimate and none of its inputs."""
    before = {name: split_study.path(name).read_bytes() for name in split_study.study_files}
    assert before == split_study.study_files
    truths = [row["truth"] for row in rows_of(split_study.path("coverage_0.25/validation.csv"))]
    values = rows_of(split_study.path("coverage_0.25/direct.csv"))
    split_study.vote_alike("rest", 1)
    split_study.snakemake("--configfile", *STUDY, "split.yaml", "--", *VALIDATED)
    assert {name: split_study.path(name).read_bytes() for name in split_study.study_files} == before
    assert rows_of(split_study.path("coverage_0.25/direct.csv")) == values
    after = [row["truth"] for row in rows_of(split_study.path("coverage_0.25/validation.csv"))]
    assert all(float(truth) == pytest.approx(0, abs=1e-9) for truth in after)
    assert truths != after


def test_a_coverage_that_would_take_labels_for_validation_is_refused(split_study):
    target = "results/coverage_0.5/direct.json"
    output = split_study.snakemake("-n", "--configfile", *STUDY, "split.yaml", "--", target, ok=False)
    assert "people's labels above coverage 0.25 are for validation (`oracle.truth`)" in output


def test_the_judge_is_compared_with_people_on_all_labelled_texts(split_study):
    report = json.loads(split_study.path("labeling/oracles.json").read_text())
    assert report["models"].keys() == {"judge"}
    one = report["models"]["judge"]
    labelled = {row["item_id"] for batch in ("pilot", "main", "rest") for row in split_study.key(batch)}
    assert one["n_texts"] == len(labelled)
    assert one["policies"]["base"]["n_texts"] == n_prompts(0.5)
    assert one["policies"]["hot"]["beyond_the_base"]["n_prompts"] == n_prompts(0.1) + n_prompts(0.5) - n_prompts(0.25)
    assert one["mean_difference"]["ci_lower"] < one["mean_difference"]["estimate"] < one["mean_difference"]["ci_upper"]
    apart = rows_of(split_study.path("labeling/oracles.csv"))
    assert apart[0]["model"] == "judge"
    assert apart[0]["item_id"] in labelled


def test_votes_of_people_beside_another_oracle_enter_no_estimate(split_study):
    """Estimates use the other oracle's labels, which are compared with the labels of people."""
    votes = ["votes/pilot_*.csv", "votes/main_*.csv"]
    oracle = {"provider": "reference", "truth": "none", "votes": votes}
    (split_study.directory / "beside.yaml").write_text(yaml.safe_dump({"oracle": oracle}))
    study = ["--configfile", *STUDY, "beside.yaml", "--"]
    estimates = {
        job.split()[0] for job in parse_jobs(split_study.snakemake("-n", *study, "results/coverage_0.25/direct.json"))
    }
    assert "oracle" in estimates
    assert not {"labels", "generate", "judge"} & estimates
    split_study.snakemake(*study, "results/labeling/oracles.json")
    report = json.loads(split_study.path("labeling/oracles.json").read_text())
    assert report["models"].keys() == {"judge", "oracle"}
    one = report["models"]["oracle"]
    assert one["policies"]["base"]["n_texts"] == n_prompts(0.25)
    key = {
        row["item_id"]: row for batch in ("pilot", "main") for row in split_study.key(batch) if row["policy"] == "base"
    }
    grade_lines = split_study.path("oracle/base/coverage_0.25.jsonl").read_text().splitlines()
    label = {row["prompt_id"]: row["score"] for row in map(json.loads, grade_lines)}
    people = {item: sum(opinion(row["text_id"], rater) - 1 for rater in range(3)) / 12 for item, row in key.items()}
    differences = [label[row["prompt_id"]] - people[item] for item, row in key.items()]
    mean = one["policies"]["base"]["mean_difference"]["estimate"]
    assert mean == pytest.approx(sum(differences) / len(differences))
