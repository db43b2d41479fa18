"""Files in the tars of a packed sub-folder: short names, no extended headers.

for name, member in members(Path("HPDv2/000012/part-00000.tar"), 0, end):
    member.read(IMAGE_BYTES)
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.untrusted import Refused, open_untrusted

HEADER = 512  # bytes; a tar consists of blocks of so many
MOST_TAR = 1 << 44  # bytes
SIZE = re.compile(rb"[0-7]{11}")  # in a header; tar can also write negative ones


@dataclass(frozen=True)
class Member:
    """A file in a tar: its bytes are `size` ones from `offset` on."""

    path: Path
    offset: int
    size: int

    def read(self, limit: int) -> bytes:
        """The bytes. OSError: they cannot be read, are more than `limit`, or the tar is cut."""
        if self.size > limit:
            raise Refused(f"a file in it is larger than {limit:,} bytes", self.path)
        if self.size < 0 or not 0 <= self.offset < MOST_TAR:
            raise Refused("a file in it lies outside of it", self.path)
        descriptor = open_untrusted(self.path)
        try:
            data = os.pread(descriptor, self.size, self.offset)
        finally:
            os.close(descriptor)
        if len(data) < self.size:
            raise Refused("it ends within a file", self.path)
        return data


def members(tar: Path, start: int, stop: int) -> Iterator[tuple[str, Member]]:
    """(name, Member) of the plain files whose headers lie from `start` to `stop`, tar blocks.

    Refused: there is none. As this project packs: short names, no extended headers.
    """
    descriptor = open_untrusted(tar)
    try:
        while start < stop:
            head = os.pread(descriptor, HEADER, start)
            is_file = len(head) == HEADER and head[257:262] == b"ustar" and head[156:157] in b"0\0"
            if not is_file or not SIZE.fullmatch(head, 124, 135):
                raise Refused(f"it is damaged: no file begins at byte {start:,}", tar)
            name = head[:100].rstrip(b"\0").decode("ascii", "replace")
            size = int(head[124:135], 8)
            yield name, Member(tar, start + HEADER, size)
            start += HEADER + -(-size // HEADER) * HEADER
    finally:
        os.close(descriptor)
