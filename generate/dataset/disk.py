"""Disk errors in one line, what is none, and a test of what publishing needs from a file system."""

import contextlib
import errno
import logging
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from common.command_line import UserError
from common.files import file_system_of
from common.packed_folder import DamagedMark, packed

log = logging.getLogger(__name__)

# Disk errors that may pass: wait, and blame nobody.
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT}
# The folder was deleted, or another node has just made it and NFS caches do not show it yet.
ABSENT = {errno.ENOENT, errno.ENOTDIR}
# One name, or the file that has it: a folder, a link to itself, a place where something is mounted
ONE_FILE = {errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EBUSY}
FORBIDDEN = {errno.EPERM, errno.EACCES}
IN_ITS_PLACE = FORBIDDEN | {errno.ENOTDIR, errno.EEXIST}  # a file that has the name of a folder
USABLE = os.R_OK | os.W_OK | os.X_OK
SUB_FOLDER = re.compile("[0-9]{6,}")
UNSEEN = (
    "the job server does not see files that this client has published: "
    "were they deleted, or is the output root not the same file system on both nodes?"
)
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


def of_one_file(error: OSError) -> bool:
    """Whether an error is of one file alone, not of the disk or a folder that others need, too.

    A file of another user, which may not be read or replaced, is one where its folder may be
    written.
    """
    folder = os.path.dirname(os.fspath(error.filename or ""))
    if error.errno in ONE_FILE:
        return os.path.isdir(folder)  # not where the folder is the link to itself
    return error.errno in FORBIDDEN and os.access(folder, os.W_OK | os.X_OK)


def fault(error: OSError) -> tuple[str, str]:
    """(reason, error) of a failure, for the job server: the prompt of that file, or as below."""
    if of_one_file(error) and not _of_one_folder(error):
        return "prompt", _in_the_way(error)
    return shared_fault(error)


def shared_fault(error: OSError) -> tuple[str, str]:
    """(reason, error) of a failure that is no single prompt's: a sub-folder's, or the disk's."""
    if _of_one_folder(error):
        return "folder", f"{error.filename} cannot be used: {error.strerror}"
    return "disk", disk_error(error)


def unseen_fault(folder: Path) -> tuple[str, str]:
    """The same for files of a sub-folder that were published, and that the job server misses."""
    try:
        packed(folder)
        if os.path.islink(folder) or (os.path.exists(folder) and not os.path.isdir(folder)):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(folder))
    except OSError as error:
        return shared_fault(error)
    return "disk", UNSEEN


def _of_one_folder(error: OSError) -> bool:
    """Whether a sub-folder of 1,000 prompts alone is at fault.

    Its mark is damaged, or a file, a link or another user's folder has its name.
    """
    if isinstance(error, DamagedMark):
        return True
    path = Path(str(error.filename or ""))
    folder = path if SUB_FOLDER.fullmatch(path.name) else path.parent
    named = SUB_FOLDER.fullmatch(folder.name) is not None
    mine = os.access(folder.parent, USABLE)
    # os.path says no where Path raises: the data set's folder may be closed as well
    other = not os.path.isdir(folder) or not os.access(folder, USABLE)
    # whatever fails behind a link, also one to itself or to nothing: clients make no links
    at_fault = os.path.islink(folder) or (error.errno in IN_ITS_PLACE and other)
    return named and mine and at_fault


def refuse_unusable(folder: Path) -> None:
    """PermissionError: another user's sub-folder, before an LLM is paid for what it cannot take."""
    if folder.exists() and not os.access(folder, USABLE):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(folder))


def _in_the_way(error: OSError) -> str:
    return f"{error.filename} is in the way ({error.strerror}): move it to another folder"


@contextlib.contextmanager
def spare() -> Iterator[None]:
    """A block whose file only saves work: where another one is in its way, it is left out."""
    try:
        yield
    except OSError as error:
        if not of_one_file(error):
            raise
        log.warning("%s", _in_the_way(error))


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
