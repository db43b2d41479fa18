"""Runs a script on a disk that is full while a file `full` lies in the current folder.

python tests/fakes/full_disk.py WHAT SCRIPT WORDS…

WHAT: "files" (every fsync fails), "a folder" (fsync of a folder fails), "all" (every fsync fails,
and so does what the script prints or logs). `full` holds the name of the error: ENOSPC, EDQUOT, …
"""

import errno
import os
import runpy
import stat
import sys
from pathlib import Path
from typing import TextIO

what, script = sys.argv[1:3]
fsync = os.fsync


def fail_if_full() -> None:
    if os.path.exists("full"):
        number = getattr(errno, Path("full").read_text())
        raise OSError(number, os.strerror(number))


def full_fsync(fd: int) -> None:
    if what != "a folder" or stat.S_ISDIR(os.fstat(fd).st_mode):
        fail_if_full()
    fsync(fd)


class FullLog:
    """Standard output or standard error on that disk."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        fail_if_full()
        return self.stream.write(text)

    def flush(self) -> None:
        fail_if_full()
        self.stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


os.fsync = full_fsync
if what == "all":
    sys.stdout, sys.stderr = FullLog(sys.stdout), FullLog(sys.stderr)  # type: ignore[assignment]
sys.path[0] = os.path.dirname(script)
sys.argv = sys.argv[2:]
runpy.run_path(script, run_name="__main__")
