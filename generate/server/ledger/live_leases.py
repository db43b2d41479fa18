"""Clients and leases in memory: deadlines and heartbeats, without SQL and without a clock.

    live = LiveLeases(LeaseLimits(ttl_s=120), now)
    live.add(now, "3-1", "client-7", bare=False)
    live.heartbeat(now, Heartbeat("client-7", ["3-1"], "loading"))
    live.expired(now)                                   # ["3-1"] once its deadline has passed

now: seconds that never run backwards while the server lives (time.monotonic(), or a test's
virtual clock); always a parameter. Nothing here is on disk: after a restart every lease has a
new deadline, and clients are known again by their next heartbeat.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from generate.server.ledger.rejected import RejectedLately

SWEEP_S = 1.0
Worker = dict[str, Any]  # {"host", "gpu", "array_job", "task", "restart"}, as its client says


def worker_key(worker: Worker) -> str:
    """A worker is a GPU of a host: the next task on it inherits its quarantine."""
    return f"{worker.get('host')}|{worker.get('gpu')}"


@dataclass(frozen=True)
class LeaseLimits:
    """The times and counts that leases and fault attribution go by. Times in seconds."""

    ttl_s: float = 120  # a lease lives this long after its last heartbeat
    heartbeat_s: float = 15  # pause between two heartbeats of a client
    max_strikes: float = 3  # an index with so many fails permanently (K of guarantee 9)
    max_failures: int = 5  # of a worker in a row, until it is quarantined (M of guarantee 9)
    probe_s: float = 600  # first pause before a probe; it doubles
    # a client that says it generates, without a new image for so long, is not renewed
    stall_s: float = 900
    # a bare published client is heard only when it asks for the next chunk
    bare_ttl_s: float = 3600

    @property
    def sweep_s(self) -> float:
        """Pause between two looks for leases whose time is over."""
        return min(SWEEP_S, self.ttl_s / 10)


@dataclass(frozen=True)
class Heartbeat:
    """What a client says of itself."""

    client_id: str
    leases: Collection[str]
    state: str  # loading, compiling, waiting_llm, drawing, idle or releasing
    drawing: Collection[int] = ()  # indices that are being generated
    images: int = 0  # running total
    worker: Worker | None = None
    dataset: str | None = None
    rejected: int = 0  # running total of images that were not accepted
    steps: int = 0  # running total of denoising steps
    rejected_lately: Collection[dict[str, Any]] = ()  # the last ones of those


@dataclass
class Client:
    """What is known of a client by its requests and heartbeats."""

    worker: Worker = field(default_factory=dict)
    dataset: str | None = None
    leases: list[str] = field(default_factory=list)
    state: str | None = None
    drawing: list[int] = field(default_factory=list)
    images: int = 0
    rejected: int = 0
    steps: int = 0
    heard_at: float = 0.0
    progress_at: float = 0.0


@dataclass
class LiveLease:
    """One lease: whose, until when."""

    client_id: str
    bare: bool  # of a published client without heartbeats
    deadline: float
    heartbeat_at: float
    # It is from before a restart, and its grace counter on disk has not been cleared yet.
    graced: bool = False
    heard: bool = False  # a heartbeat came since it was added here


class LiveLeases:
    """Clients by id and leases by name; nothing is on disk."""

    def __init__(self, limits: LeaseLimits, now: float) -> None:
        self.limits = limits
        self.clients: dict[str, Client] = {}
        self.leases: dict[str, LiveLease] = {}
        self.rejected = RejectedLately()
        self.swept_at = now

    # ------------------------------------------------ clients

    def client(
        self, now: float, client_id: str, worker: Worker | None = None, dataset: str | None = None
    ) -> Client:
        """The record of a client that was heard of just now."""
        client = self.clients.setdefault(client_id, Client(progress_at=now))
        client.worker = worker or client.worker
        client.dataset = dataset or client.dataset
        client.heard_at = now
        return client

    def active(self, now: float, dataset: str | None = None) -> list[Client]:
        """The clients heard of within a TTL, of one data set or of all."""
        return [
            client
            for client in self.clients.values()
            if now - client.heard_at <= self.limits.ttl_s and dataset in (None, client.dataset)
        ]

    def active_workers(self, now: float, dataset: str | None = None) -> set[str]:
        return {worker_key(client.worker) for client in self.active(now, dataset)}

    def forget_clients(self, now: float) -> None:
        """Drop those that hold nothing and were not heard of for three TTLs."""
        holding = {lease.client_id for lease in self.leases.values()}
        self.clients = {
            name: client
            for name, client in self.clients.items()
            if now - client.heard_at <= 3 * self.limits.ttl_s or name in holding
        }

    # ------------------------------------------------ leases

    def ttl_s(self, bare: bool) -> float:
        return self.limits.bare_ttl_s if bare else self.limits.ttl_s

    def add(self, now: float, lease: str, client_id: str, bare: bool) -> None:
        self.leases[lease] = LiveLease(client_id, bare, now + self.ttl_s(bare), now)

    def restore(self, now: float, lease: str, client_id: str, bare: bool, restarts: int) -> None:
        """Add a lease from before a restart.

        It has one TTL of grace, and half of it for each further restart without a heartbeat. Else a
        server that restarts again and again would keep the leases of dead clients (guarantee 6).
        """
        deadline = now + self.ttl_s(bare) / 2**restarts
        self.leases[lease] = LiveLease(client_id, bare, deadline, now, graced=True)

    def end(self, lease: str) -> None:
        self.leases.pop(lease, None)

    def reload(self, now: float, stored: Iterable[tuple[str, str, bool]]) -> None:
        """Follow the disk after a rollback. stored: (lease, client, bare) of each lease there.

        Leases that are not on disk are dropped; those that memory had dropped get a new TTL.
        """
        rows = {lease: (client_id, bare) for lease, client_id, bare in stored}
        self.leases = {name: lease for name, lease in self.leases.items() if name in rows}
        for name, (client_id, bare) in rows.items():
            if name not in self.leases:
                self.add(now, name, client_id, bare)

    def heartbeat(self, now: float, said: Heartbeat) -> list[str]:
        """Renew the client's leases; those it named that are not its own are returned.

        A client that says it generates, without a step or an image for stall_s, is not renewed
        (guarantee 5).
        """
        client = self.client(now, said.client_id, said.worker, said.dataset)
        generating = said.state == client.state == "drawing"
        drawn = (said.images, said.rejected) != (client.images, client.rejected)
        if not generating or drawn or said.steps != client.steps:
            client.progress_at = now
        client.state = said.state
        client.drawing = list(said.drawing)
        client.images = said.images
        self.rejected.note(now, client.dataset, said.rejected_lately, after=client.rejected)
        client.rejected = said.rejected
        client.steps = said.steps
        client.leases = list(said.leases)
        stale = []
        for name in said.leases:
            lease = self.leases.get(name)
            if lease is None or lease.client_id != said.client_id:
                stale.append(name)
            elif now - client.progress_at <= self.limits.stall_s:
                self.renew(now, name)
        return stale

    def renew(self, now: float, name: str) -> None:
        """Give a lease a new deadline, one TTL from now."""
        lease = self.leases[name]
        lease.deadline = max(lease.deadline, now + self.ttl_s(lease.bare))
        lease.heartbeat_at = now
        lease.heard = True

    # ------------------------------------------------ the sweep

    def add_lateness(self, now: float) -> None:
        """Add the time since the last sweep, less the usual second, to all deadlines.

        No heartbeat could arrive while the server stood still (guarantee 5).
        """
        late = now - self.swept_at - self.limits.sweep_s
        self.swept_at = now
        if late <= 0:
            return
        for lease in self.leases.values():
            lease.deadline += late
            lease.heartbeat_at += late
        for client in self.clients.values():
            client.heard_at += late
            client.progress_at += late

    def expired(self, now: float) -> list[str]:
        return [name for name, lease in self.leases.items() if lease.deadline <= now]

    def out_of_grace(self) -> list[str]:
        """Leases from before a restart that have sent a heartbeat since."""
        return [name for name, lease in self.leases.items() if lease.graced and lease.heard]

    def clear_grace(self, leases: Iterable[str]) -> None:
        for name in leases:
            if name in self.leases:
                self.leases[name].graced = False
