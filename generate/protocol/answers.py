"""What the ledger is told and what it answers: its options, and one small class per kind of answer.

answer = ledger.lease(…)        # Grant, Later, Quarantined or AllDone
"""

import dataclasses


@dataclasses.dataclass
class LedgerOptions:
    ttl_s: float = 120  # a lease lives this long after its last beat
    beat_s: float = 15  # clients beat this often
    max_marks: float = 3  # K of promise 9
    max_failures: int = 5  # M of promise 9
    probe_s: float = 600  # first pause before a probe; it doubles
    stall_s: float = (
        900  # a client that says it draws, and shows no new image for so long, is not renewed
    )
    bare_ttl_s: float = (
        3600  # a bare published client is heard only when it asks for the next chunk
    )


@dataclasses.dataclass
class Grant:
    lease: str  # "epoch-n", never repeated
    indices: list
    ttl_s: float
    known_good: bool = False  # draw a known-good text first and say in each failure of this lease whether that worked


@dataclasses.dataclass
class Later:
    retry_after_s: float
    reason: str


@dataclasses.dataclass
class AllDone:
    set_aside: int  # indices given up


@dataclasses.dataclass
class Quarantined(Later):
    """Nothing for this worker until its probe."""


@dataclasses.dataclass
class Beat:
    stale: list  # leases named in the beat that are not this client's: 409
    stop: str | None  # None, "drain" or "quarantine"


@dataclasses.dataclass
class Failed:
    stale: bool  # the lease is not this client's: nothing was changed (409)
    verdicts: dict  # index -> "retry elsewhere" or "set aside"
    quarantined_s: float | None  # until this worker's probe


@dataclasses.dataclass
class Client:
    """What is known of a client by its beats; in memory only."""

    worker: dict
    dataset: str | None = None
    leases: tuple = ()
    state: str | None = None
    drawing: tuple = ()
    images: int = 0
    beat_at: float = 0.0
    progress_at: float = 0.0
