"""What a JPEG's bytes say before anything is decoded: pixels, comment, and which picture it is.

    head = read_jpeg(data)          # ValueError: it is none
    head.width, head.height, head.comment, head.picture

The picture is a hash of everything but comments and application data: two samples of one picture
differ in the metadata that each carries, and are found by it all the same.
"""

import json
from dataclasses import dataclass
from typing import Any

import xxhash

SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of a frame: they hold the pixels
COMMENT = 0xFE
APPLICATION = range(0xE0, 0xF0)
SCAN = 0xDA
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length


@dataclass(frozen=True)
class JpegHead:
    """width, height: pixels. comment: the metadata in it; {} where it carries none."""

    width: int
    height: int
    comment: dict[str, Any]
    picture: bytes  # 16 bytes; the same for the same picture, encoded in the same way


def read_jpeg(data: bytes) -> JpegHead:
    """The head of a JPEG. ValueError: it is none, or is cut before its picture begins."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("is no JPEG" if data else "is empty")
    digest = xxhash.xxh3_128()
    size = (0, 0)
    comment = b""
    place = 2
    while True:
        if place + 4 > len(data) or data[place] != 0xFF:
            raise ValueError("is cut, or no JPEG, before its picture begins")
        marker = data[place + 1]
        if marker == 0xFF or marker in ALONE:
            place += 1 if marker == 0xFF else 2
            continue
        if marker == SCAN:
            break
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in SIZES:
            size = (
                int.from_bytes(data[place + 7 : place + 9], "big"),
                int.from_bytes(data[place + 5 : place + 7], "big"),
            )
        if marker == COMMENT:
            comment = data[place + 4 : end]
        elif marker not in APPLICATION:
            digest.update(data[place:end])
        place = end
    digest.update(memoryview(data)[place:])
    return JpegHead(*size, _metadata(comment), digest.digest())


def _metadata(comment: bytes) -> dict[str, Any]:
    """The JSON object of a comment; {} where it is another program's."""
    try:
        found = json.loads(comment)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
