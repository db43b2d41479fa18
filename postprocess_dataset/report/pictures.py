"""Pictures of a report: thumbnails, and which images are near copies of each other.

pictures = Pictures(Images(base_dir))
pictures.take(row).uri           # "data:image/jpeg;base64,…", at most EDGE pixels
pictures.print_of(row).dhash     # 64 bits; for the 600 that are compared and not shown
alike([a, b, c])                 # [(0, 2)]: pairs of the same drawing in the same colours
"""

import base64
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL.Image import Resampling

from common.scores.dhash import fingerprint
from common.untrusted import open_jpeg
from postprocess_dataset.shard_images import BUFFER, Images
from postprocess_dataset.shard_rows import KEY

EDGE = 192  # pixels of the longer side of a small picture
# Pixels that a dhash needs at least: a JPEG of 512 is decoded at a quarter of its size.
PRINT_EDGE = 96
ALIKE = 4  # bits of 64; a picture and its copy at another quality differ in 0 to 3
FIELDS = 8  # a side: of each field the mean colour is compared
SHADES = 24  # of 255, between such colours; of a copy at quality 40 it was at most 5


Seen = TypeVar("Seen")
Colours = np.ndarray[Any, np.dtype[np.int16]]


@dataclass(frozen=True)
class Picture:
    """The small form of an image, as JPEG."""

    small: bytes
    size: tuple[int, int]

    @property
    def uri(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.small).decode()


@dataclass(frozen=True)
class Print:
    """The dhash of an image (64 bits), the mean colours of its fields, the bytes of its file."""

    dhash: int
    colours: Colours
    file_bytes: int


class Pictures:
    """Takes the images of rows; what cannot be read is in `unread`."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self.buffer = bytearray(BUFFER)
        self.unread: set[str] = set()  # keys: several sections show the same row

    def take(self, row: dict[str, Any]) -> Picture | None:
        """The picture of a row, or None."""
        return self._look(row, look_at)

    def print_of(self, row: dict[str, Any]) -> Print | None:
        """The print of a row's image, or None."""
        return self._look(row, print_of)

    def _look(self, row: dict[str, Any], look: Callable[[bytes], Seen]) -> Seen | None:
        place = row.get("image_path"), row[KEY]
        data, fault = self.images.read(place, row.get("image_sha256"), self.buffer)
        found = None
        if not fault:
            with suppress(Exception):  # Pillow raises anything at a damaged file; it is counted
                found = look(bytes(data))
        if found is None:
            self.unread.add(row[KEY])
        return found


def look_at(data: bytes) -> Picture:
    """The picture of a JPEG's bytes; any exception: it does not decode."""
    with open_jpeg(data) as image:
        image.draft("RGB", (2 * EDGE, 2 * EDGE))
        small = image.convert("RGB")
        small.thumbnail((EDGE, EDGE), reducing_gap=1.0)  # half the time of the default, 2.0
        out = io.BytesIO()
        small.save(out, "JPEG", quality=82, optimize=True)
        return Picture(out.getvalue(), small.size)


def print_of(data: bytes) -> Print:
    """The print of a JPEG's bytes; any exception: it does not decode."""
    with open_jpeg(data) as image:
        image.draft("RGB", (PRINT_EDGE, PRINT_EDGE))
        small = image.convert("RGB")
        fields = small.resize((FIELDS, FIELDS), Resampling.BOX)
        return Print(fingerprint(np.asarray(small)), np.asarray(fields, np.int16), len(data))


def alike(prints: Sequence[Print]) -> list[tuple[int, int]]:
    """The pairs (first, second) that differ in at most ALIKE bits and SHADES of a field.

    Quadratic: for thousands.
    """
    values = np.array([picture.dhash for picture in prints], np.uint64)
    colours = [picture.colours for picture in prints]
    pairs = []
    for first in range(len(values) - 1):
        distances = np.bitwise_count(values[first + 1 :] ^ values[first])
        near = [first + 1 + int(place) for place in np.flatnonzero(distances <= ALIKE)]
        pairs += [
            (first, second)
            for second in near
            if np.abs(colours[second] - colours[first]).max() <= SHADES
        ]
    return pairs
