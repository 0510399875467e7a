"""The index of a folder of journals: in which file and where in it the line of a key is.

A job whose items are missing looks here for those of other shards, so that it reads no line that it does not need: of the
files that have grown since the last time it reads what is new, which the jobs of a stage together do once.

The journals alone determine what is finished. The index is made from them and can be taken away: it is one SQLite file for each
machine, as the locks of SQLite hold between the processes of a machine and not safely over a network. A line is checked when it
is read: a wrong position loses at most the item and never returns a wrong record. Where the index cannot be used, the journals
are read through instead.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from arena_cje.journal import lines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

VERSION = 1  # of the tables
WAIT = 60.0  # seconds for another process that writes the index
TABLES = """
CREATE TABLE IF NOT EXISTS file (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS item (
    key TEXT PRIMARY KEY, file INTEGER NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL
) WITHOUT ROWID;
"""

Found = dict[str, tuple[str, lines.Place]]  # name of the file and place in it, by key


def find(own: Path, keys: Collection[str]) -> Found:
    """Where the lines of some keys are in the journals beside one that lacks them, as far as those have them."""
    folder, path = own.parent, _path(own.parent)
    sizes = _sizes(folder)
    sizes.pop(own.name, None)  # the keys are not there
    if not sizes:
        return {}
    try:
        return _find_in_index(path, own.name, sizes, keys)
    except sqlite3.OperationalError as error:  # locked too long, a full disk, a folder that is read-only
        log.warning("%s: cannot be used (%s); the journals are read through", path, error)
    except sqlite3.DatabaseError as error:
        log.warning("%s: is damaged (%s) and made anew by the next job; the journals are read through", path, error)
        with suppress(OSError):
            path.unlink()
    return _find_in_journals(folder, sizes, keys)


def remove(folder: Path) -> None:
    """Take the indexes of a folder away: one of its journals has lost lines."""
    for path in folder.glob(".index-*"):
        path.unlink(missing_ok=True)


def _path(folder: Path) -> Path:
    host = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
    return folder / f".index-{VERSION}-{host}.sqlite"


def _sizes(folder: Path) -> dict[str, int]:
    """The journals of a folder with their sizes in bytes."""
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(".jsonl")}


def _find_in_index(path: Path, own: str, sizes: Mapping[str, int], keys: Collection[str]) -> Found:
    with closing(sqlite3.connect(path, timeout=WAIT, isolation_level=None)) as database:
        database.executescript(TABLES)
        names = {own, *sizes}
        if _behind(database, sizes) or _lacks_journal(database, path, names):
            database.execute("BEGIN IMMEDIATE")  # another process may have caught up in the meantime
            if _lacks_journal(database, path, names):  # others may have its items, too: all are read again
                database.execute("DELETE FROM item")
                database.execute("DELETE FROM file")
            for name, indexed in _behind(database, sizes).items():
                _catch_up(database, path.with_name(name), indexed, sizes[name])
            database.execute("COMMIT")
        select = "SELECT name, start, item.size FROM item JOIN file ON file.id = item.file WHERE key = ?"
        rows = ((key, database.execute(select, (key,)).fetchone()) for key in keys)
        return {key: (row[0], lines.Place(*row[1:])) for key, row in rows if row}


def _lacks_journal(database: sqlite3.Connection, path: Path, names: Collection[str]) -> bool:
    """Whether a journal that is in the index has been deleted. names: journals that are there; later ones may be, too."""
    indexed = (name for (name,) in database.execute("SELECT name FROM file"))
    return any(name not in names and not path.with_name(name).exists() for name in indexed)


def _behind(database: sqlite3.Connection, sizes: Mapping[str, int]) -> dict[str, int]:
    """Journals that have another size than when they were last read, with the bytes that are in the index."""
    indexed = dict(database.execute("SELECT name, size FROM file"))
    return {name: indexed.get(name, 0) for name, size in sizes.items() if indexed.get(name, 0) != size}


def _catch_up(database: sqlite3.Connection, path: Path, indexed: int, size: int) -> None:
    """Read what is new in a journal; one that is shorter than before is read from its beginning."""
    database.execute("INSERT OR IGNORE INTO file (name, size) VALUES (?, 0)", (path.name,))
    (file,) = database.execute("SELECT id FROM file WHERE name = ?", (path.name,)).fetchone()
    if size < indexed:
        database.execute("DELETE FROM item WHERE file = ?", (file,))
        indexed = 0
    end = [indexed]
    database.executemany("INSERT OR REPLACE INTO item VALUES (?, ?, ?, ?)", _rows(path, file, end))
    database.execute("UPDATE file SET size = ? WHERE id = ?", (end[0], file))


def _rows(path: Path, file: int, end: list[int]) -> Iterator[tuple[str, int, int, int]]:
    """Rows of the index for the lines of a journal from a position on, which is moved behind each line."""
    for key, place in lines.scan(path, end[0], in_use=True):
        yield key, file, *place
        end[0] = place.start + place.size + 1


def _find_in_journals(folder: Path, names: Iterable[str], keys: Iterable[str]) -> Found:
    key_set = set(keys)
    return {
        key: (name, place)
        for name in sorted(names)
        for key, place in lines.scan(folder / name, in_use=True)
        if key in key_set
    }
