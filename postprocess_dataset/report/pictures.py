"""Pictures of a report: small ones to look at, and which of many look the same.

picture = Pictures(Images(base_dir)).take(row)
picture.uri                      # "data:image/jpeg;base64,…", at most EDGE pixels
alike([a, b, c])                 # [(0, 2)]: pairs whose dhash differs in at most ALIKE bits
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.scores.dhash import fingerprint
from common.untrusted import open_jpeg
from postprocess_dataset.shard_images import BUFFER, Images
from postprocess_dataset.shard_rows import KEY

EDGE = 192  # pixels of the longer side of a small picture
ALIKE = 4  # bits of 64; a picture and its copy at another quality differ in 0 to 3


@dataclass(frozen=True)
class Picture:
    """One image: its small form as JPEG, its dhash (64 bits), the bytes of its file."""

    small: bytes
    size: tuple[int, int]
    dhash: int
    file_bytes: int

    @property
    def uri(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.small).decode()


class Pictures:
    """Takes the images of rows; what cannot be read is counted in `missing`."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self.buffer = bytearray(BUFFER)
        self.missing = 0

    def take(self, row: dict[str, Any]) -> Picture | None:
        """The picture of a row, or None."""
        place = row.get("image_path"), row[KEY]
        data, fault = self.images.read(place, row.get("image_sha256"), self.buffer)
        picture = None if fault else look_at(bytes(data))
        self.missing += picture is None
        return picture


def look_at(data: bytes) -> Picture | None:
    """The picture of a JPEG's bytes; None: it does not decode."""
    try:
        with open_jpeg(data) as image:
            image.draft("RGB", (2 * EDGE, 2 * EDGE))
            small = image.convert("RGB")
            small.thumbnail((EDGE, EDGE), reducing_gap=1.0)  # half the time of the default, 2.0
            out = io.BytesIO()
            small.save(out, "JPEG", quality=82, optimize=True)
            return Picture(out.getvalue(), small.size, fingerprint(np.asarray(small)), len(data))
    except Exception:  # Pillow raises anything at a damaged file; it is counted
        return None


def alike(hashes: Sequence[int]) -> list[tuple[int, int]]:
    """The pairs (first, second) that differ in at most ALIKE bits. Quadratic: for thousands."""
    values = np.array(hashes, np.uint64)
    pairs = []
    for first in range(len(values) - 1):
        distances = np.bitwise_count(values[first + 1 :] ^ values[first])
        pairs += [(first, first + 1 + int(near)) for near in np.flatnonzero(distances <= ALIKE)]
    return pairs
