"""`arena-cje validate` prints what data can be used for, or the line that prevents their use."""

from __future__ import annotations

from pathlib import Path

import pytest

import arena_cje
import foreign_files
from arena_cje.__main__ import main
from arena_cje.data import convert
from arena_cje.errors import UserError
from arena_cje.results.usability import usability


def logged_rows(n: int = 4, **changes) -> list[dict]:
    row = {
        "judge_score": 0.5,
        "base_policy_logprob": -3.0,
        "target_policy_logprobs": {"new": -2.0},
        "oracle_label": 0.5,
    }
    return [{"prompt_id": k, **row, **changes} for k in range(n)]


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
    assert "4 oracle labels: estimates are computed, but published only from 10 labels on" in text


def test_log_probabilities_and_fresh_draws_serve_all_estimators(tmp_path):
    file = Path(foreign_files.write_lines(tmp_path / "logged.jsonl", logged_rows()))
    foreign_files.write_lines(tmp_path / "draws" / "new_responses.jsonl", draws("new"))
    account = usability(file, tmp_path / "draws")
    assert account.usable
    assert not any(line.startswith("with ") for line in account.lines)
    assert "fresh draws of new: 4 of 4 have a judge score, 4 prompts, 0 labels" in account.lines


def test_labels_of_too_few_prompts_to_calibrate_are_reported(tmp_path):
    rows = logged_rows(oracle_label=None)
    rows[0]["oracle_label"] = rows[1]["oracle_label"] = 0.5
    account = usability(logged_file(tmp_path, rows))
    assert not account.usable and "estimators: none" in account.lines
    assert any("oracle labels on at least 4 prompts of" in line and "got 2" in line for line in account.lines)


def logged_file(folder: Path, rows: list[dict]) -> Path:
    return Path(foreign_files.write_lines(folder / "logged.jsonl", rows))


def test_without_labels_no_estimator_is_usable_and_the_status_is_1(tmp_path, capsys):
    file = logged_file(tmp_path, logged_rows(oracle_label=None))
    assert main(["validate", str(file)]) == 1
    output = capsys.readouterr().out
    assert "logged.jsonl: not usable" in output and "estimators: none" in output and "got 0" in output


def test_ten_labels_need_no_remark(tmp_path):
    account = usability(logged_file(tmp_path, logged_rows(10)))
    assert account.usable and account.lines[-1].startswith("also possible with")


def test_labels_on_rows_without_a_score_are_not_usable(tmp_path):
    rows = [*logged_rows(2), *({"prompt_id": f"unscored {k}", "oracle_label": 1.0} for k in range(9))]
    account = usability(logged_file(tmp_path, rows))
    assert not account.usable
    assert "2 usable oracle labels (9 more are on rows without a judge score, and cannot be used)" in account.lines[0]


def test_every_policy_has_its_own_estimators(tmp_path):
    """The policy `new` has log probabilities, the policy `drawn` has fresh draws."""
    file = logged_file(tmp_path, logged_rows(12))
    foreign_files.write_lines(tmp_path / "draws" / "drawn.jsonl", draws("drawn", 12))
    account = usability(file, tmp_path / "draws")
    assert "target drawn: log probabilities on 0 of 12 rows" in account.lines
    assert "fresh draws of new: none" in account.lines
    assert "estimators for new: calibrated-ips, ips, raw-ips, snips" in account.lines
    assert "estimators for drawn: direct" in account.lines
    assert any(line.startswith("also possible for drawn with log probabilities: ") for line in account.lines)


def test_prompts_without_a_draw_are_counted(tmp_path):
    file = logged_file(tmp_path, logged_rows(12))
    rows = draws("new", 5)
    rows[0]["judge_score"] = None
    foreign_files.write_lines(tmp_path / "draws" / "new.jsonl", rows)
    account = usability(file, tmp_path / "draws")
    assert any(line.endswith("; 8 of 12 logged prompts lack a draw with a judge score") for line in account.lines)


def test_labels_of_draws_alone_do_not_calibrate_as_analyze_says(tmp_path):
    file = logged_file(tmp_path, logged_rows(12, oracle_label=None))
    labelled = [row | {"oracle_label": 0.5} for row in draws("new", 12)]
    foreign_files.write_lines(tmp_path / "draws" / "new.jsonl", labelled)
    account = usability(file, tmp_path / "draws")
    assert not account.usable
    with pytest.raises(UserError, match="no logged row has an oracle_label.*calibration_data") as raised:
        arena_cje.analyze(file, tmp_path / "draws", estimator="direct")
    assert account.lines[-1] == str(raised.value)
    calibration = foreign_files.write_lines(tmp_path / "calibration.jsonl", labelled)
    arguments = ["validate", str(file), "--fresh-draws", str(tmp_path / "draws"), "--calibration-data", calibration]
    assert main(arguments) == 0
    arena_cje.analyze(file, tmp_path / "draws", estimator="direct", calibration_data=calibration)


def test_labels_of_probes_count_as_labels_of_draws(tmp_path, capsys):
    file = logged_file(tmp_path, logged_rows(12))
    foreign_files.write_lines(tmp_path / "draws" / "new.jsonl", draws("new", 12))
    probes = [row | {"oracle_label": 1.0} for row in draws("new", 3)]
    foreign_files.write_lines(tmp_path / "probes" / "new.jsonl", probes)
    arguments = ["validate", str(file), "--fresh-draws", str(tmp_path / "draws"), "--probes", str(tmp_path / "probes")]
    assert main(arguments) == 0
    assert "fresh draws of new: 12 of 12 have a judge score, 12 prompts, 3 labels\n" in capsys.readouterr().out


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


def test_a_missing_file_is_reported_in_one_sentence(tmp_path, monkeypatch):
    account = usability(tmp_path / "none.jsonl")
    assert not account.usable
    assert f"{tmp_path}/none.jsonl: no such file" == account.lines[0]  # an absolute path is in no other folder
    monkeypatch.chdir(tmp_path)
    assert f"none.jsonl: no such file in {tmp_path}" in usability(Path("none.jsonl")).lines[0]
