"""Publish a file of a data set: written whole beside its place, then one exclusive link.

    temporary = write_temporary(final, data, lease)     # fsynced; OSError leaves nothing behind
    publish(temporary, final)                           # False: the name is taken

    remove(final)                                       # a folder there is renamed to NAME.foreign

Nothing is ever overwritten. A killed process leaves at most a temporary file; a paused one that
wakes up finds the name taken, or its temporary file removed by the next holder of the index.
"""

import contextlib
import itertools
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


def write_temporary(final: Path, data: bytes, lease: str) -> Path:
    """Write bytes to a temporary file beside `final` and fsync it; return its path.

    OSError (ENOSPC, EDQUOT, EIO, …) leaves no temporary file.
    """
    temporary = final.with_name(f".{final.name}.{lease}.tmp")
    # A file of this lease is of this process: an earlier try that failed.
    remove(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
    except OSError:
        with contextlib.suppress(OSError):  # the first error says more
            temporary.unlink(missing_ok=True)
        raise
    return temporary


def publish(temporary: Path, final: Path) -> bool:
    """Give a temporary file its final name. False: the name is taken, or the file was removed."""
    try:
        os.link(temporary, final)
        published = True
    except FileExistsError:
        # NFS may repeat a link whose answer was lost: then the name is taken by this very file.
        published = _same_file(temporary, final)
    except FileNotFoundError:
        published = False
    temporary.unlink(missing_ok=True)
    return published


def remove(path: Path) -> None:
    """Remove a file, if it is there. A folder that others have put in its place is renamed."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        if aside := set_aside(path, "foreign"):
            log.warning("%s is now called %s: it is a folder", path, aside.name)


def set_aside(path: Path, word: str) -> Path | None:
    """Rename a file to `NAME.word` (`NAME.word2`, … if that is taken); returns the new path.

    Nothing is overwritten. None: the file was deleted meanwhile.
    """
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.{word}{number if number > 1 else ''}")
        try:
            os.link(path, aside)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return None
        except OSError:  # a folder takes no second link, a file of another user perhaps none
            try:
                path.rename(aside)
            except FileNotFoundError:
                return None
            return aside
        path.unlink(missing_ok=True)
        return aside
    return None


def _same_file(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except FileNotFoundError:
        return False
