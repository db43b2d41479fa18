"""Read the head of a JPEG without decoding it: size, comment, a hash of the picture.

    head = read_jpeg(data)          # ValueError: it is none
    head.width, head.height, head.comment, head.picture, head.foreign

`picture` is a hash of everything but comments and application data: so two samples of one picture
have the same, although each carries its own metadata. `foreign` names segments that neither the
picture needs nor generation writes: they may say who made the file.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import xxhash

from common.json_text import parse_json

SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of a frame: they hold the pixels
COMMENT = 0xFE
APPLICATION = range(0xE0, 0xF0)
SCAN = 0xDA
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
END = 0xD9
# Markers that may stand before a picture, each with a length: all that decoders take.
BEFORE = {*range(0xC0, 0xE0), *APPLICATION, COMMENT} - {0xC8, *ALONE, 0xD8, END}
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)  # behind a scan's head
TABLES = {0xC4, 0xCC, 0xDB, 0xDD}  # Huffman, arithmetic, quantization, restart interval
PICTURE = {*SIZES, *TABLES, SCAN}
# "Made by a model", for readers who know no comment of ours: IPTC's digital source type.
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    b" Iptc4xmpExt:DigitalSourceType="
    b'"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0" + XMP
JFIF = 14  # bytes of its segment, if it has no thumbnail
ADOBE = 12  # of the one that says which colours the components are
C2PA = "APP11 (C2PA)"  # Content Credentials, as a signed release carries them
ONE_PASS = {0xC0, 0xC1}  # frames that need no more than one scan
# Real encoders write about 10. A scan of 64 million pixels takes 40 ms though it has 200 bytes, so
# that 660 kB could take minutes.
MOST_SCANS = 100
# Real files have some 300, with each segment of a colour profile and each scan. Pillow reads them
# in Python, bytes between them one by one: 64 MB of them would take half a minute each time.
MOST_MARKERS = 4096
Segment = tuple[int, int, int]  # marker, begin, end


class JpegHead(NamedTuple):
    """width, height: pixels. comment: the metadata in it; {} where it carries none.

    picture: 16 bytes, the same for the same picture encoded in the same way. foreign: names of
    segments that neither the picture needs nor generation writes. Data hidden in the pixels or in
    the tables is not found.
    """

    width: int
    height: int
    comment: dict[str, Any]
    picture: bytes
    foreign: tuple[str, ...] = ()


def read_jpeg(data: bytes) -> JpegHead:
    """The head of a JPEG. ValueError: none, cut, or too many scans or markers."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("is no JPEG" if data else "is empty")
    digest = xxhash.xxh3_128()
    size = (0, 0)
    comments = []
    foreign = []
    *before, (_, place, _) = segments = _segments(data)
    for marker, begin, end in before:
        if marker in SIZES:
            size = (
                int.from_bytes(data[begin + 7 : begin + 9], "big"),
                int.from_bytes(data[begin + 5 : begin + 7], "big"),
            )
        if marker == COMMENT:
            comments.append(data[begin + 4 : end])
        elif marker not in PICTURE and not _is_ours(marker, data[begin + 4 : end]):
            foreign.append(_name(marker, data[begin + 4 : end]))
        if marker not in APPLICATION and marker != COMMENT:
            digest.update(data[begin:end])
    _refuse_slow(data, segments)
    digest.update(memoryview(data)[place:])
    comment = _metadata(comments[-1]) if comments else {}
    if len(comments) > 1 or (comments and not comment):
        foreign.append("a comment of other hands")
    foreign += _behind(data, place)
    return JpegHead(*size, comment, digest.digest(), tuple(foreign))


def _segments(data: bytes) -> list[Segment]:
    """Each segment up to the head of the first scan.

    ValueError: there is no scan, or there are too many markers or fill bytes before it.
    """
    found: list[Segment] = []
    place = 2
    for _ in range(MOST_MARKERS):
        if place + 4 > len(data) or data[place] != 0xFF:
            break
        marker = data[place + 1]
        if marker == 0xFF or marker in ALONE:
            place += 1 if marker == 0xFF else 2
            continue
        if marker not in BEFORE:
            break
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        found.append((marker, place, end))
        if marker == SCAN:
            return found
        place = end
    else:
        raise ValueError(f"has more than {MOST_MARKERS:,} markers before its picture")
    raise ValueError("is cut, or no JPEG, before its picture begins")


def carried(metadata: Mapping[str, Any]) -> bytes:
    """The bytes of the comment that carries `metadata`: UTF-8 JSON."""
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace")  # a lone surrogate becomes "?"


def _is_ours(marker: int, content: bytes) -> bool:
    """Whether it is a segment beside the picture that generation itself writes."""
    if marker == 0xE0:
        return len(content) == JFIF and content[:5] == b"JFIF\0" and content[12:] == b"\0\0"
    if marker == 0xEE:
        return len(content) == ADOBE and content[:5] == b"Adobe"
    return marker == 0xE1 and content == XMP_SEGMENT


def _name(marker: int, content: bytes) -> str:
    if marker == COMMENT:
        return "a comment behind its picture"
    if marker not in APPLICATION:
        return f"a segment {marker:02X}"
    if marker == 0xEB and b"jumb" in content[:20]:
        return C2PA
    said = content[:20].split(b"\0")[0]
    named = said.decode() if said.isascii() else ""
    return f"APP{marker - 0xE0}{f' ({named})' if named and named.isprintable() else ''}"


def _behind(data: bytes, place: int) -> list[str]:
    """Names of what stands behind the first scan's header and is not part of the picture."""
    import numpy  # the job server does without it

    coded = numpy.frombuffer(data, numpy.uint8, offset=place + 2)
    markers = numpy.count_nonzero((coded[:-1] == 0xFF) & (coded[1:] != 0))
    if markers == 1 and data.endswith(b"\xff\xd9"):
        return []  # nearly every file: 12 us; the loop would take 150
    found: list[str] = []
    at = place
    for _ in range(MOST_MARKERS):
        match = MARKER.search(data, at)
        if match is None:
            return [*found, "no mark of its end"]
        at = match.start()
        marker = data[at + 1]
        if marker == END:
            rest = len(data) - at - 2
            return [*found, f"{rest:,} bytes behind its end"] if rest else found
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker not in PICTURE:
            found.append(_name(marker, data[at + 4 : end]))
        at = end
    raise ValueError(f"has more than {MOST_MARKERS:,} markers in its picture")


def without_folders(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as a comment carries it: without the folder of a local model or LoRA.

    The folder would say whose machine it was. The JSON keeps it, for --redo.
    """
    model = metadata.get("model_name")
    loras = metadata.get("lora")
    found = dict(metadata)
    if isinstance(model, str) and os.path.isabs(model):
        found["model_name"] = os.path.basename(model.rstrip("/"))
    if isinstance(loras, list):
        found["lora"] = [
            os.path.basename(lora) if str(lora).startswith("/") else lora for lora in loras
        ]
    return found


def _metadata(comment: bytes) -> dict[str, Any]:
    """The JSON object of a comment; {} where it is another program's."""
    try:
        found = parse_json(comment.decode(), unique=True)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_too_few(frame: bytes, left: int) -> None:
    """ValueError: `left` bytes cannot hold the frame's blocks of 8 x 8 pixels.

    Each has two codes, of its mean and of its end, of at least a bit (ITU-T T.81, F.1.2).
    """
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    sampling = [(both >> 4, both & 15) for both in frame[7::3]]
    if len(sampling) == 1:
        sampling = [(1, 1)]  # its blocks lie one after the other
    across = 8 * max((each for each, _ in sampling), default=1)
    down = 8 * max((each for _, each in sampling), default=1)
    units = -(-width // max(across, 1)) * -(-height // max(down, 1))
    if 4 * left < units * sum(one * other for one, other in sampling):
        raise ValueError(f"has {left:,} bytes, too few for {width} x {height} pixels")


def refuse_slow(data: bytes) -> None:
    """ValueError if decoding a JPEG could take minutes or gigabytes.

    It has too many scans or markers, or states more pixels than its bytes can hold.
    """
    _refuse_slow(data, _segments(data))


def _refuse_slow(data: bytes, head: Sequence[Segment]) -> None:
    _refuse_many(data, head)
    *before, (_, _, scan_end) = head
    for marker, begin, end in before:
        if marker in ONE_PASS:
            _refuse_too_few(data[begin + 4 : end], len(data) - scan_end)


def _refuse_many(data: bytes, head: Sequence[Segment]) -> None:
    if not _one_scan(data, head) and (count := data.count(b"\xff\xda")) > MOST_SCANS:
        raise ValueError(f"has {count:,} scans; {MOST_SCANS} are taken at most")


def _one_scan(data: bytes, head: Sequence[Segment]) -> bool:
    """Whether decoders read the first scan only, as it holds all components.

    Then the scans need not be counted. False also for anything unusual.
    """
    components = b""
    for marker, begin, _ in head:
        if marker == SCAN:
            return data[begin + 4 : begin + 5] == components
        if marker in ONE_PASS:
            components = data[begin + 9 : begin + 10]
        elif marker not in TABLES and marker not in APPLICATION and marker != COMMENT:
            return False
    return False
