"""A ledger that SQLite can read and the server cannot: it is kept, and a new one is begun."""

import json
import os
import sqlite3

import pytest

from generate.llms.budget import Accounts
from generate.server.ledger.ledger import open_ledger
from tests.fakes.ledger_run import A, B, Run
from tests.fakes.running_server import finish, granted, until

ERROR = {"time": 3.0, "reason": "gpu", "error": "CUDA", "worker": A}
EDITS = [
    "UPDATE server SET epoch = 'x'",
    "UPDATE server SET epoch = NULL",
    "UPDATE server SET epoch = 999999999999",
    "UPDATE server SET utc = 'x'",
    "UPDATE server SET utc = 9e999",
    "UPDATE server SET changes = x'ff'",
    "UPDATE server SET weather = '['",
    'UPDATE server SET weather = \'{"since": "x"}\'',
    "UPDATE server SET lost = CAST(x'ff' AS TEXT)",
    "INSERT INTO server SELECT * FROM server",
    "UPDATE datasets SET definition = '[]'",
    "UPDATE datasets SET definition = '{\"total\": 1e400}'",
    "UPDATE datasets SET definition = json_set(definition, '$.name', 'other')",
    "UPDATE datasets SET total = 'x'",
    "UPDATE datasets SET total = 9223372036854775807",
    "UPDATE datasets SET total = total + 1",
    "UPDATE blocks SET open = 'x'",
    "UPDATE blocks SET size = -1",
    "UPDATE blocks SET done = 'x'",
    "UPDATE leases SET worker = '7'",
    "UPDATE errors SET worker = 'z'",
    "UPDATE errors SET error = x'ff'",
    "UPDATE blames SET worker = '{\"host\": 7}'",
    "UPDATE quarantine SET worker = '['",
    "UPDATE quarantine SET errors = '[{}]'",
    "UPDATE quarantine SET until = 1e99",
    "UPDATE llm_facts SET value = '['",
    "UPDATE llm_facts SET value = '\"x\"'",
    "UPDATE llm_facts SET value = '['; ALTER TABLE llm_facts RENAME TO other; "
    "ALTER TABLE other RENAME TO LLM_FACTS",
    'UPDATE llm_clients SET use = \'{"backends": {"a": {"calls": "x"}}}\'',
    'UPDATE llm_clients SET use = \'{"backends": {"a": {"because": {}}}}\'',
    "UPDATE llm_clients SET granted_usd = 'x'",
    "DROP TABLE held",
    "ALTER TABLE given_back DROP COLUMN indices",
    "CREATE TRIGGER t AFTER UPDATE ON server BEGIN SELECT RAISE(ABORT, 'boo'); END",
    "CREATE VIEW v AS SELECT * FROM server",
    "CREATE VIRTUAL TABLE v USING fts5(x)",
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The bytes of a ledger with a row in every table that the server's work can fill."""
    run = Run(tmp_path_factory.mktemp("ledger"), total=3000)
    connection = run.ledger.store.connection
    accounts = Accounts(connection)
    accounts.register({"budget_usd": 5.0, "backends": {"a": {"requests_per_minute": 5}}})
    use = {"wanted_usd": 1.0, "usd": 0.5, "backends": {"a": {"calls": 3, "state": "healthy"}}}
    accounts.report(run.now, "a", use)
    accounts.share(run.now, "a")
    run.generate(run.lease(size=10, slurm=("7", 0)))
    run.lease("b", worker=B, size=2)
    run.fail(run.lease(size=3))
    connection.execute(
        "INSERT INTO quarantine VALUES ('k', ?, 1.0, 2.0, 3.0, 4, ?, NULL)",
        (json.dumps(A), json.dumps([ERROR])),
    )
    run.ledger.close()
    return run.path.read_bytes()


def opened(folder, epoch=9):
    ledger = open_ledger(folder / "ledger.sqlite", epoch, 0.0)
    lost = ledger.store.lost
    ledger.close()
    return lost


def test_what_the_server_wrote_is_not_torn(tmp_path, written):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(written)
    with sqlite3.connect(path) as connection:
        for table in ("errors", "blames", "leases", "quarantine", "llm_facts", "llm_clients"):
            assert connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0], table
    connection.close()
    assert opened(tmp_path) is None


@pytest.mark.parametrize("edit", EDITS)
def test_a_value_that_cannot_be_read_makes_the_ledger_torn(tmp_path, written, edit):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(written)
    with sqlite3.connect(path) as connection:
        connection.executescript(edit)
    connection.close()
    edited = path.read_bytes()
    lost = opened(tmp_path)
    assert lost.startswith("torn: ") and "\n" not in lost
    assert (tmp_path / "ledger-torn-9.sqlite").read_bytes() == edited
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE server SET lost = NULL")
    connection.close()
    assert opened(tmp_path, 10) is None


PUT = {
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
    "a link to nowhere": lambda path: os.symlink("nowhere", path),
    "a device": lambda path: os.symlink("/dev/zero", path),
}


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal", "-shm"])
@pytest.mark.parametrize("kind", PUT)
def test_what_is_no_regular_file_is_moved_aside(tmp_path, written, kind, suffix):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(written)
    place = path.with_name(f"{path.name}{suffix}")
    place.unlink(missing_ok=True)
    PUT[kind](place)
    before = os.lstat(place)
    assert opened(tmp_path) == f"torn: {place.name} is no regular file"
    assert os.path.samestat(os.lstat(tmp_path / f"ledger-torn-9.sqlite{suffix}"), before)
    assert path.is_file() and not path.is_symlink()
    assert not os.path.lexists(tmp_path / "nowhere")


def test_a_pipe_in_the_ledgers_place_while_the_server_runs(start):
    server = start()
    client = server.client(server_timeout_s=60)
    first = granted(client)
    finish(client, first)
    path = server.root / ".server" / "ledger.sqlite"
    path.unlink()
    os.mkfifo(path)
    until(lambda: server.answers(1), "the server to start anew", 30)
    second = granted(client, seconds=60)
    assert not set(second.indices) & set(first.indices), "what lies in the folder is done"
    assert "ledger.sqlite is no regular file" in server.log() and "Traceback" not in server.log()
