"""Sets of numbers as the mark PACKED writes them: "0-6,8-199".

ranges({0, 1, 2, 5})                # "0-2,5"
set(numbers("0-2,5", most=100))     # {0, 1, 2, 5}
"""

from collections.abc import Iterator
from itertools import chain

MOST_AUGMENTATIONS = 1_000_000  # of a prompt: names have six digits


def numbers(text: str, most: int) -> Iterator[int]:
    """The numbers of "0-6,8-199", each once. ValueError as of parts()."""
    return chain.from_iterable(parts(text, most))


def parts(text: str, most: int = MOST_AUGMENTATIONS) -> Iterator[range]:
    """The ranges of "0-6,8-199".

    ValueError: their numbers are more than `most`, no augmentations, or not in order. So a text of
    a megabyte cannot name the same million a hundred thousand times.
    """
    end = 0
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found = range(int(first), int(last or first) + 1)
        most -= len(found)
        if most < 0 or not found or found[0] < end or found[-1] >= MOST_AUGMENTATIONS:
            raise ValueError(f"{part!r:.80} are more files than lie there, or not in order")
        end = found[-1] + 1
        yield found


def ranges(values: set[int] | frozenset[int]) -> str:
    """The inverse of numbers(): "0-6,8-199"."""
    joined: list[list[int]] = []
    for value in sorted(values):
        if joined and value == joined[-1][1] + 1:
            joined[-1][1] = value
        else:
            joined.append([value, value])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in joined)
