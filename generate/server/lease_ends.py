"""How leases end: with their work, by their deadline, or because SLURM says that their job is gone (promises 5, 6 and 11).

Only the server's clock and a silent client end a lease; SLURM's queue can shorten the wait for that, nothing more.
Tests: test_promise_05_* and 06_* in tests/generate/test_ledger_promises.py, 11_* in test_ledger_blame.py.
"""

import json

from generate.server.queries import View

GONE = (
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
)  # no fault of an index
NOT_RUNNING = GONE + ("PENDING", "COMPLETED", "FAILED", "OUT_OF_MEMORY", "BOOT_FAIL")


class Ends(View):
    """Needs .deadlines, .beat_at, .owners, .clients, .slurm_states, .graced, .heard and .blame of class Ledger."""

    def _end(self, now, lease, reason=None):
        """The lease is over; what it still holds waits again. A probe that ends without a result is tried again after the same pause."""
        dataset, probe = self.one("SELECT dataset, probe FROM leases WHERE lease = ?", lease)
        rest = self._indices(lease)
        self._give_back(dataset, rest, reason)
        self.run("DELETE FROM leases WHERE lease = ?", lease)
        if probe:
            self.run(
                "UPDATE quarantine SET probe = NULL, until = ? + pause WHERE probe = ?", now, lease
            )
            weather = self.blame.weather()
            if weather.get("probe") == lease:
                self.blame._set_weather(
                    **{**weather, "probe": None, "probe_at": now + weather["pause"]}
                )
        for memory in (self.deadlines, self.beat_at, self.owners):
            memory.pop(lease, None)
        self.heard.discard(lease)
        return len(rest)

    def sweep(self, now):
        """Ends the leases whose time is over; returns them. Nobody could beat while the server stood still: its lateness goes to every
        lease (promise 5)."""
        self.now = now
        late = max(
            0.0, now - self.swept_at - min(1.0, self.options.ttl_s / 10)
        )  # it is called that often
        self.swept_at = now
        if late:
            self.deadlines = {lease: end + late for lease, end in self.deadlines.items()}
            self.beat_at = {lease: at + late for lease, at in self.beat_at.items()}
            for client in self.clients.values():
                client.beat_at += late
                client.progress_at += late
        over = [lease for lease, end in self.deadlines.items() if end <= now]
        if over or self.heard:
            with self.transaction():
                self.connection.executemany(
                    "UPDATE leases SET grace = 0 WHERE lease = ?",
                    [(lease,) for lease in self.heard],
                )
                for lease in over:
                    self._died(now, lease)
            self.graced -= self.heard
            self.heard = set()
        if now - self.noted_at > 60:
            self.noted_at = now
            if self.lost and self.one("SELECT lost FROM server")[0]:
                self.loss_is_known()
            self.note_changes()
            self.clients = {
                name: client
                for name, client in self.clients.items()
                if now - client.beat_at <= 3 * self.options.ttl_s or self.held_by(name)
            }
        return over

    def _died(self, now, lease, reason="expired"):
        client_id, dataset, key, worker, job, restart = self._lease_row(lease)
        client = self.clients.get(client_id)
        drawing = set(client.drawing) & set(self._indices(lease)) if client else set()
        state = self.slurm_states.get((job, restart), (False, 0, None))[2]
        excused = state in GONE or any(
            seen_job == job and again > restart
            for seen_job, again in self.slurm_states
            if job is not None
        )
        self._end(now, lease, "preempted" if excused else reason)
        if drawing and not excused and self.blame.weather().get("state") != "storm":
            self.blame.silent_death(now, key, json.loads(worker), dataset, sorted(drawing))

    def _lease_row(self, lease):
        return self.one(
            "SELECT client_id, dataset, worker_key, worker, slurm_job, slurm_restart FROM leases WHERE lease = ?",
            lease,
        )

    def slurm_seen(self, now, jobs):
        """SLURM's queue only shortens a lease (promise 11): its job was once seen, is away in two answers, and has missed two beats.

        jobs: {(job id, restart count): state} or None = unknown. Returns the leases ended.
        """
        self.now = now
        if jobs is None:
            return []
        over = []
        for lease in list(self.deadlines):
            *_, job, restart = self._lease_row(lease)
            if job is None:
                continue
            known = self.slurm_states.setdefault((job, restart), [False, 0, None])
            state = jobs.get((job, restart))
            if state is not None:
                known[2] = state
            if state is not None and state not in NOT_RUNNING:
                known[:2] = [True, 0]
            else:
                known[1] += 1
            if (
                known[0]
                and known[1] >= 2
                and now - self.beat_at[lease] > 2 * self.options.heartbeat_s
            ):
                over.append(lease)
        for (
            (job, restart),
            state,
        ) in (
            jobs.items()
        ):  # a higher restart count tells that the lease's run of the job was requeued
            self.slurm_states.setdefault((job, restart), [False, 0, state])
        if over:
            with self.transaction():
                for lease in over:
                    self._died(now, lease)
        holding = {job for (job,) in self.all("SELECT slurm_job FROM leases")}
        self.slurm_states = {
            at: known for at, known in self.slurm_states.items() if at in jobs or at[0] in holding
        }
        return over
