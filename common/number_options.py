"""Numbers of a command line: each has a least and a largest value.

    parser.add_argument("--batch_size", type=whole(1, 100_000))
    parser.add_argument("--ttl_s", type=number(0.1, DAY_S))

Without a largest one a slip of the hand asks for 10**9 processes, or for more than C can hold.
"""

import argparse
import contextlib
from collections.abc import Callable
from typing import TypeVar

MANY = 10**9  # of whatever a run counts
LARGEST_SEED = 2**63 - 1
MOST_PROCESSES = 1024  # of one machine
MOST_PARTS = 100_000  # of work that an array shares
DAY_S = 86_400
YEAR_S = 365 * DAY_S
Number = TypeVar("Number", int, float)


def whole(least: int, most: int = MANY) -> Callable[[str], int]:
    """For argparse: a whole number from `least` to `most`."""
    return _within(int, "whole number", least, most)


def number(least: float, most: float) -> Callable[[str], float]:
    """For argparse: a number from `least` to `most`; not nan, which no comparison finds wrong."""
    return _within(float, "number", least, most)


def _within(
    kind: Callable[[str], Number], what: str, least: float, most: float
) -> Callable[[str], Number]:
    def checked(word: str) -> Number:
        with contextlib.suppress(ValueError):
            if least <= kind(word) <= most:
                return kind(word)
        raise argparse.ArgumentTypeError(f"{word[:30]} is not a {what} from {least:,} to {most:,}")

    return checked
