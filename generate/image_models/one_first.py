"""Let one process do something, while the others wait for what it leaves.

    with one_first(folder / "model.lock", mark.exists, "fetches the model") as first:
        ...     # first: this process is to do it

The lock ends with its process, however that dies, and the next one does it. A file system without
locks, or a folder that cannot be written, lets everybody do it.
"""

import contextlib
import fcntl
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common.files import open_plain
from common.untrusted import Refused, read_untrusted

log = logging.getLogger(__name__)

LOOK_S = 2.0  # between two looks at the lock; at random, so that a thousand do not look together


@contextlib.contextmanager
def one_first(
    path: Path, is_done: Callable[[], bool], does: str, longest_s: float = float("inf")
) -> Iterator[bool]:
    """Whether this process is to do it; False: another one has meanwhile, or takes too long."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open_plain(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        log.info("%s cannot be locked (%s): more than one client %s", path.parent, error, does)
        yield True
        return
    try:
        end = time.monotonic() + longest_s
        said = False
        while not _locked(lock, path, does):
            if not said:
                said = True
                log.info("%s %s; waiting for it", _holder(path), does)
            time.sleep(LOOK_S * random.uniform(0.5, 1.5))
            if is_done() or time.monotonic() > end:
                yield False
                return
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
        yield not is_done()
    finally:
        os.close(lock)


def _locked(lock: int, path: Path, does: str) -> bool:
    """Whether the lock is ours now; where the file system knows none, it is."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.info("no locks at %s (%s): more than one client %s", path.parent, error, does)
    return True


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError, Refused, ValueError):
        return read_untrusted(path, 200).decode() or "another client"
    return "another client"
