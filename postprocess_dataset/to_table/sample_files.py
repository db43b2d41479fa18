"""Read the small files of a folder fast; with many threads where the disk is slow.

    rows, rejects = read_chunk(Reader(), checks, Chunk("HPDv2/000012", names, has_image))

Files are opened relative to their directory's descriptor (1.7 times less CPU than by their whole
path), read in chunks and parsed by pyarrow as one text (sample_json.py).
"""

import os
import resource
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pyarrow as pa

from common.packed_folder import PackedFolder, packed
from common.untrusted import SAMPLE_BYTES, open_folder, read_many
from postprocess_dataset.sample_checks import (
    Checked,
    Checks,
    Chunk,
    Disagrees,
    Whole,
    check,
)
from postprocess_dataset.sample_json import Content, Piece
from postprocess_dataset.to_table.collected import read_collected

PROBE = 256  # files after which the time of a read is measured
READERS = 8  # threads for a cold disk, where a file costs 100 us of waiting
COLD_S = 40e-6  # per file; a warm one takes 4-8 us, and then more threads only cost CPU
ROOM = 64 << 20  # bytes of JSON in memory: a chunk of ours has 10 MB, one of others 8 GB
STEP = 32  # files between two looks at the room: at most 32 MiB


class Read(NamedTuple):
    """Checked are the first `done` samples of a chunk; for more there was no room in memory."""

    rows: pa.Table | None
    rejects: list[tuple[str, str]]
    done: int


class NoRoom(Exception):
    """The JSONs of a chunk take more than ROOM bytes; `row`: the first that was not read."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


@dataclass
class Room:
    """Bytes that may still be read."""

    left: int = field(default_factory=lambda: ROOM)

    def take(self, contents: Iterable[Content]) -> None:
        """Subtract those of contents."""
        self.left -= sum(len(content) for content in contents if isinstance(content, bytes))


@dataclass(frozen=True)
class Folder:
    """An open folder; links in it may lead to files in the folders `inside`."""

    fd: int
    inside: Sequence[str]


class Reader:
    """Reads the files of a chunk; with more threads when the disk is slow.

    Threads hand the interpreter's lock over at every open, read and close, which costs three times
    the CPU on a busy machine. So files in the cache are read by the caller's thread alone.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(READERS)

    def read(self, folder: Folder, names: Sequence[str]) -> list[Content]:
        """[bytes or OSError] of files by name; of the first ones when they take too much room."""
        room = Room()
        probe = names[:PROBE]
        rest = names[PROBE:]
        begun = time.monotonic()
        slept = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        done = read_files(folder, probe, room)
        # a busy machine is slow, too, but there nobody waits for a disk
        slept = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - slept
        if time.monotonic() - begun < COLD_S * len(probe) or slept < len(probe) / 2:
            return done + read_files(folder, rest, room)
        waiting = [
            self.pool.submit(read_files, folder, rest[i : i + PROBE], room)
            for i in range(0, len(rest), PROBE)
        ]
        for number, future in enumerate(waiting, 1):
            if len(done) == PROBE * number:  # else files before these are missing
                done += future.result()
        wait(waiting)  # the folder is closed next
        return done


def read_files(folder: Folder, names: Sequence[str], room: Room) -> list[Content]:
    """[bytes or OSError] of files by name, until there is no more room."""
    done: list[Content] = []
    for start in range(0, len(names), STEP):
        if room.left < 0:
            break
        some = read_many(folder.fd, names[start : start + STEP], SAMPLE_BYTES, folder.inside)
        room.take(some)
        done += some
    return done


def read_chunk(reader: Reader, checks: Checks, chunk: Chunk) -> Read:
    """Sorted rows without idx or None, and [(name, reason)], of some samples of one folder."""
    while True:
        try:
            return Read(*_read_chunk(reader, checks, chunk), len(chunk.names))
        except Disagrees:
            chunk = replace(chunk, collected=())
        except NoRoom as error:
            chunk = chunk.part(0, error.row)


def _read_chunk(reader: Reader, checks: Checks, chunk: Chunk) -> Checked:
    try:
        fd = open_folder(os.path.join(checks.base, chunk.subdirectory), checks.inside)
    except OSError as error:  # since it was listed
        return None, [(name, f"folder cannot be read: {error.strerror}") for name in chunk.names]
    try:
        mark = packed(os.path.join(checks.base, chunk.subdirectory))
        folder = Folder(fd, checks.inside)
        contents: dict[int, Content] = {}  # first row: the bytes of its file
        collected = [whole for whole in chunk.collected if _fill(contents, whole, mark, folder)]
        covered = {
            row for whole in collected for row in range(whole.first, whole.first + whole.rows)
        }
        missing = [row for row in range(len(chunk.names)) if row not in covered]
        contents |= _read_packed(chunk.names, missing, mark)
        missing = [row for row in missing if row not in contents]
        loose = reader.read(folder, [f"{chunk.names[row]}.json" for row in missing])
        if len(loose) < len(missing):
            raise NoRoom(missing[len(loose)])
        contents |= zip(missing, loose, strict=True)
    except OSError as error:  # the mark is damaged
        return None, [(name, f"cannot be read: {error.strerror}") for name in chunk.names]
    finally:
        os.close(fd)
    rows = {whole.first: whole.rows for whole in collected}
    pieces = [Piece(contents[row], rows.get(row, 1)) for row in sorted(contents)]
    return check(reader.pool, checks, replace(chunk, collected=collected), pieces)


def _fill(
    contents: dict[int, Content], whole: Whole, mark: PackedFolder | None, folder: Folder
) -> bool:
    """Take the JSONs of a prompt from its .samples, if that has as many as lie there."""
    try:
        content = read_collected(mark, folder.fd, folder.inside, whole)
    except OSError:
        return False  # gone just now, or not readable: the JSONs are
    if content[-1:] != b"\n" or content.count(b"\n") != whole.rows:
        return False
    contents[whole.first] = content
    return True


def _read_packed(
    names: Sequence[str], rows: Sequence[int], mark: PackedFolder | None
) -> dict[int, Content]:
    """{row: bytes or OSError} of those that are packed. NoRoom: they are too large."""
    contents: dict[int, Content] = {}
    room = Room()
    for row in rows if mark else ():
        if room.left < 0:
            raise NoRoom(row)
        try:
            member = mark.find(f"{names[row]}.json") if mark else None
            if member:
                contents[row] = member.read(SAMPLE_BYTES)
                room.take([contents[row]])
        except OSError as error:
            contents[row] = error
    return contents
