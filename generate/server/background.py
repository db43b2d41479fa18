"""Background threads: lease expiry, the folder check, SLURM, the server's end.

start(server)      # a thread for each
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable

from common import slurm
from generate.server.ledger.ledger import Ledger
from generate.server.slurm_watch import SlurmWatch
from generate.server.state import Server

log = logging.getLogger("image_server")
# --stop_when_done: without a request for so long
STOP_AFTER_S = float(os.environ.get("IMAGE_SERVER_STOP_AFTER_S", 600))
REQUEUE_BEFORE_S = 120  # of the job's own time limit
REQUEUE_AGAIN_S = 10  # after SLURM has refused, or not answered


def start(server: Server) -> None:
    """Start the threads. SIGUSR1, SLURM's signal before the time limit, asks for a requeue."""
    ttl_s = server.settings.limits.ttl_s
    requeue = Requeue()
    signal.signal(signal.SIGUSR1, lambda *_: requeue.now())
    steps = [
        ("requeue", requeue.step, 1.0),
        ("housekeeping", Housekeeping(server).step, server.settings.limits.sweep_s),
        ("folder check", server.check.step, 0.2),
    ]
    if SlurmWatch.possible():
        watch = SlurmWatch(server.folder, server.ledger)
        steps.append(("slurm", watch.step, min(30.0, ttl_s / 4)))
    for name, step, pause_s in steps:
        args = (name, step, pause_s)
        threading.Thread(target=repeat, args=args, name=name, daemon=True).start()


def repeat(name: str, step: Callable[[], None], pause_s: float) -> None:
    """Call step() for ever, whatever it raises: the guarantees need this thread."""
    logged = ""
    while True:
        try:
            step()
            logged = ""
        except Exception as error:  # the next round may do better
            if repr(error) != logged:
                logged = repr(error)
                unknown = not isinstance(error, OSError)  # else a file that others damaged
                log.error("%s: %s; it is tried again", name, error, exc_info=unknown)
        time.sleep(pause_s)


class Housekeeping:
    """Expired leases, a later server, the server's small files, the end of --stop_when_done."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def step(self) -> None:
        """One round, called once a second."""
        server = self.server
        server.stop_if_superseded()
        server.keep_ledger()
        if (
            server.settings.stop_when_done
            and server.idle_s() > STOP_AFTER_S
            and server.check.all_done()
        ):
            log.info("all is done and no client asks any more: the server ends")
            os.kill(os.getpid(), signal.SIGTERM)
        server.ledger.run(Ledger.sweep)
        server.start_above_what_was_seen()
        server.keep_announcement()


class Requeue:
    """A server that is a SLURM job has itself requeued before its time limit: once, if SLURM does.

    A thread of its own, since scontrol may take 9 s to answer.
    """

    def __init__(self) -> None:
        left_s = slurm.time_left_s()
        self.at = time.monotonic() + left_s - REQUEUE_BEFORE_S if left_s else None

    def now(self) -> None:
        """SLURM's signal before the time limit has come."""
        self.at = time.monotonic()

    def step(self) -> None:
        """Ask SLURM for the requeue when it is time, and again until SLURM takes it."""
        if self.at is None or time.monotonic() < self.at:
            return
        self.at = time.monotonic() + REQUEUE_AGAIN_S
        if slurm.requeue_self("time limit"):
            self.at = None  # SIGTERM follows
