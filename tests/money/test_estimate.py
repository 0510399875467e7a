"""Costs before and after the calls: an unknown price is neither zero nor another model's price, the estimate contains the cost
of a run under any tokenizer, and calls that were made narrow the forecast until it equals the cost."""

from __future__ import annotations

import json
import math
import random
import socket
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arena_cje.calls.request import Reply, Request, Usage
from arena_cje.config.records import Config
from arena_cje.config.records.models import Price
from arena_cje.data.coverage import has_label
from arena_cje.errors import UserError
from arena_cje.grading.rubrics import load_rubric
from arena_cje.hosted import template
from arena_cje.hosted import writer as hosted_writer
from arena_cje.money import account as money_account
from arena_cje.money import estimate
from arena_cje.money.estimate import Range, Spending, Texts
from arena_cje.money.prices import Prices
from arena_cje.money.unit_prices import unit_prices
from arena_cje.report import dashboard_data
from arena_cje.stages import hosted as stages_hosted
from arena_cje.stages import local as stages_local
from workflow_run import ROOT, Run, write_prompts

RESOURCES = ROOT / "resources"
HOSTED = {
    "provider": "there",
    "model": "toy",
    "template": "chatml.yaml",
    "system_prompt": "helpful.txt",
    "max_tokens": 40,
}
GRADER = {"provider": "talks", "model": "grader", "rubric": "helpfulness.yaml"}


def configuration(**changes) -> Config:
    """Two policies with log probabilities from an API, one that chats, one with a local model; hosted judge and oracle."""
    return Config.model_validate(
        {
            "n_prompts": 24,
            "draws_per_prompt": 2,
            "providers": {
                "there": {"api": "fireworks", "base_url": "http://127.0.0.1:1"},
                "talks": {"api": "openai", "base_url": "http://127.0.0.1:1/v1"},
            },
            "models": {"local": {"path": "tiny.gguf"}},
            "policies": {
                "base": HOSTED,
                "terse": {**HOSTED, "system_prompt": "concise.txt"},
                "chat": {"provider": "talks", "model": "toy", "max_tokens": 40},
                "here": {"model": "local", "max_tokens": 40},
            },
            "judge": GRADER,
            "oracle": {**GRADER, "model": "dear", "target_labels": 0.25},
            "coverages": ["0.25", "0.5"],
            "estimators": ["dr-cpo"],
            "prices": {
                "toy": {"input": 1.0, "output": 2.0},
                "grader": {"input": 0.5, "output": 3.0},
                "dear": {"input": 10.0, "output": 30.0},
            },
            **changes,
        }
    )


def texts_of(config: Config) -> Texts:
    rng = random.Random(3)
    prompts = [f"Tell me about number {k}, please." + " And why?" * rng.randrange(12) for k in range(config.n_prompts)]
    system_prompts = {
        name: (RESOURCES / "policies" / name).read_text().strip() for name in ("helpful.txt", "concise.txt")
    }
    rubric = load_rubric(RESOURCES / "judges" / "helpfulness.yaml").model_copy(update={"system_prompt": "strict.txt"})
    return Texts(
        prompts,
        {**system_prompts, "strict.txt": "Be a strict judge. " * 60},
        {"chatml.yaml": template.load(RESOURCES / "templates" / "chatml.yaml")},
        {"helpfulness.yaml": rubric},
    )


class FakeApi:
    """An API with tokens of `width` characters and replies of 1 to `max_tokens` tokens. `rows` is its ledger."""

    def __init__(self, config: Config, width: float, max_tokens: int):
        self.config, self.width, self.max_tokens = config, width, max_tokens
        self.rows: list[dict] = []
        self.keys: set[str] = set()

    def n_tokens(self, text: str) -> int:
        return math.ceil(len(text) / self.width)

    def ask(self, endpoint, stage: str, policy: str):
        def ask(requests: list[Request]) -> list[Reply]:
            return [self.reply(endpoint, stage, policy, request) for request in requests]

        return ask

    def reply(self, endpoint, stage: str, policy: str, request: Request) -> Reply:
        body = request.body
        text = body["prompt"] if request.kind == "completion" else "".join(one["content"] for one in body["messages"])
        limit = min(body["max_tokens"], self.max_tokens)
        rng = random.Random(request.key(endpoint))
        n_generated = limit if self.max_tokens > limit else rng.randint(min(1, limit), limit)
        usage = Usage(self.n_tokens(text), n_generated)
        if (
            key := f"{stage}/{policy}/{request.key(endpoint)}"
        ) not in self.keys:  # a stage and a policy have one journal
            self.keys.add(key)
            usd = Prices(self.config.prices).usd(endpoint.api, body["model"], usage.prompt_tokens, n_generated)
            row = {"time": 0.0, "stage": stage, "policy": policy, "provider": endpoint.provider, "model": body["model"]}
            self.rows.append({**row, **vars(usage), "usd": usd, "estimated": False})
        response = ("word " * 500)[: int(n_generated * self.width)]
        if body.get("echo"):  # any tokenization will do, such as one token a character
            return Reply(
                text, "length", tokens=list(text), token_logprobs=[None] + [-0.5] * (len(text) - 1), usage=usage
            )
        return Reply(response, "length" if n_generated == body["max_tokens"] else "stop", usage=usage)


def run(config: Config, texts: Texts, width: float, max_tokens: int) -> FakeApi:
    """Send all requests of the workflow to a fake API, through the workflow's own functions."""
    api = FakeApi(config, width, max_tokens)
    prompts = [{"prompt_id": f"q{k}", "prompt": prompt} for k, prompt in enumerate(texts.prompts)]
    for name, policy in config.policies.items():
        draws = config.draws(name)
        rows = [row | {"draw_idx": k, "response": "so it is", "status": "ok"} for row in prompts for k in range(draws)]
        if policy.hosted:
            writer = writer_of(config, name, texts)
            ask = api.ask(writer.endpoint, "generate", name)
            rows = stages_hosted.responses(ask, writer, prompts, policy=name, draws=draws, seed=1)
        if name == "base":
            base_rows = rows
        grade(api, config, texts, "judge", config.judge, name, rows)
        coverage = {"base": 0.5}.get(name, 0.25)
        grade(
            api,
            config,
            texts,
            "oracle",
            config.oracle,
            name,
            stages_local.labelled(rows, coverage=coverage, start=0, draws=draws),
        )
    for context in ("base", "terse"):
        writer = writer_of(config, context, texts)
        name = config.policies[context].context
        stages_hosted.logprobs(api.ask(writer.endpoint, "score", name), writer, base_rows, samplings=[{}])
    return api


def writer_of(config: Config, name: str, texts: Texts) -> hosted_writer.Writer:
    policy = config.policies[name]
    system_prompt = texts.system_prompts[policy.system_prompt] if policy.system_prompt else None
    writer = hosted_writer.writer(config, policy, system_prompt=system_prompt, template=None)
    return replace(writer, template=texts.templates[policy.template] if policy.template else None)


def grade(api: FakeApi, config: Config, texts: Texts, stage: str, block, policy: str, rows) -> None:
    endpoint = config.endpoint(block)
    for row in rows:
        rubric = texts.rubrics[block.rubric]
        question = rubric.question(row["prompt"], row["response"])
        messages = hosted_writer.messages(texts.system_prompts[rubric.system_prompt], question)
        body = hosted_writer.chat_body(endpoint, model=block.model, messages=messages, max_tokens=1, temperature=0.0)
        api.ask(endpoint, stage, policy)([Request("chat", body)])


def contains(bounds: Range, value: float) -> bool:
    return bounds.low <= value * (1 + 1e-9) and value <= bounds.high * (1 + 1e-9)


# Prices


@pytest.mark.parametrize("model", ["gpt-4.1-nano", "gpt-4.1-nano-2025-04-14"])
def test_a_dated_version_has_the_price_of_its_model(model):
    assert Prices().usd("openai", model, 1_000_000, 0) == pytest.approx(0.10)
    assert Prices().usd("openai", model, 0, 1_000_000) == pytest.approx(0.40)


def test_an_unknown_price_is_none_and_never_that_of_a_model_with_a_similar_name():
    from genai_prices.data import providers

    prices = Prices()
    for provider in providers:
        if provider.id in ("openai", "fireworks"):
            for model in provider.models:
                assert prices.usd(provider.id, f"{model.id}-of-mine", 100, 100) is None, model.id
    assert prices.usd("openai", "claude-sonnet-4-5-of-mine", 1, 1, base_url="https://api.anthropic.com/v1") is None
    assert prices.usd("openai", "claude-sonnet-4-5-20250929", 1, 1, base_url="https://api.anthropic.com/v1") > 0
    assert prices.usd("fireworks", "accounts/fireworks/models/llama-v3p3-70b-instruct", 1, 1) is None
    assert prices.usd("openai", "text-embedding-3-small", 1, 1) is None  # it has no price for completion tokens


@pytest.mark.parametrize("address", ["http://127.0.0.1:8000/v1", "https://api.openai.com.example.org/v1"])
def test_a_self_hosted_server_has_no_price_whatever_the_name_of_its_model(address):
    assert Prices().usd("openai", "gpt-4.1-nano", 100, 100, base_url=address) is None
    assert Prices().usd("openai", "gpt-4.1-nano", 100, 100, base_url="https://api.openai.com/v1") > 0


def test_prices_of_the_configuration_come_first_and_need_the_exact_name():
    own = Prices({"gpt-4.1-nano": Price(input=7.0, output=0.0)})
    assert own.usd("openai", "gpt-4.1-nano", 1_000_000, 1_000_000) == 7.0
    assert own.usd("openai", "gpt-4.1-nano", 1_000_000, 0, base_url="http://127.0.0.1:1") == 7.0
    assert own.usd("openai", "gpt-4.1-nano-2025-04-14", 1_000_000, 0) == pytest.approx(0.10)


def test_prices_are_looked_up_without_a_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert Prices().usd("openai", "gpt-5-2025-08-07", 1000, 1000) == pytest.approx(0.01125)
    assert Prices().usd("openai", "gpt-unheard-of", 1000, 1000) is None


def test_modules_that_rules_import_load_no_client_and_no_price_table():
    code = (
        "import sys; from arena_cje.money import account, estimate, prices; from arena_cje.stages import model_check\n"
    )
    code += (
        "sys.exit(any(name in sys.modules for name in ('genai_prices', 'openai', 'fireworks', 'polars', 'llama_cpp')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# Estimate


LONG = {"max_tokens": 300}


@settings(max_examples=8, deadline=None)
@given(width=st.floats(2.0, 8.0), max_tokens=st.integers(1, 300))
@example(width=2.0, max_tokens=1)  # all draws of a prompt are equal, so that the judge has one request for each prompt
@example(width=2.0, max_tokens=10_000)  # all replies are cut at their limit
def test_the_estimate_contains_the_cost_of_a_run(width, max_tokens):
    policies = {name: policy.model_dump() | LONG for name, policy in configuration().policies.items()}
    config = configuration(draws_per_prompt=4, policies=policies)
    texts = texts_of(config)
    api = run(config, texts, width, max_tokens)
    spending = money_account.spending_by_key(api.rows)
    lines = {
        line.key: line for line in estimate.estimate_costs(estimate.plan_calls(config, texts), Prices(config.prices))
    }
    assert lines.keys() == spending.keys()  # the estimate has the stages that cost money, and no others
    for key, calls in spending.items():
        line = lines[key]
        assert contains(line.calls, calls.calls), key
        assert contains(line.prompt_tokens, sum(calls.prompt_tokens)), key
        assert contains(line.completion_tokens, sum(calls.completion_tokens)), key
        assert contains(line.usd, calls.usd), key
    assert contains(estimate.total_line(lines.values()).usd, sum(row["usd"] for row in api.rows))


def test_the_best_guess_is_close_for_a_tokenizer_of_four_characters():
    config = configuration()
    texts = texts_of(config)
    spending = money_account.spending_by_key(run(config, texts, 4.0, 40).rows)
    for line in estimate.estimate_costs(estimate.plan_calls(config, texts), Prices(config.prices)):
        if (
            line.stage in ("judge", "oracle") and line.policy != "here"
        ):  # most of the text of their requests is known beforehand
            calls = spending[line.key].prompt_tokens
            a_call = line.prompt_tokens.middle / line.calls.middle
            assert a_call == pytest.approx(sum(calls) / len(calls), rel=0.5), line.key


def test_calls_without_cost_are_not_planned():
    config = configuration(oracle={"provider": "reference"})
    plans = estimate.plan_calls(config, texts_of(config))
    assert {plan.stage for plan in plans} == {"generate", "score", "judge"}
    assert "here" not in {plan.policy for plan in plans if plan.stage == "generate"}
    assert estimate.plan_calls(configuration(logged_data="some.jsonl"), texts_of(config)) == []


def test_the_oracle_is_counted_once_for_nested_coverages():
    config = configuration(coverages=["0.1", "0.25", "0.5"])
    texts = texts_of(config)
    rows = {plan.policy: plan.rows for plan in estimate.plan_calls(config, texts) if plan.stage == "oracle"}

    def n_labels(coverage, draws):
        return sum(has_label(k, coverage, draw=draw, draws=draws) for k in range(24) for draw in range(draws))

    assert rows == {"base": n_labels(0.5, 1), **dict.fromkeys(("terse", "chat", "here"), n_labels(0.25, 2))}
    truth = configuration(oracle={**GRADER, "truth": "all"})
    assert {plan.rows for plan in estimate.plan_calls(truth, texts) if plan.stage == "oracle"} == {24, 48}
    few = configuration(oracle=GRADER)  # neither truth nor labels of the targets, so no calls for the targets
    assert {plan.policy for plan in estimate.plan_calls(few, texts) if plan.stage == "oracle"} == {"base"}


def test_responses_of_targets_are_not_generated_where_nothing_uses_them():
    config = configuration(estimators=["ips"], oracle=GRADER)
    assert {
        plan.policy for plan in estimate.plan_calls(config, texts_of(config)) if plan.stage in ("generate", "judge")
    } == {"base"}
    # This design of labels needs the judge scores of the targets.
    by_score = configuration(estimators=["ips"], oracle={**GRADER, "design": "by_score"})
    plans = estimate.plan_calls(by_score, texts_of(by_score))
    assert {plan.policy for plan in plans if plan.stage == "judge"} == set(by_score.policies)
    assert {plan.policy for plan in plans if plan.stage == "oracle"} == {"base"}


def test_an_ensemble_makes_no_calls_beside_those_of_its_member_judges():
    judges = {
        "second": {**GRADER, "model": "other"},
        "both": {**GRADER, "ensemble": ["second", "third"]},
        "third": GRADER,
    }
    config = configuration(judges=judges, judge={"ensemble": ["second", "third"]})
    stages = {plan.stage for plan in estimate.plan_calls(config, texts_of(config))}
    assert stages == {"generate", "score", "oracle", "judges/second", "judges/third"}


def test_a_model_without_a_price_is_named_and_makes_the_total_a_lower_bound():
    config = configuration(prices={"toy": {"input": 1.0, "output": 2.0}, "dear": {"input": 1.0, "output": 1.0}})
    lines = estimate.estimate_costs(estimate.plan_calls(config, texts_of(config)), Prices(config.prices))
    assert estimate.models_without_price(lines) == ["grader"]
    assert {line.usd for line in lines if line.model == "grader"} == {None}
    known = [line for line in lines if line.usd is not None]
    assert estimate.total_line(lines).usd == estimate.total_line(known).usd != Range(0, 0, 0)
    account = money_account.Account(lines, lines, {}, None)
    assert "The price of grader is unknown, so the total is a lower bound" in account.table()
    assert account.document()["total"]["estimate"]["usd_at_least"] is True
    assert "at least" in account.last_line()


# Spending


def test_the_forecast_narrows_with_each_call_until_it_equals_the_cost():
    config = configuration()
    texts = texts_of(config)
    prices = Prices(config.prices)
    rows = run(config, texts, 5.0, 17).rows
    final = {key: spending.usd for key, spending in money_account.spending_by_key(rows).items()}
    key = ("generate", "chat", "talks", "toy")
    chat_rows = [row for row in rows if (row["stage"], row["policy"]) == key[:2]]
    plans = [plan for plan in estimate.plan_calls(config, texts) if plan.key == key]
    widths = []
    for n in (0, 12, 24, 36, 48):
        (line,) = estimate.forecast_costs(plans, prices, money_account.spending_by_key(chat_rows[:n]), {key[:2]: n})
        assert contains(line.usd, final[key])
        usd_so_far = sum(row["usd"] for row in chat_rows[:n])
        assert line.usd.low >= usd_so_far
        widths.append(line.usd.high - line.usd.low)
    assert widths == sorted(widths, reverse=True) and widths[0] > 3 * widths[3] > 0
    assert widths[-1] == pytest.approx(0)
    # The file of the shard does not exist yet.
    (open_line,) = estimate.forecast_costs(plans, prices, money_account.spending_by_key(chat_rows[:24]), {})
    open_calls = open_line.calls
    whole = estimate.forecast_costs(plans, prices, {}, {})[0].calls
    assert contains(open_calls, 48)
    assert open_calls.high == pytest.approx(whole.high) and open_calls.middle == pytest.approx(48)
    assert line.calls == Range(48, 48, 48)


def test_a_forecast_from_a_part_of_the_calls_contains_the_total():
    config = configuration()
    (plan,) = (plan for plan in estimate.plan_calls(config, texts_of(config)) if plan.key[:2] == ("generate", "chat"))
    plan = replace(plan, calls=estimate.exact(1), rows=90)  # so that the tokens alone are predicted
    rng = random.Random(5)
    for _ in range(300):
        sizes = [min(40, 1 + int(rng.expovariate(0.1))) for _ in range(90)]
        part = Spending((20,) * 30, tuple(sizes[:30]), 0.0)
        (line,) = estimate.forecast_costs([plan], Prices(), {plan.key: part}, {})
        assert contains(line.completion_tokens, sum(sizes))
        assert line.completion_tokens.high < 30 * 40 + 60 * 40


def test_rows_of_another_model_do_not_count_as_finished():
    config = configuration()
    plans = [plan for plan in estimate.plan_calls(config, texts_of(config)) if plan.stage == "judge"]
    finished_rows = {("judge", name): 48 for name in config.policies}
    other = {("judge", "base", "talks", "former"): Spending((5,) * 48, (1,) * 48, 1.0)}
    prices = Prices(config.prices)
    assert estimate.forecast_costs(plans, prices, other, finished_rows) == estimate.estimate_costs(plans, prices)


def test_existing_responses_replace_the_assumed_length_of_responses():
    config = configuration()
    texts = texts_of(config)
    without, measured = (
        next(plan for plan in estimate.plan_calls(config, case) if plan.key[:2] == ("judge", "base"))
        for case in (texts, replace(texts, responses={"base": ["x" * 400] * 24}))
    )
    assert without.prompt_tokens.low < measured.prompt_tokens.low < measured.prompt_tokens.high
    assert measured.prompt_tokens.middle - without.prompt_tokens.middle == pytest.approx(400 / 4 - 40)


def test_rows_are_counted_in_the_shards_of_the_largest_coverage(tmp_path):
    for name, n in (
        ("responses/base", 5),
        ("oracle/base/coverage_0.1", 1),
        ("oracle/base/coverage_0.5", 3),
        ("judge/base", 4),
    ):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "0000.jsonl").write_text("{}\n" * n)
        folder.with_suffix(folder.suffix + ".jsonl").write_text("{}\n" * n)  # the gathered table has the same rows
    finished_rows = money_account.count_finished_rows(tmp_path, configuration())
    assert {key: n for key, n in finished_rows.items() if n} == {
        ("generate", "base"): 5,
        ("oracle", "base"): 3,
        ("judge", "base"): 4,
    }


def row(**changes) -> dict:
    default = {"time": 1.0, "stage": "judge", "policy": "base", "provider": "p", "model": "m", "prompt_tokens": 10}
    return {**default, "completion_tokens": 2, "usd": 0.5, "estimated": False, **changes}


def test_a_damaged_ledger_is_read_without_its_damaged_lines(tmp_path, caplog):
    ledger = tmp_path / "spending.jsonl"
    assert money_account.read_ledger(ledger) == []
    rows = [row(), row(usd=None, estimated=True), row(stage="generate")]
    lines = [json.dumps(one) for one in rows]
    ledger.write_text("\n".join([*lines[:2], lines[0][:30], "{}", "null", "[1]", "", *lines[2:]]) + "\n")
    spending = money_account.spending_by_key(money_account.read_ledger(ledger))
    assert spending["judge", "base", "p", "m"] == Spending((10, 10), (2, 2), 0.5, n_without_price=1, n_estimated=1)
    assert spending["generate", "base", "p", "m"].calls == 1
    assert "4 line(s) cannot be read" in caplog.text


def test_a_damaged_file_of_responses_is_named(tmp_path):
    (tmp_path / "responses" / "base").mkdir(parents=True)
    (tmp_path / "responses" / "base" / "0000.jsonl").write_text('{"response": "yes"}\n{"respo')
    with pytest.raises(UserError, match=r"responses/base/0000.jsonl:2: "):
        money_account.read_responses(tmp_path, SimpleNamespace(policies={"base": None}))


def test_an_unknown_cost_is_a_question_mark_and_not_zero():
    spending = money_account.spending_by_key([row(usd=None), row(policy="other")])
    account = money_account.Account([], [], spending, 2.0)
    unknown, known, *_ = account.document()["actual"]
    assert (unknown["usd"], unknown["calls_without_price"], known["usd"]) == (None, 1, 0.5)
    table = account.table().splitlines()
    assert table[2].split()[-1] == "?" and "$0.5" in table[3]
    assert "1 of 2 calls have no known price" in account.table()
    assert "at least $0.5" in account.last_line()


def test_the_dashboard_shows_spending_by_stage_and_calls_without_price():
    calls = [row(stage="judge"), row(policy="other"), row(usd=None, model="n"), row(stage="oracle", usd=2.0)]
    table = dashboard_data.spending(calls)
    cells = [[cell.text for cell in cells] for cells in table.rows]
    assert cells == [
        ["judge", "m", "2", "20", "4", "1.0000"],
        ["judge", "n", "1", "10", "2", dashboard_data.MISSING],
        ["oracle", "m", "1", "10", "2", "2.0000"],
    ]
    assert "1 call has no known price and is in no sum" in table.note
    assert dashboard_data.spending([]).rows == ()


def test_without_an_api_there_are_no_costs():
    assert money_account.Account([], [], {}, 5.0).table() == "No API is used, so there are no costs of calls."


@pytest.mark.parametrize(("budget", "comparison"), [(1e6, "covers the whole run"), (1e-6, "is less than $")])
def test_the_budget_is_compared_with_the_upper_bound(budget, comparison):
    config = configuration(budget_usd=budget)
    lines = estimate.estimate_costs(estimate.plan_calls(config, texts_of(config)), Prices(config.prices))
    assert comparison in money_account.Account(lines, lines, {}, budget).table()


# The command


@pytest.fixture
def study(tmp_path) -> Run:
    write_prompts(tmp_path / "prompts.jsonl", 24)
    return Run(tmp_path, {"n_prompts": 24, "prompts": {"source": "prompts.jsonl"}})


def test_the_cost_command_writes_only_its_table_and_other_runs_end_with_a_line(study):
    ledger = study.path("journal/spending.jsonl")
    ledger.parent.mkdir(parents=True)
    ledger.write_text("".join(json.dumps(row(policy=name)) + "\n" for name in ("base", "clone")))
    output = study.snakemake("cost")
    assert "not in this configuration" in output and "$1.00" in output
    assert "calls to APIs so far" not in output
    files = {path.name for path in study.path("").rglob("*") if path.is_file()}
    assert files == {"spending.jsonl", "cost.json"}
    document = json.loads(study.path("cost.json").read_text())
    assert document["total"]["actual"]["calls"] == 2 and document["total"]["actual"]["usd"] == 1.0
    assert document["estimate"] == []
    assert "2 calls to APIs so far cost $1.00. `snakemake cost`" in study.snakemake("results/prompts/0000.jsonl")


def test_the_production_study_is_estimated_without_a_key(tmp_path, monkeypatch):
    for name in ("FIREWORKS_API_KEY", "OPENAI_API_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(
        "HF_HOME", str(tmp_path / "hub")
    )  # without a token of the hub, prompts of typical length are assumed
    study = yaml.safe_load((ROOT / "config" / "experiments" / "arena-production.yaml").read_text())
    run = Run(tmp_path, study)
    assert "covers the whole run" in run.snakemake("cost")
    document = json.loads(run.path("cost.json").read_text())
    assert document["unknown_prices"] == [] and document["total"]["actual"]["calls"] == 0
    calls = {(line["stage"], line["policy"]): line["calls"][1] for line in document["estimate"]}
    assert calls["generate", "base"] == study["n_prompts"]
    assert calls["generate", "premium"] == study["n_prompts"] * study["policies"]["premium"]["draws_per_prompt"]
    low, middle, high = document["total"]["estimate"]["usd"]
    assert 0 < low < middle < high < study["budget_usd"]


def test_the_account_reads_the_files_of_a_run(tmp_path):
    """The files of the configuration and a results folder, as for the command."""
    write_prompts(tmp_path / "prompts.jsonl", 24)
    config = configuration()
    empty = money_account.account(config, str(tmp_path / "prompts.jsonl"), str(RESOURCES), results=tmp_path / "results")
    assert empty.estimate == empty.expected and not empty.spending
    folder = tmp_path / "results" / "responses" / "base"
    folder.mkdir(parents=True)
    rows = [{"response": "y" * 20_000} for _ in range(24)]
    (folder / "0000.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    ledger = tmp_path / "results" / "journal" / "spending.jsonl"
    ledger.parent.mkdir()
    call = row(stage="generate", policy="base", provider="there", model="toy", usd=0.001)
    ledger.write_text("".join(json.dumps(call) + "\n" for _ in range(24)))
    full = money_account.account(config, str(tmp_path / "prompts.jsonl"), str(RESOURCES), results=tmp_path / "results")
    assert full.estimate == empty.estimate  # it uses the configuration alone
    line = next(line for line in full.expected if line.key[:2] == ("generate", "base"))
    assert line.calls == Range(24, 24, 24) and line.usd.high == pytest.approx(0.024)
    before, after = (
        next(line for line in lines if line.key[:2] == ("judge", "base")).prompt_tokens
        for lines in (full.estimate, full.expected)
    )
    assert after.middle > before.high  # the responses are far longer than `max_tokens` allows


def test_a_label_and_a_response_have_the_price_of_a_row_of_the_estimate(tmp_path):
    config = configuration()
    write_prompts(pool := tmp_path / "prompts.jsonl", config.n_prompts)
    prices = unit_prices(config, str(pool), str(RESOURCES))
    texts = estimate.load_texts(config, pool, RESOURCES)
    plans = estimate.plan_calls(config, texts)
    lines = estimate.estimate_costs(plans, Prices(config.prices))
    oracle = [(line.usd.middle, plan.rows) for line, plan in zip(lines, plans, strict=True) if plan.stage == "oracle"]
    assert prices["label"] == pytest.approx(sum(usd for usd, _ in oracle) / sum(rows for _, rows in oracle))
    assert 0 < prices["response"] < prices["label"]
    unknown = unit_prices(configuration(prices={"toy": {"input": 1.0, "output": 2.0}}), str(pool), str(RESOURCES))
    assert unknown == {"label": None, "response": None}


def test_labels_by_people_have_the_price_of_their_votes_and_local_models_none():
    local = {"policies": {"base": {"model": "m"}, "other": {"model": "m"}}}
    people = Config.model_validate(
        local
        | {"oracle": {"provider": "human"}, "labeling": {"usd_per_vote": 0.1, "votes_per_item": 3, "duplicates": 0.1}}
    )
    assert unit_prices(people, None, str(RESOURCES)) == {"label": pytest.approx(0.33), "response": None}
    assert unit_prices(Config.model_validate(local), None, str(RESOURCES)) == {"label": None, "response": None}
