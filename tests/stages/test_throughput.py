"""The log and the benchmark of a job: its progress and rate, all the work it did, and the items without a result."""

from __future__ import annotations

import itertools
import logging
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from arena_cje.data import schemas
from arena_cje.errors import UserError
from arena_cje.grading.grades import Grade
from arena_cje.grading.local import LikelihoodJudge
from arena_cje.grading.rubrics import load_rubric
from arena_cje.grading.rubrics.likelihood import Likelihood
from arena_cje.journal import FinishedItem, Journal, complete
from arena_cje.llama import chat
from arena_cje.llama.distribution import Sampling
from arena_cje.llama.model import open_model
from arena_cje.stages import jobs
from arena_cje.stages import local as stages_local
from workflow_run import CONFIG, ROOT, Run, write_prompts

SYSTEM = "You are a helpful assistant."
PROMPTS = [{"prompt_id": f"q{i}", "prompt": f"Say something about number {i}, please."} for i in range(6)]
TOO_LONG = {"prompt_id": "long", "prompt": "word " * 300}
ANSWER = {"token_ids": [1, 2], "status": "ok"}
COLUMNS = ["s", "h:m:s", "max_rss", "cpu_time", "items", "prompt_tokens", "response_tokens"]
COLUMNS += ["tokens_per_s", "tokens_per_cpu_s", "calls", "retries", "cost_usd"]


@pytest.fixture(scope="module")
def model(tiny_model):
    with open_model(tiny_model, n_ctx=256) as model:
        yield model


@pytest.fixture(autouse=True)
def info_log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def work(missing):
    """Each item takes a tenth of a second and has three tokens of prompt and seven of response."""
    for key in missing:
        time.sleep(0.1)
        yield FinishedItem(key, {}, 3, 7)


def without_tokens(missing):
    return (FinishedItem(key, {}) for key in missing)


def generate(model, journal, prompts, policy="base"):
    sampling = {"sampling": Sampling(), "max_tokens": 12, "draws": 1, "seed": 1, "n_slots": 4, "cache_tokens": 2048}
    return stages_local.responses(
        model, "sha", prompts, policy=policy, system_prompt=SYSTEM, journal=journal, **sampling
    )


def score(model, journal, rows, samplings, drawn_from=None):
    options = {"samplings": samplings, "drawn_from": drawn_from, "same_tokenizer": True}
    return stages_local.logprobs(model, "sha", rows, system_prompt=SYSTEM, journal=journal, **options)


def prompt_tokens(model, rows) -> int:
    return sum(len(chat.render(model, SYSTEM, row["prompt"])) for row in rows)


def response_tokens(rows) -> int:
    return sum(len(row["token_ids"]) for row in rows)


@pytest.fixture
def responses(model, tmp_path):
    with Journal(tmp_path / "drawn" / "0000.jsonl") as journal:
        return generate(model, journal, PROMPTS)


def progress_lines(messages) -> list[tuple[float, ...]]:
    """(items done, items a second, tokens a second, seconds left) of each progress line about four items."""
    form = r"(\d)/4 responses, (\S+) a second, (\S+) tokens a second, (\S+) s left"
    return [tuple(map(float, match.groups())) for line in messages if (match := re.fullmatch(form, line))]


def test_progress_lines_have_items_tokens_and_the_time_left(tmp_path, info_log):
    with Journal(tmp_path / "0000.jsonl") as journal:
        complete(journal, dict.fromkeys("abcd"), work, unit="responses", every=0)
    lines = progress_lines(info_log.messages)
    assert [n_done for n_done, *_ in lines] == [1, 2, 3, 4]
    for n_done, items_per_s, tokens_per_s, seconds_left in lines:
        assert items_per_s <= 10
        assert tokens_per_s == pytest.approx(10 * items_per_s, rel=0.1)  # printed with two digits
        assert seconds_left == pytest.approx((4 - n_done) / items_per_s, rel=0.1)


def test_progress_is_logged_at_the_end_and_before_at_the_given_interval(tmp_path, info_log):
    with Journal(tmp_path / "0000.jsonl") as journal:
        complete(journal, dict.fromkeys("abcd"), work, unit="responses", every=1000)
        assert [n_done for n_done, *_ in progress_lines(info_log.messages)] == [4]
        info_log.clear()
        complete(journal, dict.fromkeys("ABCDEFGHI"), work, unit="grades", every=0.25)
    times = [record.created for record in info_log.records if "/9 grades" in record.getMessage()]
    assert len(times) >= 3
    assert all(later - earlier > 0.24 for earlier, later in itertools.pairwise(times[:-1]))


def test_the_last_log_line_has_the_total_items_tokens_and_seconds(tmp_path, info_log):
    with Journal(tmp_path / "0000.jsonl") as journal:
        complete(journal, dict.fromkeys("ab"), work, unit="responses")
    assert info_log.messages[-1] == f"2 responses: 6 prompt and 14 response tokens in {journal.tally.seconds:.2g} s"


def test_large_numbers_have_a_space_between_thousands(tmp_path, info_log):
    with Journal(tmp_path / "0000.jsonl") as journal:
        complete(journal, {"a": 1}, lambda _: [FinishedItem("a", {}, 18_200, 1_234_567)])
    assert info_log.messages[-1].startswith("1 items: 18 200 prompt and 1 234 567 response tokens in ")


def test_log_lines_about_work_without_tokens_mention_no_tokens(tmp_path, info_log):
    with Journal(tmp_path / "0000.jsonl") as journal:
        complete(journal, dict.fromkeys("abc"), without_tokens, unit="grades")
    assert info_log.messages[0] == "3 grades: 0 in the journal, 3 to do"
    assert re.fullmatch(r"3/3 grades, [\d ]+ a second, 0 s left", info_log.messages[1])
    assert re.fullmatch(r"3 grades in \S+ s", info_log.messages[2])


def test_the_tally_counts_only_the_work_of_this_job(tmp_path, info_log):
    path = tmp_path / "0000.jsonl"
    with Journal(path) as journal:
        complete(journal, dict.fromkeys("abc"), work)
    with Journal(path) as journal:
        time.sleep(0.1)  # this pause is no part of the measured time
        began = time.monotonic()
        complete(journal, dict.fromkeys("abcde"), work)
    assert (journal.tally.items, journal.tally.prompt_tokens, journal.tally.response_tokens) == (2, 6, 14)
    assert 0.2 <= journal.tally.seconds <= time.monotonic() - began
    assert journal.tally.cpu_seconds < journal.tally.seconds
    assert "5 items: 3 in the journal, 2 to do" in info_log.messages
    with Journal(path) as journal:
        complete(journal, dict.fromkeys("abcde"), work)
    assert (journal.tally.items, journal.tally.tokens, journal.tally.seconds) == (0, 0, 0)
    assert info_log.messages[-1] == "5 items: 5 in the journal, 0 to do"


def test_generation_counts_the_tokens_of_rendered_prompts_and_of_responses(model, tmp_path, info_log):
    with Journal(tmp_path / "0000.jsonl") as journal:
        rows = generate(model, journal, [*PROMPTS, TOO_LONG])
    assert journal.tally.items == 7
    assert journal.tally.prompt_tokens == prompt_tokens(model, PROMPTS)
    assert journal.tally.response_tokens == response_tokens(rows) > 0
    assert "1 of 7 rows: too_long" in info_log.messages


def test_scoring_counts_the_tokens_of_a_pass_for_several_samplings_once(model, tmp_path, responses):
    with Journal(tmp_path / "0000.jsonl") as journal:
        score(model, journal, [*responses, TOO_LONG | ANSWER], [Sampling(), Sampling(0.8)])
    assert journal.tally.items == 2 * (len(PROMPTS) + 1)
    assert journal.tally.prompt_tokens == prompt_tokens(model, PROMPTS)
    assert journal.tally.response_tokens == response_tokens(responses)
    with Journal(tmp_path / "0000.jsonl") as journal:
        score(model, journal, responses, [Sampling(), Sampling(0.8), Sampling(1.2)])
    assert journal.tally.items == len(PROMPTS)
    assert journal.tally.response_tokens == response_tokens(responses)


def test_judging_counts_the_tokens_of_prompts_and_responses(model, tmp_path, responses, info_log):
    rubric = Likelihood(kind="likelihood", system_prompt="helpful.txt")
    long = TOO_LONG | {"draw_idx": 0, "response": "so", "finish_reason": "stop"} | ANSWER
    with Journal(tmp_path / "0000.jsonl") as journal:
        stages_local.grades(
            LikelihoodJudge(model, "sha", rubric, SYSTEM), stages_local.items([*responses, long]), journal=journal
        )
    assert journal.tally.items == 7
    assert journal.tally.prompt_tokens == prompt_tokens(model, PROMPTS)
    assert journal.tally.response_tokens == response_tokens(responses)
    assert info_log.messages[-1] == "1 of 7 rows: prompt and response do not fit the judge's context"
    assert info_log.records[-1].levelname == "WARNING"


@pytest.mark.parametrize("engine", ["generator.generate", "scorer.score"])
def test_the_common_beginning_of_all_prompts_is_passed_to_the_engine(model, tmp_path, responses, monkeypatch, engine):
    module, name = engine.split(".")
    real = getattr(getattr(stages_local, module), name)
    prefixes = []

    def spy(*args, shared, **kwargs):
        prefixes.append(shared)
        return real(*args, shared=shared, **kwargs)

    monkeypatch.setattr(getattr(stages_local, module), name, spy)
    with Journal(tmp_path / "0000.jsonl") as journal:
        again = generate(model, journal, PROMPTS)
        score(model, journal, again, [Sampling()])
    assert prefixes == [chat.shared(model, SYSTEM)]
    assert again == responses


def test_grades_without_a_score_are_logged_with_their_reason(tmp_path, info_log, responses):
    grader = SimpleNamespace(
        identity=lambda item: {"response": item.response, "id": item.prompt_id},
        grade=lambda items: [
            (key, Grade(0.5) if item.prompt_id == "q0" else Grade(None, "asleep")) for key, item in items.items()
        ],
    )
    for _ in range(2):  # once graded, once from the journal
        info_log.clear()
        with Journal(tmp_path / "0000.jsonl") as journal:
            stages_local.grades(grader, stages_local.items(responses), journal=journal)
        assert info_log.messages[-1] == "5 of 6 rows: asleep"


def test_scoring_logs_the_nucleus_boundary_and_support_of_each_sampling(model, tmp_path, info_log, responses):
    full, nucleus, greedy = Sampling(), Sampling(1.0, 0.5), Sampling(0.0)
    with Journal(tmp_path / "0000.jsonl") as journal:
        rows = score(model, journal, responses, [full, nucleus, greedy])
    for name, sampling in {"temperature 1, top_p 0.5": nucleus, "temperature 0, top_p 1": greedy}.items():
        own = [row for row in rows if (row["temperature"], row["top_p"]) == (sampling.temperature, sampling.top_p)]
        boundary = sum(row["n_boundary"] for row in own)
        outside = sum(row["logprob"] == float("-inf") for row in own)
        assert outside > 0
        assert (
            f"{name}: {boundary} tokens on the boundary of the nucleus, {outside} of 6 responses outside the support"
        ) in info_log.messages
    assert not any(line.startswith("temperature 1, top_p 1:") for line in info_log.messages)
    assert not any("rows: outside_support" in message for message in info_log.messages)  # a result, not a failure


def test_a_support_that_contains_all_responses_is_not_logged(model, tmp_path, info_log, responses):
    with Journal(tmp_path / "0000.jsonl") as journal:
        score(model, journal, responses, [Sampling(), Sampling(0.8)], drawn_from=Sampling())
    assert not [line for line in info_log.messages if "support" in line]
    assert {record.levelname for record in info_log.records} == {"INFO"}


def read_benchmark(path: Path) -> dict[str, str]:
    header, row = path.read_text().splitlines()
    assert header.split("\t") == COLUMNS
    return dict(zip(COLUMNS, row.split("\t"), strict=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model) -> Run:
    """All stages of one shard, by the workflow."""
    run = Run(tmp_path_factory.mktemp("throughput"), CONFIG | {"n_prompts": 12, "shard_size": 12})
    (run.directory / "tiny.gguf").symlink_to(tiny_model)
    (run.directory / "other.txt").write_text("Answer with other words.")
    write_prompts(run.directory / "prompts.jsonl", 12)
    run.snakemake("results/coverage_0.25/snips.json")
    return run


def test_benchmarks_have_the_items_tokens_rate_and_memory_of_each_job(run):
    folder = run.directory / "logs" / "benchmarks"
    n_tokens = response_tokens(schemas.RESPONSES.read(run.path("responses/base.jsonl")))
    for name, items in {"generate/base": 12, "score/smollm2-helpful": 24}.items():
        row = read_benchmark(folder / name / "0000.tsv")
        assert (int(row["items"]), int(row["response_tokens"])) == (items, n_tokens)
        tokens = int(row["prompt_tokens"]) + n_tokens
        # The work takes a part of the time of the process, so its rate is above that of the whole process.
        assert float(row["tokens_per_s"]) > tokens / float(row["s"])
        assert float(row["tokens_per_cpu_s"]) > tokens / float(row["cpu_time"])
        assert 20 < float(row["max_rss"]) < 2000
        hours, minutes, seconds = map(int, row["h:m:s"].split(":"))
        assert 3600 * hours + 60 * minutes + seconds == int(float(row["s"]))
    oracle = read_benchmark(folder / "oracle/base/coverage_0.25.tsv")
    n_labels = len(run.journal_keys("oracle"))
    assert (oracle["items"], oracle["response_tokens"], oracle["tokens_per_s"]) == (str(n_labels), "0", "NA")


def test_a_judge_reuses_the_log_probabilities_of_its_scoring_context(run, tiny_model):
    """The base's scoring context is the judge's, so its log probabilities are the grades, the same to the last bit."""
    row = read_benchmark(run.directory / "logs/benchmarks/judge/base/0000.tsv")
    assert (row["items"], row["prompt_tokens"], row["response_tokens"]) == ("12", "0", "0")
    rubric = load_rubric(ROOT / "resources/judges/likelihood.yaml")
    prompt = (ROOT / "resources/policies" / rubric.system_prompt).read_text().strip()
    items = {
        item.prompt_id: item for item in stages_local.items(schemas.RESPONSES.read(run.path("responses/base.jsonl")))
    }
    with open_model(tiny_model, n_ctx=512) as model:
        grade_of = dict(LikelihoodJudge(model, "any", rubric, prompt).grade(items))
    score_of = {row["prompt_id"]: row["score"] for row in schemas.GRADES.read(run.path("judge/base.jsonl"))}
    assert score_of == {prompt_id: grade.score for prompt_id, grade in grade_of.items()}


def test_the_log_of_a_job_has_its_totals_and_not_its_benchmark(run):
    log = (run.directory / "logs/generate/base/0000.log").read_text()
    assert re.search(r"INFO 12 responses: [\d ]+ prompt and \d+ response tokens in ", log)
    assert "tokens_per_s" not in log


def test_the_benchmark_of_a_job_with_a_complete_journal_has_zero_items(run):
    run.snakemake("--forcerun", "generate", "--", "results/responses/base/0000.jsonl")
    row = read_benchmark(run.directory / "logs/benchmarks/generate/base/0000.tsv")
    assert [row[name] for name in COLUMNS[4:]] == ["0", "0", "0"] + ["NA"] * 5
    assert float(row["s"]) > 0


class NamedList(list):
    """A list whose members also have names, like Snakemake's lists."""

    def __init__(self, **members: str):
        super().__init__(members.values())
        self.__dict__ |= members


@pytest.fixture
def snakemake(tmp_path, monkeypatch) -> SimpleNamespace:
    """The `snakemake` object of a script, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log = NamedList(text="job.log", benchmark="job.tsv")
    config = {"fresh": False}
    return SimpleNamespace(
        rule="score", wildcards=NamedList(shard="0000"), input=[], output=[], params={}, config=config, log=log
    )


def test_a_successful_job_leaves_a_benchmark(snakemake):
    with jobs.job(snakemake), jobs.journal(snakemake, "score/base") as journal:
        complete(journal, {"a": 1}, work)
    assert read_benchmark(Path("job.tsv"))["items"] == "1"


def test_a_failed_job_leaves_a_log_and_no_benchmark(snakemake):
    with pytest.raises(SystemExit), jobs.job(snakemake), jobs.journal(snakemake, "score/base") as journal:
        complete(journal, {"a": 1}, work)
        raise UserError("the disk is full")
    assert Path("job.log").read_text().endswith("ERROR the disk is full\n")
    assert not Path("job.tsv").exists()


def test_memory_is_that_of_the_job_and_not_of_its_parent(snakemake):
    """The memory of a large parent must not count: on Linux getrusage passes it on to the processes it starts."""
    memory = bytearray(b"x" * 400_000_000)
    script = textwrap.dedent(
        """
        from types import SimpleNamespace as Some
        from arena_cje.stages import jobs
        job = Some(wildcards=Some(shard="0000"), config={"fresh": False}, log=Some(benchmark="job.tsv"))
        with jobs.journal(job, "generate/base"):
            pass
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert float(read_benchmark(Path("job.tsv"))["max_rss"]) < len(memory) / 2**20 / 2
