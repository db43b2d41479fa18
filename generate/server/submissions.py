"""Stop runs whose command no worker can do, so that no array of GPUs stays idle.

    submissions.heard(now, "HPDv2", worker)
    submissions.refusal("HPDv2", worker)               # None, or why its run was stopped
    submissions.cannot_start(now, "HPDv2", worker, Fault("command", "no model x/y on the hub"))
    submissions.works("HPDv2", worker)                 # it has loaded its model and asks for work

A submission is one `generate_images.py` command: its array's tasks, or its processes on one
machine (worker["submission"]). A worker that cannot start says so. Where another worker of the
submission works, the fault is that worker's. Else the run is stopped:

- fault "command" (no such model, gated, a wrong size, a wrong argument): at once;
- "unclear" and "memory" (a missing library, too little memory): when a second host says it; when
  the only host of the submission has said it three times; at once where there is no array;
- "device" (a CUDA error, a bad warm-up image): when three hosts say it, with nobody working.

All of it is kept in memory, for the newest 1,000 submissions: after a restart the next task finds
the same fault again.
"""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from generate.server.ledger.live_leases import Worker

KEPT = 1000
HOSTS_TO_STOP = {"unclear": 2, "memory": 2, "device": 3}
REPORTS_OF_ONE_HOST = 3
HEARD_S = 600.0  # how long a host counts as one that may still succeed


@dataclass(frozen=True)
class Fault:
    """Why a worker cannot start. kind: command, unclear, memory or device."""

    kind: str
    error: str


@dataclass
class Submission:
    """What the workers of one submission have reported."""

    dataset: str
    works: bool = False  # a worker of it has loaded the model
    hosts: dict[str, float] = field(default_factory=dict)  # host -> when it was heard last
    reports: dict[str, int] = field(default_factory=dict)  # host -> how often it could not start
    stopped: dict[str, Any] | None = None  # {"dataset", "error", "host", "worker", "time"}


class Submissions:
    """Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Submission] = OrderedDict()

    def heard(self, now: float, dataset: str, worker: Worker) -> None:
        """A worker has asked something."""
        with self._lock:
            if submission := self._of(dataset, worker):
                submission.hosts[str(worker.get("host"))] = now

    def works(self, dataset: str, worker: Worker) -> None:
        """A worker asks for work, its model is loaded: the command can be done."""
        with self._lock:
            if submission := self._of(dataset, worker):
                submission.works = True
                submission.stopped = None
            for other in self._known.values():
                if other.dataset == dataset and other.stopped and other is not submission:
                    other.stopped["over"] = True

    def refusal(self, dataset: str, worker: Worker) -> str | None:
        """Why the run of this worker was stopped; None: it was not."""
        with self._lock:
            submission = self._of(dataset, worker)
            return sentence(submission.stopped) if submission and submission.stopped else None

    def cannot_start(self, now: float, dataset: str, worker: Worker, fault: Fault) -> str | None:
        """Note a fault; the sentence that ends the run's wait, or None: the worker tries again."""
        with self._lock:
            submission = self._of(dataset, worker)
            if submission is None or submission.works:
                return None
            host = str(worker.get("host"))
            submission.hosts[host] = now
            submission.reports[host] = submission.reports.get(host, 0) + 1
            decided = self._is_of_the_command(submission, now, worker, fault)
            if decided and submission.stopped is None:
                submission.stopped = {
                    "dataset": dataset,
                    "error": fault.error,
                    "host": host,
                    "worker": worker,
                    "time": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds"),
                }
            return sentence(submission.stopped) if submission.stopped else None

    def stopped(self) -> list[dict[str, Any]]:
        """Runs that were stopped, with nobody working on the data set since; the newest last."""
        with self._lock:
            stopped = [each.stopped for each in self._known.values() if each.stopped]
        return [each for each in stopped if not each.get("over")]

    def _is_of_the_command(
        self, submission: Submission, now: float, worker: Worker, fault: Fault
    ) -> bool:
        if fault.kind == "command":
            return True
        if len(submission.reports) >= HOSTS_TO_STOP[fault.kind]:
            return True
        if fault.kind == "device":
            return False
        others = [
            host
            for host, at in submission.hosts.items()
            if host not in submission.reports and now - at < HEARD_S
        ]
        many = sum(submission.reports.values()) >= REPORTS_OF_ONE_HOST
        return worker.get("array_job") is None or (many and not others)

    def _of(self, dataset: str, worker: Worker) -> Submission | None:
        """The submission of a worker; None for one that names none."""
        name = worker.get("submission")
        if name is None:
            return None
        key = f"{dataset}/{name}"
        submission = self._known.setdefault(key, Submission(dataset))
        self._known.move_to_end(key)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return submission


def sentence(stopped: dict[str, Any]) -> str:
    """What all clients of a stopped run say as they end."""
    return (
        f"the run is stopped, as no worker can do what its command asks: {stopped['error']} "
        f"(found on {stopped['host']}); correct it, then submit again"
    )
