"""Names of shards in brace form, as people and WebDataset read them.

braces(["train-000000.tar", "train-000001.tar"])     # "train-{000000..000001}.tar"
"""

import re
from collections.abc import Sequence

NUMBERED = re.compile(r"(.*?)([0-9]{5,})(\.\w+)")


def braces(names: Sequence[str]) -> str:
    """Names with consecutive numbers in brace form; others joined by commas."""
    match = [NUMBERED.fullmatch(name) for name in names]
    numbers = [int(found[2]) for found in match if found]
    first = match[0] if match else None
    if first is None or numbers != list(range(numbers[0], numbers[0] + len(names))):
        return ", ".join(names)
    if len(names) == 1:
        return names[0]
    width = len(first[2])
    return f"{first[1]}{{{numbers[0]:0{width}d}..{numbers[-1]:0{width}d}}}{first[3]}"
