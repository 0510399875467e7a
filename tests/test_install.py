"""`make setup`: switches of the llama.cpp build, progress, output of a failed installation; wheel and source distribution."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from envs import install

import arena_cje
from own_data import write_world
from workflow_run import ROOT


@pytest.fixture
def clock():
    """A clock that the test moves by hand."""

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


def _pip(*statements: str) -> list[str]:
    """A command that stands in for pip: Python, with these statements."""
    return [sys.executable, "-u", "-c", "\n".join(["import sys, time", *statements])]


def test_a_user_adds_switches_to_ours_and_wins():
    ours = shlex.split(install.cmake_args(""))
    assert ours[0] == "-DLLAVA_BUILD=OFF"
    assert shlex.split(install.cmake_args("-DGGML_CUDA=on -DLLAVA_BUILD=ON")) == [
        *ours,
        "-DGGML_CUDA=on",
        "-DLLAVA_BUILD=ON",
    ]


def test_the_file_that_leaves_out_common_exists_under_its_absolute_path():
    name, _, path = shlex.split(install.cmake_args(""))[1].partition("=")
    assert name == "-DCMAKE_PROJECT_llama.cpp_INCLUDE"
    assert path == str(install.ROOT / "envs" / "llama.cmake")
    assert "set(LLAMA_BUILD_COMMON OFF)" in (install.ROOT / "envs" / "llama.cmake").read_text()


@pytest.mark.parametrize("step", ["  [{}/80] /usr/bin/c++ -c x.cpp", "[{}/80] /usr/bin/c++ -c x.cpp"])
def test_steps_of_ninja_give_the_time_left(step, clock):
    progress = install.Progress(clock)
    clock.now = 20
    progress.read(step.format(1))
    clock.now = 50
    progress.read(step.format(20))
    assert str(progress) == "0:50  compiling llama.cpp: step 20 of 80, about 1:30 left of compiling"


def test_percentages_of_make_give_the_time_left(clock):
    progress = install.Progress(clock)
    progress.read("  [  1%] Building CXX object x.o")
    clock.now = 100
    progress.read("  [ 50%] Building CXX object y.o")
    assert str(progress) == "1:40  compiling llama.cpp: step 50 of 100, about 1:40 left of compiling"


@pytest.mark.parametrize(
    ("line", "activity"),
    [
        ("Collecting numpy==2.4.6 (from arena-cje)", "collecting packages: numpy==2.4.6"),
        ("  Downloading numpy-2.4.6-cp311.whl (16.9 MB)", "collecting packages: numpy-2.4.6-cp311.whl (16.9 MB)"),
        ("  Building wheel for llama_cpp_python (pyproject.toml): started", "building llama_cpp_python"),
        ("Installing collected packages: a, b, c", "installing 3 packages"),
    ],
)
def test_stages_of_pip_are_named(line, activity, clock):
    progress = install.Progress(clock)
    progress.read(line)
    assert str(progress) == f"0:00  {activity}"


def test_a_line_is_printed_at_each_interval_also_when_pip_is_silent(tmp_path, capfd):
    command = _pip("print('  [1/2] c++', flush=True)", "time.sleep(1)")
    assert install.run(command, tmp_path / "log", interval=0.2) == 0
    assert capfd.readouterr().out.count("compiling llama.cpp: step 1 of 2") >= 2


def test_warnings_of_pip_are_printed_and_the_rest_is_in_the_log(tmp_path, capfd):
    command = _pip(
        "print('Collecting a')", "print('WARNING: a is yanked')", "print('  WARNING: of a subprocess', file=sys.stderr)"
    )
    assert install.run(command, tmp_path / "log", interval=9) == 0
    assert capfd.readouterr().out == "WARNING: a is yanked\n"
    assert (tmp_path / "log").read_text() == "Collecting a\nWARNING: a is yanked\n  WARNING: of a subprocess\n"


def test_a_failure_keeps_the_exit_code_and_shows_the_first_error_of_what_failed(tmp_path, capfd):
    command = _pip(
        "print('  Running command installing build dependencies', '  ERROR: of a command that did not fail', sep='\\n')",
        "print('  Running command Building wheel')",
        "for i in range(500): print(f'  [{i}/999] c++ -c {i}.cpp')",
        "print('  FAILED: x.o', '  c++ ' + 500 * '-D', '  x.cpp:3:1: error: no such thing', sep='\\n')",
        "for i in range(500): print('  more', i)",
        "print('  ninja: build stopped', '  error: subprocess-exited-with-error', '  note: of pip', sep='\\n')",
        "print('ERROR: Failed to build llama_cpp_python')",
        "sys.exit(3)",
    )
    assert install.run(command, tmp_path / "log", interval=9) == 3
    output = capfd.readouterr().out
    assert output.startswith("ERROR: Failed to build llama_cpp_python\nERROR: pip ended with exit code 3. ")
    assert f"which is in {tmp_path / 'log'}" in output
    assert "x.cpp:3:1: error: no such thing" in output
    assert output.endswith("ninja: build stopped\n")
    assert "did not fail" not in output
    assert len(output.splitlines()) < 30
    assert max(map(len, output.splitlines())) < 220


def test_without_a_known_error_the_last_lines_are_shown():
    assert install.excerpt([f"line {i}" for i in range(50)]) == [f"line {i}" for i in range(30, 50)]


def test_a_missing_compiler_is_named(tmp_path, capfd):
    command = _pip(
        "print('  CMake Error at CMakeLists.txt:3 (project):', '    No CMAKE_CXX_COMPILER could be found.', sep='\\n')",
        "sys.exit(1)",
    )
    assert install.run(command, tmp_path / "log", interval=9) == 1
    assert "A C and C++ compiler is needed" in capfd.readouterr().out


# The distributions


@pytest.fixture(scope="module")
def sources() -> list[str]:
    """The files of the repository, including those that are not committed yet."""
    process = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return sorted(name for name in process.stdout.splitlines() if (ROOT / name).is_file())


@pytest.fixture(scope="module")
def distributions(sources, tmp_path_factory) -> dict[str, Path]:
    """The source distribution of the repository's files, and the wheel that is built from it."""
    copy, folder = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("dist")
    for name in sources:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    process = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", folder, copy], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def test_the_wheel_is_the_library_and_nothing_else(distributions, sources):
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    library = {name.removeprefix("workflow/") for name in sources if name.startswith("workflow/arena_cje/")}
    assert files == library
    assert {Path(name).suffix for name in files} == {".py", ".typed", ".css", ".j2", ".js", ".json"}


def test_the_source_distribution_is_the_whole_repository(distributions, sources):
    with tarfile.open(distributions["sdist"]) as sdist:
        files = {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}
    left_out = {name for name in sources if name not in files}
    assert {name for name in left_out if not name.startswith(".ci/")} == set()
    assert {name for name in files - {*sources} if ".egg-info/" not in name} == {"PKG-INFO", "setup.cfg"}


@pytest.fixture(scope="module")
def wheel_programs(distributions, tmp_path_factory) -> Path:
    """The programs of an environment with the wheel; its dependencies are those of the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    install = ["--python", python, "install", "--quiet", "--no-deps", "--no-index", distributions["wheel"]]
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *install], check=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


ANALYSIS = """
from pathlib import Path

sys.modules.update(dict.fromkeys(["llama_cpp", "snakemake", "openai", "fireworks", "datasets"]))  # cannot be imported
import arena_cje
from arena_cje.results.result import write

assert Path(arena_cje.__file__).is_relative_to(Path(sys.prefix)), arena_cje.__file__
result = arena_cje.analyze("mine.jsonl", "draws", estimator="direct")
write(result, "direct.json", "direct.csv", "direct.influence.parquet")
assert arena_cje.load("direct.json").to_json() == result.to_json()
assert "Difference to base" in result._repr_html_()
print(result)
"""


def test_the_wheel_analyses_data_outside_of_the_repository(wheel_programs, tmp_path):
    write_world(tmp_path, n=120)

    def run(*command: str | Path) -> str:
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=own)
        assert process.returncode == 0, process.stderr
        return process.stdout

    program = wheel_programs / "arena-cje"
    assert run(program, "--version").strip() == f"arena-cje {arena_cje.__version__}"
    assert "validate" in run(program, "--help")
    assert run(wheel_programs / "python", "-c", f"import sys\n{ANALYSIS}").startswith("Compared with base")
    assert "mine.jsonl: usable" in run(program, "validate", "mine.jsonl", "--fresh-draws", "draws")
    assert "Difference to base" in run(program, "show", "direct.json")
    assert "labels" in run(program, "plan", "mine.jsonl", "--fresh-draws", "draws", "--help")


def test_one_version_stands_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert arena_cje.__version__ == version
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    newest = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest.groups() == (version, str(citation["date-released"]))
