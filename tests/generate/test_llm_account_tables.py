"""The accounts of money on disk: nothing counts in memory that failed to be written."""

import random
import sqlite3

import pytest

from generate.llms import account_tables
from generate.llms.budget import KEEP_S, Accounts


class FailingDisk:
    """A connection whose writes fail, as EIO makes them, while .fails says so."""

    def __init__(self):
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.fails = lambda: False

    @property
    def in_transaction(self):
        return self.connection.in_transaction

    def execute(self, sql, *values):
        if sql.startswith(("insert", "delete", "commit")) and self.fails():
            raise sqlite3.OperationalError("disk I/O error")
        return self.connection.execute(sql, *values)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_granted_that_is_not_on_disk(seed):
    """Half of all writes fail: no client is told of a grant, no budget counts, but from disk."""
    draw = random.Random(seed)
    disk = FailingDisk()
    accounts = Accounts(disk, client_ttl_s=10)
    limits = {"budget_usd": 1.0, "call_usd": 0.05, "wanted_usd": 0.2, "backends": {"paid": {}}}
    accounts.register(limits)
    disk.fails = lambda: draw.random() < 0.5
    told = {}
    now = 0.0
    for _ in range(300):
        now += draw.choice([1.0, 1.0, 5.0, 2 * KEEP_S])
        client = f"c{draw.randrange(8)}"
        try:
            if draw.random() < 0.1:
                accounts.set_budget(budget_usd=draw.choice([1.0, 1.2]))
            told[client] = accounts.share(now, client)["granted_usd"]
        except sqlite3.OperationalError:
            continue
        fails, disk.fails = disk.fails, lambda: False
        again = Accounts(disk, client_ttl_s=10)
        disk.fails = fails
        assert again.granted() == pytest.approx(accounts.granted())
        assert again.budget_usd == accounts.budget_usd
        assert again.granted() <= 1.2 + 1e-9
        assert sum(told.values()) <= again.granted() + 1e-9
    assert accounts.granted() > 0.9


def test_rows_of_clients_that_ended_are_bounded(monkeypatch):
    """The newest stay; an older one that comes back is counted twice, never too little."""
    monkeypatch.setattr(account_tables, "PAST_KEPT", 10)
    accounts = Accounts(sqlite3.connect(":memory:"), client_ttl_s=10)
    accounts.register(
        {"budget_usd": 1e6, "call_usd": 0.05, "wanted_usd": 0.2, "backends": {"paid": {}}}
    )
    for k in range(100):
        accounts.share(2 * k * KEEP_S, f"c{k}")
    count = accounts.connection.execute("select count(*) from llm_past").fetchone()[0]
    assert count == 10
    assert accounts.granted() == pytest.approx(100 * 0.2)
    now = 2 * 100 * KEEP_S
    accounts.report(now, "c0", {"reported": 1, "granted_usd": 0.2, "usd": 0.1})
    assert accounts.granted() == pytest.approx(101 * 0.2)
    accounts.report(now, "c98", {"reported": 1, "granted_usd": 0.2, "usd": 0.1})
    assert accounts.granted() == pytest.approx(101 * 0.2), "it is known, and counted once"
