"""Figures of captions: their length, what variations keep of a prompt, how they differ.

keeps("a red fox in snow", "a crimson fox runs through snow")      # 0.67: fox, snow of 3 words
differs(["a fox at dawn", "a fox in the rain"])                    # 0 (copies) to 1
"""

import itertools
import random
import re
from collections.abc import Sequence
from functools import lru_cache

WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
# Function words; all others are content words.
FUNCTION_WORDS = frozenset(
    WORD.findall(
        "a an and are as at be by for from has have in into is it its of on or over some that "
        "the their there these this to under up was were which while with"
    )
)
PAIRS = 50  # of the variations of one prompt that are compared


@lru_cache(maxsize=1 << 15)  # all that a report reads: several of its sections ask for each
def words(text: str) -> int:
    """The number of words of a text."""
    return len(WORD.findall(text))


@lru_cache(maxsize=256)  # of one prompt and its variations it is asked several times
def content(text: str) -> frozenset[str]:
    """The content words of a text, in lower case."""
    return frozenset(WORD.findall(text.lower())) - FUNCTION_WORDS


def keeps(original: str, variation: str) -> float | None:
    """The share of a prompt's content words that stand in its variation; None: it has none."""
    asked = content(original)
    return len(asked & content(variation)) / len(asked) if asked else None


def differs(variations: Sequence[str], seed: int = 0) -> float | None:
    """1 - the mean Jaccard similarity of the content words of pairs; None below two texts."""
    pairs = list(itertools.combinations([content(text) for text in variations], 2))
    if not pairs:
        return None
    if len(pairs) > PAIRS:
        pairs = random.Random(seed).sample(pairs, PAIRS)
    return 1 - sum(len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairs) / len(pairs)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known; None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
