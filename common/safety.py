"""What no picture is made of: sexual content, minors with it (always), hate; and rude words.

>>> find("a 15 year old in lingerie").minors
'15 year old + lingerie'

The lists are in common/word_lists; their words count in every spelling of spelling_tricks.py, and
do not count inside a phrase of innocent.txt ("naked mole rat", "paint stripper").
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from common.phrases import Hit, PhraseTable, read_phrases
from common.spelling_tricks import masked_words, readings

LISTS = (
    "explicit",
    "suggestive",
    "weakly_suggestive",
    "child",
    "young",
    "hate",
    "profanity",
    "innocent",
)
ADULT = 18
NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
NUMBER_WORDS += ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"]
NUMBER_WORDS += ["seventeen", "eighteen"]
NUMBERS = {word: value for value, word in enumerate(NUMBER_WORDS)}
NUMBER = rf"(?:(?P<tens>\d) )?(?P<number>\d{{1,2}}|{'|'.join(NUMBERS)})"
YEARS = "(?:years?|yrs?|y|months?|weeks?|days?|winters|summers)"
AFTER = "(?:old|olds|o|of age|young|aged|girl|boy|kid|child|teen|student|virgin|daughter|son)"
NO_AGE = (
    "(?:seconds?|minutes?|hours?|dollars?|percent|meters?|feet|degrees|miles|km|pounds?|people)"
)
AGES = [
    re.compile(rf"\b{NUMBER} (?:{YEARS} {AFTER}|yo|yos|yrs?|y)\b"),
    re.compile(rf"\b(?:age|aged|ages|turned|turning|turns|is only|barely) (?:of |is )?{NUMBER}\b"),
    re.compile(
        r"\b(?:under|below|younger than|not yet|less than|before) (?:age |the age of |age of )?"
        rf"{NUMBER}\b(?! {NO_AGE})"
    ),
    re.compile(rf"\b{NUMBER} ?(?:st|nd|rd|th) (?:birthday|grade|grader|graders)\b"),
]
UNDER = re.compile(r"^(?:under|below|younger|not|less|before)")
GRADES = re.compile(r"grade")


@dataclass(frozen=True)
class Findings:
    """What was found: the expression, empty if nothing."""

    minors: str = ""
    sexual: str = ""
    hate: str = ""
    profanity: str = ""


def find(text: str) -> Findings:
    """What a text holds, in its worst reading."""
    worst = Findings()
    for words in readings(text):
        found = _find_in(words)
        worst = Findings(
            worst.minors or found.minors,
            worst.sexual or found.sexual,
            worst.hate or found.hate,
            worst.profanity or found.profanity,
        )
    if masked := masked_words(text):
        worst = _with_masked(worst, masked, text)
    return worst


def _find_in(words: Sequence[str]) -> Findings:
    hits = _counted(words)
    sexual = _first(hits, "explicit")
    child = _first(hits, "child") or find_age(words)
    young = child or _first(hits, "young")
    suggestive = _first(hits, "suggestive")
    minors = ""
    if young and (sexual or suggestive):
        minors = f"{young} + {sexual or suggestive}"
    elif child and (weak := _first(hits, "weakly_suggestive")):
        minors = f"{child} + {weak}"
    return Findings(minors, sexual, _first(hits, "hate"), _first(hits, "profanity"))


def _counted(words: Sequence[str]) -> list[Hit]:
    """The hits that do not stand inside a harmless phrase."""
    hits = _table().find(words)
    harmless = [hit for hit in hits if hit.name == "innocent"]
    if not harmless:
        return hits
    return [
        hit
        for hit in hits
        if not any(each.start <= hit.start and hit.end <= each.end for each in harmless)
    ]


def _first(hits: Sequence[Hit], name: str) -> str:
    return next((hit.phrase for hit in hits if hit.name == name), "")


def find_age(words: Sequence[str]) -> str:
    """An age below 18 as a text says it ("15 year old", "aged twelve"); empty without one."""
    if not any(word.isdigit() or word in NUMBERS for word in words):
        return ""
    line = " ".join(words)
    for pattern in AGES:
        for match in pattern.finditer(line):
            if _is_minor(match):
                return match[0]
    return ""


def _is_minor(match: re.Match[str]) -> bool:
    number = match["number"]
    age = NUMBERS[number] if number in NUMBERS else int((match["tens"] or "") + number)
    if UNDER.match(match[0]):
        return 10 <= age <= ADULT
    if GRADES.search(match[0]):
        return age <= 12
    return age < ADULT


@lru_cache(maxsize=1)
def _table() -> PhraseTable:
    return PhraseTable({name: read_phrases(name) for name in LISTS})


def _with_masked(found: Findings, masked: Sequence[str], text: str) -> Findings:
    """`found`, and what words with asterisks for letters (f*ck) can only be."""
    unmasked = [_unmasked(word) for word in masked]
    sexual = next((word for word in unmasked if word in _masked_lists()["explicit"]), "")
    rude = next((word for word in unmasked if word in _masked_lists()["profanity"]), "")
    minors = found.minors
    if sexual and not minors:
        minors = _find_in([*next(readings(text)), sexual]).minors
    return Findings(minors, found.sexual or sexual, found.hate, found.profanity or rude)


@lru_cache(maxsize=1)
def _masked_lists() -> dict[str, frozenset[str]]:
    return {name: frozenset(_table().single_words(name)) for name in ("explicit", "profanity")}


@lru_cache(maxsize=10_000)
def _unmasked(word: str) -> str:
    """The word of the lists that a masked one can only be; empty if there is none."""
    parts = [re.escape(part) for part in re.split(r"\*+", word)]
    if sum(map(len, parts)) < 2:
        return ""
    pattern = re.compile("[a-z]{1,3}".join(parts))
    for name in ("explicit", "profanity"):
        for candidate in sorted(_masked_lists()[name]):
            if len(candidate) >= 3 and pattern.fullmatch(candidate):
                return candidate
    return ""
