"""Is a text better known in another language than in English? By how often each uses its words.

>>> foreign_evidence(["katze", "schläft"])[1], foreign_evidence(["sleeping", "cat"])[0] < 0
('de', True)

How the list was made, and its licence: make_known_words.py.
"""

import lzma
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

LIST = Path(__file__).resolve().parent / "word_lists" / "known_words.txt.xz"
LETTERS = re.compile(r"[^\W\d_\u0250-\U0010ffff]+")  # a word in Latin letters
# all in levels, which are half decades of frequency
KNOWN = 1  # a word that a language knows; one that it does not know is rarer than level 0
UNKNOWN = 1  # a word that no language knows speaks against English,
MOST_UNKNOWN = 3  # gibberish no more than this,
UNKNOWN_LETTERS = 5  # and one with letters that English has not most of all
CAPITAL = 0.5  # how much a word with a capital counts: most are names
UNDETERMINED = "und"  # the code of a language that no word tells


def foreign_evidence(words: Iterable[str]) -> tuple[float, str]:
    """(decades of likelihood for the likeliest foreign language against English, its code)."""
    known = _known()
    levels: defaultdict[str, float] = defaultdict(float)
    against_english = unknown = 0.0
    for word in words:
        share = 1 if word.islower() else CAPITAL
        entry = known.get(word.casefold())
        if entry is None and word.isascii():
            unknown += share * UNKNOWN
        elif entry is None:
            against_english += share * UNKNOWN_LETTERS
        else:
            against_english -= share * (int(entry[0], 16) + KNOWN)
            for place in range(1, len(entry), 3):
                levels[entry[place : place + 2]] += share * (int(entry[place + 2], 16) + KNOWN)
    against_english += min(unknown, MOST_UNKNOWN)
    language = max(levels, key=levels.__getitem__, default=UNDETERMINED)
    return (levels[language] + against_english) / 2, language


@cache
def _known() -> dict[str, str]:
    """{word: level of English, codes of two letters with a level each}; reading takes 0.3 s."""
    text = lzma.decompress(LIST.read_bytes()).decode()
    return dict(line.split("\t") for line in text.splitlines())
