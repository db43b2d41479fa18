"""SQLite files that others may have put there: SQLite itself waits for a pipe, for ever.

    database = open_to_read("sac_public_2022_06_29.sqlite")      # sqlite3.DatabaseError: a pipe …
    refuse_special(".server/ledger.sqlite")
    "generations" in plain_tables(database)                      # sqlite3.DatabaseError: a view …

SQLite also opens what lies beside a file: its journal, its write-ahead log.
"""

import contextlib
import os
import sqlite3
import stat
from pathlib import Path

STORED = "CREATE TABLE "  # as SQLite itself writes it; a virtual table is computed
BESIDE = ("", "-journal", "-wal", "-shm")


def refuse_special(path: str | os.PathLike[str]) -> None:
    """sqlite3.DatabaseError if the file, or one beside it, is a link, a pipe or a device."""
    for suffix in BESIDE:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(f"{os.fspath(path)}{suffix}").st_mode):
                name = os.path.basename(path)
                raise sqlite3.DatabaseError(f"{name}{suffix} is no regular file")


def open_to_read(path: str | os.PathLike[str], timeout_s: float = 0) -> sqlite3.Connection:
    """A connection that reads only. timeout_s: how long a lock of another process is waited for.

    sqlite3.DatabaseError: as of refuse_special(), but that the path itself may be a link.
    """
    real = os.path.realpath(path)  # as SQLite does: it looks beside the file that a link leads to
    refuse_special(real)
    return sqlite3.connect(f"{Path(real).as_uri()}?mode=ro", uri=True, timeout=timeout_s)


def refuse_computed(database: sqlite3.Connection, name: str) -> None:
    """sqlite3.DatabaseError unless `name` is a table whose rows are stored.

    SQLite takes it for `Name`, too.
    """
    found = database.execute(
        "SELECT type, sql FROM sqlite_master WHERE type IN ('table', 'view') "
        "AND name = ? COLLATE NOCASE",
        (name,),
    ).fetchall()
    if not found:
        raise sqlite3.DatabaseError(f"no such table: {name}")
    if any(kind != "table" or not str(sql).startswith(STORED) for kind, sql in found):
        raise sqlite3.DatabaseError(
            f"{name} is a view or a virtual table; only a plain one is read"
        )


def plain_tables(database: sqlite3.Connection) -> set[str]:
    """The names of all tables, in small letters: SQLite takes `Name` for `name`.

    sqlite3.DatabaseError if it holds anything but tables and indices: the rows of a view or of a
    virtual table are computed, so that they may have no end, or any size.
    """
    names = set()
    for kind, name, statement in database.execute("SELECT type, name, sql FROM sqlite_master"):
        if kind not in ("table", "index"):
            raise sqlite3.DatabaseError(f"it holds a {kind}; only tables and indices are read")
        if kind == "table":
            if not str(statement).startswith(STORED):
                raise sqlite3.DatabaseError("it holds a virtual table; only plain ones are read")
            names.add(name.lower())
    return names
