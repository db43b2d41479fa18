"""Crash-safe writes: write-then-rename, exclusive link, folder fsync. Nothing else does these.

write_whole(".server/server.json", text, mode=0o600)     # replaces; all of it or nothing
created = create_whole("dataset.yaml", text)             # False if the name is taken
record = read_json(".server/run.json")                   # ValueError: it is damaged
kept = keep_damaged(".server/run.json")                  # run.json.damaged
"""

import contextlib
import errno
import io
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from common.json_text import parse_json
from common.untrusted import Refused, open_untrusted, read_untrusted

CHECKOUT = Path(__file__).resolve().parent.parent
LAST_BYTES = 1 << 16  # of a log, in which the last line is looked for
NOT_PLAIN = "it is a link, a pipe or a device: nothing is written there; move it away"
NOT_OWN = "it belongs to another user; remove it, or name another folder"


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in a folder durable (a rename or link counts only once its folder is)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_away(path: str | os.PathLike[str], opened: os.stat_result) -> bool:
    """Whether a file was deleted, moved or replaced.

    opened: os.stat() of the file, which this process holds open: so no other file gets its inode.
    """
    try:
        return not os.path.samestat(os.stat(path), opened)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # a file system that does not answer says nothing


def refuse_special(path: str | os.PathLike[str]) -> None:
    """OSError if `path` is a link, a device or a pipe: a rename would replace it by a file."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise Refused("it is no plain file, so it is not replaced; move it away", path)


def open_plain(path: str | os.PathLike[str], flags: int) -> int:
    """A descriptor to write to a file that others may have put there; the `opener` of open().

    OSError for a link (its target would be written), a pipe (it waits for a reader) and a device:
    in a folder that a group may write, others can put them there. Other OSErrors: the disk, or the
    rights.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a pipe without a reader, a socket
            raise Refused(NOT_PLAIN, path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused(NOT_PLAIN, path)
    return descriptor


def open_own(path: str | os.PathLike[str], flags: int) -> int:
    """As open_plain(). Refused as well: a file of another user, who could change it later."""
    descriptor = open_plain(path, flags)
    if not is_own(descriptor, path):
        os.close(descriptor)
        raise Refused(NOT_OWN, path)
    return descriptor


def is_own(descriptor: int, path: str | os.PathLike[str]) -> bool:
    """Whether an open file belongs to this user, as one that is made beside it now."""
    owner = os.fstat(descriptor).st_uid
    if owner == os.geteuid():
        return True
    # a file server may give all files one owner, or root's files another
    with tempfile.TemporaryFile(dir=os.path.dirname(path) or ".") as probe:
        return os.fstat(probe.fileno()).st_uid == owner


def open_log(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a log to append to; it is made if it is missing. OSError as of open_own()."""
    return open(path, "ab", opener=open_own)


def last_line(path: str | os.PathLike[str], start: int = 0) -> str:
    """The last line of what a log got from byte `start` on, "" for none. OSError: no plain file."""
    with os.fdopen(open_untrusted(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(start, size - LAST_BYTES))
        lines = file.read(LAST_BYTES).decode(errors="backslashreplace").strip().splitlines()
    return lines[-1] if lines else ""


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """OSErrors of this block that name no file (those of write and fsync) name `path`."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise


class NamedFile(io.FileIO):
    """An open file whose failed writes name `path`, the result that it will be."""

    def __init__(self, descriptor: int, mode: str, path: str | os.PathLike[str]) -> None:
        super().__init__(descriptor, mode)
        self.path = path

    def write(self, data: Any) -> int:
        """As FileIO. OSError: the disk is full, for example; it names the file."""
        with named(self.path):
            return super().write(data)


def write_whole(
    path: str | os.PathLike[str], data: str | bytes, mode: int = 0o666, temporary: str = ""
) -> None:
    """Replace the file at `path` by `data`: readers see the old file or the whole new one.

    `temporary`: a fixed name of the temporary file, for a file with one writer only: the next write
    then overwrites what a killed one left. OSError: the disk; the old file stays.
    """
    path = Path(path)
    refuse_special(path)
    draft = _write_temporary(path, data, mode, temporary)
    try:
        os.replace(draft, path)
    except OSError:
        _remove(draft)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str], mode: int = 0o666) -> Iterator[BinaryIO]:
    """write_whole() for large data: yields a file to write to, published at the end of the block.

    An exception in the block leaves the old file.
    """
    path = Path(path)
    refuse_special(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    try:
        with io.BufferedWriter(NamedFile(descriptor, "wb", path)) as stream:
            yield stream
            stream.flush()
            with named(path):
                os.fsync(stream.fileno())
        os.replace(draft, path)
    except BaseException:
        _remove(draft)
        raise
    sync_folder(path.parent)


def create_whole(path: str | os.PathLike[str], data: str | bytes, mode: int = 0o666) -> bool:
    """Publish `data` under a new name by an exclusive link; False if the name is taken."""
    path = Path(path)
    draft = _write_temporary(path, data, mode, "")
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        _remove(draft)
    sync_folder(path.parent)
    return True


SMALL = 16 << 20  # bytes; the largest file that is read at once


def read_json(path: str | os.PathLike[str], most: int = SMALL) -> Any:
    """What a JSON file holds.

    FileNotFoundError: it is not there. ValueError, naming it: torn, not JSON, nested too deep, too
    large, or no regular file with text. Other OSErrors: the disk, or the rights.
    """
    try:
        return parse_json(read_untrusted(path, most, text=True))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    except Refused as error:
        raise ValueError(f"{path} is damaged: {error.strerror}") from None


# What PyYAML's own constructors raise for !!int "", !!bool "q", !!timestamp "99", 2026-99-99
OF_TAGS = (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError)


def parse_yaml(text: str | bytes) -> Any:
    """The value of a YAML text. ValueError: no YAML, a value of a wrong type, nested too deep."""
    import yaml  # not every script that writes a file reads YAML

    from common.yaml_loader import LinearLoader

    try:
        return yaml.load(text, Loader=LinearLoader)
    except (yaml.YAMLError, RecursionError, *OF_TAGS) as error:
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())[:300]) from None


def keep_damaged(path: str | os.PathLike[str]) -> Path:
    """Rename a damaged file to <name>.damaged (.damaged-2, …); returns the new path."""
    os.rename(path, kept := free_name(path, "damaged"))
    return kept


def free_name(path: str | os.PathLike[str], word: str) -> Path:
    """<name>.WORD (.WORD-2, …), the first that is not taken."""
    path = Path(path)
    number = 1
    while os.path.lexists(free := path.with_name(f"{path.name}.{word}{_suffix(number)}")):
        number += 1
    return free


def _suffix(number: int) -> str:
    return f"-{number}" if number > 1 else ""


def _write_temporary(path: Path, data: str | bytes, mode: int, name: str) -> Path:
    """A fsynced temporary file beside `path`, with its final mode from the instant it exists."""
    draft = path.with_name(name or f".{path.name}.{secrets.token_hex(4)}.tmp")
    if name:
        draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    try:
        with named(path), os.fdopen(descriptor, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        _remove(draft)
        raise
    return draft


def _remove(draft: Path) -> None:
    with contextlib.suppress(OSError):  # a temporary file more; the error that led here says more
        draft.unlink()


def file_system_of(path: str | os.PathLike[str]) -> tuple[str, str]:
    """(type, mount point) of the file system a path lies on; ("", "") where it is unknown."""
    _, point, kind = _mount_of(path)
    return kind, point


def device_of(path: str | os.PathLike[str]) -> str:
    """The device of that file system, as quotas name it: "server:/export"; "" where unknown."""
    return _mount_of(path)[0]


def _mount_of(path: str | os.PathLike[str]) -> tuple[str, str, str]:
    """(device, mount point, type)."""
    try:
        lines = Path("/proc/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return "", "", ""
    mounts = [(device, point, kind) for device, point, kind, *_ in map(str.split, lines)]
    inside = f"{os.path.realpath(path)}/"
    here = [mount for mount in mounts if inside.startswith(mount[1].rstrip("/") + "/")]
    return max(here, key=lambda mount: len(mount[1]), default=("", "", ""))
