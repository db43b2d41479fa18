"""End leases: their work is done, their deadline is over, or SLURM says that their job is gone.

A lease expires by the server's clock, when its client is silent. SLURM's queue can only shorten
that wait (guarantees 5, 6 and 11). All methods are called within a transaction of the ledger.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from common.console import visible
from generate.server.ledger.blame import Blame
from generate.server.ledger.live_leases import LiveLeases
from generate.server.storage.store import Store

log = logging.getLogger("image_server")

# States of a job whose end is no fault of an index
EXCUSED = (
    "PREEMPTED",
    "REQUEUED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "DEADLINE",
    "REVOKED",
    "SPECIAL_EXIT",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
)
NOT_RUNNING = (*EXCUSED, "PENDING", "COMPLETED", "FAILED", "OUT_OF_MEMORY", "BOOT_FAIL")

JobKey = tuple[str, int]  # SLURM_JOB_ID and SLURM_RESTART_COUNT


@dataclass
class JobSeen:
    """What SLURM's queue has shown of one run of a job."""

    running: bool = False  # it was once seen to run
    absent: int = 0  # answers in a row in which it did not run
    state: str | None = None  # the last one that was seen


class LeaseExpiry:
    """Ends leases in the store and in memory."""

    def __init__(self, store: Store, live: LiveLeases, blame: Blame) -> None:
        self.store = store
        self.live = live
        self.blame = blame
        self.jobs: dict[JobKey, JobSeen] = {}

    def end(self, now: float, lease: str, reason: str | None = None) -> None:
        """The lease is over; what it still holds waits again, counted under the reason."""
        dataset, probe = self.store.one("SELECT dataset, probe FROM leases WHERE lease = ?", lease)
        self.store.release(dataset, self.store.indices(lease), reason)
        self.store.run("DELETE FROM leases WHERE lease = ?", lease)
        if probe:
            self.blame.probe_lost(now, lease)
        self.live.end(lease)

    def end_all(self, now: float, dataset: str, reason: str) -> None:
        for (lease,) in self.store.all("SELECT lease FROM leases WHERE dataset = ?", dataset):
            self.end(now, lease, reason)

    def client_died(self, now: float, lease: str) -> None:
        """End the lease of a client that is silent; what it last generated becomes suspect."""
        row = self.store.one(
            "SELECT client_id, dataset, worker, slurm_job, slurm_restart"
            " FROM leases WHERE lease = ?",
            lease,
        )
        if row is None:  # it was rolled back on a failing disk, and memory did not know yet
            self.live.end(lease)
            return
        client_id, dataset, worker, job, restart = row
        client = self.live.clients.get(client_id)
        indices = self.store.indices(lease)
        generating = set(client.drawing) & set(indices) if client else set()
        excused = job is not None and self._is_excused(job, restart)
        reason = "preempted" if excused else "expired"
        log.info(
            "lease %s of %s on %s is over (%s): prompts %s of %s wait again",
            lease,
            client_id,
            visible(json.loads(worker).get("host")),
            reason,
            _ranges(indices),
            dataset,
        )
        self.end(now, lease, reason)
        if generating and not excused:
            self.blame.silent_death(now, json.loads(worker), dataset, sorted(generating))

    def clear_grace(self, leases: list[str]) -> None:
        """Leases that sent a heartbeat after a restart: the next restart gives them a whole TTL."""
        self.store.run_many(
            "UPDATE leases SET grace = 0 WHERE lease = ?", ((lease,) for lease in leases)
        )

    # ------------------------------------------------ SLURM

    def gone(self, now: float, jobs: dict[JobKey, str]) -> list[str]:
        """The leases whose job has left the queue, by this answer of it.

        jobs: {(job id, restart count): state}. A job is gone if it was once seen to run, is missing
        in two answers, and its client has missed two heartbeats.
        """
        over = []
        for name, *key in self.store.all(
            "SELECT lease, slurm_job, slurm_restart FROM leases WHERE slurm_job IS NOT NULL"
        ):
            job = (key[0], key[1])
            seen = self.jobs.setdefault(job, JobSeen())
            state = jobs.get(job)
            seen.state = state or seen.state
            if state is not None and state not in NOT_RUNNING:
                seen.running = True
                seen.absent = 0
            else:
                seen.absent += 1
            lease = self.live.leases.get(name)
            missed = lease and now - lease.heartbeat_at > 2 * self.live.limits.heartbeat_s
            if seen.running and seen.absent >= 2 and missed:
                over.append(name)
        # a higher restart count shows that the lease's run of the job was requeued
        for job, state in jobs.items():
            self.jobs.setdefault(job, JobSeen(state=state))
        return over

    def forget_jobs(self, jobs: dict[JobKey, str]) -> None:
        """Drop those that neither are in the queue nor hold a lease."""
        holding = {job for (job,) in self.store.all("SELECT slurm_job FROM leases")}
        self.jobs = {
            job: seen for job, seen in self.jobs.items() if job in jobs or job[0] in holding
        }

    def _is_excused(self, job: str, restart: int) -> bool:
        """Whether SLURM took the job away: by its last state, or since it runs again."""
        seen = self.jobs.get((job, restart))
        requeued = any(other == job and again > restart for other, again in self.jobs)
        return requeued or (seen is not None and seen.state in EXCUSED)


def _ranges(indices: Iterable[int]) -> str:
    """Numbers as in "3-7, 12"; of many ranges the first ten."""
    ranges: list[list[int]] = []
    for index in sorted(indices):
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    shown = [f"{a}-{b}" if b > a else str(a) for a, b in ranges[:10]]
    return ", ".join(shown) + ("…" if len(ranges) > 10 else "")
