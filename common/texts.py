"""A common form of texts, so that two spellings of one text are equal.

>>> fold("A Red  fox, (8K)!")
'a red fox 8k'
"""

import re
import unicodedata

ASCII_FOLDED = str.maketrans(
    {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
)
FOLDED_AWAY = re.compile("[^\\w\u2600-\u27bf\U0001f000-\U0001faff]+|_+")


def fold(text: str) -> str:
    """The key of exact duplicates: case, punctuation and blanks folded.

    Letters, digits and emoji count.
    """
    if text.isascii():
        return " ".join(text.translate(ASCII_FOLDED).split())
    text = unicodedata.normalize("NFKC", text)
    return " ".join(FOLDED_AWAY.sub(" ", text.casefold()).split())


def word_set(words: str) -> frozenset[str]:
    """The words of a text as a set: how word lists are written in the code."""
    return frozenset(words.split())


def phrase_set(phrases: str) -> frozenset[str]:
    """The phrases of a text, parted by commas, as a set."""
    return frozenset(" ".join(phrase.split()) for phrase in phrases.split(","))
