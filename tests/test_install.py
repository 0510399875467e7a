"""`make setup`: the switches of the llama.cpp build, the progress line, and what a failed installation prints."""

from __future__ import annotations

import shlex
import sys

import pytest
from envs import install


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
    shown = capfd.readouterr().out
    assert shown.startswith("ERROR: Failed to build llama_cpp_python\nERROR: pip ended with exit code 3. ")
    assert f"which is in {tmp_path / 'log'}" in shown
    assert "x.cpp:3:1: error: no such thing" in shown
    assert shown.endswith("ninja: build stopped\n")
    assert "did not fail" not in shown
    assert len(shown.splitlines()) < 30
    assert max(map(len, shown.splitlines())) < 220


def test_without_a_known_error_the_last_lines_are_shown():
    assert install.excerpt([f"line {i}" for i in range(50)]) == [f"line {i}" for i in range(30, 50)]


def test_a_missing_compiler_is_named(tmp_path, capfd):
    command = _pip(
        "print('  CMake Error at CMakeLists.txt:3 (project):', '    No CMAKE_CXX_COMPILER could be found.', sep='\\n')",
        "sys.exit(1)",
    )
    assert install.run(command, tmp_path / "log", interval=9) == 1
    assert "A C and C++ compiler is needed" in capfd.readouterr().out
