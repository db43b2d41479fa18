"""The ledger's guarantees 12 to 16: when all is done, counts, costs, one file, money.

tests/mutations/run.py shows that each test can fail.
"""

import json
import sqlite3

import pytest

from generate.llms.budget import Accounts
from generate.protocol.answers import AllDone, Grant, Wait, WorkLeft
from generate.server.ledger.granting import WorkRequest
from generate.server.ledger.ledger import open_ledger
from generate.server.storage.schema import EpochUsed
from tests.fakes.ledger_run import A, B, C, Run, audit


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_guarantee_12_come_back_is_not_all_done(tmp_path):
    run = Run(tmp_path, total=2)
    first = run.lease()
    second = run.lease("b", B)
    assert isinstance(run.lease("c", C), Wait)
    assert isinstance(run.ledger.peek(run.now, "d"), WorkLeft)
    run.generate(first)
    run.generate(second, client="b")
    del run.folder[0]
    assert isinstance(run.lease(), Wait), "the folder is compared first"
    run.check()
    again = run.lease()
    assert again.indices == [0], "what is missing is generated again"
    run.generate(again)
    run.lease()
    run.check()
    assert isinstance(run.lease(), AllDone)
    assert isinstance(run.ledger.peek(run.now, "d"), AllDone)


def test_guarantee_12_chunks_shrink_to_one(tmp_path):
    run = Run(tmp_path, total=200)
    sizes = []
    for _ in range(1000):
        for client in ("a", "b"):
            grant = run.lease(client, A, 50)
            if not isinstance(grant, Grant):
                assert sizes[0] == 50 and sizes[-1] == 1 and sorted(sizes, reverse=True) == sizes
                return
            sizes.append(len(grant.indices))
            run.generate(grant, client=client)


def test_guarantee_13_the_sum_is_a_check_that_can_fail(run, caplog):
    grant = run.lease(size=5)
    run.generate(grant, grant.indices[:2])
    counts = run.counts()
    assert counts.pop("images") == 2 and counts.pop("given_back") == {}
    assert counts == {
        "total": 100,
        "waiting": 95,
        "leased": 3,
        "done": 2,
        "set_aside": 0,
        "short": 0,
        "short_images": 0,
    }
    run.ledger.store.run("UPDATE blocks SET open = open - 1")
    with pytest.raises(AssertionError):
        audit(run.ledger, "d")
    assert len(run.lease("b", B, 10).indices) == 10
    audit(run.ledger, "d")
    assert "counts were wrong" in caplog.text


def steps_of_a_lease(run):
    """Steps of SQLite's virtual machine for a lease and its completion."""
    steps = 0

    def step():
        nonlocal steps
        steps += 1

    run.generate(run.lease(size=10))
    run.ledger.store.connection.set_progress_handler(step, 1)
    for _ in range(5):
        run.generate(run.lease(size=10))
    run.ledger.store.connection.set_progress_handler(None, 0)
    return steps


class EmptyFolderRun(Run):
    """Its folder is known to be empty: to compare 300,000 folders takes a minute."""

    def check(self):
        self.ledger.comparison.compared["d"][:] = b"\1" * len(self.ledger.comparison.compared["d"])


def test_guarantee_14_a_request_costs_the_same_at_a_thousandfold_total(tmp_path):
    small = Run(tmp_path, total=300_000, seed=1)
    (tmp_path / "large").mkdir()
    large = EmptyFolderRun(tmp_path / "large", total=300_000_000, seed=1)
    assert steps_of_a_lease(large) <= 1.2 * steps_of_a_lease(small)
    assert large.path.stat().st_size < 300_000_000 / 8, "within the bit an index"


def test_guarantee_14_the_order_is_a_seeded_permutation_of_blocks(tmp_path):
    def order(name, seed):
        (tmp_path / name).mkdir()
        store = Run(tmp_path / name, total=20_000, seed=seed).ledger.store
        return [block for (block,) in store.all("SELECT block FROM blocks ORDER BY position")]

    assert order("a", None) == list(range(20)) != order("b", 5) == order("c", 5)
    assert sorted(order("d", 6)) == list(range(20))
    assert order("e", 6) != order("f", 5)


def test_guarantee_15_the_file_has_one_server_and_a_lost_one_is_rebuilt(run):
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_ledger(run.path, 2, run.now)
    grant = run.lease(size=10)
    run.generate(grant, grant.indices[:4])
    run.ledger.store.connection.close()
    run.path.unlink()
    run.start()
    assert run.ledger.rebuilt and run.ledger.store.lost == "deleted"
    assert run.counts()["done"] == 4
    assert run.heartbeat("a", [grant.lease]).stale, "leases are void"
    run.ledger.store.connection.close()
    with pytest.raises(EpochUsed, match="epoch"):
        open_ledger(run.path, 1, run.now)


def test_guarantee_15_a_torn_file_is_recognised(run):
    run.generate(run.lease(size=10))
    run.ledger.store.connection.close()
    data = run.path.read_bytes()
    for n, torn in enumerate(
        (b"", b"rubbish" * 1000, data[:5000], data[:8192] + bytes(len(data) - 8192))
    ):
        run.path.write_bytes(torn)
        run.start()
        assert run.ledger.rebuilt and run.counts()["done"] == 10, n
        run.ledger.store.connection.close()


def test_guarantee_16_accounts_commit_with_the_ledger(run):
    """Others' tables share the commit; a failure undoes both, and memory follows the disk."""
    connection = run.ledger.store.connection
    connection.execute("CREATE TABLE money (usd REAL)")
    with pytest.raises(ZeroDivisionError), run.ledger.transaction(run.now):
        connection.execute("INSERT INTO money VALUES (1)")
        run.lease(size=3)
        raise ZeroDivisionError
    assert run.counts()["leased"] == 0
    assert not run.ledger.live.leases
    assert not run.ledger.store.all("SELECT * FROM money")
    run.passes(300)
    assert len(run.lease(size=3).indices) == 3


def test_guarantee_16_the_cap_is_never_passed(run):
    """Shares of the money are on disk before they are spent; a dead client's count as spent."""
    accounts = Accounts(run.ledger.store.connection)
    accounts.register(
        {"budget_usd": 1.0, "call_usd": 0.1, "wanted_usd": 0.4, "backends": {"paid": {}}}
    )
    granted = [accounts.share(run.now, f"c{n}")["granted_usd"] for n in range(5)]
    assert granted[:2] == [0.4, 0.4] and sum(granted) <= 1.0 + 1e-9
    again = Accounts(run.ledger.store.connection)
    assert again.share(run.now, "a new one")["granted_usd"] == 0
    assert again.spent() == pytest.approx(1.0)


def test_what_changes_nothing_is_no_commit(run):
    """A sweep of nothing, a completion that the folder does not show: no sync, no change."""

    def state():
        changes = run.ledger.store.one("SELECT changes FROM server")[0]
        return changes, run.path.read_bytes()

    grant = run.lease(size=2)
    before = state()
    run.complete(grant, grant.indices, exists=False)
    run.ledger.sweep(run.now)
    run.ledger.retry_failed("d", [5])
    run.ledger.slurm_seen(run.now, {})
    assert state() == before
    run.ledger.store.drain()
    assert state()[0] == before[0] + 1


def test_another_data_sets_workers_judge_nothing(run):
    """One who works on another data set will not come for this one's suspects."""
    run.define(name="other")
    run.generate(run.lease(size=50))
    while isinstance(grant := run.lease(size=50), Grant) and run.counts()["waiting"]:
        run.generate(grant)
    run.ledger.lease(run.now, WorkRequest("other", "b", "x", B))
    run.fail(grant)
    assert run.lease().indices == grant.indices


def test_a_ledger_of_an_earlier_version_opens(run):
    """Its words for health and its stored answers are read."""
    grant = run.lease(request="once", size=2)
    store = run.ledger.store
    weather = {
        "state": "storm",
        "since": run.now,
        "reason": "disk",
        "probe_at": run.now + 600,
        "pause": 600,
        "probe": None,
    }
    answer = {"lease": grant.lease, "indices": grant.indices, "ttl_s": 120, "known_good": False}
    store.run("UPDATE server SET weather = ?", json.dumps(weather))
    store.run("UPDATE answers SET answer = ?", json.dumps(answer))
    run.restart()
    assert run.ledger.queries.health()["state"] == "halted"
    assert run.lease(request="once", size=2) == grant
    assert isinstance(run.lease("b", B), Wait)
    run.now += 601
    assert run.lease("b", B).canary
