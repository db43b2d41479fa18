"""The ledger's tables; how its file is opened, and how a torn, lost or older copy is recognised.

    connection, lost = open_database(".server/ledger.sqlite", epoch, utc=None)

Stored are one bit for each index (done) and what is in progress: so the cost of a request does not
grow with the number of indices (guarantee 14). Beside it lie epochs/<n>, one exclusive file for
each server start, made by identity.claim_epoch(). About once a minute the number of commits is
written into it; by that an older copy of the database is recognised.

Names of tables and columns are older than the words of the code: marks are strikes, given_back
counts released indices, set_aside are those that failed permanently, known_good is the canary,
weather the health. Tests: tests/generate/test_ledger_crash.py.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from common.files import sync_folder
from common.sqlite_files import BESIDE, refuse_special
from common.untrusted import read_untrusted

SCHEMA = """
CREATE TABLE server (epoch INTEGER, next_lease INTEGER, changes INTEGER, utc REAL, lost TEXT,
    draining INTEGER DEFAULT 0, weather TEXT DEFAULT '{}');
CREATE TABLE datasets (name TEXT PRIMARY KEY, definition TEXT, version INTEGER, total INTEGER,
    waiting INTEGER, leased INTEGER DEFAULT 0, done INTEGER DEFAULT 0,
    set_aside INTEGER DEFAULT 0, images INTEGER DEFAULT 0, short INTEGER DEFAULT 0,
    short_images INTEGER DEFAULT 0) WITHOUT ROWID;
-- open = indices neither done, held nor troubled
-- position = place of the block in the order in which blocks are opened
CREATE TABLE blocks (dataset TEXT, block INTEGER, position INTEGER, size INTEGER, open INTEGER,
    done BLOB DEFAULT x'', images INTEGER DEFAULT 0, short INTEGER DEFAULT 0,
    short_images INTEGER DEFAULT 0, PRIMARY KEY (dataset, block)) WITHOUT ROWID;
CREATE INDEX open_blocks ON blocks (dataset, position) WHERE open > 0;
-- grace counts the restarts since the lease's last heartbeat
CREATE TABLE leases (lease TEXT PRIMARY KEY, dataset TEXT, version INTEGER, client_id TEXT,
    worker_key TEXT, worker TEXT, slurm_job TEXT, slurm_restart INTEGER, bare INTEGER,
    known_good INTEGER, probe INTEGER, grace INTEGER DEFAULT 0) WITHOUT ROWID;
CREATE INDEX leases_by_client ON leases (client_id);
CREATE TABLE held (dataset TEXT, idx INTEGER, lease TEXT, PRIMARY KEY (dataset, idx)) WITHOUT ROWID;
CREATE INDEX held_by_lease ON held (lease);
-- indices with a failure or a suspicion: leased alone; state waiting, leased or set_aside
CREATE TABLE trouble (dataset TEXT, idx INTEGER, state TEXT,
    PRIMARY KEY (dataset, idx)) WITHOUT ROWID;
CREATE INDEX trouble_by_state ON trouble (dataset, state, idx);
-- mark NULL = provisional
CREATE TABLE blames (n INTEGER PRIMARY KEY, dataset TEXT, idx INTEGER, worker_key TEXT,
    worker TEXT, mark REAL, time REAL, reason TEXT, error TEXT);
CREATE INDEX blames_by_index ON blames (dataset, idx);
CREATE INDEX blames_by_worker ON blames (worker_key);
CREATE TABLE quarantine (worker_key TEXT PRIMARY KEY, worker TEXT, since REAL, until REAL,
    pause REAL, failures INTEGER, errors TEXT, probe TEXT) WITHOUT ROWID;
CREATE TABLE errors (reason TEXT PRIMARY KEY, count INTEGER, time REAL, error TEXT,
    worker TEXT) WITHOUT ROWID;
CREATE TABLE given_back (dataset TEXT, reason TEXT, indices INTEGER,
    PRIMARY KEY (dataset, reason)) WITHOUT ROWID;
CREATE TABLE tallies (dataset TEXT, name TEXT, count INTEGER,
    PRIMARY KEY (dataset, name)) WITHOUT ROWID;
CREATE TABLE origins (dataset TEXT, kind TEXT, name TEXT, captions INTEGER, images INTEGER,
    rejected INTEGER, PRIMARY KEY (dataset, kind, name)) WITHOUT ROWID;
CREATE TABLE answers (n INTEGER PRIMARY KEY, client_id TEXT, request_id TEXT, answer TEXT,
    UNIQUE (client_id, request_id));
"""
Check = Callable[[sqlite3.Connection], object]
LATER = ("tallies", "origins")  # tables that older ledgers do not have


def unchecked(connection: sqlite3.Connection) -> None:
    """No check of the tables' contents."""


class EpochUsed(Exception):
    """The ledger was used under .stored, which is not below the epoch that this server claims."""

    def __init__(self, stored: int) -> None:
        super().__init__(f"the ledger was used under epoch {stored}")
        self.stored = stored


def open_database(
    path: Path, epoch: int, utc: float | None = None, check: Check = unchecked
) -> tuple[sqlite3.Connection, str | None]:
    """(connection, lost): the ledger's file, with this server's epoch in it before any grant.

    lost: None, or why it is not what the last server left: "deleted", "torn: …" (moved aside, a
    new one begun) or "rolled back". utc: Unix time at which now was 0; times stored by an earlier
    server are moved to this one's. check: raises sqlite3.DatabaseError where the tables hold what
    cannot be read: torn, too. Raises sqlite3.OperationalError while another process holds the
    file ("database is locked"), or when the disk fails: the file is then left as it is. Raises
    EpochUsed if a higher epoch is to be claimed.
    """
    lost = None
    (path.parent / "epochs").mkdir(exist_ok=True)
    noted_epoch, noted = _last_note(path.parent)
    if noted_epoch and not path.exists():
        lost = "deleted"
    try:
        refuse_special(path)
        connection = _connect(path, check)
        stored, changes = connection.execute("SELECT epoch, changes FROM server").fetchone()
        if stored >= epoch:
            connection.close()
            raise EpochUsed(stored)  # files are missing in epochs/
        if not lost and (stored, changes) < (noted_epoch, noted):
            lost = "rolled back"
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        lost = f"torn: {error}"
        _move_aside(path, epoch)
        connection = _connect(path, check)
    connection.execute("BEGIN IMMEDIATE")
    before, lost_before = connection.execute("SELECT utc, lost FROM server").fetchone()
    # the server that replaced the file may have died before it reported that
    lost = lost or lost_before
    if utc is not None and before is not None:
        _move_times(connection, before - utc)
    connection.execute(
        "UPDATE server SET epoch = ?, next_lease = 1, utc = ?, lost = ?, changes = changes + 1",
        (epoch, utc, lost),
    )
    connection.execute("COMMIT")
    return connection, lost


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is no ledger, rather than held by another process or on a failing disk."""
    code = getattr(error, "sqlite_errorcode", None)  # None: raised here, by a check
    damage = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
    return code is None or code & 0xFF in damage


def _move_aside(path: Path, epoch: int) -> None:
    """Rename a torn ledger: its journal first, or it would be played into the new file."""
    for suffix in reversed(BESIDE):
        if os.path.lexists(f"{path}{suffix}"):
            os.rename(f"{path}{suffix}", path.with_name(f"ledger-torn-{epoch}.sqlite{suffix}"))
    sync_folder(path.parent)


def _connect(path: Path, check: Check) -> sqlite3.Connection:
    # no waiting for a lock: the server tries again for as long as the one before it may live
    connection = sqlite3.connect(path, timeout=0, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        # a write-ahead log needs shared memory, which a network disk has not
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN EXCLUSIVE")
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute("INSERT INTO server (epoch, next_lease, changes) VALUES (0, 1, 0)")
        for name in LATER:
            if not connection.execute(f"PRAGMA table_info({name})").fetchone():
                connection.execute(SCHEMA[SCHEMA.index(f"CREATE TABLE {name}") :].partition(";")[0])
        connection.execute("COMMIT")
        verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok" or not connection.execute("SELECT epoch FROM server").fetchone():
            raise sqlite3.DatabaseError(verdict)
        check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _move_times(connection: sqlite3.Connection, by: float) -> None:
    for table, columns in (
        ("blames", ("time",)),
        ("errors", ("time",)),
        ("quarantine", ("since", "until")),
    ):
        changes = ", ".join(f"{column} = {column} + ?" for column in columns)
        connection.execute(f"UPDATE {table} SET {changes}", (by,) * len(columns))
    health = json.loads(connection.execute("SELECT weather FROM server").fetchone()[0])
    health.update({name: health[name] + by for name in ("since", "probe_at") if name in health})
    connection.execute("UPDATE server SET weather = ?", (json.dumps(health),))


def _last_note(folder: Path) -> tuple[int, int]:
    """(epoch, commits) as last noted outside the database; (0, 0) = never."""
    noted = [(0, 0)]
    for name in os.listdir(folder / "epochs"):
        # a note that cannot be read is none: what is noted only guards against older copies
        with contextlib.suppress(OSError, ValueError):
            noted.append((int(name), int(read_untrusted(folder / "epochs" / name, 100))))
    return max(noted)


def note_changes(folder: Path, epoch: int, changes: int) -> None:
    """Leave the number of commits outside the database.

    A note cut short by a crash is no number, or one too small: both do no harm.
    """
    handle = os.open(folder / "epochs" / str(epoch), os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(handle, f"{changes:020d}\n".encode(), 0)
    os.fsync(handle)
    os.close(handle)
