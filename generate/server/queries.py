"""The ledger as people see and steer it: counts, workers, what is set aside or quarantined; drain, retry, release.

Every answer is bounded in size, or comes in pages (promise 14). Times are seconds of the ledger's own count, as now is.
"""

import dataclasses
import json

from generate.server.store import Store


class View(Store):
    """Between the store and the rules: needs .now, .clients, .blame and .finished of class Ledger."""

    def draining(self):
        return bool(self.one("SELECT draining FROM server")[0])

    def drain(self, now, draining=True):
        with self.transaction():
            self.run("UPDATE server SET draining = ?", draining)

    def resume(self, now):
        self.drain(now, False)

    def retry_failed(self, now, dataset, indices):
        """Those of the indices that were set aside wait again, with a clean slate; how many."""
        count = 0
        self._outdate(dataset, indices)
        with self.transaction():
            for idx in indices:
                if self.one(
                    "SELECT 1 FROM trouble WHERE dataset = ? AND idx = ? AND state = 'set_aside'",
                    dataset,
                    idx,
                ):
                    self._clear(dataset, idx)
                    count += 1
        return count

    def release_quarantine(self, now, host=None):
        """Trusts the quarantined workers (of one host) again; how many."""
        with self.transaction():
            return self.run(
                "DELETE FROM quarantine WHERE ? IS NULL OR json_extract(worker, '$.host') = ?",
                host,
                host,
            )

    # ------------------------------------------------ what the page shows

    def counts(self, dataset):
        """Promise 13: each number is counted on its own, so that waiting + leased + done + set_aside == total is a check that can fail."""
        names = (
            "total",
            "waiting",
            "leased",
            "done",
            "set_aside",
            "images",
            "short",
            "short_images",
        )
        row = self.one(f"SELECT {', '.join(names)} FROM datasets WHERE name = ?", dataset)
        return {
            **dict(zip(names, row)),
            "given_back": dict(
                self.all("SELECT reason, indices FROM given_back WHERE dataset = ?", dataset)
            ),
        }

    def held_by(self, client_id):
        """{lease: (data set, [index, …])} of a client."""
        leases = self.all("SELECT lease, dataset FROM leases WHERE client_id = ?", client_id)
        return {lease: (dataset, self._indices(lease)) for lease, dataset in leases}

    def dataset_of(self, lease):
        row = self.one("SELECT dataset FROM leases WHERE lease = ?", lease)
        return row and row[0]

    def _indices(self, lease):
        return [
            idx for (idx,) in self.all("SELECT idx FROM held WHERE lease = ? ORDER BY idx", lease)
        ]

    def workers(self):
        """Every client heard of within three TTLs."""
        live = [
            (name, client)
            for name, client in self.clients.items()
            if self.now - client.beat_at <= 3 * self.options.ttl_s
        ]
        return [
            {
                "client_id": name,
                **dataclasses.asdict(client),
                "leases": list(client.leases),
                "drawing": list(client.drawing),
            }
            for name, client in live
        ]

    def set_aside(self, dataset, offset=0, limit=25):
        total = self.counts(dataset)["set_aside"]
        rows = self.all(
            "SELECT idx FROM trouble WHERE dataset = ? AND state = 'set_aside' ORDER BY idx LIMIT ? OFFSET ?",
            dataset,
            limit,
            offset,
        )
        return total, [self._set_aside_row(dataset, idx) for (idx,) in rows]

    def _set_aside_row(self, dataset, idx):
        blames = self.all(
            "SELECT mark, time, reason, error, worker FROM blames WHERE dataset = ? AND idx = ? ORDER BY n DESC LIMIT 5",
            dataset,
            idx,
        )
        errors = [
            {"time": at, "reason": reason, "error": error, "worker": json.loads(worker)}
            for _, at, reason, error, worker in reversed(blames)
        ]
        return {"index": idx, "marks": sum(mark or 0 for mark, *_ in blames), "errors": errors}

    def quarantined(self):
        rows = self.all(
            "SELECT worker, since, until, failures, errors FROM quarantine ORDER BY since"
        )
        workers = [
            (json.loads(worker), since, until, failures, json.loads(errors))
            for worker, since, until, failures, errors in rows
        ]
        names = ("worker", "since", "until", "failures", "errors")
        return [
            {"host": row[0].get("host"), "gpu": row[0].get("gpu"), **dict(zip(names, row))}
            for row in workers
        ]

    def weather(self):
        """state: fair, storm, or draining; doubt (every text fails and a known-good one works) is fair weather with single leases."""
        weather = self.blame.weather()
        state = (
            "storm"
            if weather.get("state") == "storm"
            else "draining"
            if self.draining()
            else "fair"
        )
        return {
            "state": state,
            "since": weather.get("since"),
            "reason": weather.get("reason"),
            "probe_at": weather.get("probe_at"),
            "errors": self.errors()[:5],
        }

    def errors(self):
        rows = self.all("SELECT reason, count, time, error, worker FROM errors ORDER BY time DESC")
        return [
            {
                "reason": reason,
                "count": count,
                "time": at,
                "error": error,
                "worker": json.loads(worker),
            }
            for reason, count, at, error, worker in rows
        ]

    def recent(self, dataset, limit=24):
        """The last finished indices of this server's life, newest first: [(index, images), …]."""
        return list(self.finished.get(dataset, ()))[::-1][:limit]
