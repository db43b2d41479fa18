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
TABLES = {0xC4, 0xDB, 0xDD}  # Huffman, quantization, restart interval
ONE_PASS = {0xC0, 0xC1}  # frames that need no more than one scan
# Real encoders write about 10. A scan of 64 million pixels takes 40 ms though it has 200 bytes, so
# that 660 kB could take minutes.
MOST_SCANS = 100


@dataclass(frozen=True)
class JpegHead:
    """width, height: pixels. comment: the metadata in it; {} where it carries none."""

    width: int
    height: int
    comment: dict[str, Any]
    picture: bytes  # 16 bytes; the same for the same picture, encoded in the same way


def read_jpeg(data: bytes) -> JpegHead:
    """The head of a JPEG. ValueError: none, cut before its picture begins, or too many scans."""
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
    refuse_many_scans(data)
    digest.update(memoryview(data)[place:])
    return JpegHead(*size, _metadata(comment), digest.digest())


def _metadata(comment: bytes) -> dict[str, Any]:
    """The JSON object of a comment; {} where it is another program's."""
    try:
        found = json.loads(comment)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def refuse_many_scans(data: bytes) -> None:
    """ValueError: to decode it could take minutes, since it repeats its picture again and again."""
    if not _one_scan(data) and (count := data.count(b"\xff\xda")) > MOST_SCANS:
        raise ValueError(f"has {count:,} scans; {MOST_SCANS} are taken at most")


def _one_scan(data: bytes) -> bool:
    """Whether decoders read its first scan alone, since that holds all components.

    Then nothing need be counted. False, too, of whatever is unusual.
    """
    place = 2
    components = 0
    while place + 10 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == SCAN:
            return data[place + 4] == components
        if marker in ONE_PASS:
            components = data[place + 9]
        elif marker not in TABLES and marker not in APPLICATION and marker != COMMENT:
            return False
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return False
