"""Undo the spelling tricks that hide a word from a filter: leetspeak, look-alikes, spaced letters.

>>> list(readings("a n_4_k_3_d w0man, 1girl"))[-1]
['a', 'naked', 'woman', '1', 'girl']

Each reading is a list of words in lower case, without accents, with Latin letters for those that
look like them. The first is the plain one; others follow only where the text holds digits or signs
inside words (l33t), letters with separators between them, or letters three times in a row.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from common.texts import word_set

# @ and $ may begin a word; the other signs stand for a letter only between two
WORD = re.compile(r"[@$]?[^\W_]+(?:[@$!*|+]+[^\W_]+)*")
PART = re.compile(r"[^\W\d_]+|\d+")
THRICE = re.compile(r"([^\W\d_])\1\1+")
PLAIN = re.compile(r"[a-z]+|\d+")
LEET = str.maketrans("0345789@$!|+", "oeastbgasiit")
NEVER_TORN = word_set("a an as at by de go he in is it me my no of on or so to up us we")
STOPS = ".,;:!?)"
LONGEST_SPELT_OUT = 20  # letters: longer rows of single letters are lists, not words

LOOKALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u0475"
    "\u043a\u043c\u0442\u0432\u043d\u0433\u0438\u043f"
    "\u03b1\u03b5\u03bf\u03c1\u03c5\u03bd\u03ba\u03c4\u03b9\u03b7\u03c7\u03c9\u03b3\u03b2"
    "\u0131\u0251\u0261\u026a\u0280\u0274\u029f\u1d00\u0299\u1d04\u1d05\u1d07\u0262\u029c\u1d0a"
    "\u1d0b\u1d0d\u1d0f\u1d18\u1d1b\u1d1c\u1d20\u1d21\u028f\u1d22\u00f8\u0142\u0111\u00df\u00e6"
    "\u00a2\u00a3\u20ac\u00a5",
    "aeopcyxijshdqwvkmtbhrnnaeopuvktinxwybiagirnlabcdeghjkmoptuvwyzoldsacley",
)
SQUARED = (0x1F130, 0x1F150, 0x1F170)  # blocks of A-Z in squares and circles
UNBOXED = {first + n: chr(ord("a") + n) for first in SQUARED for n in range(26)}
# emoji that are drawn for parts of a body, as words of the lists
SIGNS = {0x1F346: "eggplant", 0x1F348: "melon", 0x1F351: "peach", 0x1F4A6: "drop"}
SPOKEN = UNBOXED | {sign: f" {name}sign " for sign, name in SIGNS.items()}
NOT_ASCII = re.compile(r"([^\x00-\x7f]+)")


def readings(text: str) -> Iterator[list[str]]:
    """The readings of a text, the plain one first; at most seven."""
    tokens = tokens_of(text)
    plain = [part for token in tokens for part in PART.findall(token)]
    yield plain
    if spells_out(tokens):
        yield _spelt_out(tokens)
    mixed = [token for token in tokens if not PLAIN.fullmatch(token) and "*" not in token]
    if mixed:
        for one in "il":
            yield [word for token in tokens for word in _without_leet(token, one)]
    if any(THRICE.search(word) for word in plain):
        for times in (1, 2):
            yield [THRICE.sub(r"\1" * times, word) for word in plain]


def tokens_of(text: str) -> list[str]:
    """The words of a text in plain letters, with the signs and digits inside them."""
    return tokens_of_plain(plain_letters(text))


def tokens_of_plain(plain: str) -> list[str]:
    """The same of a text that plain_letters() has given."""
    return WORD.findall(plain)


def spells_out(tokens: Sequence[str]) -> bool:
    """Whether three letters stand one by one, so that a reading spells them out."""
    run = 0
    for token in tokens:
        run = run + 1 if len(token) == 1 else 0
        if run == 3:
            return True
    return False


def torn_words(plain: str) -> Iterator[str]:
    """What two words make together, one of them of one or two letters: "nak ed", "ti ts".

    Not "the pen is" or "the blue tit's": the short one must be no word. plain: of plain_letters().
    """
    words = plain.split(" ")
    for place in [n for n, word in enumerate(words) if len(word) < 3 or word[2] in STOPS]:
        word = words[place]
        short = word.rstrip(STOPS)
        if len(short) > 2 or short in NEVER_TORN or not short.isalpha():
            continue
        if place and words[place - 1].isalpha():
            yield words[place - 1] + short
        if short == word and place + 1 < len(words):
            yield short + words[place + 1].rstrip(STOPS)


def masked_words(text: str) -> list[str]:
    """Words with asterisks for letters (f*ck), each once, 20 at most."""
    if "*" not in text:
        return []
    tokens = dict.fromkeys(tokens_of(text))
    return [token for token in tokens if "*" in token and token.isascii()][:20]


def plain_letters(text: str) -> str:
    """Lower case without accents and invisible characters; lookalikes become Latin letters."""
    if text.isascii():
        return text.lower()
    parts = NOT_ASCII.split(text)  # every other part is not ASCII; the cache helps with repeats
    parts[::2] = [part.lower() for part in parts[::2]]
    parts[1::2] = map(_plain, parts[1::2])
    return "".join(parts)


@lru_cache(maxsize=500)  # quotation marks and accents; a hostile run may be long
def _plain(signs: str) -> str:
    """Signs that are not ASCII, none of which depends on the ASCII ones around it."""
    folded = unicodedata.normalize("NFKD", signs.translate(SPOKEN)).casefold()
    letters = (c for c in folded if unicodedata.category(c) not in ("Mn", "Me", "Cf"))
    return "".join(letters).translate(LOOKALIKES)


def _without_leet(token: str, one: str) -> Sequence[str]:
    """A token's words when digits and signs among its letters stand for letters."""
    if token.isalpha() or not any(character.isalpha() for character in token):
        return PART.findall(token)
    return [token.translate(LEET).replace("1", one).replace("6", "g").replace("*", "")]


def _spelt_out(tokens: Sequence[str]) -> list[str]:
    """The reading in which letters that stand one by one are words: n-u-d-e, s e x."""
    words: list[str] = []
    run: list[str] = []
    for token in [*tokens, ""]:
        if len(token) == 1 and len(run) < LONGEST_SPELT_OUT:
            run.append(token)
            continue
        if len(run) >= 3:
            # "a n u d e" begins with an article
            article = ["a"] if run[0] == "a" and len(run) > 3 else []
            rest = "".join(run[len(article) :])
            words += [*article, rest.translate(LEET).replace("1", "i")]
            if article:
                words.append("".join(run).translate(LEET).replace("1", "i"))
        else:
            words += run
        run = []
        words += PART.findall(token)
    return words
