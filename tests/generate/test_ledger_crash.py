"""T2: the ledger's process dies at every statement it sends to SQLite and at every call on its own files, and is started again.

Each death is a real one: os._exit in a forked child (fakes/ledger_life.py). What the child had been answered must hold (promise 1), the sums must be right
(promise 13).
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from generate.server import schema as ledger_tables
from generate.server.ledger import Ledger
from generate.server.store import bits_of
from tests.fakes.forking import Forking
from tests.fakes.ledger_life import FILE_CALLS, WORKER

SHM = (
    "/dev/shm" if Path("/dev/shm").is_dir() else None
)  # it is processes that die here, so memory will do; a disk costs minutes


@pytest.fixture(scope="module")
def forked():
    with Forking("ledger_life") as forked:
        yield forked


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir=SHM) as name:
        yield Path(name)


def whole(ledger):
    """Promise 13 from the bottom, and what is promised of the facts."""
    if "d" not in ledger.names():
        return {}, {}, None
    counts = ledger.counts("d")
    done = {
        block * 1000 + n
        for block, bits in ledger.all("SELECT block, done FROM blocks")
        for n in range(1000)
        if bits_of(bits) >> n & 1
    }
    held = dict(ledger.all("SELECT idx, lease FROM held"))
    assert counts["done"] == len(done) and counts["leased"] == len(held)
    assert (
        counts["waiting"] + counts["leased"] + counts["done"] + counts["set_aside"]
        == counts["total"]
    )
    opened = ledger.one("SELECT SUM(open) FROM blocks")[0]
    assert (
        counts["waiting"]
        == opened + ledger.one("SELECT COUNT(*) FROM trouble WHERE state = 'waiting'")[0]
    )
    return done, held, counts


def holds(ledger, facts):
    done, held, counts = whole(ledger)
    for fact in facts:
        if "defined" in fact:
            assert counts["total"] >= fact["defined"]
        assert set(fact.get("done", ())) <= set(done)
        for idx, lease in fact.get("held", {}).items():
            assert held[int(idx)] == lease, "an answered lease is gone"
        if "given_back" in fact:
            assert counts["given_back"]["preempted"] == fact["given_back"]
    asides = [fact["set_aside"] for fact in facts if "set_aside" in fact]
    if asides and len(asides) == 2:
        assert counts["set_aside"] == 0
    elif asides:
        assert [row["index"] for row in ledger.set_aside("d")[1]] in (asides[0], [])


def test_dies_at_every_step(folder, forked):
    """About 300 deaths; after each the next server finds what was answered, and lives a whole life itself."""
    number, deaths = 0, 0
    while True:
        number += 1
        at = folder / str(number)
        at.mkdir()
        path, log = at / "ledger.sqlite", at / "answered"
        status = forked("die_at", path, 1, number, log)
        if status == 0:
            break
        assert status == 7, number
        deaths += 1
        facts = [json.loads(line) for line in log.read_text().splitlines()]
        ledger = Ledger(path, 2, 0.0)
        assert not ledger.rebuilt, f"a death at step {number} is no damage: {ledger.lost}"
        holds(ledger, facts)
        ledger.close()
        shutil.rmtree(at)
    assert deaths > 200


def test_dies_while_a_torn_ledger_is_replaced(folder, forked):
    """However often the start dies half-way: at the end there is a whole ledger that says that it was rebuilt, or a whole new one."""
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
        ledger = Ledger(at / "ledger.sqlite", 3, 0.0)
        whole(ledger)
        assert ledger.lost and ledger.rebuilt, (
            "the loss is told until a server has lived for a minute"
        )
        ledger.sweep(61.0)
        ledger.close()
        assert not Ledger(at / "ledger.sqlite", 4, 0.0).rebuilt


def test_the_order_of_calls(tmp_path, monkeypatch):
    """A kill cannot show a missing fsync: the order is asserted."""
    calls = []
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"rubbish" * 2000)
    (tmp_path / "ledger.sqlite-journal").write_bytes(b"")
    for name in FILE_CALLS:
        real = getattr(os, name)
        monkeypatch.setattr(
            ledger_tables.os,
            name,
            lambda *args, real=real, name=name: (calls.append((name, str(args[0]))), real(*args))[
                1
            ],
        )
    ledger = Ledger(path, 1, 0.0)
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
    assert (
        ledger.one("PRAGMA synchronous")[0] == 2
        and ledger.one("PRAGMA locking_mode")[0] == "exclusive"
    )
    ledger.close()


@pytest.mark.parametrize("verb", ["lease", "complete", "fail", "release"])
def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path, verb):
    """SQLite cannot commit (its page limit stands for a full disk): the answer is an error, and memory and disk are as before."""
    ledger = Ledger(tmp_path / "ledger.sqlite", 1, 0.0)
    ledger.define(0, {"name": "d", "total": 100, "images_per_prompt": 1, "order_seed": None})
    while work := ledger.next_check():
        ledger.folder_checked(0, *work, {})
    grant = ledger.lease(0, "d", "a", "r", WORKER, 4)
    before, deadlines = list(ledger.connection.iterdump()), dict(ledger.deadlines)
    calls = {
        "lease": lambda: ledger.lease(0, "d", "b", "r", WORKER, 4),
        "complete": lambda: ledger.complete(
            0, "a", "s", grant.lease, [{"index": 0, "images": 1}], {0: True}
        ),
        "fail": lambda: ledger.fail(
            0, "a", "s", grant.lease, [{"index": 0, "reason": "gpu", "error": "x"}]
        ),
        "release": lambda: ledger.release(0, "a", "s", grant.lease, "released"),
    }
    full = ledger_tables.sqlite3.OperationalError("database or disk is full")
    real = ledger.run
    ledger.run = lambda sql, *values: (
        (_ for _ in ()).throw(full)
        if sql.startswith("UPDATE server SET changes") or "answers" in sql
        else real(sql, *values)
    )
    with pytest.raises(ledger_tables.sqlite3.OperationalError, match="full"):
        calls[verb]()
    ledger.run = real
    assert list(ledger.connection.iterdump()) == before and ledger.deadlines == deadlines
    assert calls[verb]()
