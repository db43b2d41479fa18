"""T1: histories of the ledger that hypothesis makes up, checked after every step (invariants I1-I10, I13 and the sum of promise 13).

    python -m pytest tests/generate/test_ledger_machine.py            # 1,000 histories; with -m soak 100,000 in ten parts

Blocks hold 4 indices here, so that ten prompts fill three; the file system is a dict, time a number.
"""

import shutil
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from generate.protocol.answers import AllDone, Grant, Wait
from generate.server import ledger as ledger_module
from generate.server import store as ledger_store
from generate.server.ledger import Ledger
from generate.server.live_leases import LeaseLimits
from generate.server.store import DefinitionDiffers
from tests.fakes.ledger_run import audit, dump

OPTIONS = LeaseLimits(
    ttl_s=20, heartbeat_s=2, max_strikes=2, max_failures=3, probe_s=40, stall_s=1000
)
CLIENTS = ("c0", "c1", "c2", "c3")
WORKERS = {
    "c0": {"host": "n0", "gpu": "g"},
    "c1": {"host": "n1", "gpu": "g"},
    "c2": {"host": "n2", "gpu": "g"},
    "c3": {"host": "n2", "gpu": "g"},
}
BROKEN = ("c2", "c3")  # their GPU never draws anything
REACHED = Counter()
NEEDED = (
    "set aside",
    "quarantine",
    "storm",
    "rebuild",
    "extend",
    "take over",
    "rolled back",
    "all done",
    "stale",
    "suspect",
    "repair",
)
SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None
clients, sizes, anything = st.sampled_from(CLIENTS), st.integers(1, 5), st.integers(0, 2**16)


class Histories(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=SHM))
        self.now, self.epoch, self.ledger, self.requests = 100.0, 0, None, 0
        self.total, self.per, self.images = (
            10,
            1,
            Counter(),
        )  # images: what lies in the data set folder
        self.believed = {
            name: {} for name in CLIENTS
        }  # lease -> indices the client thinks it holds
        self.dead, self.dead_since = set(), {}
        self.names, self.answers, self.copy = set(), [], None
        self.open()
        self.ledger.define(self.now, self.definition())
        self.check_all()
        self.copied()

    def teardown(self):
        try:
            self.ends()
        finally:
            self.ledger.connection.close()
            shutil.rmtree(self.folder)

    def definition(self):
        return {
            "name": "d",
            "total": self.total,
            "images_per_prompt": self.per,
            "order_seed": 7,
            "prompts_sha256": str(self.total),
        }

    def open(self):
        self.epoch += 1
        self.ledger = Ledger(self.folder / "ledger.sqlite", self.epoch, self.now, OPTIONS)
        if self.ledger.names():
            self.ledger.define(self.now, self.definition())

    def check_all(self):
        while work := self.ledger.next_check():
            name, block = work
            found = {
                idx: (self.per, 0)
                for idx in range(block * 4, min(block * 4 + 4, self.total))
                if self.images[idx] >= self.per
            }
            self.ledger.folder_checked(self.now, name, block, found)

    def request(self):
        self.requests += 1
        return f"r{self.requests}"

    def done(self):
        return {
            idx
            for (block,) in self.ledger.all("SELECT block FROM blocks")
            for idx in self.ledger.done_in("d", block)
        }

    def a_lease(self, client, which):
        leases = sorted(self.believed[client])
        return leases[which % len(leases)] if leases else None

    # ------------------------------------------------ what clients do

    def take(self, client, size, request):
        answer = self.ledger.lease(self.now, "d", client, request, WORKERS[client], size)
        if isinstance(answer, Grant):
            assert answer.lease not in self.names and answer.indices, (
                "a lease's name came twice (I2)"
            )
            assert not set(answer.indices) & self.done(), "a done index was leased (I3)"
            self.names.add(answer.lease)
            self.believed[client][answer.lease] = set(answer.indices)
            self.answers.append(
                ("lease", client, request, ("d", client, request, WORKERS[client], size), answer)
            )
        elif isinstance(answer, AllDone):
            REACHED["all done"] += 1
            assert all(self.images[idx] >= self.per for idx in self.done()), (
                "all done, and files are missing (promise 12)"
            )
        return answer

    @rule(client=clients, size=sizes)
    def lease(self, client, size):
        self.wakes(client)
        self.take(client, size, self.request())

    @rule(client=clients, which=anything, share=st.integers(1, 5), published=st.booleans())
    def complete(self, client, which, share, published):
        if client not in BROKEN and (lease := self.a_lease(client, which)):
            self.finish(client, lease, sorted(self.believed[client][lease])[:share], published)

    def finish(self, client, lease, indices, published=True):
        current = lease in self.ledger.held_by(client)
        before, request = None if current else dump(self.ledger), self.request()
        for idx in indices if published else ():
            self.images[idx] = max(self.images[idx], self.per)
        results = [{"index": idx, "images": self.per, "short": 0} for idx in indices]
        exists = {idx: self.images[idx] >= self.per for idx in indices}
        verdicts = self.ledger.complete(self.now, client, request, lease, results, exists)
        if not current:
            REACHED["stale"] += 1
            assert dump(self.ledger) == before and set(verdicts.values()) <= {
                "stale",
                "already_done",
            }, "a stale lease changed something (I4)"
        assert all(exists[idx] for idx, verdict in verdicts.items() if verdict == "accepted"), (
            "accepted without its files"
        )
        self.dropped(
            client, lease, [idx for idx, verdict in verdicts.items() if verdict != "missing"]
        )
        if set(verdicts.values()) != {"missing"}:
            self.answers.append(
                ("complete", client, request, (client, request, lease, results, exists), verdicts)
            )

    def dropped(self, client, lease, indices):
        held = self.believed[client].get(lease, set())
        held -= set(indices)
        if not held:
            self.believed[client].pop(lease, None)

    @rule(
        client=clients,
        which=anything,
        reason=st.sampled_from(["gpu", "prompt", "disk", "unknown"]),
        drew=st.booleans(),
    )
    def fail(self, client, which, reason, drew):
        if lease := self.a_lease(client, which):
            self.fails(client, lease, reason, drew and client not in BROKEN)

    def fails(self, client, lease, reason, drew):
        idx, request, before = min(self.believed[client][lease]), self.request(), dump(self.ledger)
        results = [{"index": idx, "reason": reason, "error": "it broke", "known_good": drew}]
        answer = self.ledger.fail(self.now, client, request, lease, results)
        if answer.stale:
            REACHED["stale"] += 1
            assert dump(self.ledger) == before
            self.believed[client].pop(lease)
        else:
            self.dropped(client, lease, [idx])
            self.answers.append(
                ("fail", client, request, (client, request, lease, results), answer)
            )
        for word, reached in (
            ("storm", self.ledger.weather()["state"] == "storm"),
            ("quarantine", self.ledger.quarantined()),
        ):
            REACHED[word] += bool(reached)

    @rule(client=clients, drew=st.booleans(), times=st.integers(3, 5))
    def fails_in_a_row(self, client, drew, times):
        self.wakes(client)
        for _ in range(times):
            if not self.believed[client]:
                self.take(client, 1, self.request())
            if self.believed[client]:
                self.fails(client, self.a_lease(client, 0), "gpu", drew and client not in BROKEN)

    @rule(client=st.sampled_from(["c0", "c1"]), times=st.integers(1, 4))
    def draws(self, client, times):
        self.wakes(client)
        for _ in range(times):
            if not self.believed[client]:
                self.take(client, 2, self.request())
            if lease := self.a_lease(client, 0):
                self.finish(client, lease, sorted(self.believed[client][lease]))

    @rule(
        client=clients,
        which=anything,
        reason=st.sampled_from(["preempted", "walltime", "released"]),
    )
    def release(self, client, which, reason):
        if lease := self.a_lease(client, which):
            before, blames, request = dump(self.ledger), dump(self.ledger, "blames"), self.request()
            if self.ledger.release(self.now, client, request, lease, reason):
                self.answers.append(
                    ("release", client, request, (client, request, lease, reason), True)
                )
            else:
                assert dump(self.ledger) == before
            assert dump(self.ledger, "blames") == blames, "a preemption was blamed on an index (I9)"
            self.believed[client].pop(lease)

    @rule(which=anything)
    def a_request_is_repeated(self, which):
        """I6: the reply was lost; or it arrives a second time, late."""
        if self.answers:
            verb, client, request, args, answer = self.answers[which % len(self.answers)]
            before = dump(self.ledger)
            assert getattr(self.ledger, verb)(self.now, *args) == answer
            assert dump(self.ledger) == before

    def wakes(self, client):
        """A client that was away is told by its first beat what it has lost."""
        if client in self.dead:
            self.dead.discard(client)
            answer = self.ledger.beat(
                self.now,
                client,
                sorted(self.believed[client]),
                "loading",
                worker=WORKERS[client],
                dataset="d",
            )
            for lease in answer.stale:
                self.believed[client].pop(lease)

    @rule(client=clients)
    def dies(self, client):
        if client not in self.dead:
            self.dead.add(client)
            self.dead_since[client] = self.now

    @rule(client=clients, comes_back=st.booleans())
    def dies_while_drawing(self, client, comes_back):
        """Without a word; and wakes up later with a lease that is not its any more (I4)."""
        self.wakes(client)
        self.take(client, 2, self.request())
        self.beats(client)
        self.dies(client)
        self.time_passes(45)
        if comes_back and (lease := self.a_lease(client, 0)):
            self.finish(client, lease, sorted(self.believed[client][lease]), published=False)

    @rule(client=st.sampled_from(["c0", "c1"]))
    def meets_poison(self, client):
        """Draws all but the lowest index, which nobody can draw."""
        self.wakes(client)
        self.take(client, 4, self.request())
        for lease in sorted(self.believed[client]):
            if (
                min(self.believed[client][lease]) < 2
                and self.images[min(self.believed[client][lease])] < self.per
            ):
                self.fails(client, lease, "prompt", drew=True)
        for lease in sorted(self.believed[client]):
            self.finish(client, lease, sorted(self.believed[client][lease]))

    @rule(seconds=st.sampled_from([1, 3, 10, 21, 45, 100]))
    def time_passes(self, seconds):
        """The living beat; I7: what the dead held is free after a TTL and a tick; I8: the living keep theirs."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1
            if self.now % 2 == 0:
                for client in set(CLIENTS) - self.dead:
                    self.beats(client)
            suspects = self.ledger.one("SELECT COUNT(*) FROM blames WHERE mark = 0.5")[0]
            self.ledger.sweep(self.now)
            REACHED["suspect"] += (
                self.ledger.one("SELECT COUNT(*) FROM blames WHERE mark = 0.5")[0] > suspects
            )
            self.check_all()
        for client in self.dead:
            if (
                self.now - self.dead_since[client] > OPTIONS.ttl_s + 1
                and seconds > OPTIONS.ttl_s + 1
            ):
                assert not self.ledger.held_by(client), "a dead client still holds (I7)"

    def beats(self, client):
        leases = sorted(self.believed[client])
        drawing = [idx for lease in leases for idx in sorted(self.believed[client][lease])[:1]]
        answer = self.ledger.beat(
            self.now,
            client,
            leases,
            "drawing",
            drawing,
            self.requests,
            worker=WORKERS[client],
            dataset="d",
        )
        assert not answer.stale, "a living, beating client lost its lease (I8)"

    # ------------------------------------------------ what happens to the server

    @rule()
    def crash(self):
        """I5: what was answered is on disk; I9: no index is blamed."""
        before = dump(self.ledger, "datasets", "blocks", "held", "trouble", "blames", "answers")
        self.ledger.connection.close()
        self.open()
        assert not self.ledger.rebuilt and dump(self.ledger, *before) == before
        for client in set(CLIENTS) - self.dead:
            self.beats(client)

    @rule(seconds=st.sampled_from([5, 30, 300]))
    def the_server_stands_still(self, seconds):
        self.now += seconds
        self.dead_since = {client: self.now for client in self.dead_since}
        self.ledger.sweep(self.now)
        for client in set(CLIENTS) - self.dead:
            self.beats(client)

    @rule()
    def copied(self):
        self.copy = [self.folder / "ledger.sqlite", (self.folder / "ledger.sqlite").read_bytes()]

    @rule(torn=st.sampled_from(["deleted", "rolled back", "torn"]))
    def the_database_is_lost(self, torn):
        self.ledger.define(self.now, self.definition())
        self.ledger.resume(self.now)  # a commit that the copy does not have
        self.ledger.note_changes()
        self.ledger.connection.close()
        path = self.folder / "ledger.sqlite"
        if torn == "deleted":
            path.unlink()
        elif torn == "rolled back":
            path.write_bytes(self.copy[1])
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        self.epoch += 1
        self.ledger = Ledger(path, self.epoch, self.now, OPTIONS)
        assert self.ledger.rebuilt and self.ledger.lost.split(":")[0] == torn
        self.ledger.loss_is_known()
        REACHED["rolled back" if self.ledger.lost == "rolled back" else "rebuild"] += 1
        self.ledger.define(self.now, self.definition())
        self.check_all()
        self.believed, self.answers, self.copy = {name: {} for name in CLIENTS}, [], None
        self.copied()
        self.dead, self.dead_since = set(CLIENTS), dict.fromkeys(CLIENTS, self.now)
        held = {idx for (idx,) in self.ledger.all("SELECT idx FROM held")}
        assert {
            idx for idx in range(self.total) if self.images[idx] >= self.per
        } - held == self.done(), "the folder wins"

    @rule(more_images=st.booleans())
    @precondition(lambda self: self.total < 16 and self.per < 4)
    def extend(self, more_images):
        self.per, self.total = self.per + more_images, self.total + 3 * (not more_images)
        self.ledger.define(self.now, self.definition())
        self.check_all()
        assert all(self.images[idx] >= self.per for idx in self.done()), (
            "an extension reopens what is missing"
        )
        with pytest.raises(DefinitionDiffers):
            self.ledger.define(self.now, {**self.definition(), "total": self.total - 1})
        REACHED["extend"] += 1

    @rule()
    def taken_over(self):
        """A second server cannot open it; when the first has left it can, under a higher epoch."""
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            Ledger(self.folder / "ledger.sqlite", self.epoch + 1, self.now, OPTIONS)
        self.crash()
        REACHED["take over"] += 1

    @rule(which=anything)
    def files_vanish_and_are_found(self, which):
        done = sorted(self.done())
        if done:
            idx = done[which % len(done)]
            self.images[idx] = 0
            self.ledger._checked["d"][idx // 4] = 0
            self.check_all()
            assert idx not in self.done()

    @rule(client=st.sampled_from(["c0", "c1"]), which=anything)
    def repair(self, client, which):
        self.wakes(client)
        answer = self.ledger.repair(
            self.now, "d", client, self.request(), WORKERS[client], [which % self.total]
        )
        assert isinstance(answer, Grant) or isinstance(answer, Wait)
        if isinstance(answer, Grant):
            REACHED["repair"] += 1
            self.believed[client][answer.lease] = set(answer.indices)
            for idx in answer.indices:
                self.images[idx] = 0
            # a folder check that began before the repair must not bring it back
            self.ledger._checked["d"][answer.indices[0] // 4] = 1

    @rule()
    def retry_failed(self):
        rows = self.ledger.set_aside("d", 0, 100)[1]
        assert self.ledger.retry_failed(self.now, "d", [row["index"] for row in rows]) == len(rows)

    @rule()
    def release_quarantine(self):
        self.ledger.release_quarantine(self.now, None)
        assert not self.ledger.quarantined()

    # ------------------------------------------------ what always holds

    @invariant()
    def sums(self):
        audit(self.ledger, "d")
        rows = self.ledger.set_aside("d", 0, 100)[1]
        REACHED["set aside"] += bool(rows)
        assert all(row["marks"] >= OPTIONS.max_marks for row in rows), (
            "set aside without its marks (I9)"
        )
        confirmed = self.ledger.one(
            "SELECT COUNT(*) FROM blames WHERE worker_key = 'n2|g' AND mark = 1"
        )[0]
        assert not confirmed, "a GPU that never drew anything marked an index (I10)"

    def ends(self):
        """I13: with one healthy client left it ends, and every index is accounted for."""
        self.dead |= {"c0", "c2", "c3"}
        for client in self.dead:
            self.believed[client] = {}
        self.ledger.resume(self.now)
        for _ in range(400):
            answer = self.take("c1", 5, self.request()) if len(self.believed["c1"]) < 2 else None
            for lease in list(self.believed["c1"]):
                if lease in self.ledger.held_by("c1"):
                    self.finish("c1", lease, sorted(self.believed["c1"][lease]))
                else:
                    self.believed["c1"].pop(lease)
            if isinstance(answer, AllDone):
                break
            for _ in range(7 if isinstance(answer, Wait) else 1):
                self.now += 1
                self.ledger.sweep(self.now)
            self.check_all()
        assert isinstance(answer, AllDone), (
            f"the run does not end: {answer} {self.ledger.counts('d')}"
        )
        counts = self.ledger.counts("d")
        assert counts["done"] + counts["set_aside"] == counts["total"] == self.total


def histories(number, monkeypatch):
    REACHED.clear()
    for module in (ledger_store, ledger_module):
        monkeypatch.setattr(module, "BLOCK", 4)
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
