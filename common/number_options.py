"""Numbers of a command line: each has a least and a largest value.

    parser.add_argument("--batch_size", type=whole(1, 100_000))
    parser.add_argument("--ttl_s", type=number(0.1, DAY_S))

Without a largest one a slip of the hand asks for 10**9 processes, or for more than C can hold.
"""

import argparse
import contextlib
from collections.abc import Callable

MANY = 10**9  # of whatever a run counts
LARGEST_SEED = 2**63 - 1
MOST_PROCESSES = 1024  # of one machine
MOST_PARTS = 100_000  # of work that an array shares
DAY_S = 86_400
YEAR_S = 365 * DAY_S


def whole(least: int, most: int = MANY) -> Callable[[str], int]:
    """For argparse: a whole number from `least` to `most`."""

    def whole_number(word: str) -> int:
        with contextlib.suppress(ValueError):
            if least <= int(word) <= most:
                return int(word)
        raise _refused(word, "whole number", least, most)

    return whole_number


def number(least: float, most: float) -> Callable[[str], float]:
    """For argparse: a number from `least` to `most`; not nan, which no comparison finds wrong."""

    def any_number(word: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= float(word) <= most:
                return float(word)
        raise _refused(word, "number", least, most)

    return any_number


def _refused(word: str, what: str, least: float, most: float) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{word[:30]} is not a {what} from {least:,} to {most:,}")
