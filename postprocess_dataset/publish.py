"""Write a file whole or not at all, by one process at a time.

It is written to a temporary file beside it, under a lock, fsynced and renamed.

with Draft("out.parquet") as draft:        # .out.parquet.tmp, locked: a second writer is refused
    draft.file.write(...)
    draft.publish()                        # not called, or killed before: the old file stands
"""

import fcntl
import io
import os
import re
import stat
import time
from types import TracebackType
from typing import BinaryIO, Self

from common.command_line import UserError
from common.files import NOT_OWN, NamedFile, is_own, named, refuse_special, sync_folder
from postprocess_dataset.progress import tell

LOOK_S = 0.05  # between two looks at the lock
LONG_S = 20.0  # a wait that is told
# what lies at the top of a data set folder, and nowhere else
SAMPLES = re.compile(r"dataset\.yaml|[0-9]{6}|[0-9]+_[0-9]+\.(?:jpg|json)")


class Draft:
    """The temporary file of `path`, locked.

    A killed writer leaves its temporary file, and the next one takes it over. While a writer lives
    it holds the lock: with `wait` we wait for it, else UserError. Whoever may read the file can
    hold the lock as well, so a long wait is told.
    """

    def __init__(self, path: str | os.PathLike[str], wait: bool = False) -> None:
        self.path = str(path)
        refuse_special(self.path)
        folder, name = os.path.split(self.path)
        self.temporary = os.path.join(folder, f".{name}.tmp")
        tell_at = time.monotonic() + LONG_S
        while (descriptor := self._lock()) is None:
            if not wait:
                raise UserError(
                    f"{self.path}: another process is writing it at this moment; "
                    "wait for it or end it"
                )
            if time.monotonic() > tell_at:
                tell_at = float("inf")
                tell(f"waits for another process; if none is at work, remove {self.temporary}")
            time.sleep(LOOK_S)
        os.truncate(descriptor, 0)
        self.file: BinaryIO = io.BufferedRandom(NamedFile(descriptor, "r+b", self.path), 1 << 20)

    @property
    def opened(self) -> str:
        """A path of the open file; under the temporary name others may have put a link since."""
        return f"/proc/self/fd/{self.file.fileno()}"

    def _lock(self) -> int | None:
        """The locked descriptor; None if another process holds the lock, or has just published."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self.temporary, flags, 0o666)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                # put there by others, so that another file is written
                raise UserError(f"{self.temporary} was not made by this script: remove it")
            if not is_own(descriptor, self.temporary):  # who could change the result later
                raise UserError(f"{self.temporary}: {NOT_OWN}")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == os.stat(self.temporary).st_ino:
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def sync(self) -> None:
        """What was written is on the disk. OSError: it has no room for it."""
        self.file.flush()
        with named(self.path):
            os.fsync(self.file.fileno())

    def publish(self, path: str = "") -> None:
        """Give the file its name (or `path`, another one in the same folder), durably."""
        self.sync()
        os.rename(self.temporary, path or self.path)
        sync_folder(os.path.dirname(self.path) or ".")
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.file.closed:
            os.unlink(self.temporary)
            self.file.close()


def refuse_name(path: str, suffix: str, what: str) -> None:
    """UserError unless a result's name has its suffix: a table or an image is not overwritten."""
    if not path.lower().endswith(suffix):
        raise UserError(f"{path}: the name of {what} ends in {suffix}")


def refuse_samples(folder: str) -> None:
    """UserError for a folder of samples as the place of results."""
    try:
        with os.scandir(folder) as entries:
            if any(SAMPLES.fullmatch(entry.name) for entry in entries):
                raise UserError(f"{folder} holds samples; name another folder for the results")
    except FileNotFoundError:
        pass


def publish_text(path: str, text: str) -> None:
    """Replace the file at `path` by `text`; waits for another process that is writing it."""
    with Draft(path, wait=True) as draft:
        draft.file.write(text.encode())
        draft.publish()
