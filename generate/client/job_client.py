"""The client's side of the job server's calls: asks for indices, beats while they are drawn, reports what became of them.

    client = JobClient(default_output_root(), definition, worker={"host": "node7", "gpu": "GPU-5f1c…"})
    client.check()                                   # is a server there, and is it this run's?
    client.start_beating(lambda: {"leases": [], "state": "loading", "drawing": [], "images": 0})
    grant = client.get_indices(chunk_size=10)        # Grant | Wait | AllDone
    client.complete(grant.lease, [{"index": i, "images": 10, "short": 0} for i in grant.indices])

Every call is repeated with growing, jittered pauses until the server answers, under one request_id, so that a lost reply does no harm.
server.json is read again for every new connection, since the server may come back on another node; and each connection first proves, by an
HMAC over a nonce, that its other end knows the run's token, before the token itself goes over it.
"""

import http.client
import logging
import random
import secrets
import threading
import time
from collections import namedtuple
from pathlib import Path

from generate.protocol.connection import Connection, Refused, ServerAway

log = logging.getLogger("job_client")

Grant = namedtuple(
    "Grant", "lease indices ttl_s llm_share known_good", defaults=(None, False)
)  # known_good: draw a text first that is known to work
Wait = namedtuple(
    "Wait", "retry_after_s reason"
)  # reason: one sentence; "quarantine" in it when this worker is
AllDone = namedtuple("AllDone", "message set_aside")  # set_aside: number of prompts given up

PAUSE_S, LONGEST_PAUSE_S = 0.3, 15
LAST_WORDS_S = 10  # once stopping: SIGKILL follows SIGTERM after 30 s by SLURM's default, and the images want some of that


class JobClient:
    """definition: the dataset's (see README). worker: {"host", "gpu", "array_job", "task", "restart"}. server_timeout_s: how long a call
    goes on trying before ServerAway. stopping: once set, calls try for 10 s more only. One object serves several threads.

    .lost: leases that the server no longer knows as ours: draw nothing more of them. .stop: None, "drain" or "quarantine", from the last
    beat. .llm_share: the last share of the LLM budget. .client_id: random per process.
    """

    def __init__(
        self,
        output_root,
        definition,
        worker,
        slurm_job_id=None,
        server_timeout_s=600.0,
        stopping=None,
    ):
        self.output_root, self.definition, self.worker = (
            Path(output_root).resolve(),
            definition,
            worker,
        )
        self.slurm_job_id, self.server_timeout_s = slurm_job_id, server_timeout_s
        self.stopping = stopping or threading.Event()
        self.client_id = secrets.token_hex(8)
        self.epoch, self.lost, self.stop, self.llm_share = 0, set(), None, None
        self.beat_s = 0.5  # until the server's first answer to a beat says; a lease may be shorter than any fixed first pause
        self.quarantined_until_s = None  # seconds from the last failure's report until this worker is probed; None = not quarantined
        self.asked = self._fields()
        self.mine = threading.local()  # a connection per thread
        self.away_since, self.beating, self.nudged = None, None, threading.Event()

    def _fields(self):
        folder = self.output_root / "generated_images" / self.definition["name"]
        return {
            "total_indices": self.definition["total"],
            "output_dir": str(folder),
            "dataset": self.definition,
            "slurm_job_id": self.slurm_job_id,
            "expected_samples_per_index": self.definition["images_per_prompt"],
            "worker": self.worker,
        }

    def check(self):
        """One try, no waiting: {"url", "run_id", "epoch"} of the running server. ServerAway or WrongServer otherwise."""
        connection = Connection(self.output_root, self.epoch)
        connection.close()
        return {"url": connection.url, "run_id": connection.run_id, "epoch": connection.epoch}

    def get_indices(self, chunk_size, llm=None):
        """Grant(lease, indices, ttl_s, llm_share), Wait(retry_after_s, reason) or AllDone. llm: Prompter.limits(), or None."""
        answer = self._call("/get_indices", self.asked | {"chunk_size": chunk_size, "llm": llm})
        self._take(answer)
        if "indices" in answer:
            return Grant(
                answer["lease"],
                answer["indices"],
                answer["ttl_s"],
                answer.get("llm_share"),
                answer.get("known_good", False),
            )
        if answer.get("all_done"):
            return AllDone(answer["error"], answer.get("set_aside", 0))
        return Wait(answer["retry_after_s"], answer["error"])

    def look(self):
        """Whether there may be work, before a model is loaded: True, Wait(…) while the server compares, or AllDone. Grants nothing."""
        answer = self._call("/get_indices", self.asked | {"chunk_size": 0, "llm": None})
        if answer.get("all_done"):
            return AllDone(answer["error"], answer.get("set_aside", 0))
        return True if "indices" in answer else Wait(answer["retry_after_s"], answer["error"])

    def repair(self, indices):
        """A Grant over exactly these indices, done or not, so that they can be redrawn; Wait while another client holds one of them."""
        answer = self._call("/repair", self.asked | {"indices": indices})
        self._take(answer)
        return (
            Grant(answer["lease"], answer["indices"], answer["ttl_s"])
            if "indices" in answer
            else Wait(answer["retry_after_s"], answer["error"])
        )

    def complete(self, lease, results):
        """results: [{"index", "images", "short"}], short = images missing since the LLMs gave fewer texts. {index: verdict}, one of
        accepted, already_done, stale, missing (the server does not see all files of it)."""
        answer = self._call("/complete", {"lease": lease, "results": results})
        verdicts = {int(index): verdict for index, verdict in answer["verdicts"].items()}
        if "stale" in verdicts.values():
            self.lost.add(lease)
        return verdicts

    def fail(self, lease, results):
        """results: [{"index", "reason", "error"}], reason one of gpu, disk, llm, prompt, image, unknown; for a grant with
        known_good also "known_good": whether the text that is known to work could be drawn. {index: "retry elsewhere", "set aside" or
        "stale"}; after it .quarantined_until_s says whether this worker is to sleep."""
        longest = max(200, 500_000 // len(results))  # the server takes bodies of 1 MB
        results = [result | {"error": str(result.get("error", ""))[:longest]} for result in results]
        answer = self._call("/fail", {"lease": lease, "results": results})
        if answer.get("stale"):
            self.lost.add(lease)
            return {result["index"]: "stale" for result in results}
        self.quarantined_until_s = answer["quarantined_until_s"]
        return {int(index): verdict for index, verdict in answer["verdicts"].items()}

    def release(self, lease, reason="released"):
        """Give back what is not complete. reason: preempted, walltime, released, disk, llm. False if the lease was not ours any more."""
        answer = self._call("/release", {"lease": lease, "reason": reason})
        return not answer.get("stale")

    def start_beating(self, report):
        """Beat in a thread until the process ends or stop_beating(). report() -> {"leases": [], "state": "drawing", "drawing": [indices],
        "images": running total, "llm_use": Prompter.use()}; state one of loading, compiling, waiting_llm, drawing, idle, releasing."""
        self.beating, self.nudged = threading.Event(), threading.Event()
        threading.Thread(
            target=self._beat_on, args=(report, self.beating), name="beat", daemon=True
        ).start()

    def stop_beating(self):
        if self.beating:
            self.beating.set()
            self.nudged.set()

    def nudge(self):
        """Beat now, without waiting for it: call it when other indices begin to be drawn, so that should one of them kill the process, the
        server knows which they were (at most one beat a second goes out)."""
        self.nudged.set()

    def beat(self, report):
        """One beat, one try; its answer. Raises what a single try raises: ServerAway, Refused."""
        status, answer = self._try(
            "/beat",
            {
                "dataset": self.definition["name"],
                "slurm_job_id": self.slurm_job_id,
                "worker": self.worker,
            }
            | report,
        )
        self._take(answer)
        self.stop, self.beat_s = answer["stop"], answer["beat_s"]
        self.lost.update(answer["stale"])
        return answer

    def _beat_on(self, report, ended):
        while True:
            # spread, or a thousand tasks that started together would beat together for ever
            self.nudged.wait(self.beat_s * random.uniform(0.8, 1.2))
            self.nudged.clear()
            if ended.is_set():
                return
            try:
                self.beat(report())
            except (ServerAway, Refused) as error:
                self._away(error)
            ended.wait(min(1.0, self.beat_s / 2))

    def _take(self, answer):
        if answer.get("llm_share") is not None:
            self.llm_share = answer["llm_share"]

    def _call(self, path, body):
        """The answer to one logical call, however often it has to be sent."""
        body = body | {"request_id": secrets.token_hex(8)}
        began, pause = time.monotonic(), PAUSE_S
        while True:
            try:
                return self._try(path, body)[1]
            except ServerAway as error:
                self._away(error)
                limit = (
                    min(self.server_timeout_s, LAST_WORDS_S)
                    if self.stopping.is_set()
                    else self.server_timeout_s
                )
                if time.monotonic() - began + pause > limit:
                    raise type(error)(
                        f"{error} (tried for {time.monotonic() - began:.0f} s)"
                    ) from None
            self._sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _sleep(self, seconds):
        if self.stopping.is_set():
            time.sleep(min(seconds, 1.0))
        else:
            self.stopping.wait(seconds)

    def _try(self, path, body):
        """Send once: (status, answer). Refused for 400 and for 409 about the definition; ServerAway for whatever may pass."""
        connection = getattr(self.mine, "connection", None)
        fresh = connection is None
        if fresh:
            connection = self.mine.connection = Connection(self.output_root, self.epoch)
            self.epoch = max(self.epoch, connection.epoch)
        try:
            status, answer = connection.post(path, body | {"client_id": self.client_id})
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._hang_up()
            if fresh:
                raise ServerAway(
                    f"the job server at {connection.url} broke off: {error or type(error).__name__}"
                ) from None
            return self._try(
                path, body
            )  # an idle connection that the server has closed; a new one tells more
        if (
            status == 200
            or (status == 404 and ("all_done" in answer or "retry_after_s" in answer))
            or (status == 409 and answer.get("stale"))
        ):
            self._back()
            return status, answer
        if status in (400, 409, 413):
            raise Refused(str(answer.get("error")))
        self._hang_up()
        raise ServerAway(
            f"the job server at {connection.url} answered {status}: {answer.get('error')}"
        )

    def _hang_up(self):
        self.mine.connection.close()
        self.mine.connection = None

    def _away(self, error):
        if self.away_since is None:
            self.away_since = time.monotonic()
            log.warning("%s; trying again", error)

    def _back(self):
        if self.away_since is not None:
            log.warning(
                "the job server answers again after %.0f s", time.monotonic() - self.away_since
            )
            self.away_since = None
