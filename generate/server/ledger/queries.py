"""Read-only queries of the ledger: counts, workers, failed prompts, quarantine.

    queries.counts("HPDv2")            # {"total": …, "waiting": …, "leased": …, …}

Every answer is bounded in size, or comes in pages (guarantee 14). Times are seconds of the
ledger's own count, as now is. Keys that the status document passes on have their published names.
"""

import json
from collections import deque
from typing import Any

from generate.server.ledger.blame import Blame
from generate.server.ledger.live_leases import LeaseLimits, LiveLeases
from generate.server.ledger.rejected import Key
from generate.server.storage.store import Definition, Store

Row = dict[str, Any]
COUNTS = ("total", "waiting", "leased", "done", "set_aside", "images", "short", "short_images")
ERRORS_SHOWN = 5
FINISHED_KEPT = 24  # of a data set


class Queries:
    """The read side of a ledger: over its store, its fault attribution and its live leases."""

    def __init__(self, store: Store, blame: Blame, live: LiveLeases) -> None:
        self.store = store
        self.blame = blame
        self.live = live
        self._finished: dict[str, deque[tuple[int, int]]] = {}

    @property
    def limits(self) -> LeaseLimits:
        return self.live.limits

    def names(self) -> list[str]:
        return self.store.names()

    def definition(self, dataset: str) -> Definition:
        return self.store.definition(dataset)

    def counts(self, dataset: str) -> Row:
        """Each number is counted on its own (guarantee 13).

        So waiting + leased + done + set_aside == total is a check that can fail.
        """
        row = self.store.one(f"SELECT {', '.join(COUNTS)} FROM datasets WHERE name = ?", dataset)
        released = self.store.all(
            "SELECT reason, indices FROM given_back WHERE dataset = ?", dataset
        )
        return {**dict(zip(COUNTS, row, strict=True)), "given_back": dict(released)}

    def tally(self, dataset: str, name: str) -> int:
        """A count that no other one depends on; 0 where nothing was counted."""
        row = self.store.one(
            "SELECT count FROM tallies WHERE dataset = ? AND name = ?", dataset, name
        )
        return int(row[0]) if row else 0

    def origins(self, dataset: str) -> list[tuple[str, str, int, int, int]]:
        """(kind, name, captions, images, rejected) of what was counted; see origins.py."""
        return self.store.all(
            "SELECT kind, name, captions, images, rejected FROM origins WHERE dataset = ?", dataset
        )

    def rejected_lately(self) -> list[tuple[Key, Row]]:
        """Newest first; see rejected.py."""
        return self.live.rejected.newest()

    def workers(self, now: float) -> list[Row]:
        """Every client heard of within three TTLs."""
        return [
            {
                "client_id": name,
                "worker": client.worker,
                "dataset": client.dataset,
                "leases": client.leases,
                "state": client.state,
                "drawing": client.drawing,
                "images": client.images,
                "heard_at": client.heard_at,
            }
            for name, client in self.live.clients.items()
            if now - client.heard_at <= 3 * self.limits.ttl_s
        ]

    def failed(self, dataset: str, offset: int = 0, limit: int = 25) -> list[Row]:
        """A page of the indices that failed permanently, with their strikes and last errors."""
        rows = self.store.all(
            "SELECT idx FROM trouble WHERE dataset = ? AND state = 'set_aside'"
            " ORDER BY idx LIMIT ? OFFSET ?",
            dataset,
            limit,
            offset,
        )
        return [self._failed_row(dataset, idx) for (idx,) in rows]

    def _failed_row(self, dataset: str, idx: int) -> Row:
        rows = self.store.all(
            "SELECT mark, time, reason, error, worker FROM blames WHERE dataset = ? AND idx = ?"
            " ORDER BY n DESC LIMIT ?",
            dataset,
            idx,
            ERRORS_SHOWN,
        )
        errors = [
            {"time": time, "reason": reason, "error": error, "worker": json.loads(worker)}
            for _, time, reason, error, worker in reversed(rows)
        ]
        return {"index": idx, "strikes": sum(mark or 0 for mark, *_ in rows), "errors": errors}

    def quarantined(self) -> list[Row]:
        """The quarantined workers, oldest first, with their last errors."""
        rows = self.store.all(
            "SELECT worker, since, until, failures, errors FROM quarantine ORDER BY since"
        )
        answer = []
        for text, since, until, failures, errors in rows:
            worker = json.loads(text)
            answer.append(
                {
                    "host": worker.get("host"),
                    "gpu": worker.get("gpu"),
                    "worker": worker,
                    "since": since,
                    "until": until,
                    "failures": failures,
                    "errors": json.loads(errors),
                }
            )
        return answer

    def health(self) -> Row:
        """state: healthy, halted or draining.

        Doubt (every prompt fails and a canary works) is healthy, with single leases.
        """
        health = self.blame.health()
        state = "draining" if self.store.draining() else "healthy"
        return {
            "state": "halted" if health.halted else state,
            "since": health.since,
            "reason": health.reason,
            "probe_at": health.probe_at if health.halted else None,
            "errors": self.errors()[:ERRORS_SHOWN],
        }

    def errors(self) -> list[Row]:
        """The errors by reason: how often, when last, and by which worker; newest first."""
        rows = self.store.all(
            "SELECT reason, count, time, error, worker FROM errors ORDER BY time DESC"
        )
        return [
            {
                "reason": reason,
                "count": count,
                "time": time,
                "error": error,
                "worker": json.loads(worker),
            }
            for reason, count, time, error, worker in rows
        ]

    def note_finished(self, dataset: str, idx: int, images: int) -> None:
        self._finished.setdefault(dataset, deque(maxlen=FINISHED_KEPT)).append((idx, images))

    def recent(self, dataset: str, limit: int = FINISHED_KEPT) -> list[tuple[int, int]]:
        """The last finished indices of this server's life, newest first: [(index, images), …]."""
        return list(self._finished.get(dataset, ()))[::-1][:limit]
