"""Who holds which index: leases over SQLite, for one server process. No HTTP, no clock of its own.

    ledger = Ledger(".server/ledger.sqlite", epoch, now)
    ledger.define(now, {"name": "HPDv2", "total": 100_000, "images_per_prompt": 100, "order_seed": 0})
    grant = ledger.lease(now, "HPDv2", client_id, request_id, {"host": "node7", "gpu": "GPU-1"}, chunk_size=10)

now: seconds that never run backwards while the server lives (time.monotonic()). What a method promises is on disk when it returns
(promise 1). Tests: tests/generate/test_ledger_promises.py has one or more a promise, named for it.
"""

import itertools
import json
from collections import deque

from generate.protocol.answers import (
    AllDone,
    FailureAnswer,
    Grant,
    HeartbeatAnswer,
    Quarantined,
    Wait,
    WorkLeft,
)
from generate.server.blame import DRAWN, Blame, worker_key
from generate.server.lease_ends import Ends
from generate.server.live_leases import Client, LeaseLimits
from generate.server.store import BLOCK, bits_of, numbers

ANSWERS_KEPT = 50_000  # stored answers; 1,000 clients can then repeat a request 50 calls later


class Ledger(Ends):
    """One thread at a time (the server's lock). .rebuilt: this start found no ledger, or a torn or older one; the folders are then the
    truth, and .lost says what had happened. .connection: others may keep tables in it, and commit with .transaction()."""

    def __init__(self, path, epoch, now, options=None, utc=None):
        super().__init__(path, epoch, options or LeaseLimits(), utc)
        self.rebuilt = self.lost is not None
        self.clients = {}  # client id -> Client
        self.deadlines = {}  # lease -> when it ends
        self.beat_at = {}  # lease -> its last beat
        self.owners = {}  # lease -> (client id, bare): a beat then needs no look into the tables
        self.slurm_states = {}  # (job, restart) -> [was seen, answers in a row without it, last state]
        self.graced, self.heard = (
            set(),
            set(),
        )  # leases with a grace flag; those of them that have beaten since the last sweep
        self.finished = {}  # data set -> the last finished indices, newest last
        self.verified = {}  # data set -> counts of work left when its whole folder was last compared for "all done"
        self.swept_at = self.noted_at = self.now = now
        self.blame = Blame(self, self._active_workers)
        for dataset in self.names():
            self._checked[dataset] = bytearray(-(-self.definition(dataset)["total"] // BLOCK))
        # Promise 6: one TTL of grace; half of it for each further restart without a beat, or a server that keeps dying would keep the
        # dead alive.
        for lease, client_id, bare, grace in self.all(
            "SELECT lease, client_id, bare, grace FROM leases"
        ):
            self._remember(now, lease, client_id, bare, self._ttl(bare) / 2**grace)
            self.graced.add(lease)
        with self.transaction():
            self.run("UPDATE leases SET grace = grace + 1")
            # wall clocks jump: a quarantine from before the restart lasts one pause at most from now
            self.run("UPDATE quarantine SET until = MIN(until, ? + pause)", now)
        self.note_changes()

    def close(self):
        self.note_changes()
        self.connection.close()

    def _ttl(self, bare):
        return self.options.bare_ttl_s if bare else self.options.ttl_s

    def _remember(self, now, lease, client_id, bare, ttl_s):
        self.deadlines[lease], self.beat_at[lease], self.owners[lease] = (
            now + ttl_s,
            now,
            (client_id, bare),
        )

    def forget_memory(self):
        """After a rollback: leases in memory that are not on disk go, those on disk that memory has dropped get a fresh TTL."""
        stored = {
            lease: owner for lease, *owner in self.all("SELECT lease, client_id, bare FROM leases")
        }
        for memory in (self.deadlines, self.beat_at, self.owners):
            for lease in memory.keys() - stored.keys():
                del memory[lease]
        for lease in stored.keys() - self.deadlines.keys():
            client_id, bare = stored[lease]
            self._remember(self.now, lease, client_id, bare, self._ttl(bare))
        self.blame = Blame(self, self._active_workers)

    def _active_workers(self, now, dataset=None):
        live = [
            client for client in self.clients.values() if now - client.beat_at <= self.options.ttl_s
        ]
        return {worker_key(client.worker) for client in live if dataset in (None, client.dataset)}

    def _client(self, now, client_id, worker=None, dataset=None):
        client = self.clients.setdefault(client_id, Client(worker or {}, progress_at=now))
        client.worker, client.dataset, client.beat_at = (
            worker or client.worker,
            dataset or client.dataset,
            now,
        )
        return client

    # ------------------------------------------------ repeated requests (promise 7)

    def _answer(self, verb, client_id, request_id):
        row = request_id and self.one(
            "SELECT answer FROM answers WHERE client_id = ? AND request_id = ?",
            client_id,
            f"{verb} {request_id}",
        )
        return json.loads(row[0]) if row else None

    def _store_answer(self, verb, client_id, request_id, answer):
        if request_id:
            self.run(
                "INSERT INTO answers (client_id, request_id, answer) VALUES (?, ?, ?)",
                client_id,
                f"{verb} {request_id}",
                json.dumps(answer),
            )
            self.run(
                "DELETE FROM answers WHERE n <= (SELECT MAX(n) FROM answers) - ?", ANSWERS_KEPT
            )

    # ------------------------------------------------ lease

    def peek(self, now, dataset):
        """WorkLeft when there is or may be work, else Wait or AllDone; grants nothing, so that a client need not load a model in vain."""
        waiting, leased = self.one("SELECT waiting, leased FROM datasets WHERE name = ?", dataset)
        return self._all_done(dataset) if waiting + leased == 0 else WorkLeft(self.options.ttl_s)

    def lease(self, now, dataset, client_id, request_id, worker, chunk_size=1, slurm=None):
        """Grant, Wait, Quarantined or AllDone. slurm: (job id, restart count) or None; a repeated request_id gets the stored Grant.

        Without a request_id it is a bare published request: a repeat gets its current lease and is a beat.
        Tests: test_promise_03_*, test_promise_07_*, test_promise_12_*, test_promise_14_*.
        """
        self.now, key, bare = now, worker_key(worker), request_id is None
        self._client(now, client_id, worker, dataset)
        if stored := self._answer("lease", client_id, request_id):
            return Grant.from_json(stored)
        mine = self.held_by(client_id)
        if bare and mine:
            name, (_, indices) = next(iter(mine.items()))
            self._beat_lease(now, name, bare=True)
            return Grant(name, indices, self.options.bare_ttl_s)
        waiting, leased = self.one("SELECT waiting, leased FROM datasets WHERE name = ?", dataset)
        if waiting + leased == 0:
            return self._all_done(dataset)
        if self.draining():
            return Wait(
                4 * self.options.heartbeat_s, "the server is draining: it gives no new work"
            )
        gate = self.blame.gate(now, key)
        if isinstance(gate, float | int):
            wait_s = min(abs(gate), 60.0)
            failed = f"quarantine: this worker's last results failed while others succeed; it is tried again in {-gate:.0f} s"
            return (
                Quarantined(wait_s, failed)
                if gate < 0
                else Wait(wait_s, f"every worker fails; one is tried in {gate:.0f} s")
            )
        if len(mine) >= 2:
            return Wait(self.options.heartbeat_s, "this client holds two leases")
        indices, alone = self._choose(
            now, dataset, key, 1 if gate else self._chunk(now, dataset, waiting, chunk_size)
        )
        if not indices:
            reason = (
                "comparing the folder with the ledger"
                if self._checked[dataset].find(0) >= 0
                else "all that is left is being drawn"
            )
            return Wait(1.0 if reason.startswith("comparing") else self.options.heartbeat_s, reason)
        return self._grant(
            now,
            dataset,
            client_id,
            request_id,
            worker,
            slurm,
            indices,
            alone or gate is not None,
            gate == "probe",
        )

    def repair(self, now, dataset, client_id, request_id, worker, indices, slurm=None):
        """A lease of those of the indices that nobody holds, done ones too: its client removes and draws them anew. Grant or Wait."""
        self.now = now
        self._client(now, client_id, worker, dataset)
        if stored := self._answer("lease", client_id, request_id):
            return Grant.from_json(stored)
        with self.transaction():
            held = {
                idx
                for idx in indices
                if self.one("SELECT 1 FROM held WHERE dataset = ? AND idx = ?", dataset, idx)
            }
            free = sorted(set(indices) - held)
            if not free:
                return Wait(self.options.heartbeat_s, "others are drawing all of these indices")
            self._outdate(dataset, free)
            for idx in free:
                self._reopen(dataset, idx) if self._is_done(dataset, idx) else self._clear(
                    dataset, idx
                )
            return self._grant(
                now, dataset, client_id, request_id, worker, slurm, free, False, False
            )

    def _grant(
        self, now, dataset, client_id, request_id, worker, slurm, indices, known_good, probe
    ):
        key, bare = worker_key(worker), request_id is None
        with self.transaction():
            name = f"{self.epoch}-{self.one('SELECT next_lease FROM server')[0]}"
            self.run("UPDATE server SET next_lease = next_lease + 1")
            self.run(
                "INSERT INTO leases (lease, dataset, version, client_id, worker_key, worker,"
                " slurm_job, slurm_restart, bare, known_good, probe)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                name,
                dataset,
                self.version(dataset),
                client_id,
                key,
                json.dumps(worker),
                *(slurm or (None, None)),
                bare,
                known_good,
                probe,
            )
            self._take(dataset, indices, name)
            if probe and not self.run(
                "UPDATE quarantine SET probe = ? WHERE worker_key = ?", name, key
            ):
                self.blame.probe_lease(now, name)
            grant = Grant(name, indices, self._ttl(bare), known_good)
            self._store_answer("lease", client_id, request_id, grant.to_json())
            self._remember(now, name, client_id, bare, self._ttl(bare))
        return grant

    def _chunk(self, now, dataset, waiting, asked):
        """At most half of a fair share, so that the last leases hold one index each and no straggler holds the rest."""
        clients = sum(
            client.dataset == dataset and now - client.beat_at <= self.options.ttl_s
            for client in self.clients.values()
        )
        return max(1, min(asked, waiting // (2 * max(1, clients))))

    def _choose(self, now, dataset, key, size):
        """(indices, alone): a suspect, alone, if there is one that this worker has not failed; else fresh ones; else a suspect it has
        failed (only if no other worker is there to judge it). Fresh work comes from blocks compared with the folder, in their stored
        order."""
        suspects = [
            idx
            for (idx,) in self.all(
                "SELECT idx FROM trouble WHERE dataset = ? AND state = 'waiting' ORDER BY idx LIMIT 20",
                dataset,
            )
        ]
        suspects = [idx for idx in suspects if self._checked[dataset][idx // BLOCK]]
        failed = {
            idx
            for idx in suspects
            if self.one(
                "SELECT 1 FROM blames WHERE dataset = ? AND idx = ? AND worker_key = ?",
                dataset,
                idx,
                key,
            )
        }
        for idx in suspects:
            if idx not in failed:
                return [idx], True
        indices = []
        for block, held_open, blob, block_size in self.connection.execute(
            "SELECT block, open, done, size FROM blocks WHERE dataset = ? AND open > 0 ORDER BY position LIMIT 50",
            (dataset,),
        ):
            if len(indices) == size:
                break
            if self._checked[dataset][block]:
                indices += self._free(
                    dataset, block, blob, block_size, held_open, size - len(indices)
                )
        if not indices and failed:
            others = self._active_workers(now, dataset) - {key}
            if all(self.blame.quarantined_until(other) for other in others):
                return [min(failed)], True
        return indices, False

    def _free(self, dataset, block, blob, size, expected, wanted):
        """The lowest indices of a block, `wanted` at most, that are neither done, held nor troubled."""
        first = block * BLOCK
        bits = (1 << size) - 1 & ~bits_of(blob)
        for (idx,) in self.all(
            "SELECT idx FROM held WHERE dataset = ? AND idx BETWEEN ? AND ?"
            " UNION SELECT idx FROM trouble WHERE dataset = ? AND idx BETWEEN ? AND ?",
            dataset,
            first,
            first + BLOCK - 1,
            dataset,
            first,
            first + BLOCK - 1,
        ):
            bits &= ~(1 << idx - first)
        if bits.bit_count() != expected:
            raise RuntimeError(
                f"the ledger is damaged: block {block} of {dataset} has {bits.bit_count()} open indices and counts {expected}"
            )
        return [first + n for n in itertools.islice(numbers(bits), wanted)]

    def _all_done(self, dataset):
        """ "All done" only after every block was compared with its folder since the last one was finished (promise 12)."""
        if self._checked[dataset].find(0) >= 0:
            return Wait(1.0, "comparing the folder before all done")
        done = self.one("SELECT done, set_aside FROM datasets WHERE name = ?", dataset)
        if self.verified.get(dataset) != done:
            self.verified[dataset] = done
            self.check_again(dataset)
            return Wait(1.0, "comparing the folder before all done")
        return AllDone(done[1])

    # ------------------------------------------------ beat

    def beat(
        self,
        now,
        client_id,
        leases,
        state,
        drawing=(),
        images=0,
        worker=None,
        dataset=None,
        slurm=None,
    ):
        """Renews the client's leases, in memory. One that says it draws, without a new image for stall_s, is heard and not renewed
        (promise 5)."""
        self.now, client = now, self._client(now, client_id, worker, dataset)
        if state != "drawing" or client.state != "drawing" or images != client.images:
            client.progress_at = now
        client.state, client.drawing, client.images, client.leases = (
            state,
            tuple(drawing),
            images,
            tuple(leases),
        )
        stale = []
        for name in leases:
            owner, bare = self.owners.get(name, (None, None))
            if owner != client_id:
                stale.append(name)
            elif now - client.progress_at <= self.options.stall_s:
                self._beat_lease(now, name, bare)
        # one statement: at each of them other threads take the interpreter's lock while the ledger's is held
        draining, quarantined, probe = self.one(
            "SELECT draining, worker_key, probe FROM server LEFT JOIN quarantine ON worker_key = ?",
            worker_key(client.worker),
        )
        return HeartbeatAnswer(
            stale,
            "quarantine" if quarantined and probe not in leases else "drain" if draining else None,
            self.options.ttl_s,
            self.options.heartbeat_s,
        )

    def _beat_lease(self, now, lease, bare):
        self.deadlines[lease] = max(self.deadlines[lease], now + self._ttl(bare))
        self.beat_at[lease] = now
        if lease in self.graced:
            self.heard.add(lease)

    # ------------------------------------------------ complete, fail, release

    def complete(self, now, client_id, request_id, lease, results, exists):
        """{index: "accepted", "already_done", "stale" or "missing"}; the first accepted completion of an index stands (promise 2).

        results: [{"index", "images", "short"}]; exists: {index: whether the server saw all its names in the folder just now}. A lease
        from before an extension may end short of the new count: "stale", and the index waits for its further images.
        """
        self.now = now
        client = self._client(now, client_id)
        if stored := self._answer("complete", client_id, request_id):
            return {int(idx): verdict for idx, verdict in stored.items()}
        row = self.one(
            "SELECT dataset, version, worker_key, worker FROM leases WHERE lease = ? AND client_id = ?",
            lease,
            client_id,
        )
        dataset = row[0] if row else client.dataset
        held, verdicts, accepted = set(self._indices(lease)) if row else set(), {}, {}
        with self.transaction():
            for result in results:
                idx = result["index"]
                if idx in held and exists.get(idx):
                    accepted[idx] = result.get("images", 0), result.get("short") or 0
                    verdicts[idx] = "accepted"
                elif idx in held and row[1] < self.version(dataset):
                    self._give_back(dataset, [idx], "extended")
                    verdicts[idx] = "stale"
                elif idx in held:
                    verdicts[idx] = "missing"
                elif idx not in verdicts:
                    verdicts[idx] = (
                        "already_done"
                        if dataset in self._checked and self._is_done(dataset, idx)
                        else "stale"
                    )
                held -= {idx} if verdicts[idx] != "missing" else set()
            if accepted:
                self._done(dataset, accepted)
                self.blame.success(now, row[2], dataset, accepted)
                self.blame.probe_ended(now, lease, good=True)
            if row and not held:
                self._end(now, lease)
            if set(verdicts.values()) != {"missing"}:
                self._store_answer("complete", client_id, request_id, verdicts)
        for idx, (images, _) in accepted.items():
            self._checking.get((dataset, idx // BLOCK), set()).add(idx)
            self.finished.setdefault(dataset, deque(maxlen=24)).append((idx, images))
        return verdicts

    def fail(self, now, client_id, request_id, lease, results):
        """What follows for each index. results: [{"index", "reason", "error", "known_good": bool or absent}]."""
        self.now = now
        self._client(now, client_id)
        if stored := self._answer("fail", client_id, request_id):
            return FailureAnswer(
                {int(idx): verdict for idx, verdict in stored[0].items()}, stored[1]
            )
        row = self.one(
            "SELECT dataset, worker_key, worker, probe FROM leases WHERE lease = ? AND client_id = ?",
            lease,
            client_id,
        )
        if row is None:
            return FailureAnswer({}, stale=[lease])
        dataset, key, worker, probe = row
        held, verdicts = set(self._indices(lease)), {}
        with self.transaction():
            for result in results:
                idx, reason = result["index"], result["reason"]
                if idx not in held:
                    verdicts.setdefault(idx, "retry elsewhere")
                    continue
                held.discard(idx)
                self._give_back(dataset, [idx], reason)
                if probe:
                    self.blame.probe_ended(
                        now, lease, good=bool(result.get("known_good")) and reason in DRAWN
                    )
                self.blame.failure(
                    now,
                    key,
                    json.loads(worker),
                    dataset,
                    idx,
                    reason,
                    result.get("error") or "",
                    bool(result.get("known_good")),
                )
                state = self.one(
                    "SELECT state FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx
                )
                verdicts[idx] = (
                    "set aside" if state and state[0] == "set_aside" else "retry elsewhere"
                )
            if not held:
                self._end(now, lease)
            until = self.blame.quarantined_until(key)
            quarantined_s = None if until is None else max(0.0, until - now)
            self._store_answer("fail", client_id, request_id, [verdicts, quarantined_s])
        return FailureAnswer(verdicts, quarantined_s)

    def release(self, now, client_id, request_id, lease, reason):
        """Gives back what is unfinished, blaming nobody. False: the lease is not this client's, and nothing was changed (409)."""
        self.now = now
        self._client(now, client_id)
        if self._answer("release", client_id, request_id):
            return True
        if not self.one("SELECT 1 FROM leases WHERE lease = ? AND client_id = ?", lease, client_id):
            return False
        with self.transaction():
            self._end(now, lease, reason)
            self._store_answer("release", client_id, request_id, ["released"])
        return True
