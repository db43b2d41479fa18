"""How a client process starts again: requeued by SLURM, or as a fresh process in its place."""

import logging
import os
import signal
import sys
import time

from common import slurm
from generate.client.worker import is_child

log = logging.getLogger(__name__)

RESTARTS = "GENERATE_IMAGES_RESTARTS"  # how often a client process has started itself again
# Exit status of one of several clients of a SLURM task that wants it requeued (EX_TEMPFAIL).
REQUEUE = 75
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 600.0


def requeue(reason: str) -> None:
    """Have this task requeued. SLURM then ends all of the task at once.

    One of its several clients only exits, and their parent asks for it when the last of them has
    published.
    """
    if is_child() and slurm.task_name():
        log.info("%s: this task is to be requeued when its other clients have left too", reason)
        sys.exit(REQUEUE)
    slurm.requeue_self(reason)


def replace_process(why: str) -> None:
    """Replace this process by a fresh one at once; does not return."""
    log.info("%s; starting again", why)
    os.execv(sys.executable, [sys.executable, *sys.argv])


def start_again(why: str, pause_s: float | None = None) -> None:
    """Replace this process by a fresh one after a pause; does not return.

    A device that raised an error is only trusted in a new process. pause_s: default 5 s, and twice
    as long each time, up to ten minutes.
    """
    count = int(os.environ.get(RESTARTS) or 0) + 1
    pause = pause_s or min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (count - 1))
    log.warning("%s; starting again in %.0f s", why, pause)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # nothing is held: a signal may end the pause
    time.sleep(pause)
    os.environ[RESTARTS] = str(count)
    os.execv(sys.executable, [sys.executable, *sys.argv])
