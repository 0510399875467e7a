"""A judge that chooses one of several answers: its distribution comes from the model's logits, whatever other items there are."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import tiny_gguf
from arena_cje.data import schemas
from arena_cje.errors import UserError
from arena_cje.estimation.records import Judged
from arena_cje.grading import grades, quoting
from arena_cje.grading import local as grading_local
from arena_cje.grading.grades import Grade, Item
from arena_cje.grading.local import ChoiceJudge
from arena_cje.grading.rubrics import NAMES, load_rubric
from arena_cje.grading.rubrics.choices import Choices
from arena_cje.journal import Journal
from arena_cje.llama import chat
from arena_cje.llama.model import Context, open_model
from arena_cje.provenance import digest
from arena_cje.stages import assemble
from arena_cje.stages import local as stages_local
from workflow_run import CONFIG, ROOT, Run, write_prompts

SHIPPED = ROOT / "resources" / "judges" / "helpfulness.yaml"
TEMPLATE = "You see a prompt and what was answered to it; say how good that is.\n{prompt}\n{response}\nFrom a to c?"
RAW = {"kind": "choices", "template": TEMPLATE, "choices": {"a": 0.0, "b": 0.5, "c": 1.0}}
ITEMS = {f"k{i}": Item(f"q{i}", 0, f"Say {i}, please. " * (1 + 3 * i % 7), "so be it " * i, (1, 2)) for i in range(6)}


def judge(model, **changes) -> ChoiceJudge:
    raw = RAW | changes
    return ChoiceJudge.of(model, "sha", Choices.model_validate(raw), raw.get("system_prompt"))


def logits_of(model, ids) -> np.ndarray:
    """The logits after all of `ids`, by one pass with all rows, without blocks and shared prefixes."""
    with Context(model, n_tokens=len(ids), n_batch=len(ids), n_outputs=len(ids)) as context:
        return context.decode(ids, range(len(ids)), 0, len(ids))[-1].astype(np.float64)


def question(model, item, *, template=TEMPLATE, opening="") -> tuple[int, ...]:
    text = quoting.fill(template, item.prompt, item.response)
    return (*chat.render(model, None, text), *(chat.respond(model, None, "x", opening) if opening else ()))


def expected_masses(logits, tokens) -> tuple[np.ndarray, float]:
    """(masses of the tokens, their total probability), by the formula."""
    log_total = np.logaddexp.reduce(logits)
    chosen = logits[list(tokens)]
    return np.exp(chosen - np.logaddexp.reduce(chosen)), math.exp(np.logaddexp.reduce(chosen) - log_total)


def test_the_distribution_is_the_softmax_over_the_answers_logits(model):
    tokens = [chat.respond(model, None, "x", text)[0] for text in "abc"]
    graded = dict(judge(model).grade(ITEMS))
    for key, item in ITEMS.items():
        masses, total = expected_masses(logits_of(model, question(model, item)), tokens)
        points, shares = zip(*graded[key].distribution, strict=True)
        assert points == (0.0, 0.5, 1.0)
        # A pass in other blocks has other last digits, because the cache has 16-bit numbers.
        assert shares == pytest.approx(masses, abs=1e-2)
        assert graded[key].choice_mass == pytest.approx(total, rel=5e-2)


def test_without_a_shared_prefix_the_distribution_equals_that_of_one_plain_pass(model, monkeypatch):
    monkeypatch.setattr(model, "can_rewind", False)
    tokens = [chat.respond(model, None, "x", text)[0] for text in "abc"]
    graded = dict(judge(model).grade(ITEMS))
    for key, item in ITEMS.items():
        masses, total = expected_masses(logits_of(model, question(model, item)), tokens)
        assert [share for _, share in graded[key].distribution] == pytest.approx(masses, rel=1e-12)
        assert graded[key].choice_mass == pytest.approx(total, rel=1e-5)  # 32-bit sums over the vocabulary


def test_masses_sum_to_one_and_the_score_is_the_mean(model):
    for _, grade in judge(model).grade(ITEMS):
        points, masses = map(np.array, zip(*grade.distribution, strict=True))
        assert masses.sum() == pytest.approx(1, abs=1e-12)
        assert (masses > 0).all()
        assert grade.score == pytest.approx(points @ masses, abs=1e-12)
        record = Judged.of(np.array([grade.score]), points=points[None], mass=masses[None])
        assert record.score[0] == pytest.approx(grade.score, abs=1e-12)
        assert 0 < grade.choice_mass < 1


def test_a_grade_does_not_depend_on_the_other_items_or_their_order(model):
    one = judge(model)
    together = dict(one.grade(ITEMS))
    assert dict(one.grade(dict(reversed(ITEMS.items())))) == together
    assert {key: grade for name in ITEMS for key, grade in one.grade({name: ITEMS[name]})} == together
    assert len({grade.score for grade in together.values()}) == len(ITEMS)


def test_a_grade_does_not_depend_on_the_order_of_the_answers_in_the_rubric(model):
    reversed_judge = judge(model, choices=dict(reversed(RAW["choices"].items())))
    assert dict(reversed_judge.grade(ITEMS)) == dict(judge(model).grade(ITEMS))
    assert reversed_judge.identity(ITEMS["k0"]) == judge(model).identity(ITEMS["k0"])


def test_reversing_the_scale_reverses_the_score(model):
    reversed_judge = judge(model, choices={text: 1 - score for text, score in RAW["choices"].items()})
    again = dict(judge(model).grade(ITEMS))
    for key, grade in reversed_judge.grade(ITEMS):
        assert grade.score == pytest.approx(1 - again[key].score, abs=1e-12)
        assert grade.choice_mass == pytest.approx(again[key].choice_mass, rel=1e-12)


def test_the_common_beginning_of_all_questions_is_decoded_once(model, monkeypatch):
    read = []
    decode = Context.decode
    monkeypatch.setattr(
        Context, "decode", lambda self, tokens, *rest: read.append(len(tokens)) or decode(self, tokens, *rest)
    )
    lengths = [grade.prompt_tokens for _, grade in judge(model).grade(ITEMS)]
    assert lengths == [len(question(model, item)) for item in ITEMS.values()]
    assert read[0] > 50  # most of the template precedes the prompt
    assert sum(read) == sum(lengths) - (len(ITEMS) - 1) * read[0]


def test_the_distribution_is_that_of_the_answers_after_the_opening(model):
    opening = "so: "
    item = ITEMS["k2"]
    (grade,) = dict(judge(model, opening=opening).grade({"k": item})).values()
    answers = [chat.respond(model, None, "x", opening + text)[-1] for text in "abc"]
    masses, _ = expected_masses(logits_of(model, question(model, item, opening=opening)), answers)
    assert [share for _, share in grade.distribution] == pytest.approx(masses, abs=1e-2)
    assert grade != dict(judge(model).grade({"k": item}))["k"]


def test_the_system_prompt_changes_the_grades_and_their_identity(model):
    plain, strict = (judge(model, system_prompt=text) for text in (None, "Be strict."))
    assert dict(plain.grade(ITEMS)) != dict(strict.grade(ITEMS))
    assert plain.identity(ITEMS["k0"]) != strict.identity(ITEMS["k0"])


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"a": 0, "bad": 1}, r"answer 'bad' is \d tokens, expected one"),
        ({"a": 0, "": 1}, "answer '' is 0 tokens, expected one"),
        ({"a": 0, "<|im_end|>": 1}, r"answer '<|im_end|>' is \d+ tokens, expected one"),
    ],
)
def test_an_answer_that_is_not_one_token_is_refused(model, choices, sentence):
    with pytest.raises(UserError, match=f"^model tiny.gguf: the rubric's {sentence}") as error:
        judge(model, choices=choices)
    assert "\n" not in str(error.value)


def test_two_answers_with_the_same_token_are_refused(model, monkeypatch):
    monkeypatch.setattr(chat, "respond", lambda *_: (65,))
    with pytest.raises(UserError, match="answer 'b' is the same token as 'a'; leave one of the two out"):
        judge(model)


def test_an_opening_that_merges_with_an_answer_into_one_token_is_refused(model):
    with pytest.raises(UserError, match="answer 'e' merges with the opening 'h' into another token"):
        judge(model, opening="h", choices={"e": 0, "x": 1})  # `he` is a token of both vocabularies


def test_answers_below_the_minimum_probability_have_no_score_but_a_reason(model, monkeypatch):
    monkeypatch.setattr(grading_local, "FLOOR", 1.1)
    for _, grade in judge(model).grade(ITEMS):
        assert (grade.score, grade.distribution) == (None, None)
        assert grade.reason == grading_local.NO_CHOICE
        assert 0 < grade.choice_mass <= 1


def test_the_reply_is_the_most_probable_token_of_the_model(model):
    graded = dict(judge(model).grade(ITEMS))
    for key, item in ITEMS.items():
        logits = logits_of(model, question(model, item))
        best = np.flatnonzero(logits > logits.max() - 0.1)  # two tokens can be equally probable but for the last digits
        assert graded[key].reply in {model.detokenize([token]) for token in best}


def chosen(model, logits) -> Grade:
    return judge(model)._chosen(np.asarray(logits, dtype=np.float32)[None], 7)


def test_extreme_logits_give_a_reason_or_a_distribution_without_empty_points(model):
    logits = np.zeros(model.n_vocab)
    tokens = list(judge(model).tokens)
    logits[tokens] = -40.0
    assert chosen(model, logits).reason == "the rubric's answers have a total probability below 1e-06"
    logits[tokens] = -math.inf
    assert chosen(model, logits).choice_mass == 0
    logits[tokens[0]] = 0.0
    assert chosen(model, logits).distribution == ((0.0, 1.0),)  # no point without mass
    assert chosen(model, np.full(model.n_vocab, np.nan)).reason == grading_local.UNSCORED["not_finite"]


def test_items_without_a_response_or_too_long_have_no_score_but_a_reason(model):
    items = {
        "empty": Item("a", 0, "x", "", (), answered=False),
        "long": Item("b", 0, "x", "word " * 2000, (1,)),
        "ended": Item("c", 0, "x", "", (1,)),  # an empty response that ended by itself is an answer, if a poor one
    }
    graded = dict(judge(model).grade(items))
    assert list(graded) == list(items)
    assert graded["empty"] == Grade(None, grading_local.UNSCORED["empty"])
    assert graded["long"] == Grade(None, grading_local.UNSCORED["too_long"])
    assert graded["ended"].score is not None
    alone = dict(judge(model).grade({"long": items["long"]}))
    assert alone["long"] == graded["long"]


def test_a_question_that_just_fits_the_context_is_judged(model, monkeypatch):
    one = judge(model)
    length = len(question(model, ITEMS["k1"]))
    for n_ctx, has_score in ((length, False), (length + 1, True)):
        monkeypatch.setattr(model, "n_ctx", n_ctx)
        (grade,) = dict(one.grade({"k": ITEMS["k1"]})).values()
        assert (grade.score is not None) == has_score


def test_the_identity_of_a_grade_has_everything_that_determines_it_and_nothing_else(model):
    item = ITEMS["k1"]
    one = judge(model)
    same = Item("other", 5, item.prompt, item.response, (9, 9, 9))
    assert digest(one.identity(same)) == digest(one.identity(item))
    changed = [
        one.identity(Item("q1", 0, item.prompt + "!", item.response, (1, 2))),
        one.identity(Item("q1", 0, item.prompt, item.response + "!", (1, 2))),
        one.identity(Item("q1", 0, item.prompt, item.response, (), answered=False)),
        judge(model, choices=RAW["choices"] | {"c": 0.9}).identity(item),
        judge(model, choices={"a": 0.0, "b": 0.5, "d": 1.0}).identity(item),
        judge(model, opening="I say ").identity(item),
        judge(model, template=TEMPLATE + "!").identity(item),
        ChoiceJudge.of(model, "other", Choices.model_validate(RAW), None).identity(item),
    ]
    assert len({digest(identity) for identity in [one.identity(item), *changed]}) == 1 + len(changed)


@given(
    st.lists(st.tuples(st.floats(-50, 0), st.integers(0, 4)), min_size=1, max_size=8),
    st.floats(-2000, 2000),
)
def test_a_distribution_from_any_logits_sums_to_one_and_has_the_weighted_mean(answers, shift):
    logprobs = np.array([logprob for logprob, _ in answers])
    scores = np.array([step / 4 for _, step in answers])
    pairs = grades.distribution(logprobs + shift, scores)
    points, masses = zip(*pairs, strict=True)
    assert sorted(set(points)) == list(points)
    assert sum(masses) == pytest.approx(1, abs=1e-12)
    weight = np.exp(logprobs - logprobs.max())
    assert grades.mean_score(pairs) == pytest.approx(weight @ scores / weight.sum(), abs=1e-9)
    assert points[0] <= grades.mean_score(pairs) <= points[-1]


def test_masses_of_answers_with_the_same_score_are_added(model):
    alone = dict(judge(model, choices={"a": 0.0, "b": 1.0, "c": 1.0}).grade(ITEMS))
    for key, grade in judge(model).grade(ITEMS):
        (_, none), (_, half), (_, full) = grade.distribution
        assert [point for point, _ in alone[key].distribution] == [0.0, 1.0]
        assert [mass for _, mass in alone[key].distribution] == pytest.approx([none, half + full], abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"choices": {1: 0.0, "2": 1.0}}, "choices: the answer 1 is not text; put it in quotes"),
        ({"choices": {True: 0.0, "no": 1.0}}, "choices: the answer True is not text"),
        ({"choices": {"1": 0.0, "2": 5}}, r"choices.2: Input should be less than or equal to 1, got 5"),
        ({"choices": {"1": 0.5, "2": 0.5}}, "answers of at least two different scores"),
        ({"choices": {}}, "answers of at least two different scores"),
        ({"choices": ["1", "2"]}, "choices: Input should be a valid dictionary"),
        ({"template": "{promt} {response}"}, r"unknown placeholder \{promt\} \(did you mean 'prompt'\?\)"),
        ({"template": "{prompt}"}, r"\{response\} is not in it"),
        ({"template": None}, "template: Input should be a valid string, got None"),
        ({"temperature": 1.0}, "temperature: Extra inputs are not permitted"),
        ({"kind": "choice"}, f"'choice'.*{', '.join(map(repr, NAMES))}"),
    ],
)
def test_an_invalid_rubric_is_refused_with_the_name_of_its_file(tmp_path, changes, sentence):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(RAW | changes))
    with pytest.raises(UserError, match=sentence) as error:
        load_rubric(path)
    assert str(error.value).startswith(f"{path}: not a rubric")
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_yaml_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("kind: [")
    with pytest.raises(UserError, match=r"mine\.yaml: is not valid YAML"):
        load_rubric(path)


@pytest.mark.parametrize("text", ["", "just text", "[1]", "template: x"])
def test_a_file_that_is_no_rubric_is_refused(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml: not a rubric this version reads \(.+\); see") as error:
        load_rubric(path)
    assert "\n" not in str(error.value)


def test_distributions_are_written_on_request_and_a_later_request_computes_nothing_again(model, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    items = list(ITEMS.values())
    with Journal(tmp_path / "0000.jsonl") as journal:
        certain = stages_local.grades(judge(model), items, journal=journal)
        assert journal.tally.items == len(items)
    with Journal(tmp_path / "0000.jsonl") as journal:
        unsure = stages_local.grades(judge(model), items, journal=journal, distributions=True)
        assert journal.tally.items == 0
    assert [row | {"distribution": None} for row in unsure] == certain
    assert [row["distribution"] for row in certain] == [None] * len(items)
    for row in unsure:
        assert row["score"] == pytest.approx(sum(point * mass for point, mass in row["distribution"]), abs=1e-12)
    schemas.GRADES.write(tmp_path / "grades.jsonl", unsure)
    assert schemas.GRADES.read(tmp_path / "grades.jsonl") == unsure
    least = min(row["choice_mass"] for row in unsure)
    assert f"minimum {least:.2g}" in caplog.text


def test_grades_of_an_older_journal_and_file_are_read(tmp_path):
    """Grades of a judge without distributions have no field for one."""
    old = {"prompt_id": "a", "draw_idx": 0, "score": 0.5, "reason": None, "reply": None, "item": "h"}
    schemas.GRADES.write(tmp_path / "grades.jsonl", [old])
    assert schemas.GRADES.read(tmp_path / "grades.jsonl") == [old]
    response = {
        "prompt_id": "a",
        "draw_idx": 0,
        "prompt": "x",
        "response": "y",
        "token_ids": [1],
        "finish_reason": "stop",
    }
    assert assemble._row(response, old, None)["judge_distribution"] is None
    pairs = [[0.0, 0.5], [1.0, 0.5]]
    assert assemble._row(response, old | {"distribution": pairs}, None)["judge_distribution"] == pairs


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ([[0.0, 0.5], [1.0, 0.4]], "masses that sum to 0.9, expected 1"),
        ([[0.0, 0.25], [1.0, 0.75]], "score is 0.5, expected the mean 0.75"),
        ([[0.5]], "an element that is no"),
        ([0.5], "elements of type float"),
    ],
)
def test_an_invalid_distribution_is_refused_when_the_table_is_written(tmp_path, pairs, sentence):
    row = {"prompt_id": "a", "draw_idx": 0, "score": 0.5, "distribution": pairs, "item": "h"}
    with pytest.raises(UserError, match=sentence):
        schemas.GRADES.write(tmp_path / "grades.jsonl", [row])


def test_the_default_model_answers_the_shipped_rubric_with_a_digit(default_model):
    items = {
        name: Item(name, 0, "What is the capital of France?", text, (1,))
        for name, text in {"right": "The capital of France is Paris.", "none": "purple purple purple"}.items()
    }
    with open_model(default_model, n_ctx=512) as model:
        judged = dict(ChoiceJudge.of(model, "any", load_rubric(SHIPPED), None).grade(items))
    for grade in judged.values():
        assert len(grade.distribution) == 5
        assert grade.choice_mass > 0.5  # most of the probability is on the five digits
        assert grade.reply in tuple("12345")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """One shard, judged by the workflow."""
    config = CONFIG | {
        "n_prompts": 4,
        "judge": {"model": "smollm2", "rubric": "mine.yaml", "uncertainty": "distribution"},
    }
    run = Run(tmp_path_factory.mktemp("choices"), config)
    tiny_gguf.write(run.directory / "tiny.gguf")
    (run.directory / "other.txt").write_text("Answer with other words.")
    (run.directory / "mine.yaml").write_text(yaml.safe_dump(RAW))
    write_prompts(run.directory / "prompts.jsonl", 4)
    run.snakemake("results/judge/base/0000.jsonl")
    return run


def test_the_workflow_writes_the_distribution_of_each_score(run):
    rows = schemas.GRADES.read(run.path("judge/base/0000.jsonl"))
    assert len(rows) == 4
    for row in rows:
        assert row["score"] == pytest.approx(sum(point * mass for point, mass in row["distribution"]))


def test_a_change_to_scores_without_distributions_reruns_only_the_judge(run):
    run.config["judge"]["uncertainty"] = "deterministic"
    assert run.jobs("results/judge/base/0000.jsonl") == {"judge judge base 0000"}
