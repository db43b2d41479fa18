"""Histograms: equal bins from the smallest value to the largest.

histogram("nsfw", [0.01, 0.02, 0.9]).bins
bars(histogram("nsfw", […]))              # "█▅  ▂": a line of text
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

BINS = 24
LEVELS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Histogram:
    """Equal bins from `low` to `high`; `shares` of the highest bin, 0 to 1."""

    name: str
    count: int
    low: float
    high: float
    median: float
    bins: tuple[int, ...]

    @property
    def shares(self) -> list[float]:
        most = max(self.bins)
        return [number / most for number in self.bins]


def histogram(name: str, values: Sequence[float]) -> Histogram:
    """Of at least one value. Whole numbers never have more bins than there are numbers."""
    ordered = sorted(values)
    low = ordered[0]
    high = ordered[-1]
    bins = BINS if high > low else 1
    width = (high - low) / bins
    if all(value == int(value) for value in (low, high, *ordered[:100])):
        width = max(1, math.ceil((high - low + 1) / BINS))
        bins = int(high - low) // width + 1
    counts = [0] * bins
    for value in ordered:
        counts[min(int((value - low) / width) if width else 0, bins - 1)] += 1
    return Histogram(name, len(ordered), low, high, ordered[len(ordered) // 2], tuple(counts))


def bars(of: Histogram) -> str:
    """One character a bin, by its height; a blank where no value lies."""
    return "".join(
        LEVELS[math.ceil(share * len(LEVELS)) - 1] if share else " " for share in of.shares
    )
