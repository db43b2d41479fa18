"""Of many dhashes, the nearest earlier one of each within 6 bits: near duplicates over a whole set.

    found = nearest_earlier(prints)       # prints: numpy uint64, in the order that "earlier" means
    found.bits                            # 0 … 6, or 64: no earlier one is so near
    found.places                          # which one it is, or -1

Two hashes of 8 bytes that differ in at most 6 bits have at least two bytes in common. So a table
for each of the 28 pairs of bytes, sorted by their 16 bits, has both in one bucket. Each hash is
compared with at most WINDOW before it in its bucket: time grows with the number of images, not
with its square, when thousands look alike. What may be missed by that is counted.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy

from common.scores.dhash import BITS

NEAR = 6  # bits; see common/scores/dhash.py
BYTES = BITS // 8
WINDOW = 256  # hashes of a bucket that one is compared with; equal ones count once
PLACE_BITS = 48
Array = Any  # numpy array


@dataclass(frozen=True)
class Nearest:
    """One value a hash. cut: hashes without a near one that were not compared with all."""

    bits: Array  # int64
    places: Array  # int64
    cut: int


def nearest_earlier(prints: Array) -> Nearest:
    """The nearest earlier hash of each; of several that are equally near the first."""
    different, first, of = numpy.unique(prints, return_index=True, return_inverse=True)
    by_place = numpy.argsort(first, kind="stable")
    best, cut = _nearest(different[by_place])  # by place among the different ones
    places = numpy.arange(len(prints))
    found: Array = numpy.empty(len(different), numpy.int64)
    found[by_place] = best
    bits = found[of] >> PLACE_BITS
    near = numpy.where(bits <= NEAR, first[by_place][found[of] & ((1 << PLACE_BITS) - 1)], -1)
    again = first[of] != places  # the very hash stands earlier
    return Nearest(
        numpy.where(again, 0, numpy.where(bits <= NEAR, bits, BITS)),
        numpy.where(again, first[of], near),
        cut,
    )


def _nearest(prints: Array) -> tuple[Array, int]:
    """(bits << PLACE_BITS | place of the nearest earlier one, how many may have missed one)."""
    best: Array = numpy.full(len(prints), BITS << PLACE_BITS, numpy.int64)
    cut: Array = numpy.zeros(len(prints), bool)
    parts = prints.reshape(-1, 1).view(numpy.uint8)
    for one, other in combinations(range(BYTES), 2):
        keys = parts[:, one].astype(numpy.uint16) << 8 | parts[:, other]
        order = numpy.argsort(keys, kind="stable")  # within a bucket the earlier come first
        ranks = _ranks(keys[order])
        cut[order[ranks > WINDOW]] = True
        _compare(prints[order], order, ranks, best)
    return best, int((cut & (best >> PLACE_BITS > NEAR)).sum())


def _ranks(keys: Array) -> Array:
    """How many of the same key stand before each, of sorted keys."""
    places = numpy.arange(len(keys))
    begins = numpy.flatnonzero(numpy.diff(keys, prepend=~keys[:1]))
    lengths = numpy.diff(begins, append=len(keys))
    return places - numpy.repeat(begins, lengths)


def _compare(prints: Array, order: Array, ranks: Array, best: Array) -> None:
    """Each with the one 1, 2, … WINDOW places before it in its bucket."""
    alive = numpy.flatnonzero(ranks >= 1)
    for step in range(1, WINDOW + 1):
        alive = alive[ranks[alive] >= step]
        if not len(alive):
            return
        bits = numpy.bitwise_count(prints[alive] ^ prints[alive - step])
        near = bits <= NEAR
        mine = order[alive[near]]
        others = order[alive[near] - step]
        found = bits[near].astype(numpy.int64) << PLACE_BITS | others
        best[mine] = numpy.minimum(best[mine], found)
