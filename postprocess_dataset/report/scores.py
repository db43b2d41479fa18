"""Scores of images in a report: a histogram of each, and how many tries an image took.

Read are columns `score_NAME`, and what the JSON of a sample holds: `scores`, `tries`.
"""

from collections.abc import Iterable
from typing import Any

from common.json_form import number
from common.scores.histogram import Histogram, histogram

PREFIX = "score_"


def scores_of(row: dict[str, Any]) -> dict[str, float]:
    """{name: score} of a row; what is no finite number is left out."""
    found = {
        name.removeprefix(PREFIX): value for name, value in row.items() if name.startswith(PREFIX)
    }
    inside = row.get("scores")
    if isinstance(inside, dict):
        found = {**inside, **found}
    return {name: float(value) for name, value in found.items() if number(value)}


def histograms(rows: Iterable[dict[str, Any]]) -> list[Histogram]:
    """One for each score, by name."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, score in scores_of(row).items():
            values.setdefault(name, []).append(score)
    return [histogram(name, found) for name, found in sorted(values.items())]


def accepted_share(rows: Iterable[dict[str, Any]]) -> float | None:
    """Images for each try of the rows that tell their tries; None where none does."""
    tries = [row["tries"] for row in rows if type(row.get("tries")) is int and row["tries"] > 0]
    return len(tries) / sum(tries) if tries else None
