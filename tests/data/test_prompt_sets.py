"""Prompt sets: which rows of another set become prompts, how the others are counted, and the error of a broken file."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import hub_server
from arena_cje.data import prompts
from arena_cje.data.prompt_sets import hub as hub_reader
from arena_cje.data.prompt_sets import language, reading, selection
from arena_cje.data.prompt_sets.pool import Source, describe, read_pool
from arena_cje.data.prompt_sets.selection import Selection
from arena_cje.errors import UserError
from benchmarks._arena import battle, schema, write_parquet
from workflow_run import ROOT

if TYPE_CHECKING:
    from pathlib import Path

LONG = "word " * 100
# A set in which every reason to drop a row occurs; the comments are what `ENGLISH` makes of the row.
ARENA = [
    battle("a", "Why is the sky blue?"),
    battle("b", "Tell me a story.", "And another one."),  # several_turns
    battle("c", "Warum ist der Himmel blau?", language="German"),  # other_language
    battle("d", "Why is the sky blue?"),  # duplicate
    battle("e", "  why is the SKY\nblue? "),  # near_duplicate
    battle("f", ""),  # empty
    battle("g", "   \n"),  # empty
    battle("h", LONG),  # too_long
    battle("i", "How do I pick a lock?", flagged=True),
    battle("j", "You are stupid, aren't you?", toxic=True),
    battle("k", "Hm?"),  # too_short
    battle("l", "What is a fjord?"),
]
ALL = Selection()
ENGLISH = Selection(language="en", min_chars=5, max_chars=200)
DROPPED = {
    "empty": 2,
    "several_turns": 1,
    "too_short": 1,
    "too_long": 1,
    "other_language": 1,
    "duplicate": 1,
    "near_duplicate": 1,
}
EXPECTED = {
    "a": "Why is the sky blue?",
    "i": "How do I pick a lock?",
    "j": "You are stupid, aren't you?",
    "l": "What is a fjord?",
}


def pool_of(path, folder, chosen=ALL, *, seed=1, split="train"):
    """The pool of a file or folder."""
    return read_pool(Source(path.name, path, split, selection=chosen), seed, folder / "pool")


def prompts_by_id(pool):
    """All prompts of a pool by id, in their order."""
    return {row["prompt_id"]: row["prompt"] for row in pool.rows(pool.summary["n_eligible"])}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_parquet(folder):
    write_parquet(folder / "arena.parquet", ARENA)
    return folder / "arena.parquet"


def as_jsonl(folder):
    write_jsonl(folder / "arena.jsonl", ARENA)
    return folder / "arena.jsonl"


def as_windows_jsonl(folder):
    """With a byte order mark and the line ends of Windows."""
    lines = "\r\n".join(map(json.dumps, ARENA))
    (folder / "arena.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode() + b"\r\n")
    return folder / "arena.jsonl"


def as_gzip(folder):
    (folder / "arena.jsonl.gz").write_bytes(gzip.compress(as_jsonl(folder).read_bytes()))
    return folder / "arena.jsonl.gz"


def as_json_array(folder):
    (folder / "arena.json").write_text(json.dumps(ARENA, indent=1))
    return folder / "arena.json"


def as_csv_with_json(folder):
    with (folder / "arena.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(ARENA[0]))
        writer.writeheader()
        for row in ARENA:
            cells = {
                name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in row.items()
            }
            writer.writerow(cells)
    return folder / "arena.csv"


def dataset():
    import datasets
    import pyarrow as pa

    return datasets.Dataset(pa.Table.from_pylist(ARENA, schema=schema()))


def as_csv_of_datasets(folder):
    """Lists and objects as Python prints them."""
    dataset().to_csv(folder / "arena.csv")
    return folder / "arena.csv"


def as_saved(folder):
    dataset().save_to_disk(folder / "saved")
    return folder / "saved"


def as_saved_splits(folder):
    import datasets

    first = dataset().select([0])
    datasets.DatasetDict({"test": first, "train": dataset()}).save_to_disk(folder / "saved")
    return folder / "saved"


def as_repository(folder):
    """A copy of a repository of the hub, with its files in two parts."""
    (folder / "repository" / "data").mkdir(parents=True)
    write_parquet(folder / "repository" / "data" / "train-00000-of-00002.parquet", ARENA[:5])
    write_parquet(folder / "repository" / "data" / "train-00001-of-00002.parquet", ARENA[5:])
    return folder / "repository"


COPIES = [
    as_parquet,
    as_jsonl,
    as_windows_jsonl,
    as_gzip,
    as_json_array,
    as_csv_with_json,
    as_csv_of_datasets,
    as_saved,
    as_saved_splits,
    as_repository,
]


@pytest.mark.parametrize("copy", COPIES, ids=lambda copy: copy.__name__)
def test_every_file_format_of_the_arena_set_gives_the_same_prompts_and_counts(copy, tmp_path):
    pool = pool_of(copy(tmp_path), tmp_path, ENGLISH)
    assert prompts_by_id(pool) == EXPECTED
    assert list(prompts_by_id(pool)) == sorted(EXPECTED, key=lambda prompt_id: prompts.rank(prompt_id, 1))
    counts = {name: pool.summary[name] for name in ("n_rows", "n_eligible", "flagged", "dropped", "language_known_by")}
    assert counts == {
        "n_rows": 12,
        "n_eligible": 4,
        "flagged": 2,
        "dropped": DROPPED,
        "language_known_by": {"field": 7},  # five rows are dropped before their language is looked at
    }
    assert list(pool.rows(1)[0]) == ["prompt_id", "prompt"]


@pytest.mark.parametrize("copy", [as_parquet, as_jsonl, as_csv_of_datasets, as_saved], ids=lambda copy: copy.__name__)
def test_flagged_prompts_are_dropped_if_the_selection_says_so(copy, tmp_path):
    pool = pool_of(copy(tmp_path), tmp_path, Selection(language="en", min_chars=5, max_chars=200, flagged="drop"))
    assert set(prompts_by_id(pool)) == {"a", "l"}
    assert pool.summary["dropped"] == DROPPED | {"flagged": 2}
    assert pool.summary["flagged"] == 0


@pytest.mark.parametrize(
    ("duplicates", "expected"), [("drop", "ail"), ("drop_exact", "aeil"), ("keep", "adeil")], ids=str
)
def test_the_duplicates_option_decides_which_equal_prompts_are_dropped(duplicates, expected, tmp_path):
    chosen = Selection(language="en", min_chars=5, max_chars=25, duplicates=duplicates)
    assert set(prompts_by_id(pool_of(as_jsonl(tmp_path), tmp_path, chosen))) == set(expected)


def test_the_counts_of_a_pool_are_described_in_one_sentence(tmp_path):
    pool = pool_of(as_parquet(tmp_path), tmp_path, ENGLISH)
    assert describe(pool.summary) == (
        "arena.parquet: 4 prompts of 12 rows; 2 of them are flagged by the data set; 2 dropped: without a text of the user; "
        "1 dropped: conversations of several turns; 1 dropped: shorter than min_chars; 1 dropped: longer than max_chars; "
        "1 dropped: in another language; 1 dropped: equal to an earlier prompt; "
        "1 dropped: equal to an earlier prompt but for case and white space"
    )


# Other prompt sets


@pytest.mark.parametrize(
    ("name", "row", "columns", "expected"),
    [
        (
            "mt_bench.jsonl",
            {"question_id": 81, "category": "writing", "turns": ["Write a post.", "Rewrite it."]},
            {"prompt_id": "question_id", "prompt": "turns"},
            {"prompt_id": "81", "prompt": "Write a post."},
        ),
        (
            "arena_hard.jsonl",
            {"uid": "x1", "category": "hard", "cluster": "ABC", "prompt": "Write a sort."},
            {"prompt_id": "uid"},
            {"prompt_id": "x1", "prompt": "Write a sort."},
        ),
        (
            "chats.jsonl",
            {"id": "m", "messages": [{"role": "system", "content": "Hm."}, {"role": "user", "content": "Hi there."}]},
            {"prompt_id": "id", "prompt": "messages"},
            {"prompt_id": "m", "prompt": "Hi there."},
        ),
        (
            "graded.jsonl",
            {"uid": "r", "prompt": "Two and two?", "answer": {"any_of": ["four"]}},
            {"prompt_id": "uid", "reference": "answer"},
            {"prompt_id": "r", "prompt": "Two and two?", "reference": {"any_of": ["four"]}},
        ),
    ],
    ids=["mt_bench", "arena_hard", "messages", "reference"],
)
def test_prompt_sets_with_other_column_names_are_read_by_a_map_of_columns(name, row, columns, expected, tmp_path):
    write_jsonl(tmp_path / name, [row])
    assert pool_of(tmp_path / name, tmp_path, Selection(columns=columns)).rows(1) == [expected]


def test_prompts_without_ids_get_hashes_of_their_texts_as_ids(tmp_path):
    rows = [{"instruction": text, "output": "", "generator": "x"} for text in ("Name a fish.", "Name a bird.")]
    (tmp_path / "alpaca_eval.json").write_text(json.dumps(rows))
    texts_by_id = prompts_by_id(
        pool_of(tmp_path / "alpaca_eval.json", tmp_path, Selection(columns={"prompt": "instruction"}))
    )
    assert set(texts_by_id.values()) == {"Name a fish.", "Name a bird."}
    assert all(prompt_id.startswith("prompt-") and len(prompt_id) == 23 for prompt_id in texts_by_id)


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        (
            {"question_id": 81, "category": "writing", "turns": ["Hm."]},
            "columns: {prompt_id: question_id, prompt: turns}",
        ),
        ({"uid": "x1", "prompt": "Hm."}, "columns: {prompt_id: uid}"),
        ({"instruction": "Hm.", "output": ""}, "columns: {prompt: instruction}"),
    ],
)
def test_a_set_with_other_column_names_is_refused_with_the_map_to_set(row, hint, tmp_path):
    write_jsonl(tmp_path / "set.jsonl", [row])
    with pytest.raises(UserError, match="has no column") as error:
        pool_of(tmp_path / "set.jsonl", tmp_path)
    assert hint in str(error.value)


def test_a_csv_file_and_a_parquet_file_of_the_user_are_read(tmp_path):
    import polars as pl

    (tmp_path / "own.csv").write_text('prompt_id,prompt\n1,"Say ""hello"",\nplease."\n\n2,Why?\n')
    assert prompts_by_id(pool_of(tmp_path / "own.csv", tmp_path)) == {"1": 'Say "hello",\nplease.', "2": "Why?"}
    frame = pl.DataFrame(
        {"prompt_id": [1, 2], "prompt": ["One?", "Two?"], "reference": [{"any_of": ["a"], "n": None}] * 2}
    )
    frame.write_parquet(tmp_path / "own.parquet")
    rows = {row["prompt_id"]: row for row in pool_of(tmp_path / "own.parquet", tmp_path).rows(2)}
    assert rows["2"] == {"prompt_id": "2", "prompt": "Two?", "reference": {"any_of": ["a"]}}


def test_all_shipped_prompts_are_eligible(tmp_path):
    """An experiment can have as many prompts as there are."""
    path = ROOT / "resources" / "prompts" / "default.jsonl"
    pool = pool_of(path, tmp_path)
    n_prompts = len(path.read_text().splitlines())
    assert pool.summary["n_eligible"] == pool.summary["n_rows"] == n_prompts
    pool.check_size(n_prompts)
    with pytest.raises(
        UserError, match=f"n_prompts is 600, but default.jsonl has {n_prompts} prompts; set n_prompts to"
    ):
        pool.check_size(600)


def test_a_request_for_too_many_prompts_is_refused_with_the_counts_of_dropped_rows(tmp_path):
    with pytest.raises(
        UserError, match=r"n_prompts is 9, but arena.parquet has 4 prompts \(12 rows without 2 without a"
    ):
        pool_of(as_parquet(tmp_path), tmp_path, ENGLISH).check_size(9)


# The language


@pytest.mark.parametrize(
    ("field", "matches"), [("English", True), ("en", True), ("en-US", True), ("German", False), ("de", False)]
)
def test_the_language_field_decides_if_a_row_has_one(field, matches):
    assert language.decide("en", "Warum ist der Himmel eigentlich blau?", field) == (matches, "field")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Warum ist der Himmel am Tag eigentlich blau?", (False, "detector")),
        ("Écris un poème sur l'automne, s'il te plaît.", (False, "detector")),
        ("什么是量子力学？请用简单的语言解释一下。", (False, "detector")),
        ("Please explain quantum physics to a child.", (True, "detector")),
        ("hi", (True, "short")),
        ("1+1=?", (True, "short")),
        ("Write a haiku", (True, "short")),
    ],
)
@pytest.mark.parametrize("field", [None, "", "unknown"])
def test_the_language_detector_decides_if_a_row_has_no_language_field(text, expected, field):
    pytest.importorskip("py3langid")
    assert language.decide("en", text, field) == expected


def test_without_the_language_detector_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    language._detector.cache_clear()
    with pytest.raises(UserError, match="pip install py3langid, or set prompts.language to null"):
        language.decide("en", "A text of more than twenty characters.", None)
    language._detector.cache_clear()


# Broken files


def cut_parquet(folder):
    content = as_parquet(folder).read_bytes()
    (folder / "arena.parquet").write_bytes(content[: len(content) // 2])
    return folder / "arena.parquet"


def damaged_parquet(folder):
    content = bytearray(as_parquet(folder).read_bytes())
    content[30:400] = bytes(370)
    (folder / "arena.parquet").write_bytes(content)
    return folder / "arena.parquet"


def cut_gzip(folder):
    rows = [battle(f"q{k}", f"Question {k * k}?") for k in range(200)]
    write_jsonl(folder / "arena.jsonl", rows)
    content = gzip.compress((folder / "arena.jsonl").read_bytes())
    (folder / "arena.jsonl.gz").write_bytes(content[: len(content) // 2])
    return folder / "arena.jsonl.gz"


def raw_file(name, content):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    write.__name__ = f"{name} {content[:40]!r}"
    return write


def empty_folder(folder):
    (folder / "nothing").mkdir()
    return folder / "nothing"


def saved_without_data(folder):
    next(as_saved(folder).glob("*.arrow")).unlink()
    return folder / "saved"


ROW = b'{"question_id": "a", "conversation_a": [{"role": "user", "content": "Hi?"}]}\n'


BROKEN = [
    (cut_parquet, r"arena\.parquet: not a readable Parquet file, it may be cut off"),
    (damaged_parquet, r"arena\.parquet: cannot be read from row 0 on, it may be damaged"),
    (raw_file("a.parquet", b"prompt_id,prompt\n"), r"a\.parquet: not a readable Parquet file"),
    (cut_gzip, r"arena\.jsonl\.gz:\d+: the compressed file is damaged or cut off"),
    (raw_file("a.jsonl", ROW + ROW[:40]), r"a\.jsonl:2: not valid JSON .*; the last line is cut off"),
    (
        raw_file("a.jsonl", ROW + b'{"question_id": "b", "conversation_a": 5}\n'),
        r"a\.jsonl:2: conversation_a is 5, expected a text",
    ),
    (
        raw_file("a.jsonl", ROW + b'{"question_id": "b", "conversation_a": [{"role": "user", "content": 7}]}\n'),
        r"a\.jsonl:2: conversation_a is .*, expected a text, a list of texts or a list of messages",
    ),
    (
        raw_file("a.jsonl", ROW + ROW.replace(b'"a"', b"1.5").replace(b"Hi?", b"Ho?")),
        r"a\.jsonl:2: question_id is 1\.5, expected a string",
    ),
    (
        raw_file("a.jsonl", ROW + ROW.replace(b"Hi?", b"Ho?")),
        r"a\.jsonl:2: prompt_id 'a' appears again \(first at .*a\.jsonl:1\)",
    ),
    (raw_file("a.jsonl", ROW + b"[1]\n"), r"a\.jsonl:2: expected one JSON object a line, got list"),
    (
        raw_file("a.jsonl", b'{"model": "x", "score": 1}\n'),
        r"a\.jsonl: has no column 'prompt', it has model, score; name the columns",
    ),
    (raw_file("a.jsonl", b""), r"a\.jsonl: no prompts in it; expected one JSON object a line"),
    (
        raw_file("a.json", b'[{"prompt_id": 1, "prompt": "x"}, 5]'),
        r"a\.json \(element 1\): expected an array of JSON objects, got int",
    ),
    (raw_file("a.json", b'[{"prompt_id": 1, "prompt": "x"}'), r"a\.json: not valid JSON"),
    (
        raw_file("a.txt", b"Why is the sky blue?\n"),
        r"a\.txt: is not a prompt set, it begins with 'Why is the sky blue\?'",
    ),
    (raw_file("a.csv", b"prompt_id,prompt\n1,Why?\n2\n"), r"a\.csv:3: has 1 fields, the header has 2"),
    (
        raw_file("a.csv", b'prompt_id,prompt\n1,Why?\n2,"What\nis\n'),
        r"a\.csv:3: not valid CSV .*; the row is cut off or a quote",
    ),
    (raw_file("a.csv", b"prompt_id,prompt\n1,caf\xe9\n"), r"a\.csv:2: is not UTF-8 .*; save the file as UTF-8"),
    (raw_file("a.csv", b"prompt,prompt\n1,2\n"), r"a\.csv:1: the header has column 'prompt' more than once"),
    (
        raw_file("a.csv", b"conversation_a,question_id\nhello,1\n"),
        r"a\.csv:2: conversation_a is 'hello', expected a list or object as JSON",
    ),
    (raw_file("a.csv", b""), r"a\.csv: has no header"),
    (empty_folder, r"nothing: a folder without a data set; expected one written by `save_to_disk`"),
    (saved_without_data, r"saved: not a readable data set of `save_to_disk`"),
]


@pytest.mark.parametrize(("broken", "sentence"), BROKEN, ids=[broken.__name__ for broken, _ in BROKEN])
def test_a_broken_file_is_refused_with_one_sentence_and_leaves_no_pool(broken, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence) as error:
        pool_of(broken(tmp_path), tmp_path)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "pool" / "prompts.json").exists()


def test_an_unknown_column_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"prompts.columns.flagged is 'toxicity', but there is no such column"):
        pool_of(as_parquet(tmp_path), tmp_path, Selection(columns={"flagged": ["toxicity"]}))


def test_an_unknown_split_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="has no split 'dev'; set prompts.split to one of test, train"):
        pool_of(as_saved_splits(tmp_path), tmp_path, split="dev")


def test_a_set_without_eligible_prompts_is_refused_with_the_reasons(tmp_path):
    with pytest.raises(UserError, match=r"none of its 12 rows is left \(2 without a text of the user, 1 conversations"):
        pool_of(as_parquet(tmp_path), tmp_path, Selection(min_chars=10_000))


# The pool


def test_a_larger_sample_begins_with_the_smaller_one_and_the_order_depends_on_the_seed(tmp_path):
    rows = [{"prompt_id": f"q{k}", "prompt": f"Say {k}."} for k in range(300)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    first = pool_of(tmp_path / "a.jsonl", tmp_path)
    assert first.rows(300)[:20] == first.rows(20)
    write_jsonl(tmp_path / "b.jsonl", rows[::-1])
    assert pool_of(tmp_path / "b.jsonl", tmp_path).rows(300) == first.rows(300) != rows
    first_ids = list(prompts_by_id(first))
    assert list(prompts_by_id(pool_of(tmp_path / "b.jsonl", tmp_path, seed=2))) != first_ids


def test_a_source_is_read_once_until_it_or_the_selection_changes(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        reading, "open_path", lambda *args, open_path=reading.open_path: calls.append(args) or open_path(*args)
    )
    path = as_jsonl(tmp_path)
    first = pool_of(path, tmp_path)
    again = pool_of(path, tmp_path)
    assert (len(calls), first.newly_read, again.newly_read) == (1, True, False)
    assert (again.identity, again.summary) == (first.identity, first.summary)
    assert pool_of(path, tmp_path, ENGLISH).identity != first.identity
    pool_of(path, tmp_path, ENGLISH, seed=2)
    write_jsonl(path, ARENA[:3])
    pool_of(path, tmp_path, ENGLISH, seed=2)
    assert len(calls) == 4
    (tmp_path / "pool" / "prompts.json").write_text("{")  # as a crash of the machine may leave it
    assert pool_of(path, tmp_path, ENGLISH, seed=2).newly_read


def test_a_read_that_fails_half_way_leaves_no_partial_pool(tmp_path):
    path = as_jsonl(tmp_path)
    before = pool_of(path, tmp_path)
    path.write_text(path.read_text() + "{")
    with pytest.raises(UserError, match="not valid JSON"):
        pool_of(path, tmp_path)
    write_jsonl(path, ARENA)
    assert prompts_by_id(pool_of(path, tmp_path)) == prompts_by_id(before)


def test_texts_that_differ_only_in_case_width_or_white_space_are_equal():
    assert selection.normal("Ｗhat  IS\tthat ") == selection.normal("what is that")
    assert selection.normal("what is that") != selection.normal("what is this")


# The hub


READ_HUB = """
import json, sys
from pathlib import Path
from arena_cje.data.prompt_sets.pool import Source, read_pool
from arena_cje.errors import UserError

try:
    pool = read_pool(Source(sys.argv[1], None, "train", json.loads(sys.argv[2])), 1, Path("pool"))
except UserError as error:
    print(f"ERROR {error}")
else:
    print(json.dumps({"summary": pool.summary, "rows": pool.rows(pool.summary["n_eligible"])}))
"""


def read_hub(hub, folder: Path, *, name=hub_server.NAME, revision=None, **options) -> str:
    """What a process prints that reads a data set of the server; options: arguments of `hub.environment`."""
    environment = hub.environment(folder / "cache", **options) | {"PYTHONPATH": str(ROOT / "workflow")}
    command = [sys.executable, "-c", READ_HUB, name, json.dumps(revision)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> dict[str, bytes]:
    """The data set at two commits."""
    folder = tmp_path_factory.mktemp("hub")
    write_parquet(folder / "first.parquet", ARENA[:3])
    write_parquet(folder / "second.parquet", ARENA)
    return {
        hub_server.FIRST: (folder / "first.parquet").read_bytes(),
        hub_server.SECOND: (folder / "second.parquet").read_bytes(),
    }


def test_a_data_set_of_the_hub_stays_at_the_commit_of_its_first_read(contents, tmp_path):
    with hub_server.serve({hub_server.FIRST: contents[hub_server.FIRST]}) as hub:
        first = json.loads(read_hub(hub, tmp_path))
        assert first["summary"]["revision"] == hub_server.FIRST
        assert {row["prompt_id"] for row in first["rows"]} == {"a", "c"}
        hub.requests.clear()
        hub.files[hub_server.SECOND] = contents[hub_server.SECOND]
        assert json.loads(read_hub(hub, tmp_path)) == first
        assert hub.requests == []  # the pool is there
        (tmp_path / "pool" / "prompts.jsonl").unlink()
        assert json.loads(read_hub(hub, tmp_path)) == first
        second = json.loads(read_hub(hub, tmp_path, revision=hub_server.SECOND))
        assert second["summary"]["revision"] == hub_server.SECOND
        assert second["summary"]["n_rows"] == len(ARENA)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"token": None}, "the data set is gated; accept its terms at {address}/datasets/{name}, then set HF_TOKEN"),
        ({"token": "hf_of_someone_else"}, "the data set is gated; accept its terms at {address}/datasets/{name}"),
        ({"revision": "v9"}, "has no revision 'v9'; set prompts.revision to a commit, tag or branch"),
        ({"name": "lmsys/chatbot_arena_conversation"}, "there is no such file, and no such data set on the hub"),
    ],
    ids=["no token", "other token", "revision", "name"],
)
def test_a_refusal_of_the_hub_becomes_one_sentence(how, sentence, contents, tmp_path):
    with hub_server.serve(dict(contents)) as hub:
        output = read_hub(hub, tmp_path, **how)
        assert sentence.format(address=hub.address, name=hub_server.NAME) in output
    assert output.startswith(f"ERROR {how.get('name', hub_server.NAME)}: ")
    assert len(output.splitlines()) == 1


class Refusal(OSError):
    """An error of the hub's client, with the response that it was made from."""

    def __init__(self, status: int):
        super().__init__(f"Client error for url: http://127.0.0.1:{status}17/api/datasets")
        self.response = SimpleNamespace(status_code=status)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Refusal(403), "the hub refuses access"),
        (OSError("401 Client Error for url: http://hub/x"), "the hub refuses access"),
        (ConnectionError("no route to http://127.0.0.1:40131/api"), "the hub cannot be reached"),
        (ConnectionError("no route to http://hub/lab/aggregated-403"), "the hub cannot be reached"),
        (ValueError("file of 14031 bytes at commit 24017"), "cannot be loaded from the hub"),
        (OSError("Dataset 'lab/aggregated-403' is a gated dataset on the Hub."), "the data set is gated"),
    ],
)
def test_digits_in_ports_sizes_and_names_are_not_read_as_a_status_of_the_hub(error, sentence):
    assert hub_reader._sentence("lab/aggregated-403", "train", None, error).startswith(
        f"lab/aggregated-403: {sentence}"
    )
