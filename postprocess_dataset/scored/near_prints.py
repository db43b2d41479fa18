"""Of many dhashes, the nearest earlier one of each within 6 bits: near duplicates over a whole set.

    found = nearest_earlier(prints)       # prints: numpy uint64, in the order that "earlier" means
    found.bits                            # 0 … 6, or 64: no earlier one is so near
    found.places                          # which one it is, or -1

Two hashes of 8 bytes that differ in at most 6 bits have at least two bytes in common. So a table
for each of the 28 pairs of bytes, sorted by their 16 bits, has both in one bucket. Each hash is
compared with at most WINDOW before it in its bucket: time grows with the number of images, not
with its square, when thousands look alike. What may be missed by that is counted.

    nearest_earlier(prints, alike)        # alike(mine, others): which of these pairs count
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy

from common.scores.dhash import BITS

NEAR = 6  # bits; see common/scores/dhash.py
BYTES = BITS // 8
WINDOW = 256  # hashes of a bucket that one is compared with; equal ones count once
PLACE_BITS = 48
PLACES = (1 << PLACE_BITS) - 1
Array = Any  # numpy array
Alike = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Nearest:
    """One value a hash. cut: hashes without a near one that were not compared with all."""

    bits: Array  # int64
    places: Array  # int64
    cut: int


def nearest_earlier(prints: Array, alike: Alike | None = None) -> Nearest:
    """The nearest earlier hash of each; of several that are equally near the first.

    alike: a second look at pairs that are near by their hashes; equal hashes get it, too.
    """
    if alike:
        best, cut = _nearest(prints, alike)
        near = best >> PLACE_BITS <= NEAR
        places = numpy.where(near, best & PLACES, -1)
        return Nearest(numpy.where(near, best >> PLACE_BITS, BITS), places, cut)
    different, first, of = numpy.unique(prints, return_index=True, return_inverse=True)
    by_place = numpy.argsort(first, kind="stable")
    best, cut = _nearest(different[by_place])  # by place among the different ones
    places = numpy.arange(len(prints))
    found: Array = numpy.empty(len(different), numpy.int64)
    found[by_place] = best
    bits = found[of] >> PLACE_BITS
    near = numpy.where(bits <= NEAR, first[by_place][found[of] & PLACES], -1)
    again = first[of] != places  # the very hash stands earlier
    return Nearest(
        numpy.where(again, 0, numpy.where(bits <= NEAR, bits, BITS)),
        numpy.where(again, first[of], near),
        cut,
    )


def _nearest(prints: Array, alike: Alike | None = None) -> tuple[Array, int]:
    """(bits << PLACE_BITS | place of the nearest earlier one, how many may have missed one)."""
    best: Array = numpy.full(len(prints), BITS << PLACE_BITS, numpy.int64)
    cut: Array = numpy.zeros(len(prints), bool)
    parts = prints.reshape(-1, 1).view(numpy.uint8)
    crowds = numpy.stack([numpy.bincount(part)[part] for part in parts.T], 1).astype(numpy.int32)
    for one, other in combinations(range(BYTES), 2):
        keys = parts[:, one].astype(numpy.uint16) << 8 | parts[:, other]
        order = numpy.argsort(keys, kind="stable")  # within a bucket the earlier come first
        ranks = _ranks(keys[order])
        cut[order[ranks > WINDOW]] = True
        confirm = (
            functools.partial(_confirmed, prints, crowds, (one, other), alike) if alike else None
        )
        _compare(prints[order], order, ranks, best, confirm)
    return best, int((cut & (best >> PLACE_BITS > NEAR)).sum())


def _ranks(keys: Array) -> Array:
    """How many of the same key stand before each, of sorted keys."""
    places = numpy.arange(len(keys))
    begins = numpy.flatnonzero(numpy.diff(keys, prepend=~keys[:1]))
    lengths = numpy.diff(begins, append=len(keys))
    return places - numpy.repeat(begins, lengths)


def _confirmed(
    prints: Array,
    crowds: Array,
    table: tuple[int, int],
    alike: Alike,
    mine: Array,
    others: Array,
) -> Array:
    """Which of these near pairs count.

    Each is looked at in one table alone, that of the two rarest bytes that it shares: in a crowded
    bucket it may be cut. crowds: of each hash and byte, how many have that byte there.
    """
    differ = (prints[mine] ^ prints[others]).reshape(-1, 1).view(numpy.uint8) != 0
    shared = numpy.where(differ, len(prints) + 1, crowds[mine])
    rarest = shared.argmin(1)
    shared[numpy.arange(len(mine)), rarest] = len(prints) + 1
    second = shared.argmin(1)
    first, last = numpy.minimum(rarest, second), numpy.maximum(rarest, second)
    here = numpy.flatnonzero((first == table[0]) & (last == table[1]))
    confirmed: Array = numpy.zeros(len(mine), bool)
    confirmed[here] = alike(mine[here], others[here])
    return confirmed


def _compare(prints: Array, order: Array, ranks: Array, best: Array, confirm: Alike | None) -> None:
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
        if confirm:
            better = numpy.flatnonzero(found < best[mine])
            better = better[confirm(mine[better], others[better])]
            mine, found = mine[better], found[better]
        best[mine] = numpy.minimum(best[mine], found)
