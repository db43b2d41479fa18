"""Clients, a folder and a clock around a real ledger, for made-up histories.

What each client does is checked against what the ledger guarantees (I1-I10 name the checks). Blocks
hold 4 indices here, so that ten prompts fill three; the folder is a dict, time a number.
"""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis.stateful import RuleBasedStateMachine

from generate.protocol.answers import AllDone, Grant, Wait
from generate.server.ledger.granting import WorkRequest
from generate.server.ledger.ledger import open_ledger
from generate.server.ledger.live_leases import Heartbeat, LeaseLimits
from tests.fakes.ledger_run import dump

LIMITS = LeaseLimits(
    ttl_s=20, heartbeat_s=2, max_strikes=2, max_failures=3, probe_s=40, stall_s=1000
)
CLIENTS = ("c0", "c1", "c2", "c3")
WORKERS = {
    "c0": {"host": "n0", "gpu": "g"},
    "c1": {"host": "n1", "gpu": "g"},
    "c2": {"host": "n2", "gpu": "g"},
    "c3": {"host": "n2", "gpu": "g"},
}
BROKEN = ("c2", "c3")  # their GPU never generates anything
BLOCK = 4
SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None
REACHED = Counter()


class LedgerWorld(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=SHM))
        self.path = self.folder / "ledger.sqlite"
        self.now = 100.0
        self.epoch = 0
        self.ledger = None
        self.requests = 0
        self.total = 10
        self.per = 1
        self.folder_id = 1
        self.images = Counter()  # what lies in the data set folder
        self.believed = {
            name: {} for name in CLIENTS
        }  # lease -> indices its client thinks it holds
        self.dead = set()
        self.dead_since = {}
        self.names = set()
        self.answers = []
        self.open()
        self.define()
        self.check_all()
        self.copy = self.path.read_bytes()

    def teardown(self):
        try:
            self.ends()
        finally:
            self.ledger.store.connection.close()
            shutil.rmtree(self.folder)

    def definition(self):
        return {
            "name": "d",
            "total": self.total,
            "images_per_prompt": self.per,
            "order_seed": 7,
            "prompts_sha256": str(self.total),
            "dataset_id": str(self.folder_id),
        }

    def define(self):
        self.ledger.define(self.now, self.definition())

    def open(self):
        self.epoch += 1
        self.ledger = open_ledger(self.path, self.epoch, self.now, LIMITS)
        if self.ledger.store.names():
            self.define()

    def check_all(self):
        comparison = self.ledger.comparison
        while work := comparison.next_check():
            block = work[1]
            found = {
                idx: (self.per, 0)
                for idx in range(block * BLOCK, min(block * BLOCK + BLOCK, self.total))
                if self.images[idx] >= self.per
            }
            comparison.folder_checked(*work, found)

    def request(self):
        self.requests += 1
        return f"r{self.requests}"

    def done(self):
        store = self.ledger.store
        return {
            idx
            for (block,) in store.all("SELECT block FROM blocks")
            for idx in store.done_in("d", block)
        }

    def a_lease(self, client, which):
        leases = sorted(self.believed[client])
        return leases[which % len(leases)] if leases else None

    # ------------------------------------------------ what clients do

    def take(self, client, size):
        work = WorkRequest("d", client, self.request(), WORKERS[client], size)
        answer = self.ledger.lease(self.now, work)
        if isinstance(answer, Grant):
            assert answer.lease not in self.names and answer.indices, (
                "a lease's name came twice (I2)"
            )
            assert not set(answer.indices) & self.done(), "a done index was leased (I3)"
            self.names.add(answer.lease)
            self.believed[client][answer.lease] = set(answer.indices)
            self.answers.append(("lease", (work,), answer))
        elif isinstance(answer, AllDone):
            REACHED["all done"] += 1
            assert all(self.images[idx] >= self.per for idx in self.done()), (
                "all done, and files are missing (guarantee 12)"
            )
        return answer

    def finish(self, client, lease, indices, published=True):
        current = lease in self.ledger.store.held_by(client)
        before = None if current else dump(self.ledger.store)
        for idx in indices if published else ():
            self.images[idx] = max(self.images[idx], self.per)
        results = [{"index": idx, "images": self.per, "short": 0} for idx in indices]
        exists = {idx: self.images[idx] >= self.per for idx in indices}
        call = client, self.request(), lease, results, exists
        verdicts = self.ledger.complete(self.now, *call)
        if not current:
            REACHED["stale"] += 1
            assert dump(self.ledger.store) == before and set(verdicts.values()) <= {
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
            self.answers.append(("complete", call, verdicts))

    def dropped(self, client, lease, indices):
        held = self.believed[client].get(lease, set())
        held -= set(indices)
        if not held:
            self.believed[client].pop(lease, None)

    def finish_all(self, client):
        for lease in sorted(self.believed[client]):
            self.finish(client, lease, sorted(self.believed[client][lease]))

    def fails(self, client, lease, reason, canary):
        idx = min(self.believed[client][lease])
        before = dump(self.ledger.store)
        result = {"index": idx, "reason": reason, "error": "it broke", "known_good": canary}
        call = client, self.request(), lease, [result]
        answer = self.ledger.fail(self.now, *call)
        if answer.stale:
            REACHED["stale"] += 1
            assert dump(self.ledger.store) == before
            self.believed[client].pop(lease)
        else:
            self.dropped(client, lease, [idx])
            self.answers.append(("fail", call, answer))
        REACHED["halt"] += self.ledger.blame.health().halted
        REACHED["quarantine"] += bool(self.ledger.queries.quarantined())

    def heartbeat(self, client, state, drawing=()):
        leases = sorted(self.believed[client])
        said = Heartbeat(client, leases, state, drawing, self.requests, WORKERS[client], "d")
        return self.ledger.heartbeat(self.now, said).stale

    def lives(self, client):
        leases = sorted(self.believed[client])
        drawing = [idx for lease in leases for idx in sorted(self.believed[client][lease])[:1]]
        assert not self.heartbeat(client, "drawing", drawing), (
            "a living client that sends heartbeats lost its lease (I8)"
        )

    def wakes(self, client):
        """A client that was away is told by its first heartbeat what it has lost."""
        if client in self.dead:
            self.dead.discard(client)
            for lease in self.heartbeat(client, "loading"):
                self.believed[client].pop(lease)

    def living(self):
        return sorted(set(CLIENTS) - self.dead)

    def goes_silent(self, client):
        if client not in self.dead:
            self.dead.add(client)
            self.dead_since[client] = self.now

    def half_strikes(self):
        return self.ledger.store.one("SELECT COUNT(*) FROM blames WHERE mark = 0.5")[0]

    def passes(self, seconds):
        """The living send heartbeats.

        I7: what the dead held is free after a TTL and a tick; I8: the living keep theirs.
        """
        end = self.now + seconds
        while self.now < end:
            self.now += 1
            if self.now % 2 == 0:
                for client in self.living():
                    self.lives(client)
            suspects = self.half_strikes()
            self.ledger.sweep(self.now)
            REACHED["suspect"] += self.half_strikes() > suspects
            self.check_all()
        for client in self.dead:
            away = min(self.now - self.dead_since[client], seconds)
            if away > LIMITS.ttl_s + 1:
                assert not self.ledger.store.held_by(client), "a dead client still holds (I7)"

    def ends(self):
        """I13: with one healthy client left it ends, and every index is accounted for."""
        self.dead |= {"c0", "c2", "c3"}
        for client in self.dead:
            self.believed[client] = {}
        self.ledger.store.drain(False)
        for _ in range(400):
            answer = self.take("c1", 5) if len(self.believed["c1"]) < 2 else None
            held = self.ledger.store.held_by("c1")
            self.believed["c1"] = {
                lease: indices for lease, indices in self.believed["c1"].items() if lease in held
            }
            self.finish_all("c1")
            if isinstance(answer, AllDone):
                break
            for _ in range(7 if isinstance(answer, Wait) else 1):
                self.now += 1
                self.ledger.sweep(self.now)
            self.check_all()
        counts = self.ledger.queries.counts("d")
        assert isinstance(answer, AllDone), f"the run does not end: {answer} {counts}"
        assert counts["done"] + counts["set_aside"] == counts["total"] == self.total
