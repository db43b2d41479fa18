"""Promises 9 to 11 at the ledger: whose fault a failure or a death is, and who gets no work for it."""

import time

import pytest

from generate.protocol.answers import AllDone, Grant, Quarantined, Wait
from generate.server.ledger import Ledger
from tests.fakes.ledger_run import A, B, C, Run


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_promise_09_poison_is_set_aside_by_contrast(run):
    """Three workers fail it, each draws another index: three marks, and only then."""
    for n, (client, worker) in enumerate([("a", A), ("b", B), ("c", C)]):
        grant = run.lease(client, worker)
        assert grant.indices == [0] and grant.canary == (n > 0), (
            "a suspect is leased alone, beside a known-good text"
        )
        assert (
            run.fail(grant, client, "prompt").verdicts == {0: "retry elsewhere"}
            and run.marks(0) == n
        ), "a failure is provisional"
        other = run.lease(client, worker)
        assert other.indices != [0]
        run.draw(other, client=client)
        assert run.marks(0) == n + 1
    total, rows = run.ledger.set_aside("d")
    assert (
        total == 1
        and rows[0]["index"] == 0
        and len(rows[0]["errors"]) == 3
        and rows[0]["marks"] == 3
    )
    assert (
        run.ledger.retry_failed(run.now, "d", [0]) == 1
        and run.counts()["set_aside"] == 0
        and run.marks(0) == 0
    )


def test_promise_09_expiry_blames_only_what_was_being_drawn(run):
    grant = run.lease(size=10)
    run.ledger.beat(run.now, "a", [grant.lease], "drawing", [grant.indices[2]], 1)
    run.passes(200)
    assert [idx for (idx,) in run.ledger.all("SELECT idx FROM trouble")] == [
        grant.indices[2]
    ] and run.marks(grant.indices[2]) == 0.5
    assert run.lease("b", B, 10).indices == [grant.indices[2]], "a suspect is leased alone"


def test_promise_09_everybody_failing_is_the_worlds_fault(run):
    run.draw(run.lease("a", A))
    run.draw(run.lease("b", B), client="b")
    run.now += 10
    for _ in range(5):
        for client, worker in (("a", A), ("b", B)):
            grant = run.lease(client, worker)
            if isinstance(grant, Grant):
                run.fail(grant, client, "disk")
    assert run.ledger.weather()["state"] == "storm" and run.ledger.weather()["reason"] == "disk"
    assert (
        run.counts()["set_aside"] == 0
        and not run.ledger.all("SELECT * FROM trouble")
        and not run.ledger.quarantined()
    )
    assert isinstance(run.lease(), Wait)
    run.now += 601
    probe = run.lease()
    assert probe.canary and len(probe.indices) == 1 and isinstance(run.lease("b", B), Wait), (
        "one probe alone"
    )
    run.fail(probe, reason="disk", known_good=True)
    assert run.ledger.weather()["probe_at"] == run.now + 1200, (
        "a known-good text proves no disk; the pause doubles"
    )
    run.now += 1201
    run.draw(run.lease())
    assert run.ledger.weather()["state"] == "fair" and isinstance(run.lease("b", B), Grant)


def test_promise_09_a_run_of_nothing_but_poison_ends(tmp_path):
    run = Run(tmp_path, total=12)
    for _ in range(500):
        grant = run.lease(size=4)
        if isinstance(grant, AllDone):
            break
        if isinstance(grant, Wait):
            run.passes(grant.retry_after_s)
            run.check()
            continue
        run.fail(grant, reason="prompt", known_good=grant.canary)
        run.ledger.release(run.now, "a", run.request(), grant.lease, "released")
    assert isinstance(grant, AllDone) and run.counts()["set_aside"] == 12


def test_promise_10_a_broken_gpu_is_quarantined_and_blames_nobody(run):
    good = run.lease("b", B)
    failed = 0
    for _ in range(20):
        grant = run.lease("a", A)
        if isinstance(grant, Quarantined):
            break
        failed += 1
        answer = run.fail(grant)
        run.draw(good, client="b")
        good = run.lease("b", B)
        while good.canary:  # what the broken one failed is drawn by the other
            run.draw(good, client="b")
            good = run.lease("b", B)
    assert failed == 5 and answer.quarantined_s == 600 and run.counts()["set_aside"] == 0
    assert not run.ledger.all("SELECT * FROM blames WHERE worker_key = 'node0|GPU-0'"), (
        "its marks are erased"
    )
    assert (
        run.ledger.quarantined()[0]["host"] == "node0"
        and len(run.ledger.quarantined()[0]["errors"]) >= 1
    )
    assert isinstance(run.lease("another task on that GPU", A), Quarantined)
    assert run.ledger.beat(run.now, "a", [], "loading", worker=A).stop == "quarantine"


def test_promise_10_the_probe_decides(run):
    run.quarantine()
    run.passes(601, {"b": [run.succeeds.lease]})
    probe = run.lease("a", A)
    assert probe.canary and len(probe.indices) == 1 and isinstance(run.lease("a2", A), Quarantined)
    assert run.fail(probe).quarantined_s == 1200, "the pause doubles"
    run.restart()
    run.passes(1201, {"b": [run.succeeds.lease]})
    run.draw(run.lease("a", A))
    assert not run.ledger.quarantined() and isinstance(run.lease("a", A), Grant)
    run.quarantine()
    assert run.ledger.release_quarantine(run.now, "node0") == 1 and isinstance(
        run.lease("a", A), Grant
    )


def test_promise_11_slurm_only_shortens(run):
    job = ("77", 0)
    grant = run.lease(slurm=job)
    run.ledger.slurm_seen(run.now, {})
    run.ledger.slurm_seen(run.now, {})
    run.now += 31
    assert run.ledger.slurm_seen(run.now, {}) == [], "never seen: perhaps squeue is late"
    run.ledger.slurm_seen(run.now, {job: "RUNNING"})
    assert (
        run.ledger.slurm_seen(run.now, {}) == [] and run.ledger.slurm_seen(run.now, None) == []
    ), "absent once, then unknown"
    run.ledger.beat(run.now, "a", [grant.lease], "drawing", grant.indices, 1)
    assert run.ledger.slurm_seen(run.now, {("77", 1): "PENDING"}) == [], (
        "a beating lease is never taken"
    )
    run.now += 31
    assert run.ledger.slurm_seen(run.now, {("77", 1): "RUNNING"}) == [grant.lease]
    assert run.counts()["given_back"] == {"preempted": 1} and run.marks(grant.indices[0]) == 0, (
        "requeued: no fault of its index"
    )


def test_times_outlive_a_restart_on_another_node(run):
    """now is this machine's count; what is stored moves along when another machine's begins elsewhere."""
    run.quarantine()
    run.ledger.connection.close()
    first = Ledger(run.path, 2, run.now, run.options, utc=50_000.0)
    until = first.quarantined()[0]["until"]
    first.connection.close()
    second = Ledger(run.path, 3, run.now - 900, run.options, utc=50_900.0)
    assert second.quarantined()[0]["until"] == until - 900 and time.monotonic() > 0


def test_promise_09_another_data_sets_workers_judge_nothing(run):
    """One who works on another data set will not come for this one's suspects: the run ends without."""
    other = {**run.definition, "name": "other"}
    run.ledger.define(run.now, other)
    run.draw(run.lease(size=50))
    while (grant := run.lease(size=50)) and isinstance(grant, Grant) and run.counts()["waiting"]:
        run.draw(grant)
    run.ledger.lease(run.now, "other", "b", "x", B, 1)
    run.fail(grant)
    assert run.lease().indices == grant.indices
