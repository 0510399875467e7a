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
    """The vote of a rater on a text, by its hash: ids of items are others in each study. Raters agree on most texts."""
    common, own = sha256(text.encode()).digest()[0] % 5, sha256(f"{text} {rater}".encode()).digest()[0]
    return 1 + min(4, max(0, common + (own % 5 == 0) - (own % 5 == 1)))


class Study(Run):
    """The shipped study in a folder of its own; outputs of its commands by what they made."""

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
        done = subprocess.run(
            [sys.executable, "-m", "arena_cje", *files],
            cwd=self.directory,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROOT / "workflow")},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def vote(self, batch: str) -> None:
        """Label a batch as its page would: a file of votes for each rater."""
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


def test_the_shipped_study_plans_without_a_key(study):
    output = study.snakemake("-n", "--configfile", STUDY[0], "--", "results/labeling/main/label.html")
    jobs = parse_jobs(output)
    assert {job for job in jobs if job.startswith("labeling_batch")} == {"labeling_batch pilot", "labeling_batch main"}
    assert not any(job.startswith("judge") for job in jobs)


def test_without_votes_one_sentence_says_what_to_do(study):
    output = study.snakemake("-n", "--configfile", *STUDY, "--", "results/coverage_0.25/direct.json", ok=False)
    assert "ERROR there are no votes of people yet: let them label results/labeling/pilot/label.html" in output
    assert "Traceback" not in output


@pytest.fixture(scope="module")
def done(study) -> Study:
    """The study after all commands of the page; raters label a batch as soon as its page is there."""
    study.outputs_of = {}
    for line in COMMANDS:
        study.outputs_of.setdefault(line, []).append(study.documented(line))
        batch = re.search(r"labeling/(\w+)/label.html", line)
        if batch:
            study.vote(batch[1])
    return study


def output_of(done: Study, words: str) -> list[str]:
    """Outputs of the page's command that has some words in it."""
    (outputs,) = [outputs for line, outputs in done.outputs_of.items() if words in line]
    return outputs


def test_the_price_is_known_before_anybody_labels(done):
    summary = json.loads(done.path("labeling/pilot/batch.json").read_text())
    assert summary["usd"] == pytest.approx(0.08 * summary["n_votes"])
    assert f"{summary['n_votes']} votes, {summary['usd']:.2f} US dollars" in output_of(done, "pilot/label.html")[0]


def test_batches_are_blind_and_their_keys_private(done):
    for batch in ("pilot", "main"):
        folder = done.path(f"labeling/{batch}")
        files = {path.name for path in folder.iterdir()}
        assert files == {"tasks.csv", "label_studio.json", "mturk.csv", "label.html", "key.csv", "batch.json"}
        prompt_ids = {row["prompt_id"] for row in done.key(batch)}
        for name in files - {"key.csv"}:
            content = (folder / name).read_text()
            assert "policy" not in content
            assert not any(prompt_id in content for prompt_id in prompt_ids)
        assert stat.S_IMODE((folder / "key.csv").stat().st_mode) == 0o600
    assert stat.S_IMODE(done.path("labeling/secret.key").stat().st_mode) == 0o600


def test_batches_are_the_slice_of_the_base_and_the_same_prompts_of_the_targets(done):
    rows = done.key("pilot") + done.key("main")
    prompts = {name: {row["prompt_id"] for row in rows if row["policy"] == name} for name in ("base", "hot", "cot")}
    assert len(prompts["base"]) == n_prompts(0.25)
    assert len(prompts["hot"]) == n_prompts(0.1)
    assert prompts["hot"] == prompts["cot"] <= prompts["base"]
    shown = {row["item_id"] for row in rows_of(done.path("labeling/main/tasks.csv"))}
    assert not shown & {row["item_id"] for row in done.key("pilot")}


def test_votes_are_checked_and_the_open_ones_counted(done):
    first, second = output_of(done, "arena-cje votes")
    pilot, both = (
        {row["item_id"] for row in rows} for rows in (done.key("pilot"), done.key("pilot") + done.key("main"))
    )
    assert f"{3 * len(pilot)} votes of 3 raters on {len(pilot)} of {len(pilot)} texts" in first
    assert f"{3 * len(both)} votes of 3 raters on {len(both)} of {len(both)} texts" in second
    assert "rater noise: " in second
    assert "open" not in second


def test_labels_are_the_means_of_the_votes(done):
    rows = [json.loads(line) for line in done.path("oracle/base/coverage_0.25.jsonl").read_text().splitlines()]
    text = {row["prompt_id"]: row["text_id"] for row in done.key("pilot") + done.key("main") if row["policy"] == "base"}
    assert json.loads(done.path("labeling/agreement.json").read_text())["aggregation"]["model"] == "mean"
    assert {row["prompt_id"] for row in rows} == text.keys()
    for row in rows:
        votes = [opinion(text[row["prompt_id"]], rater) for rater in range(3)]
        assert row["score"] == pytest.approx((sum(votes) / 3 - 1) / 4)


def test_the_study_ends_in_intervals(done):
    document = arena_cje.load(done.path("coverage_0.25/direct.json")).document
    assert document["metadata"]["n_oracle"] == n_prompts(0.25)
    assert document["provenance"]["oracle"]["provider"] == "human"
    draws = [json.loads(line) for line in done.path("coverage_0.25/fresh_draws/hot.jsonl").read_text().splitlines()]
    assert sum(row["oracle_label"] is not None for row in draws) == n_prompts(0.1)
    assert "concise" in output_of(done, "arena-cje show")[0]


def test_the_noise_of_raters_stands_beside_the_data_without_their_names(done):
    text = done.path("coverage_0.25/summary.json").read_text()
    people, report = json.loads(text)["people"], json.loads(done.path("labeling/agreement.json").read_text())
    assert people["noise_share"] == report["noise_share"] > 0
    assert people["n_votes"] == report["n_votes"]
    assert not any(f'"{rater}"' in text for rater in RATERS)


def test_the_judge_is_held_against_people(done):
    report = json.loads(done.path("labeling/judge_agreement.json").read_text())
    apart = rows_of(done.path("labeling/most_apart.csv"))
    assert report["n_items"] == len({row["item_id"] for row in done.key("pilot")})
    assert abs(float(apart[0]["difference"])) >= abs(float(apart[-1]["difference"]))
    assert {row["policies"].split(", ")[0] for row in apart} <= {"base", "hot", "cot", "concise"}


def test_an_added_file_makes_labels_stale_and_nothing_dear(done):
    target = ["--configfile", *STUDY, "--", "results/coverage_0.25/direct.json"]
    assert "Nothing to be done" in done.snakemake(*target)
    item = rows_of(done.path("labeling/pilot/tasks.csv"))[0]["item_id"]
    more = done.directory / "votes" / "later.csv"
    more.write_text(f"item_id,annotator_id,score\n{item},dee,3\n")
    rules = {job.split()[0] for job in parse_jobs(done.snakemake("-n", *target))}
    more.write_text("item_id,annotator_id,score\nforeign,dee,3\n")
    refused = done.snakemake(*target, ok=False)
    more.unlink()
    assert {"labels", "oracle"} <= rules
    assert not {"labeling_batch", "generate", "judge"} & rules
    assert "votes cannot be used: votes/later.csv (row 2): an unknown item" in refused


def test_the_archive_holds_no_key(done):
    done.snakemake("--configfile", *STUDY, "--", "results/archive.zip")
    names = zipfile.ZipFile(done.path("archive.zip")).namelist()
    assert any("direct.json" in name for name in names)
    assert any("helpfulness.md" in name for name in names)
    assert not any("key" in name or "labeling" in name for name in names)


def test_the_status_of_the_run_leaves_nothing_open(done):
    assert re.search(r"(\d+) of \1 items \(100%\), (\d+) of \2 other jobs done", done.documented("arena-cje status ."))


@pytest.fixture(scope="module")
def split(done) -> Study:
    """The study where people label half of the prompts: the half of these that enters no estimate is for validation."""
    batches = {"rest": {"coverage": 0.5}}
    (done.directory / "split.yaml").write_text(
        yaml.safe_dump({"oracle": {"truth": 0.5}, "labeling": {"batches": batches}})
    )
    done.made = {name: done.path(name).read_bytes() for name in ("coverage_0.25/cje_dataset.jsonl", DRAWS)}
    done.snakemake("--configfile", *STUDY, "split.yaml", "--", "results/labeling/rest/label.html")
    done.vote("rest")
    done.snakemake("--configfile", *STUDY, "split.yaml", "--", *VALIDATED)
    return done


def test_labels_for_validation_are_those_above_the_coverages(split):
    for policy in ("base", "hot", "concise"):
        rows = [json.loads(line) for line in split.path(f"oracle/{policy}/validation.jsonl").read_text().splitlines()]
        assert len(rows) == n_prompts(0.5) - n_prompts(0.25)
        assert all(row["score"] is not None for row in rows)
    table = rows_of(split.path("coverage_0.25/validation.csv"))
    assert [row["policy"] for row in table] == ["base", "hot", "cot", "concise"]
    assert all(float(row["truth_se"]) > 0 for row in table)


def test_no_label_for_validation_enters_an_estimate(split):
    """Other votes on the prompts for validation change the truth and nothing that estimates are made of."""
    before = {name: split.path(name).read_bytes() for name in split.made}
    assert before == split.made
    truths = [row["truth"] for row in rows_of(split.path("coverage_0.25/validation.csv"))]
    values = rows_of(split.path("coverage_0.25/direct.csv"))
    split.vote_alike("rest", 1)
    split.snakemake("--configfile", *STUDY, "split.yaml", "--", *VALIDATED)
    assert {name: split.path(name).read_bytes() for name in split.made} == before
    assert rows_of(split.path("coverage_0.25/direct.csv")) == values
    after = [row["truth"] for row in rows_of(split.path("coverage_0.25/validation.csv"))]
    assert all(float(truth) == pytest.approx(0, abs=1e-9) for truth in after)
    assert truths != after


def test_a_coverage_that_would_take_labels_for_validation_is_refused(split):
    target = "results/coverage_0.5/direct.json"
    output = split.snakemake("-n", "--configfile", *STUDY, "split.yaml", "--", target, ok=False)
    assert "people's labels above coverage 0.25 are for validation (`oracle.truth`)" in output


def test_models_stand_beside_people(split):
    report = json.loads(split.path("labeling/oracles.json").read_text())
    assert report["models"].keys() == {"judge"}
    one = report["models"]["judge"]
    labelled = {row["item_id"] for batch in ("pilot", "main", "rest") for row in split.key(batch)}
    assert one["n_texts"] == len(labelled)
    assert one["policies"]["base"]["n_texts"] == n_prompts(0.5)
    assert one["policies"]["hot"]["beyond_the_base"]["n_prompts"] == n_prompts(0.1) + n_prompts(0.5) - n_prompts(0.25)
    assert one["mean_difference"]["ci_lower"] < one["mean_difference"]["estimate"] < one["mean_difference"]["ci_upper"]
    apart = rows_of(split.path("labeling/oracles.csv"))
    assert apart[0]["model"] == "judge"
    assert apart[0]["item_id"] in labelled


def test_people_beside_another_oracle_enter_no_estimate(split):
    """Estimates are made of the other oracle's labels; those of people are held against them."""
    votes = ["votes/pilot_*.csv", "votes/main_*.csv"]
    oracle = {"provider": "reference", "truth": "none", "votes": votes}
    (split.directory / "beside.yaml").write_text(yaml.safe_dump({"oracle": oracle}))
    study = ["--configfile", *STUDY, "beside.yaml", "--"]
    estimates = {
        job.split()[0] for job in parse_jobs(split.snakemake("-n", *study, "results/coverage_0.25/direct.json"))
    }
    assert "oracle" in estimates
    assert not {"labels", "generate", "judge"} & estimates
    split.snakemake(*study, "results/labeling/oracles.json")
    report = json.loads(split.path("labeling/oracles.json").read_text())
    assert report["models"].keys() == {"judge", "oracle"}
    one = report["models"]["oracle"]
    assert one["policies"]["base"]["n_texts"] == n_prompts(0.25)
    key = {row["item_id"]: row for batch in ("pilot", "main") for row in split.key(batch) if row["policy"] == "base"}
    graded = split.path("oracle/base/coverage_0.25.jsonl").read_text().splitlines()
    label = {row["prompt_id"]: row["score"] for row in map(json.loads, graded)}
    people = {item: sum(opinion(row["text_id"], rater) - 1 for rater in range(3)) / 12 for item, row in key.items()}
    differences = [label[row["prompt_id"]] - people[item] for item, row in key.items()]
    mean = one["policies"]["base"]["mean_difference"]["estimate"]
    assert mean == pytest.approx(sum(differences) / len(differences))
