"""What goes on beside the requests: leases that expire, the folder check, SLURM, the server's end.

start(server)      # a thread for each
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable

from common import slurm
from generate.server.ledger import Ledger
from generate.server.slurm_watch import SlurmWatch
from generate.server.state import Server

log = logging.getLogger("image_server")
# --stop_when_done: without a request for so long
STOP_AFTER_S = float(os.environ.get("IMAGE_SERVER_STOP_AFTER_S", 600))
REQUEUE_BEFORE_S = 120  # of the job's own time limit


def start(server: Server) -> None:
    """Start the threads."""
    ttl_s = server.settings.limits.ttl_s
    steps = [
        ("housekeeping", Housekeeping(server).step, min(1.0, ttl_s / 10)),
        ("folder check", server.check.step, 0.2),
    ]
    if SlurmWatch.possible():
        watch = SlurmWatch(server.folder, server.ledger)
        steps.append(("slurm", watch.step, min(30.0, ttl_s / 4)))
    for name, step, pause_s in steps:
        args = (name, step, pause_s)
        threading.Thread(target=repeat, args=args, name=name, daemon=True).start()


def repeat(name: str, step: Callable[[], None], pause_s: float) -> None:
    """Call step() for ever. A thread that dies would take its guarantee with it."""
    logged = ""
    while True:
        try:
            step()
            logged = ""
        except Exception as error:  # the next round may do better
            if repr(error) != logged:
                logged = repr(error)
                log.exception("%s: will be tried again", name)
        time.sleep(pause_s)


class Housekeeping:
    """Expired leases, a later server, the job's time limit, and the end of --stop_when_done."""

    def __init__(self, server: Server) -> None:
        self.server = server
        left_s = slurm.time_left_s()
        self.requeue_at = time.monotonic() + left_s - REQUEUE_BEFORE_S if left_s else None

    def step(self) -> None:
        server = self.server
        server.stop_if_superseded()
        server.ledger.run(Ledger.sweep)
        if self.requeue_at and time.monotonic() > self.requeue_at:
            self.requeue_at = None
            slurm.requeue_self("time limit")  # SIGTERM follows
        if (
            server.settings.stop_when_done
            and server.idle_s() > STOP_AFTER_S
            and server.check.all_done()
        ):
            log.info("all is done and nobody asks any more")
            os.kill(os.getpid(), signal.SIGTERM)
