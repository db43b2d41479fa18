"""Safe reading of files that others wrote: no links, pipes or endless files, and no code is run.

    data = read_untrusted("HPDv2/000012/12345_3.jpg", IMAGE_BYTES, inside=real_folders(["HPDv2"]))
    with open_jpeg(data) as image: ...

A foreign folder may hold named pipes, devices, links to anywhere, and files of any size under any
name. Accepted are regular files up to a size; with `inside` only those that lie in certain folders
once all links are followed. Everything else is an OSError whose strerror says why.
"""

import errno
import io
import os
import stat
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from common.jpeg import refuse_slow

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLE_BYTES = 1 << 20  # of a sample's JSON; the project's own are below 10 kB
DEFINITION_BYTES = 1 << 16  # of the YAML of a data set or a card, some 2 kB; PyYAML takes 2 s
IMAGE_BYTES = 64 << 20  # of one image; 8192 x 8192 pixels at quality 95 take 30 MB
PIECE = 1 << 16  # most images in one call; more memory at once is new memory each time
SMALL_PIECE = 1 << 12  # most JSONs; 0.3 us less than room for an image
# Do not wait for a pipe, and do not get a terminal as controlling terminal.
FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
NOWHERE = {
    errno.ELOOP: "itself",
    errno.ENOENT: "nowhere",
    errno.ENOTDIR: "nowhere: a folder of its path is a file",
    errno.ENAMETOOLONG: "a name that is too long",
}
# Of a link that leads to anywhere, all other errors are its own: its disk has not failed.
OF_A_DISK = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES}
OF_THE_KERNEL = ("/proc/", "/sys/")  # /proc/self/mem is a regular file, and reading it is EIO
HEAD = 4096  # bytes
Path = str | os.PathLike[str]


class Refused(OSError):
    """A file that is not taken; strerror says why."""

    def __init__(self, reason: str, path: Path) -> None:
        super().__init__(errno.EPERM, reason, os.fspath(path))

    def __str__(self) -> str:
        """Without "[Errno 1]", as nothing was asked of the system."""
        return f"{self.filename}: {self.strerror}"


def real_folders(folders: Iterable[Path]) -> tuple[str, ...]:
    """The folders as `inside` takes them: absolute, their links followed, with a slash."""
    return tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)


def open_untrusted(path: Path, inside: Sequence[str] = (), dir_fd: int | None = None) -> int:
    """A descriptor of the regular file at `path`. OSError: not a regular file, or outside.

    inside: as of real_folders(); () accepts links to anywhere. The path is looked up again after
    the file is open, so that nobody can swap a link in between.
    """
    linked = False
    try:
        descriptor = os.open(path, FLAGS | os.O_NOFOLLOW, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise Refused("it is a socket", path) from None
        if error.errno != errno.ELOOP:
            raise
        # A link. To open a device can have effects of its own, so we look before.
        _refuse_special(_mode_of_target(path, dir_fd), path)
        descriptor = os.open(path, FLAGS, dir_fd=dir_fd)
        linked = True
    except ValueError as error:  # a NUL in the name
        raise Refused(str(error), repr(path)) from None
    try:
        _refuse_special(os.fstat(descriptor).st_mode, path)
        if linked and _is_of_the_kernel(_place_of(descriptor)):
            raise Refused("it is a link to what the kernel makes", path)
        if inside and not _place_of(descriptor).startswith(tuple(inside)):
            raise Refused(f"it lies outside of {' and '.join(inside)}", path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_folder(path: Path, inside: Sequence[str] = ()) -> int:
    """A descriptor of the directory at `path`, for `dir_fd`. OSError: no directory, or outside."""
    descriptor = os.open(path, FLAGS | os.O_DIRECTORY)
    place = os.path.join(_place_of(descriptor), "")
    if inside and not place.startswith(tuple(inside)):
        os.close(descriptor)
        raise Refused(f"it lies outside of {' and '.join(inside)}", path)
    return descriptor


def _refuse_special(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "no file")
        raise Refused(f"it is {kind}", path)


def _is_of_the_kernel(place: str) -> bool:
    """The place of a namespace, of /proc/self/ns, is no path: "mnt:[4026531832]"."""
    return place[:1] != "/" or place.startswith(OF_THE_KERNEL)


def _mode_of_target(path: Path, dir_fd: int | None) -> int:
    try:
        return os.stat(path, dir_fd=dir_fd).st_mode
    except OSError as error:
        # The name is taken: who took it for a missing file would try to make it, for ever.
        if error.errno in OF_A_DISK:
            raise
        where = NOWHERE.get(error.errno or 0, f"what cannot be read ({error.strerror})")
        raise Refused(f"it is a link to {where}", path) from None


def _place_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def read_untrusted(
    path: Path,
    limit: int,
    inside: Sequence[str] = (),
    dir_fd: int | None = None,
    text: bool = False,
) -> bytes:
    """The bytes of the regular file at `path`, at most `limit` of them, else OSError.

    text: OSError, too, at its first zero byte. So no sparse file is read into memory.
    """
    descriptor = open_untrusted(path, inside, dir_fd)
    try:
        return _read(descriptor, path, limit, text=text)
    finally:
        os.close(descriptor)


def refuse_no_text(path: Path) -> None:
    """Refused where the first bytes are no text: a sparse file of 20 GB would be read whole."""
    with open(path, "rb") as file:
        if b"\0" in file.read(HEAD):
            raise Refused(f"not text: there are zero bytes among its first {HEAD:,}", path)


def read_text(path: Path, limit: int = 16 << 20) -> str:
    """A user's own small text file, UTF-8. OSError: no regular file, or too large."""
    return read_untrusted(path, limit).decode("utf-8-sig")


def _read(descriptor: int, path: Path, limit: int, first: int = PIECE, text: bool = False) -> bytes:
    """Read in pieces, the first one of `first` bytes: the stated size of a file can be false.

    One that states too much is not read further; one that states too little is read to the limit.
    """
    content = os.read(descriptor, first)
    # A full piece may be followed by more. One that is not full was the last.
    size = len(content)
    if size < first and size <= limit and not text:
        return content
    stated = os.fstat(descriptor).st_size
    pieces = [content]
    piece = content
    while piece:
        if text and b"\0" in piece:
            raise Refused("it is no text: there are zero bytes in it", path)
        if max(size, stated) > limit:
            raise Refused(f"it is larger than {limit:,} bytes", path)
        piece = os.read(descriptor, 1 << 20)
        size += len(piece)
        pieces.append(piece)
    return b"".join(pieces)


def read_many(
    dir_fd: int, names: Iterable[str], limit: int, inside: Sequence[str] = ()
) -> list[bytes | OSError]:
    """The bytes, or the error, of each of many small files in one open folder.

    Most are regular files, and a stat of each would cost a quarter more. So only what fails as a
    link, or is empty (a pipe, a device), is looked at more closely.
    """
    contents: list[bytes | OSError] = []
    for name in names:
        try:
            content = b""
            try:
                descriptor = os.open(name, FLAGS | os.O_NOFOLLOW, dir_fd=dir_fd)
                try:
                    content = _read(descriptor, name, limit, SMALL_PIECE)
                finally:
                    os.close(descriptor)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
            contents.append(content or read_untrusted(name, limit, inside, dir_fd))
        except OSError as error:
            contents.append(error)
    return contents


def open_jpeg(data: bytes) -> "Image":
    """The image in a JPEG's bytes, not decoded yet. Decoding it can raise any exception.

    Only JPEG is accepted: Pillow would start Ghostscript for a PostScript file named .jpg. OSError,
    SyntaxError, ValueError: no JPEG, an absurd size, or too many scans or markers.
    """
    from PIL import Image, UnidentifiedImageError  # heavy: the job server's ledger does without

    if data[:2] == b"\xff\xd8":  # what is none is said by Pillow
        refuse_slow(data)
    try:
        return Image.open(io.BytesIO(data), formats=["JPEG"])
    except UnidentifiedImageError:  # its text is the address of an object
        raise UnidentifiedImageError("it is no JPEG") from None
