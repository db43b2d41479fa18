"""What is known of clients and leases in memory: time logic without SQL."""

from dataclasses import dataclass
from typing import Any


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


@dataclass
class Client:
    """What is known of a client by its heartbeats; in memory only."""

    worker: dict[str, Any]
    dataset: str | None = None
    leases: tuple[str, ...] = ()
    state: str | None = None
    drawing: tuple[int, ...] = ()
    images: int = 0
    beat_at: float = 0.0
    progress_at: float = 0.0
