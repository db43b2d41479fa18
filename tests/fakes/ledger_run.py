"""A ledger with one data set, for tests: the real one, with a folder that is a dict and a clock that is a number."""

from generate.server import store as ledger_store
from generate.server.ledger import Ledger
from generate.server.live_leases import LeaseLimits

A, B, C = (
    {"host": f"node{n}", "gpu": "GPU-0", "array_job": 7, "task": n, "restart": 0} for n in range(3)
)


class Run:
    """A ledger with one data set, a folder that is a dict, and a clock."""

    def __init__(self, folder, total=100, per=1, seed=None, **options):
        self.path, self.options, self.epoch, self.now, self.per = (
            folder / "ledger.sqlite",
            LeaseLimits(**options),
            0,
            1000.0,
            per,
        )
        self.folder, self.requests = {}, 0
        self.definition = {
            "name": "d",
            "total": total,
            "images_per_prompt": per,
            "order_seed": seed,
            "prompts_sha256": "0",
            "model": "m",
        }
        self.start()

    def start(self):
        self.epoch += 1
        self.ledger = Ledger(self.path, self.epoch, self.now, self.options)
        self.ledger.define(self.now, self.definition)
        self.check()

    def restart(self, check=True):
        self.ledger.connection.close()
        self.epoch += 1
        self.ledger = Ledger(self.path, self.epoch, self.now, self.options)
        if check:
            self.check()

    def check(self):
        while work := self.ledger.next_check():
            self.ledger.folder_checked(
                self.now,
                *work,
                {
                    idx: (n, 0)
                    for idx, n in self.folder.items()
                    if idx // 1000 == work[1] and n >= self.per
                },
            )

    def request(self):
        self.requests += 1
        return f"r{self.requests}"

    def lease(self, client="a", worker=A, size=1, request="", **more):
        return self.ledger.lease(
            self.now,
            "d",
            client,
            self.request() if request == "" else request,
            worker,
            size,
            **more,
        )

    def draw(self, grant, indices=None, client="a"):
        indices = grant.indices if indices is None else indices
        self.folder.update(dict.fromkeys(indices, self.per))
        results = [{"index": idx, "images": self.per, "short": 0} for idx in indices]
        return self.ledger.complete(
            self.now, client, self.request(), grant.lease, results, dict.fromkeys(indices, True)
        )

    def fail(self, grant, client="a", reason="gpu", idx=None, known_good=False):
        result = {
            "index": grant.indices[0] if idx is None else idx,
            "reason": reason,
            "error": "CUDA error",
            "known_good": known_good,
        }
        return self.ledger.fail(self.now, client, self.request(), grant.lease, [result])

    def quarantine(self):
        """Worker A fails while B succeeds, until A is quarantined; B's last lease is .succeeds."""
        self.succeeds = self.lease("b", B)
        for _ in range(self.options.max_failures):
            grant = self.lease("a", A)
            self.draw(self.succeeds, client="b")
            self.succeeds = self.lease("b", B)
            self.fail(grant)
        assert self.ledger.quarantined()

    def passes(self, seconds, beating=()):
        """beating: {client: [lease, …]} beat every 10 s."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1
            if self.now % 10 == 0:
                for client, leases in dict(beating).items():
                    self.ledger.beat(self.now, client, leases, "loading")
            self.ledger.sweep(self.now)

    def marks(self, idx):
        return self.ledger.one("SELECT COALESCE(SUM(mark), 0) FROM blames WHERE idx = ?", idx)[0]

    def counts(self):
        counts = self.ledger.counts("d")
        assert (
            counts["waiting"] + counts["leased"] + counts["done"] + counts["set_aside"]
            == counts["total"]
        )
        return counts


def dump(ledger, *tables):
    """What is on disk, to compare: all that a request may change."""
    return {
        table: ledger.all(f"SELECT * FROM {table}")
        for table in tables
        or ("datasets", "blocks", "leases", "held", "trouble", "blames", "quarantine", "given_back")
    }


def audit(ledger, name):
    """Promise 13 counted from the bottom: bits and rows against the counters."""
    counts = ledger.counts(name)
    done = sum(
        ledger_store.bits_of(bits).bit_count()
        for (bits,) in ledger.all("SELECT done FROM blocks WHERE dataset = ?", name)
    )
    held = {
        idx: lease
        for idx, lease in ledger.all("SELECT idx, lease FROM held WHERE dataset = ?", name)
    }
    trouble = dict(ledger.all("SELECT idx, state FROM trouble WHERE dataset = ?", name))
    opened = ledger.one("SELECT SUM(open) FROM blocks WHERE dataset = ?", name)[0]
    assert counts["done"] == done and counts["leased"] == len(held)
    assert counts["set_aside"] == sum(state == "set_aside" for state in trouble.values())
    assert counts["waiting"] == opened + sum(state == "waiting" for state in trouble.values())
    assert (
        counts["waiting"] + counts["leased"] + counts["done"] + counts["set_aside"]
        == counts["total"]
    )
    assert {
        idx for idx, state in trouble.items() if state == "leased"
    } == trouble.keys() & held.keys()
    leases = {lease for (lease,) in ledger.all("SELECT lease FROM leases")}
    assert set(held.values()) <= leases == ledger.deadlines.keys()
    everywhere = [
        idx
        for (block,) in ledger.all("SELECT block FROM blocks WHERE dataset = ?", name)
        for idx in ledger.done_in(name, block)
    ]
    assert not set(everywhere) & (held.keys() | trouble.keys())
