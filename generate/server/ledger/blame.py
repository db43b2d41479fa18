"""Fault attribution: is a failure the index's, the worker's, or everybody's?

    blame.failure(now, Failure(worker, "HPDv2", 17, "gpu", "CUDA error"))
    blame.success(now, worker_key(worker), "HPDv2", {18})        # so 17 gets a strike
    blame.admission(now, worker_key(worker))                     # who gets work

A failure is provisional until the next results of its worker decide (guarantees 9 and 10):
- the worker succeeds on another index: the index gets a strike; max_strikes of them fail it;
- the worker fails max_failures times in a row while others succeed: the worker (host and GPU) is
  quarantined, and the strikes it gave are erased;
- all workers fail: the environment is at fault (a full disk, no LLM). No index and no worker is
  blamed, the run is halted, and only a probe with growing pauses gets work.
Tests: tests/generate/test_ledger_blame.py.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Literal

from generate.server.ledger.live_leases import LiveLeases, Worker, worker_key
from generate.server.storage.store import Store

# Failures that count against an index if the same worker generated a canary prompt just before;
# the canary proves nothing about disks and LLMs.
GENERATING = {"gpu", "prompt", "image", "unknown"}
DISK, FOLDER = "disk", "folder"
MAX_PAUSE_S = 6 * 3600
ERRORS_KEPT = 5
ERROR_TEXT = 2000  # characters of an error that are kept

# The words for the state of health in the ledger's file, where it is {} while healthy.
HALTED = "storm"
DOUBT = "doubt"


@dataclass(frozen=True)
class Health:
    """The state of the run. Halted: all workers fail. Doubt: all prompts fail, but a canary."""

    state: str | None = None  # HALTED, DOUBT or None = healthy
    since: float | None = None
    reason: str | None = None
    pause: float = 0.0  # until the probe after the next one that fails
    probe_at: float = 0.0
    probe: str | None = None  # the lease of the probe that is under way

    @property
    def halted(self) -> bool:
        return self.state == HALTED


@dataclass(frozen=True)
class Failure:
    """One failed index, already released by its lease."""

    worker: Worker
    dataset: str
    idx: int
    reason: str
    error: str
    canary: bool = False  # the same worker had just generated a canary prompt


@dataclass(frozen=True)
class Admission:
    """Whether a worker gets work.

    alone: one index with a canary prompt; probe: that index decides about the worker or the run.
    """

    kind: Literal["normal", "alone", "probe", "halted", "quarantined"]
    wait_s: float = 0.0  # when halted or quarantined


@dataclass
class Streak:
    """Failures of a worker in a row."""

    began: float
    failures: int = 0


class Blame:
    """The rules over the store's tables blames, quarantine and errors.

    Streaks and last successes live in memory: after a restart they are counted anew.
    """

    def __init__(self, store: Store, live: LiveLeases) -> None:
        self.store = store
        self.live = live
        self.limits = live.limits
        self.streaks: dict[str, Streak] = {}  # by worker key
        self.succeeded: dict[str, float] = {}  # worker key -> time of the last success

    def forget_streaks(self) -> None:
        """After a rollback: what was counted may not have happened."""
        self.streaks.clear()
        self.succeeded.clear()

    # ------------------------------------------------ health and probes

    def health(self) -> Health:
        return Health(**json.loads(self.store.one("SELECT weather FROM server")[0]))

    def _set_health(self, health: Health) -> None:
        stored = {name: value for name, value in asdict(health).items() if value is not None}
        text = json.dumps(stored if health.state else {})
        self.store.run("UPDATE server SET weather = ?", text)

    def _halt(self, now: float, reason: str) -> None:
        """All workers fail: no provisional failure counts.

        Workers that were quarantined since the last success of any worker are released.
        """
        for dataset, idx in self.store.all(
            "SELECT DISTINCT dataset, idx FROM blames WHERE mark IS NULL"
        ):
            self._erase(dataset, idx, "mark IS NULL")
        self.store.run(
            "DELETE FROM quarantine WHERE since >= ?",
            max(self.succeeded.values(), default=float("-inf")),
        )
        self.streaks.clear()
        pause = self.limits.probe_s
        self._set_health(Health(HALTED, now, reason, pause, now + pause))

    def begin_probe(self, key: str, lease: str) -> None:
        """The lease is the probe of its quarantined worker, or else of the halted run."""
        if not self.store.run("UPDATE quarantine SET probe = ? WHERE worker_key = ?", lease, key):
            self._set_health(replace(self.health(), probe=lease))

    def probe_ended(self, now: float, lease: str, good: bool) -> None:
        """A probe of a quarantined worker or of a halted run has ended. Not good: longer pauses."""
        row = self.store.one("SELECT pause FROM quarantine WHERE probe = ?", lease)
        if row and good:
            self.store.run("DELETE FROM quarantine WHERE probe = ?", lease)
        elif row:
            self._pause_worker(now, lease, min(2 * row[0], MAX_PAUSE_S))
        health = self.health()
        if health.probe == lease and not good:
            # A disk may have room again at any time, and a probe of it costs one write.
            longest = self.limits.probe_s if health.reason == DISK else MAX_PAUSE_S
            self._pause_run(now, health, min(2 * health.pause, longest))

    def probe_lost(self, now: float, lease: str) -> None:
        """A probe that ended without a result is tried again after the same pause."""
        row = self.store.one("SELECT pause FROM quarantine WHERE probe = ?", lease)
        if row:
            self._pause_worker(now, lease, row[0])
        health = self.health()
        if health.probe == lease:
            self._pause_run(now, health, health.pause)

    def _pause_worker(self, now: float, probe: str, pause: float) -> None:
        self.store.run(
            "UPDATE quarantine SET until = ?, pause = ?, probe = NULL WHERE probe = ?",
            now + pause,
            pause,
            probe,
        )

    def _pause_run(self, now: float, health: Health, pause: float) -> None:
        self._set_health(replace(health, pause=pause, probe_at=now + pause, probe=None))

    # ------------------------------------------------ results

    def success(self, now: float, key: str, dataset: str, accepted: Collection[int]) -> None:
        """The worker works, so the run does; what it failed before was the fault of the indices."""
        self._works(now, key, dataset, accepted)
        if self.health().state:
            self._set_health(Health())

    def _works(self, now: float, key: str, dataset: str, itself: Collection[int]) -> None:
        """The worker works: what it failed before, but for `itself`, gets a strike."""
        self.succeeded[key] = now
        self.streaks.pop(key, None)
        for n, failed_in, idx in self.store.all(
            "SELECT n, dataset, idx FROM blames WHERE worker_key = ? AND mark IS NULL", key
        ):
            if failed_in != dataset or idx not in itself:
                self.store.run("UPDATE blames SET mark = 1 WHERE n = ?", n)
                self._judge(failed_in, idx)

    def _judge(self, dataset: str, idx: int) -> None:
        """An index with max_strikes fails permanently, unless a client is generating it now."""
        strikes = self.store.one(
            "SELECT COALESCE(SUM(mark), 0) FROM blames WHERE dataset = ? AND idx = ?", dataset, idx
        )[0]
        if strikes >= self.limits.max_strikes and self.store.trouble(dataset, idx) == "waiting":
            self.store.fail_permanently(dataset, idx)

    def failure(self, now: float, failure: Failure) -> None:
        """Count a failure: provisional, until the worker's next results decide."""
        key = worker_key(failure.worker)
        self._count_error(now, failure)
        health = self.health()
        if failure.canary and failure.reason in GENERATING:
            # the canary shows that the worker and the run are fine
            self._works(now, key, failure.dataset, [failure.idx])
            if health.halted:
                self._set_health(Health(DOUBT, now, failure.reason))
            self._record(now, failure, 1)
            return
        if failure.reason == FOLDER or health.halted or self.quarantined_until(key) is not None:
            return  # of them it is known whose fault it is
        if failure.reason != DISK:  # a full or broken disk is never a prompt's fault
            self._record(now, failure, None)
        streak = self.streaks.setdefault(key, Streak(now))
        streak.failures += 1
        if streak.failures >= self.limits.max_failures:
            self._worker_or_run(now, failure, streak)

    def _record(self, now: float, failure: Failure, strikes: float | None) -> None:
        """Hold a failure against its index. strikes None: provisional."""
        self.store.suspect(failure.dataset, failure.idx)
        self.store.run(
            "INSERT INTO blames (dataset, idx, worker_key, worker, mark, time, reason, error)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            failure.dataset,
            failure.idx,
            worker_key(failure.worker),
            json.dumps(failure.worker),
            strikes,
            now,
            failure.reason,
            failure.error[:ERROR_TEXT],
        )
        self._judge(failure.dataset, failure.idx)

    def _worker_or_run(self, now: float, failure: Failure, streak: Streak) -> None:
        key = worker_key(failure.worker)
        quarantined = {row[0] for row in self.store.all("SELECT worker_key FROM quarantine")}
        others = self.live.active_workers(now) - quarantined - {key}
        if all(
            other in self.streaks and self.succeeded.get(other, float("-inf")) < streak.began
            for other in others
        ):
            self._halt(now, failure.reason)
        else:
            self._quarantine(now, failure.worker, streak.failures)

    def _quarantine(self, now: float, worker: Worker, failures: int) -> None:
        key = worker_key(worker)
        rows = self.store.all(
            "SELECT time, reason, error FROM blames WHERE worker_key = ? ORDER BY n DESC LIMIT ?",
            key,
            ERRORS_KEPT,
        )
        errors = [
            {"time": time, "reason": reason, "error": error, "worker": worker}
            for time, reason, error in reversed(rows)
        ]
        self.store.run(
            "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
            key,
            json.dumps(worker),
            now,
            now + self.limits.probe_s,
            self.limits.probe_s,
            failures,
            json.dumps(errors),
        )
        for dataset, idx in self.store.all(
            "SELECT DISTINCT dataset, idx FROM blames WHERE worker_key = ?", key
        ):
            self._erase(dataset, idx, "worker_key = ?", key)
        self.streaks.pop(key)

    def _erase(self, dataset: str, idx: int, which: str, *values: object) -> None:
        """Delete those failures of an index; without any it is an ordinary index again.

        One that has failed permanently stays so: its strikes came from workers that work.
        """
        if self.store.trouble(dataset, idx) == "set_aside":
            return
        self.store.run(
            f"DELETE FROM blames WHERE dataset = ? AND idx = ? AND {which}", dataset, idx, *values
        )
        if not self.store.one("SELECT 1 FROM blames WHERE dataset = ? AND idx = ?", dataset, idx):
            self.store.clear(dataset, idx)

    def silent_death(
        self, now: float, worker: Worker, dataset: str, generating: Collection[int]
    ) -> None:
        """A client died without a report: each index it was generating gets half a strike.

        Not in a halted run: there a death says nothing about the index.
        """
        if self.health().halted:
            return
        for idx in generating:
            died = "its client died while generating it"
            self._record(now, Failure(worker, dataset, idx, "unknown", died), 0.5)

    def _count_error(self, now: float, failure: Failure) -> None:
        self.store.run(
            "INSERT INTO errors VALUES (?, 1, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET count = count + 1, time = excluded.time, error = excluded.error,"
            " worker = excluded.worker",
            failure.reason,
            now,
            failure.error[:ERROR_TEXT],
            json.dumps(failure.worker),
        )

    # ------------------------------------------------ who gets work

    def admission(self, now: float, key: str) -> Admission:
        """Whether the worker of this key gets work."""
        row = self.store.one("SELECT until, probe FROM quarantine WHERE worker_key = ?", key)
        if row:
            until, probe = row
            if now >= until and probe is None:
                return Admission("probe")
            return Admission("quarantined", max(until - now, self.limits.heartbeat_s))
        health = self.health()
        if health.halted:
            if now >= health.probe_at and health.probe is None:
                return Admission("probe")
            return Admission("halted", max(health.probe_at - now, self.limits.heartbeat_s))
        return Admission("alone" if health.state == DOUBT else "normal")

    def quarantined_until(self, key: str) -> float | None:
        row = self.store.one("SELECT until FROM quarantine WHERE worker_key = ?", key)
        return row[0] if row else None

    def has_failed(self, key: str, dataset: str, idx: int) -> bool:
        """Whether a failure of this worker is held against the index."""
        return bool(
            self.store.one(
                "SELECT 1 FROM blames WHERE dataset = ? AND idx = ? AND worker_key = ?",
                dataset,
                idx,
                key,
            )
        )

    def shorten_quarantines(self, now: float) -> None:
        """After a restart a quarantine lasts one pause at most, since wall clocks can jump."""
        self.store.run("UPDATE quarantine SET until = MIN(until, ? + pause)", now)

    def release_quarantine(self, host: str | None = None) -> int:
        """Trust the quarantined workers (of one host) again; how many."""
        with self.store.transaction():
            return self.store.run(
                "DELETE FROM quarantine WHERE ?1 IS NULL OR json_extract(worker, '$.host') = ?1",
                host,
            )
