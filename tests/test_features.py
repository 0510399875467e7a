"""docs/features.md names tests, pages and experiments that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "features.md").read_text()
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| [DLJER]\d+ \|", line)]


def test_every_row_of_the_guides_stands_once_with_a_state():
    names = [row.split(" | ")[0].removeprefix("| ") for row in ROWS]
    sizes = {"D": 10, "L": 6, "J": 7, "E": 7, "R": 10}
    assert names == [f"{letter}{k + 1}" for letter, size in sizes.items() for k in range(size)]
    states = [row.split(" | ")[5] for row in ROWS]
    assert all(re.match(r"met|partly: |not met: ", state) for state in states)


def test_every_test_and_page_that_the_tables_name_is_there():
    missing = [name for name in re.findall(r"`(tests/[\w./]+)`", PAGE) if not (ROOT / name).exists()]
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", PAGE)]
    missing += [link for link in links if link and not (ROOT / "docs" / link).exists()]
    assert missing == []
