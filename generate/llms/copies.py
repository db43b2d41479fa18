"""Find texts that say the same as an earlier one, by the content words that differ.

index = CopyIndex(["a corgi in a top hat"])
index.has("The corgi, in top hats!")        # True
index.has("a walrus in a top hat")          # False: one content word differs
"""

import re
import unicodedata
from collections.abc import Iterable

from rapidfuzz import fuzz

from common.texts import word_set

UNIT = re.compile(r"\b(\d+) (mm|cm|m|k|p|px)\b")
# Words that do not change the picture, or that any prompt may have.
EMPTY = word_set(
    """a an the of in on at by to for from with and or as is are was be it its his her their this
    that there while which who very highly extremely really detailed beautiful quality high hd uhd
    best ultra hyper 4k 8k 16k hdr resolution masterpiece image picture scene showing depicting
    featuring features view s t"""
)
SAME = {"cosy": "cozy", "colour": "color", "grey": "gray", "towards": "toward"}
TYPO = 86  # rapidfuzz ratio of two long words that are one word spelt twice: Marrakesh, Marrakech
TYPO_LETTERS = 5
MOST_TYPOS = 2


def fold(text: str) -> str:
    """Letters and digits alone, lower case, without accents and articles."""
    text = unicodedata.normalize("NFKD", text).casefold()
    letters = [c if c.isalnum() else " " for c in text if not unicodedata.combining(c)]
    words = "".join(letters).split()
    return " ".join([word for word in words if word not in ("a", "an", "the")] or words)


def overlap(original: str, text: str) -> float:
    """Share of the original's words that the text has too, 0 … 1."""
    words = set(fold(original).split())
    return round(len(words & set(fold(text).split())) / len(words), 3) if words else 0.0


def content_words(text: str) -> frozenset[str]:
    """The content words, without endings: "two dogs playing" -> two, dog, play."""
    words = UNIT.sub(r"\1\2", fold(text)).split()
    return frozenset([_stem(word) for word in words if word not in EMPTY] or words)


def _stem(word: str) -> str:
    word = SAME.get(word, word)
    if len(word) > 6 and word.endswith("ing"):
        word = word[:-3]
    elif len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    return word


class CopyIndex:
    """The texts of one prompt so far."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.known: set[frozenset[str]] = set()
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Remember a text."""
        self.known.add(content_words(text))

    def has(self, text: str) -> bool:
        """Whether one of them has the same content words, in any order, but for typos."""
        words = content_words(text)
        return words in self.known or any(_differ_by_typos(words, other) for other in self.known)


def _differ_by_typos(one: frozenset[str], other: frozenset[str]) -> bool:
    if len(one) != len(other):
        return False
    left = sorted(one - other)
    right = sorted(other - one)
    if len(left) > MOST_TYPOS:
        return False
    return all(_is_typo(a, b) for a, b in zip(left, right, strict=True))


def _is_typo(one: str, other: str) -> bool:
    if min(len(one), len(other)) < TYPO_LETTERS or not (one + other).isalpha():
        return False
    return one[0] == other[0] and fuzz.ratio(one, other) >= TYPO
