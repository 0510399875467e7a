"""The labelling page without a browser: the contents of its file, and the votes that its script writes."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from arena_cje.labeling import page, tasks, votes
from arena_cje.labeling.records import Answer, Scale
from labeling_study import SCALE, SECRET, make

NODE = shutil.which("node")
HOSTILE = "</script><script>window.hacked = 1</script><!-- & <img src=x onerror=alert(1)> \u2028 {{ 7 * 7 }}"


def batch_of_harmful_texts() -> tasks.Batch:
    """A batch of texts that would be harmful as code or as formulas."""
    answers = [Answer(i, f"q{i}", text, text, "base") for i, text in enumerate((HOSTILE, "=1+1", 'a "b", c\nd', ""))]
    return tasks.make(
        answers, name="odd", limit=tasks.Limit(coverage=1.0), terms=tasks.Terms(duplicates=0), n_prompts=4, seed=1,
        secret=SECRET, shares={"base": 1.0},
    )  # fmt: skip


class Elements(HTMLParser):
    """Elements with their attributes, and the texts of scripts and styles."""

    def __init__(self, html: str):
        super().__init__()
        self.elements, self.raw = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.raw.append([tag, dict(attrs), ""])

    def handle_data(self, data):
        if self.cdata_elem:
            self.raw[-1][2] += data


def payload(html: str) -> dict:
    (text,) = [text for tag, attributes, text in Elements(html).raw if attributes.get("id") == "data"]
    return json.loads(text)


def test_the_page_contains_the_tasks_and_nothing_that_reveals_a_policy():
    batch = make()
    html = page.render(batch, SCALE, "Be fair.")
    assert payload(html) == {"batch": "first", "tasks": [vars(task) for task in batch.tasks]}
    for word in ("policy", 'base"', "clone", "judge", "inclusion", batch.key[0].prompt_id + '"'):
        assert word not in html


def test_texts_that_contain_code_or_markup_are_only_data():
    html = page.render(batch_of_harmful_texts(), SCALE, HOSTILE)
    document = Elements(html)
    assert [(tag, attributes.get("type")) for tag, attributes, _ in document.raw] == [
        ("style", None),
        ("script", "application/json"),
        ("script", None),
    ]
    assert {task["response"] for task in payload(html)["tasks"]} == {HOSTILE, "=1+1", 'a "b", c\nd', ""}
    assert not any(name.startswith("on") for _, attributes in document.elements for name in attributes)
    assert "49" not in html[html.index("Instructions</h2>") : html.index("</div>", html.index("Instructions</h2>"))]


def test_the_content_security_policy_allows_only_the_script_and_style_of_the_page():
    document = Elements(page.render(make(), SCALE, ""))
    (policy,) = [a["content"] for _, a in document.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag, attributes, text in document.raw:
        if attributes.get("type") != "application/json":
            assert f"{tag}-src 'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" in policy
    addresses = [value for _, a in document.elements for name, value in a.items() if name in ("src", "href", "action")]
    assert addresses == ["data:,"]


@pytest.mark.parametrize(
    ("scale", "votes_and_keys"),
    [
        (Scale(1, 5), [("1", "1"), ("2", "2"), ("3", "3"), ("4", "4"), ("5", "5")]),
        (Scale(0, 2), [("0", "0"), ("1", "1"), ("2", "2")]),
        (Scale(0, 1, 0.5), [("0", "1"), ("0.5", "2"), ("1", "3")]),
        (Scale(0, 10), []),
        (Scale(0, 100), []),
    ],
)
def test_a_scale_of_few_points_has_keys_and_one_of_many_a_slider(scale, votes_and_keys):
    document = Elements(page.render(make(), scale, ""))
    inputs = [attributes for tag, attributes in document.elements if tag == "input"]
    assert [(a["value"], a["data-key"]) for a in inputs if a["type"] == "radio"] == votes_and_keys
    sliders = [(a["min"], a["max"], a["step"]) for a in inputs if a["type"] == "range"]
    expected = [] if votes_and_keys else [(f"{scale.low:g}", f"{scale.high:g}", f"{scale.step:g}")]
    assert sliders == expected


def test_every_control_has_a_label():
    document = Elements(page.render(make(), SCALE, ""))
    labelled = {attributes.get("for") for tag, attributes in document.elements if tag == "label"}
    for tag, attributes in document.elements:
        if tag in ("input", "textarea", "progress") and attributes.get("type") != "radio":
            assert attributes.get("id") in labelled or attributes.get("aria-label")


@pytest.fixture
def run_javascript():
    """Runs JavaScript after the page's script and returns what it prints as JSON."""
    if NODE is None:
        pytest.skip("no node on this machine (Debian: apt install nodejs)")

    def script(code: str):
        head = f"const page = require({json.dumps(str(page.FOLDER / page.SCRIPT))});"
        process = subprocess.run(
            [NODE, "-e", f"{head} console.log(JSON.stringify({code}))"], capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)

    return script


TASKS = '[{item_id: "a"}, {item_id: "b"}, {item_id: "c"}]'
STATE = '{rater: "ann", votes: {b: {score: 2, skipped: false}, c: {score: null, skipped: true}}}'


def test_the_next_task_is_an_open_one_and_votes_and_skips_are_counted(run_javascript):
    assert run_javascript(f"[0, 1, 2].map((from) => page.nextOpen({STATE}, {TASKS}, from))") == [0, 0, 0]
    state = f'page.withVote({STATE}, "a", {{score: 0}})'
    assert run_javascript(f"page.nextOpen({state}, {TASKS}, 0)") == 3
    assert run_javascript(f"page.counts({STATE}, {TASKS})") == {"voted": 1, "skipped": 1, "open": 1}
    assert run_javascript(f"page.counts({state}, {TASKS})") == {"voted": 2, "skipped": 1, "open": 0}


def test_changing_one_vote_leaves_the_others_unchanged(run_javascript):
    assert run_javascript(f'page.withVote({STATE}, "b", {{score: 5}}).votes') == {
        "b": {"score": 5, "skipped": False},
        "c": {"score": None, "skipped": True},
    }
    assert run_javascript('page.voteOf(page.withVote({votes: {}}, "x", {score: 1}), "x")')["comment"] == ""


def test_votes_in_the_csv_file_of_the_page_are_read_unchanged(run_javascript, tmp_path):
    batch = batch_of_harmful_texts()
    votes_by_item = {
        task.item_id: {"score": score, "skipped": score is None, "comment": comment, "submitted_at": "2026-01-01T10:00:00.000Z",
                       "seconds": 12.34}
        for task, score, comment in zip(
            batch.tasks, (1, 5, None, 3), ("=cmd()", 'good, "very"\nbut', "cannot read it", "'-x"), strict=True
        )
    }  # fmt: skip
    state = {"rater": "-ann, the first", "votes": votes_by_item}
    task_rows = [vars(task) for task in batch.tasks]
    text = run_javascript(f"page.csv({json.dumps(state)}, {json.dumps(task_rows)}, 'odd')")
    assert not re.search(r'(^|,)"?[=+@-]', text, re.MULTILINE)
    (tmp_path / "votes.csv").write_text(text, newline="")
    ballot = votes.collect(votes.read(tmp_path / "votes.csv"), batch.key, SCALE, votes=1)
    collected_votes = {vote.item_id: (vote.score, vote.comment) for vote in (*ballot.votes, *ballot.skipped)}
    assert collected_votes == {item: (vote["score"], vote["comment"]) for item, vote in votes_by_item.items()}
    assert {vote.annotator_id for vote in ballot.votes} == {"-ann, the first"}
    assert {vote.duration_s for vote in ballot.votes} == {12.3}
    assert ballot.n_open == 1
