"""Whose fault a failure is: the index's, the worker's or the world's, decided by contrast (promises 9 and 10).

A failure is provisional until its worker's next results decide. Success on another index: the index gets a mark. M failures in a row while
others succeed: the worker (host + GPU) is quarantined, its marks are erased. Everybody failing: the world's; nobody is blamed, and only a
probe with growing pauses gets work. Tests: tests/generate/test_ledger_blame.py.
"""

import json

# Failures of an index that count beside a known-good text drawn by the same worker just before; that text proves no disk and no LLM.
DRAWN = {"gpu", "prompt", "image", "unknown"}
MAX_PAUSE_S = 6 * 3600
ERRORS_KEPT = 5


def worker_key(worker):
    """A worker is a GPU of a host: the next task on it inherits its quarantine."""
    return f"{worker.get('host')}|{worker.get('gpu')}"


class Blame:
    """The rules over the store's tables. Streaks and last successes live in memory: after a restart they are counted anew."""

    def __init__(self, store, active_workers):
        self.store, self.options = store, store.options
        self.active_workers = active_workers  # now -> keys of the workers that beat
        self.streaks = {}  # worker key -> [failures in a row, time of the first]
        self.succeeded = {}  # worker key -> time of the last success

    # ------------------------------------------------ weather

    def weather(self):
        return json.loads(self.store.one("SELECT weather FROM server")[0])

    def _set_weather(self, **weather):
        self.store.run("UPDATE server SET weather = ?", json.dumps(weather))

    def _storm(self, now, reason):
        """The world's failure: no provisional failure counts, and whoever was quarantined since anyone's last success is free."""
        for dataset, idx in self.store.all(
            "SELECT DISTINCT dataset, idx FROM blames WHERE mark IS NULL"
        ):
            self._erase(dataset, idx, "mark IS NULL")
        self.store.run(
            "DELETE FROM quarantine WHERE since >= ?",
            max(self.succeeded.values(), default=float("-inf")),
        )
        self.streaks.clear()
        self._set_weather(
            state="storm",
            since=now,
            reason=reason,
            probe_at=now + self.options.probe_s,
            pause=self.options.probe_s,
            probe=None,
        )

    def probe_lease(self, now, lease):
        self._set_weather(**{**self.weather(), "probe": lease})

    def probe_ended(self, now, lease, good):
        """A probe has told: of a quarantined worker or of the weather. Not good: the pause doubles."""
        row = self.store.one("SELECT pause FROM quarantine WHERE probe = ?", lease)
        if row and good:
            self.store.run("DELETE FROM quarantine WHERE probe = ?", lease)
        elif row:
            pause = min(2 * row[0], MAX_PAUSE_S)
            self.store.run(
                "UPDATE quarantine SET until = ?, pause = ?, probe = NULL WHERE probe = ?",
                now + pause,
                pause,
                lease,
            )
        weather = self.weather()
        if weather.get("probe") == lease and not good:
            pause = min(2 * weather["pause"], MAX_PAUSE_S)
            self._set_weather(**{**weather, "pause": pause, "probe_at": now + pause, "probe": None})

    # ------------------------------------------------ results

    def success(self, now, key, dataset, accepted):
        """Accepted indices: the worker works, the world does; its earlier failures on other indices were theirs."""
        self._works(now, key, dataset, accepted)
        if self.weather():
            self._set_weather()

    def _works(self, now, key, dataset, itself):
        """The worker works: what it failed before, but for `itself`, is marked."""
        self.succeeded[key] = now
        self.streaks.pop(key, None)
        for n, *where in self.store.all(
            "SELECT n, dataset, idx FROM blames WHERE worker_key = ? AND mark IS NULL", key
        ):
            if where[0] != dataset or where[1] not in itself:
                self.store.run("UPDATE blames SET mark = 1 WHERE n = ?", n)
                self._judge(*where)

    def _judge(self, dataset, idx):
        """Sets an index aside that has its K marks. Marks of an index that someone draws just now wait for that result."""
        marks = self.store.one(
            "SELECT COALESCE(SUM(mark), 0) FROM blames WHERE dataset = ? AND idx = ?", dataset, idx
        )[0]
        state = self.store.one(
            "SELECT state FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx
        )
        if marks >= self.options.max_strikes and state and state[0] == "waiting":
            self.store._set_aside(dataset, idx)

    def failure(self, now, key, worker, dataset, idx, reason, error, known_good):
        """One failed index, already given back by its lease. known_good: whether the same worker had just drawn the known-good text."""
        self._count_error(now, worker, reason, error)
        weather = self.weather()
        if known_good and reason in DRAWN:  # the contrast is there: worker and world work
            self._works(now, key, dataset, [idx])
            if weather.get("state") == "storm":
                self._set_weather(state="doubt", since=now, reason=reason)
            self._blame(now, key, worker, dataset, idx, reason, error, 1)
            return
        if weather.get("state") == "storm" or self.quarantined_until(
            key
        ):  # of them it is known whose fault it is
            return
        self._blame(now, key, worker, dataset, idx, reason, error, None)
        streak = self.streaks.setdefault(key, [0, now])
        streak[0] += 1
        if streak[0] >= self.options.max_failures:
            self._worker_or_world(now, key, worker, reason, streak)

    def _blame(self, now, key, worker, dataset, idx, reason, error, mark):
        self.store._suspect(dataset, idx)
        self.store.run(
            "INSERT INTO blames (dataset, idx, worker_key, worker, mark, time, reason, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            dataset,
            idx,
            key,
            json.dumps(worker),
            mark,
            now,
            reason,
            error[:2000],
        )
        self._judge(dataset, idx)

    def _worker_or_world(self, now, key, worker, reason, streak):
        others = {other for other in self.active_workers(now) if other != key}
        others -= {row[0] for row in self.store.all("SELECT worker_key FROM quarantine")}
        if all(
            other in self.streaks and self.succeeded.get(other, float("-inf")) < streak[1]
            for other in others
        ):
            self._storm(now, reason)
            return
        errors = self.store.all(
            "SELECT time, reason, error FROM blames WHERE worker_key = ? ORDER BY n DESC LIMIT ?",
            key,
            ERRORS_KEPT,
        )
        kept = [
            dict(zip(("time", "reason", "error"), row), worker=worker) for row in reversed(errors)
        ]
        until = now + self.options.probe_s
        self.store.run(
            "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
            key,
            json.dumps(worker),
            now,
            until,
            self.options.probe_s,
            streak[0],
            json.dumps(kept),
        )
        for dataset, idx in self.store.all(
            "SELECT DISTINCT dataset, idx FROM blames WHERE worker_key = ?", key
        ):
            self._erase(dataset, idx, "worker_key = ?", key)
        self.streaks.pop(key)

    def _erase(self, dataset, idx, which, *values):
        """Takes those blames from an index; one without any is an index like all others. What is set aside stays so: its marks were
        contrasts."""
        row = self.store.one(
            "SELECT state FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx
        )
        if row and row[0] == "set_aside":
            return
        self.store.run(
            f"DELETE FROM blames WHERE dataset = ? AND idx = ? AND {which}", dataset, idx, *values
        )
        if not self.store.one("SELECT 1 FROM blames WHERE dataset = ? AND idx = ?", dataset, idx):
            self.store._clear(dataset, idx)

    def silent_death(self, now, key, worker, dataset, drawing):
        """Its client is gone without a word: what it was drawing is suspect, half a mark each."""
        for idx in drawing:
            self._blame(
                now, key, worker, dataset, idx, "unknown", "its client died while drawing it", 0.5
            )

    def _count_error(self, now, worker, reason, error):
        self.store.run(
            "INSERT INTO errors VALUES (?, 1, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET count = count + 1, time = excluded.time, error = excluded.error, worker = excluded.worker",
            reason,
            now,
            error[:2000],
            json.dumps(worker),
        )

    # ------------------------------------------------ who gets work

    def gate(self, now, key):
        """None = fair weather; "alone" = one index with a known-good text (doubt); "probe"; or a number: seconds to wait, negative =
        quarantined."""
        row = self.store.one("SELECT until, probe FROM quarantine WHERE worker_key = ?", key)
        if row:
            return (
                "probe"
                if now >= row[0] and row[1] is None
                else -max(row[0] - now, self.options.heartbeat_s)
            )
        weather = self.weather()
        if weather.get("state") == "storm":
            return (
                "probe"
                if now >= weather["probe_at"] and weather["probe"] is None
                else max(weather["probe_at"] - now, self.options.heartbeat_s)
            )
        return "alone" if weather.get("state") == "doubt" else None

    def quarantined_until(self, key):
        row = self.store.one("SELECT until FROM quarantine WHERE worker_key = ?", key)
        return row and row[0]
