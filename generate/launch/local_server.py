"""The job server of local runs: all on one output root share it, and the last one ends it.

with LocalServer(output_root) as server:        # starts one if none answers
    ...
    server.look_after()                         # now and then: starts one again if it has died

Each run holds a shared lock on one file until it ends, in whatever way. The server ends when it can
get the lock exclusively. A server that was started in another way (sbatch, a terminal) is used and
never ended.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from common.command_line import UserError
from common.files import CHECKOUT, last_line, named, open_log, open_plain
from common.untrusted import open_untrusted, read_text
from generate.launch.progress import report
from generate.protocol.connection import (
    Closed,
    Connection,
    ServerAway,
    lives_here,
    read_server_json,
)
from generate.protocol.output_root import make_server_folder

SERVER = CHECKOUT / "generate" / "image_server.py"
START_S = 60  # for a server to answer
END_S = 30  # for a server to finish its last answer
LOOK_S = 2  # between two looks at the server
LONGEST_PAUSE_S = 60  # between two starts of a server that dies again and again
# On one machine a heartbeat is late only when its process is dead: short leases.
OPTIONS = ["--host", "127.0.0.1", "--ttl_s", "30", "--beat_s", "5", "--stop_when_done"]


class LocalServer:
    """The job server of an output root, as one local run uses it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "image_server.out"
        folder = make_server_folder(root)
        self.held = folder / "local_runs.lock"
        self.starting = folder / "local_start.lock"
        self.lock: IO[str] | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.look_at = 0.0
        self.pause_s = 1.0

    def __enter__(self) -> Self:
        """UserError, with the server's last line, if none answers and none can be started."""
        self.lock = open(self.held, "a+", opener=open_plain)
        with contextlib.suppress(OSError):  # a file system without locks: see _stop
            fcntl.flock(self.lock, fcntl.LOCK_SH)
        try:
            with self._only_one():
                if not self._answers():
                    self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def look_after(self) -> None:
        """Start the server again if it was one of local runs and has died. Does not raise."""
        if time.monotonic() < self.look_at:
            return
        self.look_at = time.monotonic() + LOOK_S
        died = self.process is not None and self.process.poll() is not None
        if not died and (self._answers() or not self._is_local()):
            self.pause_s = 1.0
            return
        try:
            with self._only_one():
                if not self._answers():
                    report("the job server has died; starting it again")
                    self._start()
        except (UserError, OSError) as error:
            report(f"{error}; trying again in {self.pause_s:.0f} s")
            self.look_at = time.monotonic() + self.pause_s
            self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S)

    def _answers(self) -> bool:
        """Also one that lives on this host and closes new connections, as it has too many."""
        try:
            Connection(self.root).close()
        except Closed:
            return lives_here(self.root)
        except ServerAway:
            return False
        return True

    def _is_local(self) -> bool:
        """Whether the last server of this output root was started by a local run (its pid)."""
        try:
            return read_text(self.held).strip() == str(read_server_json(self.root).pid)
        except (OSError, ServerAway):
            return False

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        """Let one of several runs start the server while the others wait for it."""
        with open(self.starting, "a", opener=open_plain) as lock:
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _start(self) -> None:
        words = ["--output_root", str(self.root), *OPTIONS, "--while_locked", str(self.held)]
        with open_log(self.log) as out:
            log_start = out.tell()
            # a session of its own: Ctrl-C ends the clients first
            self.process = subprocess.Popen(
                [sys.executable, "-u", str(SERVER), *words],
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        report(f"job server: process {self.process.pid}, log {self.log}")
        with named(self.held):
            self.held.write_text(str(self.process.pid))
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            if self._answers():
                return
            time.sleep(0.1)
        self.process.kill()
        self.process.wait()
        why = last_line(self.log, log_start) or "it wrote nothing"
        raise UserError(f"the job server did not start: {why}; its log is {self.log}")

    def _stop(self) -> None:
        """Release the lock; the last run waits until the server has ended."""
        if self.lock is None:
            return
        try:
            last = _is_free(self.lock)
        except OSError:  # no locks here: the server ends with the run that has started it
            last = True
        self.lock.close()
        if last and self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_S)
            self.process.kill()
            self.process.wait()


def end_with_runs(held: str) -> None:
    """In the server: end this process once no local run holds a lock on `held` any more."""
    threading.Thread(target=_watch, args=(held,), name="local runs", daemon=True).start()


def _watch(held: str) -> None:
    free = False
    while not free:
        time.sleep(1)
        try:
            with os.fdopen(open_untrusted(held)) as lock:
                free = _is_free(lock)
        except FileNotFoundError:
            free = True  # the output root was deleted or moved away
        except OSError:
            return  # a file system without locks: the run ends its server itself
    os.kill(os.getpid(), signal.SIGTERM)


def _is_free(lock: IO[str]) -> bool:
    """Whether nobody else holds a lock on the file. OSError: its file system has no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
