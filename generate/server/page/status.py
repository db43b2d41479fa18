"""The status document: a run as one JSON, for the page, /status, /metrics and the terminal.

    document = StatusDocument(run, history).make(ledger, now)     # under the ledger's lock

It costs a few queries, each bounded. Its size is bounded too (about 30 kB for 1,000 workers and
50,000 failed prompts): long tables come in pages. The names of its fields are published.
"""

import math
import shlex
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from generate.llms.budget import Accounts
from generate.server.ledger import acceptance, origins, rejected
from generate.server.ledger.ledger import Ledger
from generate.server.ledger.queries import Queries
from generate.server.page.health import command, health
from generate.server.page.history import RunHistory
from generate.server.page.page_access import PageAccess
from generate.server.page.status_llm import llm_section

WORKERS_PAGE = 50
FAILED_PAGE = 10
SILENT_HEARTBEATS = 4  # missed until a client counts as silent; after a TTL it is not shown
SLOW = 0.5  # of the median speed of the workers that generate for the same data set …
SLOW_AFTER_S = 120  # … once watched for this long
LEAST_PEERS = 3  # … of so many workers
TEXT = 2000  # characters of an error or a prompt
MOST_QUARANTINED = 100
MOST_ERRORS = 20
MOST_STOPPED = 5
COUNTS = (
    "total",
    "waiting",
    "leased",
    "done",
    "set_aside",
    "short",
    "short_images",
    "images",
)
PUBLISHED = {"healthy": "fair", "halted": "storm"}  # states of health, as /status has them
Json = dict[str, Any]
T = TypeVar("T")


class Run(Protocol):
    """The server, as far as the page and the status document need it."""

    output_root: Path
    page_access: PageAccess
    accounts: Accounts

    def about(self) -> Json:
        """{"url", "hostname", "port", "run_id", "epoch", "pid", "started", "version"}."""

    def notice(self) -> list[str]:
        """What it is busy with beside its clients: a sentence, and what to do about it."""

    def stopped(self) -> list[Json]:
        """The runs whose command no worker can do: {"dataset", "error", "host", "worker", …}."""

    def detached(self) -> Collection[str]:
        """The data sets whose folder is gone."""

    def read(self, function: Callable[[Ledger, float], T]) -> T:
        """function(ledger, now) under the ledger's lock."""


@dataclass(frozen=True)
class Pages:
    """Pages of the two long tables, from 0; a page behind the last one is the last one."""

    workers: int = 0
    failed: int = 0


class StatusDocument:
    """Makes the document from the ledger's queries."""

    def __init__(
        self, run: Run, history: RunHistory, notice: Sequence[str] = (), pages: Pages | None = None
    ) -> None:
        """notice: what the server is busy with, asked for before the ledger's lock is taken."""
        self.run = run
        self.history = history
        self.notice = notice
        self.pages = pages or Pages()

    def make(self, ledger: Ledger, now: float) -> Json:
        """The document of every data set of the output root (JSON types only)."""
        clock = Clock(now)
        root = self.run.output_root
        queries = ledger.queries
        workers = self._workers(queries, clock)
        datasets = [self._dataset(name, queries, workers, clock) for name in queries.names()]
        states = [worker["state"] for worker in workers]
        document = {
            "document": 1,
            "time": clock.iso(now),
            "server": _server(self.run, clock),
            "weather": None,
            "datasets": datasets,
            "workers": {
                **_page(workers, self.pages.workers, WORKERS_PAGE),
                "by_state": {state: states.count(state) for state in sorted(set(states))},
                "slow": sum(worker["slow"] for worker in workers),
            },
            "quarantined": [
                _quarantined(row, clock, root) for row in queries.quarantined()[:MOST_QUARANTINED]
            ],
            "set_aside": failed_prompts(queries, root, clock, datasets, self.pages.failed),
            "errors": [
                {"count": row["count"], **_error(row, clock, "last_error")}
                for row in queries.errors()[:MOST_ERRORS]
            ],
            "llm": llm_section(self.run.accounts),
            "newest": [],
            "rejected_lately": rejected.section(queries, clock.iso),
            "stopped": [
                {key: row[key] for key in ("dataset", "error", "host", "time")}
                | {"log": log_of(row["worker"])}
                for row in self.run.stopped()[-MOST_STOPPED:]
            ],
        }
        known = _known_health(queries.health(), clock)
        document["weather"] = health(known, document, root, self.notice)
        return document

    def _workers(self, queries: Queries, clock: "Clock") -> list[Json]:
        """A row for each client that is there; the slow ones come first."""
        limits = queries.limits
        rows = [
            self._worker(row, clock, SILENT_HEARTBEATS * limits.heartbeat_s)
            for row in queries.workers(clock.now)
            # a client that has released everything has left, and would soon count as silent
            if clock.now - row["heard_at"] <= limits.ttl_s
            and not (row["state"] == "releasing" and not row["leases"])
        ]
        _mark_slow(rows, self.history)
        return sorted(
            rows,
            key=lambda w: (not w["slow"], w["host"] or "", str(w["gpu"]), w["client_id"]),
        )

    def _worker(self, row: Json, clock: "Clock", silent_s: float) -> Json:
        worker = row["worker"] or {}
        drawing = list(row["drawing"] or ())
        age_s = clock.now - row["heard_at"]
        return {
            **{key: worker.get(key) for key in ("host", "gpu", "array_job", "task", "restart")},
            "client_id": row["client_id"],
            "dataset": row["dataset"],
            "state": "silent" if age_s > silent_s else row["state"] or "unknown",
            "lease": ", ".join(row["leases"] or ()),
            "drawing": drawing[:5],
            "drawing_more": len(drawing[5:]),
            "images": row["images"],
            "images_per_hour": rounded(self.history.worker_per_hour(row["client_id"])),
            "slow": False,
            "beat_age_s": round(max(0.0, age_s), 1),
            "log": log_of(worker),
        }

    def _dataset(self, name: str, queries: Queries, workers: list[Json], clock: "Clock") -> Json:
        definition = queries.definition(name)
        counts = queries.counts(name)
        per_prompt = definition["images_per_prompt"]
        per_hour = self._per_hour(name, workers)
        left = (counts["waiting"] + counts["leased"]) * per_prompt
        states = counts["waiting"] + counts["leased"] + counts["done"] + counts["set_aside"]
        present = [[round(clock.unix_s), counts["images"]]] if left else []
        return {
            "name": name,
            **{key: counts[key] for key in COUNTS},
            "sum_ok": states == counts["total"],
            "images_expected": counts["total"] * per_prompt,
            "images_per_prompt": per_prompt,
            "images_per_hour": rounded(per_hour),
            "eta_s": 0 if left == 0 else round(left / per_hour * 3600) if per_hour else None,
            "given_back": counts["given_back"],
            "truncated": queries.tally(name, "truncated"),
            "acceptance": acceptance.section(queries, name, definition),
            "origins": origins.section(queries, name, bool(definition.get("accept"))),
            "packed": None,
            "report": None,
            "prompts_file": definition.get("prompts_file"),
            "model": definition.get("model"),
            "history": self.history.points(name) + present,
            "detached": name in self.run.detached(),
        }

    def _per_hour(self, name: str, workers: list[Json]) -> float | None:
        """Images an hour by the ledger, else (its first hour) by the workers' heartbeats."""
        known = self.history.per_hour(name)
        speeds = [
            worker["images_per_hour"]
            for worker in workers
            if worker["dataset"] == name and worker["images_per_hour"] is not None
        ]
        if known is None and speeds:
            return float(sum(speeds))
        return known


class Clock:
    """Converts the ledger's seconds to UTC and to ages."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.unix_s = time.time()

    def iso(self, at: float | str | None) -> str | None:
        """A time of the ledger as UTC in ISO 8601; a text and None as they are."""
        if at is None or isinstance(at, str):
            return at
        then = datetime.fromtimestamp(self.unix_s + at - self.now, UTC)
        return then.isoformat(timespec="seconds").replace("+00:00", "Z")

    def seconds_to(self, at: float | None) -> float | None:
        """Seconds until a time of the ledger, 0 if it is over."""
        return None if at is None else max(0.0, round(at - self.now, 1))


def rounded(speed: float | None) -> float | None:
    return None if speed is None else round(speed, 1)


def _server(run: Run, clock: Clock) -> Json:
    about = run.about()
    started = datetime.fromisoformat(about["started"].replace("Z", "+00:00"))
    return {
        **about,
        "output_root": str(run.output_root),
        "ssh": tunnel(about),
        "uptime_s": round(clock.unix_s - started.timestamp()),
    }


def tunnel(about: Json) -> str:
    """The line that forwards the page's port.

    Through the login host, or to the server's own machine where it listens on loopback only.
    """
    address = urlsplit(about["url"])
    there = "<login host>"
    if address.hostname in ("127.0.0.1", "::1", "localhost"):
        there = about["hostname"]
    return f"ssh -N -L {about['port']}:{address.netloc} {there}"


def log_of(worker: Json) -> str | None:
    """Name of a worker's log in the output root: as the client names it, or by its task.

    None where it would lead out of the output root: the user is told to read that file.
    """
    if not worker.get("log") and worker.get("array_job") is None:
        return None
    name = str(worker.get("log") or f"{worker['array_job']}_{worker.get('task')}.out")
    return None if "/" in name or name in (".", "..") else name


def _mark_slow(workers: list[Json], history: RunHistory) -> None:
    """Slow: less than half of the median of three or more that work on the same data set."""
    generating = [
        worker
        for worker in workers
        if worker["state"] == "drawing"
        and worker["images_per_hour"] is not None
        and history.watched_s(worker["client_id"]) >= SLOW_AFTER_S
    ]
    for name in {worker["dataset"] for worker in generating}:
        peers = [worker for worker in generating if worker["dataset"] == name]
        if len(peers) >= LEAST_PEERS:
            median = statistics.median(worker["images_per_hour"] for worker in peers)
            for worker in peers:
                worker["slow"] = worker["images_per_hour"] < SLOW * median


def _page(rows: list[Json], page: int, size: int) -> Json:
    pages = max(1, math.ceil(len(rows) / size))
    page = min(page, pages - 1)
    start = page * size
    return {"total": len(rows), "page": page, "pages": pages, "rows": rows[start : start + size]}


def _error(row: Json, clock: Clock, name: str = "error") -> Json:
    worker = row.get("worker") or {}
    return {
        "time": clock.iso(row.get("time")),
        "reason": row.get("reason"),
        name: (row.get("error") or "")[:TEXT],
        "host": worker.get("host"),
        "gpu": worker.get("gpu"),
        "log": log_of(worker),
    }


def _known_health(known: Json, clock: Clock) -> Json:
    """The ledger's verdict in the words of the document."""
    return {
        "state": PUBLISHED.get(known["state"], known["state"]),
        "reason": known.get("reason"),
        "since": clock.iso(known.get("since")),
        "probe_in_s": clock.seconds_to(known.get("probe_at")),
        "errors": [_error(error, clock, "last_error") for error in known.get("errors") or ()][-5:],
    }


def _quarantined(row: Json, clock: Clock, root: Path) -> Json:
    return {
        "host": row["host"],
        "gpu": row["gpu"],
        "since": clock.iso(row.get("since")),
        "probe_in_s": clock.seconds_to(row.get("until")),
        "failures": row.get("failures"),
        "last_errors": [_error(error, clock) for error in row.get("errors") or ()][-3:],
        "log": log_of(row.get("worker") or {}),
        "command": command(root, f"--release_quarantine {shlex.quote(row['host'] or '')}"),
    }


def failed_prompts(
    queries: Queries, root: Path, clock: Clock, datasets: list[Json], page: int
) -> Json:
    """One page of the failed prompts over all data sets; it costs the same however many."""
    total = sum(dataset["set_aside"] for dataset in datasets)
    pages = max(1, math.ceil(total / FAILED_PAGE))
    page = min(page, pages - 1)
    skip = page * FAILED_PAGE
    rows: list[Json] = []
    for dataset in datasets:
        if skip < dataset["set_aside"] and len(rows) < FAILED_PAGE:
            name = dataset["name"]
            for row in queries.failed(name, skip, FAILED_PAGE - len(rows)):
                errors = [_error(error, clock) for error in row["errors"]][-3:]
                marks = {"index": row["index"], "prompt": None, "marks": row["strikes"]}
                rows.append({"dataset": name, **marks, "errors": errors})
        skip = max(0, skip - dataset["set_aside"])
    retry = command(root, "--retry_failed")
    return {"total": total, "page": page, "pages": pages, "command": retry, "rows": rows}
