"""One client process of several on a machine: started, watched, and replaced if a signal kills it.

client = ClientProcess(0, "GPU-5f1c…", output_root)
client.start()
while not client.ended(leaving=False): …
"""

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from common import slurm
from common.console import visible
from common.files import last_line, open_log
from generate.client.restart import REQUEUE
from generate.client.worker import CHILD
from generate.launch.progress import report

# Deaths by a signal after which a client is given up. A prompt that crashes the process fails after
# a few deaths; more deaths are the machine's fault.
MOST_DEATHS = 20
PAUSE_S = 0.5  # before a new process; doubled at random, so that several do not start together
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class ClientProcess:
    """The client with this number, on this GPU (as CUDA_VISIBLE_DEVICES names it; None: no GPU)."""

    def __init__(self, number: int, gpu: str | None, root: Path) -> None:
        self.gpu = gpu
        self.number = number
        self.deaths = 0
        name = slurm.task_name() or f"local_{os.uname().nodename}_{os.getpid()}"
        self.log = root / f"{name}_{number}.out"
        self.log_start = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.start_at: float | None = None

    @property
    def status(self) -> int:
        """The exit status of its last process; negative: the signal that killed it."""
        return self.process.returncode if self.process else 0

    def start(self) -> None:
        """Start a process; its output is appended to the log."""
        environment = os.environ | {CHILD: f"{self.number} {self.log.name}"}
        if self.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpu
        words = [word for word in sys.argv if not word.startswith("--is_slurm_task")]
        with open_log(self.log) as out:
            self.log_start = out.tell()
            # a session of its own: Ctrl-C reaches the parent alone, which passes it on once
            self.process = subprocess.Popen(
                [sys.executable, "-u", *words, "--is_slurm_task"],
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self.start_at = None
        report(f"client {self.number}: process {self.process.pid}, log {self.log}")

    def send_signal(self, number: int) -> None:
        """Send a signal, if there is a process."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)

    def end(self, patience_s: float) -> None:
        """Wait for the process; kill it when it takes longer."""
        if not self.process:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience_s)
        self.process.kill()
        self.process.wait()

    def ended(self, leaving: bool) -> bool:
        """Whether it has ended for good; if not well, its last line is reported.

        A process that a signal killed is followed by a new one after a pause, unless `leaving`.
        """
        if self.start_at is not None and not leaving:
            if time.monotonic() >= self.start_at:
                self.start()
            return False
        if not self.process or (status := self.process.poll()) is None:
            return False
        if status < 0 and not leaving and self.deaths < MOST_DEATHS:
            self.deaths += 1
            self.start_at = time.monotonic() + random.uniform(PAUSE_S, 2 * PAUSE_S)
            report(
                f"client {self.number} (process {self.process.pid}) was killed by signal "
                f"{-status}; its indices are released when its lease ends"
            )
            return False
        if status not in (0, 3, REQUEUE) and not leaving:
            with contextlib.suppress(OSError):
                print(visible(self._last_words(status)), file=sys.stderr, flush=True)
        return True

    def _last_words(self, status: int) -> str:
        with contextlib.suppress(OSError):  # somebody has put something else in the log's place
            if line := last_line(self.log, self.log_start):
                return line
        return f"client {self.number} ended with status {status}, log {self.log}"


def _end_with_parent() -> None:
    """In the new process: SIGTERM when the parent dies, so that no client is left behind it."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
