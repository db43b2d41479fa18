"""The client's side of the job server's calls: retries, leases, heartbeats.

    job = JobClient(default_output_root(), definition, WorkerIdentity("node7", "GPU-5f1c…"))
    job.check()                             # is a server there, and is it this run's?
    job.start_heartbeats(lambda: {"leases": [], "state": "loading", "drawing": [], "images": 0})
    grant = job.get_indices(chunk_size=10)  # Grant, Wait or AllDone
    job.complete(grant.lease, [{"index": i, "images": 10, "short": 0} for i in grant.indices])

Every call is repeated with growing, jittered pauses until the server answers, under one request_id,
so that a lost reply does no harm. server.json is read again for every new connection.
"""

import http.client
import logging
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from generate.client.worker import WorkerIdentity
from generate.dataset.definition import Definition
from generate.protocol.answers import (
    STALE,
    AllDone,
    CompletionAnswer,
    FailureAnswer,
    Grant,
    HeartbeatAnswer,
    Json,
    ReleaseAnswer,
    Wait,
    WorkLeft,
    work_answer,
)
from generate.protocol.connection import (
    Connection,
    Extended,
    OlderServer,
    Refused,
    ServerAway,
)
from generate.protocol.output_root import dataset_folder

log = logging.getLogger(__name__)

PAUSE_S = 0.3  # before the second try of a call; it doubles
LONGEST_PAUSE_S = 15
# Once stopping: SLURM sends SIGKILL 30 s after SIGTERM by default, and publishing needs some of it.
LAST_WORDS_S = 10
# For a server older than one seen before: it stops at once, or was restored from a backup and will
# stay older.
OLDER_S = 120
# Until the server's first answer to a heartbeat says: a lease may be shorter than any fixed pause.
FIRST_HEARTBEAT_S = 0.5
LARGEST_ERRORS = 500_000  # characters of all error texts of a call: the server takes 1 MB
PASSING_404 = ("all_done", "retry_after_s")  # no work is an answer


class JobClient:
    """One client of the job server; one object serves several threads.

    server_timeout_s: how long a call goes on trying before ServerAway. stopping: once set, calls
    try for 10 s more only.

    .lost: leases that the server no longer knows as ours: generate nothing more of them. .stop:
    None, "drain" or "quarantine", from the last heartbeat. .llm_share: the last share of the LLM
    budget. .quarantined_s: seconds from the last failure's report until this worker is probed, or
    None. .client_id: random per process.
    """

    def __init__(
        self,
        output_root: str | os.PathLike[str],
        definition: Definition,
        worker: WorkerIdentity,
        server_timeout_s: float = 600.0,
        stopping: threading.Event | None = None,
    ) -> None:
        self.output_root = Path(os.path.realpath(output_root))
        self.definition = definition
        self.worker = worker
        self.server_timeout_s = server_timeout_s
        self.stopping = stopping or threading.Event()
        self.client_id = secrets.token_hex(8)
        self.min_accepted = 0.0  # the least share of images that is worth going on
        self.epoch = 0  # the highest seen
        self.lost: set[str] = set()
        self.stop: str | None = None
        self.llm_share: Json | None = None
        self.quarantined_s: float | None = None
        self.heartbeat_s = FIRST_HEARTBEAT_S
        self.away_since: float | None = None
        self.away_as: type[Exception] | None = None  # what was logged of it
        self.heartbeats_end = threading.Event()
        self.nudged = threading.Event()
        self.of_thread = threading.local()  # .connection: one for each thread

    def check(self) -> Json:
        """One try: {"url", "run_id", "epoch"} of the running server; ServerAway, WrongServer."""
        connection = Connection(self.output_root, self.epoch)
        connection.close()
        return {
            "url": connection.url,
            "run_id": connection.run_id,
            "epoch": connection.epoch,
        }

    # ------------------------------------------------------------ work

    def get_indices(self, chunk_size: int, llm: Json | None = None) -> Grant | Wait | AllDone:
        """Ask for a lease. llm: Prompter.limits(), or None."""
        answer = self._ask_for_work(chunk_size, llm)
        if isinstance(answer, WorkLeft):
            return Wait(1.0, "the server granted nothing")
        if isinstance(answer, Grant | Wait):
            self._take_share(answer.llm_share)
        return answer

    def look(self) -> WorkLeft | Grant | Wait | AllDone:
        """Whether there may be work, before a model is loaded; grants nothing.

        Wait: the server still compares the folder.
        """
        return self._ask_for_work(0, None)

    def ask_once(self, path: str, body: Json) -> Json | None:
        """The answer to a call that nothing depends on; None where the server does not answer."""
        about = {"dataset": self.definition["name"], "worker": self.worker.to_json()}
        try:
            return self._try(path, body | about)
        except (ServerAway, Refused) as problem:
            log.warning("the job server does not answer %s: %s", path, problem)
            return None

    def _ask_for_work(self, chunk_size: int, llm: Json | None) -> WorkLeft | Grant | Wait | AllDone:
        body = self._fields() | {"chunk_size": chunk_size, "llm": llm}
        return work_answer(self._call("/get_indices", body))

    def _fields(self) -> Json:
        """What every request for work says."""
        definition = self.definition
        return {
            "total_indices": definition["total"],
            "output_dir": str(dataset_folder(self.output_root, definition["name"])),
            "dataset": definition,
            "slurm_job_id": self.worker.slurm_job_id,
            "expected_samples_per_index": definition["images_per_prompt"],
            "worker": self.worker.to_json(),
            "min_accepted": self.min_accepted,
        }

    def complete(self, lease: str, results: Sequence[Json]) -> dict[int, str]:
        """Report finished indices; {index: verdict}, see protocol/answers.py.

        results: [{"index", "images", "short"}]; short: images missing since the LLMs gave fewer
        captions.
        """
        body = {"lease": lease, "results": results}
        answer = CompletionAnswer.from_json(self._call("/complete", body))
        if STALE in answer.verdicts.values():
            # The lease is lost, or only the index (an extension wants more of it): a heartbeat
            # tells.
            self.nudge()
        return answer.verdicts

    def fail(self, lease: str, results: Sequence[Json]) -> dict[int, str]:
        """Report failures; {index: "retry elsewhere", "set aside" or "stale"}.

        results: [{"index", "reason", "error"}], reason one of gpu, disk, llm, prompt, image,
        unknown; for a grant with a canary also "known_good": whether the canary prompt could be
        generated. After it .quarantined_s says whether this worker is to sleep.
        """
        longest = max(200, LARGEST_ERRORS // len(results))
        results = [result | {"error": str(result.get("error", ""))[:longest]} for result in results]
        body = {"lease": lease, "results": results}
        answer = FailureAnswer.from_json(self._call("/fail", body))
        if answer.stale:
            self.lost.add(lease)
            return {result["index"]: STALE for result in results}
        self.quarantined_s = answer.quarantined_s
        return answer.verdicts

    def release(self, lease: str, reason: str = "released") -> bool:
        """Release what is not complete; False if the lease was not ours any more.

        reason: preempted, walltime, released, disk, folder, llm.
        """
        body = {"lease": lease, "reason": reason}
        return not ReleaseAnswer.from_json(self._call("/release", body)).stale

    # ------------------------------------------------------------ heartbeats

    def start_heartbeats(self, report: Callable[[], Json]) -> None:
        """Send heartbeats in a thread until the process ends or stop_heartbeats().

        report() -> {"leases": [], "state": "drawing", "drawing": [indices], "images": running
        total, "llm_use": Prompter.use()}; state one of loading, compiling, waiting_llm, drawing,
        idle, releasing.
        """
        threading.Thread(
            target=self._send_heartbeats, args=(report,), name="heartbeat", daemon=True
        ).start()

    def stop_heartbeats(self) -> None:
        self.heartbeats_end.set()
        self.nudged.set()

    def nudge(self) -> None:
        """Send a heartbeat now, as other indices begin to be generated.

        Should one of them kill the process, the server knows which they were. At most one heartbeat
        a second goes out.
        """
        self.nudged.set()

    def heartbeat(self, report: Json) -> HeartbeatAnswer:
        """One heartbeat, one try. ServerAway, Refused."""
        body = {
            "dataset": self.definition["name"],
            "slurm_job_id": self.worker.slurm_job_id,
            "worker": self.worker.to_json(),
        }
        answer = HeartbeatAnswer.from_json(self._try("/beat", body | report))
        self._take_share(answer.llm_share)
        self.stop = answer.stop
        self.heartbeat_s = answer.heartbeat_s
        self.lost.update(answer.stale)
        return answer

    def _send_heartbeats(self, report: Callable[[], Json]) -> None:
        while True:
            # At random, or a thousand tasks that started together would always send together.
            self.nudged.wait(self.heartbeat_s * random.uniform(0.8, 1.2))
            self.nudged.clear()
            if self.heartbeats_end.is_set():
                return
            try:
                self.heartbeat(report())
            except (ServerAway, Refused) as error:
                self._away(error)
            self.heartbeats_end.wait(min(1.0, self.heartbeat_s / 2))

    # ------------------------------------------------------------ calls

    def stop_waiting(self) -> None:
        """The server is given up: calls from now on are tried once."""
        self.server_timeout_s = 0

    def hang_up(self) -> None:
        """Close this thread's connection; the next call opens another."""
        if connection := self._connection():
            connection.close()
        self.of_thread.connection = None

    def _connection(self) -> Connection | None:
        connection: Connection | None = getattr(self.of_thread, "connection", None)
        return connection

    def _take_share(self, share: Json | None) -> None:
        if share is not None:
            self.llm_share = share

    def _call(self, path: str, body: Json) -> Json:
        """The answer to one logical call, however often it has to be sent."""
        body = body | {"request_id": secrets.token_hex(8)}
        began = time.monotonic()
        pause = PAUSE_S
        while True:
            try:
                return self._try(path, body)
            except ServerAway as error:
                self._away(error)
                tried_s = time.monotonic() - began
                if tried_s + pause > self._patience_s(error):
                    raise type(error)(f"{error} (tried for {tried_s:.0f} s)") from None
            self._sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _patience_s(self, error: ServerAway) -> float:
        if self.stopping.is_set():
            return min(self.server_timeout_s, LAST_WORDS_S)
        if isinstance(error, OlderServer):
            return min(self.server_timeout_s, OLDER_S)
        return self.server_timeout_s

    def _sleep(self, seconds: float) -> None:
        if self.stopping.is_set():
            time.sleep(min(seconds, 1.0))
        else:
            self.stopping.wait(seconds)

    def _try(self, path: str, body: Json) -> Json:
        """Send once. Refused for 400, 413 and a definition's 409; ServerAway for what may pass."""
        connection = self._connection()
        fresh = connection is None
        if connection is None:
            connection = self.of_thread.connection = Connection(self.output_root, self.epoch)
            self.epoch = max(self.epoch, connection.epoch)
        try:
            status, answer = connection.post(path, body | {"client_id": self.client_id})
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.hang_up()
            if fresh:
                why = str(error) or type(error).__name__
                raise ServerAway(f"the job server at {connection.url} broke off: {why}") from None
            # The server may have closed an idle connection; a new one shows whether it is there.
            return self._try(path, body)
        no_work = status == 404 and any(field in answer for field in PASSING_404)
        if status == 200 or no_work or (status == 409 and answer.get("stale")):
            self._back()
            return answer
        if status in (400, 409, 413):
            kind = Extended if answer.get("extended") else Refused
            raise kind(str(answer.get("error")))
        self.hang_up()
        raise ServerAway(
            f"the job server at {connection.url} answered {status}: {answer.get('error')}"
        )

    def _away(self, error: Exception) -> None:
        if self.away_since is None:
            self.away_since = time.monotonic()
            self.away_as = None
        if self.away_as is not type(error):
            self.away_as = type(error)
            log.warning("%s; trying again", error)

    def _back(self) -> None:
        if self.away_since is not None:
            away_s = time.monotonic() - self.away_since
            log.warning("the job server answers again after %.0f s", away_s)
            self.away_since = None
