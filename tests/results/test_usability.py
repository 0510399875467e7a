"""`arena-cje validate` says what data can be used for, or which line stands in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

import foreign_files
from arena_cje.__main__ import main
from arena_cje.data import convert
from arena_cje.results.usability import usability


def logged_rows(**changed) -> list[dict]:
    row = {"judge_score": 0.5, "base_policy_logprob": -3.0, "target_policy_logprobs": {"new": -2.0}}
    return [{"prompt_id": k, **row, **changed} for k in range(4)]


def draws(policy: str, n: int = 4) -> list[dict]:
    return [{"prompt_id": k, "policy": policy, "judge_score": 0.5} for k in range(n)]


def test_log_probabilities_alone_serve_weighting_estimators(tmp_path):
    file = Path(foreign_files.write_lines(tmp_path / "logged.jsonl", logged_rows()))
    account = usability(file)
    assert account.usable
    text = "\n".join(account.lines)
    assert "target new: log probabilities on 4 of 4 rows" in text
    assert "estimators: calibrated-ips, ips, raw-ips, snips\n" in text
    assert "also possible with fresh draws: direct, dr-cpo" in text
    assert "no oracle label" in text


def test_fresh_draws_beside_them_serve_all(tmp_path):
    file = Path(foreign_files.write_lines(tmp_path / "logged.jsonl", logged_rows()))
    foreign_files.write_lines(tmp_path / "draws" / "new_responses.jsonl", draws("new"))
    account = usability(file, tmp_path / "draws")
    assert account.usable
    assert not any(line.startswith("with ") for line in account.lines)
    assert "fresh draws of new: 4 of 4 have a judge score, 4 prompts, 0 labels" in account.lines


def test_labels_of_too_few_prompts_to_calibrate_are_told(tmp_path):
    rows = logged_rows()
    rows[0]["oracle_label"] = rows[1]["oracle_label"] = 0.5
    account = usability(Path(foreign_files.write_lines(tmp_path / "logged.jsonl", rows)))
    assert any("oracle labels on at least 4 prompts, got 2" in line for line in account.lines)


def test_a_bad_line_is_named(tmp_path, capsys):
    file = foreign_files.write_lines(tmp_path / "logged.jsonl", [*logged_rows(), {"prompt_id": 9, "judge_score": 7}])
    assert main(["validate", file]) == 1
    assert f"{file}:5: judge_score is 7, expected at most 1" in capsys.readouterr().out


@pytest.mark.parametrize("kind", foreign_files.WRITERS)
def test_a_foreign_file_gets_its_command_and_is_usable_after_it(kind, tmp_path):
    name, write = foreign_files.WRITERS[kind]
    (tmp_path / "source").mkdir()
    files, choices = write(tmp_path / "source")
    account = usability(Path(files[0]))
    if kind == "cje-eval responses":  # already in the CJE format, as fresh draws
        assert account.usable
    else:
        assert (account.usable, f"convert {name} {files[0]}" in account.lines[0]) == (False, True)
    convert.write(convert.convert(name, files, convert.Choices(**choices)), tmp_path / "data")
    assert usability(tmp_path / "data").usable
    assert usability(tmp_path / "data" / "fresh_draws").usable


def test_a_missing_file_is_one_sentence(tmp_path, monkeypatch):
    account = usability(tmp_path / "none.jsonl")
    assert not account.usable
    assert f"{tmp_path}/none.jsonl: no such file" == account.lines[0]  # an absolute path is in no other folder
    monkeypatch.chdir(tmp_path)
    assert f"none.jsonl: no such file in {tmp_path}" in usability(Path("none.jsonl")).lines[0]
