"""What combine.py tells of its work: the report beside the output, and the table it prints."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

from combine_prompts.terms import terms_of

Counts = dict[str, Counter[str]]  # by source: read, each reason to drop, kept

PLACES = ("inputs", "exclude", "output", "num_workers")  # what differs between equal runs


class Combined(Protocol):
    """The part of the settings that the report needs."""

    @property
    def inputs(self) -> list[Path]: ...
    @property
    def exclude(self) -> list[Path]: ...
    @property
    def output(self) -> Path: ...


def summary(
    settings: Combined, counts: Counts, kept: list[dict[str, Any]], text: str
) -> dict[str, Any]:
    """The report: deterministic (no time, no path), so that two runs can be compared."""
    options = {name: value for name, value in vars(settings).items() if name not in PLACES}
    return {
        "output": settings.output.name,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "kept": len(kept),
        "in several sources": sum(len(item["source"]) > 1 for item in kept),
        "options": options,
        "sources": {
            path.stem: {
                "sha256": sha256(path),
                "counts": dict(counts[path.stem]),
                "terms": terms_of(path.stem),
            }
            for path in settings.inputs
            if path.stem in counts
        },
        "excluded": {
            path.stem: {"sha256": sha256(path), "terms": terms_of(path.stem)}
            for path in settings.exclude
        },
    }


def sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def print_table(counts: Counts) -> None:
    """Counts per source; an item that several sources have counts under the first."""
    reasons = dict.fromkeys(reason for column in counts.values() for reason in column)
    between = [reason for reason in reasons if reason not in ("read", "kept")]
    rows = ["read", *between, "kept"]
    width = max(map(len, rows))
    _print_row("", [*counts, "all"], width)
    for row in rows:
        numbers = [column[row] for column in counts.values()]
        _print_row(row, [f"{number:,}" for number in [*numbers, sum(numbers)]], width)


def _print_row(name: str, cells: list[str], width: int) -> None:
    print(f"  {name:<{width}}" + "".join(f"  {cell:>12}" for cell in cells))
