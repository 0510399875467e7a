"""Install the project into the virtual environment of the Python that runs this, with a line about what pip is doing.

    .venv/bin/python envs/install.py .            what a run needs
    .venv/bin/python envs/install.py '.[test]'    that, and what the tests need

llama.cpp is compiled from source. CMAKE_ARGS of the user's own (docs/engine.md) are added to ours and win over them.
Everything that pip, CMake and the compiler print is in install.log in the virtual environment.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUR_SWITCHES = (
    "-DLLAVA_BUILD=OFF",  # the part for pictures
    f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={Path(__file__).with_name('llama.cmake').resolve()}",
)

COMPILER_STEP = re.compile(r"\s*\[(\d+)/(\d+)\] ")  # Ninja
COMPILER_PERCENT = re.compile(r"\s*\[ *(\d+)%\] ")  # make
PIP_NOTICE = re.compile(r"(WARNING|ERROR|DEPRECATION): ")  # what pip's subprocesses print is indented
FAILURE = re.compile(r"\b(fatal )?error: |CMake Error|^\s*(FAILED|ERROR): |No space left")
MISSING_COMPILER = re.compile(r"No CMAKE_(C|CXX)_COMPILER could be found")


def cmake_args(of_user: str) -> str:
    """The CMAKE_ARGS of the build: our switches, then the user's; of a repeated switch CMake uses the last."""
    return f"{shlex.join(OUR_SWITCHES)} {of_user}".strip()


def duration(seconds: float) -> str:
    """Minutes and seconds as 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Progress:
    """What pip is doing, from the lines that `pip install --verbose` prints."""

    def __init__(self, clock=time.monotonic):
        self.clock = clock
        self.start = clock()
        self.activity = "starting pip"
        self.compile_start = None  # when the first file was compiled
        self.step = self.total = 0  # steps of the compilation

    def read(self, line: str) -> None:
        """Take in one line of output."""
        if match := COMPILER_STEP.match(line):
            self._set_step(int(match[1]), int(match[2]))
        elif match := COMPILER_PERCENT.match(line):
            self._set_step(int(match[1]), 100)
        elif match := re.match(r"(?:Collecting|Downloading|Processing) (\S+)(.*)", line.strip()):
            size = re.search(r"\([\d.]+ [kMG]?B\)", match[2])
            self.activity = f"collecting packages: {os.path.basename(match[1])}{' ' + size[0] if size else ''}"
        elif match := re.match(r"\s*Building wheel for (\S+)", line):
            self.activity = f"building {match[1]}"
        elif match := re.match(r"Installing collected packages: (.*)", line):
            self.activity = f"installing {len(match[1].split(', '))} packages"

    def _set_step(self, step: int, total: int) -> None:
        if self.compile_start is None:
            self.compile_start = self.clock()
        self.step, self.total = step, total
        self.activity = "compiling llama.cpp"

    def __str__(self) -> str:
        text = f"{duration(self.clock() - self.start)}  {self.activity}"
        if self.activity == "compiling llama.cpp":
            text += f": step {self.step} of {self.total}"
            if self.step >= 5:  # fewer give a poor estimate of the pace
                spent = self.clock() - self.compile_start
                text += f", about {duration(spent * (self.total - self.step) / self.step)} left of compiling"
        return text


def excerpt(lines: list[str], width: int = 200) -> list[str]:
    """The lines with the reason of a failed installation: those from the first error of the command that failed, and its last."""
    end = next((i for i, line in enumerate(lines) if "error: subprocess-exited-with-error" in line), len(lines))
    start = next((i for i in reversed(range(end)) if lines[i].strip().startswith("Running command")), 0)
    output = [line for line in lines[start:end] if line.strip()]
    first = next((i for i, line in enumerate(output) if FAILURE.search(line)), None)
    if first is None:
        chosen = output[-20:]
    else:
        after = output[first + 12 :]
        chosen = [*output[first : first + 12], *(["..."] if len(after) > 8 else []), *after[-8:]]
    return [line if len(line) <= width else line[: width - 4] + " ..." for line in chosen]


def run(command: list[str], log: Path, *, env: dict[str, str] | None = None, interval: float | None = None) -> int:
    """Run pip with a line about its progress (on a terminal one that is rewritten) and return its exit code."""
    terminal = sys.stdout.isatty()
    interval = interval or (1 if terminal else 30)
    progress = Progress()
    lines = []

    def show(text: str) -> None:
        if terminal:
            print(text[: shutil.get_terminal_size().columns - 1], end="", flush=True)
        else:
            print(text, flush=True)

    def clear() -> None:
        if terminal:
            print("\r\x1b[K", end="", flush=True)

    def read() -> None:
        with process.stdout, log.open("w", encoding="utf-8") as file:
            for line in process.stdout:
                file.write(line)
                file.flush()
                lines.append(line.rstrip("\n"))
                progress.read(line)
                if PIP_NOTICE.match(line):
                    clear()
                    print(line, end="", flush=True)

    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    )
    reader = threading.Thread(target=read)
    reader.start()
    try:
        while reader.is_alive():
            reader.join(interval)
            clear()
            if reader.is_alive():
                show(f"  {progress}")
    except KeyboardInterrupt:  # the terminal has sent it to pip as well
        process.wait()
        print("\ninterrupted")
        return 130
    code = process.wait()
    if code:
        print(
            f"ERROR: pip ended with exit code {code}. From its output, which is in {log}:", *excerpt(lines), sep="\n  "
        )
        if any(MISSING_COMPILER.search(line) for line in lines):
            print("A C and C++ compiler is needed. On Debian: apt install g++; on macOS: xcode-select --install")
    return code


def main(requirement: str) -> int:
    python = [sys.executable, "-m"]
    pip = [*python, "pip", "--disable-pip-version-check"]
    own = os.environ.get("CMAKE_ARGS", "")
    start = time.monotonic()
    # Before version 25 pip takes twice as long to choose the packages. Where this fails the installation still works.
    subprocess.run([*pip, "install", "--quiet", "pip>=25"])
    code = run(
        [
            *pip,
            *("install", "--verbose", "--progress-bar", "off", "--no-compile", "--constraint", "constraints.txt"),
            *(["--no-cache-dir"] if own else []),  # not the wheel that pip kept from a build with other switches
            *("--editable", requirement),
        ],
        Path(sys.prefix) / "install.log",
        env={**os.environ, "CMAKE_ARGS": cmake_args(own), "PYTHONUNBUFFERED": "1"},
    )
    if code == 0:
        # pip compiles in one process, and the packages' tests too.
        subprocess.run(
            [*python, "compileall", "-qq", "-j", "0", "-x", r"[/\\]tests?[/\\]", sysconfig.get_path("purelib")]
        )
        print(f"... done in {duration(time.monotonic() - start)}.")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
