"""Sets of numbers as the mark PACKED writes them: "0-6,8-199".

ranges({0, 1, 2, 5})                # "0-2,5"
set(numbers("0-2,5", most=100))     # {0, 1, 2, 5}
"""

from collections.abc import Iterator

MOST_AUGMENTATIONS = 1_000_000  # of a prompt: names have six digits


def numbers(text: str, most: int) -> Iterator[int]:
    """The numbers of "0-6,8-199". ValueError: they are more than `most`, or no augmentations."""
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found = range(int(first), int(last or first) + 1)
        most -= len(found)
        if most < 0 or not found or found[0] < 0 or found[-1] >= MOST_AUGMENTATIONS:
            raise ValueError(f"{part!r:.80} are more files than lie there")
        yield from found


def ranges(values: set[int] | frozenset[int]) -> str:
    """The inverse of numbers(): "0-6,8-199"."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in parts)
