"""The command line beside Snakemake: it prints results and the status of a run, decides, plans studies, converts and checks
data, checks votes, unlocks a folder, and finds what does not fit in one.

arena-cje show results
arena-cje show results/coverage_0.1/calibrated-ips.json
arena-cje decide results/coverage_0.1/decision.json --ship cool
arena-cje status .
arena-cje convert promptfoo results.json --base gpt-4o-mini --to DIR
arena-cje votes votes/*.csv
arena-cje redo logprobs --policies premium
arena-cje validate logged.jsonl --fresh-draws draws
arena-cje plan results --difference 0.02
arena-cje unlock
arena-cje doctor . --redo
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import arena_cje
from arena_cje.errors import UserError, escape_what_it_lacks, file_errors, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from arena_cje.data.convert import Conversion

NO_ANSWER = 3  # exit status of `decide` where it cannot answer: 1 and 2 are answers
DECIDE_HELP = """\
Says whether a decision supports shipping a policy instead of the policy that it was compared with. Exit status:
  0  supported: the policy is better, or equivalent within the margin
  1  not supported: the policy is worse, or its value is refused
  2  not yet known: the data do not decide; the output says how many labels would
  3  no answer: wrong arguments, an unknown policy, or a file that cannot be used
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 1, after one sentence, for an error that the user can correct.

    `decide` has statuses of its own, in its help.
    """
    parser = argparse.ArgumentParser(
        prog="arena-cje",
        description="Results, decisions and plans of Causal Judge Evaluation; conversion and checks of data; "
        "status and repair of a run.",
    )
    parser.add_argument("--version", action="version", version=f"arena-cje {arena_cje.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    show_command = commands.add_parser("show", help="print results as tables, or what is in a folder of results")
    show_command.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="a file of results (estimates, decision, comparisons, plan, a table), or the folder of a run or of its results, "
        "which is listed (default: the newest estimates in results/)",
    )
    decide_command = commands.add_parser(
        "decide",
        help="say whether a policy may be shipped, also by exit status (0 yes, 1 no, 2 not yet known, 3 no answer)",
        description=DECIDE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    decide_command.add_argument(
        "file", type=Path, metavar="FILE", help="results/coverage_*/decision.json, or a results file of one estimator"
    )
    decide_command.add_argument("--ship", required=True, metavar="POLICY", help="the policy to ship")
    status_command = commands.add_parser("status", help="show the finished, open and failed jobs of a run")
    status_command.add_argument("folder", nargs="?", type=Path, default=Path("."), help="working directory of the run")
    votes_command = commands.add_parser(
        "votes", help="check files of votes and print the agreement of raters; writes nothing"
    )
    votes_command.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="files of votes from any labelling tool"
    )
    votes_command.add_argument(
        "--labeling",
        type=Path,
        default=Path("results/labeling"),
        help="folder of the labelling batches (default: %(default)s)",
    )
    votes_command.add_argument(
        "--columns", default="", metavar="FIELD=COLUMN,...", help="column names in a file of an unknown format"
    )
    unlock_command = commands.add_parser("unlock", help="remove the lock of a Snakemake process that was killed")
    unlock_command.add_argument("--directory", type=Path, default=Path("."), help="working directory of the run")
    redo_command = commands.add_parser("redo", help="compute log probabilities of some policies again in the next run")
    redo_command.add_argument("stage", choices=["logprobs"])
    redo_command.add_argument("--policies", required=True, metavar="NAME,...", help="policies of the last run")
    redo_command.add_argument("--directory", type=Path, default=Path("."), help="working directory of the run")
    doctor_command = commands.add_parser("doctor", help="find damaged or inconsistent files in the folder of a run")
    doctor_command.add_argument("folder", nargs="?", type=Path, default=Path("."), help="working directory of the run")
    doctor_command.add_argument(
        "--redo", action="store_true", help="remove these files, so that the next run makes them again"
    )
    _add_convert(commands)
    validate_command = commands.add_parser("validate", help="say which estimators can analyse data, or why none can")
    validate_command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files or folders")
    validate_command.add_argument(
        "--fresh-draws", type=Path, metavar="DIR", help="folder of fresh draws for logged data"
    )
    validate_command.add_argument(
        "--probes", type=Path, metavar="DIR", help="labels of some of these draws, in separate files"
    )
    validate_command.add_argument(
        "--calibration-data", type=Path, metavar="FILE", help="labelled responses for the calibration alone"
    )
    validate_command.add_argument("--base", metavar="NAME", help="base policy, if the rows do not name it")
    _add_plan(commands)
    escape_what_it_lacks()
    words = sys.argv[1:] if arguments is None else arguments
    decides = words[:1] == ["decide"]
    try:
        options = parser.parse_args(words)
    except SystemExit as end:  # argparse ends with 2 for wrong arguments, which `decide` has another meaning for
        if decides and end.code:
            raise SystemExit(NO_ANSWER) from None
        raise
    run = {
        "show": lambda: show(options.paths),
        "decide": lambda: _decide(options.file, options.ship),
        "status": lambda: _status(options.folder),
        "unlock": lambda: _unlock(options.directory),
        "doctor": lambda: _doctor(options.folder, redo=options.redo),
        "votes": lambda: _votes(options.files, options.labeling, options.columns),
        "redo": lambda: _redo(options.directory, options.policies),
        "convert": lambda: _convert(options),
        "plan": lambda: _plan(options),
        "validate": lambda: _validate(options),
    }
    try:
        with file_errors():
            status = run[options.command]()
            print(end="", flush=True)  # here and not at the end of Python, where a full disk is a traceback
        return status
    except UserError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        status = NO_ANSWER if decides else 1
    except BrokenPipeError:  # the reader of a pipe has ended, such as `| head`
        status = NO_ANSWER if decides else 0
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def show(paths: Iterable[str | Path]) -> int:
    """Print files and folders of results; without any the newest result, and where all are. The exit status is 0."""
    from arena_cje.results.result import newest
    from arena_cje.terminal.show import printouts

    paths = list(map(Path, paths))
    for text in printouts(paths or [newest(Path("results"))]):
        print(text)
    if not paths:
        print("\nWhat else is there: arena-cje show results")
    return 0


def _decide(file: Path, policy: str) -> int:
    """Print what is decided about a policy; the exit status is that of `DECIDE_HELP`."""
    from arena_cje.results import decision_file

    sentence, status = decision_file.answer(file, policy)
    print(sentence)
    return status


def _votes(files: Iterable[Path], folder: Path, columns: str) -> int:
    """Print the content of files of votes; raises a `UserError` where one cannot be used."""
    from arena_cje.labeling import labels, sentences

    names = _once((_pair(entry, "--columns", "FIELD=COLUMN") for entry in columns.split(",") if entry), "--columns")
    for sentence in sentences.of_votes(labels.from_files(files, folder, names).report):
        print(sentence)
    return 0


def _status(folder: Path) -> int:
    """Print the status of the last run in a folder; the exit status is 0."""
    from arena_cje.stages import status

    print(status.table(status.read_status(folder)))
    return 0


def _redo(folder: Path, names: str) -> int:
    """Have log probabilities of policies computed again by the next start of the workflow; the exit status is 0."""
    from arena_cje.stages import redo

    policies = redo.logprobs(folder, [name.strip() for name in names.split(",") if name.strip()])
    print(f"The next run of snakemake computes the log probabilities under {', '.join(policies)} again.")
    return 0


def _add_convert(commands: argparse._SubParsersAction) -> None:
    from arena_cje.data import convert

    command = commands.add_parser("convert", help="convert outputs of another tool into the CJE format")
    command.add_argument("format", metavar="FORMAT", help=", ".join(convert.NAMES))
    command.add_argument(
        "files", nargs="+", metavar="FILE", help="files or folders; NAME=FILE names the policy of a file"
    )
    command.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder of the converted data")
    command.add_argument("--base", metavar="NAME", help="base policy, with which the others are compared")
    command.add_argument("--judge", metavar="SCORER", help="scorer that is the judge")
    command.add_argument("--oracle", metavar="SCORER", help="scorer that gives the oracle labels")
    command.add_argument(
        "--scale", action="append", default=[], metavar="[SCORER=]LOW,HIGH", help="lowest and highest score of a scorer"
    )
    command.add_argument(
        "--columns",
        default="",
        metavar="FIELD=COLUMN,...",
        help="columns of a plain table; several columns for oracle_label or a judge score are votes on the same response",
    )


def _convert(options: argparse.Namespace) -> int:
    """Convert files of another tool, and print what was carried and what was not."""
    from arena_cje.data import convert

    scales = _once(map(_scale, options.scale), "--scale")
    choices = convert.Choices(options.base, options.judge, options.oracle, scales, _columns(options.columns))
    conversion = convert.convert(options.format, options.files, choices)
    convert.write(conversion, options.to)
    print(f"{options.format} -> {options.to}\n{convert.summary_text(conversion.summary)}")
    for line in _next_commands(options.to.resolve(), conversion):
        print(line)
    return 0


def _next_commands(folder: Path, conversion: Conversion) -> Iterator[str]:
    """The commands that check and analyse converted data, with absolute paths.

    The analysis needs labels, and responses of another policy or log probabilities under it.
    """
    logged, draws = str(folder / "logged.jsonl"), str(folder / "fresh_draws")
    check = ["arena-cje", "validate", logged, *(["--fresh-draws", draws] if conversion.fresh else [])]
    yield f"next: {shlex.join(check)}"
    has_logprobs = any("target_policy_logprobs" in row for row in conversion.logged)
    has_labels = any(row["oracle_label"] is not None for row in conversion.logged)
    if has_labels and (conversion.fresh or has_logprobs):
        run = ["snakemake", "--cores", "2", "--config", f"logged_data={logged}"]
        run += [f"fresh_draws={draws}"] if conversion.fresh else []
        estimator = "direct" if conversion.fresh else "calibrated-ips"
        run += ["--directory", str(folder / "run"), f"results/coverage_1.0/{estimator}.json"]
        yield f"then, in the project folder (which has the Snakefile): {shlex.join(run)}"


def _columns(option: str) -> dict[str, str | tuple[str, ...]]:
    """The column of each field, or the columns of one that is there several times."""
    columns: dict[str, tuple[str, ...]] = {}
    for entry in filter(None, option.split(",")):
        field, column = _pair(entry, "--columns", "FIELD=COLUMN")
        columns[field] = (*columns.get(field, ()), column)
    return {field: names[0] if len(names) == 1 else names for field, names in columns.items()}


def _once(pairs: Iterable[tuple[str, Any]], option: str) -> dict[str, Any]:
    """Pairs as a dictionary; raises a `UserError` for a name that is there twice, of which one would get lost."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise UserError(f"{option}: {name!r} is there twice ({values[name]} and {value}); name it once")
        values[name] = value
    return values


def _pair(entry: str, option: str, form: str) -> tuple[str, str]:
    name, separator, value = entry.partition("=")
    if not separator or not name or not value:
        raise UserError(f"{option}: {entry!r} is not of the form {form}")
    return name.strip(), value.strip()


def _scale(entry: str) -> tuple[str, tuple[float, float]]:
    """Scorer and scale of an option `[SCORER=]LOW,HIGH`; "*" is every scorer."""
    name, value = _pair(entry if "=" in entry else f"*={entry}", "--scale", "SCORER=LOW,HIGH")
    try:
        low, high = map(float, value.split(","))
    except ValueError:
        raise UserError(f"--scale: {entry!r} is not of the form SCORER=LOW,HIGH") from None
    return name, (low, high)


def _validate(options: argparse.Namespace) -> int:
    """Print whether files can be analysed; the exit status is 1 if one of them cannot."""
    from arena_cje.results.usability import usability
    from arena_cje.stages import seals

    for file in options.files:
        seals.check(file)
    beside = {"base_policy": options.base, "probes": options.probes, "calibration_data": options.calibration_data}
    accounts = {file: usability(file, options.fresh_draws, **beside) for file in options.files}
    for file, account in accounts.items():
        print(f"{file}: {'usable' if account.usable else 'not usable'}")
        print("".join(f"  {line}\n" for line in account.lines), end="")
    return 0 if all(account.usable for account in accounts.values()) else 1


PLAN_EXAMPLES = """examples:
  arena-cje plan results --difference 0.02                     labels that a study needs, for several numbers of prompts
  arena-cje plan results --difference 0.02 --price-judge 0.004 --price-label 0.05        the cheapest such study
  arena-cje plan results/coverage_0.25/direct.json --half-width 0.03
  arena-cje plan logged.jsonl --fresh-draws draws --budget 50 --price-judge 0.004 --price-label 0.05

A pilot is a study with oracle labels on responses of the base policy and of the targets, best on the same 50 or more prompts.
Plans are for differences of the targets to the base. Exit status: 0 with a plan, 1 where no target can be planned for.

PILOT is one of these:
  a folder of a run or of its results
  results/planning/plan.json
  a results file that a run wrote, with ESTIMATOR.influence.parquet beside it; `result.to_json()` alone is not enough
  logged data in the CJE format (JSONL), with --fresh-draws"""


def _add_plan(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "plan",
        help="say how many prompts and labels a study needs, from a pilot",
        description="From a pilot: how many prompts and labels a study needs to detect a difference between policies, the most "
        "precise study for a budget, and the number of labels for a transport audit.",
        epilog=PLAN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "pilot",
        type=Path,
        metavar="PILOT",
        help="folder of a run's results, results/planning/plan.json, a results file, or logged data in the CJE format",
    )
    command.add_argument(
        "--difference", type=float, metavar="D", help="smallest difference to the base that the study should detect"
    )
    command.add_argument("--half-width", type=float, metavar="H", help="largest half-width of intervals of differences")
    command.add_argument("--power", type=float, default=0.8, help="probability of detecting it (default: %(default)s)")
    command.add_argument("--budget", type=float, metavar="USD", help="find the most precise study for this budget")
    command.add_argument(
        "--price-judge",
        type=float,
        metavar="USD",
        help="price of one prompt: responses of all policies and their judge scores (default: the price in this run)",
    )
    command.add_argument(
        "--price-label", type=float, metavar="USD", help="price of one oracle label (default: the price in this run)"
    )
    command.add_argument("--fresh-draws", type=Path, metavar="DIR", help="folder of fresh draws for logged data")
    command.add_argument("--probes", type=Path, metavar="DIR", help="labels of some of these draws, in separate files")
    command.add_argument("--base", metavar="NAME", help="base policy, if the rows do not name it")
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the plan to this file")


def _plan(options: argparse.Namespace) -> int:
    """Print the plan of a study; the exit status is 1 where there is none."""
    from arena_cje import files
    from arena_cje.planning import plan, sources, text
    from arena_cje.planning.study import Goal

    goal = Goal(options.difference, options.half_width, options.power)
    known = sources.read(options.pilot, options.fresh_draws, options.probes, base=options.base)
    prices = plan.Prices(options.price_judge, options.price_label).over(known.prices)
    content = plan.document(known.pilot, goal, prices, budget=options.budget, audits=known.audits)
    if options.json is not None:
        files.write_json(options.json, content)
    for line in text.lines(content):
        print(printable(line))
    return 0 if known.pilot.differences else 1


def _unlock(directory: Path) -> int:
    """Remove Snakemake's locks; raises a `UserError` where a Snakemake process runs in the folder."""
    locks = directory / ".snakemake" / "locks"
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; name the folder in which snakemake runs the experiment")
    if not locks.is_dir() or not any(locks.iterdir()):
        return 0
    from arena_cje.stages import doctor

    doctor.check_at_rest(directory)
    for lock in locks.iterdir():
        lock.unlink()
    print("Removed the lock of a Snakemake process that was killed.")
    return 0


def _doctor(folder: Path, *, redo: bool) -> int:
    """Print what does not fit in the folder of a run; the exit status is 1 where something is left that does not."""
    from arena_cje.stages import doctor

    with contextlib.chdir(folder):
        if not any(Path(name).is_dir() for name in ("results", ".snakemake", ".arena-cje")):
            raise UserError(
                f"{folder}: no run has been started in this folder; name the folder in which snakemake runs the experiment"
            )
        findings = doctor.examine()
        for finding in findings:
            print(printable(f"{finding.path}: {finding.problem}"))
        if n_unsealed := doctor.n_unsealed():
            print(f"{n_unsealed} tables cannot be checked: an earlier version made them without a seal")
        if not findings:
            print("No damaged or inconsistent files.")
        elif redo:
            doctor.redo(findings)
            print(f"Removed {len(findings)} of these; run the same snakemake command again.")
        else:
            print(f"{len(findings)} found; `arena-cje doctor {shlex.quote(str(folder))} --redo` removes them.")
    return 1 if findings and not redo else 0


if __name__ == "__main__":
    sys.exit(main())
