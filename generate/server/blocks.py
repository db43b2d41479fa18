"""Blocks of 1,000 indices and their done bits: one sub-folder of a data set, one row in the ledger.

block_of(12_345)                     # 12
list(numbers(bits_of(b"\\x05")))      # [0, 2]
"""

from collections.abc import Iterable, Iterator

BLOCK = 1000  # indices of a block; 125 bytes of done bits

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


def sums_of(figures: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Counters of indices with these (images, images that the LLMs' texts fell short)."""
    rows = list(figures)
    return {
        "images": sum(images for images, _ in rows),
        "short": sum(missing > 0 for _, missing in rows),
        "short_images": sum(missing for _, missing in rows),
    }
