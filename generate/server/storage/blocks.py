"""Blocks of 1,000 indices and their done bits: one sub-folder of a data set, one row in the ledger.

block_of(12_345)                     # 12
list(numbers(bits_of(b"\\x05")))      # [0, 2]

The random order: blocks are opened in the order of spread(), OPEN_BLOCKS of them at a time, and the
places within each follow shuffled_places(). The cost does not grow with what was granted before.
Only a block's position in the order is stored.
"""

import functools
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence

BLOCK = 1000  # indices of a block; 125 bytes of done bits
# Blocks that are drawn from at a time: docs/job-server.md has the arithmetic.
OPEN_BLOCKS = 256

Figures = dict[int, tuple[int, int]]  # {index: (images, images that the LLMs' texts fell short)}


def bits_of(blob: bytes) -> int:
    return int.from_bytes(blob, "little")


def blob_of(bits: int) -> bytes:
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def numbers(bits: int) -> Iterator[int]:
    """Places of the one bits, ascending."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def block_of(idx: int) -> int:
    return idx // BLOCK


def first_of(block: int) -> int:
    return block * BLOCK


def blocks_of(total: int) -> int:
    """Number of blocks of so many indices."""
    return -(-total // BLOCK)


def place_of(idx: int) -> int:
    """Place of an index in its block."""
    return idx % BLOCK


def block_sizes(start: int, total: int) -> dict[int, int]:
    """{block: how many of the indices start … total - 1 are in it}, ascending."""
    blocks = range(block_of(start), blocks_of(total))
    return {
        block: min(total, first_of(block + 1)) - max(start, first_of(block)) for block in blocks
    }


def spread(blocks: Sequence[int], rng: random.Random) -> list[int]:
    """The blocks in a random order whose every beginning is spread over all of them.

    Recursive: both halves are ordered in this way, then taken from in turn, and which one gives
    first is random for each pair. So of the first 2**k blocks one lies in each of 2**k equal
    stretches, at a random place (a scrambled van der Corput sequence: Owen 1995, Randomly permuted
    (t,m,s)-nets).
    """
    if len(blocks) < 2:
        return list(blocks)
    half = (len(blocks) + rng.getrandbits(1)) // 2
    order: list[int | None] = []
    first, second = spread(blocks[:half], rng), spread(blocks[half:], rng)
    for a, b in itertools.zip_longest(first, second):
        order += (a, b) if rng.getrandbits(1) else (b, a)
    return [block for block in order if block is not None]


@functools.lru_cache(maxsize=2 * OPEN_BLOCKS)
def shuffled_places(seed: int, block: int) -> tuple[int, ...]:
    """The places of a block in the random order in which they are handed out."""
    places = list(range(BLOCK))
    random.Random(f"{seed} {block}").shuffle(places)
    return tuple(places)


def sums_of(figures: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Counters of indices with these (images, images that the LLMs' texts fell short)."""
    rows = list(figures)
    return {
        "images": sum(images for images, _ in rows),
        "short": sum(missing > 0 for _, missing in rows),
        "short_images": sum(missing for _, missing in rows),
    }
