"""Reading the small files of a folder fast: one chunk ahead of the parser, more threads on a disk.

    for rows, rejects in read_samples(Reader(), Checks("/data"), "HPDv2/000012", names, has_image):

Files are opened relative to their directory's descriptor (1.7 times less CPU than by their whole
path), read in chunks and parsed by pyarrow as one text (sample_json.py).
"""

import os
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from common.untrusted import SAMPLE_BYTES, open_folder, read_many
from postprocess_dataset.sample_checks import Checks, Chunk, check
from postprocess_dataset.sample_json import Content

# Samples: 11-20 MB of JSON, about 100 MB at the peak with the parsed columns and the next chunk.
CHUNK = 16384
READERS = 8  # threads for a cold disk, where a file costs 100 us of waiting
COLD_S = 40e-6  # per file; a warm one takes 4-8 us, and then more threads only cost CPU


@dataclass(frozen=True)
class Folder:
    """An open folder; links in it may lead to files in the folders `inside`."""

    fd: int
    inside: Sequence[str]


class Reader:
    """Reads the files of one chunk after the other, one chunk ahead of whoever parses them.

    With more threads when the disk is slow.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(READERS + 1)

    def start(self, folder: Folder, names: Sequence[str]) -> Future[list[Content]]:
        """Begin to read files by name."""
        return self.pool.submit(self._read, folder, names)

    def _read(self, folder: Folder, names: Sequence[str]) -> list[Content]:
        probe = names[:256]
        rest = names[256:]
        begun = time.monotonic()
        slept = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        done = read_files(folder, probe)
        # a busy machine is slow, too, but there nobody waits for a disk
        slept = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - slept
        if time.monotonic() - begun < COLD_S * len(probe) or slept < len(probe) / 2:
            return done + read_files(folder, rest)
        waiting = [
            self.pool.submit(read_files, folder, rest[i : i + 512])
            for i in range(0, len(rest), 512)
        ]
        for future in waiting:
            done += future.result()
        return done


def read_files(folder: Folder, names: Sequence[str]) -> list[Content]:
    """[bytes or OSError] of files by name."""
    return read_many(folder.fd, names, SAMPLE_BYTES, folder.inside)


def read_samples(
    reader: Reader,
    checks: Checks,
    subdirectory: str,
    names: Sequence[str],
    has_image: Sequence[bool],
) -> Iterator[tuple[pa.Table | None, list[tuple[str, str]]]]:
    """Yield (sorted rows without idx or None, [(name, reason)]) for chunks of a folder's samples.

    `has_image`: whether the listing had the image of each name; the others get a second look by
    name, since a run may be going on.
    """
    try:
        fd = open_folder(os.path.join(checks.base, subdirectory), checks.inside)
    except OSError as error:  # since it was listed
        yield None, [(name, f"folder cannot be read: {error.strerror}") for name in names]
        return
    folder = Folder(fd, checks.inside)
    chunks = [
        Chunk(subdirectory, names[i : i + CHUNK], has_image[i : i + CHUNK])
        for i in range(0, len(names), CHUNK)
    ]

    def start(chunk: Chunk) -> Future[list[Content]]:
        return reader.start(folder, [f"{name}.json" for name in chunk.names])

    ahead = [start(chunk) for chunk in chunks[:1]]
    try:
        for number, chunk in enumerate(chunks):
            contents = ahead.pop().result()
            ahead += [start(following) for following in chunks[number + 1 : number + 2]]
            yield check(reader.pool, checks, chunk, contents)
    finally:
        for future in ahead:
            future.result()  # it still uses the descriptor
        os.close(fd)
