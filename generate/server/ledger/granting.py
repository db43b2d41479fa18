"""Grant leases: who gets one, who comes back later, and when all is done.

answer = Granting(choice, transactions, answers).lease(now, WorkRequest("HPDv2", …))
"""

import json
from dataclasses import dataclass

from generate.protocol.answers import AllDone, Grant, Quarantined, Wait, WorkLeft
from generate.server.ledger.blame import Admission
from generate.server.ledger.lease_expiry import JobKey
from generate.server.ledger.live_leases import Worker, worker_key
from generate.server.ledger.transactions import Transactions
from generate.server.ledger.work_choice import WorkChoice
from generate.server.storage.recount import recount, sum_is_right
from generate.server.storage.stored_answers import StoredAnswers

MOST_LEASES = 2  # of a client: one that is generated, one whose prompts are being asked for
LONGEST_WAIT_S = 60.0  # until a client that waits for a probe asks again
# a comparison that no client has asked about for so long is repeated: files may be gone since
COMPARED_S = 120.0
COMPARING_S = 1.0  # until a client that waits for the comparison with the folders asks again


@dataclass(frozen=True)
class WorkRequest:
    """Who asks for work. request_id None: a bare published request."""

    dataset: str
    client_id: str
    request_id: str | None
    worker: Worker
    size: int = 1  # indices wanted
    slurm: JobKey | None = None


class Granting:
    """Grants leases over the store; changes are within one transaction."""

    def __init__(
        self, choice: WorkChoice, transactions: Transactions, answers: StoredAnswers
    ) -> None:
        self.choice = choice
        self.store = choice.store
        self.live = choice.live
        self.limits = choice.live.limits
        self.blame = choice.blame
        self.comparison = choice.comparison
        self.transactions = transactions
        self.answers = answers
        # data set -> (done, failed) when its whole folder was last compared for "all done"
        self.verified: dict[str, tuple[int, int]] = {}
        self.asked: dict[str, float] = {}  # data set -> when somebody asked whether all is done

    def peek(self, now: float, dataset: str) -> WorkLeft | Wait | AllDone:
        """Whether there may be work. Asked before a client loads its model."""
        if self.store.open_indices(dataset):
            return WorkLeft(self.limits.ttl_s)
        return self._all_done(now, dataset)

    def lease(self, now: float, request: WorkRequest) -> Grant | Wait | AllDone:
        """Grant a lease, or say why not. A repeated request_id gets the stored Grant.

        A bare published request has no request_id: a repeat gets the lease that its client holds,
        and counts as a heartbeat.
        """
        self.live.client(now, request.client_id, request.worker, request.dataset)
        stored = self.answers.find("lease", request.client_id, request.request_id)
        if stored:
            return Grant.from_json(stored)
        mine = self.store.held_by(request.client_id)
        if mine and request.request_id is None:
            name, (_, indices) = next(iter(mine.items()))
            self.live.renew(now, name)
            return Grant(name, indices, self.limits.bare_ttl_s)
        if not self.store.open_indices(request.dataset):
            return self._all_done(now, request.dataset)
        if self.store.draining():
            return Wait(4 * self.limits.heartbeat_s, "the server is draining: it gives no new work")
        key = worker_key(request.worker)
        admission = self.blame.admission(now, key)
        if admission.wait_s:
            return self._not_admitted(admission)
        if len(mine) >= MOST_LEASES:
            return Wait(self.limits.heartbeat_s, "this client holds two leases")
        size = 1
        if admission.kind == "normal":
            size = self.choice.size(now, request.dataset, request.size)
        chosen = self.choice.choose(now, request.dataset, key, size)
        if not chosen.indices and not self.comparison.is_complete(request.dataset):
            return Wait(COMPARING_S, "comparing the folder with the ledger")
        if not chosen.indices:
            return Wait(self.limits.heartbeat_s, "all that is left is being generated")
        canary = chosen.suspect or admission.kind != "normal"
        return self._grant(now, request, chosen.indices, canary, admission.kind == "probe")

    def _not_admitted(self, admission: Admission) -> Wait:
        wait_s = min(admission.wait_s, LONGEST_WAIT_S)
        if admission.kind == "quarantined":
            return Quarantined(
                wait_s,
                "quarantine: this worker's last results failed while others succeed; "
                f"it is tried again in {admission.wait_s:.0f} s",
            )
        return Wait(wait_s, f"every worker fails; one is tried in {admission.wait_s:.0f} s")

    def _grant(
        self, now: float, request: WorkRequest, indices: list[int], canary: bool, probe: bool
    ) -> Grant:
        key = worker_key(request.worker)
        bare = request.request_id is None
        job, restart = request.slurm or (None, None)
        with self.transactions.begin(now):
            number = self.store.one("SELECT next_lease FROM server")[0]
            name = f"{self.store.epoch}-{number}"
            self.store.run("UPDATE server SET next_lease = next_lease + 1")
            self.store.run(
                "INSERT INTO leases (lease, dataset, version, client_id, worker_key, worker,"
                " slurm_job, slurm_restart, bare, known_good, probe)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                name,
                request.dataset,
                self.store.version(request.dataset),
                request.client_id,
                key,
                json.dumps(request.worker),
                job,
                restart,
                bare,
                canary,
                probe,
            )
            self.store.take(request.dataset, indices, name)
            if probe:
                self.blame.begin_probe(key, name)
            grant = Grant(name, indices, self.live.ttl_s(bare), canary)
            self.answers.keep("lease", request.client_id, request.request_id, grant.to_json())
            self.live.add(now, name, request.client_id, bare)
        self.verified.pop(request.dataset, None)  # the same counts may come again
        return grant

    def _all_done(self, now: float, dataset: str) -> AllDone | Wait:
        """Whether every block was compared after the last index was finished, while a client
        waited for it: only then all is done.
        """
        since = now - self.asked.get(dataset, now)
        self.asked[dataset] = now
        comparing = Wait(COMPARING_S, "comparing the folder before all done")
        if not sum_is_right(self.store, dataset):
            recount(self.store, dataset)
            return comparing
        if not self.comparison.is_complete(dataset):
            return comparing
        ended = self.store.one("SELECT done, set_aside FROM datasets WHERE name = ?", dataset)
        if self.verified.get(dataset) != ended or since > COMPARED_S:
            self.verified[dataset] = ended
            self.comparison.check_again(dataset)
            return comparing
        return AllDone(ended[1])
