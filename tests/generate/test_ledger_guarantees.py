"""The ledger's guarantees 1 to 8, one or more tests each, named for it.

tests/mutations/run.py shows that each can fail. Guarantees 9 to 11, about whose fault a failure is:
test_ledger_blame.py; 12 to 16: test_ledger_counts.py.
"""

import sqlite3

import pytest

from generate.protocol.answers import Wait
from generate.server.storage import stored_answers
from generate.server.storage.blocks import bits_of
from tests.fakes.ledger_run import A, B, Run


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_guarantee_01_durable_before_the_reply(run):
    assert run.ledger.store.one("PRAGMA synchronous")[0] == 2
    assert run.ledger.store.one("PRAGMA journal_mode")[0] == "delete"
    grant = run.lease(size=4)
    run.generate(grant, grant.indices[:1])
    run.fail(grant, idx=grant.indices[1])
    assert not run.ledger.store.connection.in_transaction
    run.ledger.store.connection.close()
    with sqlite3.connect(run.path) as reader:
        assert reader.execute("SELECT idx FROM held ORDER BY idx").fetchall() == [(2,), (3,)]
        assert bits_of(reader.execute("SELECT done FROM blocks").fetchone()[0]) == 1


def test_guarantee_02_first_completion_stands_and_names_are_looked_at(run):
    first = run.lease(size=2)
    assert run.complete(first, [0], exists=False) == {0: "missing"}
    assert run.generate(first, [0]) == {0: "accepted"}
    run.passes(200)
    second = run.lease("b", B, 2)
    assert 0 not in second.indices and 1 in second.indices
    assert run.generate(first, [0, 1]) == {0: "already_done", 1: "stale"}
    assert run.counts()["done"] == 1


def test_guarantee_02_extension_reopens_what_is_missing(run):
    run.generate(run.lease(size=10))
    run.folder[3] = 2
    run.per = 2
    run.define(images_per_prompt=2)
    assert run.ledger.store.version("d") == 2
    assert isinstance(run.lease(size=5), Wait), (
        "nothing is granted before the folder was compared by the new count"
    )
    run.check()
    assert run.done_in(0) == {3} and run.counts()["images"] == 2
    run.define(images_per_prompt=2, total=2500, prompts_sha256="1")
    assert run.ledger.store.version("d") == 3
    run.check()
    assert run.counts()["waiting"] == 2499


def test_guarantee_03_one_lease_an_index_and_names_that_never_repeat(run):
    grants = [run.lease(f"c{n}", A, 10) for n in range(4)]
    indices = [idx for grant in grants for idx in grant.indices]
    assert len(set(indices)) == len(indices)
    copy = run.path.read_bytes()
    later = run.lease("late", A, 10)
    run.ledger.store.note_changes()
    run.ledger.store.connection.close()
    run.path.write_bytes(copy)
    run.open()
    run.check()
    assert run.ledger.rebuilt and run.ledger.store.lost == "rolled back"
    assert run.lease("new").lease not in {grant.lease for grant in [*grants, later]}
    assert run.heartbeat("late", [later.lease]).stale == [later.lease]
    assert run.fail(later, "late").stale
    assert not run.release(later, "late")


def test_guarantee_03_the_folder_is_compared_before_a_grant(run):
    run.generate(run.lease(size=5))
    run.folder = {7: 1}
    run.restart(check=False)
    assert isinstance(run.lease(size=5), Wait)
    run.check()
    assert run.done_in(0) == {7}
    assert run.lease(size=8).indices == [0, 1, 2, 3, 4, 5, 6, 8]


def test_guarantee_03_accepted_while_the_folder_is_read(run):
    """A completion between the listing and its report is not undone by it."""
    grant = run.lease(size=3)
    run.restart(check=False)
    work = run.ledger.comparison.next_check()
    run.generate(grant)
    run.ledger.comparison.folder_checked(*work, {})
    assert run.done_in(0) == set(grant.indices)


def lines_of(store, but=('"answers"', '"server"')):
    """The whole database as SQL, but for these tables."""
    return [line for line in store.connection.iterdump() if not any(table in line for table in but)]


def test_guarantee_04_a_lease_that_is_over_changes_nothing(run):
    grant = run.lease(size=3)
    run.passes(200)
    other = run.lease("b", B, 3)
    before = lines_of(run.ledger.store)
    assert run.generate(grant) == dict.fromkeys(grant.indices, "stale")
    assert run.fail(grant).stale
    assert lines_of(run.ledger.store) == before
    assert run.generate(other, client="b")[other.indices[0]] == "accepted"


def test_guarantee_04_another_clients_lease_cannot_be_used(run):
    """Neither renewed, completed, failed nor released."""
    grant = run.lease("a", size=3)
    run.passes(60)
    before = lines_of(run.ledger.store)
    leases = run.snapshot()
    assert run.heartbeat("b", [grant.lease]).stale == [grant.lease]
    assert set(run.complete(grant, grant.indices, "b").values()) == {"stale"}
    assert run.fail(grant, "b").stale == [grant.lease]
    assert run.release(grant, "b") is False
    assert lines_of(run.ledger.store) == before and run.snapshot() == leases
    assert set(run.generate(grant).values()) == {"accepted"}


def test_guarantee_03_a_client_holds_two_leases(run):
    """One that it generates, one whose prompts are being asked for."""
    leases = [run.lease("a"), run.lease("a")]
    third = run.lease("a")
    assert isinstance(third, Wait) and "two leases" in third.reason
    run.release(leases[0])
    assert run.lease("a").lease


def test_guarantee_05_a_late_sweep_adds_its_lateness(run):
    grant = run.lease()
    run.now += 500  # the server stood still: nobody could send a heartbeat
    assert run.ledger.sweep(run.now) == []
    run.passes(100)
    assert run.held_by("a")
    run.passes(25)
    assert not run.held_by("a")
    assert run.heartbeat("a", [grant.lease]).stale


def test_guarantee_05_a_standstill_is_no_lack_of_progress(run):
    """stall_s is 900: 600 s without a new image, and 500 in which nobody could be heard."""
    grant = run.lease()

    def generates(seconds):
        for _ in range(seconds // 10):
            run.passes(10)
            run.heartbeat("a", [grant.lease], "drawing", images=5)

    generates(600)
    run.now += 500
    run.ledger.sweep(run.now)
    generates(200)
    assert run.held_by("a")
    generates(300)
    assert not run.held_by("a"), "1,100 s of its own"


def test_guarantee_05_a_standstill_makes_nobody_silent(run):
    run.lease("a")
    run.lease("b", B)
    run.now += 500
    run.ledger.sweep(run.now)
    assert len(run.ledger.live.active(run.now)) == 2
    ages = [run.now - row["heard_at"] for row in run.ledger.queries.workers(run.now)]
    assert ages and max(ages) <= 1.0


def test_guarantee_05_only_a_client_that_generates_must_show_progress(run):
    waiting = run.lease("waiting")
    hung = run.lease("hung", B)
    for _ in range(200):
        run.passes(10)
        run.heartbeat("waiting", [waiting.lease], "waiting_llm", images=0)
        run.heartbeat("hung", [hung.lease], "drawing", images=5)
    assert run.held_by("waiting") and not run.held_by("hung")


def test_guarantee_06_a_restart_keeps_leases_but_not_the_dead_for_ever(run):
    alive = run.lease("alive")
    run.lease("dead")
    for _ in range(12):  # a server that dies once a minute
        run.restart()
        run.passes(10)
        run.heartbeat("alive", [alive.lease], "drawing", images=run.now)
        run.passes(50, {"alive": [alive.lease]})
    assert run.held_by("alive") and not run.held_by("dead")
    run.restart()
    run.passes(100)
    assert run.held_by("alive"), "one TTL of grace"


def test_guarantee_07_a_repeat_gets_the_stored_answer(run):
    grant = run.lease(request="once", size=3)
    assert run.lease(request="once", size=3) == grant
    first = run.complete(grant, grant.indices[:2], request="twice")
    run.restart(check=False)
    again = run.complete(grant, grant.indices[:2], request="twice")
    assert again == first == dict.fromkeys(grant.indices[:2], "accepted")
    assert run.counts()["leased"] == 1 and run.counts()["done"] == 2


def test_guarantee_07_stored_answers_are_bounded(run, monkeypatch):
    monkeypatch.setattr(stored_answers, "KEPT", 10)
    for _ in range(30):
        run.release(run.lease())
    assert run.ledger.store.one("SELECT COUNT(*) FROM answers")[0] == 10


def test_guarantee_07_a_bare_request_gets_its_lease_again(run):
    grant = run.lease("job:5", request=None, size=5)
    run.passes(1000)
    assert run.lease("job:5", request=None, size=5) == grant
    run.complete(grant, grant.indices[:3], "job:5", request=None)
    assert run.lease("job:5", request=None, size=5).indices == grant.indices[3:]
    run.complete(grant, grant.indices[3:], "job:5", request=None)
    assert not set(run.lease("job:5", request=None, size=5).indices) & set(grant.indices)


def test_guarantee_08_only_the_unfinished_rest_is_released(run):
    grant = run.lease(size=10)
    run.generate(grant, grant.indices[:7])
    assert run.release(grant, reason="preempted")
    assert run.counts()["given_back"] == {"preempted": 3} and run.counts()["done"] == 7
    assert run.lease("b", B, 10).indices[:3] == grant.indices[7:]
    assert run.strikes(grant.indices[7]) == 0
