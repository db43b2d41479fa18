"""Difference hashes: 64 bits that stay nearly the same when an image is scaled or compressed.

    distance(fingerprint(a), fingerprint(b))        # 0 … 64; up to about 6: the same picture
    nearest(fingerprint(a), others)                 # to the nearest of others; 64: there are none

Each bit says whether a cell of an 8 x 8 grid is darker than the one to its right (N. Krawetz,
"Kind of Like That", 2013).
"""

import math
from collections.abc import Iterable, Sequence

import numpy

from common.scores.interface import Pixels
from common.scores.pixels import Brightness, luma

SIDE = 8
STEP = 0.5  # of 255: the least difference that counts, as flat areas differ by rounding
BITS = SIDE * SIDE
VERSION = "1"


def fingerprint(image: Pixels) -> int:
    """64 bits as an unsigned number."""
    cells = _cells(luma(image))
    darker = (cells[:, :-1] + STEP < cells[:, 1:]).ravel()
    return int.from_bytes(numpy.packbits(darker).tobytes(), "big")


def distance(a: int, b: int) -> int:
    """Number of bits in which two fingerprints differ."""
    return (a ^ b).bit_count()


def nearest(mine: int, others: Iterable[int]) -> float:
    """The distance to the nearest of the others; 64 where there are none."""
    return float(min((distance(mine, other) for other in others), default=BITS))


class Dhash:
    """The score of a run: bits to the nearest image of the prompt that was accepted before.

    One image does not say it: score() leaves it open, and generate/client/in_order.py fills it in.
    """

    name = "dhash"
    version = VERSION
    licence = "none needed"

    def score(self, images: Sequence[Pixels], texts: Sequence[str]) -> list[float]:
        return [math.nan] * len(images)


def _cells(values: Brightness) -> Brightness:
    """Mean brightness of 8 rows x 9 columns; small images are taken as they are, stretched."""
    height, width = values.shape
    rows = numpy.linspace(0, height, SIDE + 1)
    columns = numpy.linspace(0, width, SIDE + 2)
    cells: Brightness = numpy.array(
        [
            [
                values[_span(rows, y, height), _span(columns, x, width)].mean()
                for x in range(SIDE + 1)
            ]
            for y in range(SIDE)
        ]
    )
    return cells


def _span(edges: Brightness, n: int, size: int) -> slice:
    first = min(int(edges[n]), size - 1)
    return slice(first, max(first + 1, int(edges[n + 1])))
