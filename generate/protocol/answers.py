"""Answers of the job server: one class for each kind, used by server and client.

    return jsonify(answer.to_json()), answer.status      # server: JSON body and HTTP status
    answer = work_answer(body)                           # client: Grant, WorkLeft, Wait or AllDone
    answer = HeartbeatAnswer.from_json(body)

The JSON fields keep their published names (known_good, set_aside, beat_s, …), also where the
attributes here have others. A reader ignores fields that it does not know.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

# Verdicts of /complete, one per index
ACCEPTED = "accepted"
ALREADY_DONE = "already_done"
STALE = "stale"
MISSING = "missing"
# Verdicts of /fail, one per index
RETRY_ELSEWHERE = "retry elsewhere"
FAILED_PERMANENTLY = "set aside"

Json = dict[str, Any]


@dataclass(frozen=True)
class Grant:
    """A lease of some indices."""

    status: ClassVar[int] = 200
    lease: str  # "epoch-n", never repeated
    indices: list[int]
    ttl_s: float
    # generate a canary prompt first, and say in each failure of this lease whether that worked
    canary: bool = False
    llm_share: Json | None = None

    def to_json(self) -> Json:
        return {
            "indices": self.indices,
            "lease": self.lease,
            "ttl_s": self.ttl_s,
            "llm_share": self.llm_share,
            "known_good": self.canary,
        }

    @classmethod
    def from_json(cls, body: Json) -> "Grant":
        return cls(
            body["lease"],
            body["indices"],
            body["ttl_s"],
            bool(body.get("known_good")),
            body.get("llm_share"),
        )


@dataclass(frozen=True)
class WorkLeft:
    """There is work, or may be; nothing is granted. The answer to a request for 0 indices."""

    status: ClassVar[int] = 200
    ttl_s: float

    def to_json(self) -> Json:
        return {"indices": [], "lease": None, "ttl_s": self.ttl_s}

    @classmethod
    def from_json(cls, body: Json) -> "WorkLeft":
        return cls(body["ttl_s"])


@dataclass(frozen=True)
class Wait:
    """No work at this moment; the reason is one sentence."""

    status: ClassVar[int] = 404
    retry_after_s: float
    reason: str
    llm_share: Json | None = None

    def to_json(self) -> Json:
        return {
            "error": self.reason,
            "retry_after_s": self.retry_after_s,
            "llm_share": self.llm_share,
        }

    @classmethod
    def from_json(cls, body: Json) -> "Wait":
        kind = Quarantined if body["error"].startswith("quarantine") else Wait
        return kind(body["retry_after_s"], body["error"], body.get("llm_share"))


@dataclass(frozen=True)
class Quarantined(Wait):
    """Nothing for this worker until its probe. The reason begins with "quarantine"."""


@dataclass(frozen=True)
class AllDone:
    """No work is left."""

    status: ClassVar[int] = 404
    failed: int  # indices that failed permanently

    @property
    def message(self) -> str:
        if not self.failed:
            return "all indices are done"
        return (
            f"all indices are done, but for {self.failed:,} set aside"
            " (image_server.py --status names them)"
        )

    def to_json(self) -> Json:
        return {"error": self.message, "all_done": True, "set_aside": self.failed}

    @classmethod
    def from_json(cls, body: Json) -> "AllDone":
        return cls(body.get("set_aside", 0))


def work_answer(body: Json) -> Grant | WorkLeft | Wait | AllDone:
    """The answer to a request for work."""
    if body.get("all_done"):
        return AllDone.from_json(body)
    if "indices" not in body:
        return Wait.from_json(body)
    return Grant.from_json(body) if body["lease"] else WorkLeft.from_json(body)


@dataclass(frozen=True)
class HeartbeatAnswer:
    """The answer to a heartbeat."""

    stale: list[str]  # leases named in the heartbeat that are not this client's: 409
    stop: str | None  # None, "drain" or "quarantine"
    ttl_s: float
    heartbeat_s: float  # the pause between two heartbeats
    llm_share: Json | None = None

    @property
    def status(self) -> int:
        return 409 if self.stale else 200

    def to_json(self) -> Json:
        body = {
            "ttl_s": self.ttl_s,
            "beat_s": self.heartbeat_s,
            "stop": self.stop,
            "stale": self.stale,
            "llm_share": self.llm_share,
        }
        return not_current(self.stale) | body if self.stale else body

    @classmethod
    def from_json(cls, body: Json) -> "HeartbeatAnswer":
        return cls(
            body["stale"], body["stop"], body["ttl_s"], body["beat_s"], body.get("llm_share")
        )


@dataclass(frozen=True)
class LoadAnswer:
    """Whether a client may load its model now."""

    status: ClassVar[int] = 200
    ahead: int  # clients that load at the moment, where there are too many; 0: go on

    def to_json(self) -> Json:
        return {"ahead": self.ahead}

    @classmethod
    def from_json(cls, body: Json) -> "LoadAnswer":
        return cls(body["ahead"])


@dataclass(frozen=True)
class StartAnswer:
    """What follows for a worker that cannot start."""

    status: ClassVar[int] = 200
    stopped: str | None  # why the run is stopped; None: this worker tries again

    def to_json(self) -> Json:
        return {"stopped": self.stopped}

    @classmethod
    def from_json(cls, body: Json) -> "StartAnswer":
        return cls(body["stopped"])


@dataclass(frozen=True)
class CompletionAnswer:
    """What became of the indices that were reported as complete. Never refused."""

    status: ClassVar[int] = 200
    verdicts: dict[int, str]  # index -> ACCEPTED, ALREADY_DONE, STALE or MISSING

    def to_json(self) -> Json:
        return {"verdicts": self.verdicts}

    @classmethod
    def from_json(cls, body: Json) -> "CompletionAnswer":
        return cls({int(index): verdict for index, verdict in body["verdicts"].items()})


@dataclass(frozen=True)
class FailureAnswer:
    """What follows for the indices that were reported as failed."""

    verdicts: dict[int, str]  # index -> RETRY_ELSEWHERE or FAILED_PERMANENTLY
    quarantined_s: float | None = None  # until this worker's probe; None = not quarantined
    stale: list[str] = field(default_factory=list)  # the lease, if not this client's: 409

    @property
    def status(self) -> int:
        return 409 if self.stale else 200

    def to_json(self) -> Json:
        if self.stale:
            return not_current(self.stale)
        return {"verdicts": self.verdicts, "quarantined_until_s": self.quarantined_s}

    @classmethod
    def from_json(cls, body: Json) -> "FailureAnswer":
        if body.get("stale"):
            return cls({}, stale=body["stale"])
        verdicts = {int(index): verdict for index, verdict in body["verdicts"].items()}
        return cls(verdicts, body["quarantined_until_s"])


@dataclass(frozen=True)
class ReleaseAnswer:
    """Whether the rest of a lease was released."""

    stale: list[str] = field(default_factory=list)  # the lease, if not this client's: 409

    @property
    def status(self) -> int:
        return 409 if self.stale else 200

    def to_json(self) -> Json:
        return not_current(self.stale) if self.stale else {"ok": True}

    @classmethod
    def from_json(cls, body: Json) -> "ReleaseAnswer":
        return cls(body.get("stale", []))


def not_current(leases: list[str]) -> Json:
    return {"error": f"not current any more: {', '.join(leases)}", "stale": leases}
