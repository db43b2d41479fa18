"""Histories of the ledger that hypothesis makes up, checked after every step (I1-I10, I13).

    python -m pytest tests/generate/test_ledger_machine.py

1,000 histories; with -m soak 100,000 in ten parts. What clients do, and what is checked of it:
tests/fakes/ledger_world.py.
"""

import sqlite3

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from generate.server.ledger.ledger import open_ledger
from generate.server.storage import blocks
from tests.fakes.ledger_run import audit, dump
from tests.fakes.ledger_world import BLOCK, BROKEN, CLIENTS, LIMITS, REACHED, LedgerWorld

NEEDED = (
    "failed",
    "quarantine",
    "halt",
    "rebuild",
    "extend",
    "replaced",
    "take over",
    "rolled back",
    "all done",
    "stale",
    "suspect",
)
clients = st.sampled_from(CLIENTS)
healthy = st.sampled_from(["c0", "c1"])
sizes = st.integers(1, 5)
anything = st.integers(0, 2**16)


class Histories(LedgerWorld):
    # ------------------------------------------------ what clients do

    @rule(client=clients, size=sizes)
    def lease(self, client, size):
        self.wakes(client)
        self.take(client, size)

    @rule(client=clients, which=anything, share=st.integers(1, 5), published=st.booleans())
    def complete(self, client, which, share, published):
        if client not in BROKEN and (lease := self.a_lease(client, which)):
            self.finish(client, lease, sorted(self.believed[client][lease])[:share], published)

    @rule(
        client=clients,
        which=anything,
        reason=st.sampled_from(["gpu", "prompt", "disk", "unknown"]),
        canary=st.booleans(),
    )
    def fail(self, client, which, reason, canary):
        if lease := self.a_lease(client, which):
            self.fails(client, lease, reason, canary and client not in BROKEN)

    @rule(client=clients, canary=st.booleans(), times=st.integers(3, 5))
    def fails_in_a_row(self, client, canary, times):
        self.wakes(client)
        for _ in range(times):
            if not self.believed[client]:
                self.take(client, 1)
            if self.believed[client]:
                self.fails(client, self.a_lease(client, 0), "gpu", canary and client not in BROKEN)

    @rule(client=healthy, times=st.integers(1, 4))
    def generates(self, client, times):
        self.wakes(client)
        for _ in range(times):
            if not self.believed[client]:
                self.take(client, 2)
            if lease := self.a_lease(client, 0):
                self.finish(client, lease, sorted(self.believed[client][lease]))

    @rule(
        client=clients,
        which=anything,
        reason=st.sampled_from(["preempted", "walltime", "released"]),
    )
    def release(self, client, which, reason):
        if lease := self.a_lease(client, which):
            before = dump(self.ledger.store)
            call = client, self.request(), lease, reason
            if self.ledger.release(self.now, *call):
                self.answers.append(("release", call, True))
            else:
                assert dump(self.ledger.store) == before
            assert dump(self.ledger.store, "blames")["blames"] == before["blames"], (
                "a preemption was blamed on an index (I9)"
            )
            self.believed[client].pop(lease)

    @rule(which=anything)
    def a_request_is_repeated(self, which):
        """I6: the reply was lost; or it arrives a second time, late."""
        if self.answers:
            verb, call, answer = self.answers[which % len(self.answers)]
            before = dump(self.ledger.store)
            assert getattr(self.ledger, verb)(self.now, *call) == answer
            assert dump(self.ledger.store) == before

    @rule(client=clients)
    def dies(self, client):
        self.goes_silent(client)

    @rule(client=clients, comes_back=st.booleans())
    def dies_while_generating(self, client, comes_back):
        """Without a word; and wakes up later with a lease that is not its any more (I4)."""
        self.wakes(client)
        self.take(client, 2)
        self.lives(client)
        self.goes_silent(client)
        self.passes(45)
        if comes_back and (lease := self.a_lease(client, 0)):
            self.finish(client, lease, sorted(self.believed[client][lease]), published=False)

    @rule(client=healthy)
    def meets_poison(self, client):
        """Generates all but the lowest index, which nobody can generate."""
        self.wakes(client)
        self.take(client, 4)
        for lease in sorted(self.believed[client]):
            lowest = min(self.believed[client][lease])
            if lowest < 2 and self.images[lowest] < self.per:
                self.fails(client, lease, "prompt", canary=True)
        self.finish_all(client)

    @rule(seconds=st.sampled_from([1, 3, 10, 21, 45, 100]))
    def time_passes(self, seconds):
        self.passes(seconds)

    # ------------------------------------------------ what happens to the server

    @rule()
    def crash(self):
        """I5: what was answered is on disk; I9: no index is blamed."""
        tables = "datasets", "blocks", "held", "trouble", "blames", "answers"
        before = dump(self.ledger.store, *tables)
        self.ledger.store.connection.close()
        self.open()
        assert not self.ledger.rebuilt and dump(self.ledger.store, *tables) == before
        for client in self.living():
            self.lives(client)

    @rule(seconds=st.sampled_from([5, 30, 300]))
    def the_server_stands_still(self, seconds):
        self.now += seconds
        self.dead_since = dict.fromkeys(self.dead_since, self.now)
        self.ledger.sweep(self.now)
        for client in self.living():
            self.lives(client)

    @rule()
    def copied(self):
        self.copy = self.path.read_bytes()

    @rule(how=st.sampled_from(["deleted", "rolled back", "torn"]))
    def the_database_is_lost(self, how):
        self.define()
        self.ledger.store.drain(False)  # a commit that the copy does not have
        self.ledger.store.note_changes()
        self.ledger.store.connection.close()
        if how == "deleted":
            self.path.unlink()
        elif how == "rolled back":
            self.path.write_bytes(self.copy)
        else:
            self.path.write_bytes(self.path.read_bytes()[: self.path.stat().st_size // 2])
        self.epoch += 1
        self.ledger = open_ledger(self.path, self.epoch, self.now, LIMITS)
        assert self.ledger.rebuilt and self.ledger.store.lost.split(":")[0] == how
        self.ledger.store.loss_is_known()
        REACHED["rolled back" if how == "rolled back" else "rebuild"] += 1
        self.define()
        self.check_all()
        self.believed = {name: {} for name in CLIENTS}
        self.answers = []
        self.copied()
        self.dead = set(CLIENTS)
        self.dead_since = dict.fromkeys(CLIENTS, self.now)
        held = {idx for (idx,) in self.ledger.store.all("SELECT idx FROM held")}
        there = {idx for idx in range(self.total) if self.images[idx] >= self.per}
        assert there - held == self.done(), "the folder wins"

    @rule(more_images=st.booleans())
    @precondition(lambda self: self.total < 16 and self.per < 4)
    def extend(self, more_images):
        self.per += more_images
        self.total += 3 * (not more_images)
        self.define()
        self.check_all()
        assert all(self.images[idx] >= self.per for idx in self.done()), (
            "an extension reopens what is missing"
        )
        REACHED["extend"] += 1

    @rule(by_another=st.booleans())
    def the_folder_is_replaced(self, by_another):
        """By another one of that name, or by an earlier state of it with a prompt less."""
        if by_another:
            self.folder_id += 1
            self.images.clear()
        elif self.total > 8:
            self.total -= 1
        else:
            return
        self.define()
        self.check_all()
        REACHED["replaced"] += 1
        assert not any(self.ledger.store.held_by(client) for client in CLIENTS), "leases are void"
        self.believed = {name: {} for name in CLIENTS}
        there = {idx for idx in range(self.total) if self.images[idx] >= self.per}
        assert there == self.done(), "the folder wins"

    @rule()
    def taken_over(self):
        """A second server cannot open it; when the first has left it can, under a higher epoch."""
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            open_ledger(self.path, self.epoch + 1, self.now, LIMITS)
        self.crash()
        REACHED["take over"] += 1

    @rule(which=anything)
    def files_vanish_and_are_found(self, which):
        done = sorted(self.done())
        if done:
            idx = done[which % len(done)]
            self.images[idx] = 0
            self.ledger.comparison.check_again("d")
            self.check_all()
            assert idx not in self.done()

    @rule()
    def retry_failed(self):
        indices = [row["index"] for row in self.ledger.queries.failed("d", 0, 100)]
        assert self.ledger.retry_failed("d", indices) == len(indices)

    @rule()
    def release_quarantine(self):
        self.ledger.blame.release_quarantine()
        assert not self.ledger.queries.quarantined()

    # ------------------------------------------------ what always holds

    @invariant()
    def sums(self):
        audit(self.ledger, "d")
        rows = self.ledger.queries.failed("d", 0, 100)
        REACHED["failed"] += bool(rows)
        assert all(row["strikes"] >= LIMITS.max_strikes for row in rows), (
            "failed permanently without its strikes (I9)"
        )
        confirmed = self.ledger.store.one(
            "SELECT COUNT(*) FROM blames WHERE worker_key = 'n2|g' AND mark = 1"
        )[0]
        assert not confirmed, "a GPU that never generated anything gave a strike (I10)"


def histories(number, monkeypatch):
    REACHED.clear()
    monkeypatch.setattr(blocks, "BLOCK", BLOCK)
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=number,
            stateful_step_count=20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    never = [word for word in NEEDED if not REACHED[word]]
    assert not never, (
        f"{number} histories never reached {never}: they prove nothing about it; {dict(REACHED)}"
    )
    print({word: REACHED[word] for word in NEEDED})


@pytest.mark.timeout(1500)
def test_histories(monkeypatch):
    histories(1000, monkeypatch)


@pytest.mark.soak
@pytest.mark.timeout(20000)
@pytest.mark.parametrize("part", range(10))
def test_histories_soak(monkeypatch, part):
    histories(10_000, monkeypatch)
