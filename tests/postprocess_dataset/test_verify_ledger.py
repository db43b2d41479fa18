"""verify_dataset.py and the job server's ledger: they agree, differ, or it is damaged."""

import contextlib
import os
import shutil
import sqlite3

import pytest

from generate.server.storage.schema import SCHEMA
from tests.postprocess_dataset.verified import kinds, verify


def ledger(root, done):
    """A real ledger's tables, with so many of the 8 prompts done."""
    path = root / ".server/ledger.sqlite"
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.executescript(SCHEMA)
        database.execute(
            "INSERT INTO datasets (name, definition, version, total, waiting, done) "
            "VALUES ('HPDv2', '{}', 1, 8, ?, ?)",
            (8 - done, done),
        )
        for block, bits in ((0, 0b11111 << 995), (1, 0b111)):
            blob = bits.to_bytes(125, "little")
            if block == 1 and done < 8:
                blob = (bits >> 1).to_bytes(125, "little")
            database.execute(
                "INSERT INTO blocks (dataset, block, position, size, open, done) "
                "VALUES ('HPDv2', ?, 0, 1000, 0, ?)",
                (block, blob),
            )
    database.close()
    return path


def test_the_ledger_agrees_or_is_named(root):
    ledger(root, 8)
    ended = verify(root, "--output_root", root)
    assert ended.status == 0, ended.out + ended.err
    shutil.rmtree(root / ".server")
    ledger(root, 7)
    assert kinds(verify(root, "--output_root", root)) == {"ledger_differs": 1}
    path = root / ".server/ledger.sqlite"
    with sqlite3.connect(path) as database:  # prompt 1002 has failed permanently
        database.execute("UPDATE datasets SET waiting = 0, set_aside = 1")
        database.execute("INSERT INTO trouble VALUES ('HPDv2', 1002, 'set_aside')")
    database.close()
    assert verify(root, "--output_root", root).status == 0
    with sqlite3.connect(path, isolation_level=None) as server:
        server.execute("BEGIN EXCLUSIVE")
        ended = verify(root, "--output_root", root)
    assert ended.status == 1 and "end the job server first" in ended.err


@pytest.mark.parametrize(
    "statement, says",
    [
        ("UPDATE datasets SET done = 'x'", "a value in its table datasets is of another type"),
        ("UPDATE datasets SET total = 1e999", "a value in its table datasets is of another type"),
        ("UPDATE blocks SET done = 'x'", "a value in its table blocks is of another type"),
        ("INSERT INTO trouble VALUES ('HPDv2', 'x', 'set_aside')", "its table trouble"),
        ("DROP TABLE trouble", "no such table"),
        ("CREATE VIEW other AS SELECT 1", "it holds a view"),
        ("CREATE TABLE LLM_FACTS (name, value)", "no such table"),
        (
            "CREATE TABLE llm_facts (name, value); CREATE TABLE llm_clients (use); "
            """INSERT INTO llm_clients VALUES ('{"backends": {"a": {"usd": 1e999}}}')""",
            "backends.a.usd is inf",
        ),
    ],
)
def test_a_ledger_of_other_values_is_named(root, statement, says):
    with contextlib.closing(sqlite3.connect(ledger(root, 8))) as database:
        database.executescript(statement)
        database.commit()
    ended = verify(root, "--output_root", root)
    assert ended.status == 1 and "ledger.sqlite is damaged" in ended.err and says in ended.err
    assert ended.err.count("\n") == 1


def test_a_pipe_beside_the_ledger_is_not_waited_for(root):
    os.mkfifo(f"{ledger(root, 8)}-journal")
    ended = verify(root, "--output_root", root)
    assert ended.status == 1 and "ledger.sqlite-journal is no regular file" in ended.err
