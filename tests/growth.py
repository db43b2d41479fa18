"""How the cost of a function grows with the length of its text, as a ratio: any machine will do."""

import time
from collections.abc import Callable

MOST = 30  # times the cost for ten times the length; a quadratic rule has 100


def growth(work: Callable[[str], object], made: Callable[[int], str]) -> float:
    """How much more 10^5 characters cost than 10^4, in CPU time.

    Tried again before it is too much: another process may have taken the caches.
    """
    ratio = 0.0
    for _ in range(3):
        ratio = _seconds(work, made(100_000)) / max(_seconds(work, made(10_000)), 1e-3)
        if ratio <= MOST:
            break
    return ratio


def _seconds(work: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    work(text)
    return time.process_time() - start
