"""The ledger's process dies at every statement it sends to SQLite and at every call on its files.

Each death is a real one: os._exit in a forked child (fakes/ledger_life.py). What the child had been
answered must hold (guarantee 1), and the sums must be right (guarantee 13).
"""

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from generate.server.ledger.ledger import open_ledger
from generate.server.storage import schema
from generate.server.storage.blocks import bits_of
from tests.fakes.forking import Forking
from tests.fakes.ledger_life import FILE_CALLS
from tests.fakes.ledger_run import Run, audit

# it is processes that die here, so memory will do; a disk costs minutes
SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None


@pytest.fixture(scope="module")
def forked():
    with Forking("ledger_life") as forked:
        yield forked


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir=SHM) as name:
        yield Path(name)


def whole(ledger):
    """Guarantee 13 from the bottom: (done, held, counts)."""
    store = ledger.store
    if not store.has("d"):
        return {}, {}, None
    counts = ledger.queries.counts("d")
    done = {
        block * 1000 + n
        for block, bits in store.all("SELECT block, done FROM blocks")
        for n in range(1000)
        if bits_of(bits) >> n & 1
    }
    held = dict(store.all("SELECT idx, lease FROM held"))
    assert counts["done"] == len(done) and counts["leased"] == len(held)
    assert (
        counts["waiting"] + counts["leased"] + counts["done"] + counts["set_aside"]
        == counts["total"]
    )
    opened = store.one("SELECT SUM(open) FROM blocks")[0]
    suspects = store.one("SELECT COUNT(*) FROM trouble WHERE state = 'waiting'")[0]
    assert counts["waiting"] == opened + suspects
    return done, held, counts


def holds(ledger, facts):
    """What was answered is still true."""
    done, held, counts = whole(ledger)
    for fact in facts:
        if "defined" in fact:
            assert counts["total"] >= fact["defined"]
        assert set(fact.get("done", ())) <= set(done)
        for idx, lease in fact.get("held", {}).items():
            assert held[int(idx)] == lease, "an answered lease is gone"
        if "released" in fact:
            assert counts["given_back"]["preempted"] == fact["released"]
    failed = [fact["failed"] for fact in facts if "failed" in fact]
    if failed and len(failed) == 2:
        assert counts["set_aside"] == 0
    elif failed:
        assert [row["index"] for row in ledger.queries.failed("d")] in (failed[0], [])


def test_dies_at_every_step(folder, forked):
    """About 300 deaths; after each the next server finds what was answered."""
    number = 0
    deaths = 0
    while True:
        number += 1
        at = folder / str(number)
        at.mkdir()
        path = at / "ledger.sqlite"
        log = at / "answered"
        status = forked("die_at", path, 1, number, log)
        if status == 0:
            break
        assert status == 7, number
        deaths += 1
        facts = [json.loads(line) for line in log.read_text().splitlines()]
        ledger = open_ledger(path, 2, 0.0)
        assert not ledger.rebuilt, f"a death at step {number} is no damage: {ledger.store.lost}"
        holds(ledger, facts)
        ledger.close()
        shutil.rmtree(at)
    assert deaths > 200


def test_dies_while_a_torn_ledger_is_replaced(folder, forked):
    """However often the start dies half-way: at the end there is a whole ledger that says so."""
    whole_path = folder / "ledger.sqlite"
    assert forked("die_at", whole_path, 1, 10**9, folder / "answered") == 0
    torn = whole_path.read_bytes()[:6000]
    for number in range(1, 60):
        at = folder / f"torn{number}"
        at.mkdir()
        shutil.copytree(folder / "epochs", at / "epochs")
        (at / "ledger.sqlite").write_bytes(torn)
        status = forked("die_at", at / "ledger.sqlite", 2, number, at / "answered")
        assert status in (0, 7)
        ledger = open_ledger(at / "ledger.sqlite", 3, 0.0)
        whole(ledger)
        assert ledger.store.lost and ledger.rebuilt, (
            "the loss is told until a server has lived for a minute"
        )
        ledger.sweep(61.0)
        ledger.close()
        assert not open_ledger(at / "ledger.sqlite", 4, 0.0).rebuilt


def test_the_order_of_calls(tmp_path, monkeypatch):
    """A kill cannot show a missing fsync: the order is asserted."""
    calls = []
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"rubbish" * 2000)
    (tmp_path / "ledger.sqlite-journal").write_bytes(b"")
    for name in FILE_CALLS:
        real = getattr(os, name)
        monkeypatch.setattr(
            schema.os,
            name,
            lambda *args, real=real, name=name: (calls.append((name, str(args[0]))), real(*args))[
                1
            ],
        )
    ledger = open_ledger(path, 1, 0.0)
    names = [name for name, _ in calls]
    renamed = [path.rsplit("/")[-1] for name, path in calls if name == "rename"]
    assert renamed in (["ledger.sqlite-journal", "ledger.sqlite"], ["ledger.sqlite"])
    after = names.index("rename") + len(renamed)
    assert names[after : after + 3] == ["open", "fsync", "close"], (
        "the folder is synced after the renames"
    )
    assert names[-4:] == ["open", "pwrite", "fsync", "close"], (
        "the note outside of the database is on disk"
    )
    assert ledger.store.one("PRAGMA synchronous")[0] == 2
    assert ledger.store.one("PRAGMA locking_mode")[0] == "exclusive"
    ledger.close()


def test_a_torn_ledger_takes_its_journal_along(tmp_path):
    """Beside the new file it would be played into it."""
    run = Run(tmp_path)
    run.generate(run.lease(size=10))
    run.ledger.store.connection.close()
    data = run.path.read_bytes()
    run.path.write_bytes(data[:8192] + bytes(len(data) - 8192))
    (tmp_path / "ledger.sqlite-journal").write_bytes(b"")
    run.start()
    assert run.ledger.store.lost.startswith("torn")
    aside = {path.name for path in tmp_path.glob("ledger-torn-*")}
    assert aside == {"ledger-torn-2.sqlite", "ledger-torn-2.sqlite-journal"}


def test_a_ledger_on_a_failing_disk_is_not_torn(tmp_path, monkeypatch):
    """It cannot be read at this moment: nothing is moved aside, and the next start has it."""
    run = Run(tmp_path)
    grant = run.lease(size=10)
    run.ledger.store.connection.close()

    def fails(path, **kwargs):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(schema.sqlite3, "connect", fails)
        with pytest.raises(sqlite3.OperationalError, match="I/O"):
            run.open()
    run.restart()
    assert not run.ledger.rebuilt and run.held_by("a") == {grant.lease: ("d", grant.indices)}


@pytest.mark.parametrize("verb", ["lease", "complete", "fail", "release"])
def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path, verb):
    """SQLite cannot commit: the answer is an error, and memory and disk are as before."""
    run = Run(tmp_path)
    store = run.ledger.store
    grant = run.lease(size=4)
    before = list(store.connection.iterdump())
    leases = run.snapshot()
    calls = {
        "lease": lambda: run.lease("b", size=4),
        "complete": lambda: run.complete(grant, [0]),
        "fail": lambda: run.fail(grant, idx=0),
        "release": lambda: run.release(grant),
    }

    class FullDisk:
        """A connection whose last writes of each request fail."""

        def __getattr__(self, name):
            return getattr(connection, name)

        def execute(self, sql, *values):
            if sql.startswith("UPDATE server SET changes") or "answers" in sql[:20]:
                raise sqlite3.OperationalError("database or disk is full")
            return connection.execute(sql, *values)

    connection = store.connection
    store.connection = FullDisk()
    with pytest.raises(sqlite3.OperationalError, match="full"):
        calls[verb]()
    store.connection = connection
    assert list(connection.iterdump()) == before and run.snapshot() == leases
    assert calls[verb]()


class DeadDisk:
    """A connection for which every statement but ROLLBACK fails from .after statements on."""

    def __init__(self, connection, after):
        self.connection = connection
        self.after = after

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def execute(self, sql, *values):
        self.after -= 1
        if self.after < 0 and sql != "ROLLBACK":
            raise sqlite3.OperationalError("disk I/O error")
        return self.connection.execute(sql, *values)


@pytest.mark.parametrize("after", range(0, 30, 3))
def test_memory_follows_a_disk_that_was_away(tmp_path, after):
    """Not even what memory should be can be read: it is once the disk is back."""
    run = Run(tmp_path)
    store = run.ledger.store
    held = run.lease("a", size=4)
    connection = store.connection
    calls = [
        lambda: run.lease("b", size=4),
        lambda: run.release(held),
        lambda: run.complete(held, held.indices),
    ]
    for call in calls:
        store.connection = DeadDisk(connection, after)
        with contextlib.suppress(sqlite3.OperationalError):
            call()
        store.connection = connection
    assert run.lease("c", size=1).indices
    audit(run.ledger, "d")
    run.passes(130)
    assert not run.ledger.live.leases
    audit(run.ledger, "d")
