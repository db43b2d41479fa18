"""The ledger: leases over SQLite, for one server process. No HTTP, no clock of its own.

    ledger = open_ledger(Path(".server/ledger.sqlite"), epoch, now)
    ledger.define({"name": "HPDv2", "total": 100_000, "images_per_prompt": 100, "order_seed": 0})
    worker = {"host": "node7", "gpu": "GPU-1"}
    answer = ledger.lease(now, WorkRequest("HPDv2", client_id, request_id, worker, size=10))

now: seconds that never run backwards while the server lives (time.monotonic()). What a method
answers is on disk when it returns. The guarantees of the job server, with their tests:

 1. Grants, completions, failures and releases are on disk before the reply:
    test_guarantee_01_durable_before_the_reply
 2. The first completion of an index stands, once the server sees its files in the folder:
    test_guarantee_02_first_completion_stands_and_names_are_looked_at
 3. An index has one current lease, a lease's name never repeats, and the folder wins:
    test_guarantee_03_one_lease_an_index_and_names_that_never_repeat
 4. A lease that is over changes nothing, here or in the folder:
    test_guarantee_04_a_lease_that_is_over_changes_nothing
 5. Only the server's clock ends a lease; time in which it stood still does not count:
    test_guarantee_05_a_late_sweep_adds_its_lateness
 6. A restart keeps the leases of live clients for a TTL, and those of dead ones not for ever:
    test_guarantee_06_a_restart_keeps_leases_but_not_the_dead_for_ever
 7. A repeated request gets the stored answer:
    test_guarantee_07_a_repeat_gets_the_stored_answer
 8. Completion is per index; only the unfinished rest is released:
    test_guarantee_08_only_the_unfinished_rest_is_released
 9. Faults are attributed by contrast to an index, a worker or the whole run:
    test_guarantee_09_poison_fails_permanently_by_contrast
10. A broken worker is quarantined, blames no index, and is probed with growing pauses:
    test_guarantee_10_a_broken_gpu_is_quarantined_and_blames_nobody
11. SLURM's queue only shortens a lease, and never that of a client that sends heartbeats:
    test_guarantee_11_slurm_only_shortens
12. "All done" is said after the folder was compared; "come back later" is another answer:
    test_guarantee_12_come_back_is_not_all_done
13. waiting + leased + done + failed = total, each counted on its own:
    test_guarantee_13_the_sum_is_a_check_that_can_fail
14. The cost of a request does not grow with the number of indices:
    test_guarantee_14_a_request_costs_the_same_at_a_thousandfold_total
15. A ledger has one server; losing it loses nothing that lies in the folders:
    test_guarantee_15_the_file_has_one_server_and_a_lost_one_is_rebuilt
16. Money is granted on disk before it is spent, and the cap is never passed:
    test_guarantee_16_the_cap_is_never_passed
"""

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

from generate.protocol.answers import (
    ACCEPTED,
    ALREADY_DONE,
    FAILED_PERMANENTLY,
    MISSING,
    RETRY_ELSEWHERE,
    STALE,
    AllDone,
    FailureAnswer,
    Grant,
    HeartbeatAnswer,
    Wait,
    WorkLeft,
)
from generate.server.ledger import acceptance
from generate.server.ledger.blame import GENERATING, Blame, Failure
from generate.server.ledger.granting import Granting, WorkRequest
from generate.server.ledger.lease_expiry import JobKey, LeaseExpiry
from generate.server.ledger.ledger_check import check_values
from generate.server.ledger.ledger_datasets import change_of, define, forget
from generate.server.ledger.live_leases import Heartbeat, LeaseLimits, LiveLeases, worker_key
from generate.server.ledger.queries import Queries
from generate.server.ledger.transactions import Transactions
from generate.server.ledger.work_choice import WorkChoice
from generate.server.storage.blocks import Figures
from generate.server.storage.comparison import FolderComparison
from generate.server.storage.recount import check_counts
from generate.server.storage.store import Definition, Store, open_store
from generate.server.storage.stored_answers import StoredAnswers

HOUSEKEEPING_S = 60.0
REPLACED = "its folder is another one, or has less; what is done is read from it anew"
log = logging.getLogger("image_server")

Result = dict[str, Any]  # one index of a report, as it comes over the wire


def open_ledger(
    path: Path, epoch: int, now: float, limits: LeaseLimits | None = None, utc: float | None = None
) -> "Ledger":
    """utc: Unix time at which now was 0. Errors: as of schema.open_database."""
    store = open_store(path, epoch, utc, check_values)
    live = LiveLeases(limits or LeaseLimits(), now)
    return Ledger(store, Blame(store, live), live, now)


class Ledger:
    """One thread at a time (the server's lock).

    .store: the tables; .live: clients and leases in memory; .comparison: with the folders;
    .queries: what the page shows. .rebuilt: this start found no ledger, or a torn or older one.
    """

    def __init__(self, store: Store, blame: Blame, live: LiveLeases, now: float) -> None:
        self.store = store
        self.blame = blame
        self.live = live
        self.limits = live.limits
        self.comparison = FolderComparison(store)
        self.expiry = LeaseExpiry(store, live, blame)
        self.queries = Queries(store, blame, live)
        self.answers = StoredAnswers(store)
        self.transactions = Transactions(store, blame, live)
        choice = WorkChoice(store, self.comparison, blame, live)
        self.granting = Granting(choice, self.transactions, self.answers)
        self.rebuilt = store.lost is not None
        self.housekept_at = now
        for lease, client_id, bare, grace in store.all(
            "SELECT lease, client_id, bare, grace FROM leases"
        ):
            live.restore(now, lease, client_id, bool(bare), grace)
        with store.transaction():
            store.run("UPDATE leases SET grace = grace + 1")
            blame.shorten_quarantines(now)
        check_counts(store, by_rows=True)
        store.note_changes()

    def close(self) -> None:
        self.store.note_changes()
        self.store.connection.close()

    def transaction(self, now: float) -> contextlib.AbstractContextManager[None]:
        """See Transactions.begin."""
        return self.transactions.begin(now)

    def define(self, now: float, definition: Definition, version: int = 1) -> None:
        """Follow a folder's definition; what it holds is compared before anything is granted.

        version: of a data set that is new here: its file's number, above 1 after an extension.
        Where the folder is another one than before, or has less, the ledger begins anew.
        """
        name = definition["name"]
        with self.transactions.begin(now):
            if change_of(self.store, definition) == "replaced":
                self.expiry.end_all(now, name, "replaced")
            change = define(self.store, definition, version)
        if change == "replaced":
            log.warning("data set %s: %s", name, REPLACED)
        if change != "none":
            self.comparison.begin(name)

    def forget(self, now: float, dataset: str) -> None:
        """Remove all that is known of a data set; its leases are void."""
        with self.transactions.begin(now):
            self.expiry.end_all(now, dataset, "forgotten")
            forget(self.store, dataset)
        self.comparison.forget(dataset)

    # ------------------------------------------------ requests of clients

    def peek(self, now: float, dataset: str) -> WorkLeft | Wait | AllDone:
        """Whether there may be work, so that a client need not load a model in vain."""
        return self.granting.peek(now, dataset)

    def lease(self, now: float, request: WorkRequest) -> Grant | Wait | AllDone:
        """A repeated request_id gets the stored Grant."""
        return self.granting.lease(now, request)

    def heartbeat(self, now: float, said: Heartbeat) -> HeartbeatAnswer:
        """Renew the client's leases, in memory."""
        stale = self.live.heartbeat(now, said)
        key = worker_key(self.live.clients[said.client_id].worker)
        # one statement, since at each one other threads take the interpreter and wait for the lock
        draining, quarantined, probe = self.store.one(
            "SELECT draining, worker_key, probe FROM server LEFT JOIN quarantine ON worker_key = ?",
            key,
        )
        stop = "drain" if draining else None
        if quarantined and probe not in said.leases:
            stop = "quarantine"
        return HeartbeatAnswer(stale, stop, self.limits.ttl_s, self.limits.heartbeat_s)

    def complete(
        self,
        now: float,
        client_id: str,
        request_id: str | None,
        lease: str,
        results: list[Result],
        exists: dict[int, bool],
    ) -> dict[int, str]:
        """A verdict per index; the first accepted completion of an index stands (guarantee 2).

        results: work_calls.WorkCalls.complete(); exists: {index: whether all its names
        were in the folder just now}. A lease from before an extension may end short of the new
        count: STALE, and the index waits for its further images.
        """
        client = self.live.client(now, client_id)
        stored = self.answers.find("complete", client_id, request_id)
        if stored:
            return {int(idx): verdict for idx, verdict in stored.items()}
        row = self.store.one(
            "SELECT dataset, version, worker_key FROM leases WHERE lease = ? AND client_id = ?",
            lease,
            client_id,
        )
        dataset = row[0] if row else client.dataset or ""
        held = set(self.store.indices(lease)) if row else set()
        outdated = bool(row) and row[1] < self.store.version(dataset)
        verdicts: dict[int, str] = {}
        accepted: Figures = {}
        with self.transactions.begin(now):
            for result in results:
                idx = result["index"]
                if idx not in held:
                    done = self.store.is_done(dataset, idx)
                    verdicts.setdefault(idx, ALREADY_DONE if done else STALE)
                elif exists.get(idx):
                    accepted[idx] = result.get("images", 0), result.get("short") or 0
                    verdicts[idx] = ACCEPTED
                elif outdated:
                    self.store.release(dataset, [idx], "extended")
                    verdicts[idx] = STALE
                else:
                    verdicts[idx] = MISSING
                if verdicts[idx] != MISSING:
                    held.discard(idx)
            if accepted:
                self.store.complete(dataset, accepted)
                acceptance.tally(self.store, dataset, results, accepted)
                self.blame.success(now, row[2], dataset, accepted)
                self.blame.probe_ended(now, lease, good=True)
            if row and not held:
                self.expiry.end(now, lease)
            if set(verdicts.values()) != {MISSING}:
                self.answers.keep("complete", client_id, request_id, verdicts)
        self.comparison.accepted(dataset, set(accepted))
        for idx, (images, _) in accepted.items():
            self.queries.note_finished(dataset, idx, images)
        return verdicts

    def fail(
        self, now: float, client_id: str, request_id: str, lease: str, results: list[Result]
    ) -> FailureAnswer:
        """What happens to each index.

        results: [{"index", "reason", "error", "known_good": whether a canary worked, or absent}].
        """
        self.live.client(now, client_id)
        stored = self.answers.find("fail", client_id, request_id)
        if stored:
            return FailureAnswer(
                {int(idx): verdict for idx, verdict in stored[0].items()}, stored[1]
            )
        row = self.store.one(
            "SELECT dataset, worker, probe FROM leases WHERE lease = ? AND client_id = ?",
            lease,
            client_id,
        )
        if row is None:
            return FailureAnswer({}, stale=[lease])
        dataset, text, probe = row
        worker = json.loads(text)
        held = set(self.store.indices(lease))
        verdicts: dict[int, str] = {}
        with self.transactions.begin(now):
            for result in results:
                idx = result["index"]
                verdicts.setdefault(idx, RETRY_ELSEWHERE)
                if idx not in held:
                    continue
                held.discard(idx)
                reason = result["reason"]
                canary = bool(result.get("known_good"))
                self.store.release(dataset, [idx], reason)
                if probe:
                    self.blame.probe_ended(now, lease, good=canary and reason in GENERATING)
                error = result.get("error") or ""
                self.blame.failure(now, Failure(worker, dataset, idx, reason, error, canary))
                if self.store.trouble(dataset, idx) == "set_aside":
                    verdicts[idx] = FAILED_PERMANENTLY
            if not held:
                self.expiry.end(now, lease)
            until = self.blame.quarantined_until(worker_key(worker))
            quarantined_s = None if until is None else max(0.0, until - now)
            self.answers.keep("fail", client_id, request_id, [verdicts, quarantined_s])
        return FailureAnswer(verdicts, quarantined_s)

    def release(self, now: float, client_id: str, request_id: str, lease: str, reason: str) -> bool:
        """The unfinished rest waits again, and nobody is blamed.

        False: the lease is not this client's, and nothing was changed.
        """
        self.live.client(now, client_id)
        if self.answers.find("release", client_id, request_id):
            return True
        if not self.store.one(
            "SELECT 1 FROM leases WHERE lease = ? AND client_id = ?", lease, client_id
        ):
            return False
        with self.transactions.begin(now):
            self.expiry.end(now, lease, reason)
            self.answers.keep("release", client_id, request_id, ["released"])
        return True

    def retry_failed(self, dataset: str, indices: list[int]) -> int:
        """Those of the indices that failed permanently wait again, with a clean slate; how many."""
        self.comparison.outdate(dataset, indices)
        failed = [idx for idx in indices if self.store.trouble(dataset, idx) == "set_aside"]
        with self.store.transaction():
            for idx in failed:
                self.store.clear(dataset, idx)
        return len(failed)

    # ------------------------------------------------ how leases end without a report

    def sweep(self, now: float) -> list[str]:
        """End the leases whose time is over; returns them. To be called about once a second."""
        self.live.add_lateness(now)
        over = self.live.expired(now)
        heard = self.live.out_of_grace()
        if over or heard:
            with self.transactions.begin(now):
                self.expiry.clear_grace(heard)
                for lease in over:
                    self.expiry.client_died(now, lease)
            self.live.clear_grace(heard)
        if now - self.housekept_at > HOUSEKEEPING_S:
            self.housekept_at = now
            if self.store.lost:
                self.store.loss_is_known()
            check_counts(self.store)
            self.store.note_changes()
            self.live.forget_clients(now)
        return over

    def slurm_seen(self, now: float, jobs: dict[JobKey, str] | None) -> list[str]:
        """End the leases whose job has left SLURM's queue; returns them.

        jobs: {(job id, restart count): state}; None = unknown, squeue has failed.
        """
        if jobs is None:
            return []
        over = self.expiry.gone(now, jobs)
        if over:
            with self.transactions.begin(now):
                for lease in over:
                    self.expiry.client_died(now, lease)
        self.expiry.forget_jobs(jobs)
        return over
