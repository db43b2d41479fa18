"""Disk errors in one line, and a test of what publishing needs from a file system."""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from common.command_line import UserError
from common.files import file_system_of

# Disk errors that may pass: wait, and blame nobody.
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT}
# The folder was deleted, or another node has just made it and NFS caches do not show it yet.
ABSENT = {errno.ENOENT, errno.ENOTDIR}
WORDS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EIO: "the disk has an error",
    errno.EROFS: "the disk is read-only",
}


def disk_error(error: OSError) -> str:
    """What is wrong, and where."""
    what = WORDS.get(error.errno or 0, "the disk failed")
    return f"{what}: {error.filename or 'the output root'} ({error.strerror})"


def probe_folder(dataset_dir: str | os.PathLike[str]) -> None:
    """Try what publishing needs: an exclusive hard link (no exFAT, no object store has it).

    UserError: this file system cannot do it. OSError with an errno in PASSING or ABSENT: it has no
    room or fails at the moment, or the folder is not there.
    """
    # nobody can guess it: in a folder that a group may write, a link could lie there
    temporary = Path(dataset_dir) / f".probe.{secrets.token_hex(8)}.tmp"
    link = temporary.with_name(temporary.name.replace(".tmp", ".link.tmp"))
    try:
        problem = _problem_with_links(temporary, link)
    except OSError as error:
        if error.errno in PASSING | ABSENT:
            raise
        problem = error.strerror
    finally:
        for path in (temporary, link):
            with contextlib.suppress(OSError):
                path.unlink()
    if problem:
        kind, point = file_system_of(dataset_dir)
        where = f"{kind} at {point}" if kind else "type unknown"
        raise UserError(
            f"the file system of {dataset_dir} ({where}) cannot publish samples: {problem}; "
            "choose an --output_root on a POSIX file system with hard links"
        )


def _problem_with_links(temporary: Path, link: Path) -> str | None:
    with open(temporary, "xb") as file:
        file.write(b"x")
    os.link(temporary, link)
    try:
        os.link(temporary, link)
    except FileExistsError:
        return None if os.path.samefile(temporary, link) else "a hard link is a copy"
    return "a second link to the same name succeeded"
