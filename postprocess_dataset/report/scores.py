"""Scores of images in a report: a histogram of each, and how many tries an image took.

Read are columns `score_NAME`, and what the JSON of a sample holds: `scores`, `tries`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

BINS = 24
PREFIX = "score_"


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


def scores_of(row: dict[str, Any]) -> dict[str, float]:
    """{name: score} of a row; what is no finite number is left out."""
    found = {
        name.removeprefix(PREFIX): value for name, value in row.items() if name.startswith(PREFIX)
    }
    inside = row.get("scores")
    if isinstance(inside, dict):
        found = {**inside, **found}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def histograms(rows: Iterable[dict[str, Any]]) -> list[Histogram]:
    """One for each score, by name."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, score in scores_of(row).items():
            values.setdefault(name, []).append(score)
    return [histogram(name, found) for name, found in sorted(values.items())]


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


def accepted_share(rows: Iterable[dict[str, Any]]) -> float | None:
    """Images for each try of the rows that tell their tries; None where none does."""
    tries = [row["tries"] for row in rows if type(row.get("tries")) is int and row["tries"] > 0]
    return len(tries) / sum(tries) if tries else None
