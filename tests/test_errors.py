"""Messages for people: control characters in names and replies of others reach a terminal only as escapes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

import arena_cje
from arena_cje.__main__ import main
from arena_cje.errors import UserError, printable
from arena_cje.stages import jobs, model_check
from own_data import write_world
from workflow_run import ROOT

CONTROLS = [
    "\x1b[31m",
    "\x1b]8;;http://x\x07",
    "\r",
    "\x07",
    "\x08",
    "\x7f",
    "\x9b2J",
    "\x85",
    "\u202e",
    "\u2066",
    "\ud800",
]
HOSTILE = "name\x1b[2J\r\x9b31m\u202eeman\x07"


def is_clean(text: str) -> bool:
    """Whether all characters are printable, blanks, joiners, or unassigned in Python's tables (newer than these)."""
    return all(
        char in "\n\t\u200c\u200d" or char.isprintable() or unicodedata.category(char) in ("Zs", "Cn", "Co")
        for char in text
    )


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_printed_is_printable_and_can_be_encoded(text):
    printable_text = printable(text)
    assert is_clean(printable_text)
    printable_text.encode()
    assert printable(printable_text) == printable_text


@pytest.mark.parametrize(
    "text", ["", "two\nlines\tand a tab", "名前", "naïve", "👩\u200d🚀", "می\u200cخواهم", "100 %", "\\x1b"]
)
def test_text_without_control_characters_is_unchanged(text):
    assert printable(text) == text


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_character_is_shown_as_its_escape(control):
    assert printable(f"a{control}b") == f"a{control.encode('unicode_escape').decode()}b".replace("\\r", "\\x0d")
    assert str(UserError(f"policy {control}: unknown")) == f"policy {printable(control)}: unknown"


def test_results_of_a_policy_with_control_characters_are_printable(tmp_path, capsys):
    write_world(tmp_path)
    data = tmp_path / "mine.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in rows:
        row["target_policy_logprobs"] = {HOSTILE: next(iter(row["target_policy_logprobs"].values()))}
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = arena_cje.analyze(data, None, "calibrated-ips")
    assert result.policies == (HOSTILE,) or list(result.policies) == [HOSTILE]
    for text in (repr(result), result._repr_html_()):
        assert "name\\x1b[2J" in text
        assert is_clean(text)
    (tmp_path / "a\x1b.json").write_text(result.to_json())
    assert main(["show", str(tmp_path / "a\x1b.json")]) == 0
    assert main(["show", str(tmp_path / "gone\x1b[31m.json")]) == 1
    output = capsys.readouterr()
    assert "name\\x1b[2J" in output.out
    assert is_clean(output.out)
    assert is_clean(output.err)


JOB = """
import logging, sys
from types import SimpleNamespace
from arena_cje.errors import UserError
from arena_cje.stages import jobs
snakemake = SimpleNamespace(
    rule="judge", wildcards=["b\\x1b[31mase"], input=[], output=[], params={}, config={}, log=[sys.argv[1]]
)
with jobs.job(snakemake) as log:
    log.warning("the server says %s", "\\x1b[2J\\r\\u202e")
    if sys.argv[2] == "bug":
        raise RuntimeError("a bug \\x1b[2J")
    raise UserError("no \\x1b[2J")
"""


@pytest.mark.parametrize("ending", ["bug", "error"])
def test_no_line_of_a_job_has_control_characters(tmp_path, ending):
    process = subprocess.run(
        [sys.executable, "-c", JOB, str(tmp_path / "log"), ending],
        env={"PYTHONPATH": str(ROOT / "workflow"), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert "b\\x1b[31mase" in process.stderr
    for text in (process.stderr, (tmp_path / "log").read_text()):
        assert "the server says \\x1b[2J\\x0d\\u202e" in text
        assert is_clean(text)


def test_the_table_of_checked_models_is_printable():
    finding = model_check.Finding("m", "local", "writes", ("judge",), ok=True, answer=f"{HOSTILE}, 3 ms")
    assert is_clean(model_check.table([finding]))
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (HOSTILE,), None)
    assert is_clean(jobs._Redacting("%(message)s", ()).format(record))
