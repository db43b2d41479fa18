"""A ledger with one data set, for tests: the real one, with a folder that is a dict and a clock."""

from dataclasses import replace

from generate.server.ledger.granting import WorkRequest
from generate.server.ledger.ledger import open_ledger
from generate.server.ledger.live_leases import Heartbeat, LeaseLimits
from generate.server.storage.blocks import bits_of

A, B, C = (
    {"host": f"node{n}", "gpu": "GPU-0", "array_job": 7, "task": n, "restart": 0} for n in range(3)
)


class Run:
    """A ledger with one data set, a folder that is a dict, and a clock."""

    def __init__(self, folder, total=100, per=1, seed=None, **limits):
        self.path = folder / "ledger.sqlite"
        self.limits = LeaseLimits(**limits)
        self.epoch = 0
        self.now = 1000.0
        self.per = per
        self.folder = {}
        self.requests = 0
        self.definition = {
            "name": "d",
            "total": total,
            "images_per_prompt": per,
            "order_seed": seed,
            "prompts_sha256": "0",
            "model": "m",
        }
        self.start()

    def open(self, utc=None):
        """The next server's ledger."""
        self.epoch += 1
        self.ledger = open_ledger(self.path, self.epoch, self.now, self.limits, utc)

    def start(self):
        self.open()
        self.define()
        self.check()

    def define(self, **changes):
        self.ledger.define(self.now, self.definition | changes)

    def restart(self, check=True):
        self.ledger.store.connection.close()
        self.open()
        if check:
            self.check()

    def check(self):
        """The comparison with the folder of all that is to be compared."""
        while work := self.ledger.comparison.next_check():
            found = {
                idx: (n, 0)
                for idx, n in self.folder.items()
                if idx // 1000 == work[1] and n >= self.per
            }
            self.ledger.comparison.folder_checked(*work, found)

    def request(self):
        self.requests += 1
        return f"r{self.requests}"

    def lease(self, client="a", worker=A, size=1, request="", slurm=None):
        """request None: a bare published one."""
        request = self.request() if request == "" else request
        return self.ledger.lease(self.now, WorkRequest("d", client, request, worker, size, slurm))

    def heartbeat(self, client, leases, state="loading", **more):
        return self.ledger.heartbeat(self.now, Heartbeat(client, leases, state, **more))

    def generate(self, grant, indices=None, client="a"):
        """Their images lie in the folder, and are reported."""
        indices = grant.indices if indices is None else indices
        self.folder.update(dict.fromkeys(indices, self.per))
        return self.complete(grant, indices, client)

    def complete(self, grant, indices, client="a", exists=True, request=""):
        results = [{"index": idx, "images": self.per, "short": 0} for idx in indices]
        return self.ledger.complete(
            self.now,
            client,
            self.request() if request == "" else request,
            grant.lease,
            results,
            dict.fromkeys(indices, exists),
        )

    def fail(self, grant, client="a", reason="gpu", idx=None, canary=False):
        result = {
            "index": grant.indices[0] if idx is None else idx,
            "reason": reason,
            "error": "CUDA error",
            "known_good": canary,
        }
        return self.ledger.fail(self.now, client, self.request(), grant.lease, [result])

    def release(self, grant, client="a", reason="released"):
        return self.ledger.release(self.now, client, self.request(), grant.lease, reason)

    def quarantine(self):
        """Worker A fails while B succeeds, until A is quarantined; B's last lease is .succeeds."""
        self.succeeds = self.lease("b", B)
        for _ in range(self.limits.max_failures):
            grant = self.lease("a", A)
            self.generate(self.succeeds, client="b")
            self.succeeds = self.lease("b", B)
            self.fail(grant)
        assert self.ledger.queries.quarantined()

    def halt(self, reason="disk"):
        """Workers A and B fail, until the run is halted."""
        for _ in range(self.limits.max_failures):
            for client, worker in (("a", A), ("b", B)):
                grant = self.lease(client, worker)
                if hasattr(grant, "indices"):
                    self.fail(grant, client, reason)
        assert self.ledger.blame.health().halted

    def passes(self, seconds, alive=()):
        """alive: {client: [lease, …]} send a heartbeat every 10 s."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1
            if self.now % 10 == 0:
                for client, leases in dict(alive).items():
                    self.heartbeat(client, leases)
            self.ledger.sweep(self.now)

    def held_by(self, client):
        return self.ledger.store.held_by(client)

    def done_in(self, block):
        return self.ledger.store.done_in("d", block)

    def strikes(self, idx):
        return self.ledger.store.one(
            "SELECT COALESCE(SUM(mark), 0) FROM blames WHERE idx = ?", idx
        )[0]

    def counts(self):
        counts = self.ledger.queries.counts("d")
        assert (
            counts["waiting"] + counts["leased"] + counts["done"] + counts["set_aside"]
            == counts["total"]
        )
        return counts

    def snapshot(self):
        """What memory knows of leases, to compare."""
        return {name: replace(lease) for name, lease in self.ledger.live.leases.items()}


TABLES = (
    "datasets",
    "blocks",
    "leases",
    "held",
    "trouble",
    "blames",
    "quarantine",
    "given_back",
    "tallies",
    "origins",
)


def dump(store, *tables):
    """What is on disk, to compare: all that a request may change."""
    return {table: store.all(f"SELECT * FROM {table}") for table in tables or TABLES}


def audit(ledger, name):
    """Guarantee 13 counted from the bottom: bits and rows against the counters."""
    store = ledger.store
    counts = ledger.queries.counts(name)
    done = sum(
        bits_of(bits).bit_count()
        for (bits,) in store.all("SELECT done FROM blocks WHERE dataset = ?", name)
    )
    held = dict(store.all("SELECT idx, lease FROM held WHERE dataset = ?", name))
    trouble = dict(store.all("SELECT idx, state FROM trouble WHERE dataset = ?", name))
    opened = store.one("SELECT SUM(open) FROM blocks WHERE dataset = ?", name)[0]
    assert counts["done"] == done and counts["leased"] == len(held)
    assert counts["set_aside"] == sum(state == "set_aside" for state in trouble.values())
    assert counts["waiting"] == opened + sum(state == "waiting" for state in trouble.values())
    assert (
        counts["waiting"] + counts["leased"] + counts["done"] + counts["set_aside"]
        == counts["total"]
    )
    leased = {idx for idx, state in trouble.items() if state == "leased"}
    assert leased == trouble.keys() & held.keys()
    leases = {lease for (lease,) in store.all("SELECT lease FROM leases")}
    assert set(held.values()) <= leases == ledger.live.leases.keys()
    everywhere = {
        idx
        for (block,) in store.all("SELECT block FROM blocks WHERE dataset = ?", name)
        for idx in store.done_in(name, block)
    }
    assert not everywhere & (held.keys() | trouble.keys())
