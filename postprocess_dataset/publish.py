"""A file appears under its name whole or not at all: it is written to a draft beside it, under a lock, fsynced and renamed.

with Draft("out.parquet") as draft:        # .out.parquet.tmp, locked: a second writer of the same file is refused by name
    draft.file.write(...)
    draft.publish()                        # not called, or killed before: the old file stands
"""

import fcntl
import os


class Draft:
    """The draft of `path`. A killed writer leaves its draft, which the next one takes over; a living one holds its lock
    (`wait`: until it is done, else SystemExit)."""

    def __init__(self, path, wait=False):
        self.path, (folder, name) = str(path), os.path.split(str(path))
        self.temporary = os.path.join(folder, f".{name}.tmp")
        while (fd := self._lock(wait)) is None:
            if not wait:
                raise SystemExit(
                    f"{self.path}: another process is writing it at this moment; wait for it or end it"
                )
        os.truncate(fd, 0)
        self.file = os.fdopen(fd, "r+b", buffering=1 << 20)

    def _lock(self, wait):
        """The draft's descriptor once we hold its lock, or None when another holds it or has just published this very inode."""
        fd = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.fstat(fd).st_ino == os.stat(self.temporary).st_ino:
                return fd
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(fd)
        return None

    def publish(self):
        self.file.flush()
        os.fsync(self.file.fileno())
        os.rename(self.temporary, self.path)
        folder = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if not self.file.closed:
            os.unlink(self.temporary)
            self.file.close()


def publish_text(path, text):
    """Replace the file at `path` by `text`."""
    with Draft(path) as draft:
        draft.file.write(text.encode())
        draft.publish()
